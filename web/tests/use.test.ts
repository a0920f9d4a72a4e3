import { describe, expect, it } from "vitest";
import { csv } from "../src/charts/exports";
import { aroundLog, logSplits } from "../src/charts/kinds/Lines";
import { asShown, dashOf, type Part, titleAlong, titleUp } from "../src/charts/parts";
import { scale } from "../src/charts/scale";
import { number } from "../src/format";
import { lessOf } from "../src/keys";
import { wanted } from "../src/panels/Charts";
import type { Chart, Finding, Head, Index } from "../src/types";
import type { Grid } from "../src/wire";

const grid = (...data: number[]): Grid => ({ data: Float64Array.from(data), shape: [data.length] });
const axis = { title: "step", units: "1", scale: "linear" as const, labels: [], low: null, high: null };
const head: Head = { id: "c", kind: "lines", title: "Loss", caption: "", instrument: "training", variable: "loss", units: "1", source: "", source_html: "", split: null, series: ["a"], ordered: false, x: axis, y: { ...axis, title: "loss" }, marks: ["line", "rule"], empty: false };
const line = { mark: "line" as const, series: 0, x: grid(0, 10, 20), y: grid(3, 2, 1), role: "main" as const };
const rule = { mark: "rule" as const, name: "floor", value: 1, upright: false };
const part = (change: Partial<Part> = {}): Part => ({ run: "r", name: "run", chart: { ...head, marks: [line, rule], colour: null } as Chart, place: 0, group: null, clock: null, along: "step", ...change });
const clock = { steps: Float64Array.of(0, 10, 20), values: Float64Array.of(0, 500, 4000) };

describe("Esc", () => {
  it("takes one thing away at a time: what lies before the rest first", () => {
    let now = { chart: "c" as string | null, layer: "l" as string | null, instrument: "i" as string | null, search: "s", step: 3 as number | null };
    const taken: string[][] = [];
    for (let press = 0; press < 4; press++) {
      const less = lessOf(now);
      taken.push(Object.keys(less));
      now = { ...now, ...less } as typeof now;
    }
    expect(taken).toEqual([["chart"], ["layer", "instrument"], ["search"], ["step"]]);
    expect(now).toEqual({ chart: null, layer: null, instrument: null, search: "", step: null });
  });
});

describe("axes say what they show", () => {
  it("along: steps, or what is at them, in drawings as well", () => {
    expect(titleAlong(part())).toBe("step");
    const moved = part({ clock, along: "tokens" });
    expect(titleAlong(moved)).toBe("tokens");
    expect(asShown(moved, 0).chart.x.title).toBe("tokens");
  });
  it("upwards: only what the title does not say", () => {
    expect(titleUp(part().chart)).toBe("");
    expect(titleUp({ ...part().chart, title: "Spectrum of conv1" })).toBe("loss");
  });
  it("logarithmic ones end at the digits around the values, and have more than one mark", () => {
    expect([aroundLog(0.0968, 1.08), aroundLog(1, 10), aroundLog(2e-7, 3e-7), aroundLog(5, 5), aroundLog(NaN, NaN)]).toEqual([[0.09, 2], [1, 10], [2e-7, 3e-7], [2.5, 10], [1, 10]]);
    const ticks = (low: number, high: number): string[] => scale({ ...axis, scale: "log" }, [low, high], 400, 0, number).ticks.map((tick) => tick.text);
    expect(ticks(0.06, 8)).toEqual(expect.arrayContaining(["0.1", "0.2", "0.5", "1", "2", "5"]));
    expect(ticks(1e-6, 1)).not.toContain("0.2");
  });
});

describe("marks of a logarithmic axis", () => {
  it("are round numbers wherever a range begins, and not too many", () => {
    expect(logSplits(0.1518, 0.551, 8)).toEqual([0.2, 0.3, 0.4, 0.5]);
    expect(logSplits(0.09, 2, 6)).toEqual([0.1, 0.2, 0.5, 1, 2]);
    expect(logSplits(1e-6, 1, 4)).toEqual([1e-6, 1e-4, 1e-2, 1]);
  });
});

describe("series are told apart", () => {
  const ten = part({ chart: { ...part().chart, series: Array.from({ length: 10 }, (_, i) => String(i)) } });
  it("by dashes where a colour comes again", () => {
    expect([0, 7].map((series) => dashOf(ten, series, "main", 1))).toEqual([[], []]);
    expect(dashOf(ten, 8, "main", 1).length).toBeGreaterThan(0);
    expect(dashOf({ ...ten, chart: { ...ten.chart, ordered: true } }, 8, "main", 1)).toEqual([]);
  });
  it("by dashes where runs have the colours", () => {
    expect(dashOf(ten, 0, "main", 2)).toEqual([]);
    expect(dashOf(ten, 1, "main", 2)).not.toEqual(dashOf(ten, 2, "main", 2));
  });
});

describe("a file of numbers", () => {
  it("has what runs along beside the steps", () => {
    const [top, ...rows] = csv([part({ clock, along: "tokens" })], head).trim().split("\n");
    expect(top).toBe("run,series,what,step,loss,tokens");
    expect(rows).toEqual(["r,a,value,0,3,0", "r,a,value,10,2,500", "r,a,value,20,1,4000", "r,floor,rule,,1,"]);
    expect(csv([part()], head).split("\n")[0]).toBe("run,series,what,step,loss");
  });
});

describe("a search", () => {
  const of = (instrument: string): Head => ({ ...head, id: instrument, instrument, title: instrument });
  const index = { charts: [of("training"), of("spectrum")], findings: [{ code: "SP001", instrument: "spectrum:phase" } as Finding] } as Index;
  const found = (search: string): string[] => wanted([index], { search, instrument: null, split: null }).map((one) => one.id);
  it("for the code of a finding leads to the charts of who said it", () => {
    expect(found("sp001")).toEqual(["spectrum"]);
    expect(found("")).toEqual(["training", "spectrum"]);
    expect(found("XX001")).toEqual([]);
  });
  it("puts what has nothing to show after the rest", () => {
    const charts = [{ ...of("training"), empty: true }, of("spectrum")];
    expect(wanted([{ ...index, charts }], { search: "", instrument: null, split: null }).map((one) => one.id)).toEqual(["spectrum", "training"]);
  });
});
