// Charts on their way: those that are asked for together come in one answer, and one that nobody waits for is cancelled.
import type { Chart } from "./types";

type Ask = (run: string, ids: string[], stop: AbortSignal) => Promise<Chart[]>;

interface Request {
  key: string;
  id: string;
  chart: Promise<Chart>;
  done: (chart: Chart) => void;
  fail: (why: unknown) => void;
  waiting: number;
  state: "queued" | "asked" | "there";
  /** Stops the answer that brings it, and which others that brings. */
  answer: { stop: AbortController; brings: Request[] } | null;
}

const AT_ONCE = 24;

export class Requests {
  private readonly known = new Map<string, Request>();
  private readonly queues = new Map<string, Request[]>();

  constructor(
    private readonly ask: Ask,
    private readonly kept = 600,
  ) {}

  /** A chart of a run in one of its states; `stop` says that it is no longer wanted, and the promise then fails. */
  chart(run: { id: string; state: string }, id: string, stop: AbortSignal): Promise<Chart> {
    const key = `${run.id}/${run.state}/${id}`;
    const request = this.known.get(key) ?? this.queued(run.id, key, id);
    request.waiting++;
    return new Promise((done, fail) => {
      const left = (): void => {
        request.waiting--;
        this.leave(request);
        fail(stop.reason);
      };
      if (stop.aborted) return left();
      stop.addEventListener("abort", left, { once: true });
      const over = (): void => stop.removeEventListener("abort", left);
      request.chart.then(done, fail).finally(over);
    });
  }

  private queued(run: string, key: string, id: string): Request {
    const request = { key, id, waiting: 0, state: "queued", answer: null } as unknown as Request;
    request.chart = new Promise<Chart>((done, fail) => Object.assign(request, { done, fail }));
    request.chart.catch(() => this.forget(request));
    this.known.set(key, request);
    for (const old of this.known.values()) {
      if (this.known.size <= this.kept) break;
      if (old.state === "there") this.forget(old);
    }
    const queue = this.queues.get(run);
    if (queue) queue.push(request);
    else {
      this.queues.set(run, [request]);
      setTimeout(() => void this.send(run), 0);
    }
    return request;
  }

  private async send(run: string): Promise<void> {
    const queue = this.queues.get(run) ?? [];
    this.queues.delete(run);
    for (let wanted = queue; wanted.length; wanted = wanted.slice(AT_ONCE)) {
      wanted = wanted.filter((request) => request.waiting > 0);
      await this.answer(run, wanted.slice(0, AT_ONCE));
    }
  }

  private async answer(run: string, brings: Request[]): Promise<void> {
    if (!brings.length) return;
    const answer = { stop: new AbortController(), brings };
    for (const request of brings) Object.assign(request, { answer, state: "asked" });
    try {
      const found = await this.ask(run, brings.map((request) => request.id), answer.stop.signal); // prettier-ignore
      brings.forEach((request, place) => {
        request.state = "there";
        request.done(found[place] as Chart);
      });
    } catch (why) {
      // one that cannot be given takes no other with it
      if (brings.length > 1 && !answer.stop.signal.aborted) for (const request of brings) await this.answer(run, [request]);
      else for (const request of brings) request.fail(why);
    }
  }

  /** Forget what nobody waits for, and stop an answer that brings nothing else. */
  private leave(request: Request): void {
    if (request.waiting > 0 || request.state === "there") return;
    this.forget(request);
    if (request.answer?.brings.every((one) => one.waiting === 0)) request.answer.stop.abort();
  }

  private forget(request: Request): void {
    if (this.known.get(request.key) === request) this.known.delete(request.key);
  }
}
