// What runs along the horizontal axis of curves over steps: the steps, or what the runs tell of them.
import { computed } from "@preact/signals";
import { is } from "./state";
import { open } from "./store";
import type { Along, Index } from "./types";
import type { Numbers } from "./wire";

type Told = Pick<Index, "clock" | "epochs" | "tokens" | "seconds">;

/** Every axis, as people call it. */
export const CALLED: Record<Along, string> = { step: "steps", epoch: "epochs", tokens: "tokens", seconds: "seconds" };

const toldOf = (index: Told, axis: Along) => (axis === "step" ? null : axis === "epoch" ? index.epochs : index[axis]);

/** Steps of a run and what is at them on an axis, only those where it is known; null where steps run along. */
export function clockOf(index: Told, axis: Along): { steps: Numbers; values: Numbers } | null {
  const told = toldOf(index, axis)?.data;
  if (!told) return null;
  const known = (_: number, place: number): boolean => Number.isFinite(told[place]);
  return { steps: Float64Array.from(index.clock.data).filter(known), values: Float64Array.from(told).filter(known) };
}

/** The axes that all of these runs have: a curve along tokens says nothing beside one along steps. */
export const shared = (runs: Told[]): Along[] =>
  (Object.keys(CALLED) as Along[]).filter((axis) => axis === "step" || runs.every((run) => toldOf(run, axis)));

export const axes = computed<Along[]>(() => shared(open.value));

/** The chosen axis, or steps where the runs do not have it. */
export const axis = computed<Along>(() => (axes.value.includes(is.x.value) ? is.x.value : "step"));
