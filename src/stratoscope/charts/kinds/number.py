"""A single number: a scalar that was measured once, or a quantity that is the same everywhere."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stratoscope.charts.numbers import format_number, unit_text
from stratoscope.charts.values import Axis, Chart, Number
from stratoscope.charts.variable import Variable


def matches(variable: Variable) -> bool:
    """One value in all, or one for each split, or the same value everywhere."""
    scalar = not variable.dims and not any(variable.several_steps(split) for split in range(len(variable.splits)))
    lone = len(variable.dims) == 1 and not variable.ragged and len(variable.names) == 1
    once = not any(variable.several_steps(split) for split in range(len(variable.splits)))
    return scalar or variable.same_everywhere or (lone and once)


def build(variable: Variable) -> Iterator[Chart]:
    """One chart with a number for each split."""
    numbers = _numbers(variable)
    said = ", ".join(f"{number.name} {_said(number, variable)}".strip() for number in numbers)
    everywhere = variable.same_everywhere and variable.measured.sum() > len(numbers)
    same = "" if not everywhere else ", the same everywhere" if len(numbers) == 1 else ", the same throughout"
    yield Chart(
        id=f"{variable.instrument}-{variable.name}-number",
        kind="number",
        title=variable.title,
        caption=f"{said}{same}.",
        instrument=variable.instrument,
        variable=variable.name,
        units=variable.units,
        source=variable.source,
        x=Axis("", ""),
        y=variable.axis,
        marks=tuple(numbers),
    )


def _numbers(variable: Variable) -> list[Number]:
    there = variable.values[variable.measured]
    if variable.same_everywhere and variable.dims and bool((there == there.flat[0]).all()):
        return [Number("", float(there.flat[0]))]
    ends = variable.ends()
    found: list[Number] = []
    for place, split in enumerate(variable.splits):
        last = variable.last(place)
        if last is not None:
            around = (None, None) if ends is None or variable.dims else [float(end[last, place]) for end in ends]
            found.append(Number(split, _first(variable, last, place), *around))
    return found


def _first(variable: Variable, step: int, split: int) -> float:
    """The first measured value at a step."""
    return float(variable.values[step, split][variable.measured[step, split]].flat[0])


def _said(number: Number, variable: Variable) -> str:
    if variable.meanings and np.isfinite(number.value):
        return variable.meanings[int(number.value)]
    text = f"{format_number(number.value)} {unit_text(variable.units)}".strip()
    if number.low is None or number.high is None:
        return text
    return f"{text} ({format_number(number.low)} to {format_number(number.high)})"
