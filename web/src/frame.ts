// Where the page stands in a frame, what is around it may follow and set what it shows: the kernel of a notebook, say.
// Only a page that carries its data does this; one of a server may not be framed at all.
import { effect } from "@preact/signals";
import { cursorLayer, cursorStep, parse, show, shown, write } from "./state";

export interface Told {
  stratoscope: 1;
  /** As in the address. */
  state: string;
  cursor: { step: number | null; layer: string | null };
  /** How many times it was told what to show: what crossed with such a word is older than that. */
  heard: number;
  /** The first of this page. */
  start?: true;
}

/** The words to the page around this one: it may set the state (`show`), or ask for it (`ask`). */
interface Said {
  stratoscope?: unknown;
  show?: unknown;
  ask?: unknown;
}

/** What the frame's name says is to be shown: a page in a frame has no address of its own that could. */
const NAMED = /^stratoscope-[^#]*#(.+)$/s;

/** Speak with the page around this one, if there is one; gives a way to stop that. */
export function speak(): () => void {
  const parent = window.parent;
  if (parent === window || !document.getElementById("carried")) return () => undefined;
  const named = NAMED.exec(window.name)?.[1];
  if (named) show(parse(named), true);
  // what is known over there, and what will be told with the next picture
  let state: string | null = null;
  let cursor = "";
  let drawing = 0;
  let heard = 0;

  const tell = (): void => {
    const start = state === null ? ({ start: true } as const) : {};
    const now = { step: cursorStep.peek(), layer: cursorLayer.peek() };
    state = write(shown.peek());
    cursor = JSON.stringify(now);
    // it stands in a file or a notebook, whose origin has no name that could be given here
    parent.postMessage({ stratoscope: 1, state, cursor: now, heard, ...start } satisfies Told, "*");
  };
  const hear = (event: MessageEvent<Said | null>): void => {
    if (event.source !== parent || event.data?.stratoscope !== 1) return;
    if (typeof event.data.show === "string") {
      heard++;
      state = event.data.show;
      show(parse(state), true);
    } else if (event.data.ask) tell();
  };
  addEventListener("message", hear);
  const states = effect(() => {
    if (write(shown.value) !== state) tell();
  });
  const cursors = effect(() => {
    const now = JSON.stringify({ step: cursorStep.value, layer: cursorLayer.value });
    if (now === cursor) return;
    cancelAnimationFrame(drawing);
    drawing = requestAnimationFrame(tell);
  });
  return () => {
    removeEventListener("message", hear);
    cancelAnimationFrame(drawing);
    states();
    cursors();
  };
}
