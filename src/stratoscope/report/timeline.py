"""The phase timeline in the terminal: for each layer and step, the phase that each theory puts it in, side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from stratoscope.charts.numbers import elide, short_names
from stratoscope.charts.values import FloatArray
from stratoscope.charts.variable import Variable, variables_of
from stratoscope.instruments.reading import some
from stratoscope.report.console import hanging, joined, safe

if TYPE_CHECKING:
    from stratoscope.record.record import Record

KEY = "timeline"
MOST_LAYERS = 20
NARROWEST, WIDEST = 12, 32
"""Signs of a theory's row, at least (fewer where there are fewer steps) and at most."""

BETWEEN = 2
"""Blanks between two theories."""

SIGNS = {
    "fitting": ("F", "cyan"),
    "compression": ("C", "magenta"),
    "flat": ("=", "yellow"),
    "falling": ("\\", "green"),
    "rising": ("/", "red"),
    "random-like": ("R", "yellow"),
    "bleeding-out": ("B", "cyan"),
    "bulk+spikes": ("S", "green"),
    "bulk-decay": ("D", "green"),
    "heavy-tailed": ("H", "blue"),
    "rank-collapse": ("0", "red"),
    "drift": (">", "green"),
    "diffusion": ("~", "yellow"),
}
"""Phases that have a sign of their own; others get a letter of their name."""

UNSAID = "\N{MIDDLE DOT}"
"""Where a theory says nothing."""


@dataclass(frozen=True, eq=False)
class Timeline:
    """The phases of a record.

    Attributes:
        layers: names, by depth.
        theories: names.
        steps: that were measured.
        phase: steps x layers x theories: places in `meanings`, NaN where a theory says nothing.
        meanings: names of the phases.
        turn: layers x theories: the step at which the second phase begins, NaN where there is none.
        low: the lower end of its interval.
        high: the upper end.
    """

    layers: tuple[str, ...]
    theories: tuple[str, ...]
    steps: tuple[int, ...]
    phase: FloatArray
    meanings: tuple[str, ...]
    turn: FloatArray
    low: FloatArray
    high: FloatArray

    def disagreements(self) -> dict[tuple[str, str], list[int]]:
        """Theories in pairs, and the layers for which the intervals of their turns have no step in common."""
        found: dict[tuple[str, str], list[int]] = {}
        for one, other in combinations(range(len(self.theories)), 2):
            apart = np.maximum(self.low[:, one], self.low[:, other]) > np.minimum(
                self.high[:, one], self.high[:, other]
            )
            if apart.any():
                found[self.theories[one], self.theories[other]] = np.flatnonzero(apart).tolist()
        return found


def timeline_of(record: Record) -> Timeline | None:
    """The phase timeline of a record; nothing where it holds none, or no theory says anything."""
    key = next((name for name in record if name.partition(":")[0] == KEY), None)
    if key is None:
        return None
    variables = variables_of(record, key)
    phase = variables.get("phase")
    if phase is None or set(phase.dims) != {"layer", "theory"} or not phase.meanings:
        return None
    values = _by_layer(phase, phase.values[:, 0])
    layers, theories = (tuple(map(str, phase.labels[phase.dims.index(dim)])) for dim in ("layer", "theory"))
    there = np.isfinite(values)
    rows, columns, steps = there.any(axis=(0, 2)), there.any(axis=(0, 1)), there.any(axis=(1, 2))
    if not steps.any():
        return None
    turn, low, high = (_last(variables.get(name), layers, theories) for name in ("turn", "turn_low", "turn_high"))
    return Timeline(
        tuple(np.array(layers)[rows].tolist()), tuple(np.array(theories)[columns].tolist()),
        tuple(np.array(phase.steps)[steps].tolist()), values[steps][:, rows][:, :, columns], phase.meanings,
        turn[rows][:, columns], low[rows][:, columns], high[rows][:, columns],
    )  # fmt: skip


