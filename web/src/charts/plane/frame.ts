// Where the things of a plane lie.
import { isDark } from "../../colours";
import { middle } from "../../curves";
import { number } from "../../format";
import type { Axis } from "../../types";
import type { Shot, View } from "../kind";
import { isTime, numbersOf, type Part, titleUp } from "../parts";
import { short, wide } from "../pen";
import { type Ruler, type Scale, scale } from "../scale";

export const LEFT = 60;
const BOTTOM = 46;
const TOP = 10;
/** Names under a profile lean by 45 degrees, where they do not stand side by side. */
export const LEAN = Math.SQRT1_2;

/** Where things lie, and in which colours. */
export interface Frame {
  parts: Part[];
  size: View["size"];
  x: Scale;
  y: Scale;
  dark: boolean;
  /** Room above and below what is drawn. */
  top: number;
  bottom: number;
  /** Whether names lean. */
  leaning: boolean;
  /** What the vertical axis shows, where the title does not say it. */
  upwards: string;
}

/** The room that an axis takes below. */
function below({ scale, labels }: Axis, { width, height }: View["size"]): { bottom: number; leaning: boolean; labels: string[] } {
  if (scale !== "category") return { bottom: BOTTOM, leaning: false, labels };
  if ((wide(labels) + 8) * labels.length <= width - LEFT - 12) return { bottom: 28, leaning: false, labels };
  const most = 0.34 * height;
  const names = short(labels, (most - 22) / LEAN);
  return { bottom: Math.ceil(Math.min(LEAN * wide(names) + 22, most)), leaning: true, labels: names };
}

export function framed({ parts, size, log, logx, clip, zoom }: Shot): Frame {
  const first = (parts[0] as Part).chart;
  const ys = [...numbersOf(parts, "y")];
  const { bottom, leaning, labels } = below(first.x, size);
  const xAxis: Ruler = logx && isTime(first.x) ? { ...first.x, scale: "symlog" } : { ...first.x, labels };
  const upwards = titleUp(first);
  const top = upwards ? 22 : TOP;
  const yAxis: Ruler = log && ys.every((value) => !(value <= 0)) ? { ...first.y, scale: "log" } : first.y;
  return {
    parts,
    size,
    x: scale(xAxis, numbersOf(parts, "x"), LEFT, size.width - 12, number, zoom),
    y: scale(yAxis, ys, size.height - bottom, top, number, clip ? middle(ys) : null),
    dark: isDark(),
    top,
    bottom,
    leaning,
    upwards,
  };
}

/** What lies over a drawing ends where that ends. */
export const seen = ({ top, bottom }: Frame): string => `inset(${top - 8}px 4px ${bottom - 2}px ${LEFT - 6}px)`;
