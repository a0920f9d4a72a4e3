// Values as colours on a canvas: rows by columns, with the page's cursor over it.
import { effect } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { css, isDark, ramp, seriesColour, token } from "../colours";
import { number, stepOf } from "../format";
import { cursorLayer, cursorStep, is, point, show } from "../state";
import { marksOf, type Part, summary } from "./parts";
import type { View } from "./index";

const LEFT = 110;
const BOTTOM = 34;
const LEGEND = 22;

/** Categories need more room for their legend than a ramp. */
const legendOf = (cells: { meanings: string[]; strips: string[] } | undefined): number => (cells?.strips.length ? 4 * LEGEND : LEGEND);

export function Cells({ parts, size, log, readout }: View) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const line = useRef<HTMLDivElement>(null);
  const mark = useRef<HTMLDivElement>(null);
  const { chart } = parts[0] as Part;
  const cells = marksOf(chart, "cells")[0];
  const [rows, columns] = (cells?.values.shape ?? [0, 0]) as [number, number];
  const width = Math.max(size.width - LEFT - 8, 40);
  const height = Math.max(size.height - BOTTOM - legendOf(cells), 40);
  const steps = chart.x.title === "step" ? chart.x.labels.map(stepOf) : null;
  const names = chart.y.labels;
  // a category of the vertical axis may be divided into strips
  const each = Math.max(cells?.strips.length ?? 0, 1);

  useEffect(() => {
    if (!cells || !canvas.current || !rows || !columns) return;
    draw(canvas.current, size, cells, chart, log);
  }, [parts, size.width, size.height, log, is.theme.value]);

  useEffect(() => {
    const stop = effect(() => {
      const wanted = cursorStep.value;
      const bar = line.current as HTMLDivElement;
      const at = steps && wanted !== null ? lastAt(steps, wanted) : -1;
      bar.hidden = at < 0;
      if (at >= 0) bar.style.transform = `translateX(${LEFT + ((at + 0.5) * width) / columns}px)`;
    });
    const stopLayer = effect(() => {
      const at = cursorLayer.value === null ? -1 : names.indexOf(cursorLayer.value);
      const box = mark.current as HTMLDivElement;
      box.hidden = at < 0;
      if (at >= 0) {
        box.style.transform = `translateY(${(at * each * height) / rows}px)`;
        box.style.height = `${Math.max((each * height) / rows, 2)}px`;
      }
    });
    return () => {
      stop();
      stopLayer();
    };
  }, [parts, size.width, size.height]);

  const place = (event: PointerEvent | MouseEvent): [number, number] | null => {
    const box = (event.currentTarget as HTMLElement).getBoundingClientRect();
    const column = Math.floor(((event.clientX - box.left - LEFT) / width) * columns);
    const row = Math.floor(((event.clientY - box.top) / height) * rows);
    return column >= 0 && column < columns && row >= 0 && row < rows ? [row, column] : null;
  };
  const move = (event: PointerEvent): void => {
    const at = place(event);
    if (!at || !cells) return leave();
    const [row, column] = at;
    const name = names[Math.floor(row / each)] ?? "";
    point({ layer: name, ...(steps ? { step: steps[column] ?? null } : {}) });
    const said = (place: number): string => {
      const value = cells.values.data[place * columns + column] as number;
      if (Number.isNaN(value)) return cells.strips.length ? "says nothing" : "not measured";
      return cells.meanings.length ? (cells.meanings[value] ?? "") : number(value);
    };
    const begin = row - (row % each);
    const told: [string, string, string][] = cells.strips.length
      ? cells.strips.map((strip, i) => [`${name} ${strip}`, said(begin + i), "currentColor"])
      : [[name, said(row), "currentColor"]];
    readout({ head: `${chart.x.title} ${chart.x.labels[column] ?? ""}`, rows: told });
  };
  const leave = (): void => {
    point({ layer: null, step: null });
    readout(null);
  };
  const click = (event: MouseEvent): void => {
    const at = place(event);
    if (at) show({ layer: names[Math.floor(at[0] / each)] ?? null, ...(steps ? { step: steps[at[1]] ?? null } : {}) });
  };
  return (
    <div class="cells" onPointerMove={move} onPointerLeave={leave} onClick={click}>
      <canvas ref={canvas} role="img" aria-label={summary(parts)} />
      <div class="cursor-line" ref={line} hidden style={{ height: `${height}px` }} />
      <div class="cursor-row" ref={mark} hidden style={{ left: `${LEFT}px`, width: `${width}px` }} />
    </div>
  );
}

/** The last column at or before a step. */
function lastAt(steps: (number | null)[], wanted: number): number {
  let found = -1;
  steps.forEach((step, at) => {
    if (step !== null && step <= wanted) found = at;
  });
  return found;
}

type Grid = NonNullable<ReturnType<typeof marksOf<"cells">>[0]>;

