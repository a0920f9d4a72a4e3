// What each layer was doing at each step, a strip for each strand of the diagnosis.
import type { Kind } from "../kind";
import { Cells, cellsSvg } from "./Cells";

export const kind: Kind = {
  claims: (chart) => (chart.kind === "timeline" ? 4 : 0),
  view: Cells,
  height: 480,
  overlays: false,
  scaled: false,
  svg: cellsSvg,
};
