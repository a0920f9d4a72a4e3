// Curves over a numeric axis, drawn by uPlot; the cursor is that of the whole page.
import { effect } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import { isDark, token } from "../../colours";
import { lastAt } from "../../at";
import { along, keptPoints, middle } from "../../curves";
import { nearest, number } from "../../format";
import { cursorLayer, cursorStep, fit, is, point, type Range, show } from "../../state";
import { placeOf } from "../../store";
import { type Kind, only, type View } from "../kind";
import { asShown, colourOf, dashOf, marksOf, type Part, rangeShown, summary, titleAlong, titleUp } from "../parts";
import { planeSvg } from "./Plane";

interface Drawn {
  label: string;
  series: string;
  colour: string;
  dash: number[];
  width: number;
  role: "main" | "raw" | "band";
}

const POINTS = 2000;
/** Steps are whole, and so are the numbers at their axis. */
const WHOLE = Array.from({ length: 13 }, (_, power) => [1, 2, 5].map((digit) => digit * 10 ** power)).flat();

interface Table {
  data: uPlot.AlignedData;
  drawn: Drawn[];
  /** Which columns are the upper and the lower end of a band, and what fills it. */
  bands: [number, number, string][];
}

/** Everything as uPlot wants it: one x for all, a column for each curve; of a range that is shown large, as much as elsewhere of all. */
export function table(parts: Part[], weight: number, dark: boolean, zoom: Range | null = null): Table {
  const tables: uPlot.AlignedData[] = [];
  const drawn: Drawn[] = [];
  const bands: [number, number, string][] = [];
  const add = (x: ArrayLike<number>, y: ArrayLike<number>, about: Drawn): number => {
    const [from, to] = zoom ? around(x, zoom) : [0, y.length];
    const kept = keptPoints(Array.prototype.slice.call(y, from, to) as number[], POINTS).map((place) => place + from);
    const values = kept.map((place) => (Number.isFinite(y[place]) ? (y[place] as number) : null));
    tables.push([Float64Array.from(kept, (place) => x[place] as number), values]);
    return drawn.push(about);
  };
  for (const part of parts) {
    const { chart } = asShown(part, weight);
    for (const band of marksOf(chart, "band")) {
      const colour = colourOf(part, band.series, parts.length, dark);
      const about: Drawn = { label: "", series: "", colour: "transparent", dash: [], width: 0, role: "band" };
      const low = add(band.x.data, band.low.data, about);
      const high = add(band.x.data, band.high.data, { ...about });
      bands.push([high, low, `color-mix(in srgb, ${colour} 18%, transparent)`]);
    }
    for (const line of marksOf(chart, "line")) {
      const name = chart.series[line.series] ?? chart.title;
      const colour = colourOf(part, line.series, parts.length, dark);
      const dash = dashOf(part, line.series, line.role, parts.length);
      const label = parts.length > 1 ? `${part.name}: ${name}` : name;
      const about: Drawn = { label, series: name, colour, dash, width: 1.6, role: "main" };
      add(line.x.data, line.y.data, line.role === "raw" ? { ...about, width: 0.8, role: "raw" } : about);
    }
  }
  if (!tables.length) return { data: [[]], drawn, bands };
  return { data: uPlot.join(tables, tables.map(() => [2, 2])), drawn, bands };
}

/** The places of a range in an ascending list, with one beyond each end, so that curves go on to the edge. */
function around(x: ArrayLike<number>, [low, high]: Range): [number, number] {
  let from = 0;
  let to = x.length;
  while (from + 1 < to && (x[from + 1] as number) < low) from++;
  while (to - 1 > from + 1 && (x[to - 2] as number) > high) to--;
  return [from, to];
}

/** The digits around a range of a logarithmic axis: left alone, it would go on to powers of ten. */
export function aroundLog(low: number, high: number): Range {
  if (!(low > 0 && high > 0)) return [1, 10];
  const digit = (value: number, round: (share: number) => number): number => {
    const power = 10 ** Math.floor(Math.log10(value));
    return Number((round(Number((value / power).toPrecision(6))) * power).toPrecision(6));
  };
  const [from, to] = [digit(low, Math.floor), digit(high, Math.ceil)];
  return from < to ? [from, to] : [from / 2, from * 2];
}

