"""How a record looks in a notebook. Names may come from anybody's file: all text is escaped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

from stratoscope.findings import Finding, Outcome

if TYPE_CHECKING:
    from stratoscope.record.group import Group
    from stratoscope.record.record import Record
    from stratoscope.record.store import SeriesInfo

_CELL = "padding:2px 12px 2px 0;text-align:left;vertical-align:top"


def record(shown: Record) -> str:
    """A table of the groups of a record."""
    head = (
        f"<b>Record</b> {escape(shown.run_id)}: {escape(str(shown.meta.get('status', 'unknown')))}, {span(shown.steps)}"
    )
    rows = [(key, group.title, ", ".join(group), span(group.steps)) for key, group in shown.items()]
    return f"<div>{head}{_table(('group', 'what', 'variables', 'steps'), rows)}{escape(count_findings(shown.findings))}</div>"


def group(shown: Group, variables: Mapping[str, SeriesInfo]) -> str:
    """A table of the variables of a group."""
    head = f"<b>{escape(shown.title)}</b> ({escape(shown.key)}): {span(shown.steps)}"
    rows = [
        (name, ", ".join(row.dims), str(row.attrs.get("units", "")), str(row.attrs.get("long_name", "")))
        for name, row in variables.items()
    ]
    source = escape(str(shown.attrs["source"]))
    return f"<div>{head}{_table(('variable', 'dims', 'units', 'what'), rows)}{source}</div>"


def span(steps: Sequence[int]) -> str:
    """How many steps, and from where to where.

    >>> span([0, 10, 20])
    '3 steps (0 to 20)'
    """
    if not steps:
        return "no steps"
    return f"1 step ({steps[0]})" if len(steps) == 1 else f"{len(steps)} steps ({steps[0]} to {steps[-1]})"


def count_findings(findings: Iterable[Finding]) -> str:
    """How many findings of each outcome."""
    counts = Counter(finding.outcome for finding in findings)
    said = [f"{counts[outcome]} {outcome.value.replace('_', ' ')}" for outcome in Outcome if counts[outcome]]
    return f"findings: {', '.join(said) or 'none'}"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    top = "".join(f'<th style="{_CELL}">{escape(head)}</th>' for head in heads)
    body = "".join(
        "<tr>" + "".join(f'<td style="{_CELL}">{escape(text)}</td>' for text in row) + "</tr>" for row in rows
    )
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"
