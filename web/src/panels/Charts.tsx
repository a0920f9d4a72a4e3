// All charts of the shown runs, instrument by instrument; those that are not near the screen are not drawn.
import { useEffect, useRef } from "preact/hooks";
import { Card } from "../charts/Card";
import { drawer } from "../charts";
import { is, show, type Shown } from "../state";
import { first, open } from "../store";
import type { Head, Index } from "../types";

/** The charts that the state of the page asks for, each once though several runs may have it. */
export function wanted(indexes: Index[], state: Pick<Shown, "search" | "instrument" | "split">): Head[] {
  const every = new Map<string, Head>();
  for (const index of indexes) for (const head of index.charts) if (!every.has(head.id)) every.set(head.id, head);
  // the code of a finding leads to the charts of who said it
  const codes = new Map<string, Set<string>>();
  for (const { code, instrument } of indexes.flatMap((index) => index.findings)) {
    const key = instrument.split(":")[0] as string;
    codes.set(key, (codes.get(key) ?? new Set()).add(code));
  }
  const words = state.search.toLowerCase().split(/\s+/).filter(Boolean);
  const fitting = [...every.values()].filter((head) => {
    if (state.instrument && head.instrument !== state.instrument) return false;
    if (state.split && head.split !== null && head.split !== state.split) return false;
    const said = [...(codes.get(head.instrument) ?? [])].join(" ");
    const told = `${head.instrument} ${head.variable} ${head.title} ${head.split ?? ""} ${head.kind} ${said}`.toLowerCase();
    return words.every((word) => told.includes(word));
  });
  // those that have nothing to show come after those that have
  return [...fitting.filter((head) => !head.empty), ...fitting.filter((head) => head.empty)];
}

/** Pictures, and after them the single numbers closely together, which would leave holes among pictures. */
function Cards({ heads, shown }: { heads: Head[]; shown: Index[] }) {
  const small = heads.filter((head) => drawer(head).small);
  const pictures = heads.filter((head) => !small.includes(head));
  return (
    <>
      {[pictures, small].map((some) =>
        some.length > 0 && (
          <div class={`grid-of-cards${some === small ? " small" : ""}`} key={String(some === small)}>
            {some.map((head) => <Card head={head} shown={shown} key={head.id} />)}
          </div>
        ),
      )}
    </>
  );
}

/** Says why no chart is shown, and leads back to all. */
function Nothing({ state }: { state: Pick<Shown, "search" | "instrument" | "split"> }) {
  const narrowed = Boolean(state.search || state.instrument || state.split);
  if (!narrowed) return <p class="quiet">This run has no charts yet: nothing has been measured.</p>;
  return (
    <p class="quiet">
      No chart fits what is looked for. <button onClick={() => show({ search: "", instrument: null, split: null })}>Show all charts</button>
    </p>
  );
}

/** A chart that becomes large is brought to where it can be seen, and its card when it is one of many again. */
function useInSight(chosen: string | null): void {
  const before = useRef(chosen);
  useEffect(() => {
    const one = chosen ?? before.current;
    if (chosen !== before.current && one) document.getElementById(`chart-${one}`)?.scrollIntoView({ block: chosen ? "nearest" : "center" });
    before.current = chosen;
  }, [chosen]);
}

export function Charts() {
  useInSight(is.chart.value);
  const indexes = open.value;
  const state = { search: is.search.value, instrument: is.instrument.value, split: is.split.value };
  const lead = first.value;
  if (!lead) return null;
  const chosen = is.chart.value;
  const large = chosen ? indexes.flatMap((index) => index.charts).find((head) => head.id === chosen) : undefined;
  if (large)
    return (
      <section class="charts one" aria-label="Chart">
        <Card head={large} shown={indexes} large key={`large ${large.id}`} />
      </section>
    );
  const heads = wanted(indexes, state);
  const groups = lead.groups.filter((group) => heads.some((head) => head.instrument === group.key));
  const others = heads.filter((head) => !lead.groups.some((group) => group.key === head.instrument));
  return (
    <div class="charts">
      {!heads.length && <Nothing state={state} />}
      {groups.map((group) => (
        <section key={group.key} aria-label={group.title}>
          <h2 id={`group-${group.key}`}>
            {group.title} <small class="source" dangerouslySetInnerHTML={{ __html: group.source_html }} />
          </h2>
          <Cards heads={heads.filter((head) => head.instrument === group.key)} shown={indexes} />
        </section>
      ))}
      {others.length > 0 && (
        <section aria-label="Of other runs">
          <h2>Of other runs</h2>
          <Cards heads={others} shown={indexes} />
        </section>
      )}
    </div>
  );
}
