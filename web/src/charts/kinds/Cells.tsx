// Values as colours on a canvas: rows by columns, with the page's cursor over it.
import { effect } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { css, isDark, ramp, seriesColour, token } from "../../colours";
import { middle } from "../../curves";
import { number, stepOf } from "../../format";
import { cursorLayer, cursorStep, is, point, show } from "../../state";
import { placeOf } from "../../store";
import type { Chart } from "../../types";
import type { Kind, Shot, View } from "../kind";
import { marksOf, type Of, type Part, summary } from "../parts";
import { fitted, FONT, type Pen, short, SvgPen, wide } from "../pen";

/** Room for names is what they need, up to a share of all. */
const NAMES = 0.3;
const BOTTOM = 34;
const LEGEND = 22;

/** A map as it lies on the screen. */
interface Map {
  chart: Chart;
  cells: Of<"cells">;
  rows: number;
  /** The columns that are shown: from the first to before the last. */
  from: number;
  to: number;
  /** The step of each column, where steps run along. */
  steps: (number | null)[] | null;
  /** Names of rows, as far as they tell them apart. */
  names: string[];
  /** Room of names, and of the cells themselves. */
  left: number;
  width: number;
  height: number;
  /** Rows of a name: a category of the vertical axis may be divided into strips. */
  each: number;
}

function mapped({ parts, size, zoom }: Pick<Shot, "parts" | "size" | "zoom">): Map | null {
  const { chart } = parts[0] as Part;
  const cells = marksOf(chart, "cells")[0];
  const [rows = 0, columns = 0] = cells?.values.shape ?? [];
  if (!cells || !rows || !columns) return null;
  const steps = chart.x.title === "step" ? chart.x.labels.map(stepOf) : null;
  const inside = (step: number | null): boolean => !zoom || (step !== null && step >= zoom[0] && step <= zoom[1]);
  const [first, last] = steps ? [steps.findIndex(inside), steps.findLastIndex(inside)] : [0, columns - 1];
  const names = short(chart.y.labels, NAMES * size.width - 12);
  const left = Math.min(wide(names) + 12, Math.floor(NAMES * size.width));
  // categories need more room for their legend than a ramp
  const legend = cells.strips.length ? 4 * LEGEND : LEGEND;
  return {
    chart,
    cells,
    rows,
    from: Math.max(first, 0),
    to: first < 0 ? columns : last + 1, // where nothing was measured, everything
    steps,
    names,
    left,
    width: Math.max(size.width - left - 8, 40),
    height: Math.max(size.height - BOTTOM - legend, 40),
    each: Math.max(cells.strips.length, 1),
  };
}

export function Cells({ readout, ...shot }: View) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const line = useRef<HTMLDivElement>(null);
  const mark = useRef<HTMLDivElement>(null);
  const { parts, size, log, clip, zoom } = shot;
  const map = mapped(shot);

  useEffect(() => {
    const sheet = canvas.current;
    if (!map || !sheet) return;
    const sharp = devicePixelRatio;
    sheet.width = size.width * sharp;
    sheet.height = size.height * sharp;
    sheet.style.width = `${size.width}px`;
    sheet.style.height = `${size.height}px`;
    const pen = sheet.getContext("2d") as CanvasRenderingContext2D;
    pen.scale(sharp, sharp);
    draw(pen, map, shot);
  }, [parts, size.width, size.height, log, clip, zoom?.[0], zoom?.[1], is.theme.value]);

  useEffect(() => (map ? followed(map, line.current as HTMLElement, mark.current as HTMLElement) : undefined), [parts, size.width, size.height, zoom?.[0], zoom?.[1]]);

  if (!map) return null;
  const { chart, steps } = map;
  const place = (event: PointerEvent | MouseEvent): [number, number] | null => {
    const box = (event.currentTarget as HTMLElement).getBoundingClientRect();
    const column = map.from + Math.floor(((event.clientX - box.left - map.left) / map.width) * (map.to - map.from));
    const row = Math.floor(((event.clientY - box.top) / map.height) * map.rows);
    return column >= map.from && column < map.to && row >= 0 && row < map.rows ? [row, column] : null;
  };
  const nameOf = (row: number): string => chart.y.labels[Math.floor(row / map.each)] ?? "";
  const move = (event: PointerEvent): void => {
    const at = place(event);
    if (!at) return leave();
    const [row, column] = at;
    point({ layer: nameOf(row), ...(steps ? { step: steps[column] ?? null } : {}) });
    readout({ head: `${chart.x.title} ${chart.x.labels[column] ?? ""}`, rows: told(map, row, column, nameOf(row)) });
  };
  const leave = (): void => {
    point({ layer: null, step: null });
    readout(null);
  };
  const click = (event: MouseEvent): void => {
    const at = place(event);
    if (at) show({ layer: nameOf(at[0]), ...(steps ? { step: steps[at[1]] ?? null } : {}) });
  };
  return (
    <div class="cells" onPointerMove={move} onPointerLeave={leave} onClick={click}>
      <canvas ref={canvas} role="img" aria-label={summary(parts)} />
      <div class="cursor-line" ref={line} hidden style={{ height: `${map.height}px` }} />
      <div class="cursor-row" ref={mark} hidden style={{ left: `${map.left}px`, width: `${map.width}px` }} />
    </div>
  );
}

