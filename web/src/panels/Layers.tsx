// The layers as a table that can be walked by keys; the same layer is marked wherever it is shown.
import { useEffect, useRef, useState } from "preact/hooks";
import { number } from "../format";
import { valueAt, valuesOf } from "../at";
import { cursorLayer, cursorStep, is, point, show } from "../state";
import { first, open } from "../store";
import type { Column, Index, Row } from "../types";
import { seen } from "./window";

const ROW = 30;
const TALL = 420;

export function Layers() {
  const index = first.value;
  const [top, setTop] = useState(0);
  const [sort, setSort] = useState<{ key: string; down: boolean } | null>(null);
  const body = useRef<HTMLDivElement>(null);
  const rowsNow = useRef<Row[]>([]);
  const layer = is.layer.value;
  useEffect(() => {
    // chosen elsewhere: bring it to where it can be seen
    const at = rowsNow.current.findIndex((row) => row.name === layer || row.layer === layer);
    const box = body.current;
    if (at < 0 || !box) return;
    if (at * ROW < box.scrollTop || (at + 2) * ROW > box.scrollTop + box.clientHeight) box.scrollTop = Math.max((at - 3) * ROW, 0);
  }, [layer, index?.id]);
  if (!index) return null;
  const others = open.value.filter((one) => one.id !== index.id);
  const pinned = is.base.value === index.id;
  const columns = index.table.columns.filter((column) => index.table.shown.includes(column.key));
  const words = is.search.value.toLowerCase();
  const matching = index.table.rows.filter((row) => row.name.toLowerCase().includes(words));
  const rows = order(matching.length ? matching : index.table.rows, sort);
  rowsNow.current = rows;
  const { begin, end, before, after } = seen(rows.map(() => ROW), top, TALL);
  const chosen = is.layer.value;
  const step = cursorStep.value;

  const walk = (event: KeyboardEvent): void => {
    const step = { ArrowDown: 1, ArrowUp: -1, PageDown: 12, PageUp: -12 }[event.key];
    if (!step && event.key !== "Home" && event.key !== "End") return;
    event.preventDefault();
    const now = rows.findIndex((row) => row.name === chosen || row.layer === chosen);
    const at = event.key === "Home" ? 0 : event.key === "End" ? rows.length - 1 : Math.min(Math.max(now + (step ?? 0), 0), rows.length - 1);
    const row = rows[at];
    if (!row) return;
    show({ layer: row.name }, true);
  };
  return (
    <section class="layers" aria-label="Layers">
      <h2>
        Layers <small>{index.table.coverage}</small>
      </h2>
      <div class="scroll" ref={body} style={{ maxHeight: `${TALL}px` }} tabIndex={0} onKeyDown={walk} onScroll={(event) => setTop(event.currentTarget.scrollTop)} role="region" aria-label="Table of layers, walked by arrow keys">
        <table>
          <thead>
            <tr>
              <th scope="col"><button class="plain" onClick={() => setSort(null)}>layer</button></th>
              {columns.map((column) => (
                <th scope="col" key={column.key} title={column.meaning} aria-sort={sort?.key === column.key ? (sort.down ? "descending" : "ascending") : "none"}>
                  <button class="plain" onClick={() => setSort({ key: column.key, down: sort?.key === column.key ? !sort.down : true })}>
                    {column.variable}
                    {column.split && <small> {column.split}</small>}
                  </button>
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            <tr class="spacer" style={{ height: `${before}px` }} />
            {rows.slice(begin, end).map((row) => (
              <LayerRow key={row.name} row={row} columns={columns} run={index.id} step={step} others={others} pinned={pinned} />
            ))}
            <tr class="spacer" style={{ height: `${after}px` }} />
          </tbody>
        </table>
      </div>
    </section>
  );
}

/** With a pinned baseline the other runs show how far they are from it, else their own numbers. */
function beside(value: unknown, own: unknown, pinned: boolean): string {
  if (typeof value !== "number") return "";
  if (!pinned || typeof own !== "number") return number(value);
  const difference = value - own;
  return difference > 0 ? `+${number(difference)}` : number(difference);
}

/** A cell as it was at the step that is looked at; at the end where none is. */
function cell(run: string, row: Row, column: Column, step: number | null): { text: string; why?: string } {
  const why = row[`${column.key}_reason`];
  const last = { text: column.key in row ? number(row[column.key] ?? NaN) : "", ...(typeof why === "string" ? { why } : {}) };
  if (step === null || !(column.key in row)) return last;
  const values = valuesOf(run, column.instrument, column.variable);
  if (!values) return last;
  const found = valueAt(values, column.split, [row.name, row.tensor, row.layer], step);
  if (!found) return { text: "", why: `not measured at or before step ${number(step)}` };
  const meaning = values.meanings[found.value];
  return { text: values.meanings.length ? (meaning ?? "") : number(found.value), why: `measured at step ${number(found.step)}` };
}

interface RowProps {
  row: Row;
  columns: Column[];
  run: string;
  step: number | null;
  others: Index[];
  pinned: boolean;
}

function LayerRow({ row, columns, run, step, others, pinned }: RowProps) {
  const chosen = is.layer.value === row.name || is.layer.value === row.layer;
  const hot = cursorLayer.value === row.name || cursorLayer.value === row.layer;
  return (
    <tr class={`${chosen ? "chosen" : ""} ${hot ? "hot" : ""}`} aria-selected={chosen} onPointerEnter={() => point({ layer: row.name })} onPointerLeave={() => point({ layer: null })} onClick={() => show({ layer: chosen ? null : row.name })}>
      <th scope="row" title={`${row.kind}${row.shape ? ` ${row.shape.join("×")}` : ""}. ${row.meaning}`}>{row.name || "network"}</th>
      {columns.map((column) => {
        const { key } = column;
        const there = others.map((index) => index.table.rows.find((one) => one.name === row.name)?.[key]);
        const { text, why } = cell(run, row, column, step);
        return (
          <td key={key} title={why}>
            {text}
            {there.map((value, i) => typeof value === "number" && <small key={i}> {beside(value, row[key], pinned)}</small>)}
          </td>
        );
      })}
    </tr>
  );
}

function order(rows: Row[], sort: { key: string; down: boolean } | null): Row[] {
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
