"""One table for every reader: a row for each weight matrix, other param and measured layer; a column for each quantity.

**Where a number stands.** A quantity of a matrix stands in that matrix' row, one of a param in the row of that tensor.
A quantity of a layer stands in the row of the layer's main weight (its first matrix, else its first param), and in a row
of the layer's own where it has no params, such as an activation. So every number stands in one place, and the numbers of a
layer with fused projections stand beside the first of them.

**What columns are called.** By the variable's name. Where two instruments use the same name, and for counts called `n`,
the instrument comes first: `units.n`. Where they mean the same (their `long_name` and unit are equal) it is one column.
Where there are several data splits, the plain name is the first split and the others follow in brackets: `gdv`,
`gdv[test]`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from stratoscope.charts.numbers import format_number, unit_text
from stratoscope.charts.values import FloatArray
from stratoscope.charts.variable import Variable, Variables, variables_of

if TYPE_CHECKING:
    from stratoscope.record.record import Record
    from stratoscope.record.rows import Coverage, LayerRow

OWN = frozenset(("name", "layer", "tensor", "kind", "shape", "status", "reason", "verdict", "meaning", "n"))
"""What a row says of itself, and `n`, which says nothing alone; a variable so called bears its instrument's name, too."""

PLACES = ("layer", "matrix", "param")
WORST_FIRST = ("failed", "skipped", "not_applicable", "measured")


@dataclass(frozen=True, eq=False)
class Column:
    """One quantity on one data split.

    Attributes:
        key: its name in rows.
        variable: the numbers.
        split: position of the split.
    """

    key: str
    variable: Variable
    split: int

    @property
    def meaning(self) -> str:
        """A sentence: what it is, its unit, its source."""
        variable = self.variable
        split = variable.splits[self.split]
        unit = f", in {variable.units}" if unit_text(variable.units) else ""
        source = f" ({variable.source})" if variable.source else ""
        return f"{variable.title}{unit}{f', on {split}' if split else ''}{source}."

    def history(self, name: str) -> tuple[tuple[int, ...], FloatArray]:
        """Steps at which a place was measured, and its values."""
        if name not in self.variable.names:
            return (), np.empty(0)
        place = self.variable.names.index(name)
        there = self.variable.measured[:, self.split, place]
        steps = tuple(step for step, measured in zip(self.variable.steps, there, strict=True) if measured)
        return steps, self.variable.values[:, self.split, place][there]

    def shown(self, value: float) -> str:
        """A value as people read it."""
        meanings = self.variable.meanings
        return meanings[int(value)] if meanings and math.isfinite(value) else format_number(value)


@dataclass
class Row:
    """One matrix, param or layer.

    Attributes:
        name: unique in the table.
        layer: the layer that it belongs to.
        tensor: exact key of its tensor; `None` for a layer without params.
        kind: `linear`, `conv`, ... for matrices, the role for other params, the layer's kind otherwise.
        shape: its sizes; `None` for a layer.
        status: `measured`, `not_applicable`, `skipped` or `failed`.
        reason: why it was not measured, or what failed; empty if nothing did.
        cells: for each column that has something here, the place that it speaks of.
    """

    name: str
    layer: str
    tensor: str | None
    kind: str
    shape: tuple[int, ...] | None
    status: str = "measured"
    reason: str = ""
    cells: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Table:
    """Rows in order of depth, columns in the order in which instruments measured, and what each was set to."""

    rows: list[Row]
    columns: dict[str, Column]
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def value(self, row: Row, key: str) -> tuple[int, float] | None:
        """The last measured step and value of a cell; `None` where nothing was measured."""
        if key not in row.cells:
            return None
        steps, values = self.columns[key].history(row.cells[key])
        return (steps[-1], float(values[-1])) if steps else None

    def history(self, row: Row, key: str) -> FloatArray:
        """All values of a cell."""
        return self.columns[key].history(row.cells[key])[1]


def table_of(record: Record, variables: Variables | None = None) -> Table:
    """The table of a record.

    Args:
        record: the record.
        variables: reads its variables, for who has read them already.
    """
    columns = {column.key: column for column in _columns(record, variables or partial(variables_of, record))}
    rows = _rows(
        record.layers, [name for c in columns.values() if c.variable.place == "layer" for name in c.variable.names]
    )
    homes = _homes(rows)
    for column in columns.values():
        for name in column.variable.names:
            row = homes.get((column.variable.place, name))
            if row is not None and len(column.history(name)[0]):
                row.cells[column.key] = name
    coverage = _coverage(record.coverage())
    reasons = {str(p["name"]): _reason_of(p) for layer in record.layers for p in layer.spec.get("params", ())}
    for row in rows:
        _set_status(row, coverage, reasons)
    kept = [row for row in rows if row.tensor is not None or row.cells or row.status == "failed"]
    return Table(kept, columns, {key: _settings(record, key) for key in record})


def _settings(record: Record, key: str) -> Mapping[str, Any]:
    settings = record[key].attrs.get("settings")
    return settings if isinstance(settings, Mapping) else {}


