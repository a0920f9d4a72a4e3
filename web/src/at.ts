// Numbers at the step that is looked at: variables are loaded whole once, and every step after that costs nothing.
import { signal } from "@preact/signals";
import { from, indexes } from "./store";
import type { Values } from "./source";

const loaded = signal<Record<string, Values | null>>({});
const asked = new Map<string, string>();
/** Variables that are held at most. */
const KEPT = 300;

/** Keep a variable, and let go of those that were asked for longest ago. */
function keep(id: string, values: Values | null): void {
  const { [id]: _, ...others } = loaded.peek();
  const names = Object.keys(others);
  for (const old of names.slice(0, Math.max(names.length + 1 - KEPT, 0))) {
    delete others[old];
    asked.delete(old);
  }
  loaded.value = { ...others, [id]: values };
}

/** A variable of a run, once it has come; asks for it the first time, and again when the run has changed. */
export function valuesOf(run: string, key: string, name: string): Values | null {
  const id = `${run}/${key}/${name}`;
  const state = indexes.value[run]?.state ?? "";
  if (asked.get(id) !== state) {
    asked.set(id, state);
    from
      .variable(run, key, name)
      .then((values) => keep(id, values))
      .catch(() => keep(id, null));
  }
  return loaded.value[id] ?? null;
}

/** Where the last measured step at or before a step stands, for one place of a variable; -1 if there is none. */
export function placeAt(values: Values, split: number, at: number, step: number): number {
  const [, splits = 1, ...rest] = values.values.shape;
  const inner = rest.reduce((a, b) => a * b, 1);
  for (let i = lastAt(values.steps.data, step); i >= 0; i--) if (values.measured.data[(i * splits + split) * inner + at]) return i;
  return -1;
}

/** Where the numbers of one place of a variable stand among its values, step by step: the first one, and how far apart they are. */
function column(values: Values, split: string | null, names: (string | null)[]): { split: number; at: number; first: number; apart: number } | null {
  const along = values.labels[0] ?? [];
  const at = names.map((name) => (name === null ? -1 : along.indexOf(name))).find((place) => place >= 0) ?? (along.length ? -1 : 0);
  const which = split === null ? 0 : values.splits.indexOf(split);
  if (at < 0 || which < 0 || values.values.shape.length > 3) return null;
  const [, splits = 1, ...rest] = values.values.shape;
  const inner = rest.reduce((a, b) => a * b, 1);
  return { split: which, at, first: which * inner + at, apart: splits * inner };
}

/** The value of a place at a step, and the step at which it was measured. */
export function valueAt(values: Values, split: string | null, names: (string | null)[], step: number): { step: number; value: number } | null {
  const found = column(values, split, names);
  const i = found ? placeAt(values, found.split, found.at, step) : -1;
  return found && i >= 0 ? { step: values.steps.data[i] as number, value: values.values.data[i * found.apart + found.first] as number } : null;
}

/** All that was measured of a place, step by step. */
export function seriesOf(values: Values, split: string | null, names: (string | null)[]): { steps: number[]; numbers: number[] } | null {
  const found = column(values, split, names);
  if (!found) return null;
  const there = Array.from(values.steps.data.keys()).filter((i) => values.measured.data[i * found.apart + found.first]);
  return { steps: there.map((i) => values.steps.data[i] as number), numbers: there.map((i) => values.values.data[i * found.apart + found.first] as number) };
}

/** The last place of an ascending list at or below a number; -1 if all are above. */
export function lastAt(sorted: ArrayLike<number>, wanted: number): number {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((sorted[middle] as number) <= wanted) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}
