import { describe, expect, it } from "vitest";
import { summary } from "../src/charts/parts";
import { withHeadings } from "../src/panels/Runs";
import { seen } from "../src/panels/window";
import { Requests } from "../src/requests";
import { called, groupOf } from "../src/store";
import type { Chart, RunSummary } from "../src/types";

const soon = (): Promise<void> => new Promise((done) => setTimeout(done, 5));

/** A server that answers when it is told to, and notes what it was asked. */
function server() {
  const asked: { ids: string[]; stop: AbortSignal; answer: () => void; fail: (why: Error) => void }[] = [];
  const requests = new Requests(
    (_, ids, stop) =>
      new Promise((done, fail) => {
        asked.push({ ids, stop, answer: () => done(ids.map((id) => ({ id }) as Chart)), fail });
        stop.addEventListener("abort", () => fail(new Error("aborted")));
      }),
    3,
  );
  return { asked, requests };
}

const run = { id: "r", state: "1" };

describe("charts", () => {
  it("that are asked for together come in one answer, each once", async () => {
    const { asked, requests } = server();
    const stop = new AbortController().signal;
    const found = Promise.all(["a", "b", "a"].map((id) => requests.chart(run, id, stop)));
    await soon();
    expect(asked.map((one) => one.ids)).toEqual([["a", "b"]]);
    asked[0]?.answer();
    expect((await found).map((chart) => chart.id)).toEqual(["a", "b", "a"]);
    await requests.chart(run, "a", stop);
    expect(asked).toHaveLength(1);
    void requests.chart({ ...run, state: "2" }, "a", stop);
    await soon();
    expect(asked).toHaveLength(2);
  });
  it("come in several answers where there are many", async () => {
    const { asked, requests } = server();
    const stop = new AbortController().signal;
    const found = Promise.all(Array.from({ length: 50 }, (_, i) => requests.chart(run, `c${i}`, stop)));
    for (let i = 0; i < 3; i++) {
      await soon();
      asked[i]?.answer();
    }
    expect(await found).toHaveLength(50);
    expect(asked.map((one) => one.ids.length)).toEqual([24, 24, 2]);
  });
  it("that nobody waits for are not asked for, and an answer that brings nothing else is stopped", async () => {
    const { asked, requests } = server();
    const [one, other, third] = [new AbortController(), new AbortController(), new AbortController()];
    const told = [requests.chart(run, "a", one.signal), requests.chart(run, "b", other.signal), requests.chart(run, "c", third.signal)].map((chart) => chart.then(() => "came", () => "left"));
    third.abort();
    await soon();
    expect(asked[0]?.ids).toEqual(["a", "b"]);
    one.abort();
    expect(asked[0]?.stop.aborted).toBe(false);
    other.abort();
    expect(asked[0]?.stop.aborted).toBe(true);
    expect(await Promise.all(told)).toEqual(["left", "left", "left"]);
    const again = requests.chart(run, "a", new AbortController().signal);
    await soon();
    asked[1]?.answer();
    expect((await again).id).toBe("a");
  });
  it("that cannot be given take no others with them", async () => {
    const { asked, requests } = server();
    const stop = new AbortController().signal;
    const told = ["a", "b"].map((id) => requests.chart(run, id, stop).then((chart) => chart.id, (why: Error) => why.message));
    await soon();
    asked[0]?.fail(new Error("b is not there"));
    await soon();
    expect(asked[1]?.ids).toEqual(["a"]);
    asked[1]?.answer();
    await soon();
    expect(asked[2]?.ids).toEqual(["b"]);
    asked[2]?.fail(new Error("b is not there"));
    expect(await Promise.all(told)).toEqual(["a", "b is not there"]);
  });
  it("that another card waits for still come", async () => {
    const { asked, requests } = server();
    const gone = new AbortController();
    const left = requests.chart(run, "a", gone.signal).catch(() => "left");
    const stays = requests.chart(run, "a", new AbortController().signal);
    await soon();
    gone.abort();
    expect(await left).toBe("left");
    asked[0]?.answer();
    expect((await stays).id).toBe("a");
  });
  it("that failed are asked for again", async () => {
    const { asked, requests } = server();
    const stop = new AbortController().signal;
    const first = requests.chart(run, "a", stop);
    await soon();
    asked[0]?.fail(new Error("no"));
    await expect(first).rejects.toThrow("no");
    void requests.chart(run, "a", stop);
    await soon();
    expect(asked).toHaveLength(2);
  });
});

describe("long lists", () => {
  it("draw what is seen, and leave room for the rest", () => {
    const heights = Array.from({ length: 250 }, () => 50);
    expect(seen(heights, 0, 300, 2)).toEqual({ begin: 0, end: 8, before: 0, after: 242 * 50 });
    const middle = seen(heights, 5000, 300, 2);
    expect(middle).toEqual({ begin: 98, end: 108, before: 4900, after: 142 * 50 });
    expect(seen([], 0, 300)).toEqual({ begin: 0, end: 0, before: 0, after: 0 });
    expect(seen([30, 50], 900, 300).end).toBe(2); // the list has become shorter than where it was scrolled to
  });
});

describe("groups", () => {
  const list = [{ id: "a", config: { rate: 0.1 } }, { id: "b" }, { id: "c", config: { rate: 0.1 } }] as unknown as RunSummary[];
  it("have a heading and their members", () => {
    expect(list.map((one) => groupOf(one, "rate"))).toEqual(["rate 0.1", "rate not noted", "rate 0.1"]);
    const items = withHeadings(list, "rate").map((item) => ("run" in item ? item.run.id : `${item.heading}: ${item.count}`));
    expect(items).toEqual(["rate 0.1: 2", "a", "c", "rate not noted: 1", "b"]);
    expect(withHeadings(list, null)).toHaveLength(3);
  });
});

describe("names", () => {
  it("that several runs have are told apart by the folder", () => {
    const every = [["a", "same"], ["b", "same"], ["c", "own"]].map(([id, name]) => ({ id, name, folder: `in/${id}` })) as RunSummary[];
    expect(called(every)).toEqual({ a: "in/a", b: "in/b", c: "own" });
  });
});

describe("what a chart shows", () => {
  const axis = { title: "step", units: "1", scale: "linear", labels: [], low: null, high: null };
  const of = (...values: number[]) => {
    const data = Float64Array.from(values);
    const line = { mark: "line", series: 0, x: { data, shape: [values.length] }, y: { data, shape: [values.length] }, role: "main" };
    const chart = { title: "Loss", split: "test", caption: "The loss.", units: "nat", series: ["a"], x: axis, y: axis, marks: [line] } as unknown as Chart;
    return [{ run: "r", name: "run", chart, place: 0, group: null, clock: null, along: "step" as const }];
  };
  it("is said in words", () => {
    expect(summary(of(1, NaN, 3))).toBe("Loss, test. The loss. Values from 1 to 3 nat.");
    expect(summary(of(NaN))).toBe("Loss, test. The loss. No value is a number.");
  });
});
