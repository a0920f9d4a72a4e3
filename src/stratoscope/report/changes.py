"""The terminal's table of two checkpoints side by side: what changed most comes first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from stratoscope.charts.numbers import TIMES, elide, short_names
from stratoscope.report.console import hanging, joined, safe
from stratoscope.report.sides import SIDES, relative_text, sides_text
from stratoscope.report.verdicts import NAME, WIDE

MOST_ROWS = 30


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
        out.print(hanging(f"{count:,}", reason, "dim"))
    out.print()


def _grid(rows: Sequence[Mapping[str, Any]], width: int) -> Grid:
    told = [key for key in SIDES if any(_there(row, key) for row in rows)]
    told = told if width >= WIDE else told[:2]
    grid = Grid(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    grid.add_column("Weights", no_wrap=True)
    if width >= WIDE:
        grid.add_column("", no_wrap=True, style="dim")
    for name in ("change", "cosine"):
        grid.add_column(name, justify="right", no_wrap=True)
    for key in told:
        grid.add_column(SIDES[key], overflow="fold")
    names = [str(row["name"]) for row in rows]
    names = names if max(map(len, names)) <= NAME else short_names(names, NAME)
    for name, row in zip(names, rows, strict=True):
        shape = [safe(f"{row['kind']} {TIMES.join(map(str, row['shape']))}")] if width >= WIDE else []
        cosine = "" if row["cosine"] is None else f"{row['cosine']:.3f}"
        grid.add_row(
            safe(name), *shape, safe(relative_text(row)), safe(cosine), *(safe(sides_text(row, key)) for key in told)
        )
    return grid


def _there(row: Mapping[str, Any], key: str) -> bool:
    return any(row[side].get(key) is not None for side in ("before", "after"))
