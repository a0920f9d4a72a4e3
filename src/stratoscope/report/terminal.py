"""A record in the terminal: findings first, then a table with a row for each weight matrix and activation.

Nothing is said by colour alone, and where the terminal cannot show a sign (an old encoding, a pipe), a plain one stands in.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.box import ASCII, SIMPLE_HEAD
from rich.console import Console
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table as Grid
from rich.text import Text

from stratoscope.charts.numbers import TIMES, elide, format_number, short_names, unit_text
from stratoscope.charts.sparkline import ASCII as PLAIN_BLOCKS
from stratoscope.charts.sparkline import BLOCKS, sparkline
from stratoscope.charts.variable import Variable
from stratoscope.findings import Finding, Outcome
from stratoscope.report.headline import headline, scalars
from stratoscope.report.summary import QUIET, SPOKEN, Saying, counted, coverage_sentence, grouped, sayings
from stratoscope.report.table import Column, Row, Table, table_of

if TYPE_CHECKING:
    from stratoscope.record.combine import Difference
    from stratoscope.record.record import Record

MOST_FINDINGS = 20
MOST_ROWS = 30
SPARK = 8
BETWEEN = 3
"""Blanks between two columns."""

NARROW = 100
"""Below this width, sparklines are left out of all but the first columns."""

_SIGNS = {
    Outcome.ISSUE: ("✗", "x", "bold red"),
    Outcome.FAILED: ("✗", "x", "bold magenta"),
    Outcome.TIP: ("!", "!", "bold yellow"),
    Outcome.PASSED: ("✓", "+", "green"),
}


def print_report(record: Record, console: Console | None = None) -> None:
    """Print what a record found.

    Args:
        record: the record.
        console: where to; standard output by default.
    """
    console = console or _console()
    name = str(record.meta.get("name") or record.run_id or "record")
    console.print(
        Rule(Text(elide(name, max(console.width - 8, 20)), style="bold"), align="left", characters=_line(console))
    )
    findings = record.findings
    _print_findings(findings, console)
    _print_numbers(record, console)
    table = table_of(record)
    _print_tables(table, findings, console)
    console.print(_hanging("Coverage", Text(coverage_sentence(table.rows))))
    if record.path is not None:
        where = Text(str(record.path), overflow="fold")
        console.print(_hanging("Record", where))


def _console() -> Console:
    return Console(highlight=False)


def _plain(console: Console) -> bool:
    return bool(console.options.ascii_only)


def _line(console: Console) -> str:
    return "-" if _plain(console) else "─"


def _hanging(label: str, text: Text) -> Grid:
    grid = Grid.grid(padding=(0, 1))
    grid.add_column(no_wrap=True, width=9)
    grid.add_column(overflow="fold")
    grid.add_row(Text(label, style="bold"), text)
    return grid


# -- findings -----------------------------------------------------------------------------------------------------------


def _print_findings(findings: Sequence[Finding], console: Console) -> None:
    found = grouped(findings)
    console.print(_verdict(found, console))
    console.print()
    left = MOST_FINDINGS
    for saying in sayings(findings):
        if left > 0:
            console.print(_saying(saying, left, console))
        left -= len(saying.items)
    if left < 0:
        console.print(Text(f"  ... and {-left:,} more, in the HTML report and in --json", style="dim"))
    if left < MOST_FINDINGS:
        console.print()


def _verdict(found: Mapping[Outcome, list[Finding]], console: Console) -> Text:
    text = Text()
    for outcome in (*SPOKEN, *QUIET):
        if outcome in found:
            fancy, plain, style = _SIGNS.get(outcome, ("·", "-", "dim"))
            text.append("   " if text else "")
            text.append(f"{plain if _plain(console) else fancy} {counted(outcome, len(found[outcome]))}", style=style)
    return text or Text("Nothing was judged.", style="dim")


def _saying(saying: Saying, most: int, console: Console) -> Grid:
    fancy, plain, style = _SIGNS[saying.outcome]
    grid = Grid.grid(padding=(0, 1))
    grid.add_column(width=1)
    grid.add_column(width=5, no_wrap=True)
    grid.add_column(overflow="fold")
    head = Text(plain if _plain(console) else fancy, style=style), Text(saying.code, style=style)
    for number, (finding, also) in enumerate(saying.items[:most]):
        body = Text(finding.says)
        body.append("\n" + _small(finding, also), style="dim")
        grid.add_row(*(head if number == 0 else ("", "")), _safe(body, console))
    if saying.do:
        arrow = "-> " if _plain(console) else "→ "
        grid.add_row("", "", _safe(Text.assemble((arrow, "bold"), saying.do), console))
    return grid


def _small(finding: Finding, also: list[str]) -> str:
    """The numbers that a finding rests on, and where it stands."""
    evidence = ", ".join(f"{name} {_evidence(value)}" for name, value in finding.evidence.items())
    split = f"{finding.split}, also on {', '.join(also)}" if also else finding.split or ""
    step = f"step {finding.step:,}" if finding.step is not None else ""
    return " · ".join(part for part in (evidence, split, step, finding.source) if part)


def _evidence(value: object) -> str:
    return format_number(value) if isinstance(value, int | float) else str(value)


def _safe(text: Text, console: Console) -> Text:
    """The same text where the console cannot show all of its signs."""
    if not _plain(console):
        return text
    plain = (
        text.plain.replace("·", "-").replace("…", "..").replace(TIMES, "x").encode("ascii", "replace").decode("ascii")
    )
    return Text(plain, overflow="fold")


# -- numbers of the whole network -----------------------------------------------------------------------------------------


def _print_numbers(record: Record, console: Console) -> None:
    """Loss, accuracy and other numbers that have no layer, each with its curve."""
    lines = [line for variable in scalars(record) for line in _scalar_lines(variable, console)]
    if not lines:
        return
    grid = Grid.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True, justify="right")
    grid.add_column(no_wrap=True, style="dim")
    grid.add_column(no_wrap=True, overflow="crop")
    for name, value, interval, curve in lines:
        grid.add_row(_safe(Text(name), console), Text(value, style="bold"), Text(interval), Text(curve, style="cyan"))
    console.print(grid)
    console.print()


def _scalar_lines(variable: Variable, console: Console) -> Iterator[tuple[str, str, str, str]]:
    ends = variable.ends()
    for place, split in enumerate(variable.splits):
        last = variable.last(place)
        if last is None:
            continue
        values = variable.values[:, place][variable.measured[:, place]]
        curve = _spark(values, console, log=variable.scale == "log", width=20) if len(values) > 2 else ""
        value = float(variable.values[last, place])
        low, high = (None, None) if ends is None else (float(end[last, place]) for end in ends)
        interval = "" if low is None or high is None else f"{format_number(low)} to {format_number(high)}"
        name = f"{variable.instrument} {variable.name.replace('_', ' ')}"
        shown = f"{_shown(variable, value)} {unit_text(variable.units)}".strip()
        yield elide(f"{name} ({split})" if split else name, 36), shown, interval, curve


def _shown(variable: Variable, value: float) -> str:
    known = variable.meanings and math.isfinite(value)
    return variable.meanings[int(value)] if known else format_number(value)


def _spark(values: Any, console: Console, *, log: bool = False, width: int = SPARK) -> str:
    return sparkline(values, width, log=log, blocks=PLAIN_BLOCKS if _plain(console) else BLOCKS)


# -- the table ------------------------------------------------------------------------------------------------------------


def _print_tables(table: Table, findings: Sequence[Finding], console: Console) -> None:
    spoken = {finding.layer for finding in findings if finding.wants_action and finding.layer is not None}
    weights = [row for row in table.rows if row.tensor is not None and row.shape and len(row.shape) > 1 and row.cells]
    layers = [row for row in table.rows if row.tensor is None and row.cells]
    others = [row for row in table.rows if row.cells and row not in weights and row not in layers]
    explained: dict[str, str] = {}
    for title, rows in (("Weights", weights), ("Layers", layers)):
        if rows:
            explained |= _print_table(title, table, rows, spoken, console)
    if explained:
        for key, meaning in explained.items():
            line = Text.assemble((key.replace("_", " "), "bold"), "  ", meaning, style="dim", overflow="fold")
            console.print(Padding(_safe(line, console), (0, 0, 0, 2)))
        console.print()
    if others:
        many = f"{len(others):,} more parameter{'s' if len(others) > 1 else ''} (biases, gains, ...)"
        console.print(Text(f"{many} in the HTML report and in --json.\n", style="dim"))


def _print_table(title: str, table: Table, rows: list[Row], spoken: set[str], console: Console) -> dict[str, str]:
    """Print one table; returns the meaning of its columns."""
    shown = _most_telling(rows, spoken)
    columns = headline(table, rows)
    names = _names([row.name for row in shown])
    signs = [_sign(row, spoken, console) for row in shown]
    grid = Grid(box=ASCII if _plain(console) else SIMPLE_HEAD, pad_edge=False, padding=(0, 1), title_justify="left")
    grid.add_column(Text(title), no_wrap=True)
    room = console.width - max(map(len, [*names, title])) - 6
    if console.width >= NARROW:
        grid.add_column("", no_wrap=True, style="dim")
        kinds = [_kind(row) for row in shown]
        room -= max(map(len, kinds)) + BETWEEN
    fit = _fit(table, columns, shown, room, console)
    for column, _, width in fit:
        grid.add_column(
            Text(column.key.replace("_", " ")), justify="right", no_wrap=False, min_width=width, max_width=width
        )
    for number, name in enumerate(names):
        called = _safe(Text.assemble((signs[number], "bold yellow"), " ", name), console)
        about = [_safe(Text(kinds[number]), console)] if console.width >= NARROW else []
        grid.add_row(called, *about, *(Text(texts[number], no_wrap=True) for _, texts, _ in fit))
    console.print(grid)
    if len(shown) < len(rows):
        console.print(Text(f"{len(rows) - len(shown):,} more rows in the HTML report and in --json.", style="dim"))
    return {column.key: column.meaning for column, _, _ in fit}


def _names(names: list[str]) -> list[str]:
    """Whole names where they are short, and what tells them apart where they are not."""
    return names if max(map(len, names)) <= 24 else short_names(names, 24)


def _sign(row: Row, spoken: set[str], console: Console) -> str:
    """A mark beside rows that a finding speaks of."""
    if not {row.layer, row.name, row.tensor or ""} & spoken:
        return " "
    return "*" if _plain(console) else "•"


def _kind(row: Row) -> str:
    return " ".join(part for part in (row.kind, TIMES.join(map(str, row.shape or ()))) if part)


def _most_telling(rows: list[Row], spoken: set[str]) -> list[Row]:
    """All rows, or those that findings speak of and the first ones up to `MOST_ROWS`."""
    if len(rows) <= MOST_ROWS:
        return rows
    named = [row for row in rows if {row.layer, row.name} & spoken][:MOST_ROWS]
    kept = {id(row) for row in (named + [row for row in rows if row not in named])[:MOST_ROWS]}
    return [row for row in rows if id(row) in kept]


def _fit(
    table: Table, columns: list[Column], rows: list[Row], room: int, console: Console
) -> list[tuple[Column, list[str], int]]:
    """As many columns as there is room for: each with its cells and its width."""
    fit: list[tuple[Column, list[str], int]] = []
    for column in columns:
        curves = console.width >= NARROW or len(fit) < 3
        texts = [_cell(table, row, column, curves, console) for row in rows]
        words = column.key.replace("_", " ").split()
        width = max(*(len(text) for text in texts), *(len(word) for word in words))
        if room < width + BETWEEN:
            break
        room -= width + BETWEEN
        fit.append((column, texts, width))
    return fit


def _cell(table: Table, row: Row, column: Column, curves: bool, console: Console) -> str:
    found = table.value(row, column.key)
    if found is None:
        return ""
    text = column.shown(found[1])
    if _plain(console):
        text = text.replace("∞", "inf")
    history = table.history(row, column.key)
    if not curves or len(history) < 3 or column.variable.meanings:
        return text
    return f"{text} {_spark(history, console, log=column.variable.scale == 'log'):<{min(SPARK, len(history))}}"


# -- lists ----------------------------------------------------------------------------------------------------------------


def print_instruments(rows: Sequence[Mapping[str, Any]], console: Console | None = None) -> None:
    """Print what instruments there are.

    Args:
        rows: each with `key`, `title`, `source`, `requires`, `cost`, `settings` and `codes`.
        console: where to; standard output by default.
    """
    console = console or _console()
    for row in rows:
        head = Text.assemble((str(row["key"]), "bold cyan"), "  ", str(row["title"]), "  ", (str(row["source"]), "dim"))
        console.print(head)
        facts = {
            "cost": row.get("cost", ""),
            "needs": ", ".join(row.get("requires", ())),
            "uses": ", ".join(row.get("uses", ())),
            "settings": ", ".join(f"{name}={value}" for name, value in dict(row.get("settings", {})).items()),
        }
        for name, text in facts.items():
            if text:
                console.print(Padding(_hanging(name, Text(str(text), overflow="fold")), (0, 0, 0, 2)))
        for code, meaning in dict(row.get("codes", {})).items():
            console.print(Padding(_hanging(str(code), Text(str(meaning), style="dim", overflow="fold")), (0, 0, 0, 2)))
        console.print()


def print_comparison(
    differences: Sequence[Difference], first: str, second: str, top: int = 20, console: Console | None = None
) -> None:
    """Print where two runs differ.

    Args:
        differences: one for each variable that both runs have, as `record.combine.compare` gives them.
        first: what to call the first run.
        second: what to call the second.
        top: show so many.
        console: where to; standard output by default.
    """
    console = console or _console()
    changed = [difference for difference in differences if difference.changed]
    console.print(Text.assemble((first, "bold"), "  against  ", (second, "bold"), overflow="fold"))
    console.print(Text(f"{len(changed):,} of {len(differences):,} variables that both have differ.", style="dim"))
    if not changed:
        return
    grid = Grid(box=ASCII if _plain(console) else SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    grid.add_column("variable", overflow="fold", ratio=3)
    grid.add_column("largest change at", overflow="fold", ratio=3)
    for name in ("before", "after", "change"):
        grid.add_column(name, justify="right", no_wrap=True)
    grid.add_column("changed", justify="right", no_wrap=True)
    for difference in changed[:top]:
        where = ", ".join(f"{value}" for value in difference.where.values())
        unit = unit_text(difference.units)
        grid.add_row(
            Text(f"{difference.key}.{difference.variable}" + (f" [{unit}]" if unit else "")), Text(where),
            Text(format_number(difference.before)), Text(format_number(difference.after)),
            Text(_signed(difference.after - difference.before)), Text(f"{difference.changed:,} of {difference.compared:,}"),
        )  # fmt: skip
    console.print(grid)
    if len(changed) > top:
        console.print(Text(f"{len(changed) - top:,} more; raise --top to see them.", style="dim"))


def _signed(value: float) -> str:
    return f"+{format_number(value)}" if value > 0 else format_number(value)
