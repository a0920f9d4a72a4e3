// Who draws which chart: by its kind where a file claims it, else by its marks, so that a new kind of chart needs nothing here.
import type { ComponentType } from "preact";
import { Cells } from "./Cells";
import { Lines } from "./Lines";
import { Numbers } from "./Numbers";
import type { Part } from "./parts";
import { Plane } from "./Plane";

export interface Readout {
  head: string;
  rows: [string, string, string][];
}

export interface View {
  parts: Part[];
  size: { width: number; height: number };
  weight: number;
  log: boolean;
  /** Leave one value in a hundred on each side out of sight. */
  clip: boolean;
  readout: (what: Readout | null) => void;
}

export interface Drawer {
  view: ComponentType<View>;
  height: number;
  /** Whether several runs fit into one picture. */
  overlays: boolean;
  /** Whether its values stand on a scale, which may be logarithmic. */
  scaled: boolean;
}

export function drawer(chart: { marks: string[] | { mark: string }[]; x: { scale: string }; kind?: string }): Drawer {
  const marks = chart.marks.map((mark) => (typeof mark === "string" ? mark : mark.mark));
  const only = (...known: string[]): boolean => marks.every((mark) => known.includes(mark));
  if (chart.kind === "timeline") return { view: Cells, height: 480, overlays: false, scaled: false };
  if (marks.includes("cells")) return { view: Cells, height: 260, overlays: false, scaled: true };
  if (only("number")) return { view: Numbers, height: 84, overlays: true, scaled: false };
  if (chart.x.scale !== "category" && only("line", "band", "rule")) return { view: Lines, height: 240, overlays: true, scaled: true };
  return { view: Plane, height: 280, overlays: true, scaled: true };
}
