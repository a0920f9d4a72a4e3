"""What the page shows, as plain values that its template lays out."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from stratoscope.charts.numbers import TIMES, format_number, unit_text
from stratoscope.charts.sparkline import spark_path
from stratoscope.charts.strips import timeline_of
from stratoscope.charts.svg import to_svg
from stratoscope.charts.values import Chart, Line, Number
from stratoscope.charts.variable import Variable, variables_of
from stratoscope.findings import Finding
from stratoscope.report.codes import meanings, page_of
from stratoscope.report.explanations import without_codes
from stratoscope.report.headline import headline, pictured, scalars
from stratoscope.report.meaning import QUIET_VERDICTS, meaning_of
from stratoscope.report.rows import MISSING, plain_row, why_not
from stratoscope.report.sides import SIDES, relative_text, sides_text
from stratoscope.report.spent import duration, percent, spent_of
from stratoscope.report.summary import (
    QUIET,
    Saying,
    by_instrument,
    counted,
    counts,
    coverage_sentence,
    evidence_of,
    facts_of,
    grouped,
    sayings,
    statuses,
)
from stratoscope.report.table import Column, Row, Table
from stratoscope.report.turns import turn_table

if TYPE_CHECKING:
    from stratoscope.record.record import Record

MOST_COLUMNS = 8
MOST_OTHERS = 50
"""Findings that are listed beside the worst of their kind."""

MOST_SPARKS = 200
POINTS = 900
"""Points of all curves of a chart together, so that a page stays small."""

COURSE = "timeline"
"""The kind of chart that stands at the top of the page."""

LIMITS = ("limit", "threshold")
FIXED = ("name", "layer", "tensor", "kind", "shape", "status", "reason", "verdict", "meaning")
SIGNS = {"issue": "✗", "failed": "✗", "tip": "!", "passed": "✓"}


def chips(findings: Sequence[Finding]) -> list[dict[str, str]]:
    """How many findings of each outcome."""
    return [
        {"outcome": outcome.value, "sign": SIGNS.get(outcome.value, "·"), "text": counted(outcome, number)}
        for outcome, number in counts(findings).items()
    ]


def findings(every: Sequence[Finding], table: Table) -> dict[str, Any]:
    """Findings that ask for something, what repeats said once, and the others by outcome."""
    rows = _anchors(table)
    spoken = [_saying(saying, number, rows) for number, saying in enumerate(sayings(every))]
    found = grouped(every)
    quiet = [
        {"title": counted(outcome, len(found[outcome])), "items": [_finding(f, rows) for f in found[outcome]]}
        for outcome in QUIET
        if outcome in found
    ]
    return {"spoken": spoken, "quiet": quiet}


def _saying(saying: Saying, number: int, rows: dict[str, str]) -> dict[str, Any]:
    rest = [finding for finding in saying.items if finding is not saying.worst]
    return {
        "id": f"finding-{number}",
        "code": saying.code,
        "page": page_of(saying.code),
        "meaning": meanings().get(saying.code, ""),
        "outcome": saying.outcome.value,
        "sign": SIGNS.get(saying.outcome.value, "·"),
        "do": saying.do,
        "worst": _finding(saying.worst, rows),
        "others": saying.others,
        "rest": [_finding(finding, rows) for finding in rest[:MOST_OTHERS]],
        "left": max(len(rest) - MOST_OTHERS, 0),
    }


def _finding(finding: Finding, rows: dict[str, str]) -> dict[str, Any]:
    return {
        "code": finding.code,
        "page": page_of(finding.code),
        "says": finding.says,
        "do": finding.do,
        "source": finding.source,
        "row": rows.get(finding.layer or ""),
        "place": ", ".join(_place(finding)),
        "instrument": finding.instrument,
        "section": _anchor("i", finding.instrument),
        "evidence": [
            {"name": name.replace("_", " "), "value": _evidence(value), "limit": name in LIMITS}
            for name, value in evidence_of(finding).items()
        ],
    }


def _place(finding: Finding) -> Iterator[str]:
    if finding.layer:
        yield finding.layer
    if finding.split:
        yield finding.split
    if finding.step is not None:
        yield f"step {finding.step:,}"


def _evidence(value: object) -> str:
    return format_number(value, 4) if isinstance(value, int | float) else str(value)


def _anchors(table: Table) -> dict[str, str]:
    """Where the table speaks of a layer, tensor or matrix."""
    found: dict[str, str] = {}
    for number, row in enumerate(table.rows):
        for name in (row.name, row.tensor, row.layer):
            if name:
                found.setdefault(name, f"row-{number}")
    return found


# -- numbers of the whole network -----------------------------------------------------------------------------------------


def tiles(record: Record) -> list[dict[str, Any]]:
    """Loss, accuracy and other numbers without a layer: the last value, its interval and its curve."""
    final = record.steps[-1] if record.steps else 0
    return [*(tile for variable in scalars(record) for tile in _tiles(variable, final)), *_measuring(record)]


def _measuring(record: Record) -> Iterator[dict[str, Any]]:
    """What measuring took of a training's time."""
    spent = spent_of(record)
    if spent is not None:
        yield {
            "name": "Measuring, over the rest of the training time", "split": "", "value": percent(spent.share), "unit": "",
            "interval": "" if spent.budget is None else f"budget {percent(spent.budget)}", "step": duration(spent.seconds),
            "path": "", "title": spent.sentence,
        }  # fmt: skip


