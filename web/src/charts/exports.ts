// Take a chart along: as a picture, as the very numbers that are shown, as Python that makes it again.
import { token } from "../colours";
import { unit } from "../format";
import { CALLED } from "../axes";
import { along, smooth } from "../curves";
import { shown, write } from "../state";
import type { Head, Mark } from "../types";
import type { Grid } from "../wire";
import { drawKeys, type Key, laid } from "./legend";
import type { Part } from "./parts";
import { type Pen, SvgPen } from "./pen";

/** Pixels above a drawing, for its title. */
const TITLE = 28;

export function save(content: Blob, name: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(content);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

const text = (content: string, kind: string): Blob => new Blob([content], { type: kind });

/**
 * A row for each number that is drawn.
 *
 * @param weight of the past, where curves are smoothed: they stand beside what was measured.
 */
export function rows(parts: Part[], head: Head, weight = 0): string[][] {
  const lead = parts.find((part) => part.clock);
  const other = lead ? [CALLED[lead.along]] : [];
  const found: string[][] = [["run", "series", "what", head.x.title || "x", head.y.title || "y", ...other]];
  for (const { run, chart, clock } of parts) {
    // where something else than steps runs along, its value stands behind
    const behind = (step: string | undefined): string[] => (clock && step ? [String(along(clock.steps, clock.values, Number(step.replaceAll(",", ""))))] : other.map(() => ""));
    const name = (series: number): string => chart.series[series] ?? "";
    const x = (value: number): string => (chart.x.scale === "category" ? (chart.x.labels[value] ?? String(value)) : String(value));
    for (const mark of chart.marks) {
      for (const row of rowsOf(mark, name, x, chart)) found.push([run, ...row, ...behind(row[2])]);
      if (weight > 0 && mark.mark === "line" && mark.role !== "raw")
        smooth(mark.y.data, weight).forEach((value, i) => {
          const at = x(mark.x.data[i] as number);
          found.push([run, name(mark.series), `smoothed ${weight}`, at, String(value), ...behind(at)]);
        });
    }
  }
  return found;
}

function* rowsOf(mark: Mark, name: (series: number) => string, x: (value: number) => string, chart: Part["chart"]): Generator<string[]> {
  const pairs = function* (what: string, series: number, xs: Grid, ys: Grid): Generator<string[]> {
    for (let i = 0; i < ys.data.length; i++) yield [name(series), what, x(xs.data[i] as number), String(ys.data[i])];
  };
  switch (mark.mark) {
    case "line":
      return yield* pairs(mark.role === "main" ? "value" : mark.role, mark.series, mark.x, mark.y);
    case "dots":
    case "path":
      return yield* pairs("value", mark.series, mark.x, mark.y);
    case "band":
      yield* pairs("low", mark.series, mark.x, mark.low);
      return yield* pairs("high", mark.series, mark.x, mark.high);
    case "span":
      for (let i = 0; i < mark.y.data.length; i++) {
        yield [name(mark.series), "low", String(mark.low.data[i]), String(mark.y.data[i])];
        yield [name(mark.series), "high", String(mark.high.data[i]), String(mark.y.data[i])];
      }
      return;
    case "rule":
      return yield [mark.name, "rule", mark.upright ? String(mark.value) : "", mark.upright ? "" : String(mark.value)];
    case "number":
      return yield [mark.name, "value", "", String(mark.value)];
    case "cells": {
      const [count = 0, columns = 0] = mark.values.shape;
      for (let row = 0; row < count; row++)
        for (let column = 0; column < columns; column++) {
          const value = mark.values.data[row * columns + column] as number;
          const shown = mark.meanings.length && Number.isFinite(value) ? (mark.meanings[value] ?? String(value)) : String(value);
          yield [chart.y.labels[row] ?? "", "value", chart.x.labels[column] ?? "", shown];
        }
      return;
    }
    case "boxes": {
      const [count = 0, cuts = 7] = mark.quantiles.shape;
      const names = ["least", "5 %", "25 %", "median", "75 %", "95 %", "largest"];
      for (let place = 0; place < count; place++)
        for (let cut = 0; cut < cuts; cut++) yield ["", names[cut] ?? "", x(place), String(mark.quantiles.data[place * cuts + cut])];
    }
  }
}

// a leading sign could be taken for a formula
const quoted = (cell: string): string => {
  const safe = /^[=+@\t\r]|^-(?![\d.]|Infinity)/.test(cell) ? `'${cell}` : cell;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
};

export const csv = (parts: Part[], head: Head, weight = 0): string => rows(parts, head, weight).map((row) => row.map(quoted).join(",")).join("\n") + "\n";

export const saveCsv = (parts: Part[], head: Head, weight: number): void => save(text(csv(parts, head, weight), "text/csv"), `${head.id}.csv`);

/** The charts with plain arrays; NaN and the infinities as words, since JSON has none. */
export function json(parts: Part[]): string {
  const plain = (_: string, value: unknown): unknown => {
    if (value && typeof value === "object" && "data" in value && "shape" in value) {
      const { data, shape } = value as Grid;
      return { shape, data: Array.from(data, (one) => (Number.isFinite(one) ? one : String(one))) };
    }
    return value;
  };
  return JSON.stringify(parts.map(({ run, name, chart }) => ({ run, name, chart })), plain, 1);
}

export const saveJson = (parts: Part[], head: Head): void => save(text(json(parts), "application/json"), `${head.id}.json`);

export function python(parts: Part[], head: Head): string {
  const runs = parts.map(({ run }) => JSON.stringify(run)).join(", ");
  return [
    "from stratoscope.charts.build import charts_of",
    "from stratoscope.charts.mpl import save",
    "from stratoscope.record import Record",
    "",
    `for run in [${runs}]:  # put the folders of these runs here`,
    "    record = Record.open(run)",
    `    values = record[${JSON.stringify(head.instrument)}][${JSON.stringify(head.variable)}]`,
    `    chart = next(chart for chart in charts_of(record) if chart.id == ${JSON.stringify(head.id)})`,
    "    print(run, values)",
    '    save(chart, f"{chart.id}.png")',
    "",
  ].join("\n");
}

export const copyPython = (parts: Part[], head: Head): Promise<void> => copy(python(parts, head));

export const copyLink = (head: Head): Promise<void> => {
  const link = new URL(location.href);
  link.hash = write({ ...shown.peek(), chart: head.id }); // the address itself may be a little behind
  return copy(link.href);
};

async function copy(content: string): Promise<void> {
  try {
    await navigator.clipboard.writeText(content);
  } catch {
    // an exported page, or a browser that asks first
    const area = document.createElement("textarea");
    area.value = content;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
}

/** Drawings over each other as one, with everything that the style sheet says of them written into it. */
export function standalone(drawings: SVGSVGElement[]): string {
  const copies = drawings.map((drawing) => {
    const copyOf = drawing.cloneNode(true) as SVGSVGElement;
    const own = [drawing, ...drawing.querySelectorAll<SVGElement>("*")];
    const others = [copyOf, ...copyOf.querySelectorAll<SVGElement>("*")];
    own.forEach((element, i) => {
      const style = getComputedStyle(element);
      // the shorthand of a font is no attribute
      for (const name of ["fill", "fill-opacity", "stroke", "stroke-width", "stroke-dasharray", "opacity", "font-family", "font-size", "font-weight", "text-anchor", "dominant-baseline"])
        others[i]?.setAttribute(name, style.getPropertyValue(name));
    });
    return copyOf;
  });
  const [whole, ...over] = copies as [SVGSVGElement, ...SVGSVGElement[]];
  for (const one of over) whole.append(...one.childNodes);
  whole.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  return new XMLSerializer().serializeToString(whole);
}

export const drawingsIn = (body: HTMLElement): SVGSVGElement[] => [...body.querySelectorAll<SVGSVGElement>("svg.plane")];

/** A drawing with its title above, its keys below and the page's ground behind. */
export function whole(svg: string, head: Head, { width, height }: { width: number; height: number }, keys: Key[]): string {
  const pen = new SvgPen(width, TITLE + height + laid(keys, width).height);
  surround(pen, head, { width, height }, keys);
  pen.put(svg, 0, TITLE);
  return pen.text();
}

/** What a picture shows around the drawing. */
function surround(pen: Pen, head: Head, { width, height }: { width: number; height: number }, keys: Key[], also = ""): void {
  pen.fillStyle = token("ground");
  pen.fillRect(0, 0, width, TITLE + height + laid(keys, width).height);
  pen.fillStyle = token("ink");
  pen.font = "600 13px system-ui";
  pen.textAlign = "left";
  pen.textBaseline = "alphabetic";
  pen.fillText(`${head.title}${head.split ? `, ${head.split}` : ""}${unit(head.units) ? ` [${head.units}]` : ""}${also}`, 8, 18);
  drawKeys(pen, keys, width, TITLE + height);
}

export function saveSvg(svg: string | null, head: Head, size: { width: number; height: number }, keys: Key[]): void {
  if (svg) save(text(whole(svg, head, size, keys), "image/svg+xml"), `${head.id}.svg`);
}

/** What a chart shows now, with its title, at twice the size. */
export async function painted(body: HTMLElement, head: Head, keys: Key[], picture: HTMLCanvasElement, also = ""): Promise<void> {
  const [width, height] = [body.clientWidth, body.clientHeight];
  const tall = TITLE + height + laid(keys, width).height;
  if (picture.width !== 2 * width) picture.width = 2 * width;
  if (picture.height !== 2 * tall) picture.height = 2 * tall;
  const pen = picture.getContext("2d") as CanvasRenderingContext2D;
  pen.setTransform(2, 0, 0, 2, 0, 0);
  const drawings = drawingsIn(body);
  const drawing = drawings[0];
  const image = new Image();
  if (drawing) {
    image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(standalone(drawings))}`;
    await image.decode();
  }
  surround(pen, head, { width, height }, keys, also);
  pen.fillStyle = token("ink"); // of the line at the page's step
  if (drawing) pen.drawImage(image, 0, TITLE, width, drawing.clientHeight);
  for (const canvas of body.querySelectorAll("canvas")) pen.drawImage(canvas, 0, TITLE, canvas.clientWidth, canvas.clientHeight);
  for (const line of body.querySelectorAll<HTMLElement>(".cursor-line, .u-cursor-x")) {
    // the page's step, which lies over the drawing
    if (line.hidden || line.classList.contains("u-off")) continue;
    const [own, frame] = [line.getBoundingClientRect(), body.getBoundingClientRect()];
    pen.fillRect(own.left - frame.left, TITLE + own.top - frame.top, 1.5, own.height);
  }
}

export async function savePng(body: HTMLElement, head: Head, keys: Key[]): Promise<void> {
  const picture = document.createElement("canvas");
  await painted(body, head, keys, picture);
  const blob = await new Promise<Blob | null>((done) => picture.toBlob(done));
  if (blob) save(blob, `${head.id}.png`);
}
