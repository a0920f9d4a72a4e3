// What the colours and dashes of a chart mean: on the page as keys, in pictures as drawn below the chart.
import { isDark, token } from "../colours";
import { is } from "../state";
import { colourOf, dashOf, type Part } from "./parts";
import { FONT, type Pen, wide } from "./pen";

export interface Key {
  name: string;
  colour: string;
  value?: string;
  /** How its curve is dashed, where that tells it from others. */
  dash?: number[];
}

/** The keys of a chart: series of one run, or runs, or groups of runs. */
export function legend(parts: Part[]): Key[] {
  const lead = parts[0] as Part;
  void is.theme.value;
  const dark = isDark();
  const coloured = lead.chart.marks.some((mark) => ["line", "dots", "band"].includes(mark.mark));
  if (!coloured) return [];
  if (parts.length === 1) {
    const names = lead.chart.series;
    const roles = new Map(lead.chart.marks.flatMap((mark) => (mark.mark === "line" ? [[mark.series, mark.role]] : [])));
    return names.length < 2 ? [] : names.map((name, series) => {
      const dash = roles.has(series) ? dashOf(lead, series, roles.get(series) as string, 1) : [];
      return { name, colour: colourOf(lead, series, 1, dark), ...(dash.length ? { dash } : {}) };
    }); // prettier-ignore
  }
  const keys = new Map<string, Key & { runs: number }>();
  for (const part of [...parts].sort((a, b) => a.place - b.place)) {
    const name = part.group ?? part.name;
    const known = keys.get(`${part.place} ${name}`);
    if (known) known.runs++;
    else keys.set(`${part.place} ${name}`, { name, colour: colourOf(part, 0, parts.length, dark), runs: 1 });
  }
  // runs have the colours, so series are told apart by their dashes
  const series = lead.chart.series.length > 1 && lead.chart.marks.some((mark) => mark.mark === "line") ? lead.chart.series : [];
  const dashes = series.map((name, at) => ({ name, colour: "currentColor", dash: dashOf(lead, at, "main", parts.length) }));
  return [...[...keys.values()].map(({ name, colour, runs }) => ({ name: runs > 1 ? `${name} (${runs} runs)` : name, colour })), ...dashes];
}

const ROW = 18;
const MARK = 24;

/** Where keys stand in rows of a width, and how tall all rows are. */
export function laid(keys: Key[], width: number): { spots: { key: Key; x: number; y: number }[]; height: number } {
  let [x, y] = [8, 0];
  const spots = keys.map((key) => {
    const room = MARK + wide([key.name]) + 14;
    if (x > 8 && x + room > width) [x, y] = [8, y + ROW];
    const spot = { key, x, y };
    x += room;
    return spot;
  });
  return { spots, height: keys.length ? y + ROW + 6 : 0 };
}

/** Draw keys from a height on. */
export function drawKeys(pen: Pen, keys: Key[], width: number, top: number): void {
  pen.font = FONT;
  pen.textAlign = "left";
  pen.textBaseline = "middle";
  for (const { key, x, y } of laid(keys, width).spots) {
    const middle = top + y + ROW / 2;
    pen.fillStyle = key.colour === "currentColor" ? token("ink") : key.colour;
    if (key.dash) for (const [from, long] of strokes(key.dash, MARK - 4)) pen.fillRect(x + from, middle - 1, long, 2);
    else pen.fillRect(x, middle - 2, MARK - 4, 4);
    pen.fillStyle = token("ink");
    pen.fillText(key.name, x + MARK, middle);
  }
}

/** The strokes of a dashed line: where each begins, and how long it is. */
function strokes(dash: number[], length: number): [number, number][] {
  if (!dash.length) return [[0, length]];
  const found: [number, number][] = [];
  for (let at = 0, i = 0; at < length; at += dash[i % dash.length] as number, i++)
    if (i % 2 === 0) found.push([at, Math.min(dash[i % dash.length] as number, length - at)]);
  return found;
}
