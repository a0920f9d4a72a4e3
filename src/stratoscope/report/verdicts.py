"""The terminal's table of verdicts: the worst tensors first, each with one line of meaning, and how they went over steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from stratoscope.charts.numbers import TIMES, format_number, short_names
from stratoscope.charts.sparkline import sparkline
from stratoscope.report.console import joined, safe
from stratoscope.report.meaning import NO_PHASE, QUIET_VERDICTS, Meaning, meaning_of

if TYPE_CHECKING:
    from stratoscope.report.table import Column, Row, Table

MOST_ROWS, SAME = 30, 5
"""Rows that are shown at most, and of them those with the same verdict in the same words."""

NAME = 28
WIDE, BROAD = 110, 132
"""From these widths on the table has shapes, and further numbers."""

FURTHER = ("stable_rank", "mp_softrank")
"""Numbers that a broad table shows beside the meaning, which has the others."""

STYLES = {
    "broken": ("✗", "bold red"),
    "failed": ("✗", "bold magenta"),
    "collapsed": ("✗", "bold red"),
    "over-trained?": ("!", "bold yellow"),
    "suspect": ("!", "bold yellow"),
    "untrained": ("!", "bold yellow"),
    "under-trained?": ("!", "yellow"),
    "trained": ("✓", "green"),
}
LETTERS = {
    "random-like": ("R", "yellow"),
    "flat": ("F", "yellow"),
    "bleeding-out": ("B", "cyan"),
    "bulk+spikes": ("S", "green"),
    "bulk-decay": ("D", "green"),
    "heavy-tailed-weak": ("W", "blue"),
    "heavy-tailed-fat": ("H", "blue"),
    "heavy-tailed-very-heavy": ("V", "magenta"),
    "rank-collapse": ("C", "red"),
    "too-small": ("-", "dim"),
    "no-test": ("?", "dim"),
}
"""Each phase as a letter and a colour."""

ABSENT = "\N{MIDDLE DOT}"
STEPS = 16
"""Letters and blocks of a row over steps, at most."""


def judged(table: Table) -> list[tuple[Row, Meaning]]:
    """Every row with its meaning, the worst first, in order of depth among equals."""
    return sorted(((row, meaning_of(table, row)) for row in table.rows), key=lambda pair: pair[1].rank)


def has_verdicts(table: Table, alone: bool) -> bool:
    """Whether there is a verdict to show: any of a spectrum where weights are all there is, else one that decides."""
    found = {meaning.verdict for _, meaning in judged(table)} - set(QUIET_VERDICTS)
    return bool(found if alone and _phase(table) else found - {"undecided"}) and _phase(table) is not None


def print_verdicts(table: Table, out: Console, every: bool) -> None:
    """Print the table of verdicts.

    Args:
        table: of a record that holds spectra.
        out: where to.
        every: whether to show all rows, those without a matrix too.
    """
    pairs = judged(table)
    shown = pairs if every else [pair for pair in pairs if pair[1].verdict not in QUIET_VERDICTS]
    out.print(_counts([pair for pair in pairs if pair[1].verdict not in QUIET_VERDICTS]))
    if shown:
        top = shown if every else _few(shown)[:MOST_ROWS]
        out.print(_grid(table, top, out.width))
        left = Counter(meaning.verdict for _, meaning in shown)
        left.subtract(meaning.verdict for _, meaning in top)
        if len(top) < len(shown):
            said = ", ".join(f"{number:,} {verdict}" for verdict, number in left.items() if number)
            out.print(
                Text(f"  ... and {said}: --all shows them; they are in the HTML report and in --json too.", "dim")
            )
            out.print()
        print_over_steps(table, [row for row, _ in (shown if every else shown[:MOST_ROWS])], out)


def _few(pairs: Sequence[tuple[Row, Meaning]]) -> list[tuple[Row, Meaning]]:
    """Few of those of which the same is said in the same words, as of two hundred layers of noise."""
    told: Counter[tuple[str, str]] = Counter()
    kept = []
    for row, meaning in pairs:
        told[meaning.verdict, meaning.says] += 1
        if told[meaning.verdict, meaning.says] <= SAME:
            kept.append((row, meaning))
    return kept


def _counts(pairs: Sequence[tuple[Row, Meaning]]) -> Text:
    """How many matrices there are of each verdict."""
    found = Counter(meaning.verdict for _, meaning in pairs)
    text = Text(f"{len(pairs):,} weight matri{'ces' if len(pairs) != 1 else 'x'}")
    for number, (verdict, count) in enumerate(found.items()):
        text.append(", " if number else ": ")
        text.append(f"{count:,} {verdict}", style=STYLES.get(verdict, ("", "dim"))[1])
    return text


def _grid(table: Table, pairs: Sequence[tuple[Row, Meaning]], width: int) -> Grid:
    names = short(pairs)
    further = [column for column in _columns(table, FURTHER) if width >= BROAD]
    grid = Grid(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    grid.add_column("Weights", no_wrap=True)
    if width >= WIDE:
        grid.add_column("", no_wrap=True, style="dim")
    grid.add_column("verdict", no_wrap=True)
    grid.add_column("how one can tell", overflow="fold", ratio=1)
    for column in further:
        grid.add_column(safe(column.key.replace("_", " ")), justify="right", no_wrap=True)
    for name, (row, meaning) in zip(names, pairs, strict=True):
        sign, style = STYLES.get(meaning.verdict, (" ", "dim"))
        shape = [safe(f"{row.kind} {TIMES.join(map(str, row.shape or ()))}".strip())] if width >= WIDE else []
        quiet = "dim" if meaning.verdict in (*QUIET_VERDICTS, "undecided") else ""
        verdict = safe(f"{sign} {meaning.verdict}", style)
        grid.add_row(safe(name), *shape, verdict, safe(meaning.says, quiet), *(_cell(table, row, c) for c in further))
    return grid


def short(pairs: Sequence[tuple[Row, Meaning]]) -> list[str]:
    """Whole names where they are short, and what tells them apart where they are not."""
    names = [row.name for row, _ in pairs]
    return names if max(map(len, names), default=0) <= NAME else short_names(names, NAME)


def _columns(table: Table, names: Sequence[str]) -> list[Column]:
    found = {column.variable.name: column for column in reversed(table.columns.values()) if column.split == 0}
    return [found[name] for name in names if name in found and found[name].variable.place == "matrix"]


def _cell(table: Table, row: Row, column: Column) -> Text:
    found = table.value(row, column.key)
    return safe("" if found is None or np.isnan(found[1]) else column.shown(found[1]))


# -- over steps ----------------------------------------------------------------------------------------------------------


def _phase(table: Table) -> Column | None:
    return next(
        (c for c in table.columns.values() if c.variable.name == "phase" and c.variable.place == "matrix"), None
    )


def print_over_steps(table: Table, rows: Sequence[Row], out: Console) -> None:
    """Print how the phase, the exponent and the soft rank went over the steps, where there are several."""
    phase = _phase(table)
    if phase is None or len(phase.variable.steps) < 2:
        return
    told = [row for row in rows if _tells(table, row, phase)]
    if not told:
        return
    steps = phase.variable.steps
    columns = _columns(table, ("alpha", "mp_softrank", "num_spikes") if out.width >= WIDE else ("alpha", "mp_softrank"))
    grid = Grid(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    grid.add_column("Over steps", no_wrap=True)
    grid.add_column(f"phase, {len(steps):,} steps from {steps[0]:,} to {steps[-1]:,}", no_wrap=out.width >= WIDE)
    for column in columns:
        grid.add_column(safe(column.key.replace("_", " ")), no_wrap=True)
    seen: dict[str, None] = {}
    for name, row in zip(short([(row, Meaning("", "")) for row in told]), told, strict=True):
        letters, names = _letters(phase, row.cells[phase.key])
        seen |= dict.fromkeys(names)
        grid.add_row(safe(name), letters, *(_trend(table, row, column) for column in columns))
    out.print(grid)
    known = [name for name in LETTERS if name in seen]
    legend = [part for name in known for part in ((LETTERS[name][0], LETTERS[name][1]), f" {name}   ")]
    out.print(joined(("Phases    ", "bold"), *legend))
    out.print()


def _tells(table: Table, row: Row, phase: Column) -> bool:
    """Whether a row has a phase, or an exponent, at any step."""
    if phase.key not in row.cells:
        return False
    meanings = phase.variable.meanings
    phases = {meanings[int(value)] for value in phase.history(row.cells[phase.key])[1] if np.isfinite(value)}
    exponents = [table.history(row, column.key) for column in _columns(table, ("alpha",))]
    return bool(phases - set(NO_PHASE)) or any(np.isfinite(values).any() for values in exponents)


def _letters(phase: Column, place: str) -> tuple[Text, list[str]]:
    """A letter for each step, and the phases that they stand for; of many steps the last of each stretch."""
    variable, text, seen = phase.variable, Text(), []
    values = variable.values[:, phase.split, variable.names.index(place)]
    there = variable.measured[:, phase.split, variable.names.index(place)]
    for chunk in np.array_split(np.arange(len(values)), min(STEPS, len(values))):
        last = chunk[-1]
        if not there[last] or not np.isfinite(values[last]):
            text.append(ABSENT, style="dim")
            continue
        name = variable.meanings[int(values[last])]
        letter, style = LETTERS.get(name, (name[:1].upper(), ""))
        text.append(letter, style=style)
        seen.append(name)
    return text, seen


def _trend(table: Table, row: Row, column: Column) -> Text:
    values = table.history(row, column.key)
    if not np.isfinite(values).any():
        return safe("")
    last = values[-1]
    curve = sparkline(values, STEPS, log=column.variable.scale == "log") if len(values) > 1 else ""
    return safe(f"{curve} {format_number(float(last)) if np.isfinite(last) else ''}".strip())
