"""Where numbers lie on the canvas: scales, limits and margins of a chart."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from stratoscope.charts.numbers import format_number, linear_ticks, log_ticks, short_names
from stratoscope.charts.values import Axis, Band, Boxes, Cells, Chart, Dots, FloatArray, Line, Rule

WIDTH = 400
"""Width of the canvas; text is 12 high, so that a third of a page and a phone both show it legibly."""

LETTER = 6.9
"""Width that a letter takes on average."""

NAME_LETTERS, SLANTED_LETTERS = 16, 13
SLANT = (0.766, 0.643)
"""Width and height of a slanted name, over its length."""

LABEL_GAP = 13.0
ROW = 14.0
MAP_HEIGHT = (56.0, 330.0)


@dataclass(frozen=True)
class Ruler:
    """Maps numbers to places on the canvas.

    Attributes:
        low: number at `start`.
        high: number at `stop`.
        start: place of `low`.
        stop: place of `high`.
        log: whether the scale is logarithmic.
    """

    low: float
    high: float
    start: float
    stop: float
    log: bool = False

    def __call__(self, values: FloatArray | float) -> FloatArray:
        """Places; on a logarithmic scale, numbers at or below zero lie at the low end."""
        numbers = np.asarray(values, dtype=np.float64)
        low, high = self.low, self.high
        if self.log:
            numbers = np.where(numbers > 0, numbers, low)
            numbers, low, high = np.log10(numbers), math.log10(low), math.log10(high)
        share = (numbers - low) / (high - low)
        return np.asarray(self.start + np.clip(share, -0.02, 1.02) * (self.stop - self.start), dtype=np.float64)

    def ticks(self, about: int) -> list[tuple[float, str]]:
        """Round numbers with their text."""
        places = (log_ticks if self.log else linear_ticks)(self.low, self.high, about)
        if len(places) > 1 and not self.log:
            return [(tick, _even(tick, places)) for tick in places]
        return [(tick, format_number(tick)) for tick in places]


@dataclass(frozen=True)
class Frame:
    """The inside of a chart on its canvas.

    Attributes:
        x: ruler along the bottom.
        y: ruler along the left side; numbers rise upwards, categories of `Cells` run downwards.
        height: of the whole canvas.
        x_names: short names along the bottom, for a category axis.
        y_names: short names along the left side, for a category axis.
        slant: whether the names along the bottom are slanted.
    """

    x: Ruler
    y: Ruler
    height: float
    x_names: tuple[str, ...] = ()
    y_names: tuple[str, ...] = ()
    slant: bool = False

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of the inside."""
        return self.x.start, min(self.y.start, self.y.stop), self.x.stop, max(self.y.start, self.y.stop)


def frame_of(chart: Chart, top: float = 10.0) -> Frame:
    """Lay a chart out.

    Args:
        chart: the chart.
        top: space above it.
    """
    cells = any(isinstance(mark, Cells) for mark in chart.marks)
    y_names = tuple(short_names(chart.y.labels, NAME_LETTERS)) if chart.y.scale == "category" else ()
    left = _left(chart, y_names)
    right = WIDTH - (46.0 if cells and chart.colour and chart.colour.scale != "category" else _right(chart, cells=cells))
    x_names = tuple(short_names(chart.x.labels, SLANTED_LETTERS)) if chart.x.scale == "category" else ()
    longest = LETTER * max(map(len, x_names), default=0)
    room = (right - left) / max(len(x_names), 1)
    slant = bool(x_names) and longest + 6 > room * _every(x_names, right - left)
    if slant:  # the first name must not leave the canvas
        left = max(left, SLANT[0] * longest + 8 - room / 2)
    low_side = 32.0 + (SLANT[1] * longest if slant else 0.0)
    inside = min(max(len(y_names) * ROW, MAP_HEIGHT[0]), MAP_HEIGHT[1]) if cells else 160.0
    bottom = top + inside
    x = _x_ruler(chart, left, right)
    if cells:
        return Frame(x, Ruler(-0.5, len(y_names) - 0.5, top, bottom), bottom + low_side, x_names, y_names, slant)
    low, high, log = limits(chart)
    return Frame(x, Ruler(low, high, bottom, top, log), bottom + low_side, x_names, y_names, slant)


