"""Charts with matplotlib, as PNG, PDF or a figure to work on; needs the extra `plots`."""

from __future__ import annotations

from functools import singledispatch
from pathlib import Path as File
from typing import TYPE_CHECKING, Any

import numpy as np

from stratoscope.charts import colours
from stratoscope.charts.frame import across, colour_limits, is_plane, limits
from stratoscope.charts.numbers import format_number, short_names, unit_text
from stratoscope.charts.svg_marks import SHADES, shades
from stratoscope.charts.values import Band, Boxes, Cells, Chart, Dots, Line, Mark, Number, Path, Rule, Span
from stratoscope.errors import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STYLES = ("-", "--", ":", "-.")


def to_figure(chart: Chart) -> Figure:
    """A figure of one chart; nothing global in matplotlib is touched.

    Raises:
        StratoscopeError: if matplotlib is not installed.
    """
    figure: Figure = require("matplotlib.figure", "plots").Figure(figsize=(6.4, _height(chart)), layout="constrained")
    axes = figure.subplots()
    axes.set_title(chart.title, loc="left", fontsize=10, fontweight="bold", wrap=True)
    for mark in chart.marks:
        draw(mark, axes, chart)
    if not any(isinstance(mark, Cells | Number) for mark in chart.marks):
        _finish(axes, chart)
    return figure


def save(chart: Chart, path: str | File, dpi: int = 200) -> None:
    """Write a chart as a picture; the ending of the name says which kind (`.png`, `.pdf`, ...).

    Raises:
        StratoscopeError: if matplotlib is not installed.
    """
    to_figure(chart).savefig(path, dpi=dpi)


@singledispatch
def draw(mark: Mark, axes: Axes, chart: Chart) -> None:
    """Draw one mark."""
    raise NotImplementedError(f"{type(mark).__name__} has no matplotlib form")


@draw.register(Line)
def _line(mark: Line, axes: Axes, chart: Chart) -> None:
    style = {"color": "#888888", "linestyle": ":"} if mark.role == "reference" else _style(chart, mark.series)
    if mark.role == "raw":
        axes.plot(mark.x, mark.y, linewidth=0.7, alpha=0.3, **style)
    else:
        axes.plot(mark.x, mark.y, label=_name(chart, mark.series), linewidth=1.4, **style)


@draw.register(Band)
def _band(mark: Band, axes: Axes, chart: Chart) -> None:
    colour = _style(chart, mark.series)["color"]
    if chart.x.scale == "category":
        axes.vlines(mark.x, mark.low, mark.high, colors=colour, linewidth=1)
    else:
        axes.fill_between(mark.x, mark.low, mark.high, color=colour, alpha=0.18, linewidth=0)


@draw.register(Dots)
def _dots(mark: Dots, axes: Axes, chart: Chart) -> None:
    axes.scatter(mark.x, mark.y, color=_style(chart, mark.series)["color"], s=16, zorder=3)


@draw.register(Path)
def _way(mark: Path, axes: Axes, chart: Chart) -> None:
    from matplotlib.collections import LineCollection

    points = np.stack([mark.x, mark.y], axis=1)
    shade = shades(chart, mark.along)
    colour = [colours.ordered(int(number), SHADES) for number in shade]
    segments = list(np.stack([points[:-1], points[1:]], axis=1))
    axes.add_collection(LineCollection(segments, colors=colour[:-1], linewidths=1.4))
    finite = np.flatnonzero(np.isfinite(points).all(axis=1))
    if len(finite):
        x, y = (float(value) for value in points[finite[-1]])
        axes.scatter([x], [y], color=colour[finite[-1]], s=22, zorder=3)
        name = _name(chart, mark.series)
        axes.annotate(name, (x, y), xytext=(5, 3), textcoords="offset points", fontsize=8)


@draw.register(Span)
def _span(mark: Span, axes: Axes, chart: Chart) -> None:
    if len(mark.y) == 1:
        axes.hlines(mark.y, mark.low, mark.high, colors="#57606a", linewidth=1)
    else:
        axes.fill(
            np.concatenate([mark.low, mark.high[::-1]]), np.concatenate([mark.y, mark.y[::-1]]),
            color="#57606a", alpha=0.15, linewidth=0,
        )  # fmt: skip


@draw.register(Rule)
def _rule(mark: Rule, axes: Axes, chart: Chart) -> None:
    if mark.upright:
        axes.axvline(mark.value, color="#666666", linestyle="--", linewidth=1)
        axes.annotate(
            f"{mark.name} {format_number(mark.value)}", (mark.value, 0), xycoords=("data", "axes fraction"),
            ha="right", va="bottom", rotation=90, fontsize=8, color="#666666",
        )  # fmt: skip
        return
    axes.axhline(mark.value, color="#666666", linestyle="--", linewidth=1)
    axes.annotate(
        f"{mark.name} {format_number(mark.value)}", (1, mark.value), xycoords=("axes fraction", "data"),
        ha="right", va="bottom", fontsize=8, color="#666666",
    )  # fmt: skip


