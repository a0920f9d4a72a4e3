"""Which columns to show first where there is little room."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from stratoscope.charts.variable import Variable, variables_of
from stratoscope.report.table import Column, Row, Table

if TYPE_CHECKING:
    from stratoscope.record.record import Record

MOST_SCALARS = 3
MOST_PICTURED = 3


def headline(table: Table, rows: Sequence[Row]) -> list[Column]:
    """Columns that say something about these rows, the most telling first.

    A variable may claim its place with the attribute `headline` (a number, smaller is earlier). Otherwise each instrument
    shows its first variable before any shows its second, since instruments put first what matters most, and what is said
    of a matrix goes before what is said of a tensor. Columns that are the same or not finite in every row, ends of intervals, references
    and counts come after the others.
    """
    here = {key for row in rows for key in row.cells}
    columns = [column for column in table.columns.values() if column.key in here]
    columns.sort(key=lambda column: column.variable.place == "param")
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
    if not any(math.isfinite(value) for value in values):
        return True
    return len(values) < 2 and sum(value is not None for value in found) > 1 and variable.same_everywhere


def scalars(record: Record) -> list[Variable]:
    """Numbers of the whole network that are worth a line: at most three of each instrument, the first that vary."""
    found = []
    for key in record:
        lone = [variable for variable in variables_of(record, key).values() if not variable.dims]
        found += [v for v in lone if v.measured.any() and not _says_little(v)][:MOST_SCALARS]
    return found


def pictured(variables: Sequence[Variable]) -> set[str]:
    """Names of an instrument's variables that a short report shows: those with `headline`, else the first that vary.

    What is nowhere finite is no picture.
    """
    telling = [v for v in variables if np.isfinite(v.values[v.measured]).any() and not _says_little(v)]
    claimed = [v for v in telling if "headline" in v.attrs]
    others = [v for v in telling if "headline" not in v.attrs]
    others.sort(key=lambda v: v.place == "param")
    return {v.name for v in (claimed + others)[: max(MOST_PICTURED, len(claimed))]}


def _says_little(variable: Variable) -> bool:
    splits = sum(variable.last(split) is not None for split in range(len(variable.splits)))
    constant = variable.same_everywhere and int(variable.measured.sum()) > splits
    return constant or bool(variable.companion_of) or variable.name == "n" or variable.attrs.get("chart") == "none"