/** Tie a line and a box over a map to the page's cursor; gives a way to stop that. */
function followed(map: Map, line: HTMLElement, mark: HTMLElement): () => void {
  const { steps, chart, left, width, height, rows, each, from, to } = map;
  const across = ["layer", "matrix", "param"].includes(chart.x.title);
  const stop = effect(() => {
    const wanted = steps ? cursorStep.value : null;
    // where layers run along as well, as in a map of layers against layers, the line is that of the layer
    const at = steps ? (wanted === null ? -1 : steps.findLastIndex((step) => step !== null && step <= wanted)) : across ? placeOf(chart.x.labels, cursorLayer.value) : -1;
    line.hidden = at < from || at >= to;
    if (!line.hidden) line.style.transform = `translateX(${left + ((at - from + 0.5) * width) / (to - from)}px)`;
  });
  const stopLayer = effect(() => {
    const at = placeOf(chart.y.labels, cursorLayer.value);
    mark.hidden = at < 0;
    if (at < 0) return;
    mark.style.transform = `translateY(${(at * each * height) / rows}px)`;
    mark.style.height = `${Math.max((each * height) / rows, 2)}px`;
  });
  return () => {
    stop();
    stopLayer();
  };
}

/** What stands in a cell, in words; of all strips of its name. */
function told({ cells, each }: Map, row: number, column: number, name: string): [string, string, string][] {
  const columns = cells.values.shape[1] as number;
  const said = (place: number): string => {
    const value = cells.values.data[place * columns + column] as number;
    if (Number.isNaN(value)) return cells.strips.length ? "says nothing" : "not measured";
    return cells.meanings.length ? (cells.meanings[value] ?? "") : number(value);
  };
  const begin = row - (row % each);
  if (!cells.strips.length) return [[name, said(row), "currentColor"]];
  return cells.strips.map((strip, i) => [`${name} ${strip}`, said(begin + i), "currentColor"]);
}

function draw(pen: Pen, map: Map, { size, log, clip }: Shot): void {
  const { chart, cells, names, left, from, to, width, height } = map;
  const paint = painter(cells, chart, log, clip);
  pen.imageSmoothingEnabled = false;
  pen.drawImage(sheet(map, paint), left, 0, width, height);
  if (cells.strips.length) pen.drawImage(hatched(map), left, 0, width, height);
  pen.fillStyle = token("quiet");
  pen.font = FONT;
  pen.textBaseline = "middle";
  const each = Math.max(1, Math.ceil((15 * names.length) / height));
  pen.textAlign = "right";
  // in the middle of those that have no room for theirs, so that none stands half outside
  for (let row = Math.floor((each - 1) / 2); row < names.length; row += each) pen.fillText(fitted(names[row] ?? "", left - 8), left - 6, ((row + 0.5) * height) / names.length);
  if (cells.strips.length) {
    // a line between layers, so that their strips are not taken for one another
    pen.fillStyle = token("ground");
    for (let row = 1; row < names.length; row++) pen.fillRect(left, Math.round((row * height) / names.length) - 1, width, 2);
    pen.fillStyle = token("quiet");
  }
  pen.textAlign = "center";
  // names as long as those of layers say nothing in the room of a number
  const room = Math.min(Math.max(wide(chart.x.labels.slice(from, to)) + 10, 56), 116);
  const across = Math.max(1, Math.ceil((room * (to - from)) / width));
  let end = -Infinity;
  for (let column = from; column < to; column += across) {
    const name = fitted(chart.x.labels[column] ?? "", room - 2);
    const at = left + ((column - from + 0.5) * width) / (to - from);
    const half = pen.measureText(name).width / 2;
    const middle = Math.min(at, left + width + 8 - half);
    if (middle - half < end + 4) continue;
    pen.fillText(name, middle, height + 12);
    end = middle + half;
  }
  legend(pen, paint, map, size.width);
}

/** Strokes over the cells of which nothing is said, though somebody looked. */
function hatched({ cells, rows, from, to, width, height }: Map): HTMLCanvasElement {
  const [tile, over] = [document.createElement("canvas"), document.createElement("canvas")];
  tile.width = tile.height = 6;
  const stroke = tile.getContext("2d") as CanvasRenderingContext2D;
  stroke.strokeStyle = token("quiet");
  stroke.globalAlpha = 0.55;
  for (const at of [-6, 0, 6]) {
    stroke.moveTo(at, 6);
    stroke.lineTo(at + 6, 0);
  }
  stroke.stroke();
  [over.width, over.height] = [Math.ceil(width), Math.ceil(height)];
  const pen = over.getContext("2d") as CanvasRenderingContext2D;
  pen.fillStyle = pen.createPattern(tile, "repeat") as CanvasPattern;
  const columns = cells.values.shape[1] as number;
  const [wide, tall] = [width / (to - from), height / rows];
  for (let row = 0; row < rows; row++) {
    if (cells.blank.includes(row)) continue;
    for (let column = from; column < to; column++)
      if (Number.isNaN(cells.values.data[row * columns + column])) pen.fillRect((column - from) * wide, row * tall, wide, tall);
  }
  return over;
}

