"""What a page shows, as plain values: the text after `#` in its address, read and written as the page does it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from math import isfinite
from numbers import Real
from operator import index
from typing import Any
from urllib.parse import parse_qsl, quote_plus

from stratoscope.errors import SettingError

MOST_RUNS = 8
"""Runs that the page shows at once."""

ALONG = ("step", "epoch", "tokens", "seconds")
THEMES = ("auto", "light", "dark")

ORDERS = ("started", "name", "steps", "findings")
ROWS = ("measured", "all")

_TEXTS = ("base", "group", "layer", "instrument", "split", "search", "chart", "filter", "sort")
_FLAGS = ("clip", "log", "live", "logx")
_EMPTY = ("search", "filter")
"""Texts of which there always is one, which may be empty."""

_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", re.ASCII)


@dataclass(frozen=True)
class Selection:
    """What a page shows.

    Attributes:
        runs: ids of the runs, as the page's list has them; at most eight.
        base: the run that the others are compared with.
        group: the key of the config by whose values runs are grouped.
        layer: the layer that was chosen, or a param or unit of it: whatever a chart or table names.
        step: the step that was chosen.
        instrument: the instrument whose method is open.
        split: the split of the data.
        search: what was typed into the search.
        smooth: the weight of what came before in smoothed curves, from 0 (as measured) to less than 1.
        x: what runs along the curves: `"step"`, `"epoch"`, `"tokens"` or `"seconds"`.
        clip: whether outliers are left out of the scales.
        log: whether charts are logarithmic.
        logs: ids of the charts that differ from the others in that.
        theme: `"auto"`, `"light"` or `"dark"`.
        live: whether a run in training is followed.
        chart: the id of the chart that fills the page.
        filter: what the list of runs is filtered by.
        order: how it is sorted: `"started"`, `"name"`, `"steps"` or `"findings"`.
        sort: key of the column by which the table of layers is sorted; with a hyphen before it downwards.
        rows: which rows the table of layers has: `"measured"`, those with a number, or `"all"`.
        logx: whether steps run along a logarithmic axis.
        within: the steps that charts over steps show large.
        zooms: what other charts show large on their horizontal axes, by their ids.
    """

    runs: tuple[str, ...] = ()
    base: str | None = None
    group: str | None = None
    layer: str | None = None
    step: int | None = None
    instrument: str | None = None
    split: str | None = None
    search: str = ""
    smooth: float = 0.0
    x: str = "step"
    clip: bool = False
    log: bool = False
    logs: tuple[str, ...] = ()
    theme: str = "auto"
    live: bool = True
    chart: str | None = None
    filter: str = ""
    order: str = "started"
    sort: str | None = None
    rows: str = "measured"
    logx: bool = False
    within: tuple[float, float] | None = None
    zooms: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def changed(self, **changes: Any) -> Selection:
        """The same with other values of some attributes; `None` takes a choice back.

        >>> Selection(layer="conv1").changed(step=100, runs="mlp")
        Selection(runs=('mlp',), layer='conv1', step=100)

        Raises:
            SettingError: if there is no such attribute, or a value is none that the page could show.
        """
        known = [one.name for one in fields(self)]
        for name in changes:
            if name not in known:
                raise SettingError(f"There is no {name!r} to select; there are {', '.join(known)}.")
        return replace(self, **{name: _allowed(name, value) for name, value in changes.items()})

    def __repr__(self) -> str:
        start = asdict(Selection())
        said = [f"{name}={value!r}" for name, value in asdict(self).items() if value != start[name]]
        return f"Selection({', '.join(said)})"


@dataclass(frozen=True)
class Cursor:
    """Where the pointer is, or else what was chosen.

    Attributes:
        step: the training step.
        layer: the layer.
    """

    step: int | None = None
    layer: str | None = None


def read_selection(text: str) -> Selection:
    """The selection in an address; what it does not say is as at the start, and nonsense in it is passed over.

    >>> read_selection("#runs=mlp,mlp-2&layer=conv1&step=100&smooth=lots")
    Selection(runs=('mlp', 'mlp-2'), layer='conv1', step=100)

    Args:
        text: what follows the `#` (which may stand before it).
    """
    pairs = parse_qsl(text.removeprefix("#").removeprefix("?"), keep_blank_values=True)
    given = dict(reversed(pairs))  # of several of one name the first
    weight = float(given["smooth"]) if _NUMBER.fullmatch(given.get("smooth", "")) else 0.0
    return Selection(
        runs=_listed(given.get("runs", ""))[:MOST_RUNS],
        step=int(given["step"]) if re.fullmatch(r"[0-9]{1,15}", given.get("step", "")) else None,
        search=given.get("search", ""),
        filter=given.get("filter", ""),
        order=given["order"] if given.get("order") in ORDERS else "started",
        rows=given["rows"] if given.get("rows") in ROWS else "measured",
        logx=given.get("logx") == "1",
        within=_range_in(given.get("within", "")),
        zooms=dict(zoom for name, value in pairs if name == "zoom" for zoom in _zooms_in(value)),
        smooth=weight if 0 < weight < 1 else 0.0,
        x=given["x"] if given.get("x") in ALONG else "step",
        clip=given.get("clip") == "1",
        log=given.get("log") == "1",
        logs=_listed(given.get("logs", "")),
        theme=given["theme"] if given.get("theme") in THEMES else "auto",
        live=given.get("live") != "0",
        **{name: given.get(name) or None for name in _TEXTS if name not in _EMPTY},
    )


def write_selection(selection: Selection) -> str:
    """The text of a selection, without what is as at the start.

    >>> write_selection(Selection(runs=("mlp", "mlp-2"), layer="conv 1", log=True))
    'runs=mlp,mlp-2&layer=conv+1&log=1'
    """
    said = {
        "runs": ",".join(selection.runs),
        **{name: getattr(selection, name) or "" for name in _TEXTS},
        "step": "" if selection.step is None else str(selection.step),
        "smooth": str(selection.smooth) if selection.smooth else "",
        "x": "" if selection.x == ALONG[0] else selection.x,
        "clip": "1" if selection.clip else "",
        "log": "1" if selection.log else "",
        "logs": ",".join(selection.logs),
        "theme": "" if selection.theme == THEMES[0] else selection.theme,
        "live": "" if selection.live else "0",
        "order": "" if selection.order == ORDERS[0] else selection.order,
        "rows": "" if selection.rows == ROWS[0] else selection.rows,
        "logx": "1" if selection.logx else "",
        "within": _range_out(selection.within) if selection.within else "",
    }
    zooms = [("zoom", f"{chart}:{_range_out(ends)}") for chart, ends in selection.zooms.items()]
    # as browsers write it
    return "&".join(
        f"{name}={quote_plus(value, safe='*,', errors='replace').replace('~', '%7E')}"
        for name, value in [*said.items(), *zooms]
        if value
    )


def _listed(text: str) -> tuple[str, ...]:
    """The different names in a list."""
    return tuple(dict.fromkeys(name for name in text.split(",") if name))


def _range_in(text: str) -> tuple[float, float] | None:
    """Two ascending numbers with two dots between them."""
    ends = text.split("..")
    if len(ends) != 2 or not all(_NUMBER.fullmatch(end) and end == end.strip() for end in ends):
        return None
    low, high = map(float, ends)
    return (low, high) if low < high and isfinite(high - low) else None


def _zooms_in(text: str) -> list[tuple[str, tuple[float, float]]]:
    chart, _, ends = text.rpartition(":")
    found = _range_in(ends)
    return [(chart, found)] if found else []


def _range_out(ends: tuple[float, float]) -> str:
    return "..".join(str(int(end)) if float(end).is_integer() else repr(float(end)) for end in ends)


def _allowed(name: str, value: Any) -> Any:
    """A value as the selection holds it.

    Raises:
        SettingError: if it is none for this attribute.
    """
    if name in ("runs", "logs"):
        return _names(name, value)
    if name in _TEXTS:
        if value is not None and not isinstance(value, str):
            raise SettingError(f"{name}={value!r} must be a text, or None.")
        return value or ("" if name in _EMPTY else None)
    if name in _FLAGS:
        return bool(value)
    if name == "within":
        return None if value is None else _range(name, value)
    if name == "zooms":
        return {str(chart): _range(f"zooms[{chart!r}]", ends) for chart, ends in dict(value or {}).items()}
    if name == "step":
        return _step(value)
    if name == "smooth":
        return _smooth(value)
    among = {"x": ALONG, "order": ORDERS, "rows": ROWS, "theme": THEMES}[name]
    if value not in among:
        raise SettingError(f"{name}={value!r} must be one of {', '.join(among)}.")
    return value


def _names(name: str, value: str | Iterable[str] | None) -> tuple[str, ...]:
    found = tuple(dict.fromkeys([value] if isinstance(value, str) else value or ()))
    for one in found:
        if not isinstance(one, str) or not one or "," in one:
            raise SettingError(f"{name}={value!r} must be names without commas.")
    if name == "runs" and len(found) > MOST_RUNS:
        raise SettingError(f"The page shows {MOST_RUNS} runs at most, and {len(found)} were selected.")
    return found


def _range(name: str, value: Any) -> tuple[float, float]:
    ends = tuple(value) if isinstance(value, Iterable) else ()
    whole = len(ends) == 2 and all(isinstance(end, Real) and isfinite(end) for end in ends)
    if not whole or not ends[0] < ends[1]:
        raise SettingError(f"{name}={value!r} must be two finite numbers, the smaller one first.")
    return float(ends[0]), float(ends[1])


def _step(value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not hasattr(value, "__index__") or not 0 <= index(value) < 10**15:
        raise SettingError(f"step={value!r} must be a whole number from 0, or None.")
    return index(value)


def _smooth(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= float(value) < 1:
        raise SettingError(f"smooth={value!r} must be a number from 0 to less than 1.")
    return float(value)