function draw(canvas: HTMLCanvasElement, size: { width: number; height: number }, cells: Grid, chart: Part["chart"], log: boolean): void {
  const [rows, columns] = cells.values.shape as [number, number];
  const sharp = devicePixelRatio;
  canvas.width = size.width * sharp;
  canvas.height = size.height * sharp;
  canvas.style.width = `${size.width}px`;
  canvas.style.height = `${size.height}px`;
  const pen = canvas.getContext("2d") as CanvasRenderingContext2D;
  pen.scale(sharp, sharp);
  const width = size.width - LEFT - 8;
  const height = size.height - BOTTOM - legendOf(cells);
  const paint = painter(cells, chart, log);
  const small = document.createElement("canvas");
  small.width = columns;
  small.height = rows;
  const inner = small.getContext("2d") as CanvasRenderingContext2D;
  const image = inner.createImageData(columns, rows);
  for (let i = 0; i < rows * columns; i++) image.data.set(paint.colour(cells.values.data[i] as number), 4 * i);
  inner.putImageData(image, 0, 0);
  pen.imageSmoothingEnabled = false;
  pen.drawImage(small, LEFT, 0, width, height);
  pen.fillStyle = token("quiet");
  pen.font = "12px system-ui";
  pen.textBaseline = "middle";
  const names = chart.y.labels;
  const each = Math.max(1, Math.ceil((15 * names.length) / height));
  pen.textAlign = "right";
  for (let row = 0; row < names.length; row += each) pen.fillText(fitted(pen, names[row] ?? "", LEFT - 8), LEFT - 6, ((row + 0.5) * height) / names.length);
  if (cells.strips.length) {
    // a line between layers, so that their strips are not taken for one another
    pen.fillStyle = token("ground");
    for (let row = 1; row < names.length; row++) pen.fillRect(LEFT, Math.round((row * height) / names.length) - 1, width, 2);
    pen.fillStyle = token("quiet");
  }
  pen.textAlign = "center";
  const across = Math.max(1, Math.ceil((56 * columns) / width));
  for (let column = 0; column < columns; column += across) pen.fillText(fitted(pen, chart.x.labels[column] ?? "", 54), LEFT + ((column + 0.5) * width) / columns, height + 12);
  legend(pen, paint, chart, size, height);
}

function fitted(pen: CanvasRenderingContext2D, text: string, width: number): string {
  if (pen.measureText(text).width <= width) return text;
  let end = text;
  while (end && pen.measureText(`…${end}`).width > width) end = end.slice(1);
  return `…${end}`;
}

interface Paint {
  colour(value: number): [number, number, number, number];
  low: number;
  high: number;
  log: boolean;
  meanings: { name: string; colour: string }[];
}

function painter(cells: Grid, chart: Part["chart"], log: boolean): Paint {
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
  let low = Infinity;
  let high = -Infinity;
  let least = Infinity;
  for (const value of cells.values.data) {
    if (!Number.isFinite(value)) continue;
    low = Math.min(low, value);
    high = Math.max(high, value);
    if (value > 0) least = Math.min(least, value);
  }
  // zeros stand at the dark end of a logarithmic scale; below zero there is none
  const logs = low >= 0 && least < high && (chart.colour?.scale === "log" || log);
  const share = (value: number): number => {
    if (high === low) return 0.5;
    return logs ? Math.log(Math.max(value, least) / least) / Math.log(high / least) : (value - low) / (high - low);
  };
  return {
    colour: (value) => (Number.isNaN(value) ? [0, 0, 0, 0] : Number.isFinite(value) ? [...ramp(share(value)), 255] as [number, number, number, number] : [200, 30, 30, 255]),
    low: logs ? least : low, high, log: logs, meanings: [],
  }; // prettier-ignore
}

function rgb(colour: string): [number, number, number] {
  const hex = /^#(..)(..)(..)$/.exec(colour);
  if (hex) return hex.slice(1).map((part) => parseInt(part, 16)) as [number, number, number];
  return (colour.match(/\d+/g) ?? ["0", "0", "0"]).slice(0, 3).map(Number) as [number, number, number];
}

function legend(pen: CanvasRenderingContext2D, paint: Paint, chart: Part["chart"], size: { width: number; height: number }, top: number): void {
  const y = top + BOTTOM;
  pen.textAlign = "left";
  if (paint.meanings.length) {
    let x = LEFT;
    let y = top + BOTTOM;
    for (const { name, colour } of paint.meanings) {
      const wide = 18 + pen.measureText(name).width + 14;
      if (x + wide > size.width && x > LEFT) {
        x = LEFT;
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
    pen.fillRect(LEFT + i, y, 1, 10);
  }
  pen.fillStyle = token("quiet");
  const kind = paint.log ? ", logarithmic" : "";
  pen.fillText(`${number(paint.low)} to ${number(paint.high)}${chart.units === "1" ? "" : ` ${chart.units}`}${kind}`, LEFT + 128, y + 6);
}
