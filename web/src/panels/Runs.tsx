// The list of runs: filtered, sorted, drawn only where it is seen; up to eight are shown over each other.
import { useState } from "preact/hooks";
import { isDark, seriesColour } from "../colours";
import { is, MOST_RUNS, type Order, show, shown } from "../state";
import { byValue, groupOf, names, places, runs } from "../store";
import type { RunSummary } from "../types";
import { seen } from "./window";

const ROW = 52;
const HEADING = 30;
const TALL = 320;
type Item = { run: RunSummary } | { heading: string; count: number };

export function Runs() {
  const [top, setTop] = useState(0);
  const every = runs.value ?? [];
  const key = is.group.value;
  const said = is.filter.value.toLowerCase();
  const found = sorted(every.filter((run) => `${run.name} ${run.folder} ${run.status}`.toLowerCase().includes(said)), is.order.value, key);
  const items = withHeadings(found, key);
  const heights = items.map((item) => ("run" in item ? ROW : HEADING));
  const height = Math.min(heights.reduce((a, b) => a + b, 0), TALL);
  const { begin, end, before, after } = seen(heights, top, height);
  return (
    <section class="runs" aria-label="Runs">
      <h2>
        Runs <small>{runs.value ? `${is.runs.value.length} of ${every.length}` : "being listed"}</small>
      </h2>
      {every.length > 1 && <Tools every={every} />}
      <ul style={{ height: `${height}px` }} onScroll={(event) => setTop(event.currentTarget.scrollTop)}>
        <li aria-hidden="true" class="spacer" style={{ height: `${before}px` }} />
        {items.slice(begin, end).map((item) =>
          "run" in item ? (
            <Entry key={item.run.id} run={item.run} />
          ) : (
            <li class="heading" key={`group ${item.heading}`}>
              <h3>{item.heading}</h3> <small>{item.count}</small>
            </li>
          ),
        )}
        <li aria-hidden="true" class="spacer" style={{ height: `${after}px` }} />
      </ul>
    </section>
  );
}

function Tools({ every }: { every: RunSummary[] }) {
  const keys = [...new Set(every.flatMap((run) => Object.keys(run.config ?? {})))].sort();
  return (
    <div class="tools">
      <input type="search" placeholder="Filter runs" aria-label="Filter runs" value={is.filter.value} onInput={(event) => show({ filter: event.currentTarget.value }, true)} />
      <select aria-label="Sort runs by" value={is.order.value} onChange={(event) => show({ order: event.currentTarget.value as Order })}>
        <option value="started">newest</option>
        <option value="name">name</option>
        <option value="steps">steps</option>
        <option value="findings">issues</option>
      </select>
      {keys.length > 0 && (
        <select aria-label="Group runs by" value={is.group.value ?? ""} onChange={(event) => show({ group: event.currentTarget.value || null })}>
          <option value="">no groups</option>
          {keys.map((key) => <option key={key}>{key}</option>)}
        </select>
      )}
    </div>
  );
}

/** Show a run beside the others, or no longer; the last one stays. */
function toggle(run: RunSummary): void {
  const { runs: now, base } = shown.peek();
  const next = now.includes(run.id) ? now.filter((id) => id !== run.id) : [...now, run.id].slice(-MOST_RUNS);
  if (next.length) show({ runs: next, base: base !== null && next.includes(base) ? base : null });
}

/** Runs under the heading of their group. */
export function withHeadings(found: RunSummary[], key: string | null): Item[] {
  if (key === null) return found.map((run) => ({ run }));
  const groups = new Map<string, RunSummary[]>();
  for (const run of found) groups.set(groupOf(run, key), [...(groups.get(groupOf(run, key)) ?? []), run]);
  return [...groups].flatMap(([heading, members]) => [{ heading, count: members.length }, ...members.map((run) => ({ run }))]);
}

function Entry({ run }: { run: RunSummary }) {
  const on = is.runs.value.includes(run.id);
  const pinned = is.base.value === run.id;
  const issues = run.findings?.["issue"] ?? 0;
  const told = run.error ?? `${run.status}, ${run.steps ?? 0} step${run.steps === 1 ? "" : "s"}${issues ? `, ${issues} issue${issues > 1 ? "s" : ""}` : ""}`;
  void is.theme.value;
  const colour = on ? seriesColour(places.value[run.id]?.place ?? 0, is.runs.value.length, false, isDark()) : "transparent";
  return (
    <li class={on ? "on" : ""}>
      <label title={run.error ?? run.folder}>
        <input type="checkbox" checked={on} disabled={Boolean(run.error) && !on} onChange={() => toggle(run)} />
        <i class="swatch" style={{ background: colour }} />
        <span>
          <b>{names.value[run.id]}</b>
          <small>{told}</small>
        </span>
      </label>
      {!run.error && !(on && is.runs.value.length === 1) && (
        <button class="plain link only" aria-label={`Show ${names.value[run.id]} only`} title="Show this run and no other" onClick={() => show({ runs: [run.id], base: null })}>only</button>
      )}
      {on && is.runs.value.length > 1 && (
        <button class="plain" aria-pressed={pinned} aria-label={`Compare the others with ${names.value[run.id]}`} title="Compare the others with this one" onClick={() => show({ base: pinned ? null : run.id })}>
          {pinned ? "★" : "☆"}
        </button>
      )}
    </li>
  );
}

function sorted(found: RunSummary[], order: Order, group: string | null): RunSummary[] {
  const by: Record<Order, (run: RunSummary) => string | number> = {
    name: (run) => run.name.toLowerCase(),
    started: (run) => -Date.parse(run.started ?? "") || 0,
    steps: (run) => -(run.steps ?? 0),
    findings: (run) => -(run.findings?.["issue"] ?? 0),
  };
  return [...found].sort((a, b) => {
    const groups = group ? byValue(groupOf(a, group), groupOf(b, group)) : 0;
    const [one, two] = [by[order](a), by[order](b)];
    return groups || (one < two ? -1 : one > two ? 1 : 0);
  });
}
