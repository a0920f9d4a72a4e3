// The list of runs: filtered, sorted, drawn only where it is seen; up to eight are shown over each other.
import { useRef, useState } from "preact/hooks";
import { seriesColour, isDark } from "../colours";
import { is, MOST_RUNS, show } from "../state";
import { runs } from "../store";
import type { RunSummary } from "../types";

const ROW = 52;
type Order = "name" | "started" | "steps" | "findings";

export function Runs() {
  const [filter, setFilter] = useState("");
  const [order, setOrder] = useState<Order>("started");
  const [top, setTop] = useState(0);
  const list = useRef<HTMLUListElement>(null);
  const every = runs.value ?? [];
  const state = { runs: is.runs.value, base: is.base.value, group: is.group.value };
  const keys = [...new Set(every.flatMap((run) => Object.keys(run.config ?? {})))].sort();
  const found = sorted(every.filter((run) => `${run.name} ${run.folder} ${run.status}`.toLowerCase().includes(filter.toLowerCase())), order, state.group);
  const height = Math.min(found.length * ROW, 320);
  const begin = Math.max(0, Math.floor(top / ROW) - 4);
  const seen = found.slice(begin, begin + Math.ceil(height / ROW) + 8);
  const toggle = (run: RunSummary): void => {
    const there = state.runs.includes(run.id);
    const next = there ? state.runs.filter((id) => id !== run.id) : [...state.runs, run.id].slice(-MOST_RUNS);
    if (next.length) show({ runs: next, base: next.includes(state.base ?? "") ? state.base : null });
  };
  return (
    <section class="runs" aria-label="Runs">
      <h2>
        Runs <small>{state.runs.length} of {every.length}</small>
      </h2>
      {every.length > 1 && (
        <div class="tools">
          <input type="search" placeholder="Filter runs" aria-label="Filter runs" value={filter} onInput={(event) => setFilter(event.currentTarget.value)} />
          <select aria-label="Sort runs by" value={order} onChange={(event) => setOrder(event.currentTarget.value as Order)}>
            <option value="started">newest</option>
            <option value="name">name</option>
            <option value="steps">steps</option>
            <option value="findings">issues</option>
          </select>
          {keys.length > 0 && (
            <select aria-label="Group runs by" value={state.group ?? ""} onChange={(event) => show({ group: event.currentTarget.value || null })}>
              <option value="">no groups</option>
              {keys.map((key) => <option key={key}>{key}</option>)}
            </select>
          )}
        </div>
      )}
      <ul ref={list} style={{ height: `${height}px` }} onScroll={(event) => setTop(event.currentTarget.scrollTop)}>
        <li aria-hidden="true" class="spacer" style={{ height: `${begin * ROW}px` }} />
        {seen.map((run) => (
          <Entry key={run.id} run={run} toggle={toggle} />
        ))}
        <li aria-hidden="true" class="spacer" style={{ height: `${Math.max(found.length - begin - seen.length, 0) * ROW}px` }} />
      </ul>
    </section>
  );
}

function Entry({ run, toggle }: { run: RunSummary; toggle: (run: RunSummary) => void }) {
  const state = { runs: is.runs.value, base: is.base.value, group: is.group.value };
  const place = state.runs.indexOf(run.id);
  const issues = run.findings?.["issue"] ?? 0;
  const group = state.group ? run.config?.[state.group] : undefined;
  return (
    <li class={place >= 0 ? "on" : ""}>
      <label>
        <input type="checkbox" checked={place >= 0} disabled={Boolean(run.error)} onChange={() => toggle(run)} />
        <i class="swatch" style={{ background: place >= 0 ? seriesColour(place, state.runs.length, false, isDark()) : "transparent" }} />
        <span>
          <b title={run.folder}>{run.name}</b>
          <small>
            {run.error ?? `${run.status}, ${run.steps ?? 0} steps${issues ? `, ${issues} issue${issues > 1 ? "s" : ""}` : ""}${group === undefined ? "" : `, ${state.group} ${String(group)}`}`}
          </small>
        </span>
      </label>
      {place >= 0 && state.runs.length > 1 && (
        <button class="plain" aria-pressed={state.base === run.id} title="Compare the others with this one" onClick={() => show({ base: state.base === run.id ? null : run.id })}>
          {state.base === run.id ? "★" : "☆"}
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
  const key = (run: RunSummary): [string, string | number] => [group ? String(run.config?.[group] ?? "") : "", by[order](run)];
  return [...found].sort((a, b) => {
    const [one, two] = [key(a), key(b)];
    return one[0] < two[0] ? -1 : one[0] > two[0] ? 1 : one[1] < two[1] ? -1 : one[1] > two[1] ? 1 : 0;
  });
}
