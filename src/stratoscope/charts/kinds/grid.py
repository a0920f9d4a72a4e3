"""Two further axes as colours at the last measured step: layer by class, layer by bin, ..."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stratoscope.charts.numbers import format_number
from stratoscope.charts.thin import kept_columns
from stratoscope.charts.values import Axis, Cells, Chart
from stratoscope.charts.variable import SECOND, Variable

COLUMNS = 240


def matches(variable: Variable) -> bool:
    """A table of values, neither of its axes stacked."""
    plain = not any(isinstance(label, tuple) for along in variable.labels for label in along[:1])
    pair = len(variable.dims) == 2 and variable.dims[1] == SECOND  # has a picture of its own
    return len(variable.dims) == 2 and plain and not pair and not variable.same_everywhere


def build(variable: Variable) -> Iterator[Chart]:
    """One chart for each split."""
    for place, split in enumerate(variable.splits):
        last = variable.last(place)
        if last is not None:
            yield _chart(variable, place, last, split or None)


def _chart(variable: Variable, split: int, last: int, name: str | None) -> Chart:
    table = np.where(variable.measured[last, split], variable.values[last, split], np.nan)
    table, columns = kept_columns(table, COLUMNS)
    across = variable.dims[1].split("_")[0]
    labels = tuple(_text(variable.labels[1][column]) for column in columns)
    return Chart(
        id=f"{variable.instrument}-{variable.name}-grid-{name or ''}",
        kind="grid",
        title=variable.title,
        caption=_caption(variable, split, last, name),
        instrument=variable.instrument,
        variable=variable.name,
        units=variable.units,
        source=variable.source,
        x=Axis(across, "", "category", labels),
        y=Axis(variable.place, "", "category", tuple(_text(label) for label in variable.labels[0])),
        marks=(Cells(table, variable.meanings),),
        colour=variable.axis,
        split=name,
    )


def _text(label: object) -> str:
    return format_number(label) if isinstance(label, float) else str(label)


def _caption(variable: Variable, split: int, last: int, name: str | None) -> str:
    where = f" on {name}" if name else ""
    step = f" at step {variable.steps[last]:,}" if variable.several_steps(split) else ""
    text = f"{variable.place.capitalize()} by {variable.dims[1].split('_')[0]}{where}{step}."
    there = variable.values[last, split][variable.measured[last, split]]
    finite = there[np.isfinite(there)]
    if variable.meanings or not len(finite):
        return text
    return f"{text} Values lie between {format_number(finite.min())} and {format_number(finite.max())}."
