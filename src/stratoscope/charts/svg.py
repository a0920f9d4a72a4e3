"""Charts as SVG: inline in a page, or as a file of its own."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import numpy as np

from stratoscope.charts import colours
from stratoscope.charts.frame import (
    LABEL_GAP,
    LETTER,
    NAME_LETTERS,
    SLANTS,
    TICKS,
    WIDTH,
    Frame,
    Ruler,
    colour_limits,
    frame_of,
    is_plane,
    shown_names,
)
from stratoscope.charts.numbers import format_number, short_names, unit_text
from stratoscope.charts.svg_cells import shades_of
from stratoscope.charts.svg_marks import DASHES, SHADES, Scene, draw, place, shade_style, text
from stratoscope.charts.values import Cells, Chart, Dots, Line, Number, Path

MOST_POINTS = 1000
"""A curve with more points is thinned; its extremes and gaps stay."""


@cache
def stylesheet() -> str:
    """The rules that colour charts; a page with inline charts holds them once."""
    return files("stratoscope.charts").joinpath("svg.css").read_text(encoding="utf-8")


def to_svg(chart: Chart, *, standalone: bool = True, points: int = MOST_POINTS, described: str = "") -> str:
    """Draw a chart.

    Args:
        chart: the chart.
        standalone: whether this is a file of its own, with title and style; otherwise it is for a page that has both.
        points: about how many points of a curve to draw.
        described: id of the element of the page that says what the chart shows; else the caption is put inside.

    Returns:
        One `<svg>` element. It names itself (`role="img"`, `<title>`, `<desc>`), and every name in it is escaped.
    """
    numbers = all(isinstance(mark, Number) for mark in chart.marks)
    frame = (
        frame_of(chart, top=34.0 if standalone else 10.0)
        if not numbers
        else Frame(Ruler(0, 1, 0, 1), Ruler(0, 1, 0, 1), 96.0)
    )
    scene = Scene(chart, frame, points)
    body = _body(scene, {} if numbers else _labels(chart, frame))
    around = "" if numbers else _axes(chart, frame) + _colour_bar(chart, frame)
    legend, height = _legend(chart, frame)
    head = f'<text class="ss-title" x="4" y="16">{text(_fit(chart.title))}</text>' if standalone else ""
    desc = "" if described else f'<desc id="{chart.id}-d">{text(chart.caption)}</desc>'
    style = f"<style>{stylesheet()}</style>" if standalone else ""
    space = ' xmlns="http://www.w3.org/2000/svg"' if standalone else ""
    return (
        f'<svg{space} class="ss" viewBox="0 0 {WIDTH} {place(height)}" role="img" '
        f'aria-labelledby="{chart.id}-t" aria-describedby="{described or f"{chart.id}-d"}">'
        f'<title id="{chart.id}-t">{text(chart.title)}</title>{desc}{style}{head}'
        f"<g{_data(chart, frame)}>{around}{body}</g>{legend}</svg>"
    )


def _body(scene: Scene, labels: dict[int, str]) -> str:
    """The marks, each series' label within the group of its last mark, so that it has its colour."""
    last = {mark.series: place for place, mark in enumerate(scene.chart.marks) if isinstance(mark, Line | Dots | Path)}
    drawn = [draw(mark, scene) for mark in scene.chart.marks]
    for series, label in labels.items():
        drawn[last[series]] = drawn[last[series]].removesuffix("</g>") + label + "</g>"
    return "".join(drawn)


def _fit(title: str) -> str:
    most = int((WIDTH - 8) / (LETTER * 1.08))
    return title if len(title) <= most else title[: most - 1].rstrip() + "…"


def _data(chart: Chart, frame: Frame) -> str:
    """What a script needs to read values back from places: only for curves over numbers."""
    if chart.x.scale == "category" or not any(isinstance(mark, Line) for mark in chart.marks):
        return ""
    left, top, right, bottom = frame.box
    x, y = frame.x, frame.y
    return (
        f' class="ss-plot" data-x="{place(left)} {place(right)} {x.low:g} {x.high:g}" '
        f'data-y="{place(bottom)} {place(top)} {y.low:.6g} {y.high:.6g} {int(y.log)}" data-unit="{text(unit_text(chart.units))}"'
    )


