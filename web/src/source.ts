// Where the data come from: the server, or what an exported page carries in itself.
import type { Chart, Index, RunSummary } from "./types";
import { decode, type Grid } from "./wire";

export interface Values {
  steps: Grid;
  splits: string[];
  labels: (string | string[])[][];
  values: Grid;
  measured: Grid;
  dims: string[];
  meanings: string[];
  units: string;
  title: string;
}

export interface Changes {
  runs: number;
  seq: Record<string, number>;
}

export interface Source {
  /** Whether it may change. */
  readonly live: boolean;
  runs(): Promise<RunSummary[]>;
  index(run: string, stop?: AbortSignal): Promise<Index>;
  charts(run: string, ids: string[], stop?: AbortSignal): Promise<Chart[]>;
  variable(run: string, key: string, name: string, stop?: AbortSignal): Promise<Values>;
  /** Call back whenever one of some runs has changed; gives a way to stop that. */
  follow(runs: string[], changed: (now: Changes) => void, lost: (is: boolean) => void): () => void;
}

/** What an exported page carries: messages, compressed, in base64; charts by run and id, variables by run, instrument and name. */
export interface Carried {
  runs: RunSummary[];
  index: Record<string, string>;
  charts: Record<string, string>;
  variables: Record<string, string>;
}

export class Server implements Source {
  readonly live = true;

  async runs(): Promise<RunSummary[]> {
    return (await this.ask("api/runs")).json() as Promise<RunSummary[]>;
  }

  async index(run: string, stop?: AbortSignal): Promise<Index> {
    return (await this.message(`api/runs/${encodeURIComponent(run)}`, stop)) as Index;
  }

  async charts(run: string, ids: string[], stop?: AbortSignal): Promise<Chart[]> {
    const query = ids.map((id) => `id=${encodeURIComponent(id)}`).join("&");
    return (await this.message(`api/runs/${encodeURIComponent(run)}/charts?${query}`, stop)) as Chart[];
  }

  async variable(run: string, key: string, name: string, stop?: AbortSignal): Promise<Values> {
    const query = new URLSearchParams({ key, name });
    return (await this.message(`api/runs/${encodeURIComponent(run)}/variable?${query}`, stop)) as Values;
  }

  follow(runs: string[], changed: (now: Changes) => void, lost: (is: boolean) => void): () => void {
    const query = runs.map((run) => `run=${encodeURIComponent(run)}`).join("&");
    const events = new EventSource(`api/events?${query}`);
    events.onopen = () => lost(false);
    events.onerror = () => lost(true);
    events.onmessage = (event: MessageEvent<string>) => changed(JSON.parse(event.data) as Changes);
    return () => events.close();
  }

  private async message(path: string, stop?: AbortSignal): Promise<unknown> {
    return decode(await (await this.ask(path, stop)).arrayBuffer());
  }

  private async ask(path: string, stop?: AbortSignal): Promise<Response> {
    const answer = await fetch(path, stop ? { signal: stop } : {});
    if (!answer.ok) throw new Error((await answer.text()).slice(0, 300) || `The server said ${answer.status}.`);
    return answer;
  }
}

export class Embedded implements Source {
  readonly live = false;
  constructor(private readonly carried: Carried) {}

  async runs(): Promise<RunSummary[]> {
    return this.carried.runs;
  }

  async index(run: string): Promise<Index> {
    return (await unpacked(this.carried.index, run)) as Index;
  }

  async charts(run: string, ids: string[]): Promise<Chart[]> {
    return Promise.all(ids.map((id) => unpacked(this.carried.charts, `${run}/${id}`) as Promise<Chart>));
  }

  async variable(run: string, key: string, name: string): Promise<Values> {
    return (await unpacked(this.carried.variables, `${run}/${key}/${name}`)) as Values;
  }

  follow(): () => void {
    return () => undefined;
  }
}

async function unpacked(carried: Record<string, string>, name: string): Promise<unknown> {
  const text = Object.hasOwn(carried, name) ? carried[name] : undefined;
  if (text === undefined) throw new Error("This page does not carry that.");
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const plain = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return decode(await new Response(plain).arrayBuffer());
}

/** The source of this page. */
export function source(): Source {
  const carried = globalThis.document?.getElementById("carried");
  return carried?.textContent ? new Embedded(JSON.parse(carried.textContent) as Carried) : new Server();
}