/** Where the marks of a logarithmic axis stand: at the powers of ten, and between them where these are few. */
export function logSplits(low: number, high: number, most: number): number[] {
  const [first, last] = [Math.floor(Math.log10(low)), Math.ceil(Math.log10(high))];
  const powers = Array.from({ length: Math.max(last - first + 1, 0) }, (_, i) => first + i);
  const inside = (digits: number[]): number[] =>
    powers.flatMap((power) => digits.map((digit) => Number(`${digit}e${power}`))).filter((value) => value >= low && value <= high);
  const all = [[1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9], [1, 2, 3, 5, 7], [1, 2, 5], [1]].map(inside);
  const marks = all.find((some) => some.length <= most) ?? (all.at(-1) as number[]);
  const every = Math.ceil(marks.length / most);
  return marks.filter((_, i) => i % every === 0);
}

type Column = (number | null | undefined)[];

/** Everything that one drawing of curves needs to know. */
interface Drawing extends Table, Omit<View, "readout" | "weight"> {
  /** The range that is shown large, as it is drawn. */
  ends: Range | null;
}

/** The scale of the values: logarithmic where that is asked for and possible, and without the outermost ones if clipped. */
function scaleY({ data, drawn, parts, log, clip }: Drawing): uPlot.Scale {
  const columns = data.slice(1) as Column[];
  const numbers = (column: Column): number[] => column.filter((value): value is number => typeof value === "number");
  const there = columns.some((column) => numbers(column).length > 0);
  const positive = there && columns.every((column) => numbers(column).every((value) => value > 0));
  const wanted = (parts[0] as Part).chart.y.scale === "log" || log;
  const kept = clip ? middle(columns.flatMap((column, i) => (drawn[i]?.role === "main" ? numbers(column) : []))) : null;
  if (positive && wanted) return { distr: 3, range: (_, low, high) => kept ?? aroundLog(low, high) };
  return { distr: 1, ...(kept ? { range: () => kept } : {}) };
}

/** The horizontal scale: logarithmic where the chart's own is, and of steps where that is asked for, which begin at zero. */
function scaleX({ parts, logx, ends }: Drawing): uPlot.Scale {
  const { x } = (parts[0] as Part).chart;
  if (x.scale === "log") return { time: false, distr: 3, range: (_, low, high) => ends ?? aroundLog(low, high) };
  // all steps and no more: left alone, it would go on to the next power of ten
  const range = (_: uPlot, low: number, high: number): Range => ends ?? (low < high ? [low, high] : [low - 0.5, high + 0.5]);
  return { time: false, range, ...(logx && x.title === "step" ? { distr: 4, asinh: 1 } : { distr: 1 }) };
}

