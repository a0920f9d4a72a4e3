// From chart axes to places on the screen.
import { scaleLinear, scaleLog, scalePoint, scaleSymlog } from "d3-scale";
import type { Axis } from "../types";

export interface Scale {
  (value: number): number;
  ticks: { at: number; text: string }[];
}

/** An axis; logarithmic from one on and linear below it is what steps take, which begin at zero. */
export type Ruler = Omit<Axis, "scale"> & { scale: Axis["scale"] | "symlog" };

/**
 * A scale of an axis over the values that are there.
 *
 * @param ends what it goes from and to, where that is given; else all values, and some room.
 */
export function scale(axis: Ruler, values: Iterable<number>, from: number, to: number, text: (v: number) => string, ends: [number, number] | null = null): Scale {
  if (axis.scale === "category") return categories(axis, from, to);
  const log = axis.scale === "log";
  const made = (log ? scaleLog() : axis.scale === "symlog" ? scaleSymlog() : scaleLinear()).domain(ends ?? domain(axis, values)).range([from, to]);
  const place = (value: number): number => (log && !(value > 0) ? NaN : made(value));
  const ticks = ticksOf(axis.scale, made, Math.max(2, Math.floor(Math.abs(to - from) / 64)));
  return Object.assign(place, { ticks: ticks.map((tick) => ({ at: made(tick), text: text(tick) })) });
}

function domain(axis: Ruler, values: Iterable<number>): [number, number] {
  const log = axis.scale === "log";
  let low = Infinity;
  let high = -Infinity;
  for (const value of values) {
    if (!Number.isFinite(value) || (log && value <= 0)) continue;
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  if (low > high) [low, high] = log ? [1, 10] : [0, 1];
  if (low === high) [low, high] = log ? [low / 2, high * 2] : [low - (Math.abs(low) || 1) / 2, high + (Math.abs(high) || 1) / 2];
  if (log) return [low / 1.1, high * 1.1];
  const pad = 0.04 * (high - low);
  return [inside(low - pad, axis.low, low), inside(high + pad, axis.high, high)];
}

function ticksOf(kind: Ruler["scale"], made: { ticks(count?: number): number[]; domain(): number[] }, count: number): number[] {
  if (kind === "symlog") {
    const [low = 0, high = 1] = made.domain();
    const powers = Array.from({ length: 16 }, (_, power) => 10 ** power);
    return [0, ...powers].filter((tick) => tick >= low && tick <= high);
  }
  const ticks = made.ticks(count);
  if (kind !== "log" || ticks.length <= count) return ticks;
  const powers = ticks.filter(isPower);
  return powers.length > 2 ? powers : ticks.filter((tick) => [1, 2, 5].includes(Number(tick.toExponential().split("e")[0])));
}

/** Padding must not go beyond what the quantity can be. */
const inside = (padded: number, bound: number | null, value: number): number =>
  bound === null || (padded - bound) * (value - bound) > 0 ? padded : bound;

const isPower = (value: number): boolean => Math.abs(Math.log10(value) - Math.round(Math.log10(value))) < 1e-9;

function categories(axis: Ruler, from: number, to: number): Scale {
  const names = axis.labels.map((_, place) => String(place));
  const made = scalePoint(names, [from, to]).padding(0.5);
  const every = Math.max(1, Math.ceil(names.length / Math.max(2, Math.abs(to - from) / 26)));
  const place = (value: number): number => made(String(value)) ?? from;
  return Object.assign(place, {
    ticks: axis.labels.flatMap((label, at) => (at % every ? [] : [{ at: made(String(at)) ?? from, text: label }])),
  });
}
