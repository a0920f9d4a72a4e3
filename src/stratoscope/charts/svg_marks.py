"""How each mark looks in SVG."""

from __future__ import annotations

from dataclasses import dataclass
from functools import singledispatch
from html import escape

import numpy as np

from stratoscope.charts import colours
from stratoscope.charts.frame import Frame, colour_limits
from stratoscope.charts.numbers import format_number, unit_text
from stratoscope.charts.thin import kept_points
from stratoscope.charts.values import Band, Boxes, Chart, Dots, FloatArray, Line, Mark, Number, Path, Rule, Span

DASHES = ("", "7 3", "2 3", "9 3 2 3", "5 2 2 2 2 2", "1 3")
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
