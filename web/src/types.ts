// What the server sends; see stratoscope.view.index and stratoscope.charts.values.
import type { Grid } from "./wire";

/** What runs along the horizontal axis of curves. */
export type Along = "step" | "epoch" | "tokens" | "seconds";

export interface RunSummary {
  id: string;
  name: string;
  folder: string;
  status: string;
  error?: string;
  started?: string;
  steps?: number;
  last_step?: number | null;
  seq?: number;
  findings?: Record<string, number>;
  config?: Record<string, string | number | boolean>;
}

export interface Layer {
  name: string;
  kind: string;
  depth: number;
  params: number;
  parent: string | null;
  parts: string[];
  activation: string | null;
}

export interface About {
  name: string;
  title: string;
  units: string;
  dims: string[];
  place: string;
  steps: number;
  splits: string[];
  meanings: string[];
  scale: string;
  headline: number | null;
  note: string;
  companion_of: string | null;
}

export interface Group {
  key: string;
  title: string;
  source: string;
  source_html: string;
  method_html: string;
  settings: Record<string, unknown>;
  variables: About[];
}

export interface Finding {
  id: string;
  code: string;
  instrument: string;
  layer: string | null;
  step: number | null;
  outcome: string;
  says: string;
  do: string;
  evidence: Record<string, unknown>;
  source: string;
  source_html: string;
  split: string | null;
}

/** Findings that say the same of several places; `items` are ids of findings, the worst first. */
export interface Saying {
  code: string;
  outcome: string;
  means: string;
  others: string;
  items: string[];
}

export interface Axis {
  title: string;
  units: string;
  scale: "linear" | "log" | "category";
  labels: string[];
  low: number | null;
  high: number | null;
}

export interface Head {
  id: string;
  kind: string;
  title: string;
  caption: string;
  instrument: string;
  variable: string;
  units: string;
  source: string;
  source_html: string;
  split: string | null;
  series: string[];
  ordered: boolean;
  x: Axis;
  y: Axis;
  marks: string[];
  /** Whether none of its numbers is finite. */
  empty: boolean;
}

export interface Column {
  key: string;
  instrument: string;
  variable: string;
  split: string | null;
  units: string;
  long_name: string;
  source: string;
  meaning: string;
}

export type Cell = string | number | boolean | null;

export interface Row {
  name: string;
  layer: string;
  tensor: string | null;
  kind: string;
  shape: number[] | null;
  status: string;
  reason: string | null;
  verdict: string;
  meaning: string;
  [column: string]: unknown;
}

export interface Index {
  id: string;
  seq: number;
  /** Differs between any two states, also of runs one of which was put in the place of the other. */
  state: string;
  name: string;
  status: string;
  live: boolean;
  steps: number[];
  /** Steps with a time, and the passes over the data, the tokens and the seconds at them; NaN where it is not known. */
  clock: Grid;
  epochs: Grid | null;
  tokens: Grid | null;
  seconds: Grid | null;
  facts: [string, string][];
  layers: Layer[];
  edges: [string, string, string][];
  groups: Group[];
  findings: Finding[];
  said: Saying[];
  verdict: string;
  charts: Head[];
  table: { columns: Column[]; shown: string[]; rows: Row[]; coverage: string };
}

export type Mark =
  | { mark: "line"; series: number; x: Grid; y: Grid; role: "main" | "raw" | "reference" }
  | { mark: "band"; series: number; x: Grid; low: Grid; high: Grid }
  | { mark: "dots"; series: number; x: Grid; y: Grid }
  | { mark: "path"; series: number; x: Grid; y: Grid; along: Grid }
  | { mark: "span"; series: number; y: Grid; low: Grid; high: Grid }
  | { mark: "rule"; name: string; value: number | null; upright: boolean }
  | {
      mark: "cells";
      values: Grid;
      meanings: string[];
      strips: string[];
      told_by: string[][];
      letters: string[];
      shades: [string, string][];
      /** Rows of which nobody asked: where they have no value, that is no gap. */
      blank: number[];
    }
  | { mark: "boxes"; quantiles: Grid; counts: Grid; density: Grid; edges: Grid }
  | { mark: "number"; name: string; value: number | null; low: number | null; high: number | null };

export interface Chart extends Omit<Head, "marks" | "source_html" | "empty"> {
  marks: Mark[];
  colour: Axis | null;
}