def _axes(chart: Chart, frame: Frame) -> str:
    left, top, right, bottom = frame.box
    drawn = []
    if chart.y.scale == "category":
        names = frame.y_names
        kept = shown_names(names, bottom - top, apart=LABEL_GAP)
        drawn += [_text(left - 6, float(frame.y(float(n))) + 4, names[n], "end", chart.y.labels[n]) for n in kept]
    else:
        ticks = [(float(frame.y(tick)), label) for tick, label in frame.y.ticks(TICKS)]
        lines = "".join(f"M{place(left)} {place(y)}H{place(right)}" for y, _ in ticks)
        drawn.append(f'<path class="ss-grid" d="{lines}"/>')
        drawn += [_text(left - 6, y + 4, label, "end") for y, label in ticks]
    drawn.append(f'<path class="ss-axis" d="M{place(left)} {place(bottom)}H{place(right)}"/>')
    drawn.append(_x_names(chart, frame) if chart.x.scale == "category" else _x_ticks(frame))
    drawn.append(_text(right, frame.height - 4, chart.x.title, "end", css="ss-name"))
    unit = unit_text(chart.units) if not is_plane(chart) else ""
    if is_plane(chart):
        drawn.append(_text(4, top - 6, chart.y.title, "start", css="ss-name"))
    corner = ", ".join(part for part in (unit, "log scale" if frame.y.log else "") if part)
    return "".join(drawn) + (_text(left, frame.height - 4, corner, "start", css="ss-name") if corner else "")


def _x_ticks(frame: Frame) -> str:
    _, _, right, bottom = frame.box
    ticks = [(float(frame.x(tick)), label) for tick, label in frame.x.ticks(TICKS)]
    lines = "".join(f"M{place(x)} {place(bottom)}v4" for x, _ in ticks)
    sides = ["end" if x > right - 4 and len(label) > 2 else "middle" for x, label in ticks]
    names = [_text(x, bottom + 16, label, side) for (x, label), side in zip(ticks, sides, strict=True)]
    return f'<path class="ss-axis" d="{lines}"/>' + "".join(names)


def _x_names(chart: Chart, frame: Frame) -> str:
    left, _, right, bottom = frame.box
    drawn = []
    apart = dict(SLANTS).get(frame.slant)
    for number in shown_names(frame.x_names, right - left, apart=apart):
        x, name, whole = float(frame.x(float(number))), frame.x_names[number], chart.x.labels[number]
        if frame.slant:
            turned = f'transform="translate({place(x + 3)} {place(bottom + 12)}) rotate(-{frame.slant})"'
            drawn.append(f'<text {turned} text-anchor="end"><title>{text(whole)}</title>{text(name)}</text>')
        else:
            drawn.append(_text(x, bottom + 16, name, "middle", whole))
    return "".join(drawn)


def _labels(chart: Chart, frame: Frame) -> dict[int, str]:
    """For each series its name beside its end, moved apart where ends are close."""
    if len(chart.series) < 2:
        return {}
    if is_plane(chart):
        return _labels_in_plane(chart, frame)
    _, top, right, bottom = frame.box
    ends = sorted(_ends(chart, frame))
    if not ends or len(ends) * LABEL_GAP > bottom - top + LABEL_GAP:
        return {}
    heights = _apart([end for end, _ in ends], top, bottom)
    names = short_names(chart.series, NAME_LETTERS)
    drawn = {}
    for (end, series), height in zip(ends, heights, strict=True):
        lead = f'<path class="ss-lead" d="M{place(right + 1)} {place(end)}L{place(right + 8)} {place(height)}"/>'
        drawn[series] = lead + _text(right + 11, height + 4, names[series], "start", chart.series[series])
    return drawn


def _ends(chart: Chart, frame: Frame) -> list[tuple[float, int]]:
    found: dict[int, float] = {}
    for mark in chart.marks:
        if isinstance(mark, Line | Dots):
            finite = np.flatnonzero(np.isfinite(mark.y))
            if len(finite):
                found[mark.series] = float(frame.y(float(mark.y[finite[-1]])))
    return [(height, series) for series, height in found.items()]


def _labels_in_plane(chart: Chart, frame: Frame) -> dict[int, str]:
    """For each series its name beside its end, where no other name is; the title of its dot says it too."""
    names, taken, drawn = short_names(chart.series, NAME_LETTERS), list[tuple[float, float, float]](), {}
    left, top, _, bottom = frame.box
    for mark in chart.marks:
        if not isinstance(mark, Path | Line):
            continue
        finite = np.flatnonzero(np.isfinite(mark.x) & np.isfinite(mark.y))
        if not len(finite):
            continue
        x, y = float(frame.x(float(mark.x[finite[-1]]))), float(frame.y(float(mark.y[finite[-1]])))
        width = LETTER * len(names[mark.series])
        start = x + 6 if x + 6 + width < WIDTH else x - 6 - width
        for height in (y - 5, y + 14, y - 18, y + 27):
            free = all(abs(height - h) >= LABEL_GAP or start > b or start + width < a for a, b, h in taken)
            if free and top < height < bottom and start > left - 20:
                taken.append((start, start + width, height))
                drawn[mark.series] = _text(start, height, names[mark.series], "start", chart.series[mark.series])
                break
    return drawn


