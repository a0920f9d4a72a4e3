import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { speak, type Told } from "../src/frame";
import { parse, point, show, shown, write } from "../src/state";

type Hear = (event: { source: unknown; data: unknown }) => void;

/** A window in a frame, what it told its parent, and how it is spoken to. */
function framed(name = "", carried = true) {
  const told: Told[] = [];
  const parent = { postMessage: (data: Told) => told.push(data) };
  const hearing = new Set<Hear>();
  const pictures: (() => void)[] = [];
  vi.stubGlobal("window", { parent, name });
  vi.stubGlobal("document", { getElementById: () => (carried ? {} : null) });
  vi.stubGlobal("location", { hash: "" });
  vi.stubGlobal("history", { replaceState: () => undefined });
  vi.stubGlobal("addEventListener", (_: string, hear: Hear) => hearing.add(hear));
  vi.stubGlobal("removeEventListener", (_: string, hear: Hear) => hearing.delete(hear));
  vi.stubGlobal("requestAnimationFrame", (draw: () => void) => pictures.push(draw));
  vi.stubGlobal("cancelAnimationFrame", (at: number) => at && (pictures[at - 1] = () => undefined));
  const say = (data: unknown, source: unknown = parent): void => hearing.forEach((hear) => hear({ source, data }));
  const draw = (): void => pictures.splice(0).forEach((one) => one());
  return { told, say, draw, hearing };
}

describe("a page in a frame", () => {
  let stop = (): void => undefined;
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => {
    stop();
    vi.runAllTimers();
    vi.useRealTimers();
    shown.value = parse("");
    point({ step: null, layer: null });
    vi.unstubAllGlobals();
  });

  it("tells what it shows at the start and after every change, once", () => {
    const { told } = framed();
    stop = speak();
    show({ layer: "conv1" }, true);
    show({ layer: "conv1" }, true);
    expect(told.map((one) => one.state)).toEqual(["", "layer=conv1"]);
    expect(told[1]).toEqual({ stratoscope: 1, state: "layer=conv1", cursor: { step: null, layer: "conv1" }, heard: 0 });
    expect(told[0]).toMatchObject({ heard: 0, start: true });
  });

  it("tells of the pointer once a picture", () => {
    const { told, draw } = framed();
    stop = speak();
    for (let step = 0; step < 50; step++) point({ step });
    expect(told).toHaveLength(1);
    draw();
    expect(told).toHaveLength(2);
    expect(told[1]?.cursor).toEqual({ step: 49, layer: null });
  });

  it("shows what its parent says, and does not say it back", () => {
    const { told, say } = framed();
    stop = speak();
    say({ stratoscope: 1, show: "layer=conv1&step=5" });
    expect(write(shown.peek())).toBe("layer=conv1&step=5");
    expect(told.map((one) => one.state)).toEqual([""]);
    // nonsense in it is passed over, and what came of it is told
    say({ stratoscope: 1, show: "layer=conv2&step=-3&theme=pink" });
    expect(told.map((one) => one.state)).toEqual(["", "layer=conv2"]);
    say({ stratoscope: 1, ask: true });
    expect(told.map((one) => one.state)).toEqual(["", "layer=conv2", "layer=conv2"]);
    expect(told.map((one) => one.heard)).toEqual([0, 2, 2]);
  });

  it("hears nobody else, and no other words", () => {
    const { told, say } = framed();
    stop = speak();
    say({ stratoscope: 1, show: "layer=conv1" }, {});
    for (const data of [null, 7, "show", { show: "layer=conv1" }, { stratoscope: 2, show: "layer=conv1" }, { stratoscope: 1, show: 7 }]) say(data);
    expect(write(shown.peek())).toBe("");
    expect(told).toHaveLength(1);
  });

  it("shows at first what its name says", () => {
    const { told } = framed("stratoscope-1f#layer=conv1#1&step=5");
    stop = speak();
    expect(shown.peek()).toMatchObject({ layer: "conv1#1", step: 5 });
    expect(told).toHaveLength(1);
  });

  it("keeps quiet without data, and after its end", () => {
    const bare = framed("", false);
    speak()();
    expect([bare.told.length, bare.hearing.size]).toEqual([0, 0]);
    const { told, hearing } = framed();
    speak()();
    show({ layer: "conv9" }, true);
    expect([told.length, hearing.size]).toEqual([1, 0]);
  });
});
