// The keys of the page: what each does, and the list that is shown of them.
import { useEffect } from "preact/hooks";
import { nearest } from "./format";
import { fit, show, type Shown, shown, undo } from "./state";
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
  ["Esc", "close what is open: list, menu, large chart, panel; then forget search and step"],
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
  /** Close the list of keys; whether it was open. */
  close: () => boolean;
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

/** Close the menus of charts but one; whether any was open. */
export function closedMenus(but: Element | null = null): boolean {
  const menus = [...document.querySelectorAll<HTMLDetailsElement>(".menu[open]")].filter((menu) => menu !== but);
  for (const menu of menus) {
    if (menu.contains(document.activeElement)) menu.querySelector("summary")?.focus();
    menu.open = false;
  }
  return menus.length > 0;
}

/** A field is emptied, and left. */
function left(field: HTMLInputElement): true {
  if (field.classList.contains("search")) show({ search: "" }, true);
  field.blur();
  return true;
}

/** What is shown with one thing less: first what lies before the rest, then what was chosen. */
export function lessOf(now: Pick<Shown, "chart" | "layer" | "instrument" | "search" | "step">): Partial<Shown> {
  if (now.chart) return { chart: null };
  if (now.layer !== null || now.instrument) return { layer: null, instrument: null };
  if (now.search) return { search: "" };
  return { step: null };
}

/** What has a use of its own for arrows, Home, End or the space bar keeps it. */
function actOf(event: KeyboardEvent, acts: Acts): (() => void) | undefined {
  const target = event.target as HTMLElement;
  const typing = target instanceof HTMLInputElement && !["range", "checkbox"].includes(target.type);
  if (event.key === "Escape") return () => void (acts.close() || closedMenus() || (typing && left(target)) || show(lessOf(shown.peek())));
  if (event.ctrlKey || event.metaKey) return event.key === "k" ? acts.search : event.key === "z" && !typing ? undo : undefined;
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