def _by_layer(variable: Variable, values: FloatArray) -> FloatArray:
    """Values whose last two axes are the layer and the theory."""
    return values if variable.dims == ("layer", "theory") else values.swapaxes(-1, -2)


def _last(variable: Variable | None, layers: Sequence[str], theories: Sequence[str]) -> FloatArray:
    """What a variable of layers and theories says at the last step at which it says anything; NaN where it is not."""
    found = np.full((len(layers), len(theories)), np.nan)
    if variable is None or set(variable.dims) != {"layer", "theory"}:
        return found
    values = _by_layer(variable, np.where(variable.measured, variable.values, np.nan)[:, 0])
    own = [tuple(map(str, variable.labels[variable.dims.index(dim)])) for dim in ("layer", "theory")]
    said = np.flatnonzero(np.isfinite(values).any(axis=(1, 2)))
    for row, layer in enumerate(own[0] if len(said) else ()):
        for column, theory in enumerate(own[1]):
            if layer in layers and theory in theories:
                found[layers.index(layer), theories.index(theory)] = values[said[-1], row, column]
    return found


# -- printing -------------------------------------------------------------------------------------------------------------


def print_timeline(timeline: Timeline, out: Console) -> None:
    """Print the timeline: a row a layer, a column a theory, one sign a phase, and below it the step of the turn.

    Args:
        timeline: the phases of a record.
        out: where to.
    """
    signs = _signs(timeline.meanings)
    shown = _most_telling(timeline)
    names = [timeline.layers[row] for row in shown]
    most = max(NARROWEST, out.width // 5)
    names = names if max(map(cell_len, names)) <= most else short_names(names, most)
    room = out.width - max(map(cell_len, [*names, "Phases"])) - BETWEEN
    steps = timeline.steps
    across, width = _columns(len(timeline.theories), room, len(steps))
    count = min(width, len(steps))
    thinned = "" if count == len(steps) else f", in {count:,} columns: each shows the last that is known of its steps"
    many = f"{len(steps):,} step{'s' if len(steps) > 1 else ''} from {steps[0]:,} to {steps[-1]:,}{thinned}"
    out.print(hanging("Phases", many))
    for begin in range(0, len(timeline.theories), across):
        if begin:
            out.print()
        theories = range(begin, min(begin + across, len(timeline.theories)))
        out.print(_block(timeline, names, shown, theories, width, signs))
    if len(shown) < len(timeline.layers):
        left = len(timeline.layers) - len(shown)
        out.print(Text(f"  ... and {left:,} more layer{'s' if left > 1 else ''}, in the HTML report", style="dim"))
    for label, text in _legend(timeline, signs):
        out.print(hanging(label, text) if isinstance(text, str) else _beside(label, text))
    out.print()


def _columns(theories: int, room: int, steps: int) -> tuple[int, int]:
    """How many theories stand side by side, and how wide each is."""
    least = max(min(NARROWEST, steps), NARROWEST)
    across = max(1, min(theories, room // (least + BETWEEN)))
    return across, max(4, min(WIDEST, room // across - BETWEEN))


def _block(
    timeline: Timeline, names: Sequence[str], shown: Sequence[int], theories: Sequence[int], width: int,
    signs: Mapping[int, tuple[str, str]],
) -> Grid:  # fmt: skip
    """The rows of a few theories."""
    grid = Grid.grid(padding=(0, BETWEEN, 0, 0))
    grid.add_column(no_wrap=True)
    for _ in theories:
        grid.add_column(no_wrap=True, min_width=width)
    grid.add_row("", *(safe(elide(timeline.theories[theory], width), "bold") for theory in theories))
    for name, row in zip(names, shown, strict=True):
        grid.add_row(safe(name), *(_strip(timeline.phase[:, row, theory], width, signs) for theory in theories))
        turns = [turn_text(timeline, row, theory, width) for theory in theories]
        if any(turns):
            grid.add_row("", *(safe(text, "dim") for text in turns))
    return grid


def _strip(values: FloatArray, width: int, signs: Mapping[int, tuple[str, str]]) -> Text:
    """One sign for each step; of many steps the last that is known of each stretch."""
    text = Text()
    for chunk in np.array_split(values, min(width, len(values))):
        known = chunk[np.isfinite(chunk)]
        sign, style = signs[int(known[-1])] if len(known) else (UNSAID, "dim")
        text.append(sign, style=style)
    return text


def turn_text(timeline: Timeline, row: int, theory: int, width: int) -> str:
    """The step of a turn with its interval, in whole numbers where there is room; empty where there is none."""
    numbers = [float(part[row, theory]) for part in (timeline.turn, timeline.low, timeline.high)]
    if not np.isfinite(numbers[0]):
        return ""
    for write in (lambda value: f"{value:,.0f}", _short):
        at, low, high = (write(value) if np.isfinite(value) else "?" for value in numbers)
        text = f"{at} [{low}-{high}]"
        if len(text) <= width:
            return text
    return at


def _short(value: float) -> str:
    """A step in few signs.

    >>> _short(96.4), _short(4096), _short(12_000_000)
    ('96', '4.1k', '12M')
    """
    for power, unit in ((9, "G"), (6, "M"), (3, "k")):
        if value >= 0.9995 * 10**power:
            return f"{float(f'{value / 10**power:.2g}'):g}{unit}"
    return f"{value:.0f}"


def _legend(timeline: Timeline, signs: Mapping[int, tuple[str, str]]) -> Iterator[tuple[str, str | Text]]:
    """What the signs stand for, and where theories disagree."""
    label = "Signs"
    for place, theory in enumerate(timeline.theories):
        seen = np.unique(timeline.phase[:, :, place][np.isfinite(timeline.phase[:, :, place])])
        said = [part for at in seen for part in (signs[int(at)], f" {timeline.meanings[int(at)]}   ")]
        yield label, joined((f"{theory}  ", "dim"), *said)
        label = ""
    if np.isnan(timeline.phase).any():
        yield "", f"{UNSAID} nothing is known"
    if np.isfinite(timeline.turn).any():
        yield "Turns", "below a row: the step at which the second phase begins [its 95% interval]"
    label = "Disagree"
    for (one, other), rows in timeline.disagreements().items():
        places = [f"{timeline.layers[row]} ({_turns(timeline, row, one, other)})" for row in rows]
        yield label, f"{one} and {other} turn at different steps: {some(places)}"
        label = ""


def _turns(timeline: Timeline, row: int, *theories: str) -> str:
    return " and ".join(f"{timeline.turn[row, timeline.theories.index(theory)]:,.0f}" for theory in theories)


def _beside(label: str, text: Text) -> Grid:
    grid = Grid.grid(padding=(0, 1))
    grid.add_column(no_wrap=True, width=9)
    grid.add_column(overflow="fold")
    grid.add_row(safe(label, "bold"), text)
    return grid


def _most_telling(timeline: Timeline) -> list[int]:
    """All layers, or those on whose turn theories disagree, then those with turns, up to `MOST_LAYERS`; by depth."""
    apart = {row for rows in timeline.disagreements().values() for row in rows}
    turns = np.isfinite(timeline.turn).sum(axis=1)
    order = sorted(range(len(timeline.layers)), key=lambda row: (row not in apart, -turns[row]))
    return sorted(order[:MOST_LAYERS])


def _signs(meanings: Sequence[str]) -> dict[int, tuple[str, str]]:
    """A sign and a colour for each phase, no sign twice."""
    found = {place: SIGNS[name] for place, name in enumerate(meanings) if name in SIGNS}
    taken = {sign for sign, _ in found.values()}
    for place, name in enumerate(meanings):
        if place not in found:
            letters = [letter for letter in (*name.upper(), *name.lower(), *"123456789") if letter.isalnum()]
            sign = next((letter for letter in letters if letter.isascii() and letter not in taken), "?")
            found[place] = sign, ""
            taken.add(sign)
    return found
