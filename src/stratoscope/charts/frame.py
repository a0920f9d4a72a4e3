"""Where numbers lie on the canvas: scales, limits and margins of a chart."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from stratoscope.charts.numbers import format_number, linear_ticks, log_ticks, short_names
from stratoscope.charts.values import Axis, Band, Boxes, Cells, Chart, Dots, FloatArray, Line, Path, Rule, Span

WIDTH = 400
"""Width of the canvas; text is 12 high, so that a third of a page and a phone both show it legibly."""

LETTER = 6.9
"""Width that a letter takes on average."""

NAME_LETTERS, SLANTED_LETTERS = 16, 13
SLANTS = ((40, 18.7), (60, 14.0))
"""Degrees by which names along the bottom are slanted, and how far apart they must then be."""

LABEL_GAP = 13.0
ROW = 14.0
TICKS = 4
"""How many numbers stand beside an axis, about."""

MAP_HEIGHT = (56.0, 330.0)
STRIP_HEIGHT = (2.6, 13.0)
"""Least and most height of a strip; many layers make a higher picture, so that each can be seen."""
STRIPS_HEIGHT = 420.0
"""Height up to which strips get more than the least."""
PLANE_HEIGHT = 220.0


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
        slant: degrees by which the names along the bottom are slanted.
    """

    x: Ruler
    y: Ruler
    height: float
    x_names: tuple[str, ...] = ()
    y_names: tuple[str, ...] = ()
    slant: int = 0

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
    top += 16.0 if is_plane(chart) else 0.0
    y_names = tuple(short_names(chart.y.labels, NAME_LETTERS)) if chart.y.scale == "category" else ()
    left = _left(chart, y_names)
    right = WIDTH - _right(chart)
    x_names = tuple(short_names(chart.x.labels, SLANTED_LETTERS)) if chart.x.scale == "category" else ()
    longest = LETTER * max(map(len, x_names), default=0)
    room = (right - left) / max(len(x_names), 1)
    slant = 0
    if x_names and longest + 6 > room * _every(x_names, right - left):
        slant, left = _slant(left, right, len(x_names), longest)
    low_side = 32.0 if not slant else 26.0 + math.sin(math.radians(slant)) * longest
    inside = PLANE_HEIGHT if is_plane(chart) else 160.0
    inside = _map_height(chart, len(y_names)) if cells else inside
    bottom = top + inside
    x = _x_ruler(chart, left, right)
    if cells:
        return Frame(x, Ruler(-0.5, len(y_names) - 0.5, top, bottom), bottom + low_side, x_names, y_names, slant)
    low, high, log = limits(chart)
    return Frame(x, Ruler(low, high, bottom, top, log), bottom + low_side, x_names, y_names, slant)


def shown_names(names: tuple[str, ...], length: float, *, apart: float | None = None) -> list[int]:
    """Which of the names along an axis have room; `apart` says how far apart they must be, else their width does."""
    if not names:
        return []
    need = max(map(len, names)) * LETTER + 8 if apart is None else apart
    stride = max(1, math.ceil(need * len(names) / length - 1e-9))
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
    if low >= 0 and low < 0.35 * high:
        natural_low = 0.0 if natural_low is None else natural_low
    low, high = low - 0.06 * span, high + 0.06 * span
    if natural_low is not None and low < natural_low + 0.5 * span:
        low = natural_low
    if natural_high is not None and high > natural_high - 0.3 * span:
        high = natural_high
    return low, high if high > low else low + span, False


def _heights(chart: Chart) -> Iterator[FloatArray]:
    """The numbers that must fit on the vertical axis; a wide interval may leave it, a curve may not."""
    for mark in chart.marks:
        if isinstance(mark, Line | Dots | Path | Span):
            yield mark.y
        elif isinstance(mark, Band):
            yield from (mark.low, mark.high)
        elif isinstance(mark, Boxes):
            yield mark.quantiles
        elif isinstance(mark, Rule) and not mark.upright:
            yield np.array([mark.value])


def across(chart: Chart) -> tuple[float, float]:
    """Lowest and highest number on the horizontal axis of a plane; elsewhere curves begin and end at its sides."""
    spans = [part for mark in chart.marks if isinstance(mark, Span) for part in (mark.low, mark.high)]
    rules = [np.array([mark.value]) for mark in chart.marks if isinstance(mark, Rule) and mark.upright]
    places = [mark.x for mark in chart.marks if isinstance(mark, Line | Dots | Path)]
    values = np.concatenate([*places, *spans, *rules])
    return _range(values[np.isfinite(values)], chart.x)[:2]


def is_plane(chart: Chart) -> bool:
    """Whether both axes are measured, so that nothing runs from one side to the other."""
    return any(isinstance(mark, Path) for mark in chart.marks)


def _map_height(chart: Chart, rows: int) -> float:
    """Height of a grid of cells."""
    strips = max(len(mark.strips) for mark in chart.marks if isinstance(mark, Cells))
    if not strips:
        return min(max(rows * ROW, MAP_HEIGHT[0]), MAP_HEIGHT[1])
    low, high = STRIP_HEIGHT
    return rows * (strips * min(max(STRIPS_HEIGHT / (rows * strips), low), high) + 3.0)


def _x_ruler(chart: Chart, left: float, right: float) -> Ruler:
    if chart.x.scale == "category":
        return Ruler(-0.5, len(chart.x.labels) - 0.5, left, right)
    if is_plane(chart):
        return Ruler(*across(chart), left, right)
    places = [mark.x for mark in chart.marks if isinstance(mark, Line | Dots | Band) and len(mark.x)]
    low, high = (min(p.min() for p in places), max(p.max() for p in places)) if places else (0.0, 1.0)
    return Ruler(float(low), float(high) if high > low else float(low) + 1.0, left, right)


def _slant(left: float, right: float, count: int, longest: float) -> tuple[int, float]:
    """The gentlest slant at which every name has room, and the left side that keeps the first name on the canvas."""
    for degrees, apart in SLANTS:
        start = max(left, math.cos(math.radians(degrees)) * longest + 8 - (right - left) / count / 2)
        if (right - start) / count >= apart:
            break
    return degrees, start


def _left(chart: Chart, names: tuple[str, ...]) -> float:
    if names:
        return 12.0 + LETTER * max(map(len, names), default=1)
    low, high, log = limits(chart)
    texts = [text for _, text in Ruler(low, high, 0, 1, log).ticks(TICKS)]
    return 14.0 + LETTER * max(map(len, texts), default=1)


def _right(chart: Chart) -> float:
    """Room on the right: for a colour bar, or for the names of series."""
    cells = [mark for mark in chart.marks if isinstance(mark, Cells)]
    if cells and not cells[0].meanings:
        low, high, _ = colour_limits(chart, cells[0].values)
        return 22.0 + LETTER * max(len(format_number(value, 2)) for value in (low, high))
    if is_plane(chart):
        return 34.0
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
    if float(f"{step:.{decimals}f}") != round(step, 12):
        decimals += 1
    return f"{tick:,.{decimals}f}"
