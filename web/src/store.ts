// What has been loaded, as signals: the list of runs, what the shown ones hold, and their charts.
import { computed, effect, signal } from "@preact/signals";
import { source } from "./source";
import { is, show } from "./state";
import type { Chart, Head, Index, RunSummary } from "./types";

export const from = source();

export const runs = signal<RunSummary[] | null>(null);
export const indexes = signal<Record<string, Index>>({});
export const trouble = signal<string | null>(null);
/** Whether the stream of changes is broken: what is shown may be old. */
export const stale = signal(false);

/** The runs that are shown, those that are loaded; the first one leads. */
export const open = computed(() => is.runs.value.map((run) => indexes.value[run]).filter((one) => one !== undefined));
export const first = computed<Index | null>(() => {
  const base = is.base.value;
  return open.value.find((one) => one.id === base) ?? open.value[0] ?? null;
});

const charts = new Map<string, Promise<Chart>>();
const waiting = new Map<string, Map<string, { done: (chart: Chart) => void; fail: (error: unknown) => void }>>();

/** A chart of a run, in the state of its index; charts that are asked for together come in one answer. */
export function chart(index: Index, head: Head): Promise<Chart> {
  const key = `${index.id}/${index.seq}/${head.id}`;
  const known = charts.get(key);
  if (known) return known;
  const made = new Promise<Chart>((done, fail) => {
    const batch = waiting.get(index.id);
    if (batch) batch.set(head.id, { done, fail });
    else {
      waiting.set(index.id, new Map([[head.id, { done, fail }]]));
      setTimeout(() => void fetchCharts(index.id), 0);
    }
  });
  if (charts.size > 600) charts.delete(charts.keys().next().value as string);
  charts.set(key, made);
  made.catch(() => charts.delete(key));
  return made;
}

async function fetchCharts(run: string): Promise<void> {
  const asked = [...(waiting.get(run) ?? [])];
  waiting.delete(run);
  for (let begin = 0; begin < asked.length; begin += 24) {
    const part = asked.slice(begin, begin + 24);
    try {
      const found = await from.charts(run, part.map(([id]) => id)); // prettier-ignore
      part.forEach(([, { done }], place) => done(found[place] as Chart));
    } catch (error) {
      part.forEach(([, { fail }]) => fail(error));
    }
  }
}

export async function loadRuns(): Promise<void> {
  try {
    const found = await from.runs();
    runs.value = found;
    trouble.value = null;
  } catch (error) {
    trouble.value = said(error);
  }
}

/** An address that names no run that is there shows one in training, else the first. */
function choose(found: RunSummary[], asked: string[]): void {
  const readable = found.filter((run) => !run.error);
  const chosen = asked.filter((name) => readable.some((run) => run.id === name));
  const other = readable.find((run) => run.status === "running") ?? readable[0];
  if (!chosen.length && other) chosen.push(other.id);
  if (chosen.join() !== asked.join()) show({ runs: chosen }, true);
}

const loading = new Set<string>();

async function load(run: string): Promise<void> {
  if (loading.has(run)) return;
  loading.add(run);
  try {
    const found = await from.index(run);
    indexes.value = { ...indexes.peek(), [run]: found };
    trouble.value = null;
  } catch (error) {
    trouble.value = said(error);
  } finally {
    loading.delete(run);
  }
}

const said = (error: unknown): string => (error instanceof Error ? error.message : String(error));

/** Load what is shown, and follow what changes. */
export function begin(): void {
  void loadRuns();
  effect(() => {
    if (runs.value) choose(runs.value, is.runs.value);
  });
  effect(() => {
    for (const run of is.runs.value) if (!indexes.peek()[run]) void load(run);
  });
  const wanted = computed(() => (is.live.value ? is.runs.value.join(",") : ""));
  effect(() => {
    const names = wanted.value.split(",").filter(Boolean);
    if (!from.live || !names.length) return;
    return from.follow(
      names,
      (now) => {
        for (const [run, seq] of Object.entries(now.seq)) {
          const known = indexes.peek()[run];
          if (known && seq > known.seq) void load(run);
        }
        if (runs.peek() && now.runs !== runs.peek()?.length) void loadRuns();
      },
      (is) => (stale.value = is),
    );
  });
}
