// All charts of the shown runs, instrument by instrument; those that are not near the screen are not drawn.
import { Card } from "../charts/Card";
import { is, type Shown } from "../state";
import { first, open } from "../store";
import type { Head, Index } from "../types";

/** The charts that the state of the page asks for, each once though several runs may have it. */
export function wanted(indexes: Index[], state: Pick<Shown, "search" | "instrument" | "split">): Head[] {
  const every = new Map<string, Head>();
  for (const index of indexes) for (const head of index.charts) if (!every.has(head.id)) every.set(head.id, head);
  const words = state.search.toLowerCase().split(/\s+/).filter(Boolean);
  return [...every.values()].filter((head) => {
    if (state.instrument && head.instrument !== state.instrument) return false;
    if (state.split && head.split !== null && head.split !== state.split) return false;
    const told = `${head.instrument} ${head.variable} ${head.title} ${head.split ?? ""} ${head.kind}`.toLowerCase();
    return words.every((word) => told.includes(word));
  });
}

export function Charts() {
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
      {!heads.length && <p class="quiet">No chart fits what is looked for.</p>}
      {groups.map((group) => (
        <section key={group.key} aria-label={group.title}>
          <h2 id={`group-${group.key}`}>
            {group.title} <small class="source" dangerouslySetInnerHTML={{ __html: group.source_html }} />
          </h2>
          <div class="grid-of-cards">
            {heads.filter((head) => head.instrument === group.key).map((head) => (
              <Card head={head} shown={indexes} key={head.id} />
            ))}
          </div>
        </section>
      ))}
      {others.length > 0 && (
        <section aria-label="Of other runs">
          <h2>Of other runs</h2>
          <div class="grid-of-cards">{others.map((head) => <Card head={head} shown={indexes} key={head.id} />)}</div>
        </section>
      )}
    </div>
  );
}