def _apart(heights: list[float], top: float, bottom: float) -> list[float]:
    """Ascending heights moved as little as needed to be a label's height apart and inside."""
    placed: list[float] = []
    for height in heights:
        placed.append(max(height, placed[-1] + LABEL_GAP if placed else top))
    over = placed[-1] - bottom if placed else 0.0
    limit = bottom
    for number in range(len(placed) - 1, -1, -1):
        if over <= 0 or placed[number] <= limit:
            break
        placed[number] = limit
        limit -= LABEL_GAP
    return placed


def _legend(chart: Chart, frame: Frame) -> tuple[str, float]:
    """Names of the categories of a map, or of series whose ends left no room, under the chart; and the new height."""
    cells = [mark for mark in chart.marks if isinstance(mark, Cells) and mark.meanings]
    if not cells:
        return _shades(chart, frame)
    x, y, drawn = 8.0, frame.height + 14, list[str]()
    for title, categories in _told(cells[0]):
        if title:
            x, y = 8.0, y if not drawn else y + 17
            drawn.append(_text(x, y, title, "start", css="ss-name"))
            x += 8 + LETTER * len(title)
        for number in categories:
            name = cells[0].meanings[number]
            letter = cells[0].letters[number] if cells[0].letters else ""
            label = f"{letter} {name}" if letter else name
            width = 24 + LETTER * len(label)
            if x + width > WIDTH:
                x, y = 24.0 if title else 8.0, y + 17
            swatch = f'<rect class="ss-run" x="{place(x)}" y="{place(y - 9)}" width="10" height="10"/>'
            drawn.append(f"<g {shades_of(cells[0], number)}>{swatch}</g>{_text(x + 15, y, label, 'start')}")
            x += width + 8
    return "".join(drawn), y + 8


def _told(cells: Cells) -> list[tuple[str, list[int]]]:
    """The categories that occur, strip by strip where there are strips."""
    rows = [(name, cells.values[strip :: len(cells.strips)]) for strip, name in enumerate(cells.strips)]
    found = []
    for title, values in rows or [("", cells.values)]:
        finite = values[np.isfinite(values)]
        found.append((title, [number for number in range(len(cells.meanings)) if (finite == number).any()]))
    return found


def _colour_bar(chart: Chart, frame: Frame) -> str:
    cells = [mark for mark in chart.marks if isinstance(mark, Cells) and not mark.meanings]
    if not cells:
        return ""
    _, top, right, bottom = frame.box
    low, high, log = colour_limits(chart, cells[0].values)
    name, x = f"{chart.id}-ramp", right + 8
    stops = "".join(f'<stop offset="{n / 8:g}" stop-color="{colours.ramp(1 - n / 8)}"/>' for n in range(9))
    bar = f'<rect x="{place(x)}" y="{place(top)}" width="8" height="{place(bottom - top)}" fill="url(#{name})"/>'
    ends = _text(x + 11, top + 9, _short(high), "start") + _text(x + 11, bottom, _short(low), "start")
    said = f"colours from {format_number(low)} to {format_number(high)}{', logarithmic' if log else ''}"
    return f'<linearGradient id="{name}" x2="0" y2="1">{stops}</linearGradient><g><title>{text(said)}</title>{bar}{ends}</g>'


def _shades(chart: Chart, frame: Frame) -> tuple[str, float]:
    """Under the chart what the colours along its ways mean, and the new height."""
    ways = [mark.along for mark in chart.marks if isinstance(mark, Path)]
    if not ways or chart.colour is None or len(np.unique(np.concatenate(ways))) < 2:
        return "", frame.height
    low, high, log = colour_limits(chart, np.concatenate(ways))
    x, y, width = 8.0, frame.height + 14, 72.0 / SHADES
    swatches = "".join(
        f'<g {shade_style(n)}><rect class="ss-run" x="{place(x + n * width)}" y="{place(y - 8)}" '
        f'width="{place(width + 0.3)}" height="7"/></g>'
        for n in range(SHADES)
    )
    said = f"{chart.colour.title} {format_number(low)} to {format_number(high)}{', logarithmic' if log else ''}"
    return f"<g>{swatches}{_text(x + 80, y, said, 'start')}</g>", y + 8


def _short(value: float) -> str:
    return format_number(value, 2)


def _text(x: float, y: float, value: str, anchor: str, whole: str = "", css: str = "") -> str:
    title = f"<title>{text(whole)}</title>" if whole and whole != value else ""
    name = f' class="{css}"' if css else ""
    side = "" if anchor == "start" else f' text-anchor="{anchor}"'
    return f'<text{name} x="{place(x)}" y="{place(y)}"{side}>{title}{text(value)}</text>'


__all__ = ["DASHES", "MOST_POINTS", "stylesheet", "to_svg"]
