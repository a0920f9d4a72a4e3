"""How a grid of cells looks in SVG: a measured quantity as shades, categories as bars, strips as thin bars."""

from __future__ import annotations

import base64

import numpy as np

from stratoscope.charts import colours
from stratoscope.charts.frame import colour_limits
from stratoscope.charts.numbers import format_number, unit_text
from stratoscope.charts.png import palette_png
from stratoscope.charts.svg_marks import Scene, draw, place, text
from stratoscope.charts.values import Cells, Chart, FloatArray

MOST_RECTANGLES = 400
LEVELS = 250


@draw.register
def _cells(mark: Cells, scene: Scene) -> str:
    if mark.meanings:
        return _categories(mark, scene)
    low, high, log = colour_limits(scene.chart, mark.values)
    values = np.where(np.isfinite(mark.values), mark.values, low)
    values, ends = (
        (np.log10(np.maximum(values, low)), np.log10([low, high])) if log else (values, np.array([low, high]))
    )
    share = np.clip((values - ends[0]) / (ends[1] - ends[0]), 0.0, 1.0)
    if mark.values.size > MOST_RECTANGLES:
        return _gaps(scene) + _image(mark, scene, share)
    return _gaps(scene) + _rectangles(mark, scene, share)


def _categories(mark: Cells, scene: Scene) -> str:
    """Runs of one category as bars, with its name inside where there is room, or its sign."""
    drawn = [_hatching(scene) if mark.strips else _gaps(scene)]
    edges = scene.frame.x(np.arange(mark.values.shape[1] + 1) - 0.5)
    for row, values in enumerate(mark.values):
        keys = np.where(np.isfinite(values), values, -1)
        starts = np.flatnonzero(np.diff(keys, prepend=np.nan))
        for start, stop in zip(starts, [*starts[1:], len(keys)], strict=True):
            across, down = (float(edges[start]), float(edges[stop])), _height(mark, scene, row)
            if keys[start] >= 0:
                said = _said(mark, scene.chart, row, int(start), int(stop))
                drawn.append(_run(mark, int(keys[start]), said, across, down))
            elif mark.strips and row not in mark.blank:
                drawn.append(_hatched(scene, across, down))
    return "".join(drawn)


def _said(mark: Cells, chart: Chart, row: int, start: int, stop: int) -> str:
    """What a run is, for those who point at it."""
    name = mark.meanings[int(mark.values[row, start])]
    if not mark.strips:
        return f"{chart.y.labels[row]}: {name}"
    layer, strip = divmod(row, len(mark.strips))
    first, last = chart.x.labels[start], chart.x.labels[stop - 1]
    steps = first if first == last else f"{first} to {last}"
    return f"{chart.y.labels[layer]}, {mark.strips[strip]}: {name}, {chart.x.title} {steps}"


def _height(mark: Cells, scene: Scene, row: int) -> tuple[float, float]:
    """Top and bottom of a row, or of a strip; below the last strip of each category there is a gap."""
    if not mark.strips:
        top, bottom = (float(scene.frame.y(row + side)) for side in (-0.5, 0.5))
        return top, bottom - 1
    layer, strip = divmod(row, len(mark.strips))
    top, bottom = (float(scene.frame.y(layer + side)) for side in (-0.5, 0.5))
    high = (bottom - top - min(3.0, 0.2 * (bottom - top))) / len(mark.strips)
    return top + strip * high, top + (strip + 1) * high - (0.6 if high > 4 else 0.0)


def _run(mark: Cells, category: int, said: str, across: tuple[float, float], down: tuple[float, float]) -> str:
    (left, right), (top, bottom) = across, down
    style = shades_of(mark, category)
    name, letter = mark.meanings[category], mark.letters[category] if mark.letters else ""
    wide, high = right - left, bottom - top
    if wide > 6.6 * len(name) + 8 and high >= 11:
        inside, small = name, ""
    else:
        inside, small = letter, "font-size:9px;" if high < 11 else ""
    words = ""
    if inside and (inside == name or (wide > 9 and high >= 7)):
        ink = "ss-inside"
        if mark.shades:
            light, dark = (colours.on(colour) for colour in mark.shades[category])
            ink, small = "ss-series ss-on", f"{small}--l:{light};--d:{dark}"
        at = f'x="{place((left + right) / 2)}" y="{place((top + bottom) / 2 + (4 if high >= 11 else 3))}"'
        sized = f' style="{small}"' if small else ""
        words = f'<text class="{ink}" {at} text-anchor="middle"{sized}>{text(inside)}</text>'
    size = f'x="{place(left)}" y="{place(top)}" width="{place(wide)}" height="{place(max(high, 0.5))}"'
    return f'<g {style}><rect class="ss-run" {size}><title>{text(said)}</title></rect></g>{words}'


def shades_of(mark: Cells, category: int) -> str:
    """Class and colours, on light and on dark, of a category."""
    if mark.shades:
        light, dark = mark.shades[category]
    else:
        light, dark = colours.category(category), colours.category(category, dark=True)
    return f'class="ss-series" style="--l:{light};--d:{dark}"'


def _gaps(scene: Scene) -> str:
    """A hatched ground, which shows wherever a cell has no finite value."""
    left, top, right, bottom = scene.frame.box
    return _hatching(scene) + _hatched(scene, (left, right), (top, bottom))


def _hatching(scene: Scene) -> str:
    return (
        f'<pattern id="{scene.chart.id}-gap" width="5" height="5" patternUnits="userSpaceOnUse" '
        'patternTransform="rotate(45)"><path class="ss-hatch" d="M0 0V5"/></pattern>'
    )


def _hatched(scene: Scene, across: tuple[float, float], down: tuple[float, float]) -> str:
    (left, right), (top, bottom) = across, down
    return (
        f'<rect x="{place(left)}" y="{place(top)}" width="{place(right - left)}" height="{place(bottom - top)}" '
        f'fill="url(#{scene.chart.id}-gap)"/>'
    )


def _rectangles(mark: Cells, scene: Scene, share: FloatArray) -> str:
    rows, columns = mark.values.shape
    xs = scene.frame.x(np.arange(columns + 1) - 0.5)
    ys = scene.frame.y(np.arange(rows + 1) - 0.5)
    chart, unit, drawn = scene.chart, unit_text(scene.chart.units), []
    for row, column in zip(*np.nonzero(np.isfinite(mark.values)), strict=True):
        said = f"{chart.y.labels[row]}, {chart.x.title} {chart.x.labels[column]}: {format_number(mark.values[row, column])} {unit}"
        size = (
            f'x="{place(xs[column])}" y="{place(ys[row])}" width="{place(xs[column + 1] - xs[column] + 0.2)}" '
            f'height="{place(ys[row + 1] - ys[row] + 0.2)}"'
        )
        drawn.append(
            f'<rect {size} fill="{colours.ramp(share[row, column])}"><title>{text(said.strip())}</title></rect>'
        )
    return "".join(drawn)


def _image(mark: Cells, scene: Scene, share: FloatArray) -> str:
    left, top, right, bottom = scene.frame.box
    palette = ["#000000", *(colours.ramp(level / (LEVELS - 1)) for level in range(LEVELS))]
    indexes = np.where(np.isfinite(mark.values), 1 + np.round(share * (LEVELS - 1)), 0).astype(np.uint8)
    data = base64.b64encode(palette_png(indexes, palette)).decode("ascii")
    return (
        f'<image class="ss-image" x="{place(left)}" y="{place(top)}" width="{place(right - left)}" '
        f'height="{place(bottom - top)}" preserveAspectRatio="none" href="data:image/png;base64,{data}"/>'
    )
