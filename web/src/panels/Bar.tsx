// What holds for the whole page: search, step, smoothing, scale, theme, keys.
import { useEffect, useRef, useState } from "preact/hooks";
import { axes, axis, CALLED } from "../axes";
import { nearest, number } from "../format";
import { closedMenus, go, KEYS, useKeys } from "../keys";
import { cursorStep, fit, is, show, shown } from "../state";
import { first, from, open, stale } from "../store";

export function Bar() {
  const search = useRef<HTMLInputElement>(null);
  const [help, setHelp] = useState(false);
  const opened = useRef(help);
  opened.current = help;
  const [playing, setPlaying] = usePlaying();
  useKeys({
    search: () => search.current?.focus(),
    play: () => setPlaying((is) => !is),
    help: () => setHelp((is) => !is),
    close: () => {
      const was = opened.current;
      setHelp(false);
      return was;
    },
  });
  const bar = useRef<HTMLElement>(null);
  useEffect(() => {
    // what sticks below the bar has to know how tall it is
    const sized = new ResizeObserver(() => document.documentElement.style.setProperty("--bar", `${bar.current?.offsetHeight ?? 0}px`));
    sized.observe(bar.current as HTMLElement);
    const elsewhere = (event: Event): void => void closedMenus((event.target as Element).closest(".menu"));
    addEventListener("pointerdown", elsewhere);
    return () => {
      sized.disconnect();
      removeEventListener("pointerdown", elsewhere);
    };
  }, []);
  return (
    <header class="bar" ref={bar}>
      <h1>Stratoscope</h1>
      <input ref={search} type="search" class="search" placeholder="Search (/)" aria-label="Search charts, layers and findings" value={is.search.value} onInput={(event) => show({ search: event.currentTarget.value, chart: null }, true)} />
      <Steps playing={playing} play={() => setPlaying(!playing)} />
      <Smoothing />
      <Axes />
      <Following />
      <button title="Dark or light (d)" aria-label="Dark or light" onClick={() => show({ theme: is.theme.value === "dark" ? "light" : "dark" })}>◐</button>
      <button title="Keys (?)" aria-label="Keys" aria-expanded={help} onClick={() => setHelp(!help)}>?</button>
      {help && <Help close={() => setHelp(false)} />}
    </header>
  );
}

/** Playing goes on step by step until the last one; slower for those who would rather see nothing move. */
function usePlaying() {
  const state = useState(false);
  const [playing, setPlaying] = state;
  useEffect(() => {
    if (!playing) return;
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    const beat = setInterval(() => {
      if ((shown.peek().step ?? -1) >= (first.peek()?.steps.at(-1) ?? 0)) setPlaying(false);
      else go(1);
    }, still ? 400 : 33);
    return () => clearInterval(beat);
  }, [playing]);
  return state;
}

function Steps({ playing, play }: { playing: boolean; play: () => void }) {
  const steps = first.value?.steps ?? [];
  const at = cursorStep.value;
  if (steps.length < 2) return null;
  return (
    <div class="steps" role="group" aria-label="Training step">
      <button aria-label={playing ? "Pause" : "Play the steps"} onClick={play}>{playing ? "❚❚" : "▶"}</button>
      <input type="range" min={0} max={steps.length - 1} value={at === null ? steps.length - 1 : nearest(steps, at)} aria-label="Step" aria-valuetext={at === null ? "no step chosen" : `step ${number(at)}`} onInput={(event) => show({ step: steps[Number(event.currentTarget.value)] ?? null }, true)} />
      <output aria-live={playing ? "off" : "polite"}>{at === null ? `${number(steps.length)} steps` : `step ${number(at)}`}</output>
      {is.step.value !== null && <button class="plain forget" aria-label="No step" title="Forget the step: show the end" onClick={() => show({ step: null })}>×</button>}
    </div>
  );
}

/** Whether there are steps along which anything could run. */
const several = (): boolean => open.value.some((one) => one.steps.length > 1);

function Smoothing() {
  const weight = is.smooth.value;
  if (!several()) return null;
  return (
    <label class="smooth">
      Smooth
      <input type="range" min={0} max={0.99} step={0.01} value={weight} aria-valuetext={weight ? `weight of the past ${weight}` : "not smoothed"} onInput={(event) => show({ smooth: Number(event.currentTarget.value) }, true)} />
      <output>{weight || "off"}</output>
    </label>
  );
}

function Axes() {
  return (
    <>
      {first.value && axes.value.length > 1 && (
        <select aria-label="Along the horizontal axis" value={axis.value} onChange={(event) => show({ x: event.currentTarget.value as "step" })}>
          {axes.value.map((one) => <option key={one} value={one}>{CALLED[one]}</option>)}
        </select>
      )}
      {(is.within.value || Object.keys(is.zooms.value).length > 0) && <button title="Show the charts whole again (f)" onClick={fit}>fit</button>}
      {several() && <button aria-pressed={is.logx.value} title="Steps along a logarithmic axis (x)" onClick={() => show({ logx: !is.logx.value })}>log x</button>}
      <button aria-pressed={is.clip.value} title="Leave one value in a hundred on each side out of sight (c)" onClick={() => show({ clip: !is.clip.value })}>clip</button>
      <button aria-pressed={is.log.value} title="Logarithmic values, where they are above zero (l)" onClick={() => show({ log: !is.log.value })}>log y</button>
    </>
  );
}

/** Whether a run in training is followed, and whether the server still answers. */
function Following() {
  const live = open.value.some((one) => one.live) && from.live;
  const lost = stale.value && is.live.value;
  if (!live && !lost) return null;
  const title = lost ? "The server does not answer, and what is shown may be old" : "Follow the run in training (p)";
  return (
    <button class={lost ? "live stale" : "live"} aria-pressed={is.live.value} title={title} onClick={() => show({ live: !is.live.value })}>
      {is.live.value ? (lost ? "stale" : "live") : "paused"}
    </button>
  );
}

function Help({ close }: { close: () => void }) {
  const button = useRef<HTMLButtonElement>(null);
  useEffect(() => {
    const before = document.activeElement as HTMLElement | null;
    button.current?.focus();
    return () => before?.focus();
  }, []);
  return (
    <dialog open class="help" aria-label="Keys">
      <dl>
        {KEYS.map(([key, what]) => (
          <div key={key}>
            <dt><kbd>{key}</kbd></dt>
            <dd>{what}</dd>
          </div>
        ))}
      </dl>
      <button ref={button} onClick={close}>Close</button>
    </dialog>
  );
}
