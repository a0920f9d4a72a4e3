"""The statements that write a record; each runs inside a transaction of its caller."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stratoscope.errors import RecordError
from stratoscope.findings import Finding
from stratoscope.record.arrays import file_name, write_arrays
from stratoscope.record.entry import Row, Series
from stratoscope.record.rows import STATUSES, Coverage, Edge, Passed
from stratoscope.record.schema import ARRAYS
from stratoscope.record.values import count, digest, to_json

if TYPE_CHECKING:
    from stratoscope.network.layers import Catalogue, Layer


@dataclass(frozen=True, slots=True)
class Frame:
    """Everything that is written at one step in one go."""

    step: int
    rows: Sequence[Row]
    wall_time: float
    epoch: float | None = None
    samples: int | None = None
    tokens: int | None = None
    cost_ms: float | None = None
    findings: Sequence[tuple[Any, ...]] = ()
    coverage: Sequence[Coverage] = ()

    @property
    def nbytes(self) -> int:
        """Size of its numbers."""
        return sum(row.nbytes for row in self.rows)


Stored = tuple[bytes | None, str | None, str | None]
"""Where an array is: its bytes, or the file and the name in it."""


@dataclass
class Tables:
    """Writes frames, knowing which series and axes are there already.

    Its memory of what was written is right only as long as no transaction is rolled back; after a failure it is
    not used again.
    """

    attempt: int = 0
    folder: Path | None = None
    _series: dict[str, int] = field(default_factory=dict)
    _axes: dict[str, int] = field(default_factory=dict)
    _coverage: dict[tuple[str, ...], tuple[str, str]] = field(default_factory=dict)
    _files: int = 0

    def load(self, connection: sqlite3.Connection) -> None:
        """Learn what an earlier attempt wrote."""
        self._series = dict(connection.execute("SELECT digest, id FROM series"))
        self._axes = dict(connection.execute("SELECT digest, id FROM axis"))
        self._coverage = {
            tuple(row[:5]): (row[5], row[6])
            for row in connection.execute(
                "SELECT instrument, label, layer, param, split, status, reason FROM coverage ORDER BY step"
            )
        }

    def store_large(self, frames: Sequence[Frame]) -> dict[int, Stored]:
        """Write the large arrays of some frames to one file, before the rows that name it.

        Returns:
            Where each row's array lies, by the row's identity.
        """
        large = [row for frame in frames for row in frame.rows if isinstance(row.payload, np.ndarray)]
        if not large or self.folder is None:
            return {}
        name = file_name(self.attempt, self._files)
        self._files += 1
        tensors = {f"t{place}": np.asarray(row.payload) for place, row in enumerate(large)}
        write_arrays(self.folder / ARRAYS, name, tensors)
        return {id(row): (None, name, f"t{place}") for place, row in enumerate(large)}

    def insert(self, connection: sqlite3.Connection, frame: Frame, stored: Mapping[int, Stored]) -> int:
        """Write one frame; a point that is there already for the same series and step is replaced.

        Returns:
            Its sequence number.
        """
        cursor = connection.execute(
            "INSERT INTO frame (step, attempt, epoch, samples, tokens, wall_time, cost_ms) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (frame.step, self.attempt, frame.epoch, frame.samples, frame.tokens, frame.wall_time, frame.cost_ms),
        )
        seq = int(cursor.lastrowid or 0)
        connection.executemany(
            "INSERT OR REPLACE INTO point (series, step, seq, data, file, tensor) VALUES (?, ?, ?, ?, ?, ?)",
            [
                (
                    self._series_id(connection, row.series),
                    frame.step,
                    seq,
                    *stored.get(id(row), (row.payload, None, None)),
                )
                for row in frame.rows
            ],
        )
        insert_findings(connection, frame.findings, seq)
        self._insert_coverage(connection, frame)
        return seq

    def _series_id(self, connection: sqlite3.Connection, series: Series) -> int:
        known = self._series.get(series.digest)
        if known is not None:
            return known
        axes = [self._axis_id(connection, text) for text in series.axes]
        cursor = connection.execute(
            "INSERT INTO series (instrument, label, split, name, dims, axes, dtype, attrs, settings, version, digest)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(series.instrument, series.label, series.split, series.name),
                *(to_json(series.dims, "dims"), to_json(axes, "axes"), series.dtype),
                *(series.attrs, series.settings, series.version, series.digest),
            ),
        )
        return self._series.setdefault(series.digest, int(cursor.lastrowid or 0))

    def _axis_id(self, connection: sqlite3.Connection, text: str) -> int:
        key = digest(text)
        if key not in self._axes:
            cursor = connection.execute("INSERT INTO axis (members, digest) VALUES (?, ?)", (text, key))
            self._axes[key] = int(cursor.lastrowid or 0)
        return self._axes[key]

    def _insert_coverage(self, connection: sqlite3.Connection, frame: Frame) -> None:
        for row in frame.coverage:
            key = (row.instrument, row.label, row.layer, row.param, row.split)
            said = (row.status, row.reason)
            if self._coverage.get(key) == said:
                continue
            self._coverage[key] = said
            connection.execute(
                "INSERT OR REPLACE INTO coverage VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (*key, frame.step, *said)
            )


def insert_findings(connection: sqlite3.Connection, findings: Iterable[tuple[Any, ...]], seq: int | None) -> None:
    """Write findings in the form of `finding_row`."""
    connection.executemany(
        'INSERT INTO finding (seq, code, instrument, layer, step, outcome, says, "do", evidence, source, split)'
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [(seq, *finding) for finding in findings],
    )


def finding_row(finding: Finding) -> tuple[Any, ...]:
    """The columns of a finding."""
    evidence = to_json(dict(finding.evidence), f"The evidence of {finding.code}", in_order=True)
    step = None if finding.step is None else int(finding.step)
    return (
        *(finding.code, finding.instrument, finding.layer, step, str(finding.outcome)),
        *(finding.says, finding.do, evidence, finding.source, finding.split),
    )


def checked_coverage(rows: Iterable[Coverage]) -> list[Coverage]:
    """The same rows, if each has a status that exists.

    Raises:
        RecordError: otherwise.
    """
    rows = list(rows)
    for row in rows:
        if row.status not in STATUSES:
            raise RecordError(
                f"Coverage of {row.instrument} has the status {row.status!r}; use one of {', '.join(STATUSES)}."
            )
        if not all(
            isinstance(text, str) for text in (row.instrument, row.label, row.layer, row.param, row.split, row.reason)
        ):
            raise RecordError(f"Coverage of {row.instrument} holds what is no text ({row}); use '' for none.")
    return rows


def checked_tokens(tokens: Any) -> int | None:
    """The tokens of a frame, if they are a count.

    Raises:
        RecordError: otherwise.
    """
    found = None if tokens is None else count(tokens)
    if tokens is not None and found is None:
        raise RecordError(f"tokens={tokens!r:.40} is no count; give a whole number, not below 0.")
    return found


def passed_at(connection: sqlite3.Connection, step: int) -> Passed:
    """What was given with a step of epochs and tokens."""
    row = connection.execute("SELECT max(epoch), max(tokens) FROM frame WHERE step = ?", (step,)).fetchone()
    return Passed(*row)


def replace_layers(connection: sqlite3.Connection, catalogue: Catalogue) -> None:
    """Write the layers of a network in place of those that were there."""
    connection.execute("UPDATE layer SET parent = NULL")
    connection.execute("DELETE FROM layer")
    ids = {name: place for place, name in enumerate(catalogue.layers, start=1)}
    connection.executemany(
        "INSERT INTO layer (id, name, kind, depth, n_params, spec) VALUES (?, ?, ?, ?, ?, ?)",
        [
            (ids[name], name, layer.kind, layer.depth, _n_params(layer), to_json(_spec(layer), f"The layer {name}"))
            for name, layer in catalogue.layers.items()
        ],
    )
    connection.executemany(
        "UPDATE layer SET parent = ? WHERE id = ?", [(ids.get(_parent(name, ids) or ""), ids[name]) for name in ids]
    )


def replace_edges(connection: sqlite3.Connection, edges: Iterable[Edge]) -> None:
    """Write the links between layers in place of those that were there."""
    connection.execute("DELETE FROM edge")
    connection.executemany("INSERT OR IGNORE INTO edge VALUES (?, ?, ?)", [(e.src, e.dst, e.kind) for e in edges])


def put_meta(connection: sqlite3.Connection, items: Mapping[str, str]) -> None:
    """Write entries of the run metadata, values as JSON."""
    connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", list(items.items()))


def touch(connection: sqlite3.Connection) -> None:
    """Move the sequence number on, so that readers who poll it see that something changed."""
    if connection.execute("UPDATE sqlite_sequence SET seq = seq + 1 WHERE name = 'frame'").rowcount == 0:
        connection.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('frame', 1)")


def forget_from(connection: sqlite3.Connection, step: int) -> None:
    """Delete everything that an earlier attempt measured at a step and later."""
    connection.execute(
        "DELETE FROM finding WHERE step >= ? OR seq IN (SELECT seq FROM frame WHERE step >= ?)", (step, step)
    )
    connection.execute("DELETE FROM coverage WHERE step >= ?", (step,))
    connection.execute("DELETE FROM point WHERE step >= ?", (step,))
    connection.execute("DELETE FROM frame WHERE step >= ?", (step,))
    connection.execute("DELETE FROM series WHERE NOT EXISTS (SELECT 1 FROM point WHERE point.series = series.id)")


def forget_group(connection: sqlite3.Connection, instrument: str, label: str) -> None:
    """Delete every series of one group."""
    connection.execute(
        "DELETE FROM point WHERE series IN (SELECT id FROM series WHERE instrument = ? AND label = ?)",
        (instrument, label),
    )
    connection.execute("DELETE FROM series WHERE instrument = ? AND label = ?", (instrument, label))


def _n_params(layer: Layer) -> int:
    own = (param for param in layer.params if param.same_as is None and param.role != "statistic")
    return sum(int(np.prod(param.shape, dtype=np.int64)) for param in own)


def _spec(layer: Layer) -> dict[str, Any]:
    return {
        "activation": layer.activation,
        "params": [
            {
                "name": p.name,
                "shape": p.shape,
                "role": p.role,
                "trainable": p.trainable,
                "same_as": p.same_as,
                "reason": p.reason,
            }
            for p in layer.params
        ],
        "matrices": [
            {"name": m.name, "kind": m.kind, "shape": m.shape, "params": m.params, "rank": m.rank, "law": m.law}
            for m in layer.matrices
        ],
    }


def _parent(name: str, names: Mapping[str, int]) -> str | None:
    path = name
    while "." in path:
        path = path.rpartition(".")[0]
        if path in names:
            return path
    return "(root)" if name != "(root)" and "(root)" in names else None
