import { beforeEach, describe, expect, it } from "vitest";
import { axes, axis, clockOf, shared } from "../src/axes";
import { table } from "../src/charts/kinds/Lines";
import type { Part } from "../src/charts/parts";
import { along } from "../src/curves";
import { parse, shown, write } from "../src/state";
import { indexes } from "../src/store";
import type { Chart, Index } from "../src/types";
import type { Grid } from "../src/wire";

const grid = (...data: number[]): Grid => ({ data: Float64Array.from(data), shape: [data.length] });

/** A run whose count of tokens is known at steps 10 and 30 only. */
const told = { clock: grid(0, 10, 20, 30, 40), epochs: null, tokens: grid(NaN, 1000, NaN, 4000, NaN), seconds: grid(0, 1, 2, 3, 4) };
const silent = { ...told, tokens: null };

const part = (clock: Part["clock"], steps: number[], ...curves: number[][]): Part => {
  const marks = curves.map((y, series) => ({ mark: "line" as const, series, x: grid(...steps), y: grid(...y), role: "main" as const }));
  return { run: "r", name: "run", chart: { title: "T", series: curves.map((_, at) => `s${at}`), ordered: false, marks } as unknown as Chart, place: 0, group: null, clock, along: "tokens" };
};

describe("a map from steps", () => {
  it("is linear between what is known", () => {
    expect([0, 5, 10, 15, 20].map((step) => along([0, 10, 20], [0, 1, 4], step))).toEqual([0, 0.5, 1, 2.5, 4]);
    const n = 100_000;
    const steps = Float64Array.from({ length: n }, (_, i) => 3 * i);
    const counts = steps.map((step) => step * step);
    for (const place of [0, 1, 7, 49_999, n - 1]) expect(along(steps, counts, steps[place] as number)).toBe(counts[place]);
    expect(along(steps, counts, 4)).toBeCloseTo(9 + 27 / 3, 9);
  });
  it("says nothing outside of it", () => {
    expect([-1, 21, NaN, Infinity].map((step) => along([0, 10, 20], [0, 1, 4], step))).toEqual([NaN, NaN, NaN, NaN]);
    expect(along([], [], 3)).toBeNaN();
    expect([along([1], [2], 1), along([1], [2], 7)]).toEqual([2, NaN]);
  });
  it("stays where nothing new was seen", () => expect([0, 1, 2, 3].map((step) => along([0, 1, 2, 3], [5, 5, 5, 8], step))).toEqual([5, 5, 5, 8]));
});

describe("what runs along", () => {
  it("is only what is known", () => {
    const clock = clockOf(told, "tokens");
    expect([Array.from(clock?.steps ?? []), Array.from(clock?.values ?? [])]).toEqual([[10, 30], [1000, 4000]]);
    expect(clockOf(told, "step")).toBeNull();
    expect(clockOf(told, "epoch")).toBeNull();
    expect(Array.from(clockOf(told, "seconds")?.values ?? [])).toEqual([0, 1, 2, 3, 4]);
  });
  it("is what all runs have", () => {
    expect(shared([told])).toEqual(["step", "tokens", "seconds"]);
    expect(shared([told, silent])).toEqual(["step", "seconds"]);
  });
});

describe("the chosen axis", () => {
  beforeEach(() => {
    indexes.value = { a: told as unknown as Index, b: silent as unknown as Index };
    shown.value = parse("#runs=a");
  });
  it("stands in the address", () => {
    expect(write(parse("#runs=a&x=tokens"))).toBe("runs=a&x=tokens");
    expect(parse("#x=bananas").x).toBe("step");
  });
  it("gives way to steps while a run is shown that does not have it", () => {
    shown.value = parse("#runs=a&x=tokens");
    expect([axis.value, axes.value]).toEqual(["tokens", ["step", "tokens", "seconds"]]);
    shown.value = parse("#runs=a,b&x=tokens");
    expect([axis.value, axes.value]).toEqual(["step", ["step", "seconds"]]);
    shown.value = parse("#runs=a&x=tokens");
    expect(axis.value).toBe("tokens");
  });
});

describe("curves", () => {
  it("leave out places whose count nobody knows", () => {
    const { data } = table([part(clockOf(told, "tokens"), [0, 10, 20, 30, 40], [1, 2, 3, 4, 5])], 0, false);
    expect(data.map((column) => Array.from(column))).toEqual([[1000, 2500, 4000], [2, 3, 4]]);
  });
  it("of several runs lie where each of them was", () => {
    const other = { steps: Float64Array.of(10, 20), values: Float64Array.of(500, 1000) };
    const parts = [part(clockOf(told, "tokens"), [0, 10, 30], [1, 2, 4], [5, 6, 7]), part(other, [0, 10, 20], [9, 8, 7])];
    const { data } = table(parts, 0, false);
    expect(Array.from(data[0] as number[])).toEqual([500, 1000, 4000]);
    expect(data.slice(1).map((column) => Array.from(column))).toEqual([[undefined, 2, 4], [undefined, 6, 7], [8, 7, undefined]]);
  });
  it("that lie outside of all that is known are empty, and nothing else is", () => {
    const clock = clockOf(told, "tokens");
    const { data, drawn } = table([part(clock, [0, 5], [1, 2]), part(clock, [10, 30], [3, 4])], 0, false);
    expect(Array.from(data[0] as number[])).toEqual([1000, 4000]);
    expect(data.slice(1).map((column) => Array.from(column))).toEqual([[undefined, undefined], [3, 4]]);
    expect(drawn).toHaveLength(2);
    expect(table([part(clock, [0, 5], [1, 2])], 0, false).data.map((column) => column.length)).toEqual([0, 0]);
  });
});
