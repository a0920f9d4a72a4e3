"""The terminal's table of two checkpoints side by side: what changed most comes first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from stratoscope.charts.numbers import TIMES, elide, short_names
from stratoscope.report.console import joined, safe
from stratoscope.report.sides import SIDES, relative_text, sides_text
from stratoscope.report.verdicts import NAME

MOST_ROWS = 30
MOST_WIDE, BETWEEN = 40, 3
"""The widest that a column may be, and the blanks between two."""


def print_changes(comparison: Mapping[str, Any], out: Console, every: bool) -> None:
    """Print a comparison as it is kept in a record's metadata.

    Args:
        comparison: `before`, `after` (where the checkpoints lie) and `layers`, from the largest change to the smallest.
        out: where to.
        every: whether to show all rows, those that could not be compared too.
    """
    rows = list(comparison["layers"])
    compared = [row for row in rows if row["status"] == "measured"]
    matrices = [row for row in compared if len(row["shape"]) > 1]
    shown = compared if every else matrices[:MOST_ROWS]
    half = max((out.width - 24) // 2, 16)
    names = [elide(str(comparison[side]), half) for side in ("before", "after")]
    out.print(joined(("Change  ", "bold"), names[0], "  to  ", names[1]))
    if shown:
        out.print(_grid(shown, out.width))
    elif not compared:
        out.print()
    left = len(compared) - len(shown)
    if left:
        out.print(Text(f"  ... and {left:,} more: --all shows them; they are in the HTML report and in --json.", "dim"))
    why = Counter(f"{row['status'].replace('_', ' ')}: {row['reason']}" for row in rows if row["status"] != "measured")
    for reason, count in why.most_common():
        out.print(safe(f"  {count:,} {reason}", "dim"))
    out.print()


def _grid(rows: Sequence[Mapping[str, Any]], width: int) -> Grid:
    names = [str(row["name"]) for row in rows]
    names = names if max(map(len, names)) <= NAME else short_names(names, NAME)
    columns = [
        ("Weights", names, "left"),
        ("change", [relative_text(row) for row in rows], "right"),
        ("cosine", ["" if row["cosine"] is None else f"{row['cosine']:.3f}" for row in rows], "right"),
    ]
    further = [
        (SIDES[key], [sides_text(row, key) for row in rows], "left")
        for key in SIDES
        if any(_there(row, key) for row in rows)
    ]
    further.append(("", [f"{row['kind']} {TIMES.join(map(str, row['shape']))}" for row in rows], "left"))
    room = width - sum(map(_width, columns))
    for column in further:
        if room >= _width(column):
            columns.append(column)
            room -= _width(column)
    grid = Grid(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for title, _, justify in columns:
        # why there is no number may be long
        grid.add_column(title, justify="right" if justify == "right" else "left", overflow="fold")
    for texts in zip(*(texts for _, texts, _ in columns), strict=True):
        grid.add_row(*map(safe, texts))
    return grid


def _width(column: tuple[str, list[str], str]) -> int:
    title, texts, _ = column
    return min(max(map(cell_len, [title, *texts])), MOST_WIDE) + BETWEEN


def _there(row: Mapping[str, Any], key: str) -> bool:
    return any(row[side].get(key) is not None for side in ("before", "after"))
