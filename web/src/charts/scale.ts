// From chart axes to places on the screen.
import { scaleLinear, scaleLog, scalePoint } from "d3-scale";
import type { Axis } from "../types";

export interface Scale {
  (value: number): number;
  ticks: { at: number; text: string }[];
}

/** A scale of an axis over the values that are there. */
export function scale(axis: Axis, values: Iterable<number>, from: number, to: number, text: (v: number) => string): Scale {
  if (axis.scale === "category") return categories(axis, from, to);
  let low = Infinity;
  let high = -Infinity;
  for (const value of values) {
    if (!Number.isFinite(value) || (axis.scale === "log" && value <= 0)) continue;
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  if (low > high) [low, high] = axis.scale === "log" ? [1, 10] : [0, 1];
  if (low === high) [low, high] = axis.scale === "log" ? [low / 2, high * 2] : [low - (Math.abs(low) || 1) / 2, high + (Math.abs(high) || 1) / 2];
  const pad = 0.04 * (high - low);
  const made =
    axis.scale === "log"
      ? scaleLog([low / 1.1, high * 1.1], [from, to])
      : scaleLinear([inside(low - pad, axis.low, low), inside(high + pad, axis.high, high)], [from, to]);
  const place = (value: number): number => (axis.scale === "log" && !(value > 0) ? NaN : made(value));
  const count = Math.max(2, Math.floor(Math.abs(to - from) / 64));
  const ticks = made.ticks(count).filter((tick) => axis.scale !== "log" || isPower(tick) || made.ticks(count).length <= count);
  return Object.assign(place, { ticks: ticks.map((tick) => ({ at: made(tick), text: text(tick) })) });
}

/** Padding must not go beyond what the quantity can be. */
const inside = (padded: number, bound: number | null, value: number): number =>
  bound === null || (padded - bound) * (value - bound) > 0 ? padded : bound;

const isPower = (value: number): boolean => Math.abs(Math.log10(value) - Math.round(Math.log10(value))) < 1e-9;

function categories(axis: Axis, from: number, to: number): Scale {
  const names = axis.labels.map((_, place) => String(place));
  const made = scalePoint(names, [from, to]).padding(0.5);
  const every = Math.max(1, Math.ceil(names.length / Math.max(2, Math.abs(to - from) / 26)));
  const place = (value: number): number => made(String(value)) ?? from;
  return Object.assign(place, {
    ticks: axis.labels.flatMap((label, at) => (at % every ? [] : [{ at: made(String(at)) ?? from, text: label }])),
  });
}
