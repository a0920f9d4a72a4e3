// The keys of the page: what each does, and the list that is shown of them.
import { useEffect } from "preact/hooks";
import { nearest } from "./format";
import { fit, show, shown } from "./state";
import { first } from "./store";

export const KEYS: [string, string][] = [
  ["/ or Ctrl K", "search charts, layers, findings"],
  ["← →", "one measured step back, on"],
  ["Home, End", "first step, last step"],
  ["Space", "play the steps, pause"],
  ["[ ]", "the layer before, the next one"],
  ["l", "logarithmic values, where they are above zero"],
  ["x", "logarithmic steps"],
  ["c", "clip one value in a hundred on each side"],
  ["f", "show charts whole again that a drag made larger"],
  ["d", "dark, light"],
  ["p", "follow a run in training, pause"],
  ["Ctrl Z", "undo what was shown last"],
  ["Esc", "close, and forget layer, step and search"],
  ["?", "this list"],
];

const clamped = (place: number, count: number): number => Math.min(Math.max(place, 0), count - 1);

/** So many measured steps on. */
export function go(by: number): void {
  const all = first.peek()?.steps ?? [];
  if (!all.length) return;
  const now = shown.peek().step;
  const at = now === null ? (by > 0 ? -1 : all.length) : nearest(all, now);
  show({ step: all[clamped(at + by, all.length)] ?? null }, true);
}

/** So many layers on. */
function walk(by: number): void {
  const layers = first.peek()?.layers.filter((layer) => layer.name) ?? [];
  const at = layers.findIndex((layer) => layer.name === shown.peek().layer);
  const next = layers[clamped(at + by, layers.length)];
  if (next) show({ layer: next.name }, true);
}

/** What the page's bar does at a key. */
export interface Acts {
  search: () => void;
  play: () => void;
  help: () => void;
  close: () => void;
}

export function useKeys(acts: Acts): void {
  useEffect(() => {
    const press = (event: KeyboardEvent): void => {
      const act = actOf(event, acts);
      if (!act) return;
      event.preventDefault();
      act();
    };
    addEventListener("keydown", press);
    return () => removeEventListener("keydown", press);
  }, []);
}

/** What has a use of its own for arrows, Home, End or the space bar keeps it. */
function actOf(event: KeyboardEvent, acts: Acts): (() => void) | undefined {
  const target = event.target as HTMLElement;
  const typing = target instanceof HTMLInputElement && !["range", "checkbox"].includes(target.type);
  if (event.key === "Escape")
    return () => {
      acts.close();
      if (typing) target.blur();
      show({ layer: null, step: null, search: "", instrument: null, chart: null });
    };
  if (event.ctrlKey || event.metaKey) return event.key === "k" ? acts.search : event.key === "z" && !typing ? () => history.back() : undefined;
  if (typing || event.altKey || target instanceof HTMLSelectElement) return undefined;
  if (target.closest?.(".scroll, summary, button, input") && ["Home", "End", " "].includes(event.key)) return undefined;
  if (target instanceof HTMLInputElement && target.type === "range" && event.key.startsWith("Arrow")) return undefined;
  return plain(event.key, acts);
}

function plain(key: string, acts: Acts): (() => void) | undefined {
  const flip = (name: "log" | "logx" | "clip" | "live") => (): void => show({ [name]: !shown.peek()[name] });
  const steps = (): number[] => first.peek()?.steps ?? [];
  const known: Record<string, () => void> = {
    "/": acts.search,
    ArrowLeft: () => go(-1),
    ArrowRight: () => go(1),
    Home: () => show({ step: steps()[0] ?? null }, true),
    End: () => show({ step: steps().at(-1) ?? null }, true),
    " ": acts.play,
    "[": () => walk(-1),
    "]": () => walk(1),
    l: flip("log"),
    x: flip("logx"),
    c: flip("clip"),
    f: fit,
    d: () => show({ theme: shown.peek().theme === "dark" ? "light" : "dark" }),
    p: flip("live"),
    "?": acts.help,
  };
  return Object.hasOwn(known, key) ? known[key] : undefined;
}
