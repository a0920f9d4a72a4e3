"""Layers against layers as colours, from input to output: which say the same, and where a network changes its mind."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stratoscope.charts.numbers import format_number
from stratoscope.charts.values import Axis, Cells, Chart, FloatArray
from stratoscope.charts.variable import SECOND, Variable


def matches(variable: Variable) -> bool:
    """A table of layers against layers, of one network or of two."""
    return len(variable.dims) == 2 and variable.dims[1] == SECOND and not variable.meanings


def build(variable: Variable) -> Iterator[Chart]:
    """One chart for each split, at the last measured step."""
    for place, split in enumerate(variable.splits):
        last = variable.last(place)
        if last is not None:
            yield _chart(variable, place, last, split or None)


def _chart(variable: Variable, place: int, last: int, split: str | None) -> Chart:
    rows, columns, table = _different(variable, np.where(
        variable.measured[last, place], variable.values[last, place], np.nan
    ))  # fmt: skip
    one_network = rows == columns
    return Chart(
        id=f"{variable.instrument}-{variable.name}-similarity-{split or ''}",
        kind="similarity",
        title=variable.title,
        caption=_caption(variable, place, last, split, table, (rows, columns)),
        instrument=variable.instrument,
        variable=variable.name,
        units=variable.units,
        source=variable.source,
        x=Axis("layer" if one_network else "layer of the other network", "", "category", columns),
        y=Axis("layer", "", "category", rows),
        marks=(Cells(table),),
        colour=variable.axis,
        split=split,
    )


def _different(variable: Variable, table: FloatArray) -> tuple[tuple[str, ...], tuple[str, ...], FloatArray]:
    """Without layers that were not measured, and without those that hand on what the layer before them gave."""
    names = [tuple(map(str, labels)) for labels in variable.labels]
    if set(names[0]) == set(names[1]):  # one network, or two of one kind: both in the same order
        table = table[:, [names[1].index(name) for name in names[0]]]
        names[1] = names[0]
    kept = [_own(table), _own(table.T)]
    if names[0] == names[1]:
        kept[1] = kept[0]
    rows, columns = (tuple(along[at] for at in places) for along, places in zip(names, kept, strict=True))
    return rows, columns, table[np.ix_(kept[0], kept[1])]


def _own(table: FloatArray) -> list[int]:
    """Rows that hold a number and are not, to the last digit, the row before."""
    kept: list[int] = []
    for place, row in enumerate(table):
        if np.isfinite(row).any() and not (kept and np.array_equal(row, table[kept[-1]], equal_nan=True)):
            kept.append(place)
    return kept


def _caption(
    variable: Variable,
    place: int,
    last: int,
    split: str | None,
    table: FloatArray,
    names: tuple[tuple[str, ...], tuple[str, ...]],
) -> str:
    rows, columns = names
    where = (f" on {split}" if split else "") + (
        f" at step {variable.steps[last]:,}" if variable.several_steps(place) else ""
    )
    if not np.isfinite(table).any():
        return f"{len(rows)} layers by {len(columns)} layers{where}. No value is finite."
    if rows != columns:
        best = np.unravel_index(int(np.nanargmax(table)), table.shape)
        closest = np.nanmax(np.where(np.isfinite(table), table, -np.inf), axis=1)
        middle = format_number(np.median(closest[np.isfinite(closest)]))
        return (
            f"{len(rows)} layers by {len(columns)} layers of the other network{where}, from input to output. A layer and "
            f"its closest one read {middle} in the middle; the closest pair is {rows[best[0]]} and {columns[best[1]]} "
            f"({format_number(table[best])})."
        )
    text = f"{len(rows)} layers that give something of their own{where}, from input to output."
    steps = np.diagonal(table, 1)
    if not np.isfinite(steps).any():
        return text
    least = int(np.nanargmin(steps))
    return (
        f"{text} A layer and the one before read {format_number(np.nanmedian(steps))} in the middle, least at "
        f"{rows[least + 1]} ({format_number(steps[least])}); first and last layer {format_number(table[0, -1])}."
    )
