// One chart of several runs, laid out for drawing: which runs, which marks, which colours.
import { CALLED } from "../axes";
import { CATEGORY, DASHES, seriesColour } from "../colours";
import { along, smooth } from "../curves";
import { number, unit } from "../format";
import type { Range } from "../state";
import type { Along, Axis, Chart, Mark } from "../types";
import type { Grid, Numbers } from "../wire";

export interface Part {
  /** Its run, by the id and the name. */
  run: string;
  name: string;
  chart: Chart;
  /** Which of the shown runs it is, or of their groups. */
  place: number;
  /** Its group, where runs are grouped. */
  group: string | null;
  /** Steps of the run, and what is at them on the chosen horizontal axis; null where steps run along it. */
  clock: { steps: Numbers; values: Numbers } | null;
  /** What that axis shows. */
  along: Along;
}

export type Of<K extends Mark["mark"]> = Extract<Mark, { mark: K }>;

export const marksOf = <K extends Mark["mark"]>(chart: Chart, kind: K): Of<K>[] =>
  chart.marks.filter((mark): mark is Of<K> => mark.mark === kind);

/** Colours tell series apart where one run is shown, and runs where there are several. */
export function colourOf(part: Part, series: number, parts: number, dark: boolean): string {
  if (parts > 1) return seriesColour(part.place, parts, false, dark);
  return seriesColour(series, part.chart.series.length, part.chart.ordered, dark);
}

/** The dashes of a curve: of references, of series where runs take the colours, and of those that have a colour again. */
export function dashOf(part: Part, series: number, role: string, parts: number): number[] {
  if (role === "reference" && parts === 1) return [3, 3];
  const round = parts > 1 ? series : part.chart.ordered ? 0 : Math.floor(series / CATEGORY.length);
  return DASHES[round % DASHES.length] as number[];
}

/** Whether steps run along, or what is at them. */
export const isTime = (axis: Axis): boolean => Object.hasOwn(CALLED, axis.title) || Object.values(CALLED).includes(axis.title);

/** What stands at an axis that runs along: the title of the chart's own, or what is at its steps. */
export const titleAlong = ({ chart, clock, along }: Part): string => (clock ? CALLED[along] : chart.x.title);

/** What stands at the vertical axis; nothing where the title of the chart says the same. */
export const titleUp = ({ title, y }: Chart): string => (y.title.toLowerCase() === title.toLowerCase() || y.scale === "category" ? "" : y.title);

/** A part as it is drawn: along the chosen axis, and with what was measured thinly behind what was smoothed. */
export function asShown(part: Part, weight: number): Part {
  const { clock, chart } = part;
  const marks = chart.marks.flatMap((mark): Mark[] => {
    if (mark.mark === "band") {
      const [x, low, high] = moved(clock, mark.x, mark.low, mark.high) as [Grid, Grid, Grid];
      return [{ ...mark, x, low, high }];
    }
    if (mark.mark !== "line") return [mark];
    const [x, y] = moved(clock, mark.x, mark.y) as [Grid, Grid];
    if (weight <= 0 || mark.role === "raw") return [{ ...mark, x, y }];
    return [{ ...mark, x, y, role: "raw" }, { ...mark, x, y: { data: smooth(y.data, weight), shape: y.shape } }];
  });
  return { ...part, clock: null, chart: { ...chart, x: { ...chart.x, title: titleAlong(part) }, marks } };
}

/** Steps along another axis, with their values; those without a place on it are left out. */
function moved(clock: Part["clock"], x: Grid, ...values: Grid[]): Grid[] {
  if (!clock) return [x, ...values];
  const all = Float64Array.from(x.data, (step) => along(clock.steps, clock.values, step));
  const known = (_: number, place: number): boolean => Number.isFinite(all[place]);
  return [all, ...values.map((one) => one.data)].map((data) => {
    const kept = Float64Array.from(data).filter(known);
    return { data: kept, shape: [kept.length] };
  });
}

/** A range of a chart's own horizontal axis, on the axis that is shown: as much of it as that knows. */
export function rangeShown(part: Part, ends: Range | null): Range | null {
  const { clock } = part;
  if (!clock || !ends || !clock.steps.length) return ends;
  const [first, last] = [clock.steps[0] as number, clock.steps[clock.steps.length - 1] as number];
  const [from, to] = ends.map((step) => along(clock.steps, clock.values, Math.min(Math.max(step, first), last))) as Range;
  return from < to ? [from, to] : null;
}

/** What a chart shows, for those who do not see it. */
export function summary(parts: Part[]): string {
  const { chart } = parts[0] as Part;
  const cells = marksOf(chart, "cells")[0];
  let [low, high] = [Infinity, -Infinity];
  for (const value of cells ? (cells.meanings.length ? [] : cells.values.data) : numbersOf(parts, "y")) {
    if (!Number.isFinite(value)) continue;
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  const series = chart.series.length > 1 ? `${chart.series.length} series. ` : "";
  const runs = parts.length > 1 ? `Runs: ${parts.map((part) => part.name).join(", ")}. ` : "";
  const values = low <= high ? `Values from ${number(low)} to ${number(high)}${unit(chart.units)}.` : cells?.meanings.length ? "" : "No value is a number.";
  return `${chart.title}${chart.split ? `, ${chart.split}` : ""}. ${chart.caption} ${series}${runs}${values}`.trim();
}

export function* numbersOf(parts: Part[], axis: "x" | "y"): Generator<number> {
  for (const part of parts)
    for (const mark of part.chart.marks)
      for (const data of dataOf(mark, axis)) for (let i = 0; i < data.length; i++) yield data[i] as number;
}

function dataOf(mark: Mark, axis: "x" | "y"): Numbers[] {
  switch (mark.mark) {
    case "line":
    case "dots":
    case "path":
      return [mark[axis].data];
    case "band":
      return axis === "x" ? [mark.x.data] : [mark.low.data, mark.high.data];
    case "span":
      return axis === "y" ? [mark.y.data] : [mark.low.data, mark.high.data];
    case "rule":
      return mark.value !== null && mark.upright === (axis === "x") ? [Float64Array.of(mark.value)] : [];
    case "boxes":
      return axis === "y" ? [mark.quantiles.data] : [];
    default:
      return [];
  }
}
