// All that the page shows is in here, and all of it stands in the address, so that a link shows the same to others.
import type { Along } from "./types";
import { computed, type ReadonlySignal, signal } from "@preact/signals";

export type Order = "started" | "name" | "steps" | "findings";
export type Rows = "measured" | "all";
export type Range = [number, number];

export interface Shown {
  runs: string[];
  base: string | null;
  group: string | null;
  layer: string | null;
  step: number | null;
  instrument: string | null;
  split: string | null;
  search: string;
  smooth: number;
  x: Along;
  clip: boolean;
  log: boolean;
  /** Charts whose values are logarithmic where those of the others are not, and the other way round. */
  logs: string[];
  theme: "auto" | "light" | "dark";
  live: boolean;
  chart: string | null;
  /** What the list of runs is filtered by, and its order. */
  filter: string;
  order: Order;
  /** The column by which the table of layers is sorted; with a hyphen before it downwards. */
  sort: string | null;
  /** Rows of the table of layers: those with a number, or all. */
  rows: Rows;
  /** Steps along a logarithmic axis. */
  logx: boolean;
  /** The steps that are shown large in all charts of steps. */
  within: Range | null;
  /** What is shown large of other charts, by their ids. */
  zooms: Record<string, Range>;
}

const ORDERS: Order[] = ["started", "name", "steps", "findings"];

const START: Shown = {
  runs: [], base: null, group: null, layer: null, step: null, instrument: null, split: null, search: "", smooth: 0,
  x: "step", clip: false,
  log: false, logs: [], theme: "auto", live: true, chart: null, filter: "", order: "started", sort: null, rows: "measured", logx: false,
  within: null, zooms: {},
}; // prettier-ignore

export const MOST_RUNS = 8;
const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i;