def _tiles(variable: Variable, final: int) -> Iterator[dict[str, Any]]:
    ends = variable.ends()
    for place, split in enumerate(variable.splits):
        last = variable.last(place)
        if last is None:
            continue
        value = float(variable.values[last, place])
        low, high = (None, None) if ends is None else (float(end[last, place]) for end in ends)
        yield {
            "name": variable.title,
            "split": split,
            "value": variable.meanings[int(value)]
            if variable.meanings and math.isfinite(value)
            else format_number(value),
            "unit": unit_text(variable.units),
            "interval": "" if low is None or high is None else f"{format_number(low)} to {format_number(high)}",
            "step": f"step {variable.steps[last]:,}" if variable.steps[last] != final else "",
            "path": _curve(variable, place),
            "title": _unit_and_source(variable),
        }


def _curve(variable: Variable, split: int) -> str:
    values = variable.values[:, split][variable.measured[:, split]]
    return spark_path(values, 120, 26, 40, log=variable.scale == "log") if len(values) > 2 else ""


def _unit_and_source(variable: Variable) -> str:
    unit = "a pure number" if variable.units == "1" else f"in {variable.units}"
    return f"{variable.title}, {unit}" + (f". Source: {variable.source}" if variable.source else "")


# -- the tables -----------------------------------------------------------------------------------------------------------


def tables(table: Table, every: Sequence[Finding]) -> list[dict[str, Any]]:
    """Tensors, and layers without params; each with its own columns."""
    meanings = {id(row): meaning_of(table, row) for row in table.rows}
    numbered = list(enumerate(table.rows))
    decided = any(meaning.verdict not in QUIET_VERDICTS for meaning in meanings.values())
    if decided:  # the worst first
        numbered.sort(key=lambda pair: meanings[id(pair[1])].rank)
    parts = (
        ("Tensors", [(number, row) for number, row in numbered if row.tensor is not None]),
        ("Layers without parameters", [(number, row) for number, row in numbered if row.tensor is None]),
    )
    said = _said(every, table)
    found = []
    for title, rows in parts:
        if rows:
            shown = _table(title, table, rows, said)
            shown["verdicts"] = decided and rows[0][1].tensor is not None
            for plain, (_, row) in zip(shown["rows"], rows, strict=True):
                meaning = meanings[id(row)]
                plain |= {"verdict": meaning.verdict, "meaning": meaning.says, "rank": meaning.rank[0]}
            found.append(shown)
    return found


def _said(every: Sequence[Finding], table: Table) -> dict[str, tuple[str, str]]:
    """For each row that a finding points to, the outcome and the anchor of the most pressing one."""
    rows = _anchors(table)
    found: dict[str, tuple[str, str]] = {}
    for number, saying in enumerate(sayings(every)):
        for finding in saying.items:
            row = rows.get(finding.layer or "")
            if row:
                found.setdefault(row, (saying.outcome.value, f"finding-{number}"))
    return found


def _table(title: str, table: Table, rows: list[tuple[int, Row]], said: dict[str, tuple[str, str]]) -> dict[str, Any]:
    every = headline(table, [row for _, row in rows])
    columns = every[:MOST_COLUMNS]
    sparks = len(rows) <= MOST_SPARKS
    return {
        "title": title,
        "columns": [
            {
                "label": column.key.partition("[")[0].replace("_", " "),
                "split": column.variable.splits[column.split] if column.split else "",
                "unit": unit_text(column.variable.units),
                "meaning": column.meaning,
            }
            for column in columns
        ],
        "shapes": any(row.shape is not None for _, row in rows),
        "hidden": len(every) - len(columns),
        "rows": [_row(table, number, row, columns, said, sparks) for number, row in rows],
    }