@draw.register(Boxes)
def _boxes(mark: Boxes, axes: Axes, chart: Chart) -> None:
    colour = colours.category(0)
    for place, quantiles in enumerate(mark.quantiles):
        if not mark.counts[place]:
            continue
        _, low, first, middle, third, high, _ = quantiles
        widths = mark.density[place] / max(mark.density[place].max(), 1e-12) * 0.4
        outline = np.append(widths, widths[-1])
        left, right = place - outline, place + outline
        axes.fill_betweenx(mark.edges, left, right, step="post", color=colour, alpha=0.18, linewidth=0)
        axes.vlines(place, low, high, colors=colour, linewidth=1)
        axes.vlines(place, first, third, colors=colour, linewidth=4)
        axes.scatter([place], [middle], color="white", s=10, zorder=3)


@draw.register(Cells)
def _cells(mark: Cells, axes: Axes, chart: Chart) -> None:
    from matplotlib.colors import ListedColormap, LogNorm, Normalize

    if mark.meanings:
        light = [one for one, _ in mark.shades] or [colours.category(place) for place in range(len(mark.meanings))]
        shades = ListedColormap(light)
        shown: Any = Normalize(-0.5, len(mark.meanings) - 0.5)
    else:
        shades = ListedColormap([colours.ramp(level / 255) for level in range(256)])
        low, high, log = colour_limits(chart, mark.values)
        shown = (LogNorm if log else Normalize)(low, high)
    rows = len(mark.values) / max(len(mark.strips), 1)
    extent = (-0.5, mark.values.shape[1] - 0.5, rows - 0.5, -0.5)
    image = axes.imshow(mark.values, aspect="auto", cmap=shades, norm=shown, interpolation="nearest", extent=extent)
    if mark.strips:
        axes.hlines(np.arange(rows + 1) - 0.5, extent[0], extent[1], colors="white", linewidth=1.2)
    bar = axes.figure.colorbar(image, ax=axes)
    if mark.meanings:
        bar.set_ticks(range(len(mark.meanings)), labels=list(mark.meanings), fontsize=8 if mark.strips else None)
    _names(axes, chart)
    axes.set_xlabel(chart.x.title)


@draw.register(Number)
def _number(mark: Number, axes: Axes, chart: Chart) -> None:
    numbers = [other for other in chart.marks if isinstance(other, Number)]
    place = (numbers.index(mark) + 0.5) / len(numbers)
    ends = "" if mark.low is None or mark.high is None else f"\n{format_number(mark.low)} to {format_number(mark.high)}"
    meanings = chart.y.labels
    value = meanings[int(mark.value)] if meanings and np.isfinite(mark.value) else format_number(mark.value)
    said = f"{value} {unit_text(chart.units)}".strip()
    axes.text(place, 0.5, f"{said}\n{mark.name}{ends}", ha="center", va="center", transform=axes.transAxes)
    axes.set_axis_off()


def _height(chart: Chart) -> float:
    """Inches; more where many categories are divided into strips."""
    strips = max((len(mark.values) for mark in chart.marks if isinstance(mark, Cells) and mark.strips), default=0)
    return max(4.0, 1.2 + 0.03 * strips)


def _finish(axes: Axes, chart: Chart) -> None:
    low, high, log = limits(chart)
    axes.set_yscale("log" if log else "linear")
    axes.set_ylim(low, high)
    axes.set_xlabel(chart.x.title)
    axes.set_ylabel(unit_text(chart.units) if not is_plane(chart) else chart.y.title)
    if is_plane(chart):
        axes.set_xlim(*across(chart))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e3e6ea", linewidth=0.8)
    axes.set_axisbelow(True)
    _names(axes, chart)
    if len(chart.series) > 1 and not is_plane(chart):
        axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))


def _names(axes: Axes, chart: Chart) -> None:
    for axis, labels, turn in ((axes.xaxis, chart.x.labels, 40), (axes.yaxis, chart.y.labels, 0)):
        if labels:
            stride = max(1, len(labels) // 24)
            shown = range(0, len(labels), stride)
            names = short_names(labels, 20)
            slanted: dict[str, Any] = {"rotation": turn, "ha": "right"} if turn and max(map(len, names)) > 3 else {}
            axis.set_ticks(list(shown), labels=[names[place] for place in shown], fontsize=8, **slanted)


def _style(chart: Chart, series: int) -> dict[str, Any]:
    if chart.ordered:
        return {"color": colours.ordered(series, len(chart.series)), "linestyle": "-"}
    return {"color": colours.category(series), "linestyle": STYLES[series % len(STYLES)]}


def _name(chart: Chart, series: int) -> str:
    return chart.series[series] if series < len(chart.series) else ""
