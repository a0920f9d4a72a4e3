"""A plane of two measured quantities: each layer's way through it over the steps, such as the information plane.

A variable over layers says with the attribute `across` which variable of its group runs along the horizontal axis. The
interval of that one (`_low`, `_high`) is drawn as a band, its ceiling as an upright line. The attribute `bound` names two
variables of the group, places and heights of a curve that no layer can cross.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stratoscope.charts.numbers import format_number, unit_text
from stratoscope.charts.values import Axis, Chart, FloatArray, Line, Mark, Path, Rule, Span
from stratoscope.charts.variable import Variable


def matches(variable: Variable) -> bool:
    """A value a layer, or one a layer and label of a second dim, with another one like it to draw it across."""
    other = _across(variable)
    return (
        other is not None
        and len(variable.dims) in (1, 2)
        and not variable.ragged
        and other.values.shape == variable.values.shape
    )


def build(variable: Variable) -> Iterator[Chart]:
    """One chart a split, and one a label of the second dim where there is one."""
    if len(variable.dims) == 1:
        yield from _of_splits(variable, "", "")
        return
    for position, label in enumerate(variable.labels[1]):
        yield from _of_splits(variable.at(position), f"{variable.dims[1]} {label}", f"-{position}")


def _of_splits(variable: Variable, where: str, suffix: str) -> Iterator[Chart]:
    other = _across(variable)
    assert other is not None
    title = variable.attrs.get("plane") or f"{variable.title} against {other.title}"
    for place, split in enumerate(variable.splits):
        marks, names = _ways(variable, other, place)
        if not names:
            continue
        yield Chart(
            id="-".join([variable.instrument, variable.name, "plane", *([split] if split else [])]) + suffix,
            kind="plane",
            title=f"{title}, {where}" if where else title,
            caption=_caption(variable, other, place),
            instrument=variable.instrument,
            variable=variable.name,
            units=variable.units,
            source=variable.source,
            x=_axis(other),
            y=_axis(variable),
            marks=(*_rules(variable, other, place), *_bound(variable, place, len(names)), *marks),
            series=(*names, *(["the bound"] if _curve(variable, place) else [])),
            ordered=True,
            colour=Axis(variable.attrs.get("along", "step"), "1", "log" if _decades(variable.steps) else "linear"),
            split=split or None,
        )  # fmt: skip


def _across(variable: Variable) -> Variable | None:
    name = variable.attrs.get("across")
    return variable.companions.get(str(name)) if name else None


def _axis(variable: Variable) -> Axis:
    unit = unit_text(variable.units)
    return Axis(variable.title + (f", {unit}" if unit else ""), variable.units, "linear", (), 0.0)


def _decades(steps: tuple[int, ...]) -> bool:
    positive = [step for step in steps if step > 0]
    return len(positive) > 2 and positive[-1] > 30 * positive[0]


def _ways(variable: Variable, other: Variable, split: int) -> tuple[list[Mark], list[str]]:
    """Each layer's way, and its name; bands behind."""
    ends = other.ends()
    spans: list[Mark] = []
    ways: list[Mark] = []
    names: list[str] = []
    steps = np.array(variable.steps, dtype=np.float64)
    for place, name in enumerate(variable.names):
        there = variable.measured[:, split, place] & other.measured[:, split, place]
        x, y = other.values[there, split, place], variable.values[there, split, place]
        if not (np.isfinite(x) & np.isfinite(y)).any():
            continue
        if ends is not None:
            low, high = (end[there, split, place] for end in ends)
            spans.append(Span(len(names), y, np.minimum(low, high), np.maximum(low, high)))
        ways.append(Path(len(names), x, y, steps[there]))
        names.append(name)
    return [*spans, *ways], names


def _rules(variable: Variable, other: Variable, split: int) -> list[Rule]:
    """Ceilings and floors that are one number."""
    rules = []
    for one, upright in ((variable, False), (other, True)):
        for name, values in one.references().items():
            finite = values[:, split][np.isfinite(values[:, split])]
            if len(finite) and np.allclose(finite, finite[0]):
                rules.append(Rule(name, float(finite[0]), upright))
    return rules


def _curve(variable: Variable, split: int) -> tuple[FloatArray, FloatArray] | None:
    """Places and heights of the bound at the last step, ascending."""
    named = (variable.companions.get(str(name)) for name in variable.attrs.get("bound", ()))
    found = [one for one in named if one is not None]
    if len(found) != 2:
        return None
    parts = []
    for one in found:
        at = split if len(one.splits) > split else 0
        last = one.last(at)
        if last is None:
            return None
        # the same at every layer, where it is said of layers
        rows = one.values[last, at].reshape(-1, one.values.shape[-1])
        parts.append(next((row for row in rows if np.isfinite(row).any()), rows[0]))
    order = np.argsort(parts[0], kind="stable")
    return parts[0][order], parts[1][order]


def _bound(variable: Variable, split: int, series: int) -> Iterator[Mark]:
    curve = _curve(variable, split)
    if curve is not None:
        yield Line(series, *curve, "reference")


def _caption(variable: Variable, other: Variable, split: int) -> str:
    several = variable.several_steps(split)
    head = "Each layer's way over the steps; the dot is its end." if several else "Each layer."
    said = []
    for place, name in enumerate(variable.names):
        there = variable.measured[:, split, place] & np.isfinite(other.values[:, split, place])
        x, y = other.values[there, split, place], variable.values[there, split, place]
        if not len(x):
            continue
        ends = f"{format_number(x[-1])} across and {format_number(y[-1])} up"
        most = int(np.argmax(x))
        turn = f", after {format_number(x[most])} across at step {np.array(variable.steps)[there][most]:,}"
        said.append(f"{name} ends at {ends}{turn if several and 0 < most < len(x) - 1 else ''}")
    shown = said if len(said) <= 6 else [*said[:2], f"{len(said) - 4} more", *said[-2:]]
    return f"{head} {'; '.join(shown)}."
