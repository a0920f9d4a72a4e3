// The layers as a table that can be walked by keys; the same layer is marked wherever it is shown.
import type { RefObject } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { isDark, seriesColour } from "../colours";
import { number } from "../format";
import { cell } from "./cell";
import { cursorLayer, cursorStep, is, point, show, shown } from "../state";
import { first, names, open, places } from "../store";
import type { Column, Index, Row } from "../types";
import { seen } from "./window";

const ROW = 30;
const TALL = 420;

interface Sort {
  key: string;
  down: boolean;
}

const sortOf = (said: string | null): Sort | null => (said ? { key: said.replace(/^-/, ""), down: said.startsWith("-") } : null);

/** By a column downwards first, then upwards. */
const sortBy = (key: string): void => show({ sort: shown.peek().sort === `-${key}` ? key : `-${key}` });

export function Layers() {
  const index = first.value;
  return index && <Table index={index} />;
}

function Table({ index }: { index: Index }) {
  const [top, setTop] = useState(0);
  const box = useRef<HTMLDivElement>(null);
  const words = is.search.value.toLowerCase();
  const columns = index.table.columns.filter((column) => index.table.shown.includes(column.key));
  const measured = index.table.rows.filter((row) => columns.some((column) => column.key in row));
  const fewer = measured.length > 0 && measured.length < index.table.rows.length;
  const there = fewer && is.rows.value === "measured" ? measured : index.table.rows;
  const matching = there.filter((row) => row.name.toLowerCase().includes(words));
  const rows = order(matching.length ? matching : there, sortOf(is.sort.value));
  useInSight(box, rows, index.id);
  const others = open.value.filter((one) => one.id !== index.id);
  const { begin, end, before, after } = seen(rows.map(() => ROW), top, TALL);
  return (
    <section class="layers" aria-label="Layers">
      <h2>
        Layers <small>{index.table.coverage}</small>{" "}
        {fewer && (
          <button class="plain link" aria-pressed={is.rows.value === "all"} onClick={() => show({ rows: is.rows.value === "all" ? "measured" : "all" })}>
            {is.rows.value === "all" ? "those with numbers" : `all ${index.table.rows.length}`}
          </button>
        )}
      </h2>
      <div class="scroll" ref={box} style={{ maxHeight: `${TALL}px` }} tabIndex={0} onKeyDown={(event) => walk(event, rows)} onScroll={(event) => setTop(event.currentTarget.scrollTop)} role="region" aria-label="Table of layers, walked by arrow keys">
        <table>
          <Heads columns={columns} />
          <tbody>
            <tr class="spacer" style={{ height: `${before}px` }} />
            {rows.slice(begin, end).map((row) => (
              <LayerRow key={row.name} row={row} columns={columns} run={index.id} others={others} pinned={is.base.value === index.id} />
            ))}
            <tr class="spacer" style={{ height: `${after}px` }} />
          </tbody>
        </table>
      </div>
    </section>
  );
}

/** A layer that was chosen elsewhere is brought to where it can be seen. */
function useInSight(box: RefObject<HTMLDivElement>, rows: Row[], run: string): void {
  const now = useRef<Row[]>([]);
  now.current = rows;
  const layer = is.layer.value;
  useEffect(() => {
    const at = now.current.findIndex((row) => row.name === layer || row.layer === layer);
    const table = box.current;
    if (at < 0 || !table) return;
    if (at * ROW < table.scrollTop || (at + 2) * ROW > table.scrollTop + table.clientHeight) table.scrollTop = Math.max((at - 3) * ROW, 0);
  }, [layer, run]);
}

const MOVES: Record<string, number> = { ArrowDown: 1, ArrowUp: -1, PageDown: 12, PageUp: -12, Home: -Infinity, End: Infinity };

function walk(event: KeyboardEvent, rows: Row[]): void {
  const by = MOVES[event.key];
  if (by === undefined) return;
  event.preventDefault();
  const chosen = shown.peek().layer;
  const now = rows.findIndex((row) => row.name === chosen || row.layer === chosen);
  const row = rows[Math.min(Math.max(now + by, 0), rows.length - 1)];
  if (row) show({ layer: row.name }, true);
}

function Heads({ columns }: { columns: Column[] }) {
  const sort = sortOf(is.sort.value);
  return (
    <thead>
      <tr>
        <th scope="col"><button class="plain" onClick={() => show({ sort: null })}>layer</button></th>
        {columns.map((column) => (
          <th scope="col" key={column.key} title={column.meaning} aria-sort={sort?.key === column.key ? (sort.down ? "descending" : "ascending") : "none"}>
            <button class="plain" onClick={() => sortBy(column.key)}>
              {column.variable}
              {column.split && <small> {column.split}</small>}
              {sort?.key === column.key && (sort.down ? " ↓" : " ↑")}
            </button>
          </th>
        ))}
      </tr>
    </thead>
  );
}

/** With a pinned baseline the other runs show how far they are from it, else their own numbers. */
function beside(value: unknown, own: unknown, pinned: boolean): string {
  if (typeof value !== "number") return "";
  if (!pinned || typeof own !== "number") return number(value);
  const difference = value - own;
  return difference > 0 ? `+${number(difference)}` : number(difference);
}

interface RowProps {
  row: Row;
  columns: Column[];
  run: string;
  others: Index[];
  pinned: boolean;
}

function LayerRow({ row, columns, run, others, pinned }: RowProps) {
  // read here, so that a step that passes by draws the numbers anew and not the table
  const step = cursorStep.value;
  const chosen = is.layer.value === row.name || is.layer.value === row.layer;
  const hot = cursorLayer.value === row.name || cursorLayer.value === row.layer;
  const same = others.map((index) => index.table.rows.find((one) => one.name === row.name));
  void is.theme.value;
  const colours = others.map((index) => seriesColour(places.value[index.id]?.place ?? 0, is.runs.value.length, false, isDark()));
  return (
    <tr class={`${chosen ? "chosen" : ""} ${hot ? "hot" : ""}`} aria-selected={chosen} onPointerEnter={() => point({ layer: row.name })} onPointerLeave={() => point({ layer: null })} onClick={() => show({ layer: chosen ? null : row.name })}>
      <th scope="row" title={`${row.kind}${row.shape ? ` ${row.shape.join("×")}` : ""}. ${row.meaning}`}>{row.name || "network"}</th>
      {columns.map((column) => {
        const { key } = column;
        const { text, why } = cell(run, row, column, step);
        return (
          <td key={key} title={why}>
            {text}
            {same.map((other, i) => typeof other?.[key] === "number" && (
              <small key={i} class="of-run" title={names.value[others[i]?.id ?? ""]} style={{ borderColor: colours[i] }}>{beside(other[key], row[key], pinned)}</small>
            ))}
          </td>
        );
      })}
    </tr>
  );
}

function order(rows: Row[], sort: Sort | null): Row[] {
  if (!sort) return rows;
  const value = (row: Row): number => {
    const found = row[sort.key];
    return typeof found === "number" ? found : typeof found === "boolean" ? Number(found) : NaN;
  };
  const sign = sort.down ? -1 : 1;
  return [...rows].sort((a, b) => {
    const [one, two] = [value(a), value(b)];
    if (Number.isNaN(one) || Number.isNaN(two)) return Number(Number.isNaN(one)) - Number(Number.isNaN(two));
    return sign * (one - two);
  });
}
