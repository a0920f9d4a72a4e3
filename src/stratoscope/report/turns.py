"""When the layers of a phase timeline turn, by each theory, and where theories disagree: as text."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from stratoscope.instruments.reading import some

if TYPE_CHECKING:
    from stratoscope.charts.strips import Strips


def disagreements(strips: Strips) -> dict[tuple[str, str], list[int]]:
    """Theories in pairs, and the layers for which the intervals of their turns have no step in common."""
    found: dict[tuple[str, str], list[int]] = {}
    _, low, high = np.moveaxis(strips.turns, -1, 0)
    for one, other in combinations(range(len(strips.theories)), 2):
        apart = np.maximum(low[:, one], low[:, other]) > np.minimum(high[:, one], high[:, other])
        if apart.any():
            found[strips.theories[one], strips.theories[other]] = np.flatnonzero(apart).tolist()
    return found


def disagreeing(strips: Strips) -> Iterator[str]:
    """The same as sentences."""
    for (one, other), rows in disagreements(strips).items():
        places = [f"{strips.layers[row]} ({_pair(strips, row, one, other)})" for row in rows]
        yield f"{one} and {other} turn at different steps: {some(places)}"


def turn_table(strips: Strips) -> dict[str, Any]:
    """The turns of all layers, by each theory, for a page: the step, its interval, or what is said instead, and why."""
    return {
        "theories": list(strips.theories),
        "rows": [
            {"layer": layer, "cells": [_cell(strips, row, theory) for theory in range(len(strips.theories))]}
            for row, layer in enumerate(strips.layers)
        ],
        "disagree": list(disagreeing(strips)),
    }


def _cell(strips: Strips, row: int, theory: int) -> dict[str, str]:
    turn, low, high = map(float, strips.turns[row, theory])
    known = np.isfinite([turn, low, high])
    return {
        "turn": _whole(turn) if known[0] else "",
        "interval": f"{_whole(low)} to {_whole(high)}" if known.all() else "",
        "answer": "" if known[0] else strips.answers[row][theory],
        "why": strips.reasons[row][theory],
    }


def _pair(strips: Strips, row: int, *theories: str) -> str:
    return " and ".join(_whole(strips.turns[row, strips.theories.index(theory), 0]) for theory in theories)


def turn_text(turn: float, low: float, high: float, *, width: int) -> str:
    """The step of a turn with its interval, in whole numbers where there is room; empty where there is none.

    >>> turn_text(4096.0, 2048.0, 8192.0, width=20), turn_text(4096.0, 2048.0, 8192.0, width=14)
    ('4,096 [2,048-8,192]', '4.1k [2k-8.2k]')
    """
    if not np.isfinite(turn):
        return ""
    for write in (_whole, _short):
        at, begin, end = (write(value) if np.isfinite(value) else "?" for value in (turn, low, high))
        text = f"{at} [{begin}-{end}]"
        if len(text) <= width:
            return text
    return at


def _whole(value: float) -> str:
    return f"{value:,.0f}"


def _short(value: float) -> str:
    """A step in few signs.

    >>> _short(96.4), _short(4096), _short(12_000_000)
    ('96', '4.1k', '12M')
    """
    for power, unit in ((9, "G"), (6, "M"), (3, "k")):
        if value >= 0.9995 * 10**power:
            return f"{float(f'{value / 10**power:.2g}'):g}{unit}"
    return f"{value:.0f}"
