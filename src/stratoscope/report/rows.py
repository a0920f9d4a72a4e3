"""The rows of a record as plain values: what `--json` prints, and what terminal and page show."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from stratoscope.report.meaning import meaning_of
from stratoscope.report.table import Column, Row, Table, table_of

if TYPE_CHECKING:
    from stratoscope.record.record import Record


MISSING = "\N{EN DASH}"
"""What tables show where there is no value for a known reason."""


def rows_of(record: Record) -> list[dict[str, Any]]:
    """A row for each weight matrix (fused ones apart), for each other param, and for each measured layer without params.

    Each row holds

    * `name`: unique; the matrix', else the tensor's, else the layer's;
    * `layer`; `tensor`: exact key of its tensor, or null; `kind`; `shape`, or null;
    * `status`: `measured`, `not_applicable`, `skipped` or `failed`; `reason`: why, or what failed, else null;
    * `verdict`: one of `report.meaning.VERDICTS`, such as `trained` or `untrained`; `meaning`: why, in one line;
    * a value for each quantity that was measured here, at the last step at which it was. NaN and infinity are null, and
      `<column>_reason` says which, or why: a variable may name in its attribute `why` another one of its group whose
      category is the reason (the first category says that there is a value). A quantity that does not apply to a row is
      not in it.

    `stratoscope.report.table` says in which row the quantities of a layer stand and how columns are called;
    `columns_of` says what they mean.

    Args:
        record: a record, finished or still being written.
    """
    table = table_of(record)
    return [plain_row(table, row) for row in table.rows]


def columns_of(record: Record) -> list[dict[str, Any]]:
    """What each column means: `key`, `instrument`, `variable`, `split`, `units`, `long_name`, `source`, `meaning`."""
    return [plain_column(column) for column in table_of(record).columns.values()]


def plain_row(table: Table, row: Row) -> dict[str, Any]:
    """One row as JSON-ready values."""
    plain: dict[str, Any] = {
        "name": row.name,
        "layer": row.layer,
        "tensor": row.tensor,
        "kind": row.kind,
        "shape": None if row.shape is None else list(row.shape),
        "status": row.status,
        "reason": row.reason or None,
        **_judged(table, row),
    }
    for key in row.cells:
        found = table.value(row, key)
        if found is not None:
            plain[key] = _plain_value(table.columns[key], found[1])
            if plain[key] is None:
                plain[f"{key}_reason"] = _reason(table.columns[key], row.cells[key], found)
    return plain


def _reason(column: Column, place: str, found: tuple[int, float]) -> str:
    """Why a value is not a number."""
    step, value = found
    return why_not(column, place, step) or "the measured value is " + ("NaN" if math.isnan(value) else "infinite")


def why_not(column: Column, place: str, step: int) -> str | None:
    """The reason that the record gives for a value that is missing; `None` where it gives none."""
    why = column.variable.companions.get(str(column.variable.attrs.get("why")))
    if why is not None and why.meanings and place in why.names and step in why.steps and column.split < len(why.splits):
        category = why.values[why.steps.index(step), column.split, why.names.index(place)]
        if category > 0:
            return why.meanings[int(category)]
    return None


def _judged(table: Table, row: Row) -> dict[str, str]:
    found = meaning_of(table, row)
    return {"verdict": found.verdict, "meaning": found.says}


def plain_column(column: Column) -> dict[str, Any]:
    """One column's description as JSON-ready values."""
    variable = column.variable
    return {
        "key": column.key,
        "instrument": variable.instrument,
        "variable": variable.name,
        "split": variable.splits[column.split] or None,
        "units": variable.units,
        "long_name": variable.long_name,
        "source": variable.source,
        "meaning": column.meaning,
    }


def _plain_value(column: Column, value: float) -> float | str | bool | None:
    if not math.isfinite(value):
        return None
    meanings = column.variable.meanings
    if meanings == ("no", "yes"):
        return bool(value)
    return meanings[int(value)] if meanings else value
