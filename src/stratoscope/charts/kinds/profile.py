"""Along depth: a value for each layer (or param, matrix, class, ...) at the last measured step."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from stratoscope.charts.numbers import format_number
from stratoscope.charts.values import Axis, Band, Chart, Dots, FloatArray, Line, Mark, Rule
from stratoscope.charts.variable import Variable


def matches(variable: Variable) -> bool:
    """A value a place, at least two places; categories over time are a heat map instead."""
    over_time = bool(variable.meanings) and any(variable.step_count(split) > 2 for split in range(len(variable.splits)))
    return (
        not variable.ragged
        and len(variable.dims) == 1
        and len(variable.names) > 1
        and not variable.same_everywhere
        and not over_time
    )


def build(variable: Variable) -> Iterator[Chart]:
    """One chart; a series for each split, and the first step of the first split behind it."""
    marks: list[Mark] = []
    series: list[str] = []
    for place, split in enumerate(variable.splits):
        last = variable.last(place)
        if last is not None:
            series.append(split or _step_name(variable, last))
            marks += _series(variable, place, last, len(series) - 1)
    rules, curves = _references(variable)
    for name, there, values in _first_step(variable) + curves:
        series.append(", ".join(part for part in (variable.splits[0], name) if part))
        marks.insert(0, Line(len(series) - 1, _places(variable)[there], values[there], "reference"))
    yield Chart(
        id=f"{variable.instrument}-{variable.name}-depth",
        kind="profile",
        title=variable.title,
        caption=_caption(variable),
        instrument=variable.instrument,
        variable=variable.name,
        units=variable.units,
        source=variable.source,
        x=Axis(variable.place, "", "category", variable.names),
        y=variable.axis,
        marks=(*marks, *rules),
        series=tuple(series),
    )


def _step_name(variable: Variable, position: int) -> str:
    return f"step {variable.steps[position]:,}"


def _places(variable: Variable) -> FloatArray:
    return np.arange(len(variable.names), dtype=np.float64)


def _series(variable: Variable, split: int, last: int, number: int) -> list[Mark]:
    there = variable.measured[last, split]
    x, y = _places(variable)[there], variable.values[last, split][there]
    marks: list[Mark] = []
    ends = variable.ends()
    if ends is not None:
        marks.append(Band(number, x, ends[0][last, split][there], ends[1][last, split][there]))
    if not variable.meanings:
        marks.append(Line(number, x, y))
    return [*marks, Dots(number, x, y)]


Reference = tuple[str, NDArray[np.bool_], FloatArray]
"""A curve to compare with: its name, where it was measured, its values."""


def _first_step(variable: Variable) -> list[Reference]:
    """The first measured step of the first split, to compare with."""
    if variable.meanings or not variable.several_steps(0):
        return []
    first = int(np.flatnonzero(variable.measured[:, 0].any(axis=1))[0])
    return [(_step_name(variable, first), variable.measured[first, 0], variable.values[first, 0])]


def _references(variable: Variable) -> tuple[list[Rule], list[Reference]]:
    """Floors and the like, of the first split: a rule where they are one number, else a curve.

    They come from companions and from the attributes `floor` and `ceiling`.
    """
    rules, curves = [], []
    last = variable.last(0)
    for name, values in variable.references().items() if last is not None else ():
        at = values[last, 0]
        finite = at[np.isfinite(at)]
        if len(finite) and np.allclose(finite, finite[0]):
            alike = np.allclose(values[np.isfinite(values)], finite[0])
            rules.append(Rule(name if alike else f"{name} ({variable.splits[0]})", float(finite[0])))
        elif len(finite):
            curves.append((name, variable.measured[last, 0], at))
    said = [(name, variable.attrs[name]) for name in ("floor", "ceiling") if name in variable.attrs]
    return rules + [Rule(name, float(value)) for name, value in said], curves


def _caption(variable: Variable) -> str:
    last = variable.last(0)
    step = "" if last is None or not variable.several_steps(0) else f" at step {variable.steps[last]:,}"
    order = ", from input to output" if variable.place in ("layer", "param", "matrix") else ""
    said = [_said(variable, place) for place in range(len(variable.splits))]
    if len(said) > 1:
        said = [f"{split}: {text[:1].lower()}{text[1:]}" for split, text in zip(variable.splits, said, strict=True)]
    return " ".join([f"Each {variable.place}{step}{order}.", *said]).strip()


def _said(variable: Variable, split: int) -> str:
    """What there is to see on one split."""
    last = variable.last(split)
    if last is None:
        return "Nothing was measured."
    values = np.where(variable.measured[last, split], variable.values[last, split], np.nan)
    if not np.isfinite(values).any():
        return "No value is finite."
    if variable.meanings:
        counts = [(int((values == place).sum()), meaning) for place, meaning in enumerate(variable.meanings)]
        return ", ".join(f"{count} {meaning}" for count, meaning in counts if count) + "."
    finite = np.where(np.isfinite(values), values, np.nan)
    low, high = int(np.nanargmin(finite)), int(np.nanargmax(finite))
    if finite[low] == finite[high]:
        return f"All are at {format_number(values[low])}."
    return (
        f"Highest at {variable.names[high]} ({format_number(values[high])}), "
        f"lowest at {variable.names[low]} ({format_number(values[low])})."
    )