/** The cells that are shown, a pixel each. */
function sheet({ cells, rows, from, to }: Map, paint: Paint): HTMLCanvasElement {
  const small = document.createElement("canvas");
  small.width = to - from;
  small.height = rows;
  const inner = small.getContext("2d") as CanvasRenderingContext2D;
  const image = inner.createImageData(to - from, rows);
  const columns = cells.values.shape[1] as number;
  for (let row = 0; row < rows; row++)
    for (let column = from; column < to; column++)
      image.data.set(paint.colour(cells.values.data[row * columns + column] as number), 4 * (row * (to - from) + column - from));
  inner.putImageData(image, 0, 0);
  return small;
}

interface Paint {
  colour(value: number): [number, number, number, number];
  low: number;
  high: number;
  log: boolean;
  meanings: { name: string; colour: string }[];
}

function painter(cells: Of<"cells">, chart: Chart, log: boolean, clip: boolean): Paint {
  if (cells.meanings.length) {
    const seen = new Set(cells.values.data);
    const dark = isDark();
    const colours = cells.meanings.map(
      (_, place) => cells.shades[place]?.[dark ? 1 : 0] ?? seriesColour(place, cells.meanings.length, cells.meanings.length > 8, dark),
    );
    const parsed = colours.map(rgb);
    return {
      colour: (value) => (Number.isFinite(value) ? [...(parsed[value] ?? [128, 128, 128]), 255] as [number, number, number, number] : [0, 0, 0, 0]),
      low: 0, high: 0, log: false,
      meanings: cells.meanings
        .map((name, place) => ({ name: cells.told_by[place]?.length === 1 ? `${cells.told_by[place]?.[0]}: ${name}` : name, colour: colours[place] as string }))
        .filter((_, place) => seen.has(place)),
    }; // prettier-ignore
  }
  const finite = Array.from(cells.values.data).filter(Number.isFinite);
  const [low, high] = (clip ? middle(finite) : null) ?? extent(finite);
  const least = extent(finite.filter((value) => value > 0 && value >= low))[0];
  // zeros stand at the dark end of a logarithmic scale; below zero there is none
  const logs = low >= 0 && least < high && (chart.colour?.scale === "log" || log);
  const share = (given: number): number => {
    if (high === low) return 0.5;
    const value = Math.min(Math.max(given, low), high);
    return logs ? Math.log(Math.max(value, least) / least) / Math.log(high / least) : (value - low) / (high - low);
  };
  return {
    colour: (value) => (Number.isNaN(value) ? [0, 0, 0, 0] : Number.isFinite(value) ? [...ramp(share(value)), 255] as [number, number, number, number] : [200, 30, 30, 255]),
    low: logs ? least : low, high, log: logs, meanings: [],
  }; // prettier-ignore
}

const extent = (values: number[]): [number, number] =>
  values.reduce<[number, number]>(([low, high], value) => [Math.min(low, value), Math.max(high, value)], [Infinity, -Infinity]);

function rgb(colour: string): [number, number, number] {
  const hex = /^#(..)(..)(..)$/.exec(colour);
  if (hex) return hex.slice(1).map((part) => parseInt(part, 16)) as [number, number, number];
  return (colour.match(/\d+/g) ?? ["0", "0", "0"]).slice(0, 3).map(Number) as [number, number, number];
}

function legend(pen: Pen, paint: Paint, { chart, left, height }: Map, room: number): void {
  let y = height + BOTTOM;
  pen.textAlign = "left";
  if (paint.meanings.length) {
    let x = left;
    for (const { name, colour } of paint.meanings) {
      const wide = 18 + pen.measureText(name).width + 14;
      if (x + wide > room && x > left) {
        x = left;
        y += 17;
      }
      pen.fillStyle = colour;
      pen.fillRect(x, y, 12, 12);
      pen.fillStyle = token("quiet");
      pen.fillText(name, x + 17, y + 6);
      x += wide;
    }
    return;
  }
  if (!Number.isFinite(paint.low)) return;
  for (let i = 0; i < 120; i++) {
    pen.fillStyle = css(ramp(i / 119));
    pen.fillRect(left + i, y, 1, 10);
  }
  pen.fillStyle = token("quiet");
  const kind = paint.log ? ", logarithmic" : "";
  pen.fillText(`${number(paint.low)} to ${number(paint.high)}${chart.units === "1" ? "" : ` ${chart.units}`}${kind}`, left + 128, y + 6);
}

export function cellsSvg(shot: Shot): string | null {
  const map = mapped(shot);
  if (!map) return null;
  const pen = new SvgPen(shot.size.width, shot.size.height);
  draw(pen, map, shot);
  return pen.text();
}

export const kind: Kind = {
  claims: (chart) => (chart.marks.includes("cells") ? 3 : 0),
  view: Cells,
  height: 260,
  overlays: false,
  scaled: true,
  svg: cellsSvg,
};
