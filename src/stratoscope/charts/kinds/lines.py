"""Curves over training steps: one line a split, or one a layer where there are at most twelve."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from stratoscope.charts.numbers import format_number
from stratoscope.charts.values import Axis, Band, Chart, FloatArray, Line, Mark
from stratoscope.charts.variable import Variable

MOST = 12
"""More lines than this are shown as a heat map instead."""

DENSE = 100
"""A curve of more points is drawn as its running median, with every value thin behind it."""

WINDOW = 20
"""The running median looks at one part in so many of the curve."""


def matches(variable: Variable) -> bool:
    """A measured quantity at several steps, for the network or for a few places in it."""
    return (
        not variable.meanings
        and not variable.ragged
        and not variable.same_everywhere
        and len(variable.dims) <= 1
        and len(variable.names) <= MOST
        and any(_changes(variable, split) for split in range(len(variable.splits)))
    )


def build(variable: Variable) -> Iterator[Chart]:
    """One chart with a line a split, or for each split one with a line a place."""
    if not variable.dims:
        everything = np.swapaxes(variable.values, 0, 1), np.swapaxes(variable.measured, 0, 1)
        ends = variable.ends()
        around = None if ends is None else (ends[0].T, ends[1].T)
        names = tuple(split or variable.title for split in variable.splits)
        yield _chart(variable, None, names, *everything, around)
        return
    for place, split in enumerate(variable.splits):
        if _changes(variable, place):
            values, measured = variable.values[:, place].T, variable.measured[:, place].T
            yield _chart(variable, split or None, variable.names, values, measured, None)


def _changes(variable: Variable, split: int) -> bool:
    """Whether there is anything to see over time: several steps, and a place whose value is not always the same."""
    steps = len(variable.steps)
    values = variable.values[:, split].reshape(steps, -1).T
    measured = variable.measured[:, split].reshape(steps, -1)
    same = [_one_value(row[measured[:, place]]) for place, row in enumerate(values)]
    return variable.several_steps(split) and not all(same)


def _one_value(values: FloatArray) -> bool:
    return bool(np.isfinite(values).all()) and np.unique(values).size <= 1


def _chart(
    variable: Variable,
    split: str | None,
    names: tuple[str, ...],
    values: FloatArray,
    measured: NDArray[np.bool_],
    ends: tuple[FloatArray, FloatArray] | None,
) -> Chart:
    steps = np.asarray(variable.steps, dtype=np.float64)
    marks: list[Mark] = []
    for series in range(len(names)):
        there = measured[series]
        if ends is not None:
            marks.append(Band(series, steps[there], ends[0][series][there], ends[1][series][there]))
        marks += _curve(series, steps[there], values[series][there])
    marks.sort(key=lambda mark: isinstance(mark, Line) + (isinstance(mark, Line) and mark.role == "main"))
    return Chart(
        id=f"{variable.instrument}-{variable.name}-steps-{split or ''}",
        kind="lines",
        title=variable.title,
        caption=_caption(variable, split, names, values, measured),
        instrument=variable.instrument,
        variable=variable.name,
        units=variable.units,
        source=variable.source,
        x=Axis("step", ""),
        y=variable.axis,
        marks=tuple(marks),
        series=names,
        ordered=variable.place in ("layer", "param", "matrix"),
        split=split,
    )


def _curve(series: int, x: FloatArray, y: FloatArray) -> list[Line]:
    if len(x) <= DENSE:
        return [Line(series, x, y)]
    return [Line(series, x, y, "raw"), Line(series, x, running_median(y, window_of(len(y))))]


def window_of(points: int) -> int:
    """How many neighbours the running median looks at: odd, one part in `WINDOW` of the curve."""
    return max(points // WINDOW, 3) | 1


def running_median(values: FloatArray, window: int) -> FloatArray:
    """The median of each value and its neighbours; values that are not finite are left out and stay gaps themselves.

    Args:
        values: in order.
        window: odd number of values to look at; fewer at the ends.

    >>> running_median(np.array([1.0, 9.0, 2.0, 3.0]), 3).tolist()
    [5.0, 2.0, 3.0, 2.5]
    """
    half = window // 2
    finite = np.where(np.isfinite(values), values, np.nan)
    padded = np.concatenate([np.full(half, np.nan), finite, np.full(half, np.nan)])
    smooth = np.full(len(values), np.nan)
    there = np.flatnonzero(np.isfinite(values))
    smooth[there] = np.nanmedian(np.lib.stride_tricks.sliding_window_view(padded, window)[there], axis=1)
    return np.where(np.isfinite(values), smooth, values)


def _caption(
    variable: Variable, split: str | None, names: tuple[str, ...], values: FloatArray, measured: NDArray[np.bool_]
) -> str:
    steps = [variable.steps[place] for place in np.flatnonzero(np.any(measured, axis=0))]
    each = f", one line for each {variable.place}" if len(names) > 1 and variable.place else ""
    where = f"On {split}, steps" if split else "Steps"
    most = int(measured.sum(axis=1).max())
    smooth = f" Thick: running median over {window_of(most)} values; thin: every value." if most > DENSE else ""
    ends = [(value[there][-1], name) for name, value, there in zip(names, values, measured, strict=True) if there.any()]
    ends = sorted((end, name) for end, name in ends if np.isfinite(end))
    text = f"{where} {steps[0]:,} to {steps[-1]:,}{each}."
    if not ends:
        return f"{text} No value at the end is finite."
    if len(names) == 1:
        return f"{text} It ends at {format_number(ends[0][0])}.{smooth}"
    (low, lowest), (high, highest) = ends[0], ends[-1]
    if low == high:
        return f"{text} At the end all are at {format_number(high)}.{smooth}"
    said = f"At the end {highest} is highest ({format_number(high)}) and {lowest} lowest ({format_number(low)})."
    return f"{text} {said}{smooth}"
