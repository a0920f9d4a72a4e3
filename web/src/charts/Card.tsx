// A chart in its frame: title, source, the numbers under the cursor, and ways to take it along.
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { unit } from "../format";
import { is, show } from "../state";
import { chart as load } from "../store";
import type { Head, Index } from "../types";
import { drawer, type Readout } from "./index";
import { copyLink, copyPython, saveCsv, saveJson, savePng, saveSvg } from "./exports";
import { isDark } from "../colours";
import { colourOf, type Part } from "./parts";

export function Card({ head, open, large }: { head: Head; open: Index[]; large?: boolean }) {
  const home = useRef<HTMLElement>(null);
  const body = useRef<HTMLDivElement>(null);
  const [near, setNear] = useState(false);
  const [width, setWidth] = useState(0);
  const [parts, setParts] = useState<Part[] | null>(null);
  const [error, setError] = useState<string | null>(null);
  const [read, setRead] = useState<Readout | null>(null);
  const [copied, setCopied] = useState("");
  const drawn = drawer(head);
  const here = drawn.overlays ? open : open.slice(0, 1);
  const state = here.map((index) => `${index.id}:${index.seq}`).join();

  useEffect(() => {
    const seen = new IntersectionObserver((entries) => setNear(entries.some((entry) => entry.isIntersecting)), { rootMargin: "300px" });
    const sized = new ResizeObserver(() => setWidth(Math.floor(body.current?.clientWidth ?? 0)));
    seen.observe(home.current as HTMLElement);
    sized.observe(body.current as HTMLElement);
    return () => {
      seen.disconnect();
      sized.disconnect();
    };
  }, []);

  useEffect(() => {
    if (!near) return;
    let gone = false;
    const there = here.filter((index) => index.charts.some((one) => one.id === head.id));
    Promise.all(there.map((index) => load(index, head)))
      .then((charts) => {
        if (gone) return;
        setParts(charts.map((chart, i) => ({ run: there[i]?.id ?? "", name: there[i]?.name ?? "", chart, place: open.indexOf(there[i] as Index), clock: null })));
        setError(null);
      })
      .catch((why: unknown) => !gone && setError(why instanceof Error ? why.message : String(why)));
    return () => {
      gone = true;
    };
  }, [near, state, head.id]);

  const along = is.x.value;
  const timed = useMemo(() => {
    if (!parts || along === "step" || head.x.title !== "step") return parts;
    return parts.map((part) => {
      const index = here.find((one) => one.id === part.run);
      const values = along === "epoch" ? index?.epochs : index?.seconds;
      return { ...part, clock: index && values ? { steps: index.clock.data, values: values.data } : null };
    });
  }, [parts, along]);

  const size = useMemo(() => ({ width, height: large ? Math.max(drawn.height, 460) : drawn.height }), [width, large, drawn.height]);
  const steps = head.x.title === "step" && head.x.scale !== "category";
  const told = (what: string): void => {
    setCopied(what);
    setTimeout(() => setCopied(""), 1600);
  };
  return (
    <article class="card" ref={home} data-chart={head.id} id={`chart-${head.id}`} aria-label={head.title}>
      <header>
        <h3>
          <button class="plain" title={large ? "Back to all charts" : "Show it large"} onClick={() => show({ chart: large ? null : head.id })}>
            {head.title}
          </button>
          {head.split && <span class="tag">{head.split}</span>}
          {unit(head.units) && <span class="tag">{head.units}</span>}
        </h3>
        <span class="source" dangerouslySetInnerHTML={{ __html: head.source_html }} />
        <details class="menu">
          <summary aria-label={`Take ${head.title} along`}>⤓</summary>
          <div>
            {parts && (
              <>
                <button onClick={() => void savePng(body.current as HTMLElement, head)}>PNG, twice the size</button>
                <button onClick={() => saveSvg(body.current as HTMLElement, head, parts)}>SVG</button>
                <button onClick={() => saveCsv(parts, head)}>CSV</button>
                <button onClick={() => saveJson(parts, head)}>JSON</button>
                <button onClick={() => void copyPython(parts, head).then(() => told("Python copied"))}>Copy as Python</button>
              </>
            )}
            <button onClick={() => void copyLink(head).then(() => told("Link copied"))}>Copy link</button>
          </div>
        </details>
      </header>
      <div class="body" ref={body} style={{ minHeight: `${size.height}px` }}>
        {error && <p class="trouble">{error}</p>}
        {!error && !parts && <p class="quiet">{near ? "loading" : ""}</p>}
        {timed && timed.length > 0 && width > 0 && near && (
          <drawn.view parts={timed} size={size} weight={steps ? is.smooth.value : 0} log={is.log.value} clip={is.clip.value} readout={setRead} />
        )}
      </div>
      <div class="readout" aria-live="off">
        {!read && parts && <Legend parts={parts} most={large ? 40 : 8} />}
        {read ? (
          <>
            <b>{read.head}</b>
            {read.rows.slice(0, large ? 40 : 8).map(([name, value, colour]) => (
              <span key={name}>
                <i style={{ background: colour }} /> {name} <b>{value}</b>
              </span>
            ))}
            {read.rows.length > (large ? 40 : 8) && <span>and {read.rows.length - (large ? 40 : 8)} more</span>}
          </>
        ) : (
          <span class="quiet">{copied || (steps && is.smooth.value > 0 ? `Smoothed (${is.smooth.value}); the thin line is as measured. ` : "") + head.caption}</span>
        )}
      </div>
    </article>
  );
}

/** What the colours mean: series of one run, or runs. */
function Legend({ parts, most }: { parts: Part[]; most: number }) {
  const { chart } = parts[0] as Part;
  const coloured = chart.marks.some((mark) => ["line", "dots", "band"].includes(mark.mark));
  const names = parts.length > 1 ? parts.map((part) => part.name) : chart.series;
  if (!coloured || names.length < 2) return null;
  void is.theme.value;
  const dark = isDark();
  const colour = (place: number): string => colourOf(parts.length > 1 ? (parts[place] as Part) : (parts[0] as Part), place, parts.length, dark);
  return (
    <>
      {names.slice(0, most).map((name, place) => (
        <span key={`${place} ${name}`}>
          <i style={{ background: colour(place) }} /> {name}
        </span>
      ))}
      {names.length > most && <span>and {names.length - most} more</span>}
    </>
  );
}