/** The state that an address holds; what it does not say is as at the start, and nonsense in it is passed over. */
export function parse(hash: string): Shown {
  const given = new URLSearchParams(hash.replace(/^#/, ""));
  const text = (name: string): string | null => given.get(name) || null;
  const list = (name: string): string[] => [...new Set((given.get(name) ?? "").split(",").filter(Boolean))];
  const theme = given.get("theme");
  const step = given.get("step");
  const x = given.get("x");
  const weight = NUMBER.test(given.get("smooth") ?? "") ? Number(given.get("smooth")) : 0;
  return {
    ...START,
    runs: list("runs").slice(0, MOST_RUNS),
    base: text("base"),
    group: text("group"),
    layer: text("layer"),
    step: step !== null && /^\d{1,15}$/.test(step) ? Number(step) : null,
    instrument: text("instrument"),
    split: text("split"),
    search: given.get("search") ?? "",
    smooth: weight > 0 && weight < 1 ? weight : 0,
    x: x === "epoch" || x === "tokens" || x === "seconds" ? x : "step",
    clip: given.get("clip") === "1",
    log: given.get("log") === "1",
    logs: list("logs"),
    theme: theme === "light" || theme === "dark" ? theme : "auto",
    live: given.get("live") !== "0",
    chart: text("chart"),
    filter: given.get("filter") ?? "",
    order: ORDERS.find((one) => one === given.get("order")) ?? "started",
    sort: text("sort"),
    rows: given.get("rows") === "all" ? "all" : "measured",
    logx: given.get("logx") === "1",
    within: range(given.get("within") ?? ""),
    zooms: Object.fromEntries(given.getAll("zoom").flatMap((one) => zoom(one))),
  };
}


/** Two ascending numbers with two dots between them. */
function range(said: string): Range | null {
  const ends = said.split("..");
  const [from, to] = ends.map((end) => (NUMBER.test(end) ? Number(end) : NaN));
  return ends.length === 2 && from !== undefined && to !== undefined && from < to && Number.isFinite(to - from) ? [from, to] : null;
}

function zoom(said: string): [string, Range][] {
  const found = range(said.slice(said.lastIndexOf(":") + 1));
  return found ? [[said.slice(0, said.lastIndexOf(":")), found]] : [];
}

export function write(state: Shown): string {
  const said = new URLSearchParams();
  if (state.runs.length) said.set("runs", state.runs.join(","));
  for (const name of ["base", "group", "layer", "instrument", "split", "search", "chart", "filter", "sort"] as const) {
    const value = state[name];
    if (value) said.set(name, value);
  }
  if (state.step !== null) said.set("step", String(state.step));
  if (state.smooth > 0) said.set("smooth", String(state.smooth));
  if (state.x !== "step") said.set("x", state.x);
  if (state.clip) said.set("clip", "1");
  if (state.log) said.set("log", "1");
  if (state.logs.length) said.set("logs", state.logs.join(","));
  if (state.theme !== "auto") said.set("theme", state.theme);
  if (!state.live) said.set("live", "0");
  if (state.order !== "started") said.set("order", state.order);
  if (state.rows !== "measured") said.set("rows", state.rows);
  if (state.logx) said.set("logx", "1");
  if (state.within) said.set("within", state.within.join(".."));
  for (const [chart, ends] of Object.entries(state.zooms)) said.append("zoom", `${chart}:${ends.join("..")}`);
  return said.toString().replaceAll("%2C", ",");
}

export const shown = signal<Shown>(parse(globalThis.location?.hash ?? ""));

/** One part of the state each, so that what shows one does not draw again when another changes. */
export const is = Object.fromEntries(
  (Object.keys(START) as (keyof Shown)[]).map((name) => [name, computed(() => shown.value[name])]),
) as { [K in keyof Shown]: ReadonlySignal<Shown[K]> };

/** Where the pointer is; not in the address. */
export const hover = signal<{ step: number | null; layer: string | null }>({ step: null, layer: null });

export const cursorStep = computed(() => hover.value.step ?? is.step.value);
export const cursorLayer = computed(() => hover.value.layer ?? is.layer.value);

let late: ReturnType<typeof setTimeout> | undefined;

/** Change what is shown. A change that people make on purpose can be gone back from; one in passing (a slider) cannot. */
export function show(change: Partial<Shown>, passing = false): void {
  shown.value = { ...shown.peek(), ...change };
  clearTimeout(late);
  // browsers slow a page down that writes its address many times a second
  if (passing) late = setTimeout(() => address(true), 150);
  else address(false);
}

function address(replacing: boolean): void {
  const hash = `#${write(shown.peek())}`;
  if (hash === (location.hash || "#")) return;
  try {
    if (replacing) history.replaceState(history.state, "", hash);
    else history.pushState(depth() + 1, "", hash);
  } catch {
    // a frame of a notebook has no address of its own
  }
}

/** How many changes can be gone back from without leaving the page. */
const depth = (): number => (typeof history.state === "number" ? history.state : 0);

/** Go back from the last change; not to what was there before the page. */
export function undo(): void {
  if (depth() > 0) history.back();
}

/** Make the values of one chart logarithmic, or linear again. */
export function toggledLog(id: string): void {
  const { logs } = shown.peek();
  show({ logs: logs.includes(id) ? logs.filter((one) => one !== id) : [...logs, id] });
}

/** Show a range of a chart large, or all of it; charts of steps go together. */
export function zoomed(id: string, stepwise: boolean, ends: Range | null): void {
  if (stepwise) return show({ within: ends });
  const { [id]: _, ...others } = shown.peek().zooms;
  show({ zooms: ends ? { ...others, [id]: ends } : others });
}

/** Show all charts whole again. */
export const fit = (): void => show({ within: null, zooms: {} });

export function point(change: Partial<{ step: number | null; layer: string | null }>): void {
  const now = hover.peek();
  const next = { ...now, ...change };
  if (next.step !== now.step || next.layer !== now.layer) hover.value = next;
}

export function listen(): void {
  addEventListener("popstate", () => (shown.value = parse(location.hash)));
  addEventListener("hashchange", () => (shown.value = parse(location.hash)));
}
