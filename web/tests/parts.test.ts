import { describe, expect, it } from "vitest";
import { csv, json } from "../src/charts/exports";
import { drawer } from "../src/charts";
import { keptPoints, middle, smooth } from "../src/curves";
import { nearest, number, stepOf } from "../src/format";
import { parse, write } from "../src/state";
import type { Head } from "../src/types";
import { decode, type Grid } from "../src/wire";

/** A message as the server packs it. */
function message(head: unknown, body: ArrayBuffer): ArrayBuffer {
  let text = JSON.stringify(head);
  text += " ".repeat((8 - ((8 + text.length) % 8)) % 8);
  const bytes = new Uint8Array(8 + text.length + body.byteLength);
  bytes.set(new TextEncoder().encode("STR1"));
  new DataView(bytes.buffer).setUint32(4, text.length, true);
  bytes.set(new TextEncoder().encode(text), 8);
  bytes.set(new Uint8Array(body), 8 + text.length);
  return bytes.buffer;
}

describe("messages", () => {
  it("give arrays with NaN and infinities as they were", () => {
    const found = decode(message({ a: [{ $array: ["f4", [2, 2], 0] }], b: "x" }, Float32Array.of(1, NaN, Infinity, -2).buffer)) as { a: Grid[]; b: string };
    expect(found.b).toBe("x");
    expect(found.a[0]?.shape).toEqual([2, 2]);
    expect(Array.from(found.a[0]?.data ?? [])).toEqual([1, NaN, Infinity, -2]);
  });
  it("refuse what is none", () => {
    expect(() => decode(new TextEncoder().encode("<!doctype html>").buffer as ArrayBuffer)).toThrow("no message");
  });
});

describe("curves", () => {
  it("keep spikes and gaps however few points are drawn", () => {
    const y = new Float64Array(100_000);
    y[43_210] = 1;
    y[77_777] = NaN;
    const kept = keptPoints(y, 200);
    expect(kept.length).toBeLessThan(320);
    for (const place of [0, 43_210, 77_777, 99_999]) expect(kept).toContain(place);
    expect([...kept].sort((a, b) => a - b)).toEqual(kept);
  });
  it("keep short curves as they are", () => expect(keptPoints([1, 2, 3], 10)).toEqual([0, 1, 2]));
  it("are smoothed without the bias of their start", () => {
    expect(Array.from(smooth([5, 5, 5], 0.9)).every((value) => Math.abs(value - 5) < 1e-12)).toBe(true);
    expect(Array.from(smooth([1, 2, 3], 0))).toEqual([1, 2, 3]);
    const gap = smooth([1, NaN, 1], 0.5);
    expect(gap[1]).toBeNaN();
    expect(gap[2]).toBeCloseTo(1, 12);
  });
});

describe("axes", () => {
  it("leave out the outermost values only when asked", () => {
    expect(middle([...Array.from({ length: 1000 }, (_, i) => i), 1e9, NaN])).toEqual([10, 990]);
    expect(middle([1, NaN])).toBeNull();
  });
});

describe("numbers", () => {
  it("read well", () => {
    expect([0, 1234, 0.123456, 1.5e-7, NaN, -Infinity, true, null].map(number)).toEqual(["0", "1,234", "0.1235", "1.5e−7", "NaN", "−∞", "yes", "–"]);
  });
  it("name steps", () => expect(["1,024", "0", "conv1"].map(stepOf)).toEqual([1024, 0, null]));
  it("are found by the nearest", () => {
    expect([-5, 3.9, 4.1, 100].map((value) => nearest([0, 2, 4, 8], value))).toEqual([0, 2, 2, 3]);
    expect(nearest([], 1)).toBe(-1);
  });
});

describe("the address", () => {
  it("holds all that is shown", () => {
    const state = parse("#runs=a,b&base=b&layer=conv1.weight&step=128&smooth=0.5&x=epoch&clip=1&log=1&logs=a,b&theme=dark&live=0&search=loss%20x&chart=c&split=test&instrument=probe&group=rate&filter=a%20b&order=steps&sort=-k&rows=all&logx=1&within=3..70.5&zoom=a:b:-1..2e-7&zoom=c:0..1");
    expect(state).toMatchObject({ within: [3, 70.5], zooms: { "a:b": [-1, 2e-7], c: [0, 1] }, order: "steps", sort: "-k", filter: "a b", logx: true });
    expect(parse(write(state))).toEqual(state);
    expect(state).toMatchObject({ runs: ["a", "b"], step: 128, theme: "dark", live: false, search: "loss x" });
  });
  it("passes over nonsense", () => {
    expect(parse("#step=-3&smooth=7&theme=pink&runs=,,a,a,&within=5..5&within=1..2&zoom=a&zoom=a:0..Infinity&order=size")).toEqual(parse("#runs=a"));
    expect(parse("#runs=a,b,c,d,e,f,g,h,i,j").runs).toHaveLength(8);
  });
});

const axis = { title: "step", units: "1", scale: "linear" as const, labels: [], low: null, high: null };
const head: Head = { id: "c", kind: "new-kind", title: "T", caption: "", instrument: "i", variable: "v", units: "1", source: "", source_html: "", split: null, series: ["=a", "b"], ordered: false, x: axis, y: { ...axis, title: "loss" }, marks: ["line"], empty: false };
const grid = (...data: number[]): Grid => ({ data: Float64Array.from(data), shape: [data.length] });

describe("charts", () => {
  it("of an unknown kind are drawn by their marks", () => {
    expect(drawer(head).overlays).toBe(true);
    expect(drawer({ kind: "", marks: ["cells"], x: { scale: "category" } })).not.toBe(drawer(head));
    for (const marks of [["path", "rule"], ["boxes"], ["number"], ["line", "dots"], []]) expect(drawer({ kind: "", marks, x: { scale: "linear" } }).height).toBeGreaterThan(0);
  });
  it("leave as the very numbers that are shown", () => {
    const chart = { ...head, marks: [{ mark: "line" as const, series: 0, x: grid(0, 1), y: grid(0.1, NaN), role: "main" as const }], colour: null };
    const parts = [{ run: "r,1", name: "run", chart, place: 0, group: null, clock: null, along: "step" as const }];
    expect(csv(parts, head).split("\n").slice(0, 3)).toEqual(["run,series,what,step,loss", "\"r,1\",'=a,value,0,0.1", "\"r,1\",'=a,value,1,NaN"]);
    expect(csv(parts, head, 0.5).split("\n")[3]).toBe("\"r,1\",'=a,smoothed 0.5,0,0.1");
    expect(JSON.parse(json(parts))[0].chart.marks[0].y).toEqual({ shape: [2], data: [0.1, "NaN"] });
  });
});
