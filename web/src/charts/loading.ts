// What a card needs to know: whether it is near the screen, how wide it is, and its charts once they have come.
import { type RefObject } from "preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { axis, clockOf } from "../axes";
import { chart as load, names, places } from "../store";
import type { Chart, Head, Index } from "../types";
import type { Part } from "./parts";

export function useNear(home: RefObject<HTMLElement>): boolean {
  const [near, setNear] = useState(false);
  useEffect(() => {
    const seen = new IntersectionObserver((entries) => setNear(entries.at(-1)?.isIntersecting ?? false), { rootMargin: "300px" });
    seen.observe(home.current as HTMLElement);
    return () => seen.disconnect();
  }, []);
  return near;
}

export function useWidth(home: RefObject<HTMLElement>): number {
  const [width, setWidth] = useState(0);
  useEffect(() => {
    const sized = new ResizeObserver(() => setWidth(Math.floor(home.current?.clientWidth ?? 0)));
    sized.observe(home.current as HTMLElement);
    return () => sized.disconnect();
  }, []);
  return width;
}

export interface Loaded {
  parts: Part[] | null;
  error: string | null;
  cancel: () => void;
  again: () => void;
}

/** A chart of some runs; asked for while its card is near the screen, and no longer once it is not. */
export function useParts(head: Head, here: Index[], near: boolean): Loaded {
  const [charts, setCharts] = useState<{ index: Index; chart: Chart }[] | null>(null);
  const [error, setError] = useState<string | null>(null);
  const [turn, setTurn] = useState(0);
  const asked = useRef<AbortController | null>(null);
  const state = here.map((index) => `${index.id}:${index.state}`).join();
  useEffect(() => {
    if (!near) return;
    const stop = (asked.current = new AbortController());
    Promise.all(here.map((index) => load(index, head, stop.signal)))
      .then((found) => {
        setCharts(found.map((chart, at) => ({ chart, index: here[at] as Index })));
        setError(null);
      })
      .catch((why: unknown) => !stop.signal.aborted && setError(why instanceof Error ? why.message : String(why)));
    return () => stop.abort();
  }, [near, state, head.id, turn]);
  const cancel = (): void => {
    asked.current?.abort();
    setError("Not loaded, as you wished.");
  };
  const again = (): void => {
    setError(null);
    setTurn(turn + 1);
  };
  const along = head.x.title === "step" ? axis.value : "step";
  const [told, called] = [places.value, names.value];
  const parts = useMemo(
    () =>
      charts?.map(({ index, chart }) => {
        const clock = clockOf(index, along);
        return { run: index.id, name: called[index.id] ?? index.name, chart, clock, along, ...(told[index.id] ?? { place: 0, group: null }) };
      }) ?? null,
    [charts, along, told, called],
  );
  return { parts, error, cancel, again };
}
