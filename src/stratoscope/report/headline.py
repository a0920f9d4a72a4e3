"""Which columns to show first where there is little room."""

from __future__ import annotations

from collections.abc import Sequence

from stratoscope.report.table import Column, Row, Table


def headline(table: Table, rows: Sequence[Row]) -> list[Column]:
    """Columns that say something about these rows, the most telling first.

    A variable may claim its place with the attribute `headline` (a number, smaller is earlier). Otherwise each instrument
    shows its first variable before any shows its second, since instruments put first what matters most. Columns that
    are the same in every row, ends of intervals, references and counts come after the others.
    """
    here = {key for row in rows for key in row.cells}
    columns = [column for column in table.columns.values() if column.key in here]
    turn: dict[str, int] = {}
    ranked = []
    for number, column in enumerate(columns):
        dull = _dull(column, table, rows)
        place = turn.get(column.variable.instrument, 0)
        turn[column.variable.instrument] = place + (not dull)
        claimed = column.variable.attrs.get("headline")
        ranked.append((dull, column.split > 0, float("inf") if claimed is None else float(claimed), place, number))
    order = sorted(range(len(columns)), key=ranked.__getitem__)
    return [columns[place] for place in order]


def _dull(column: Column, table: Table, rows: Sequence[Row]) -> bool:
    variable = column.variable
    if variable.companion_of or variable.name == "n" or variable.attrs.get("chart") == "none":
        return True
    found = [table.value(row, column.key) for row in rows]
    values = {value[1] for value in found if value is not None}
    return len(values) < 2 and sum(value is not None for value in found) > 1 and variable.same_everywhere
