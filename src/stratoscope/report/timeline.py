"""The phase timeline in the terminal: for each layer and step, the phase that each theory puts it in, side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from stratoscope.charts.numbers import elide, short_names
from stratoscope.charts.strips import Strips
from stratoscope.charts.values import FloatArray
from stratoscope.report.console import hanging, joined, safe
from stratoscope.report.turns import disagreeing, disagreements, turn_text

MOST_LAYERS = 20
NARROWEST, WIDEST = 12, 32
"""Signs of a theory's row, at least (fewer where there are fewer steps) and at most."""

BETWEEN = 2
"""Blanks between two theories."""

COLOURS = ("yellow", "cyan", "green", "magenta", "red", "blue")
"""Of the phases of a theory that occur, the early ones first."""

UNSAID = "."
"""Where a theory says nothing."""


def print_timeline(strips: Strips, out: Console) -> None:
    """Print the timeline: a row a layer, a column a theory, one sign a phase, and below it the step of the turn.

    Args:
        strips: the phases of a record.
        out: where to.
    """
    shown = _most_telling(strips)
    names = [strips.layers[row] for row in shown]
    most = max(NARROWEST, out.width // 5)
    names = names if max(map(cell_len, names)) <= most else short_names(names, most)
    across, width = _columns(len(strips.theories), out.width - max(map(cell_len, names)) - BETWEEN)
    steps, count = strips.steps, len(strips.shown(width))
    thinned = "" if count == len(steps) else f"; {count:,} of them have a sign here"
    many = f"{len(steps):,} step{'s' if len(steps) > 1 else ''} from {steps[0]:,} to {steps[-1]:,}{thinned}"
    out.print(hanging("Phases", many))
    for begin in range(0, len(strips.theories), across):
        if begin:
            out.print()
        theories = range(begin, min(begin + across, len(strips.theories)))
        out.print(_block(strips, names, shown, theories, width))
    if len(shown) < len(strips.layers):
        left = len(strips.layers) - len(shown)
        out.print(Text(f"  ... and {left:,} more layer{'s' if left > 1 else ''}, in the HTML report", style="dim"))
    for label, text in _legend(strips):
        out.print(hanging(label, text))
    out.print()


def _columns(theories: int, room: int) -> tuple[int, int]:
    """How many theories stand side by side, and how wide each is."""
    across = max(1, min(theories, room // (NARROWEST + BETWEEN)))
    return across, max(4, min(WIDEST, room // across - BETWEEN))


def _block(strips: Strips, names: Sequence[str], shown: Sequence[int], theories: Sequence[int], width: int) -> Grid:
    """The rows of a few theories."""
    grid = Grid.grid(padding=(0, BETWEEN, 0, 0))
    grid.add_column(no_wrap=True)
    for _ in theories:
        grid.add_column(no_wrap=True, min_width=width)
    grid.add_row("", *(safe(elide(strips.theories[theory], width), "bold") for theory in theories))
    kept = np.searchsorted(strips.steps, strips.shown(width))
    for name, row in zip(names, shown, strict=True):
        grid.add_row(safe(name), *(_strip(strips, theory, strips.codes[row, theory][kept]) for theory in theories))
        turns = [turn_text(*strips.turns[row, theory], width=width) for theory in theories]
        if any(turns):
            grid.add_row("", *(safe(text, "dim") for text in turns))
    return grid


def _strip(strips: Strips, theory: int, codes: FloatArray) -> Text:
    """One sign for each step that is shown."""
    text, colours = Text(), _colours(strips, theory)
    for code in codes:
        if np.isfinite(code):
            text.append_text(safe(strips.letters[int(code)], colours[int(code)]))
        else:
            text.append(UNSAID, style="dim")
    return text


def _colours(strips: Strips, theory: int) -> dict[int, str]:
    """A colour for each phase of a theory that occurs."""
    codes = strips.codes[:, theory]
    seen = np.unique(codes[np.isfinite(codes)]).astype(int).tolist()
    return {code: COLOURS[number % len(COLOURS)] for number, code in enumerate(seen)}


def _legend(strips: Strips) -> Iterator[tuple[str, Text]]:
    """What the signs stand for, and where theories disagree."""
    label = "Signs"
    for place, (theory, phases) in enumerate(strips.legend()):
        styles = _colours(strips, place).values()
        said = [
            part
            for (letter, name), style in zip(phases, styles, strict=True)
            for part in ((letter, style), f" {name}   ")
        ]
        yield label, joined((f"{theory}  ", "dim"), *said)
        label = ""
    if np.isnan(strips.codes).any():
        yield "", joined(f"{UNSAID} nothing is said")
    if np.isfinite(strips.turns).any():
        yield "Turns", joined("below a row: the step at which the second phase begins [its 95% interval]")
    label = "Disagree"
    for sentence in disagreeing(strips):
        yield label, joined(sentence)
        label = ""


def _most_telling(strips: Strips) -> list[int]:
    """All layers, or those on whose turn theories disagree, then those with turns, up to `MOST_LAYERS`; by depth."""
    apart = {row for rows in disagreements(strips).values() for row in rows}
    turns = np.isfinite(strips.turns[:, :, 0]).sum(axis=1)
    order = sorted(range(len(strips.layers)), key=lambda row: (row not in apart, -turns[row]))
    return sorted(order[:MOST_LAYERS])
