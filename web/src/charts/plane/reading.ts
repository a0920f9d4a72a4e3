// What is under the pointer in a plane, in words.
import { number, unit } from "../../format";
import type { Axis } from "../../types";
import type { Readout } from "../kind";
import { colourOf, marksOf, type Of, type Part } from "../parts";
import type { Frame } from "./frame";

/** A point of a way: where it lies, what of, and at which step. */
export interface Spot {
  at: [number, number];
  part: Part;
  path: Of<"path">;
  place: number;
}

export const spotsOf = ({ parts, x, y }: Frame): Spot[] =>
  parts.flatMap((part) =>
    marksOf(part.chart, "path").flatMap((path) =>
      Array.from(path.along.data, (_, place): Spot => ({ at: [x(path.x.data[place] as number), y(path.y.data[place] as number)], part, path, place })).filter((spot) => spot.at.every(Number.isFinite)),
    ),
  );

/** The point that is nearest to a place, if any is near. */
export function nearestSpot(spots: Spot[], [x, y]: [number, number], most = 24): Spot | null {
  let best: Spot | null = null;
  let least = most;
  for (const spot of spots) {
    const far = Math.hypot(spot.at[0] - x, spot.at[1] - y);
    if (far < least) [best, least] = [spot, far];
  }
  return best;
}

/** A point of a way in words: whose it is, and both its numbers. */
export function spotRead({ part, path, place }: Spot, parts: number, dark: boolean): Readout {
  const { chart } = part;
  const name = chart.series[path.series] ?? chart.title;
  const colour = colourOf(part, path.series, parts, dark);
  const said = (axis: Axis, value: number | undefined): [string, string, string] => [axis.title, `${number(value)}${unit(axis.units)}`, colour];
  return {
    head: `${parts > 1 ? `${part.name}: ` : ""}${name}, step ${number(path.along.data[place])}`,
    rows: [said(chart.x, path.x.data[place]), said(chart.y, path.y.data[place])],
  };
}

/** A distribution in words. */
function spread({ quantiles }: Of<"boxes">, place: number): [string, string][] {
  const cut = (at: number): string => number(quantiles.data[place * 7 + at]);
  const between = (low: number, high: number): string => `${cut(low)} to ${cut(high)}`;
  return [["median", cut(3)], ["middle half", between(2, 4)], ["5 to 95 %", between(1, 5)], ["all", between(0, 6)]];
}

export function reading(parts: Part[], place: number, dark: boolean): [string, string, string][] {
  const rows: [string, string, string][] = [];
  for (const part of parts) {
    for (const dots of marksOf(part.chart, "dots")) {
      const at = dots.x.data.indexOf(place as never);
      const name = part.chart.series[dots.series] ?? part.chart.title;
      if (at >= 0) rows.push([parts.length > 1 ? `${part.name}: ${name}` : name, number(dots.y.data[at]), colourOf(part, dots.series, parts.length, dark)]);
    }
    const boxes = marksOf(part.chart, "boxes")[0];
    if (boxes) for (const [name, value] of spread(boxes, place)) rows.push([parts.length > 1 ? `${part.name}: ${name}` : name, value, colourOf(part, 0, parts.length, dark)]);
  }
  return rows;
}