def _row(
    table: Table, number: int, row: Row, columns: list[Column], said: dict[str, tuple[str, str]], sparks: bool
) -> dict[str, Any]:
    outcome, anchor = said.get(f"row-{number}", ("", ""))
    return {
        "id": f"row-{number}",
        "name": row.name,
        "kind": row.kind,
        "shape": TIMES.join(map(str, row.shape)) if row.shape is not None else "",
        "size": math.prod(row.shape) if row.shape is not None else "",
        "status": row.status.replace("_", " "),
        "reason": row.reason,
        "outcome": outcome,
        "sign": SIGNS.get(outcome, ""),
        "finding": anchor,
        "cells": [_cell(table, row, column, sparks) for column in columns] if row.cells else None,
    }


def _cell(table: Table, row: Row, column: Column, sparks: bool) -> dict[str, Any]:
    found = table.value(row, column.key)
    if found is None:
        return {"text": "", "sort": "", "path": "", "why": None}
    history = table.history(row, column.key)
    log = column.variable.scale == "log"
    path = spark_path(history, 44, 13, log=log) if sparks and len(history) > 2 and not column.variable.meanings else ""
    sort = f"{found[1]:.6g}" if math.isfinite(found[1]) else ""
    why = None if sort else why_not(column, row.cells[column.key], found[0])
    return {"text": MISSING if why else column.shown(found[1]), "sort": sort, "path": path, "why": why}


# -- two checkpoints side by side -----------------------------------------------------------------------------------------


def comparison(record: Record) -> dict[str, Any] | None:
    """How far each tensor moved between two checkpoints, if the record says."""
    found = record.meta.get("comparison")
    if not found:
        return None
    rows = [row for row in found["layers"] if row["status"] == "measured"]
    others = Counter(
        f"{row['status'].replace('_', ' ')}: {row['reason']}" for row in found["layers"] if row not in rows
    )
    told = [key for key in SIDES if any(row[side].get(key) is not None for row in rows for side in ("before", "after"))]
    return {
        "before": str(found["before"]),
        "after": str(found["after"]),
        "columns": [SIDES[key] for key in told],
        "rows": [
            {
                "name": row["name"],
                "kind": row["kind"],
                "shape": TIMES.join(map(str, row["shape"])),
                "change": relative_text(row),
                "sort": "" if row["relative_change"] is None else f"{row['relative_change']:.6g}",
                "cosine": "" if row["cosine"] is None else f"{row['cosine']:.4f}",
                "sides": [sides_text(row, key) for key in told],
            }
            for row in rows
        ],
        "others": [f"{count:,} {reason}" for reason, count in others.most_common()],
    }


# -- the charts -----------------------------------------------------------------------------------------------------------


def course(record: Record, charts: Sequence[Chart]) -> dict[str, Any] | None:
    """The phases of all layers, as each theory sees them, and when they turn: a training at one glance."""
    strips = timeline_of(record)
    if strips is None:
        return None
    return {"charts": [_figure(chart) for chart in charts if chart.kind == COURSE], **turn_table(strips)}


def sections(record: Record, charts: Sequence[Chart], *, all_charts: bool) -> list[dict[str, Any]]:
    """A section for each instrument and diagnosis: its method card, its numbers, its charts.

    Args:
        record: the record.
        charts: of the record; those of the course of the training stand elsewhere.
        all_charts: whether to show all of them.
    """
    by_key: dict[str, list[Chart]] = {}
    for chart in charts:
        if chart.kind != COURSE:
            by_key.setdefault(chart.instrument, []).append(chart)
    return [_section(record, key, by_key.get(key, []), all_charts) for key in record]


def _section(record: Record, key: str, charts: list[Chart], all_charts: bool) -> dict[str, Any]:
    attrs = record[key].attrs
    about = dict((record.meta.get("instruments") or {}).get(key) or {})
    settings = attrs.get("settings") or about.get("settings") or {}
    variables = variables_of(record, key)
    numbers = [chart for chart in charts if all(isinstance(mark, Number) for mark in chart.marks)]
    pictures = [chart for chart in charts if chart not in numbers]
    chosen = pictures if all_charts else _chosen(pictures, list(variables.values()))
    title = str(attrs.get("title") or about.get("title") or key)
    return {
        "id": _anchor("i", key),
        "title": title if title != key else key[:1].upper() + key[1:].replace("_", " "),
        "source": str(attrs.get("source") or about.get("source") or ""),
        "method": without_codes(str(attrs.get("method") or about.get("method") or "")),
        "settings": [f"{name} = {value}" for name, value in settings.items()]
        if isinstance(settings, dict)
        else [str(settings)],
        "reads": next((str(reads) for v in variables.values() if (reads := v.attrs.get("reads"))), ""),
        "variables": [_variable(variable, str(attrs.get("source") or "")) for variable in variables.values()],
        "numbers": _once([_fact(chart) for chart in numbers]),
        "charts": [_figure(chart) for chart in chosen],
        "left_out": len(pictures) - len(chosen),
    }


