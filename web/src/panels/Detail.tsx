// One layer: its measurements with unit and source, and how each was made.
import { useState } from "preact/hooks";
import { number, unit } from "../format";
import { cursorStep, is, show } from "../state";
import { first } from "../store";
import type { Column, Group, Index, Row } from "../types";
import { cell } from "./cell";
import { Course } from "./Course";

export function Detail() {
  const index = first.value;
  const name = is.layer.value;
  const key = is.instrument.value;
  if (!index || (!name && !key)) return null;
  const group = key ? index.groups.find((one) => one.key === key) : undefined;
  return (
    <aside class="detail" aria-label={name ? `Layer ${name}` : "Method"}>
      <button class="plain close" aria-label="Close" onClick={() => show({ layer: null, instrument: null })}>×</button>
      {name && <Layer index={index} name={name} />}
      {group && <Method group={group} />}
    </aside>
  );
}

function Layer({ index, name }: { index: Index; name: string }) {
  const layer = index.layers.find((one) => one.name === name || one.parts.includes(name));
  const rows = index.table.rows.filter((row) => row.name === name || (layer && row.layer === layer.name));
  const into = layer ? index.edges.filter(([from, , kind]) => kind === "data" && from === layer.name).map(([, to]) => to) : [];
  const alone = index.charts.filter((head) => name && rows.some((row) => row.name && head.title.endsWith(` ${row.name}`)));
  return (
    <>
      <h2>{name || "network"}</h2>
      {layer && (
        <p class="quiet">
          {layer.kind}
          {layer.activation && `, ${layer.activation}`}, {number(layer.params)} parameters
          {into.length > 0 && (
            <>
              , goes into{" "}
              {into.slice(0, 4).map((to) => (
                <button class="plain link" key={to} onClick={() => show({ layer: to })}>{to} </button>
              ))}
            </>
          )}
        </p>
      )}
      {alone.length > 0 && (
        <p>
          Charts of it alone:{" "}
          {alone.map((head) => (
            <button class="plain link" key={head.id} onClick={() => show({ chart: head.id })}>{head.title}</button>
          ))}
        </p>
      )}
      {index.groups.map((group) => (
        <Numbers key={group.key} index={index} group={group} rows={rows} name={name} />
      ))}
    </>
  );
}

/** What one instrument measured of a layer: each number at the step that is looked at, and its course over all steps. */
function Numbers({ index, group, rows, name }: { index: Index; group: Group; rows: Row[]; name: string }) {
  const [open, setOpen] = useState(false);
  const chosen = group.key === is.instrument.value;
  const columns = index.table.columns.filter((column) => column.instrument === group.key && rows.some((row) => column.key in row));
  if (!columns.length) return null;
  return (
    <details open={open || chosen} onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>
        <b>{group.title}</b> <span class="quiet">{columns.length} {columns.length === 1 ? "number" : "numbers"}</span>
      </summary>
      {(open || chosen) && (
        <>
          <dl>
            {columns.flatMap((column) => rows.filter((row) => column.key in row).map((row) => <Measured key={`${row.name} ${column.key}`} run={index.id} row={row} column={column} of={rows.length > 1 && row.name !== name ? row.name : null} />))}
          </dl>
          <button onClick={() => show({ instrument: group.key })}>Charts and method</button>
        </>
      )}
    </details>
  );
}

function Measured({ run, row, column, of }: { run: string; row: Row; column: Column; of: string | null }) {
  const { text, why } = cell(run, row, column, cursorStep.value);
  return (
    <div title={[column.meaning, why].filter(Boolean).join(" ")}>
      <dt>
        {column.long_name}
        {column.split && <small class="tag">{column.split}</small>}
        {of && <small class="tag">{of}</small>}
      </dt>
      <dd>
        <Course run={run} row={row} column={column} />
        {text}
        {text && unit(column.units)}
      </dd>
    </div>
  );
}

function Method({ group }: { group: Group }) {
  return (
    <section class="method" aria-label={`Method: ${group.title}`}>
      <h2>{group.title}</h2>
      <p class="source" dangerouslySetInnerHTML={{ __html: group.source_html }} />
      <div dangerouslySetInnerHTML={{ __html: group.method_html }} />
      <details>
        <summary>Settings and variables</summary>
        <dl>
          {Object.entries(group.settings).map(([name, value]) => (
            <div key={name}>
              <dt><code>{name}</code></dt>
              <dd>{String(value)}</dd>
            </div>
          ))}
          {group.variables.map((variable) => (
            <div key={variable.name}>
              <dt><code>{variable.name}</code> {variable.title}</dt>
              <dd>{variable.units === "1" ? "a pure number" : variable.units}</dd>
            </div>
          ))}
        </dl>
      </details>
    </section>
  );
}
