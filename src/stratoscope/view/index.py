"""What a run holds, without its numbers: layers, methods, variables, findings, the table, and which charts there are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from stratoscope.charts.build import charts_of
from stratoscope.charts.values import Rule
from stratoscope.charts.variable import Variable, variables_of
from stratoscope.record.values import digest
from stratoscope.record.variables import NotRecordedError
from stratoscope.report.codes import meanings
from stratoscope.report.headline import headline
from stratoscope.report.prose import prose, source_link
from stratoscope.report.rows import plain_column, plain_row
from stratoscope.report.summary import coverage_sentence, facts_of, sayings, verdict
from stratoscope.report.table import table_of

if TYPE_CHECKING:
    from stratoscope.charts.values import Chart
    from stratoscope.findings import Finding
    from stratoscope.record.record import Record

T = TypeVar("T")

MEASURED = ("y", "low", "high", "values", "quantiles", "value")
"""Where marks have what was measured."""

MOST_COLUMNS = 12
"""Columns of the table that are shown unless others are asked for."""


class Contents:
    """One state of a record, laid out for the page; what takes long is done once.

    Args:
        record: the record; not refreshed in between.
        run: its id on the page.

    Attributes:
        seq: the last change that is shown.
        state: of the record, see `state_of`.
    """

    def __init__(self, record: Record, run: str) -> None:
        self._record, self._run = record, run
        self.seq = record.seq
        self.state = state_of(record)
        self._once: dict[str, Any] = {}

    def shows(self, record: Record) -> bool:
        """Whether these are the contents of a record as it is now."""
        return self._record is record and self.state == state_of(record)

    def index(self) -> dict[str, Any]:
        """Everything but the numbers of charts and variables."""
        return self._made("index", self._index)

    def chart(self, name: str) -> dict[str, Any]:
        """A chart by its id, each mark with its type under `"mark"`.

        Raises:
            NotRecordedError: if there is none.
        """
        found = self._charts().get(name)
        if found is None:
            raise NotRecordedError(f"The run has no chart {name!r:.80}.")
        return tagged(found)

    def variable(self, key: str, name: str) -> dict[str, Any]:
        """One variable with all its numbers.

        Raises:
            NotRecordedError: if there is none.
        """
        if key not in list(self._record) or name not in self._variables(key):
            raise NotRecordedError(f"The run has no {name!r:.80} of {key!r:.80}.")
        return _variable(self._variables(key)[name])

    def _made(self, name: str, make: Callable[[], T]) -> T:
        if name not in self._once:
            self._once[name] = make()
        found: T = self._once[name]
        return found

    def _charts(self) -> dict[str, Chart]:
        found: dict[str, Chart] = self._made(
            "charts", lambda: {chart.id: chart for chart in charts_of(self._record, self._variables)}
        )
        return found

    def _variables(self, key: str) -> dict[str, Variable]:
        return self._made(f"variables {key}", lambda: variables_of(self._record, key))

    def _index(self) -> dict[str, Any]:
        record, meta = self._record, self._record.meta
        findings = record.findings
        return {
            "id": self._run,
            "seq": self.seq,
            "state": self.state,
            "name": str(meta.get("name") or record.run_id or self._run),
            "status": str(meta.get("status", "unknown")),
            "live": meta.get("status") == "running",
            "steps": list(record.steps),
            **_clock(record),
            "facts": [list(fact) for fact in facts_of(record)],
            "layers": [_layer(layer) for layer in record.layers],
            "edges": [[edge.src, edge.dst, edge.kind] for edge in record.edges],
            "groups": [self._group(key) for key in record],
            "findings": [
                {"id": f"f{number}", **asdict(finding), "source_html": str(source_link(finding.source))}
                for number, finding in enumerate(findings)
            ],
            "said": _said(findings),
            "verdict": verdict(findings),
            "charts": [_head(chart) for chart in self._charts().values()],
            "table": self._table(),
        }

    def _group(self, key: str) -> dict[str, Any]:
        attrs = self._record[key].attrs
        about = dict((self._record.meta.get("instruments") or {}).get(key) or {})
        source = str(attrs.get("source") or about.get("source") or "")
        settings = attrs.get("settings") or about.get("settings") or {}
        return {
            "key": key,
            "title": str(attrs.get("title") or about.get("title") or key),
            "source": source,
            "source_html": str(source_link(source)),
            "method_html": str(prose(str(attrs.get("method") or about.get("method") or ""))),
            "settings": dict(settings) if isinstance(settings, Mapping) else {},
            "variables": [_about(variable) for variable in self._variables(key).values()],
        }

    def _table(self) -> dict[str, Any]:
        table = table_of(self._record, self._variables)
        shown = headline(table, table.rows)[:MOST_COLUMNS]
        return {
            "columns": [plain_column(column) for column in table.columns.values()],
            "shown": [column.key for column in shown],
            "rows": [plain_row(table, row) for row in table.rows],
            "coverage": coverage_sentence(table.rows),
        }


def state_of(record: Record) -> str:
    """Differs between any two states of a run, and between runs of which one was put in the place of the other."""
    run = digest(f"{record.run_id} {record.meta.get('created')}")
    return f"{run[:8]}-{record.seq}"


def _clock(record: Record) -> dict[str, Any]:
    """What else may run along the horizontal axis, at each step: epochs, tokens and seconds; NaN where it is not known."""
    clock = record.clock
    when = list(clock.values())
    return {
        "clock": np.array(list(clock), dtype=np.float64),
        "epochs": _axis([moment.epoch for moment in when]),
        "tokens": _axis([moment.tokens for moment in when]),
        "seconds": _axis([moment.seconds for moment in when]),
    }


def _axis(values: Sequence[float | None]) -> np.ndarray | None:
    """The same, if it can be an axis: known at two places at least, and never falling."""
    found = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    known = found[np.isfinite(found)]
    rises = known.size > 1 and known[-1] > known[0] and bool((np.diff(known) >= 0).all())
    return np.where(np.isfinite(found), found, np.nan) if rises else None


def _said(findings: list[Finding]) -> list[dict[str, Any]]:
    """What is said of several places once: the places of its findings in their list, the worst first."""
    place = {id(finding): f"f{number}" for number, finding in enumerate(findings)}
    explained = meanings()
    return [
        {
            "code": saying.code,
            "outcome": saying.outcome.value,
            "means": explained.get(saying.code, ""),
            "others": saying.others,
            "items": [place[id(saying.worst)], *(place[id(f)] for f in saying.items if f is not saying.worst)],
        }
        for saying in sayings(findings)
    ]


def tagged(chart: Chart) -> dict[str, Any]:
    """A chart by its fields, each mark with its type under `"mark"`."""
    plain = _fields(chart)
    return plain | {"marks": [{"mark": type(mark).__name__.lower(), **_fields(mark)} for mark in chart.marks]}


def _fields(value: Any) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in fields(value)}


def _layer(layer: Any) -> dict[str, Any]:
    return {
        "name": layer.name,
        "kind": layer.kind,
        "depth": layer.depth,
        "params": layer.n_params,
        "parent": layer.parent,
        "parts": [part["name"] for kind in ("params", "matrices") for part in layer.spec.get(kind, ())],
        "activation": layer.spec.get("activation"),
    }


def _head(chart: Chart) -> dict[str, Any]:
    """What is known of a chart before its numbers are asked for."""
    return {
        **{field.name: getattr(chart, field.name) for field in fields(chart) if field.name not in ("marks", "x", "y", "colour")},
        "x": asdict(chart.x) | {"labels": []},
        "y": asdict(chart.y) | {"labels": []},
        "source_html": str(source_link(chart.source)),
        "marks": sorted({type(mark).__name__.lower() for mark in chart.marks}),
        "empty": _is_empty(chart),
    }  # fmt: skip


def _is_empty(chart: Chart) -> bool:
    """Whether no number of it is finite, reference lines aside: the page shows it after those that have something to show."""
    marks = [mark for mark in chart.marks if not isinstance(mark, Rule)]
    told = [getattr(mark, name) for mark in marks for name in MEASURED if hasattr(mark, name)]
    return not any(bool(np.isfinite(np.asarray(values, dtype=np.float64)).any()) for values in told)


def _about(variable: Variable) -> dict[str, Any]:
    return {
        "name": variable.name,
        "title": variable.title,
        "units": variable.units,
        "dims": list(variable.dims),
        "place": variable.place,
        "steps": len(variable.steps),
        "splits": list(variable.splits),
        "meanings": list(variable.meanings),
        "scale": variable.scale,
        "headline": variable.attrs.get("headline"),
        "note": str(variable.attrs.get("note") or ""),
        "companion_of": variable.companion_of,
    }


def _variable(variable: Variable) -> dict[str, Any]:
    """Numbers with all that a reader needs to lay them out; not measured is NaN, and told apart by `measured`."""
    return {
        **_about(variable),
        "steps": np.asarray(variable.steps, dtype=np.float64),
        "labels": [[_text(label) for label in along] for along in variable.labels],
        "values": np.where(variable.measured, variable.values, np.nan),
        "measured": variable.measured,
    }


def _text(label: Any) -> str | list[str]:
    return [str(part) for part in label] if isinstance(label, tuple) else str(label)
