"""Tables of comma-separated values as columns of numbers."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64
from numpy.typing import NDArray

from stratoscope.errors import DataError
from stratoscope.network.readers.limits import MAX_BYTES, existing, read_all

MISSING = frozenset({"", "?", "na", "n/a", "nan", "null", "none"})
"""Cells, in lower case, that say that a value is missing."""

LABEL_NAMES = ("label", "labels", "class", "target", "targets", "y")
"""Names under which a column of labels is recognised."""


@dataclass(frozen=True)
class Table:
    """Columns of equal length.

    Attributes:
        columns: by name, in the order of the file: float64, where a missing value is NaN; for a column of words, int64
            codes, where a missing one is -1.
        categories: for each column of words, the words that its codes stand for, sorted.
        missing: for each column that lacks some, how many.
    """

    columns: Mapping[str, NDArray[Any]]
    categories: Mapping[str, tuple[str, ...]]
    missing: Mapping[str, int]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def label_name(self) -> str | None:
        """The column that holds the labels, by its name; `None` if no column is called so."""
        by_name = {name.lower(): name for name in self.columns}
        return next((by_name[name] for name in LABEL_NAMES if name in by_name), None)

    def without_missing(self) -> Table:
        """The rows in which nothing is missing."""
        kept = np.ones(len(self), dtype=bool)
        for name, column in self.columns.items():
            kept &= column >= 0 if name in self.categories else ~np.isnan(column)
        return Table({name: column[kept] for name, column in self.columns.items()}, self.categories, {})

    def matrix(self, leave_out: Sequence[str] = ()) -> Float64[np.ndarray, "rows columns"]:
        """The columns side by side, codes as numbers and a missing code as NaN."""
        chosen = [
            np.where(column < 0, np.nan, column) if name in self.categories else column
            for name, column in self.columns.items()
            if name not in leave_out
        ]
        if not chosen:
            raise DataError(f"The table has no columns but {', '.join(self.columns)}, so there are no inputs.")
        return np.stack(chosen, axis=1).astype(np.float64)

    def labels(self, name: str) -> NDArray[Any]:
        """A column as labels: codes or whole numbers as int64, anything else as it is.

        Raises:
            DataError: if there is no such column, or a label is missing.
        """
        if name not in self.columns:
            raise DataError(f"There is no column {name!r}; the table has {', '.join(self.columns)}.")
        if name in self.missing:
            raise DataError(f"{self.missing[name]} labels are missing in column {name!r}; drop those rows first.")
        column = self.columns[name]
        return column.astype(np.int64) if name in self.categories or (column == np.round(column)).all() else column


def read_csv(
    path: str | Path, *, delimiter: str = ",", header: bool | None = None, max_bytes: int = MAX_BYTES
) -> Table:
    """Read a table of comma-separated values, plain or gzip.

    A column whose present cells are all numbers is one of numbers; any other is coded by its sorted words. Empty cells
    and `?`, `NA`, `NaN`, `null`, `none` are missing. Blank lines are passed over.

    Args:
        path: the file, in UTF-8.
        delimiter: between cells.
        header: whether the first line names the columns; by default it does if no cell of it is a number. Without
            names columns are called `column_0` and so on.
        max_bytes: refuse to unpack more than this.

    Raises:
        DataError: if it is empty, rows differ in length, a name comes twice, or it is no text.
    """
    path = existing(path)
    rows = _rows(path, read_all(path, max_bytes), delimiter)
    first = rows[0][1]
    named = header if header is not None else not any(_number(cell) is not None for cell in first)
    names = [cell.strip() for cell in first] if named else [f"column_{i}" for i in range(len(first))]
    body = rows[1:] if named else rows
    if len(set(names)) < len(names):
        raise DataError(f"{path} names a column twice: {', '.join(names)}.")
    if not body:
        raise DataError(f"{path} has a header and no rows.")
    for line, row in body:
        if len(row) != len(names):
            raise DataError(f"{path} has {len(names)} columns and {len(row)} cells in line {line}.")
    columns, categories, missing = {}, {}, {}
    for at, name in enumerate(names):
        cells = [row[at].strip() for _, row in body]
        columns[name], words = _column(cells)
        if words is not None:
            categories[name] = words
        lacking = sum(cell.lower() in MISSING for cell in cells)
        if lacking:
            missing[name] = lacking
    return Table(columns, categories, missing)


def _rows(path: Path, content: bytes, delimiter: str) -> list[tuple[int, list[str]]]:
    """Lines that are not blank, with their numbers."""
    try:
        reader = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), delimiter=delimiter, strict=True)
        rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row) or len(row) > 1]
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no text in UTF-8: {error}.") from error
    except (csv.Error, TypeError) as error:
        raise DataError(f"{path} is no table: {error}.") from error
    if not rows:
        raise DataError(f"{path} is empty.")
    return rows


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def _column(cells: list[str]) -> tuple[NDArray[Any], tuple[str, ...] | None]:
    present = [cell for cell in cells if cell.lower() not in MISSING]
    if all(_number(cell) is not None for cell in present):
        return np.array([np.nan if cell.lower() in MISSING else float(cell) for cell in cells]), None
    words = tuple(sorted(set(present)))
    code = {word: i for i, word in enumerate(words)}
    return np.array([code.get(cell, -1) for cell in cells], dtype=np.int64), words