def shown_names(names: tuple[str, ...], length: float, *, slanted: bool = False) -> list[int]:
    """Which of the names along an axis have room."""
    if not names:
        return []
    need = LABEL_GAP if slanted else max(map(len, names)) * LETTER + 8
    stride = max(1, math.ceil(need * len(names) / length))
    return list(range(0, len(names), stride))


def limits(chart: Chart) -> tuple[float, float, bool]:
    """Lowest and highest number on the vertical axis, and whether it is logarithmic."""
    if chart.y.scale == "category":
        return -0.5, len(chart.y.labels) - 0.5, False
    values = np.concatenate([np.ravel(part) for part in _heights(chart)] or [np.empty(0)])
    values = values[np.isfinite(values)]
    return _range(values, chart.y)


def colour_limits(chart: Chart, values: FloatArray) -> tuple[float, float, bool]:
    """Lowest and highest number on the colour axis, and whether it is logarithmic."""
    axis = chart.colour or Axis("")
    finite = values[np.isfinite(values)]
    log = axis.scale == "log" and bool((finite > 0).any())
    finite = finite[finite > 0] if log else finite
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    if low == high:
        low, high = (low / 2, high * 2) if log else (low - 0.5, high + 0.5)
    return low, high, log


def _range(values: FloatArray, axis: Axis) -> tuple[float, float, bool]:
    positive = values[values > 0]
    if axis.scale == "log" and len(positive):
        low, high = float(positive.min()), float(positive.max())
        pad = (high / low) ** 0.05 if high > low else 2.0
        return low / pad, high * pad, True
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    span = high - low or abs(high) or 1.0
    natural_low, natural_high = axis.low, axis.high
    low, high = low - 0.06 * span, high + 0.06 * span
    if natural_low is not None and low < natural_low + 0.3 * span:
        low = natural_low
    if natural_high is not None and high > natural_high - 0.3 * span:
        high = natural_high
    return low, high if high > low else low + span, False


def _heights(chart: Chart) -> Iterator[FloatArray]:
    """The numbers that must fit on the vertical axis; a wide interval may leave it, a curve may not."""
    for mark in chart.marks:
        if isinstance(mark, Line | Dots):
            yield mark.y
        elif isinstance(mark, Band):
            yield from (mark.low, mark.high)
        elif isinstance(mark, Boxes):
            yield mark.quantiles
        elif isinstance(mark, Rule):
            yield np.array([mark.value])


def _x_ruler(chart: Chart, left: float, right: float) -> Ruler:
    if chart.x.scale == "category":
        return Ruler(-0.5, len(chart.x.labels) - 0.5, left, right)
    places = [mark.x for mark in chart.marks if isinstance(mark, Line | Dots | Band) and len(mark.x)]
    low, high = (min(p.min() for p in places), max(p.max() for p in places)) if places else (0.0, 1.0)
    return Ruler(float(low), float(high) if high > low else float(low) + 1.0, left, right)


def _left(chart: Chart, names: tuple[str, ...]) -> float:
    if names:
        return 12.0 + LETTER * max(map(len, names), default=1)
    low, high, log = limits(chart)
    texts = [text for _, text in Ruler(low, high, 0, 1, log).ticks(5)]
    return 14.0 + LETTER * max(map(len, texts), default=1)


def _right(chart: Chart, *, cells: bool) -> float:
    if cells or len(chart.series) < 2:
        return 12.0
    return 16.0 + LETTER * max(map(len, short_names(chart.series, NAME_LETTERS)))


def _every(names: tuple[str, ...], length: float) -> int:
    """How many names share the room of one label, where numbers may be left out but layers should not."""
    return math.ceil(len(names) * (max(map(len, names)) * LETTER + 8) / length) if _counts(names) else 1


def _counts(names: tuple[str, ...]) -> bool:
    return all(name.replace(",", "").replace(".", "").lstrip("-").isdigit() for name in names)


def _even(tick: float, ticks: list[float]) -> str:
    """A tick with as many decimals as its neighbours need."""
    size = max(abs(ticks[0]), abs(ticks[-1]))
    step = ticks[1] - ticks[0]
    if size >= 1e5 or size < 1e-3:
        return format_number(tick)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    if not float(f"{step:.{decimals}f}") == round(step, 12):
        decimals += 1
    return f"{tick:,.{decimals}f}"
