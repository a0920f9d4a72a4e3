"""Studies and their claims in the terminal."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stratoscope.charts.numbers import format_number, unit_text

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_SIGNS = {"held": ("✓", "green"), "did not hold": ("✗", "bold red"), "undecided": ("·", "dim")}

Rows = Sequence[Mapping[str, Any]]


def print_studies(rows: Rows, console: Console | None = None) -> None:
    """Print what studies there are.

    Args:
        rows: each with `name`, `title`, `paper`, `question` and `claims`.
        console: where to; standard output by default.
    """
    from rich.padding import Padding

    from stratoscope.report.console import hanging, joined, speaking

    with speaking(console) as out:
        if not rows:
            out.print("There are no studies.")
        for row in rows:
            out.print(joined((row["name"], "bold cyan"), f"  {row['title']}  ", (row["paper"], "dim")))
            out.print(Padding(hanging("asks", row["question"]), (0, 0, 0, 2)))
            for claim in row["claims"]:
                doubted = "" if claim["expected"] else "; expected not to hold"
                out.print(Padding(hanging("claim", f"{claim['claim']} ({claim['where']}{doubted})"), (0, 0, 0, 2)))
            out.print()


def print_claims(rows: Rows, console: Console | None = None) -> None:
    """Print what came out of claims.

    Args:
        rows: of the ledger, as `--json` prints them.
        console: where to; standard output by default.
    """
    from stratoscope.report.console import speaking

    with speaking(console) as out:
        for study in dict.fromkeys(row["study"] for row in rows):
            own = [row for row in rows if row["study"] == study]
            _print_study(study, own, out)
        out.print(_counts(rows))


def print_outcome(rows: Rows, tasks: Rows, seconds: float, folder: str, ledger: str) -> None:
    """Print what came of one study: its claims, the tasks that were not finished, and where everything lies.

    Args:
        rows: of the ledger, as `--json` prints them.
        tasks: each with `state`, `reason` and `folder`.
        seconds: what it took.
        folder: of the records.
        ledger: the file of the ledger.
    """
    from stratoscope.report.console import hanging, speaking

    with speaking(None) as out:
        print_claims(rows, out)
        out.print()
        for task in tasks:
            if task["state"] != "finished":
                out.print(hanging(task["state"], f"{task['folder']}: {task['reason']}"))
        done = sum(task["state"] == "finished" for task in tasks)
        out.print(hanging("Tasks", f"{done} of {len(tasks)} finished, {format_number(seconds)} s this time"))
        out.print(hanging("Records", folder))
        out.print(hanging("Ledger", ledger))


def _print_study(study: str, rows: Rows, out: Console) -> None:
    from rich.table import Table

    from stratoscope.report.console import joined

    out.print(joined((study, "bold cyan"), "  ", (rows[0]["paper"], "dim")))
    grid = Table.grid(padding=(0, 1))
    grid.add_column(width=1)
    grid.add_column(width=12, no_wrap=True)
    grid.add_column(overflow="fold")
    blank = [row for row in rows if _is_blank(row)]
    for row in rows:
        if row not in blank:
            sign, style = _SIGNS[row["result"]]
            grid.add_row(_styled(sign, style), _styled(row["result"], style), _claim(row))
    sign, style = _SIGNS["undecided"]
    for claim, reason in _gathered(blank):
        grid.add_row(_styled(sign, style), _styled("not measured", style), joined(claim, "\n", (reason, "dim")))
    out.print(grid)
    out.print()


def _is_blank(row: Mapping[str, Any]) -> bool:
    """Whether nothing was measured of a claim, and nothing failed."""
    return row["result"] == "undecided" and not row["numbers"] and not row["failed"]


def _gathered(rows: Rows) -> list[tuple[str, str]]:
    """Claims that are the same of several things, and not measured for the same reason, each with that reason.

    >>> rows = [{"claim": f"{net}: it is so", "reason": f"task {net}-1 skipped: no {net} here"} for net in ("a1", "b2")]
    >>> _gathered(rows)
    [('a1, b2: it is so', 'skipped: no ... here')]
    """
    found: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        thing, colon, said = row["claim"].partition(": ")
        reason = re.sub(r"^task \S+ ", "", row["reason"])
        reason = reason.replace(thing, "...") if colon else reason
        found.setdefault((f": {said}" if colon else "", reason), []).append(thing)
    return [(("; " if not said else ", ").join(things) + said, reason) for (said, reason), things in found.items()]


def _claim(row: Mapping[str, Any]) -> RenderableType:
    from stratoscope.report.console import joined

    numbers = numbers_of(row)
    parts: list[str | tuple[str, str]] = [f"{row['claim']} ({row['where']})"]
    if numbers:
        parts += ["\n", numbers]
    parts += ["\n", (row["reason"], "dim")]
    if row["note"]:
        parts += ["\n", (row["note"], "dim")]
    if row["as_expected"] is False or not row["expected"]:
        expected = "expected to hold" if row["expected"] else "expected not to hold"
        parts += ["\n", (f"against expectation: {expected}", "bold") if row["as_expected"] is False else expected]
    if row["date"]:
        about = f"{row['budget']}, {row['date'][:10]}, stratoscope {row['version']}"
        parts += ["\n", (about, "dim")]
    return joined(*parts)


def numbers_of(row: Mapping[str, Any]) -> str:
    """The numbers of a claim in one line: the effect with its spread and interval, then others.

    >>> row = {"measure": "gain", "units": "1", "seeds": 3, "spread": 0.1, "numbers": {"mean": 1.1, "low": 0.85}}
    >>> numbers_of(row)
    'gain 1.1 ± 0.1 over 3 seeds'
    """
    numbers = dict(row["numbers"])
    if "mean" not in numbers:
        return ""
    mean, low, high = (numbers.pop(name, None) for name in ("mean", "low", "high"))
    margin = numbers.pop("margin", None)
    text = f"{row['measure']} {format_number(mean)}"
    if row["spread"] is not None:
        text += f" ± {format_number(row['spread'])}"
    text = f"{text} {unit_text(row['units'])}".rstrip()
    if row["seeds"]:
        text += f" over {row['seeds']} seed{'' if row['seeds'] == 1 else 's'}"
    if low is not None and high is not None:
        text += f", 95 % interval {format_number(low)} to {format_number(high)}"
    if margin is not None:
        text += f", margin {format_number(margin)}"
    return "; ".join([text, *(f"{name} {format_number(value)}" for name, value in numbers.items())])


def _counts(rows: Rows) -> RenderableType:
    from stratoscope.report.console import joined

    results = [row["result"] for row in rows]
    parts: list[str | tuple[str, str]] = []
    for result, (sign, style) in _SIGNS.items():
        parts += ["   " if parts else "", (f"{sign} {results.count(result)} {result}", style)]
    against = sum(row["as_expected"] is False for row in rows)
    return joined(*parts, f"   {against} against expectation" if against else "")


def _styled(value: str, style: str) -> RenderableType:
    from stratoscope.report.console import safe

    return safe(value, style)
