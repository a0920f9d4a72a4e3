"""Chart values: a picture as plain numbers, names and marks, specified once and drawn by three renderers.

A chart is two axes and a few **marks**. Renderers know the marks and never the kinds of chart, so a new kind of chart is
one file in `stratoscope.charts.kinds` that puts marks together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
Scale = Literal["linear", "log", "category"]

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
"""The quantiles that a `Boxes` mark holds, in order."""


@dataclass(frozen=True)
class Axis:
    """What runs along a side of the picture, or along its colours.

    Attributes:
        title: what it is.
        units: its unit; `"1"` for a pure number, `""` where a unit makes no sense (names).
        scale: `"linear"`, `"log"`, or `"category"`: places 0, 1, 2, ... with names.
        labels: the names of a category axis.
        low: smallest value that the quantity can take, if there is one.
        high: largest value that it can take, if there is one.
    """

    title: str
    units: str = "1"
    scale: Scale = "linear"
    labels: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, eq=False)
class Line:
    """A curve; where `y` is not finite there is a gap.

    Attributes:
        series: which of the chart's series it belongs to.
        x: places along the horizontal axis, ascending.
        y: values.
        role: `"main"`; `"raw"`, the values behind a smoothed curve of the same series; or `"reference"`, another
            time or run to compare with.
    """

    series: int
    x: FloatArray
    y: FloatArray
    role: Literal["main", "raw", "reference"] = "main"


@dataclass(frozen=True, eq=False)
class Band:
    """The space between two curves, such as a confidence interval."""

    series: int
    x: FloatArray
    low: FloatArray
    high: FloatArray


@dataclass(frozen=True, eq=False)
class Dots:
    """Single points; where `y` is not finite there is none."""

    series: int
    x: FloatArray
    y: FloatArray


@dataclass(frozen=True, eq=False)
class Path:
    """A way through the plane, in order, coloured along it; where a place is not finite there is a gap.

    Attributes:
        series: which of the chart's series it belongs to.
        x: places along the horizontal axis.
        y: places along the vertical axis.
        along: numbers on the colour axis, ascending, such as training steps.
    """

    series: int
    x: FloatArray
    y: FloatArray
    along: FloatArray


@dataclass(frozen=True, eq=False)
class Span:
    """How wide the points of a `Path` are: an interval along the horizontal axis at each height."""

    series: int
    y: FloatArray
    low: FloatArray
    high: FloatArray


@dataclass(frozen=True)
class Rule:
    """A reference line, such as a floor, a ceiling or a threshold: a height, or a place along the horizontal axis."""

    name: str
    value: float
    upright: bool = False


@dataclass(frozen=True, eq=False)
class Cells:
    """A grid of values as colours: rows along the vertical category axis (first on top), columns along the horizontal one.

    Attributes:
        values: rows x columns; categories are whole numbers that point into `meanings`.
        meanings: names of categories; empty for a measured quantity.
        strips: names of the thin strips into which every category of the vertical axis is divided, from the top; there
            are then so many rows for each. Empty where a row is a category.
        told_by: of each category, the strips in which it may be; empty where there are no strips.
        letters: of each category, a sign for it where there is little room.
        shades: of each category, its colours on light and on dark ground; else those of the palette.
        blank: rows that stay empty where they have no value, and are not shown as gaps: nobody asked.
    """

    values: FloatArray
    meanings: tuple[str, ...] = ()
    strips: tuple[str, ...] = ()
    told_by: tuple[tuple[str, ...], ...] = ()
    letters: tuple[str, ...] = ()
    shades: tuple[tuple[str, str], ...] = ()
    blank: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Boxes:
    """The distribution of many values at each place along the horizontal axis.

    Attributes:
        quantiles: places x 7, at `QUANTILES`; NaN where there is no finite value.
        counts: how many finite values there are at each place.
        density: places x bins: share of the values in each of the equal bins between the axis' limits; sums to 1.
        edges: the bins' edges.
    """

    quantiles: FloatArray
    counts: NDArray[np.int64]
    density: FloatArray
    edges: FloatArray


@dataclass(frozen=True)
class Number:
    """A single value, with the ends of its interval where it has one."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None


Mark = Line | Band | Dots | Path | Span | Rule | Cells | Boxes | Number


@dataclass(frozen=True, eq=False)
class Chart:
    """A picture, before it is drawn.

    Attributes:
        id: unique within a record; letters, digits and `-`.
        kind: name of the file in `stratoscope.charts.kinds` that made it.
        title: what is shown, in a few words.
        caption: one or two plain sentences that say what there is to see, with numbers; also the text for those who
            cannot see the picture.
        instrument: key of the record's group.
        variable: name of the variable in that group.
        units: unit of the values.
        source: arXiv id or DOI of the method.
        x: horizontal axis.
        y: vertical axis.
        marks: what is drawn, back to front.
        series: names of the series that marks point to.
        ordered: whether the series have an order (layers by depth), which the colours then follow.
        colour: the axis of the colours of `Cells` and `Path`.
        split: the data split, where the chart shows one of several.
    """

    id: str
    kind: str
    title: str
    caption: str
    instrument: str
    variable: str
    units: str
    source: str
    x: Axis
    y: Axis
    marks: tuple[Mark, ...]
    series: tuple[str, ...] = ()
    ordered: bool = False
    colour: Axis | None = None
    split: str | None = None