function options(drawing: Drawing, hooks: uPlot.Hooks.Arrays): uPlot.Options {
  const { size, data, drawn, bands, parts } = drawing;
  const lead = parts[0] as Part;
  const grid = { stroke: token("hair"), width: 1 };
  const whole = lead.chart.x.title === "step" && !lead.clock && !drawing.logx;
  const few = (data[0]?.length ?? 0) <= 40;
  const [x, y] = [scaleX(drawing), scaleY(drawing)];
  const axis = (room: number, logarithmic: boolean): uPlot.Axis => ({
    stroke: token("quiet"),
    grid,
    ticks: grid,
    font: "12px system-ui",
    size: room,
    // left alone, it would begin where the range does, at any number
    ...(logarithmic ? { splits: (_, __, low, high) => logSplits(low, high, Math.max(2, (room < 40 ? size.width : size.height) / 50 - 1)), filter: (_, marks) => marks } : {}),
    values: (_, ticks) => ticks.map((tick) => (tick === null ? "" : number(tick))),
  });
  return {
    ...size,
    padding: [titleUp(lead.chart) ? 22 : 8, 20, 0, 0],
    legend: { show: false },
    cursor: { drag: { x: true, y: false, setScale: false }, points: { size: 6 }, focus: { prox: 24 }, bind: { dblclick: () => () => (fit(), null) } },
    focus: { alpha: 0.25 },
    scales: { x, y },
    axes: [{ ...axis(31, x.distr === 3), label: titleAlong(lead), labelSize: 16, labelGap: 0, labelFont: "12px system-ui", ...(whole ? { incrs: WHOLE } : {}) }, axis(58, y.distr === 3)],
    series: [
      {},
      ...drawn.map(({ label, colour, width, dash, role }) => ({
        label,
        stroke: colour,
        width,
        dash,
        alpha: role === "raw" ? 0.35 : 1,
        points: { show: role === "main" && few, size: 4 },
        spanGaps: true,
      })),
    ],
    bands: bands.map(([high, low, fill]) => ({ series: [high, low] as [number, number], fill })),
    hooks: { ...hooks, draw: [(plot) => drawRules(plot, parts)] },
  };
}

/** Draw curves into an element, and tie their cursor to that of the page; gives a way to take them away. */
function plotted(root: HTMLElement, drawing: Drawing, readout: View["readout"]): () => void {
  const { data, drawn, parts } = drawing;
  const { chart, clock } = parts[0] as Part;
  const steps = chart.x.title === "step";
  let own = root.matches(":hover"); // whether the pointer is over these very curves
  const xs = data[0] as number[];
  const stepAt = (x: number): number => (clock ? (clock.steps[nearest(clock.values, x)] as number) : x);
  const moved = (plot: uPlot): void => {
    if (!own) return;
    const at = plot.cursor.idx ?? null;
    const x = at === null ? null : (xs[at] ?? null);
    if (steps) point({ step: x === null ? null : stepAt(x) });
    readout(at === null || x === null ? null : { ...values(plot, drawn, at), of: titleAlong(parts[0] as Part) });
  };
  const focused = (_: uPlot, place: number | null): void => {
    if (own) point({ layer: place === null ? null : (drawn[place - 1]?.series ?? null) });
  };
  const dragged = (plot: uPlot): void => {
    const { left, width } = plot.select;
    if (width < 4) return;
    const [from, to] = [left, left + width].map((at) => stepAt(plot.posToVal(at, "x"))) as Range;
    const ends: Range = steps ? [Math.max(Math.floor(from), 0), Math.ceil(to)] : [rounded(from), rounded(to)];
    if (ends[0] < ends[1]) drawing.zoomed(ends);
  };
  root.onpointerenter = () => (own = true);
  root.onpointerleave = () => {
    own = false;
    if (steps) point({ step: null, layer: null });
    readout(null);
  };
  let down = 0;
  root.onpointerdown = (event) => (down = event.clientX);
  root.onclick = (event) => {
    const at = plot.cursor.idx ?? null;
    const still = Math.abs(event.clientX - down) <= 3; // else a stretch was chosen to be shown large, not a step
    if (steps && at !== null && still) show({ step: stepAt(xs[at] as number) });
  };
  const follow = (plot: uPlot): (() => void)[] => [
    effect(() => {
      const step = cursorStep.value;
      if (own || !steps) return;
      const x = step === null ? NaN : clock ? along(clock.steps, clock.values, step) : step;
      const left = Number.isFinite(x) ? plot.valToPos(x, "x") : -10;
      const seen = left >= 0 && left <= plot.over.clientWidth;
      plot.setCursor(seen ? { left, top: plot.over.clientHeight / 2 } : { left: -10, top: -10 }, false);
      // as in maps and tables, what was measured last counts
      const at = Number.isFinite(x) ? lastAt(xs, x) : -1;
      readout(at < 0 ? null : { ...values(plot, drawn, at), of: titleAlong(parts[0] as Part) });
    }),
    effect(() => {
      const layer = cursorLayer.value;
      if (own) return;
      const place = placeOf(drawn.map((one) => (one.role === "main" ? one.series : "")), layer);
      plot.setSeries(place < 0 ? null : place + 1, { focus: true }, false);
    }),
  ];
  // the place of a step on the screen is known once its curves are drawn, which is after this turn
  let stops: (() => void)[] | null = [];
  const ready = (plot: uPlot): void => {
    if (stops) stops = follow(plot);
  };
  const plot = new uPlot(options(drawing, { ready: [ready], setCursor: [moved], setSeries: [focused], setSelect: [dragged] }), data, root);
  return () => {
    stops?.forEach((stop) => stop());
    stops = null;
    plot.destroy();
  };
}

