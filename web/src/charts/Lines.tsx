// Curves over a numeric axis, drawn by uPlot; the cursor is that of the whole page.
import { effect } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import { DASHES, isDark, token } from "../colours";
import { along, keptPoints, middle, smooth } from "../curves";
import { nearest, number } from "../format";
import { cursorLayer, cursorStep, is, point, show } from "../state";
import { colourOf, marksOf, type Part, summary } from "./parts";
import type { View } from "./index";

interface Drawn {
  label: string;
  series: string;
  colour: string;
  dash: number[];
  width: number;
  role: "main" | "raw" | "band";
  fill?: string;
}

const POINTS = 2000;

/** Everything as uPlot wants it: one x for all, a column for each curve. */
export function table(parts: Part[], weight: number, dark: boolean): { data: uPlot.AlignedData; drawn: Drawn[]; bands: [number, number, string][] } {
  const tables: uPlot.AlignedData[] = [];
  const drawn: Drawn[] = [];
  const bands: [number, number, string][] = [];
  let clock: Part["clock"] = null;
  const add = (x: ArrayLike<number>, y: ArrayLike<number>, about: Drawn): number => {
    const at = (place: number): number => (clock ? along(clock.steps, clock.values, x[place] as number) : (x[place] as number));
    const kept = keptPoints(y, POINTS).filter((place) => Number.isFinite(at(place))); // a curve has no place for the others
    const values = kept.map((place) => (Number.isFinite(y[place]) ? (y[place] as number) : null));
    tables.push([Float64Array.from(kept, at), values]);
    return drawn.push(about);
  };
  for (const part of parts) {
    clock = part.clock;
    for (const band of marksOf(part.chart, "band")) {
      const colour = colourOf(part, band.series, parts.length, dark);
      const about: Drawn = { label: "", series: "", colour: "transparent", dash: [], width: 0, role: "band" };
      const low = add(band.x.data, band.low.data, about);
      const high = add(band.x.data, band.high.data, { ...about });
      bands.push([high, low, `color-mix(in srgb, ${colour} 18%, transparent)`]);
    }
    for (const line of marksOf(part.chart, "line")) {
      const name = part.chart.series[line.series] ?? part.chart.title;
      const colour = colourOf(part, line.series, parts.length, dark);
      const dash = parts.length > 1 ? (DASHES[line.series % DASHES.length] as number[]) : line.role === "reference" ? [4, 4] : [];
      const label = parts.length > 1 ? `${part.name}: ${name}` : name;
      const about: Drawn = { label, series: name, colour, dash, width: 1.6, role: "main" };
      if (line.role === "raw" || weight > 0) add(line.x.data, line.y.data, { ...about, width: 0.8, role: "raw" });
      if (line.role !== "raw") add(line.x.data, weight > 0 ? smooth(line.y.data, weight) : line.y.data, about);
    }
  }
  if (!tables.length) return { data: [[]], drawn, bands };
  return { data: uPlot.join(tables, tables.map(() => [2, 2])), drawn, bands };
}

type Column = (number | null | undefined)[];

/** Everything that one drawing of curves needs to know. */
interface Drawing extends ReturnType<typeof table> {
  parts: Part[];
  size: View["size"];
  log: boolean;
  clip: boolean;
}

/** The scale of the values: logarithmic where that is asked for and possible, and without the outermost ones if clipped. */
function scaleY({ data, drawn, parts, log, clip }: Drawing): uPlot.Scale {
  const columns = data.slice(1) as Column[];
  const numbers = (column: Column): number[] => column.filter((value): value is number => typeof value === "number");
  const there = columns.some((column) => numbers(column).length > 0);
  const positive = there && columns.every((column) => numbers(column).every((value) => value > 0));
  const wanted = (parts[0] as Part).chart.y.scale === "log" || log;
  const kept = clip ? middle(columns.flatMap((column, i) => (drawn[i]?.role === "main" ? numbers(column) : []))) : null;
  return { distr: positive && wanted ? 3 : 1, ...(kept ? { range: () => kept } : {}) };
}