def _chosen(charts: list[Chart], variables: list[Variable]) -> list[Chart]:
    """The charts of the variables that say most; of the curves over steps of several splits those of the first one."""
    names = pictured(variables)
    first = next((variable.splits[0] for variable in variables if variable.splits != ("",)), None)
    return [chart for chart in charts if chart.variable in names and chart.split in (None, first)]


def _variable(variable: Variable, source: str) -> dict[str, str]:
    dims = [
        *(["step"] if len(variable.steps) > 1 else []),
        *(["split"] if variable.splits != ("",) else []),
        *variable.dims,
    ]
    return {
        "name": variable.name,
        "meaning": variable.title,
        "unit": variable.units,
        "dims": ", ".join(dims) or "one number",
        "source": variable.source if variable.source != source else "",
    }


def _once(facts: list[dict[str, str]]) -> list[dict[str, str]]:
    """Facts in the same words once, as of a matrix and of the tensor that it is."""
    told: dict[tuple[str, str], dict[str, str]] = {}
    for fact in facts:
        told.setdefault((fact["name"], fact["value"]), fact)
    return list(told.values())


def _fact(chart: Chart) -> dict[str, str]:
    unit = "" if chart.units == "1" else f", in {chart.units}"
    return {
        "name": chart.title,
        "value": chart.caption.rstrip("."),
        "title": f"{chart.instrument}.{chart.variable}{unit}. Source: {chart.source}",
    }


def _figure(chart: Chart) -> dict[str, Any]:
    lines = sum(isinstance(mark, Line) for mark in chart.marks)
    points = max(POINTS // max(lines, 1), 60)
    unit = "a pure number" if chart.units == "1" else f"in {chart.units}"
    return {
        "id": chart.id,
        "title": chart.title,
        "split": chart.split or "",
        "caption": chart.caption,
        "name": f"{chart.instrument}.{chart.variable}",
        "about": f"{chart.title}, {unit}." + (f" Source: {chart.source}" if chart.source else ""),
        "svg": Markup(to_svg(chart, standalone=False, described=f"{chart.id}-c", points=points)),
    }


# -- the rest -------------------------------------------------------------------------------------------------------------


def coverage(record: Record, table: Table) -> dict[str, Any]:
    """What was and was not measured, by tensor and by instrument."""
    titles = {key: record[key].title for key in record}
    return {
        "sentence": coverage_sentence(table.rows),
        "missing": [
            {
                "status": entry.status.replace("_", " "),
                "reason": entry.reason,
                "count": entry.count,
                "names": ", ".join(entry.names),
            }
            for entry in statuses(table.rows)
            if entry.status != "measured"
        ],
        "instruments": [
            {
                "key": entry.key,
                "title": titles.get(entry.key, entry.key),
                "counts": [entry.counts[status] for status in ("measured", "not_applicable", "skipped", "failed")],
                "reasons": [
                    f"{count:,} {status.replace('_', ' ')}: {reason}" for status, reason, count in entry.reasons
                ],
            }
            for entry in by_instrument(record.coverage())
        ],
    }


def facts(record: Record) -> list[tuple[str, str]]:
    """What is known about the run."""
    return facts_of(record)


def summary(record: Record) -> str:
    """The line under the name."""
    parameters = sum(layer.n_params for layer in record.layers)
    steps = record.steps
    parts = [
        f"{len(record.layers):,} layers" if record.layers else "",
        f"{parameters:,} parameters" if parameters else "",
        f"steps {steps[0]:,} to {steps[-1]:,}" if len(steps) > 1 else "",
        str(record.meta.get("started", record.meta.get("created", "")))[:16].replace("T", " "),
    ]
    return " · ".join(part for part in parts if part)


def data(table: Table) -> dict[str, Any]:
    """The whole table for machines: names of columns, and rows as lists."""
    rows = [plain_row(table, row) for row in table.rows]
    columns = [*FIXED, *table.columns]
    return {"columns": columns, "rows": [[_short(row.get(column)) for column in columns] for row in rows]}


def _short(value: Any) -> Any:
    return float(f"{value:.5g}") if isinstance(value, float) else value


def _anchor(kind: str, text: str) -> str:
    return f"{kind}-{re.sub(r'[^a-z0-9]+', '-', text.lower()).strip('-') or 'x'}"