/** A number as exact as a drag is. */
const rounded = (value: number): number => Number(value.toPrecision(5));

function Lines({ readout, weight, ...view }: View) {
  const home = useRef<HTMLDivElement>(null);
  const { parts, size, log, logx, clip, zoom } = view;
  useEffect(() => {
    const ends = rangeShown(parts[0] as Part, zoom);
    return plotted(home.current as HTMLDivElement, { ...table(parts, weight, isDark(), ends), ...view, ends }, readout);
  }, [parts, size.width, size.height, weight, log, logx, clip, zoom?.[0], zoom?.[1], is.theme.value]);
  return <div class="plot" ref={home} role="img" aria-label={summary(parts)} />;
}

function values(plot: uPlot, drawn: Drawn[], at: number): { head: string; rows: [string, string, string][] } {
  const x = (plot.data[0] as number[])[at] as number;
  const rows: [string, string, string][] = [];
  drawn.forEach((one, place) => {
    if (one.role !== "main") return;
    const value = nearby(plot.data[place + 1] as (number | null | undefined)[], at);
    if (value !== undefined) rows.push([one.label, number(value ?? NaN), one.colour]);
  });
  return { head: number(x), rows };
}

/** A curve that was not measured at this very place has the value of the place before. */
function nearby(column: (number | null | undefined)[], at: number): number | null | undefined {
  for (let place = at; place >= 0; place--) if (column[place] !== undefined) return column[place];
  return undefined;
}

function drawRules(plot: uPlot, parts: Part[]): void {
  const pen = plot.ctx;
  pen.save();
  pen.strokeStyle = pen.fillStyle = token("quiet");
  pen.setLineDash([5 * devicePixelRatio, 4 * devicePixelRatio]);
  pen.font = `${12 * devicePixelRatio}px system-ui`;
  pen.textAlign = "left";
  pen.textBaseline = "alphabetic";
  pen.fillText(titleUp((parts[0] as Part).chart), 4 * devicePixelRatio, 13 * devicePixelRatio);
  for (const rule of marksOf((parts[0] as Part).chart, "rule")) {
    if (rule.value === null) continue;
    const at = plot.valToPos(rule.value, rule.upright ? "x" : "y", true);
    pen.beginPath();
    const { left, top, width, height } = plot.bbox;
    if (rule.upright ? at < left || at > left + width : at < top || at > top + height) continue;
    pen.moveTo(rule.upright ? at : left, rule.upright ? top : at);
    pen.lineTo(rule.upright ? at : left + width, rule.upright ? top + height : at);
    pen.stroke();
    const late = rule.upright && at > left + width - 110 * devicePixelRatio;
    pen.textAlign = late ? "right" : "left";
    pen.textBaseline = "alphabetic";
    const sharp = devicePixelRatio;
    pen.fillText(rule.name, rule.upright ? at + (late ? -4 : 4) * sharp : left + 4 * sharp, rule.upright ? top + 12 * sharp : at < top + 16 * sharp ? at + 13 * sharp : at - 4 * sharp);
  }
  pen.restore();
}

export const kind: Kind = {
  claims: (chart) => (chart.x.scale !== "category" && only(chart, "line", "band", "rule") ? 2 : 0),
  view: Lines,
  height: 240,
  overlays: true,
  scaled: true,
  svg: planeSvg,
};
