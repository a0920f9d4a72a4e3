"""Charts as JSON-ready values, for the browser."""

from __future__ import annotations

import math
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from stratoscope.charts.values import Chart


def to_json(chart: Chart) -> dict[str, Any]:
    """A chart as plain dicts, lists, text and numbers, which `json.dumps(..., allow_nan=False)` takes.

    Each mark carries its type under `"mark"`. NaN and the infinities become null.

    >>> from stratoscope.charts.values import Axis, Rule
    >>> chart = Chart("a", "lines", "A", "", "i", "v", "1", "", Axis("x"), Axis("y"), (Rule("floor", float("nan")),))
    >>> to_json(chart)["marks"]
    [{'mark': 'rule', 'name': 'floor', 'value': None, 'upright': False}]
    """
    plain: dict[str, Any] = _plain(chart)
    plain["marks"] = [{"mark": type(mark).__name__.lower(), **_plain(mark)} for mark in chart.marks]
    return plain


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
