"""What the page shows, as plain values that its template lays out."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from stratoscope.charts.build import charts_of
from stratoscope.charts.numbers import format_number, unit_text
from stratoscope.charts.sparkline import spark_path
from stratoscope.charts.svg import to_svg
from stratoscope.charts.values import Chart, Line, Number
from stratoscope.charts.variable import Variable, variables_of
from stratoscope.findings import Finding, Outcome
from stratoscope.report.headline import headline
from stratoscope.report.rows import plain_column, plain_row
from stratoscope.report.summary import QUIET, SPOKEN, by_instrument, counted, coverage_sentence, facts_of, grouped, statuses
from stratoscope.report.table import Column, Row, Table

if TYPE_CHECKING:
    from stratoscope.record.record import Record

MOST_COLUMNS = 14
MOST_SPARKS = 200
POINTS = 1400
"""Points of all curves of a chart together, so that a page stays small."""

LIMITS = ("limit", "threshold")
SIGNS = {"issue": "✗", "failed": "✗", "tip": "!", "passed": "✓"}


def chips(findings: Sequence[Finding]) -> list[dict[str, str]]:
    """How many findings of each outcome."""
    return [
        {"outcome": outcome.value, "sign": SIGNS.get(outcome.value, "·"), "text": counted(outcome, len(some))}
        for outcome, some in grouped(findings).items()
    ]


def findings(every: Sequence[Finding], table: Table) -> dict[str, Any]:
    """Findings that ask for something in full, and the others by outcome."""
    found = grouped(every)
    rows = _anchors(table)
    spoken = [_finding(f, rows) for outcome in SPOKEN for f in found.get(outcome, [])]
    for number, finding in enumerate(spoken):
        finding["id"] = f"finding-{number}"
    quiet = [
        {"title": counted(outcome, len(found[outcome])), "items": [_finding(f, rows) for f in found[outcome]]}
        for outcome in QUIET
        if outcome in found
    ]
    return {"spoken": spoken, "quiet": quiet}


def _finding(finding: Finding, rows: dict[str, str]) -> dict[str, Any]:
    return {
        "code": finding.code,
        "outcome": finding.outcome.value,
        "sign": SIGNS.get(finding.outcome.value, "·"),
        "says": finding.says,
        "do": finding.do,
        "source": finding.source,
        "row": rows.get(finding.layer or ""),
        "place": ", ".join(_place(finding)),
        "instrument": finding.instrument,
        "section": _anchor("i", finding.instrument),
        "evidence": [
            {"name": name.replace("_", " "), "value": _evidence(value), "limit": name in LIMITS}
            for name, value in finding.evidence.items()
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
    return [
        tile
        for key in record.keys()  # noqa: SIM118 - said as the record says it
        for variable in variables_of(record, key).values()
        if not variable.dims and not variable.companion_of and variable.attrs.get("chart") != "none" and variable.name != "n"
        for tile in _tiles(variable)
    ][:12]


def _tiles(variable: Variable) -> Iterator[dict[str, Any]]:
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
            "value": variable.meanings[int(value)] if variable.meanings and math.isfinite(value) else format_number(value),
            "unit": unit_text(variable.units),
            "interval": "" if low is None or high is None else f"{format_number(low)} to {format_number(high)}",
            "step": f"step {variable.steps[last]:,}" if variable.several_steps(place) else "",
            "path": spark_path(variable.values[:, place][variable.measured[:, place]], 120, 26, log=variable.scale == "log"),
            "title": _unit_and_source(variable),
        }


def _unit_and_source(variable: Variable) -> str:
    unit = "a pure number" if variable.units == "1" else f"in {variable.units}"
    return f"{variable.title}, {unit}" + (f". Source: {variable.source}" if variable.source else "")


# -- the tables -----------------------------------------------------------------------------------------------------------


def tables(table: Table, every: Sequence[Finding]) -> list[dict[str, Any]]:
    """Tensors, and layers without params; each with its own columns."""
    numbered = list(enumerate(table.rows))
    parts = (
        ("Tensors", [(number, row) for number, row in numbered if row.tensor is not None]),
        ("Layers without parameters", [(number, row) for number, row in numbered if row.tensor is None]),
    )
    said = _said(every)
    return [_table(title, table, rows, said) for title, rows in parts if rows]


def _said(every: Sequence[Finding]) -> dict[str, tuple[str, str]]:
    """For each place, the sign and the anchor of the most pressing finding."""
    spoken = [f for outcome in SPOKEN for f in grouped(every).get(outcome, [])]
    found: dict[str, tuple[str, str]] = {}
    for number, finding in enumerate(spoken):
        if finding.layer:
            found.setdefault(finding.layer, (finding.outcome.value, f"finding-{number}"))
    return found


def _table(title: str, table: Table, rows: list[tuple[int, Row]], said: dict[str, tuple[str, str]]) -> dict[str, Any]:
    every = headline(table, [row for _, row in rows])
    columns = every[:MOST_COLUMNS]
    sparks = len(rows) <= MOST_SPARKS
    return {
        "title": title,
        "columns": [
            {"label": column.key.replace("_", " "), "unit": unit_text(column.variable.units), "meaning": column.meaning}
            for column in columns
        ],
        "hidden": len(every) - len(columns),
        "rows": [_row(table, number, row, columns, said, sparks) for number, row in rows],
    }


def _row(
    table: Table, number: int, row: Row, columns: list[Column], said: dict[str, tuple[str, str]], sparks: bool
) -> dict[str, Any]:
    outcome, anchor = next((said[name] for name in (row.name, row.tensor, row.layer) if name and name in said), ("", ""))
    return {
        "id": f"row-{number}",
        "name": row.name,
        "kind": row.kind,
        "shape": "×".join(map(str, row.shape)) if row.shape is not None else "",
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
        return {"text": "", "sort": "", "path": ""}
    history = table.history(row, column.key)
    log = column.variable.scale == "log"
    path = spark_path(history, 44, 13, log=log) if sparks and len(history) > 1 and not column.variable.meanings else ""
    sort = f"{found[1]:.6g}" if math.isfinite(found[1]) else ""
    return {"text": column.shown(found[1]), "sort": sort, "path": path}


# -- the charts -----------------------------------------------------------------------------------------------------------


def sections(record: Record) -> list[dict[str, Any]]:
    """A section for each instrument: its method card, its numbers, its charts."""
    by_key: dict[str, list[Chart]] = {}
    for chart in charts_of(record):
        by_key.setdefault(chart.instrument, []).append(chart)
    return [_section(record, key, by_key.get(key, [])) for key in record.keys()]  # noqa: SIM118


def _section(record: Record, key: str, charts: list[Chart]) -> dict[str, Any]:
    attrs = record[key].attrs
    about = dict((record.meta.get("instruments") or {}).get(key.partition(":")[0]) or {})
    settings = attrs.get("settings") or about.get("settings") or {}
    variables = variables_of(record, key)
    numbers = [chart for chart in charts if all(isinstance(mark, Number) for mark in chart.marks)]
    return {
        "id": _anchor("i", key),
        "key": key,
        "title": str(attrs.get("title") or about.get("title") or key),
        "source": str(attrs.get("source") or about.get("source") or ""),
        "method": str(attrs.get("method") or about.get("method") or ""),
        "settings": [f"{name} = {value}" for name, value in settings.items()] if isinstance(settings, dict) else [str(settings)],
        "variables": [_variable(variable) for variable in variables.values()],
        "numbers": [_fact(chart) for chart in numbers],
        "charts": [_figure(chart) for chart in charts if chart not in numbers],
    }


def _variable(variable: Variable) -> dict[str, str]:
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
        "source": variable.source,
    }


def _fact(chart: Chart) -> dict[str, str]:
    unit = "" if chart.units == "1" else f", in {chart.units}"
    return {"name": chart.title, "value": chart.caption.rstrip("."), "title": f"{chart.instrument}.{chart.variable}{unit}. Source: {chart.source}"}


def _figure(chart: Chart) -> dict[str, Any]:
    lines = sum(isinstance(mark, Line) for mark in chart.marks)
    unit = "a pure number" if chart.units == "1" else f"in {chart.units}"
    return {
        "id": chart.id,
        "title": chart.title,
        "split": chart.split or "",
        "caption": chart.caption,
        "name": f"{chart.instrument}.{chart.variable}",
        "about": f"{chart.title}, {unit}." + (f" Source: {chart.source}" if chart.source else ""),
        "svg": Markup(to_svg(chart, standalone=False, points=max(POINTS // max(lines, 1), 60))),  # noqa: S704 - escaped there
    }


# -- the rest -------------------------------------------------------------------------------------------------------------


def coverage(record: Record, table: Table) -> dict[str, Any]:
    """What was and was not measured, by tensor and by instrument."""
    titles = {key: record[key].title for key in record.keys()}  # noqa: SIM118
    return {
        "sentence": coverage_sentence(table.rows),
        "missing": [
            {"status": entry.status.replace("_", " "), "reason": entry.reason, "count": entry.count, "names": ", ".join(entry.names)}
            for entry in statuses(table.rows)
            if entry.status != "measured"
        ],
        "instruments": [
            {
                "key": entry.key,
                "title": titles.get(entry.key, entry.key),
                "counts": [entry.counts[status] for status in ("measured", "not_applicable", "skipped", "failed")],
                "reasons": [f"{count:,} {status.replace('_', ' ')}: {reason}" for status, reason, count in entry.reasons],
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


def data(record: Record, table: Table, every: Sequence[Finding]) -> Any:
    """The numbers of the page for machines: rows, columns and findings."""
    return _clean(
        {
            "name": record.meta.get("name", ""),
            "run_id": record.run_id,
            "columns": [plain_column(column) for column in table.columns.values()],
            "layers": [plain_row(table, row) for row in table.rows],
            "findings": [asdict(finding) for finding in every],
        }
    )


def _clean(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value.value if isinstance(value, Outcome) else value


def _anchor(kind: str, text: str) -> str:
    return f"{kind}-{re.sub(r'[^a-z0-9]+', '-', text.lower()).strip('-') or 'x'}"
