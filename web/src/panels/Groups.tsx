// The instruments and diagnoses, to look at one alone; the splits; and what is known of the run.
import { is, show } from "../state";
import { first } from "../store";

export function Groups() {
  const index = first.value;
  if (!index) return null;
  const counts = new Map<string, number>();
  for (const head of index.charts) counts.set(head.instrument, (counts.get(head.instrument) ?? 0) + 1);
  const splits = [...new Set(index.charts.flatMap((head) => head.split ?? []))];
  const state = { instrument: is.instrument.value, split: is.split.value };
  return (
    <nav class="groups" aria-label="Instruments">
      <h2>Instruments</h2>
      <div class="choices">
        <button aria-pressed={!state.instrument} onClick={() => show({ instrument: null, chart: null })}>all</button>
        {index.groups.map((group) => (
          <button key={group.key} aria-pressed={state.instrument === group.key} onClick={() => show({ instrument: state.instrument === group.key ? null : group.key, chart: null })}>
            {group.title} <small>{counts.get(group.key) ?? 0}</small>
          </button>
        ))}
      </div>
      {splits.length > 1 && (
        <>
          <h2>Data</h2>
          <div class="choices">
            <button aria-pressed={!state.split} onClick={() => show({ split: null })}>all</button>
            {splits.map((split) => (
              <button key={split} aria-pressed={state.split === split} onClick={() => show({ split: state.split === split ? null : split })}>{split}</button>
            ))}
          </div>
        </>
      )}
      <details class="facts">
        <summary>About this run</summary>
        <dl>
          {index.facts.map(([name, value]) => (
            <div key={name}>
              <dt>{name}</dt>
              <dd>{value}</dd>
            </div>
          ))}
        </dl>
      </details>
    </nav>
  );
}
