// A chart in its frame: title, source, the numbers under the cursor, and ways to take it along.
import { computed, type Signal, useSignal } from "@preact/signals";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { unit } from "../format";
import { Waiting } from "../panels/Waiting";
import { is, point, type Range, show, toggledLog, zoomed } from "../state";
import { first, names, open } from "../store";
import type { Head, Index } from "../types";
import { copyLink, copyPython, saveCsv, saveJson, savePng, saveSvg } from "./exports";
import { canFilm, saveFilm } from "./film";
import { drawer } from "./index";
import type { Kind, Readout, Shot } from "./kind";
import { useNear, useParts, useWidth } from "./loading";
import { type Key, legend } from "./legend";
import type { Part } from "./parts";

export function Card({ head, shown, large }: { head: Head; shown: Index[]; large?: boolean }) {
  const home = useRef<HTMLElement>(null);
  const body = useRef<HTMLDivElement>(null);
  const read = useSignal<Readout | null>(null);
  const near = useNear(home);
  const width = useWidth(body);
  const drawn = drawer(head);
  const there = shown.filter((index) => index.charts.some((one) => one.id === head.id));
  // what cannot lie over each other is shown of the first run alone
  const lead = there.find((index) => index.id === first.value?.id) ?? there[0];
  const here = drawn.overlays ? there : lead ? [lead] : [];
  const { parts, error, cancel, again } = useParts(head, here, near);
  // a large chart takes the window, but for what stands above and below it
  const tall = large && !drawn.small ? Math.max(drawn.height, 380, Math.min(innerHeight - 240, 1000)) : drawn.height;
  const size = useMemo(() => ({ width, height: tall }), [width, tall]);
  // the heading of the section says it for all of its charts
  const section = first.value?.groups.find((group) => group.key === head.instrument)?.source;
  const stepwise = head.x.title === "step";
  const steps = stepwise && head.x.scale !== "category";
  const log = is.log.value !== is.logs.value.includes(head.id);
  const zoom = (stepwise ? is.within.value : is.zooms.value[head.id]) ?? null;
  const weight = steps ? is.smooth.value : 0;
  const shot = { size, weight, log, logx: is.logx.value, clip: is.clip.value, zoom };
  const smoothed = steps && is.smooth.value > 0 ? `Smoothed (${is.smooth.value}); the thin line is as measured. ` : "";
  // a card that goes away under the pointer is never left by it, and must not hold the page's cursor
  const over = useRef(false);
  useEffect(() => () => void (over.current && point({ step: null, layer: null })), []);
  return (
    <article class="card" onPointerEnter={() => (over.current = true)} onPointerLeave={() => (over.current = false)} ref={home} data-chart={head.id} id={`chart-${head.id}`} aria-label={head.title}>
      <header>
        <h3>
          <button class="plain" title={large ? "Back to all charts" : "Show it large"} onClick={() => show({ chart: large ? null : head.id })}>
            {head.title}
          </button>
          {head.split && <span class="tag">{head.split}</span>}
          {unit(head.units) && <span class="tag">{head.units}</span>}
          {shown.length > 1 && here.length === 1 && lead && <span class="tag">{names.value[lead.id]}</span>}
        </h3>
        {(large || head.source !== section) && <span class="source" dangerouslySetInnerHTML={{ __html: head.source_html }} />}
        {drawn.scaled && (
          <button class="plain" aria-pressed={log} aria-label={`log scale of ${head.title}`} title="Logarithmic values, where they are above zero" onClick={() => toggledLog(head.id)}>log</button>
        )}
        <button class="plain large" aria-label={`${large ? "Back to all charts from" : "Show large:"} ${head.title}`} title={large ? "Back to all charts (Esc)" : "Show it large"} onClick={() => show({ chart: large ? null : head.id })}>{large ? "All charts" : "⤢"}</button>
        <Take head={head} kind={drawn} shot={parts?.length ? { ...shot, parts } : null} body={() => body.current as HTMLElement} />
      </header>
      <div class="body" ref={body} style={{ minHeight: `${size.height}px` }}>
        {error && <p class="trouble">{error} <button onClick={again}>Load again</button></p>}
        {!error && !parts && near && <Waiting what={head.title} stop={cancel} />}
        {parts && parts.length > 0 && width > 0 && near && (
          <drawn.view parts={parts} {...shot} zoomed={(ends: Range | null) => zoomed(head.id, stepwise, ends)} readout={(what) => (read.value = what)} />
        )}
      </div>
      <Reading read={read} parts={parts} caption={smoothed + (here.length > 1 ? "" : head.caption)} most={large ? 40 : 8} />
    </article>
  );
}

