// What draws on a canvas also draws SVG: the part of a canvas's pen that the page uses, and one that writes.
import { escapeText } from "../format";

export type Pen = Pick<
  CanvasRenderingContext2D,
  "fillStyle" | "font" | "textAlign" | "textBaseline" | "imageSmoothingEnabled" | "fillText" | "fillRect" | "measureText"
> & { drawImage(image: HTMLCanvasElement, x: number, y: number, width: number, height: number): void };

export const FONT = "12px system-ui";

const ANCHORS: Partial<Record<CanvasTextAlign, string>> = { right: "end", center: "middle", end: "end" };

/** A pen whose drawing is SVG in text. */
export class SvgPen implements Pen {
  fillStyle: string | CanvasGradient | CanvasPattern = "#000";
  font = "12px system-ui";
  textAlign: CanvasTextAlign = "left";
  textBaseline: CanvasTextBaseline = "alphabetic";
  imageSmoothingEnabled = true;
  private readonly drawn: string[] = [];
  private readonly ruler = document.createElement("canvas").getContext("2d") as CanvasRenderingContext2D;

  constructor(
    private readonly width: number,
    private readonly height: number,
  ) {}

  measureText(text: string): TextMetrics {
    this.ruler.font = this.font;
    return this.ruler.measureText(text);
  }

  fillText(text: string, x: number, y: number): void {
    const anchor = ANCHORS[this.textAlign] ?? "start";
    const line = this.textBaseline === "middle" ? "central" : "auto";
    this.drawn.push(`<text x="${near(x)}" y="${near(y)}" fill="${this.fillStyle}" style="font: ${this.font}" text-anchor="${anchor}" dominant-baseline="${line}">${escapeText(text)}</text>`);
  }

  fillRect(x: number, y: number, width: number, height: number): void {
    this.drawn.push(`<rect x="${near(x)}" y="${near(y)}" width="${near(width)}" height="${near(height)}" fill="${this.fillStyle}"/>`);
  }

  drawImage(image: HTMLCanvasElement, x: number, y: number, width: number, height: number): void {
    const how = this.imageSmoothingEnabled ? "" : ' style="image-rendering: pixelated"';
    this.drawn.push(`<image x="${near(x)}" y="${near(y)}" width="${near(width)}" height="${near(height)}" preserveAspectRatio="none" href="${image.toDataURL()}"${how}/>`);
  }

  /** Another drawing within this one. */
  put(svg: string, x: number, y: number): void {
    this.drawn.push(svg.replace("<svg", `<svg x="${near(x)}" y="${near(y)}"`));
  }

  text(): string {
    return `<svg xmlns="http://www.w3.org/2000/svg" width="${this.width}" height="${this.height}" viewBox="0 0 ${this.width} ${this.height}">${this.drawn.join("")}</svg>`;
  }
}

let ruler: CanvasRenderingContext2D | null = null;

/** Pixels that the widest of some names takes. */
export function wide(names: string[]): number {
  ruler ??= document.createElement("canvas").getContext("2d");
  if (!ruler) return 98;
  ruler.font = FONT;
  return Math.max(...names.map((name) => (ruler as CanvasRenderingContext2D).measureText(name).width), 20);
}

/** As much of the end of a name as has room: names of layers differ there. */
export function fitted(text: string, width: number): string {
  if (wide([text]) <= width) return text;
  let end = text;
  while (end && wide([`…${end}`]) > width) end = end.slice(1);
  return `…${end}`;
}

/**
 * Names without what all of them begin and end with, where that does not fit: "h.0" and "h.1" tell layers apart, and what
 * stands before and behind does not.
 */
export function short(names: string[], width: number): string[] {
  if (names.length < 2 || wide(names) <= width) return names;
  const parts = names.map((name) => name.split("."));
  const least = Math.min(...parts.map((one) => one.length));
  const same = (at: (one: string[]) => string | undefined): boolean => parts.every((one) => at(one) === at(parts[0] as string[]));
  let [before, behind] = [0, 0];
  while (before < least - 1 && same((one) => one[before])) before++;
  while (behind < least - 1 - before && same((one) => one.at(-1 - behind))) behind++;
  const from = Math.max(before - 1, 0); // the word before a number says what it counts
  return parts.map((one) => `${from ? "…" : ""}${one.slice(from, one.length - behind).join(".")}${behind ? "…" : ""}`);
}

const near = (value: number): number => Math.round(value * 100) / 100;
