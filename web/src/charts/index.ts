// Who draws which chart: each file of kinds/ says which charts it draws, and the one that knows most of a chart draws it.
import type { Kind, Sketch } from "./kind";

// a new kind of chart is a new file
const every = Object.values(import.meta.glob<{ kind: Kind }>("./kinds/*.tsx", { eager: true })).map((file) => file.kind);

/** The kind that draws a chart. */
export const drawer = (chart: Sketch): Kind =>
  every.reduce((best, kind) => (kind.claims(chart) > best.claims(chart) ? kind : best));
