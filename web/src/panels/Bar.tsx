// What holds for the whole page: search, step, smoothing, scale, theme, keys.
import { useEffect, useRef, useState } from "preact/hooks";
import { number, nearest } from "../format";
import { cursorStep, is, show, shown } from "../state";
import { first, from, open, stale } from "../store";

const KEYS: [string, string][] = [
  ["/ or Ctrl K", "search charts, layers, findings"],
  ["← →", "one measured step back, on"],
  ["Home, End", "first step, last step"],
  ["Space", "play the steps, pause"],
  ["[ ]", "the layer before, the next one"],
  ["l", "logarithmic values, where they are above zero"],
  ["c", "clip one value in a hundred on each side"],
  ["d", "dark, light"],
  ["p", "follow a run in training, pause"],
  ["Ctrl Z", "undo what was shown last"],
  ["Esc", "close, and forget layer, step and search"],
  ["?", "this list"],
];

export function Bar() {
  const search = useRef<HTMLInputElement>(null);
  const [help, setHelp] = useState(false);
  const [playing, setPlaying] = useState(false);
  const state = { search: is.search.value, smooth: is.smooth.value, log: is.log.value, live: is.live.value, theme: is.theme.value };
  const index = first.value;
  const steps = index?.steps ?? [];
  const live = open.value.some((one) => one.live) && from.live;

  const go = (by: number): void => {
    const all = first.peek()?.steps ?? [];
    if (!all.length) return;
    const now = shown.peek().step;
    const at = now === null ? (by > 0 ? -1 : all.length) : nearest(all, now);
    show({ step: all[Math.min(Math.max(at + by, 0), all.length - 1)] ?? null }, true);
  };
  const walk = (by: number): void => {
    const layers = first.peek()?.layers.filter((layer) => layer.name) ?? [];
    const at = layers.findIndex((layer) => layer.name === shown.peek().layer);
    const next = layers[Math.min(Math.max(at + by, 0), layers.length - 1)];
    if (next) show({ layer: next.name }, true);
  };

  useEffect(() => {
    const press = (event: KeyboardEvent): void => {
      const typing = event.target instanceof HTMLInputElement && event.target.type !== "range" && event.target.type !== "checkbox";
      if (event.key === "Escape") {
        setHelp(false);
        if (typing) (event.target as HTMLInputElement).blur();
        show({ layer: null, step: null, search: "", instrument: null, chart: null });
        return;
      }
      if ((event.ctrlKey || event.metaKey) && event.key === "k") {
        event.preventDefault();
        search.current?.focus();
        return;
      }
      if ((event.ctrlKey || event.metaKey) && event.key === "z" && !typing) {
        event.preventDefault();
        history.back();
        return;
      }
      if (typing || event.ctrlKey || event.metaKey || event.altKey || event.target instanceof HTMLSelectElement) return;
      const inside = (event.target as HTMLElement).closest?.(".scroll, summary, button, input");
      const acts: Record<string, () => void> = {
        "/": () => search.current?.focus(),
        ArrowLeft: () => go(-1),
        ArrowRight: () => go(1),
        "[": () => walk(-1),
        "]": () => walk(1),
        l: () => show({ log: !shown.peek().log }),
        c: () => show({ clip: !shown.peek().clip }),
        d: () => show({ theme: shown.peek().theme === "dark" ? "light" : "dark" }),
        p: () => show({ live: !shown.peek().live }),
        "?": () => setHelp((is) => !is),
        ...(inside ? {} : { Home: () => show({ step: first.peek()?.steps[0] ?? null }, true), End: () => show({ step: first.peek()?.steps.at(-1) ?? null }, true), " ": () => setPlaying((is) => !is) }),
      };
      const act = acts[event.key];
      if (act) {
        event.preventDefault();
        act();
      }
    };
    addEventListener("keydown", press);
    return () => removeEventListener("keydown", press);
  }, []);

  useEffect(() => {
    if (!playing) return;
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    const beat = setInterval(() => {
      const all = first.peek()?.steps ?? [];
      if ((shown.peek().step ?? -1) >= (all.at(-1) ?? 0)) setPlaying(false);
      else go(1);
    }, still ? 400 : 33);
    return () => clearInterval(beat);
  }, [playing]);

  const at = cursorStep.value;
  return (
    <header class="bar">
      <h1>Stratoscope</h1>
      <input ref={search} type="search" class="search" placeholder="Search (/)" aria-label="Search charts, layers and findings" value={state.search} onInput={(event) => show({ search: event.currentTarget.value }, true)} />
      {steps.length > 1 && (
        <div class="steps" role="group" aria-label="Training step">
          <button aria-label={playing ? "Pause" : "Play the steps"} onClick={() => setPlaying(!playing)}>{playing ? "❚❚" : "▶"}</button>
          <input type="range" min={0} max={steps.length - 1} value={at === null ? steps.length - 1 : nearest(steps, at)} aria-label="Step" aria-valuetext={at === null ? "no step chosen" : `step ${number(at)}`} onInput={(event) => show({ step: steps[Number(event.currentTarget.value)] ?? null }, true)} />
          <output aria-live="polite">{at === null ? `${number(steps.length)} steps` : `step ${number(at)}`}</output>
        </div>
      )}
      <label class="smooth">
        Smooth
        <input type="range" min={0} max={0.99} step={0.01} value={state.smooth} aria-valuetext={state.smooth ? `weight of the past ${state.smooth}` : "not smoothed"} onInput={(event) => show({ smooth: Number(event.currentTarget.value) }, true)} />
        <output>{state.smooth || "off"}</output>
      </label>
      {(index?.epochs || index?.seconds) && (
        <select aria-label="Along the horizontal axis" value={is.x.value} onChange={(event) => show({ x: event.currentTarget.value as "step" })}>
          <option value="step">steps</option>
          {index.epochs && <option value="epoch">epochs</option>}
          {index.seconds && <option value="seconds">seconds</option>}
        </select>
      )}
      <button aria-pressed={is.clip.value} title="Leave one value in a hundred on each side out of sight (c)" onClick={() => show({ clip: !is.clip.value })}>clip</button>
      <button aria-pressed={state.log} title="Logarithmic values, where they are above zero (l)" onClick={() => show({ log: !state.log })}>log</button>
      {live && (
        <button class="live" aria-pressed={state.live} title="Follow the run in training (p)" onClick={() => show({ live: !state.live })}>
          {state.live ? (stale.value ? "stale" : "live") : "paused"}
        </button>
      )}
      <button title="Dark or light (d)" aria-label="Dark or light" onClick={() => show({ theme: state.theme === "dark" ? "light" : "dark" })}>◐</button>
      <button title="Keys (?)" aria-label="Keys" aria-expanded={help} onClick={() => setHelp(!help)}>?</button>
      {help && (
        <dialog open class="help" aria-label="Keys">
          <dl>
            {KEYS.map(([key, what]) => (
              <div key={key}>
                <dt><kbd>{key}</kbd></dt>
                <dd>{what}</dd>
              </div>
            ))}
          </dl>
          <button onClick={() => setHelp(false)}>Close</button>
        </dialog>
      )}
    </header>
  );
}