function options(drawing: Drawing, hooks: uPlot.Hooks.Arrays): uPlot.Options {
  const { size, data, drawn, bands, parts } = drawing;
  const grid = { stroke: token("hair"), width: 1 };
  const few = (data[0]?.length ?? 0) <= 40;
  const axis = (room: number): uPlot.Axis => ({
    stroke: token("quiet"),
    grid,
    ticks: grid,
    font: "12px system-ui",
    size: room,
    values: (_, ticks) => ticks.map((tick) => (tick === null ? "" : number(tick))),
  });
  return {
    ...size,
    padding: [8, 8, 0, 0],
    legend: { show: false },
    cursor: { drag: { x: true, y: false }, points: { size: 6 }, focus: { prox: 24 } },
    focus: { alpha: 0.25 },
    scales: { x: { time: false, distr: (parts[0] as Part).chart.x.scale === "log" ? 3 : 1 }, y: scaleY(drawing) },
    axes: [axis(34), axis(58)],
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
  const placeOf = (step: number): number => {
    const x = clock ? along(clock.steps, clock.values, step) : step;
    return Number.isFinite(x) ? nearest(xs, x) : -1;
  };
  const moved = (plot: uPlot): void => {
    if (!own) return;
    const at = plot.cursor.idx ?? null;
    const x = at === null ? null : (xs[at] ?? null);
    if (steps) point({ step: x === null ? null : stepAt(x) });
    readout(at === null || x === null ? null : values(plot, drawn, at));
  };
  const focused = (_: uPlot, place: number | null): void => {
    if (own) point({ layer: place === null ? null : (drawn[place - 1]?.series ?? null) });
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
    const dragged = Math.abs(event.clientX - down) > 3; // a stretch was chosen to be shown larger, not a step
    if (steps && at !== null && !dragged) show({ step: stepAt(xs[at] as number) });
  };
  const follow = (plot: uPlot): (() => void)[] => [
    effect(() => {
      const step = cursorStep.value;
      if (own || !steps) return;
      const at = step === null ? -1 : placeOf(step);
      const spot = at < 0 ? { left: -10, top: -10 } : { left: plot.valToPos(xs[at] as number, "x"), top: plot.bbox.height / devicePixelRatio / 2 };
      plot.setCursor(spot, false);
      readout(at < 0 ? null : values(plot, drawn, at));
    }),
    effect(() => {
      const layer = cursorLayer.value;
      if (own) return;
      const place = layer === null ? -1 : drawn.findIndex((one) => one.role === "main" && one.series === layer);
      plot.setSeries(place < 0 ? null : place + 1, { focus: true }, false);
    }),
  ];
  // the place of a step on the screen is known once its curves are drawn, which is after this turn
  let stops: (() => void)[] | null = [];
  const ready = (plot: uPlot): void => {
    if (stops) stops = follow(plot);
  };
  const plot = new uPlot(options(drawing, { ready: [ready], setCursor: [moved], setSeries: [focused] }), data, root);
  return () => {
    stops?.forEach((stop) => stop());
    stops = null;
    plot.destroy();
  };
}

export function Lines({ parts, size, weight, log, clip, readout }: View) {
  const home = useRef<HTMLDivElement>(null);
  useEffect(
    () => plotted(home.current as HTMLDivElement, { ...table(parts, weight, isDark()), parts, size, log, clip }, readout),
    [parts, size.width, size.height, weight, log, clip, is.theme.value],
  );
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
  for (const rule of marksOf((parts[0] as Part).chart, "rule")) {
    if (rule.value === null) continue;
    const at = plot.valToPos(rule.value, rule.upright ? "x" : "y", true);
    pen.beginPath();
    const { left, top, width, height } = plot.bbox;
    if (rule.upright ? at < left || at > left + width : at < top || at > top + height) continue;
    pen.moveTo(rule.upright ? at : left, rule.upright ? top : at);
    pen.lineTo(rule.upright ? at : left + width, rule.upright ? top + height : at);
    pen.stroke();
    pen.fillText(rule.name, rule.upright ? at + 4 : left + 4, rule.upright ? top + 12 : at - 4);
  }
  pen.restore();
}
