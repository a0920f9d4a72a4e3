"""A single number: a scalar that was measured once, or a quantity that is the same everywhere."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stratoscope.charts.numbers import format_number, unit_text
from stratoscope.charts.values import Axis, Chart, Mark, Number
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
    yield Chart(
        id=f"{variable.instrument}-{variable.name}-number",
        kind="number",
        title=variable.title,
        caption=f"{said}{', the same everywhere' if everywhere else ''}.",
        instrument=variable.instrument,
        variable=variable.name,
        units=variable.units,
        source=variable.source,
        x=Axis("", ""),
        y=variable.axis,
        marks=tuple(numbers),
    )


def _numbers(variable: Variable) -> list[Mark]:
    if variable.same_everywhere:
        return [Number("", float(variable.values[variable.measured].flat[0]))]
    ends = variable.ends()
    found: list[Mark] = []
    for place, split in enumerate(variable.splits):
        last = variable.last(place)
        if last is not None:
            around = (None, None) if ends is None else tuple(float(end[last, place].flat[0]) for end in ends)
            found.append(Number(split, float(variable.values[last, place].flat[0]), *around))
    return found


def _said(number: Mark, variable: Variable) -> str:
    assert isinstance(number, Number)
    if variable.meanings and np.isfinite(number.value):
        return variable.meanings[int(number.value)]
    text = f"{format_number(number.value)} {unit_text(variable.units)}".strip()
    if number.low is None or number.high is None:
        return text
    return f"{text} ({format_number(number.low)} to {format_number(number.high)})"
