"""Variables as long tables: one row a number, every label a plain column."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stratoscope.record.axis import levels
from stratoscope.record.labelled import columns
from stratoscope.record.variables import Variable

if TYPE_CHECKING:
    from stratoscope.record.record import Record

Table = dict[str, NDArray[Any]]


def long_table(variable: Variable) -> Table:
    """One row for each number that was measured: its labels, and `value`.

    Stacked dims give a column for each of their parts, such as `layer` and `unit`.
    """
    rows = np.nonzero(np.atleast_1d(variable.measured))
    table: Table = {}
    for dim, axis, places in zip(variable.dims, variable.axes, rows, strict=False):
        names = levels(dim, axis.depth, variable.dims) if axis.depth > 1 else (dim,)
        for name, labels in zip(names, columns(axis), strict=True):
            table[name if name != "value" else "value_"] = labels[places]
    table["value"] = np.atleast_1d(variable.values)[rows]
    return table


def plain_tables(record: Record) -> dict[str, Table]:
    """Findings, coverage, layers and edges as tables."""
    from stratoscope.record.values import to_json

    findings = record.findings
    tables = {
        "findings": {
            **{key: _column(getattr(f, key) for f in findings) for key in ("code", "instrument", "layer", "step")},
            "outcome": _column(str(f.outcome) for f in findings),
            **{key: _column(getattr(f, key) for f in findings) for key in ("says", "do")},
            "evidence": _column(to_json(dict(f.evidence), "evidence") for f in findings),
            **{key: _column(getattr(f, key) for f in findings) for key in ("source", "split")},
        }
    }
    coverage, layers, edges = record.coverage(), record.layers, record.edges
    fields = ("instrument", "label", "layer", "param", "split", "step", "status", "reason")
    tables["coverage"] = {key: _column(getattr(row, key) for row in coverage) for key in fields}
    tables["layers"] = {
        key: _column(getattr(row, key) for row in layers) for key in ("name", "kind", "depth", "n_params", "parent")
    }
    tables["edges"] = {key: _column(getattr(row, key) for row in edges) for key in ("src", "dst", "kind")}
    return tables


def file_names(keys: list[str]) -> dict[str, str]:
    """A different file name for each key, with nothing in it that a file system or shell minds.

    >>> file_names(["units:a/b", "units:a b"])
    {'units:a/b': 'units-a-b', 'units:a b': 'units-a-b-2'}
    """
    names: dict[str, str] = {}
    used: set[str] = set()
    for key in keys:
        stem = re.sub(r"[^A-Za-z0-9_.-]", "-", key).lstrip(".") or "-"
        name, count = stem, 2
        while name.lower() in used:
            name, count = f"{stem}-{count}", count + 1
        used.add(name.lower())
        names[key] = name
    return names


def _column(values: Any) -> NDArray[Any]:
    listed = list(values)
    column = np.empty(len(listed), dtype=object)
    column[:] = listed
    return column
