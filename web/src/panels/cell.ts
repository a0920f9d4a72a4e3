// A number of the table at the step that is looked at.
import { valueAt, valuesOf } from "../at";
import { number } from "../format";
import type { Column, Row } from "../types";

/** A cell as it was at the step that is looked at; at the end where none is. */
export function cell(run: string, row: Row, column: Column, step: number | null): { text: string; why?: string } {
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