/** The menu by which a chart is taken along. */
function Take({ head, kind, shot, body }: { head: Head; kind: Kind; shot: Shot | null; body: () => HTMLElement }) {
  const [told, setTold] = useState("");
  const [filming, setFilming] = useState(false);
  const going = useRef(false);
  const { svg } = kind;
  const follows = head.x.title === "step" || kind.follows?.(head);
  const film = async (): Promise<void> => {
    going.current = true;
    setFilming(true);
    await saveFilm(body(), head, shot ? legend(shot.parts) : [], () => going.current);
    setFilming(false);
  };
  const copied = (what: Promise<void>, which: string): void =>
    void what.then(() => {
      setTold(`${which} copied`);
      setTimeout(() => setTold(""), 1600);
    });
  return (
    <details class="menu">
      <summary aria-label={`Take ${head.title} along`}>⤓</summary>
      <div>
        {shot && (
          <>
            {svg && <button onClick={() => void savePng(body(), head, legend(shot.parts))}>PNG, twice the size</button>}
            {svg && <button onClick={() => saveSvg(svg(shot), head, shot.size, legend(shot.parts))}>SVG</button>}
            <button onClick={() => saveCsv(shot.parts, head, shot.weight)}>CSV</button>
            <button onClick={() => saveJson(shot.parts, head)}>JSON</button>
            <button onClick={() => copied(copyPython(shot.parts, head), "Python")}>Copy as Python</button>
            {svg && follows && canFilm() && (
              <button onClick={() => (filming ? (going.current = false) : void film())}>{filming ? "Stop the film" : "Film of the steps (WebM)"}</button>
            )}
          </>
        )}
        <button onClick={() => copied(copyLink(head), "Link")}>Copy link</button>
        <span role="status">{told}</span>
      </div>
    </details>
  );
}

/** The values under the cursor; without one, what the colours mean. */
function Reading({ read: { value: read }, parts, caption, most }: { read: Signal<Readout | null>; parts: Part[] | null; caption: string; most: number }) {
  if (!read)
    return (
      <div class="readout">
        {parts && parts.length > 0 && <Keys keys={legend(parts)} most={most} />}
        <span class="quiet">{caption}</span>
      </div>
    );
  return (
    <div class="readout" aria-live="off">
      {read.of && <span class="quiet">{read.of}</span>}
      <b>{read.head}</b>
      <Keys keys={read.rows.map(([name, value, colour]) => ({ name, value, colour }))} most={most} />
    </div>
  );
}

const Stroke = ({ colour, dash }: { colour: string; dash: number[] }) => (
  <svg width={22} height={8} aria-hidden="true">
    <line x1={0} x2={22} y1={4} y2={4} stroke={colour} stroke-width={2} stroke-dasharray={dash.join(" ")} />
  </svg>
);

function Keys({ keys, most }: { keys: Key[]; most: number }) {
  const layers = layerNames.value;
  return (
    <>
      {keys.slice(0, most).map(({ name, colour, value, dash }, place) => {
        const layer = layers.has(name) ? { onPointerEnter: () => point({ layer: name }), onPointerLeave: () => point({ layer: null }), onClick: () => show({ layer: name }) } : null;
        return (
          <span key={`${place} ${name}`} class={layer ? "leads" : ""} {...layer}>
            {dash ? <Stroke colour={colour} dash={dash} /> : <i style={{ background: colour }} />} {name} {value !== undefined && <b>{value}</b>}
          </span>
        );
      })}
      {keys.length > most && <span>and {keys.length - most} more</span>}
    </>
  );
}

/** The layers that the table tells of; keys of these lead there. */
const layerNames = computed(() => new Set(open.value.flatMap((index) => index.table.rows.flatMap((row) => [row.name, row.layer]))));
