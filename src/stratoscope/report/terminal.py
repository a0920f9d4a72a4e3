"""A record in the terminal: findings first, then a table with a row for each weight matrix and activation.

Nothing is said by colour alone. Text from a record cannot steer the terminal, and where the output cannot show a sign (an
old encoding), a plain one stands in.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table as Grid
from rich.text import Text

from stratoscope.charts.numbers import TIMES, elide, format_number, short_names, unit_text
from stratoscope.charts.sparkline import sparkline
from stratoscope.charts.strips import timeline_of
from stratoscope.charts.variable import Variable
from stratoscope.diagnoses.registry import available as diagnoses
from stratoscope.findings import Finding, Outcome
from stratoscope.report.changes import print_changes
from stratoscope.report.console import hanging, joined, safe, speaking
from stratoscope.report.headline import headline, scalars
from stratoscope.report.rows import MISSING, why_not
from stratoscope.report.spent import spent_of
from stratoscope.report.summary import (
    Saying,
    counted,
    counts,
    coverage_sentence,
    evidence_of,
    partial,
    sayings,
    series_sentence,
)
from stratoscope.report.table import Column, Row, Table, table_of
from stratoscope.report.timeline import print_timeline
from stratoscope.report.verdicts import has_verdicts, print_verdicts

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
    Outcome.ISSUE: ("✗", "bold red"),
    Outcome.FAILED: ("✗", "bold magenta"),
    Outcome.TIP: ("!", "bold yellow"),
    Outcome.PASSED: ("✓", "green"),
}


def print_report(record: Record, console: Console | None = None, *, every: bool = False) -> None:
    """Print what a record found.

    Args:
        record: the record.
        console: where to; standard output by default.
        every: leave no row out, and show those that were not measured with their reasons.
    """
    name = str(record.meta.get("name") or record.run_id or "record")
    findings, table = record.findings, table_of(record)
    with speaking(console) as out:
        out.print(Rule(safe(elide(name, max(out.width - 8, 20)), "bold"), align="left"))
        if said := partial(record):
            out.print(safe(said, "bold yellow"))
        _print_findings(findings, out, at_once=len(record.steps) < 2)
        print_course(record, out)
        _print_numbers(record, out)
        alone = not record.meta.get("data")
        judged = has_verdicts(table, alone)
        if judged:
            print_verdicts(table, out, every)
        if not (judged and alone):
            _print_tables(table, findings, out)
        if "comparison" in record.meta:
            print_changes(record.meta["comparison"], out, every)
        if "series" in record.meta:
            out.print(hanging("Steps", series_sentence(record)))
        out.print(hanging("Coverage", coverage_sentence(table.rows)))
        if record.path is not None:
            out.print(hanging("Record", str(record.path)))
        if status := status_line(record):
            out.print(hanging("Status", status))


def status_line(record: Record) -> str:
    """Why a record is not finished, and how far it went; empty where it is."""
    status = record.meta.get("status", "finished")
    if status == "finished":
        return ""
    why = "or was killed" if status == "running" else record.meta.get("stopped")
    last = f"; the last step is {record.steps[-1]:,}" if record.steps and record.steps[-1] else ""
    return f"{status} ({why}){last}" if why else f"{status}{last}"


# -- findings -------------------------------------------------------------------------------------------------------------


def _print_findings(findings: Sequence[Finding], out: Console, *, at_once: bool) -> None:
    out.print(verdict_line(findings))
    out.print()
    every = sayings(findings)
    for saying in every[:MOST_FINDINGS]:
        out.print(saying_grid(saying))
    if len(every) > MOST_FINDINGS:
        out.print(Text(f"  ... and {len(every) - MOST_FINDINGS:,} more, in the HTML report and in --json", style="dim"))
    # that one step has no course need not be said each time; it is counted, and in the HTML report
    unjudged = _unjudged(
        [f for f in findings if not (at_once and f.code.endswith("000") and f.instrument in diagnoses())]
    )
    if unjudged.row_count:
        out.print(unjudged)
    if every or unjudged.row_count:
        out.print()


def verdict_line(findings: Sequence[Finding]) -> Text:
    """How many findings there are of each outcome."""
    text = Text()
    for outcome, number in counts(findings).items():
        sign, style = _SIGNS.get(outcome, ("·", "dim"))
        text.append("   " if text else "")
        text.append(f"{sign} {counted(outcome, number)}", style=style)
    return text or Text("Nothing was judged.", style="dim")


def saying_grid(saying: Saying, more: Sequence[tuple[str, str]] = ()) -> Grid:
    """One statement: the worst of what it speaks of with its numbers, where else it holds, and what to do.

    Args:
        saying: what is said.
        more: further lines beside it, each with a style.
    """
    sign, style = _SIGNS[saying.outcome]
    grid = finding_grid()
    body = joined(saying.worst.says, "\n", (_small(saying.worst), "dim"))
    if saying.others:
        body.append_text(joined("\n", saying.others))
    grid.add_row(safe(sign, style), safe(saying.code, style), body)
    if saying.do:
        grid.add_row("", "", joined(("→ ", "bold"), saying.do))
    for text, its_style in more:
        grid.add_row("", "", safe(text, its_style, overflow="fold"))
    return grid


def _unjudged(findings: Sequence[Finding]) -> Grid:
    """What could not be judged, and why: a line for each code."""
    grid = finding_grid()
    for outcome in (Outcome.SKIPPED, Outcome.NOT_APPLICABLE):
        by_code: dict[str, list[Finding]] = {}
        for finding in findings:
            if finding.outcome is outcome:
                by_code.setdefault(finding.code, []).append(finding)
        for code, some in by_code.items():
            more = f", and {len(some) - 1:,} more" if len(some) > 1 else ""
            grid.add_row(safe("·", "dim"), safe(code, "dim"), safe(f"{some[0].says}{more}", "dim", overflow="fold"))
    return grid


def finding_grid() -> Grid:
    """Columns for a sign, a code and what is said."""
    grid = Grid.grid(padding=(0, 1))
    grid.add_column(width=1)
    grid.add_column(width=5, no_wrap=True)
    grid.add_column(overflow="fold")
    return grid


def _small(finding: Finding) -> str:
    """The numbers that a finding rests on, and where it stands."""
    evidence = ", ".join(f"{name} {_evidence(value)}" for name, value in evidence_of(finding).items())
    step = f"step {finding.step:,}" if finding.step is not None else ""
    return " · ".join(part for part in (evidence, finding.split or "", step, finding.source) if part)


def _evidence(value: object) -> str:
    return format_number(value) if isinstance(value, int | float) else str(value)


# -- the course of a training ---------------------------------------------------------------------------------------------


def print_course(record: Record, out: Console) -> None:
    """Print the phases of each layer, and what measuring took, where the record holds that."""
    strips = timeline_of(record)
    if strips is not None:
        print_timeline(strips, out)
    spent = spent_of(record)
    if spent is not None:
        out.print(safe(spent.sentence, overflow="fold"))
        out.print()


# -- numbers of the whole network -----------------------------------------------------------------------------------------


def _print_numbers(record: Record, out: Console) -> None:
    """Loss, accuracy and other numbers that have no layer, each with its curve."""
    lines = [line for variable in scalars(record) for line in _scalar_lines(variable)]
    if not lines:
        return
    grid = Grid.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True, justify="right")
    grid.add_column(no_wrap=True, style="dim")
    grid.add_column(no_wrap=True, overflow="crop")
    for name, value, interval, curve in lines:
        grid.add_row(safe(name), safe(value, "bold"), safe(interval), safe(curve, "cyan"))
    out.print(grid)
    out.print()


def _scalar_lines(variable: Variable) -> Iterator[tuple[str, str, str, str]]:
    ends = variable.ends()
    for place, split in enumerate(variable.splits):
        last = variable.last(place)
        if last is None:
            continue
        values = variable.values[:, place][variable.measured[:, place]]
        curve = sparkline(values, 20, log=variable.scale == "log") if len(values) > 2 else ""
        value = float(variable.values[last, place])
        low, high = (None, None) if ends is None else (float(end[last, place]) for end in ends)
        interval = "" if low is None or high is None else f"{format_number(low)} to {format_number(high)}"
        name = f"{variable.instrument} {variable.name.replace('_', ' ')}"
        shown = f"{_shown(variable, value)} {unit_text(variable.units)}".strip()
        yield elide(f"{name} ({split})" if split else name, 36), shown, interval, curve


def _shown(variable: Variable, value: float) -> str:
    known = variable.meanings and math.isfinite(value)
    return variable.meanings[int(value)] if known else format_number(value)


# -- the table ------------------------------------------------------------------------------------------------------------


def _print_tables(table: Table, findings: Sequence[Finding], out: Console) -> None:
    spoken = {finding.layer for finding in findings if finding.wants_action and finding.layer is not None}
    measured = [row for row in table.rows if row.cells]
    weights = [row for row in measured if row.tensor is not None and row.shape and len(row.shape) > 1]
    layers = [row for row in measured if row.tensor is None]
    explained: dict[str, str] = {}
    for title, rows in (("Weights", weights), ("Layers", layers)):
        if rows:
            explained |= _print_table(title, table, rows, spoken, out)
    for key, meaning in explained.items():
        line = joined((key.replace("_", " "), "bold"), f"  {meaning}")
        line.stylize("dim")
        out.print(Padding(line, (0, 0, 0, 2)))
    if explained:
        out.print()
    others = len(measured) - len(weights) - len(layers)
    if others:
        many = f"{others:,} more parameter{'s' if others > 1 else ''} (biases, gains, ...)"
        out.print(Text(f"{many} in the HTML report and in --json.", style="dim"))
        out.print()


def _print_table(title: str, table: Table, rows: list[Row], spoken: set[str], out: Console) -> dict[str, str]:
    """Print one table; returns the meaning of its columns."""
    shown = _most_telling(rows, spoken)
    names = [
        f"{'•' if _is_spoken_of(row, spoken) else ' '} {name}" for row, name in zip(shown, _names(shown), strict=True)
    ]
    kinds = [_kind(row) for row in shown] if out.width >= NARROW else []
    room = out.width - max(map(cell_len, [*names, title])) - 4
    room -= max(map(cell_len, kinds)) + BETWEEN if kinds else 0
    fit = _fit(table, headline(table, rows), shown, room, sparse=out.width < NARROW)
    grid = Grid(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1), title_justify="left")
    grid.add_column(Text(title), no_wrap=True)
    if kinds:
        grid.add_column("", no_wrap=True, style="dim")
    for column, _, width in fit:
        grid.add_column(safe(column.key.replace("_", " ")), justify="right", min_width=width, max_width=width)
    for number, name in enumerate(names):
        kind = [safe(kinds[number])] if kinds else []
        grid.add_row(safe(name), *kind, *(safe(texts[number], no_wrap=True) for _, texts, _ in fit))
    out.print(grid)
    if len(shown) < len(rows):
        out.print(Text(f"{len(rows) - len(shown):,} more rows in the HTML report and in --json.", style="dim"))
    return {column.key: column.meaning for column, _, _ in fit}


def _names(rows: list[Row]) -> list[str]:
    """Whole names where they are short, and what tells them apart where they are not."""
    names = [row.name for row in rows]
    return names if max(map(len, names)) <= 24 else short_names(names, 24)


def _is_spoken_of(row: Row, spoken: set[str]) -> bool:
    return bool({row.layer, row.name, row.tensor or ""} & spoken)


def _kind(row: Row) -> str:
    return " ".join(part for part in (row.kind, TIMES.join(map(str, row.shape or ()))) if part)


def _most_telling(rows: list[Row], spoken: set[str]) -> list[Row]:
    """All rows, or those that findings speak of and the first ones up to `MOST_ROWS`."""
    if len(rows) <= MOST_ROWS:
        return rows
    first = sorted(range(len(rows)), key=lambda number: not _is_spoken_of(rows[number], spoken))[:MOST_ROWS]
    return [rows[number] for number in sorted(first)]


def _fit(
    table: Table, columns: list[Column], rows: list[Row], room: int, *, sparse: bool
) -> list[tuple[Column, list[str], int]]:
    """As many columns as there is room for: each with its cells and its width."""
    fit: list[tuple[Column, list[str], int]] = []
    for column in columns:
        texts = [_cell(table, row, column, curves=not sparse or len(fit) < 3) for row in rows]
        words = column.key.replace("_", " ").split()
        width = max(*(cell_len(text) for text in texts), *(cell_len(word) for word in words))
        if room < width + BETWEEN:
            break
        room -= width + BETWEEN
        fit.append((column, texts, width))
    return fit


def _cell(table: Table, row: Row, column: Column, *, curves: bool) -> str:
    found = table.value(row, column.key)
    if found is None:
        return ""
    missing = not math.isfinite(found[1]) and why_not(column, row.cells[column.key], found[0])
    text = MISSING if missing else column.shown(found[1])
    history = table.history(row, column.key)
    if missing and not np.isfinite(history).any():
        return f"{text}{' ' * (1 + min(SPARK, len(history)) if curves and len(history) > 2 else 0)}"
    if not curves or len(history) < 3 or column.variable.meanings:
        return text
    return f"{text} {sparkline(history, SPARK, log=column.variable.scale == 'log'):<{min(SPARK, len(history))}}"


# -- lists ----------------------------------------------------------------------------------------------------------------


def print_instruments(rows: Sequence[Mapping[str, Any]], console: Console | None = None) -> None:
    """Print what instruments there are.

    Args:
        rows: each with `key`, `title`, `source`, `requires`, `cost`, `settings` and `codes`.
        console: where to; standard output by default.
    """
    with speaking(console) as out:
        for row in rows:
            _print_instrument(row, out)


def _print_instrument(row: Mapping[str, Any], out: Console) -> None:
    out.print(joined((str(row["key"]), "bold cyan"), f"  {row['title']}  ", (str(row["source"]), "dim")))
    facts = {
        "cost": row.get("cost", ""),
        "needs": ", ".join(row.get("requires", ())),
        "uses": ", ".join(row.get("uses", ())),
        "settings": ", ".join(f"{name}={value}" for name, value in dict(row.get("settings", {})).items()),
    }
    lines = [(name, str(text), "") for name, text in facts.items() if text]
    lines += [(str(code), str(meaning), "dim") for code, meaning in dict(row.get("codes", {})).items()]
    for name, text, style in lines:
        out.print(Padding(hanging(name, text, style), (0, 0, 0, 2)))
    out.print()


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
    changed = [difference for difference in differences if difference.changed]
    with speaking(console) as out:
        out.print(joined((first, "bold"), "  against  ", (second, "bold")))
        out.print(Text(f"{len(changed):,} of {len(differences):,} variables that both have differ.", style="dim"))
        if changed:
            out.print(_changes(changed[:top]))
        if len(changed) > top:
            out.print(Text(f"{len(changed) - top:,} more; raise --top to see them.", style="dim"))


def _changes(changed: Sequence[Difference]) -> Grid:
    grid = Grid(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    names = [_named(difference) for difference in changed]
    grid.add_column("variable", overflow="fold", no_wrap=max(map(cell_len, names)) <= 30)
    grid.add_column("largest at", overflow="fold")
    for name in ("before", "after", "change", "changed"):
        grid.add_column(name, justify="right", no_wrap=True)
    for name, difference in zip(names, changed, strict=True):
        grid.add_row(
            safe(name),
            safe(", ".join(str(value) for value in difference.where.values())),
            safe(format_number(difference.before)),
            safe(format_number(difference.after)),
            safe(_signed(difference.after - difference.before)),
            safe(f"{difference.changed:,}/{difference.compared:,}"),
        )
    return grid


def _named(difference: Difference) -> str:
    unit = unit_text(difference.units)
    return f"{difference.key}.{difference.variable}" + (f" [{unit}]" if unit else "")


def _signed(value: float) -> str:
    return f"+{format_number(value)}" if value > 0 else format_number(value)
