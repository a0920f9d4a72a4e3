"""How each mark looks in SVG."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from functools import singledispatch
from html import escape

import numpy as np

from stratoscope.charts import colours
from stratoscope.charts.frame import Frame, colour_limits
from stratoscope.charts.numbers import format_number, unit_text
from stratoscope.charts.png import palette_png
from stratoscope.charts.thin import kept_points
from stratoscope.charts.values import Band, Boxes, Cells, Chart, Dots, FloatArray, Line, Mark, Number, Path, Rule, Span

DASHES = ("", "7 3", "2 3", "9 3 2 3", "5 2 2 2 2 2", "1 3")
MOST_RECTANGLES = 400
LEVELS = 250
SHADES = 24
"""How many colours a path has along it."""


@dataclass(frozen=True)
class Scene:
    """What a mark needs to know to be drawn.

    Attributes:
        chart: the chart that it belongs to.
        frame: where things lie.
        points: about how many points of a curve to draw.
    """

    chart: Chart
    frame: Frame
    points: int

    def style(self, series: int, *, faint: bool = False) -> str:
        """Colours of a series on light and on dark, and its dashes."""
        chart = self.chart
        if faint:
            return 'class="ss-faint"'
        if chart.ordered:
            light, dark = (colours.ordered(series, len(chart.series), dark=dark) for dark in (False, True))
        else:
            light, dark = (colours.category(series, dark=dark) for dark in (False, True))
        dash = "" if chart.ordered or not DASHES[series % 6] else f";stroke-dasharray:{DASHES[series % 6]}"
        return f'class="ss-series" style="--l:{light};--d:{dark}{dash}"'


def text(value: str) -> str:
    """Text that is safe anywhere in SVG and HTML: escaped, and without characters that XML does not have."""
    kept = "".join(
        c
        if c in "\t\n" or ((ord(c) >= 32 and not 0xD800 <= ord(c) <= 0xDFFF) and c not in "\ufffe\uffff")
        else "\ufffd"
        for c in value
    )
    return escape(kept, quote=True)


def place(number: float) -> str:
    """A coordinate, to a tenth."""
    return f"{number:.1f}".removesuffix(".0").replace("-0.", "-.") if abs(number) >= 0.05 else "0"


@singledispatch
def draw(mark: Mark, scene: Scene) -> str:
    """SVG of one mark."""
    raise NotImplementedError(f"{type(mark).__name__} has no SVG form")


@draw.register
def _line(mark: Line, scene: Scene) -> str:
    kept = kept_points(mark.y, scene.points)
    x, y = scene.frame.x(mark.x[kept]), mark.y[kept]
    style = scene.style(mark.series, faint=mark.role == "reference")
    name = text(scene.chart.series[mark.series]) if mark.series < len(scene.chart.series) else ""
    finite = np.isfinite(y)
    path = _path(x, scene.frame.y(np.where(finite, y, 0.0 if not scene.frame.y.log else 1.0)), finite)
    drawn = f'<path class="{"ss-raw" if mark.role == "raw" else "ss-line"}" d="{path}"/>' if path else ""
    smoothed = any(isinstance(m, Line) and m.role == "raw" and m.series == mark.series for m in scene.chart.marks)
    broken = "" if smoothed and mark.role == "main" else _broken(x, y, scene)
    called = "" if mark.role == "raw" else f' data-name="{name}"'
    return f"<g {style}{called}>{drawn}{broken}</g>"


@draw.register
def _band(mark: Band, scene: Scene) -> str:
    finite = np.isfinite(mark.low) & np.isfinite(mark.high)
    if finite.sum() < 1:
        return ""
    order = np.flatnonzero(finite)
    if len(order) > scene.points:
        order = order[np.linspace(0, len(order) - 1, scene.points).astype(int)]
    x = scene.frame.x(mark.x[order])
    low, high = scene.frame.y(mark.low[order]), scene.frame.y(mark.high[order])
    style = scene.style(mark.series)
    if scene.chart.x.scale == "category" or len(order) == 1:
        bars = "".join(f"M{place(a)} {place(b)}V{place(c)}" for a, b, c in zip(x, low, high, strict=True))
        return f'<g {style}><path class="ss-whisker" d="{bars}"/></g>'
    around = np.concatenate([x, x[::-1]]), np.concatenate([low, high[::-1]])
    return f'<g {style}><path class="ss-band" d="{_path(*around, np.ones(2 * len(order), dtype=bool))}Z"/></g>'


@draw.register
def _dots(mark: Dots, scene: Scene) -> str:
    finite = np.isfinite(mark.y)
    x, names, unit = scene.frame.x(mark.x), scene.chart.x.labels, unit_text(scene.chart.units)
    y = scene.frame.y(np.where(finite, mark.y, 1.0))
    radius = 3.2 if len(mark.y) <= 60 else 1.8
    titled = len(mark.y) <= 120
    drawn = []
    for number in np.flatnonzero(finite):
        said = (
            f"{names[int(mark.x[number])]}: {_value(scene.chart, float(mark.y[number]))} {unit}".strip()
            if names
            else ""
        )
        title = f"<title>{text(said)}</title>" if titled and said else ""
        at = f'cx="{place(x[number])}" cy="{place(y[number])}" r="{radius}"'
        drawn.append(f"<circle {at}>{title}</circle>" if title else f"<circle {at}/>")
    line = any(isinstance(other, Line) and other.series == mark.series for other in scene.chart.marks)
    broken = "" if line else _broken(x, mark.y, scene)
    return f'<g {scene.style(mark.series)}><g class="ss-dots">{"".join(drawn)}</g>{broken}</g>'


@draw.register
def _way(mark: Path, scene: Scene) -> str:
    finite = np.isfinite(mark.x) & np.isfinite(mark.y)
    places = np.flatnonzero(finite)
    if not len(places):
        return ""
    x, y = scene.frame.x(np.where(finite, mark.x, 0.0)), scene.frame.y(np.where(finite, mark.y, 0.0))
    name = text(scene.chart.series[mark.series])
    shade = shades(scene.chart, mark.along)
    drawn = []
    for start, stop in _runs(shade, len(x)):
        path = _path(x[start:stop], y[start:stop], finite[start:stop])
        if path:
            drawn.append(f'<g {shade_style(int(shade[start]))}><path class="ss-line" d="{path}"/></g>')
    last = places[-1]
    said = f"{name}: {format_number(mark.x[last])}, {_value(scene.chart, float(mark.y[last]))}"
    end = f'<circle cx="{place(x[last])}" cy="{place(y[last])}" r="3.6"><title>{said}</title></circle>'
    ends = f'<g {shade_style(int(shade[last]))}><g class="ss-dots">{end}</g></g>'
    return f'<g class="ss-way" data-name="{name}">{"".join(drawn)}{ends}</g>'


@draw.register
def _span(mark: Span, scene: Scene) -> str:
    order = np.flatnonzero(np.isfinite(mark.low) & np.isfinite(mark.high) & np.isfinite(mark.y))
    if not len(order):
        return ""
    low, high, y = scene.frame.x(mark.low[order]), scene.frame.x(mark.high[order]), scene.frame.y(mark.y[order])
    if len(order) == 1:
        return f'<g class="ss-quiet"><path class="ss-whisker" d="M{place(low[0])} {place(y[0])}H{place(high[0])}"/></g>'
    around = np.concatenate([low, high[::-1]]), np.concatenate([y, y[::-1]])
    return f'<g class="ss-quiet"><path class="ss-band" d="{_path(*around, np.ones(2 * len(order), dtype=bool))}Z"/></g>'


def shades(chart: Chart, along: FloatArray) -> FloatArray:
    """Which of the `SHADES` colours each point of a path has."""
    every = np.concatenate([mark.along for mark in chart.marks if isinstance(mark, Path)])
    low, high, log = colour_limits(chart, every)
    if log:
        along, low, high = np.log10(np.maximum(along, low)), np.log10(low), np.log10(high)
    share = np.clip((along - low) / (high - low), 0.0, 1.0)
    return np.minimum((share * SHADES).astype(np.int64), SHADES - 1)


def shade_style(number: int) -> str:
    """Class and colours, on light and on dark, of the n-th shade."""
    light, dark = (colours.ordered(number, SHADES, dark=dark) for dark in (False, True))
    return f'class="ss-series" style="--l:{light};--d:{dark}"'


def _runs(shade: FloatArray, n: int) -> list[tuple[int, int]]:
    """Stretches of one colour, each up to the first point of the next, so that the path is whole."""
    starts = np.flatnonzero(np.diff(shade, prepend=-1))
    return [(int(start), min(int(stop) + 1, n)) for start, stop in zip(starts, [*starts[1:], n], strict=True)]


@draw.register
def _rule(mark: Rule, scene: Scene) -> str:
    if mark.upright:
        return _upright(mark, scene)
    left, _, right, _ = scene.frame.box
    y = float(scene.frame.y(mark.value))
    label = f"{text(mark.name)} {format_number(mark.value)}"
    above = y - 4 if y > scene.frame.box[1] + 14 else y + 13
    return (
        f'<g class="ss-rule"><path d="M{place(left)} {place(y)}H{place(right)}"/>'
        f'<text x="{place(right - 3)}" y="{place(above)}" text-anchor="end">{label}</text></g>'
    )


def _upright(mark: Rule, scene: Scene) -> str:
    left, top, right, bottom = scene.frame.box
    x = float(scene.frame.x(mark.value))
    label = f"{text(mark.name)} {format_number(mark.value)}"
    before = x > (left + right) / 2
    return (
        f'<g class="ss-rule"><path d="M{place(x)} {place(top)}V{place(bottom)}"/><text x="{place(x - 4 if before else x + 4)}" '
        f'y="{place(bottom - 5)}" text-anchor="{"end" if before else "start"}">{label}</text></g>'
    )


@draw.register
def _boxes(mark: Boxes, scene: Scene) -> str:
    frame, chart = scene.frame, scene.chart
    room = (frame.x.stop - frame.x.start) / max(len(mark.counts), 1)
    half = min(room * 0.42, 20.0)
    drawn = [_violin(mark, scene, number, half) for number in range(len(mark.counts)) if mark.counts[number]]
    if chart.x.labels and not any(mark.counts):
        return ""
    return f'<g class="ss-series ss-boxes" style="--l:{colours.category(0)};--d:{colours.category(0, dark=True)}">{"".join(drawn)}</g>'


def _violin(mark: Boxes, scene: Scene, number: int, half: float) -> str:
    frame, (least, low, first, middle, third, high, most) = scene.frame, mark.quantiles[number]
    x = float(frame.x(float(number)))
    y = {
        key: float(frame.y(value))
        for key, value in (("l", low), ("1", first), ("m", middle), ("3", third), ("h", high))
    }
    widths = mark.density[number] / max(float(mark.density[number].max()), 1e-12) * half
    heights = frame.y(
        (mark.edges[:-1] + mark.edges[1:]) / 2 if not frame.y.log else np.sqrt(mark.edges[:-1] * mark.edges[1:])
    )
    filled = np.flatnonzero(widths > 0)
    outline = ""
    if len(filled) > 1:
        keep = slice(filled[0], filled[-1] + 1)
        across = np.concatenate([x - widths[keep], (x + widths[keep])[::-1]])
        down = np.concatenate([heights[keep], heights[keep][::-1]])
        outline = f'<path class="ss-band" d="{_path(across, down, np.ones(len(across), dtype=bool))}Z"/>'
    unit = unit_text(scene.chart.units)
    said = (
        f"{scene.chart.x.labels[number]}: median {format_number(middle)} {unit}, middle half {format_number(first)} to "
        f"{format_number(third)}, all {format_number(least)} to {format_number(most)}, n = {mark.counts[number]:,}"
    )
    thick = min(half * 0.5, 6.0)
    return (
        f"<g><title>{text(said)}</title>{outline}"
        f'<path class="ss-whisker" d="M{place(x)} {place(y["l"])}V{place(y["h"])}"/>'
        f'<path class="ss-box" d="M{place(x)} {place(y["1"])}V{place(y["3"])}" stroke-width="{place(thick)}"/>'
        f'<path class="ss-median" d="M{place(x - thick)} {place(y["m"])}h{place(2 * thick)}"/></g>'
    )


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


@draw.register
def _number(mark: Number, scene: Scene) -> str:
    number = [other for other in scene.chart.marks if isinstance(other, Number)].index(mark)
    x = 16.0 + 130.0 * number
    ends = "" if mark.low is None or mark.high is None else f"{format_number(mark.low)} to {format_number(mark.high)}"
    unit = unit_text(scene.chart.units)
    value = f"{_value(scene.chart, mark.value)} {unit}".strip()
    return (
        f'<text class="ss-number" x="{place(x)}" y="60">{text(value)}</text>'
        f'<text x="{place(x)}" y="80">{text(" ".join(part for part in (mark.name, ends) if part))}</text>'
    )


def _value(chart: Chart, value: float) -> str:
    meanings = chart.y.labels if chart.y.scale == "category" else ()
    return meanings[int(value)] if meanings and np.isfinite(value) else format_number(value)


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


def _broken(x: FloatArray, y: FloatArray, scene: Scene) -> str:
    """Crosses for values that are not finite, and triangles for those that a logarithmic axis cannot show."""
    _, top, _, bottom = scene.frame.box
    drawn = []
    bad = np.flatnonzero(~np.isfinite(y))
    if len(bad):
        ends = np.where(np.isposinf(y[bad]), top + 4, bottom - 4)
        cross = "".join(f"M{place(a - 3)} {place(b - 3)}l6 6m0-6l-6 6" for a, b in zip(x[bad], ends, strict=True))
        drawn.append(f'<path class="ss-broken" d="{cross}"><title>NaN or infinite</title></path>')
    if scene.frame.y.log:
        under = np.flatnonzero(np.isfinite(y) & (y <= 0))
        if len(under):
            shape = "".join(f"M{place(a - 3)} {place(bottom - 6)}h6l-3 5z" for a in x[under])
            drawn.append(
                f'<path class="ss-under" d="{shape}"><title>zero or below, off a logarithmic axis</title></path>'
            )
    return "".join(drawn)


def _path(x: FloatArray, y: FloatArray, there: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> str:
    """A path with a gap wherever `there` is false; lone points become dots by their round caps."""
    xs, ys = np.round(x * 10).astype(int), np.round(y * 10).astype(int)
    parts: list[str] = []
    pen = False
    for number in range(len(xs)):
        if not there[number]:
            pen = False
            continue
        if not pen:
            alone = number + 1 == len(xs) or not there[number + 1]
            parts.append(f"M{_tenth(xs[number])} {_tenth(ys[number])}{'h0' if alone else ''}")
        else:
            parts.append(f"l{_tenth(xs[number] - xs[number - 1])} {_tenth(ys[number] - ys[number - 1])}")
        pen = True
    return "".join(parts)


def _tenth(value: int) -> str:
    whole, part = divmod(abs(int(value)), 10)
    sign = "-" if value < 0 else ""
    return f"{sign}{whole or ('' if part else 0)}{f'.{part}' if part else ''}"
