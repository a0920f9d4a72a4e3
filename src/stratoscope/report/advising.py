"""Advice in the terminal: what to do first, on which numbers that rests, and where the manual explains it."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.rule import Rule
from rich.text import Text

from stratoscope.charts.numbers import elide, format_number
from stratoscope.report.advice import Advice
from stratoscope.report.codes import page_of
from stratoscope.report.console import hanging, joined, safe, speaking
from stratoscope.report.summary import Saying, partial, sayings
from stratoscope.report.terminal import print_course, saying_grid, status_line, verdict_line

MOST_CHANGES = 12
"""Findings that came or went and are named."""


def print_advice(advice: Advice, console: Console | None = None) -> None:
    """Print what a record's findings ask for, each with the address of its page in the manual.

    Args:
        advice: what is advised.
        console: where to; standard output by default.
    """
    record = advice.record
    name = str(record.meta.get("name") or record.run_id or "record")
    with speaking(console) as out:
        out.print(Rule(safe(elide(name, max(out.width - 8, 20)), "bold"), align="left"))
        if said := partial(record):
            out.print(safe(said, "bold yellow"))
        out.print(verdict_line(advice.findings))
        out.print()
        every = advice.sayings
        for saying in every:
            out.print(saying_grid(saying, list(_beside(advice, saying))))
        if not every:
            among = f" among {', '.join(advice.only)}" if advice.only else ""
            out.print(Text(f"Nothing asks for anything{among}.", style="green"))
        out.print()
        _print_changes(advice, out)
        print_course(record, out)
        for label, text in _about(advice):
            out.print(hanging(label, text))


def _beside(advice: Advice, saying: Saying) -> Iterator[tuple[str, str]]:
    """Lines beside a statement: whether it is new, and where it is explained."""
    if advice.is_new(saying):
        yield "new: it is not among the findings that are stored", "cyan"
    if page := page_of(saying.code):
        yield page, "dim"


def _print_changes(advice: Advice, out: Console) -> None:
    """What judging again has changed."""
    if not advice.stored:
        out.print(hanging("Changed", "this record had not been judged before; it is now, from what it saved."))
        return
    came, went = len(advice.new), len(advice.gone)
    if not came and not went:
        out.print(hanging("Changed", "nothing: the stored findings ask for the same."))
        return
    out.print(hanging("Changed", f"against the stored findings {came:,} came and {went:,} went."))
    lines = [("+", saying.worst.says, saying.others, saying.code) for saying in sayings(advice.new)]
    reasons = {id(one.finding): one.now for one in advice.gone}
    for saying in sayings([one.finding for one in advice.gone]):
        now = reasons[id(saying.worst)]
        lines.append(("-", saying.worst.says, "; ".join(part for part in (now, saying.others) if part), saying.code))
    for sign, says, more, code in lines[:MOST_CHANGES]:
        out.print(joined((f"  {sign} {code} ", "bold"), says, (f" ({more})" if more else "", "dim")))
    if len(lines) > MOST_CHANGES:
        out.print(Text(f"  ... and {len(lines) - MOST_CHANGES:,} more, in --json", style="dim"))


def _about(advice: Advice) -> Iterator[tuple[str, str]]:
    """With which settings it was judged, and where the record lies."""
    tables = {**advice.settings.instruments, **advice.settings.diagnoses}
    given = [f"{key}.{name} = {_value(value)}" for key, table in tables.items() for name, value in table.items()]
    if given:
        yield "Settings", "; ".join(given)
    if advice.settings.mute:
        yield "Muted", ", ".join(advice.settings.mute)
    for note in advice.notes:
        yield "Note", note
    if advice.record.path is not None:
        yield "Record", f"{advice.record.path}, left as it is"
    if said := status_line(advice.record):
        yield "Status", said


def _value(value: object) -> str:
    return format_number(value) if isinstance(value, int | float) else str(value)
