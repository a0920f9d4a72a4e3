"""A record, read: `record["separation"]["gdv"].sel(layer="conv2")`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from operator import index
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from stratoscope.errors import RecordError
from stratoscope.findings import Finding, Outcome
from stratoscope.record import html
from stratoscope.record.group import Group
from stratoscope.record.rows import Coverage, Edge, LayerRow, Moment
from stratoscope.record.store import Store, find
from stratoscope.record.variables import NotRecordedError

if TYPE_CHECKING:
    from stratoscope.record.writer import RecordWriter

_FINDINGS = """SELECT code, instrument, layer, step, outcome, says, "do", evidence, source, split
  FROM finding WHERE seq IS NULL OR seq <= ? ORDER BY id"""

_COVERAGE = """SELECT instrument, label, layer, param, split, max(step), status, reason FROM coverage
  WHERE step <= ? GROUP BY instrument, label, layer, param, split"""

_CLOCK = """SELECT step, min(wall_time), max(epoch), max(tokens) FROM frame
  WHERE seq <= ? GROUP BY step ORDER BY step"""

_LAYERS = """SELECT layer.name, layer.kind, layer.depth, layer.n_params, parent.name, layer.spec
  FROM layer LEFT JOIN layer AS parent ON parent.id = layer.parent ORDER BY layer.depth, layer.id"""


class Record(Mapping[str, Group]):
    """What was measured of one run, by instrument (`key`, or `key:label` where settings differ).

    It shows the state at the time of opening; `refresh` looks again. It may be read while another process writes.
    """

    def __init__(
        self, store: Store, findings: Iterable[Finding] | None = None, derived: Mapping[str, Group | None] | None = None
    ) -> None:
        """Use `open` or `from_writer` instead."""
        self._store = store
        self._derived = dict(derived or {})
        self._groups: dict[str, Group] = {}
        self._findings = None if findings is None else tuple(findings)

    @classmethod
    def open(cls, path: Path | str) -> Record:
        """Open the record of a run.

        Args:
            path: the run folder, or the `run.db` in it.

        Raises:
            RecordError: if there is none, it is damaged, or a newer release wrote it.
        """
        return cls(Store.open(find(path)))

    @classmethod
    def from_writer(cls, writer: RecordWriter) -> Record:
        """Read what a writer of this process has written so far, on disk or in memory.

        >>> from stratoscope.record import Entry, RecordWriter
        >>> from stratoscope.record.quantity import quantity
        >>> gdv = quantity([-0.1, -0.4], units="1", long_name="GDV", dims="layer", coords={"layer": ["fc", "out"]})
        >>> with RecordWriter.create(None) as writer:
        ...     seq = writer.commit(7, [Entry("separation", "gdv", gdv)])
        >>> Record.from_writer(writer)["separation"]["gdv"].sel(layer="out", step=7).item()
        -0.4
        """
        hot = writer._hot
        writer.flush()
        if hot.folder is not None and hot.run is not None:
            return cls.open(hot.folder if hot.folder.is_dir() else hot.run)
        store = Store(None, hot.connection, hot.lock, writer.flush, owner=hot)
        store.refresh()
        return cls(store)

    @property
    def path(self) -> Path | None:
        """The run folder; `None` in memory."""
        return self._store.folder

    @property
    def meta(self) -> dict[str, Any]:
        """What is known about the run."""
        return dict(self._store.meta)

    @property
    def run_id(self) -> str:
        """The name of the run."""
        return str(self._store.meta.get("run_id", ""))

    @property
    def seq(self) -> int:
        """Goes up with every change; compare it after `refresh` to see whether there is something new."""
        return self._store.seq

    @property
    def steps(self) -> tuple[int, ...]:
        """Every step at which something was written."""
        with self._store.reading():
            rows = self._store.query("SELECT DISTINCT step FROM frame WHERE seq <= ? ORDER BY step", self.seq)
            return tuple(index(step) for (step,) in rows)

    @property
    def clock(self) -> dict[int, Moment]:
        """For each step the seconds since the first one, and the epochs and tokens that its training said."""
        with self._store.reading():
            rows = self._store.query(_CLOCK, self.seq)
            return {index(step): _moment(rows[0][1], *said) for step, *said in rows}

    @property
    def parts(self) -> dict[int, int]:
        """For each step, how many parts of a measurement were committed one by one (the layers, when inspecting).

        The commit that ends a measurement and says what it cost is not counted.
        """
        rows = self._store.query(
            "SELECT step, count(*) FROM frame WHERE seq <= ? AND cost_ms IS NULL GROUP BY step", self.seq
        )
        return dict(rows)

    @property
    def findings(self) -> list[Finding]:
        """Every finding, in the order in which they were made."""
        if self._findings is not None:
            return list(self._findings)
        with self._store.reading():
            return [_finding(row) for row in self._store.query(_FINDINGS, self.seq)]

    def with_findings(self, findings: Iterable[Finding], derived: Mapping[str, Group | None] | None = None) -> Record:
        """The same measurements with other findings, as when they are judged again; the file stays as it is.

        Args:
            findings: in place of its own.
            derived: groups in place of its own of the same name, or beside them: what diagnoses derived anew. `None`
                takes one of its own away.
        """
        return Record(self._store, findings, self._derived if derived is None else derived)

    def coverage(self, step: int | None = None) -> list[Coverage]:
        """What was and was not measured, for every instrument, layer, param and split.

        Args:
            step: as it was at this step; by default as it was last.
        """
        return [Coverage(*row) for row in self._store.query(_COVERAGE, 2**63 - 1 if step is None else int(step))]

    @property
    def layers(self) -> list[LayerRow]:
        """The layers of the network, by depth."""
        with self._store.reading():
            rows = self._store.query(_LAYERS)
            return [
                LayerRow(name, kind, depth, n_params, parent, json.loads(spec))
                for name, kind, depth, n_params, parent, spec in rows
            ]

    @property
    def edges(self) -> list[Edge]:
        """Which layer's output goes into which."""
        return [Edge(*row) for row in self._store.query("SELECT src, dst, kind FROM edge")]

    def refresh(self) -> Self:
        """Look again: afterwards everything that was committed so far can be seen."""
        self._store.refresh()
        self._groups.clear()
        return self

    def to_netcdf(self, path: Path | str) -> Path:
        """Write one netCDF file with a group for each instrument; see `stratoscope.record.export`."""
        from stratoscope.record.export import to_netcdf

        return to_netcdf(self, path)

    def to_parquet(self, folder: Path | str) -> list[Path]:
        """Write one long Parquet table for each variable; see `stratoscope.record.export`."""
        from stratoscope.record.export import to_parquet

        return to_parquet(self, folder)

    def to_csv(self, folder: Path | str) -> list[Path]:
        """Write one long CSV table for each variable; see `stratoscope.record.export`."""
        from stratoscope.record.export import to_csv

        return to_csv(self, folder)

    def close(self) -> None:
        """Let go of the file."""
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __getitem__(self, key: str) -> Group:
        anew = self._derived.get(key)
        if anew is not None:
            return anew
        if key not in self._groups or key in self._derived:
            if key not in list(self):
                raise NotRecordedError(f"No {key!r} was recorded; this record holds {', '.join(self) or 'nothing'}.")
            instrument, _, label = key.partition(":")
            self._groups[key] = Group(self._store, instrument, label)
        return self._groups[key]

    def __iter__(self) -> Iterator[str]:
        keys = (f"{row.instrument}:{row.label}" if row.label else row.instrument for row in self._store.series.values())
        every = dict.fromkeys([*keys, *self._derived])
        return iter([key for key in every if self._derived.get(key, key) is not None])

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)

    def __repr__(self) -> str:
        lines = [f"<Record {self.run_id}: {self.meta.get('status', 'unknown')}, {html.span(self.steps)}>"]
        lines += [f"  {key}: {', '.join(group)}" for key, group in self.items()]
        return "\n".join([*lines, f"  {html.count_findings(self.findings)}"])

    def _repr_html_(self) -> str:
        return html.record(self)


def _moment(began: Any, now: Any, epoch: Any, tokens: Any) -> Moment:
    """When a step was, if the file says it in numbers."""
    passed = None if epoch is None else float(epoch), None if tokens is None else index(tokens)
    return Moment(float(now) - float(began), *passed)


def _finding(row: tuple[Any, ...]) -> Finding:
    code, instrument, layer, step, outcome, says, do, evidence, source, split = row
    numbers = json.loads(evidence)
    if not isinstance(numbers, dict):
        raise RecordError(f"The evidence of a finding {code!r:.20} is damaged; use a copy that is whole.")
    return Finding(code, instrument, layer, step, Outcome(outcome), says, do, numbers, source, split)
