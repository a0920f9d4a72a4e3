"""From a record to charts: every variable is offered to every kind of chart."""

from __future__ import annotations

import pkgutil
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache, partial
from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

import stratoscope.charts.kinds as home
from stratoscope.charts.values import Chart
from stratoscope.charts.variable import Variable, Variables, variables_of

if TYPE_CHECKING:
    from stratoscope.record.record import Record


class Kind(Protocol):
    """What a file in `stratoscope.charts.kinds` offers."""

    @staticmethod
    def matches(variable: Variable) -> bool:
        """Whether this kind has something to show of a variable."""

    @staticmethod
    def build(variable: Variable) -> Iterator[Chart]:
        """The charts."""


@cache
def kinds() -> dict[str, Kind]:
    """Every kind of chart by the name of its file, in that order."""
    modules = sorted(pkgutil.iter_modules(home.__path__), key=lambda module: module.name)
    return {module.name: cast(Kind, import_module(f"{home.__name__}.{module.name}")) for module in modules}


def charts_of(record: Record, variables: Variables | None = None) -> list[Chart]:
    """Every picture that a record holds, instrument by instrument, in the order in which they were measured.

    Variables say `chart="none"` to stay out, or name the only kind of chart that is to show them; ends of intervals
    (`x_low`, `x_high`, `x_se`) and references (`x_floor`, `x_ceiling`, `x_null`) are drawn with `x`. What no kind of chart
    can show is in the record and in no chart.

    Args:
        record: a record, finished or still being written.
        variables: reads its variables, for who has read them already.

    Returns:
        Charts with unique ids.
    """
    found: dict[str, Chart] = {}
    for key in record:
        for chart in _charts_of_group((variables or partial(variables_of, record))(key)):
            name = _slug(chart.id)
            unique = next(text for text in _numbered(name) if text not in found)
            found[unique] = replace(chart, id=unique)
    return list(found.values())


def _charts_of_group(variables: Mapping[str, Variable]) -> Iterator[Chart]:
    for variable in variables.values():
        if variable.attrs.get("chart") == "none" or variable.companion_of or not variable.measured.any():
            continue
        for name, kind in kinds().items():
            if variable.attrs.get("chart", name) == name and kind.matches(variable):
                yield from kind.build(variable)


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "chart"


def _numbered(name: str) -> Iterator[str]:
    yield name
    number = 2
    while True:
        yield f"{name}-{number}"
        number += 1
