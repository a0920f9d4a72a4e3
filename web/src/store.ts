// What has been loaded, as signals: the list of runs, what the shown ones hold, and their charts.
import { computed, effect, signal } from "@preact/signals";
import { Requests } from "./requests";
import { source } from "./source";
import { is, MOST_RUNS, show } from "./state";
import type { Chart, Head, Index, RunSummary } from "./types";

export const from = source();

export const runs = signal<RunSummary[] | null>(null);
/** By the runs' ids, any of which may be a word that every object knows. */
const byId = (found: Record<string, Index>): Record<string, Index> => Object.assign(Object.create(null) as Record<string, Index>, found);

export const indexes = signal<Record<string, Index>>(byId({}));
/** Whether somebody can see the page: one that nobody sees follows nothing, since a browser gives a host few connections. */
const visible = signal(!globalThis.document?.hidden);
export const trouble = signal<string | null>(null);
/** Whether the stream of changes is broken: what is shown may be old. */
export const stale = signal(false);

/** The runs that are shown, those that are loaded; the first one leads. */
export const open = computed(() => is.runs.value.map((run) => indexes.value[run]).filter((one) => one !== undefined));
export const first = computed<Index | null>(() => {
  const base = is.base.value;
  return open.value.find((one) => one.id === base) ?? open.value[0] ?? null;
});

/** The layer of everything that tables and charts name: of a param, of a unit, of a layer itself. */
const layerOf = computed(() => new Map(open.value.flatMap((index) => index.table.rows.map((row) => [row.name, row.layer] as const))));

/** Where a layer stands among some names: as it is called, or else the first part of it, or the layer that it is part of; -1 if nowhere. */
export function placeOf(names: string[], layer: string | null): number {
  if (layer === null) return -1;
  const exact = names.indexOf(layer);
  if (exact >= 0) return exact;
  const whole = (name: string): string => layerOf.value.get(name) ?? name;
  return names.findIndex((name) => whole(name) === whole(layer));
}

/** How runs are told apart where several are shown: each by itself, or those of one value of a config key together. */
export const places = computed<Record<string, { place: number; group: string | null }>>(() => {
  const key = is.group.value;
  const shownRuns = is.runs.value;
  const values = shownRuns.map((id) => groupOf(runs.value?.find((run) => run.id === id), key));
  const groups = [...new Set(values)].sort(byValue);
  return Object.fromEntries(shownRuns.map((id, at) => [id, key ? { place: groups.indexOf(values[at] as string), group: values[at] as string } : { place: at, group: null }]));
});

/** What runs are called: by their folder where several have one name. */
export const names = computed<Record<string, string>>(() => called(runs.value ?? []));

export function called(every: RunSummary[]): Record<string, string> {
  const times = new Map<string, number>();
  for (const run of every) times.set(run.name, (times.get(run.name) ?? 0) + 1);
  return Object.fromEntries(every.map((run) => [run.id, times.get(run.name) === 1 ? run.name : run.folder]));
}

/** The group of a run, as people read it. */
export function groupOf(run: RunSummary | undefined, key: string | null): string {
  const value = key === null ? undefined : run?.config?.[key];
  return value === undefined ? `${key ?? ""} not noted` : `${key} ${String(value)}`;
}

/** Numbers within names by their size. */
export const byValue = (one: string, other: string): number => one.localeCompare(other, "en", { numeric: true });

const requests = new Requests((run, ids, stop) => from.charts(run, ids, stop));

/** A chart of a run, in the state of its index. */
export const chart = (index: Index, head: Head, stop: AbortSignal): Promise<Chart> => requests.chart(index, head.id, stop);

export async function loadRuns(): Promise<void> {
  try {
    const found = await from.runs();
    runs.value = found;
    trouble.value = null;
  } catch (error) {
    trouble.value = said(error);
  }
}

/** An address that names no run that is there shows one in training, else the first. What is shown already stays. */
function choose(found: RunSummary[], asked: string[]): void {
  const readable = found.filter((run) => !run.error);
  const chosen = asked.filter((name) => indexes.peek()[name] || readable.some((run) => run.id === name));
  const other = readable.find((run) => run.status === "running") ?? readable[0];
  if (!chosen.length && other) chosen.push(other.id);
  if (chosen.join() !== asked.join()) show({ runs: chosen }, true);
}

/** Runs on their way, and what stops them. */
const loading = new Map<string, AbortController>();
const latest = new Map<string, number>();

async function load(run: string): Promise<void> {
  if (loading.has(run)) return;
  const stop = new AbortController();
  loading.set(run, stop);
  try {
    const found = await from.index(run, stop.signal);
    indexes.value = byId({ ...recent(indexes.peek()), [run]: found });
    const now = { status: found.status, steps: found.steps.length, last_step: found.steps.at(-1) ?? null, seq: found.seq };
    runs.value = runs.peek()?.map((one) => (one.id === run ? { ...one, ...now } : one)) ?? null;
    trouble.value = null;
  } catch (error) {
    trouble.value = stop.signal.aborted ? "The run was not loaded, as you wished." : said(error);
    return;
  } finally {
    loading.delete(run);
  }
  // it went on while it was loaded
  if ((latest.get(run) ?? -1) > (indexes.peek()[run]?.seq ?? -1)) void load(run);
}

/** The runs that are shown, and some that were shown last: not all that somebody ever clicked on. */
function recent(loaded: Record<string, Index>): Record<string, Index> {
  const wanted = is.runs.peek();
  const others = Object.keys(loaded).filter((run) => !wanted.includes(run));
  return Object.fromEntries([...others.slice(-MOST_RUNS), ...wanted].flatMap((run) => (loaded[run] ? [[run, loaded[run]]] : [])));
}

/** Stop loading the runs. */
export const cancel = (): void => loading.forEach((stop) => stop.abort());

/** Load again what is shown and did not come. */
export function again(): void {
  trouble.value = null;
  void loadRuns();
  for (const run of is.runs.peek()) if (!indexes.peek()[run]) void load(run);
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
  document.addEventListener("visibilitychange", () => (visible.value = !document.hidden));
  const wanted = computed(() => (is.live.value && visible.value ? is.runs.value.join(",") : ""));
  effect(() => {
    const names = wanted.value.split(",").filter(Boolean);
    if (!from.live || !names.length) return;
    return from.follow(
      names,
      (now) => {
        for (const [run, seq] of Object.entries(now.seq)) {
          latest.set(run, seq);
          const known = indexes.peek()[run];
          if (known && seq >= 0 && seq !== known.seq) void load(run);
        }
        const listed = runs.peek();
        const lost = listed?.some((run) => (now.seq[run.id] ?? 0) < 0 !== Boolean(run.error));
        if (listed && (lost || now.runs !== listed.length)) void loadRuns();
      },
      (is) => (stale.value = is),
    );
  });
}