def _columns(record: Record, variables: Variables) -> Iterator[Column]:
    found = [
        variable
        for key in record
        for variable in variables(key).values()
        if len(variable.dims) == 1 and not variable.ragged and variable.place in PLACES
    ]
    found = list(_once(found))
    uses = Counter(variable.name for variable in found)
    for variable in found:
        plain = uses[variable.name] == 1 and variable.name not in OWN
        name = variable.name if plain else f"{variable.instrument}.{variable.name}"
        for place, split in enumerate(variable.splits):
            yield Column(f"{name}[{split}]" if place else name, variable, place)


def _once(found: Sequence[Variable]) -> Iterator[Variable]:
    """Leaves out what another instrument says already: in the same words, with the same numbers at the same places."""
    first: dict[tuple[str, ...], Variable] = {}
    for variable in found:
        meaning = (variable.name, variable.long_name, variable.units, variable.place)
        other = first.setdefault(meaning, variable)
        if other is variable or not _repeats(variable, other):
            yield variable


def _repeats(variable: Variable, other: Variable) -> bool:
    mine, theirs = _numbers(variable), _numbers(other)
    return mine.keys() <= theirs.keys() and all(
        math.isclose(value, theirs[at], rel_tol=1e-6) or (math.isnan(value) and math.isnan(theirs[at]))
        for at, value in mine.items()
    )


def _numbers(variable: Variable) -> dict[tuple[str, str, int], float]:
    """What was measured, by place, split and step."""
    return {
        (variable.names[place], variable.splits[split], variable.steps[step]): float(
            variable.values[step, split, place]
        )
        for step, split, place in np.argwhere(variable.measured).tolist()
    }


def _rows(layers: Sequence[LayerRow], measured: Sequence[str]) -> list[Row]:
    rows: list[Row] = []
    names = list(dict.fromkeys(measured))
    calls: dict[str | None, list[str]] = {}
    for name in names:
        calls.setdefault(_called(name), []).append(name)
    for layer in layers:
        rows += _rows_of_layer(layer)
        rows += [Row(name, name, None, layer.kind, None) for name in calls.get(layer.name, ())]
    known = {row.layer for row in rows}
    rows += [Row(name, name, None, "other", None) for name in names if name not in known]
    seen: set[str] = set()
    for row in rows:
        while row.name in seen:
            row.name += " (layer)" if row.tensor is None else " (tensor)"
        seen.add(row.name)
    return rows


def _rows_of_layer(layer: LayerRow) -> list[Row]:
    shapes = {str(p["name"]): tuple(p["shape"]) for p in layer.spec.get("params", ())}
    rows, homes = [], set()
    for matrix in layer.spec.get("matrices", ()):
        home = str(matrix["params"][0])
        homes.add(home)
        rows.append(Row(str(matrix["name"]), layer.name, home, str(matrix["kind"]), tuple(matrix["shape"])))
    for param in layer.spec.get("params", ()):
        if param["name"] not in homes:
            rows.append(Row(param["name"], layer.name, param["name"], param["role"], shapes[param["name"]]))
    return rows or [Row(layer.name, layer.name, None, layer.kind, None)]


def _called(name: str) -> str | None:
    """The layer of which this is a further call within one forward pass, such as `relu` of `relu@2`."""
    layer, _, number = name.rpartition("@")
    return layer if number.isdigit() and "@" in name else None


def _homes(rows: list[Row]) -> dict[tuple[str, str], Row]:
    """The row in which a quantity of a layer, matrix or param stands."""
    homes: dict[tuple[str, str], Row] = {}
    for row in rows:
        homes.setdefault(("layer", row.layer), row)
        homes.setdefault(("matrix", row.name), row)
        if row.tensor is not None:
            homes.setdefault(("param", row.tensor), row)
    return homes


def _coverage(coverage: Sequence[Coverage]) -> dict[tuple[str, str], list[Coverage]]:
    found: dict[tuple[str, str], list[Coverage]] = {}
    for entry in coverage:
        found.setdefault((entry.layer, entry.param or ""), []).append(entry)
    return found


def _set_status(row: Row, coverage: dict[tuple[str, str], list[Coverage]], reasons: dict[str, str]) -> None:
    entries = coverage.get((row.layer, row.tensor or ""), [])
    failed = [f"{entry.instrument}: {entry.reason}" for entry in entries if entry.status == "failed"]
    if row.cells or any(entry.status == "measured" for entry in entries):
        row.status, row.reason = "measured", "; ".join(dict.fromkeys(failed))
        return
    row.status = next((s for s in WORST_FIRST if any(entry.status == s for entry in entries)), "not_applicable")
    why = Counter(entry.reason for entry in entries if entry.status == row.status and entry.reason)
    known = reasons.get(row.tensor or "", "")
    told = [reason for reason, _ in why.most_common(2)]
    row.reason = "; ".join(failed) or known or "; ".join(told) or "no instrument looked at it"


def _reason_of(param: dict[str, Any]) -> str:
    """What is known of a param itself that keeps instruments from measuring it."""
    if param.get("reason"):
        return str(param["reason"])
    if param.get("same_as"):
        return f"the same tensor as {param['same_as']}, which is measured once"
    return "a running statistic, not a trained weight" if param.get("role") == "statistic" else ""
