// What draws a chart, and what it is told.
import type { ComponentType } from "preact";
import type { Range } from "../state";
import type { Part } from "./parts";

export interface Readout {
  /** What the head is a number of, where it is one. */
  of?: string;
  head: string;
  rows: [string, string, string][];
}

export interface View {
  parts: Part[];
  size: { width: number; height: number };
  /** Weight of the past by which curves are smoothed; 0 for none. */
  weight: number;
  log: boolean;
  /** Steps along a logarithmic axis. */
  logx: boolean;
  /** What is shown large, on the chart's own horizontal axis; null for all of it. */
  zoom: Range | null;
  /** Show another range large. */
  zoomed: (ends: Range | null) => void;
  /** Leave one value in a hundred on each side out of sight. */
  clip: boolean;
  readout: (what: Readout | null) => void;
}

/** What a picture is made of. */
export type Shot = Omit<View, "readout" | "zoomed">;

export interface Kind {
  /** How much this file knows of a chart: 0 for one that it cannot draw; the largest draws it. */
  claims: (chart: Sketch) => number;
  view: ComponentType<View>;
  height: number;
  /** Whether it takes little room however large the window is: no picture, but a few numbers. */
  small?: boolean;
  /** Whether several runs fit into one picture. */
  overlays: boolean;
  /** Whether its values stand on a scale, which may be logarithmic. */
  scaled: boolean;
  /** Whether it changes with the step, though steps do not run along it. */
  follows?: (chart: Sketch) => boolean;
  /** The drawing as SVG in text; there is none of what is no drawing. */
  svg?: (shot: Shot) => string | null;
}

/** What a file of kinds/ is told of a chart. */
export interface Sketch {
  kind: string;
  /** Its marks' names. */
  marks: string[];
  x: { scale: string };
}

export const only = (chart: Sketch, ...known: string[]): boolean => chart.marks.every((mark) => known.includes(mark));
