"""Layer by step as colours: for more layers than lines can show, and for categories such as the phase of training."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stratoscope.charts.kinds.lines import MOST
from stratoscope.charts.numbers import format_number
from stratoscope.charts.thin import kept_columns
from stratoscope.charts.values import Axis, Cells, Chart
from stratoscope.charts.variable import Variable

COLUMNS = 240
"""More steps than this share columns; a column shows the value that stands out most."""
FEWEST = 5
"""Fewer steps than this make no map of quantities; a profile compares the first and the last."""


def matches(variable: Variable) -> bool:
    """Several steps of many places, or of categories."""
    return (
        not variable.ragged
        and len(variable.dims) <= 1
        and (bool(variable.meanings) or (len(variable.names) > MOST and not variable.same_everywhere))
        and any(variable.step_count(split) >= _fewest(variable) for split in range(len(variable.splits)))
    )


def build(variable: Variable) -> Iterator[Chart]:
    """One chart for each split."""
    for place, split in enumerate(variable.splits):
        if variable.step_count(place) >= _fewest(variable):
            yield _chart(variable, place, split or None)


def _fewest(variable: Variable) -> int:
    """Categories have no other picture over time."""
    return 3 if variable.meanings else FEWEST


def _chart(variable: Variable, place: int, split: str | None) -> Chart:
    steps = len(variable.steps)
    measured = variable.measured[:, place].reshape(steps, -1)
    there = measured.any(axis=1)
    grid = np.where(measured, variable.values[:, place].reshape(steps, -1), np.nan)[there].T
    taken = np.asarray(variable.steps)[there]
    grid, columns = kept_columns(grid, COLUMNS)
    rows = variable.names or (variable.title,)
    return Chart(
        id=f"{variable.instrument}-{variable.name}-map-{split or ''}",
        kind="heatmap",
        title=variable.title,
        caption=_caption(variable, split, rows, taken.tolist(), len(columns)),
        instrument=variable.instrument,
        variable=variable.name,
        units=variable.units,
        source=variable.source,
        x=Axis("step", "", "category", tuple(f"{step:,}" for step in taken[columns])),
        y=Axis(variable.place, "", "category", rows),
        marks=(Cells(grid, variable.meanings),),
        colour=variable.axis,
        split=split,
    )


def _caption(variable: Variable, split: str | None, rows: tuple[str, ...], steps: list[int], columns: int) -> str:
    where = f"On {split}: " if split else ""
    across = (
        "one column for each measured step"
        if columns == len(steps)
        else f"{columns} columns for {len(steps):,} measured steps"
    )
    text = f"{where}{len(rows):,} row{'s' if len(rows) > 1 else ''}, {across} from {steps[0]:,} to {steps[-1]:,}."
    finite = variable.values[variable.measured & np.isfinite(variable.values)]
    if variable.meanings:
        seen = [meaning for place, meaning in enumerate(variable.meanings) if (finite == place).any()]
        return f"{text} Seen: {', '.join(seen) or 'nothing'}."
    if not len(finite):
        return f"{text} No value is finite."
    return f"{text} Values lie between {format_number(finite.min())} and {format_number(finite.max())}."
