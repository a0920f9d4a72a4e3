"""Reading `run.db`: read only, while another process writes it, and also where a stranger made it."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from math import prod
from operator import itemgetter
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from stratoscope.errors import RecordError
from stratoscope.record import schema
from stratoscope.record.arrays import read_array
from stratoscope.record.axis import Axis
from stratoscope.record.entry import DTYPES
from stratoscope.record.join import MAX_BYTES

MAX_TEXT = 64 * 2**20
"""Longer texts and blobs in a file are refused; what we write inline is far shorter."""


@dataclass(frozen=True)
class SeriesInfo:
    """A series as it is on disk."""

    id: int
    instrument: str
    label: str
    split: str
    name: str
    dims: tuple[str, ...]
    axes: tuple[int, ...]
    dtype: str
    attrs: dict[str, Any]
    settings: str
    version: str


@dataclass(frozen=True)
class Points:
    """What one series measured: the steps, when each was written, and one array a step."""

    series: SeriesInfo
    axes: tuple[Axis, ...]
    steps: tuple[int, ...]
    seqs: tuple[int, ...]
    values: NDArray[Any]


@dataclass(eq=False)
class Store:
    """One opened record. What it shows is the state at the last `refresh`; later measurements stay unseen.

    Attributes:
        path: the file; `None` in memory.
        connection: to it; only used while `lock` is held.
        lock: one user of the connection at a time.
        before: called by `refresh` first.
        owner: what keeps a connection open that is not ours.
        seq: the last change that is shown.
        meta: the run metadata.
        series: every series by its number.
    """

    path: Path | None
    connection: sqlite3.Connection
    lock: threading.RLock = field(default_factory=threading.RLock)
    before: Callable[[], None] | None = None
    owner: object = None
    seq: int = 0
    meta: dict[str, Any] = field(default_factory=dict)
    series: dict[int, SeriesInfo] = field(default_factory=dict)
    _rows: dict[int, tuple[Any, ...]] = field(default_factory=dict)
    _axes: dict[int, Axis] = field(default_factory=dict)
    _stamp: tuple[int, ...] = ()
    _telling: int | None = 2  # how much of a stamp says that it is another file
    _finalizer: Any = None

    @classmethod
    def open(cls, path: Path) -> Store:
        """Open a file.

        Raises:
            RecordError: if it is no record, damaged, or of a newer version.
        """
        stamp = _stamp(path)
        store = cls(path, _connect(path))
        store._hold(stamp)
        store.refresh()
        return store

    @property
    def name(self) -> str:
        """What to call it in an error."""
        return "The record in memory" if self.path is None else str(self.path)

    @property
    def folder(self) -> Path | None:
        """The run folder."""
        return None if self.path is None else self.path.parent

    def refresh(self) -> None:
        """Look again: everything that was committed up to now can be seen afterwards."""
        if self.before is not None:
            self.before()
        self._follow()
        with self.reading() as connection:
            connection.execute("BEGIN")  # one state for all that follows
            try:
                row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'frame'").fetchone()
                self.seq = 0 if row is None else int(row[0])
                self.meta = {key: json.loads(value) for key, value in connection.execute("SELECT key, value FROM meta")}
                rows = {row[0]: row for row in connection.execute(_SERIES)}
                # most of them are as they were at the last look
                self.series = {
                    key: self.series[key] if row == self._rows.get(key) else _series(row) for key, row in rows.items()
                }
                self._rows = rows
            finally:
                connection.execute("COMMIT")

    def query(self, sql: str, *parameters: Any) -> list[Any]:
        """All rows of a query."""
        with self.reading() as connection:
            return connection.execute(sql, parameters).fetchall()

    def axis(self, number: int) -> Axis:
        """An axis by its number."""
        if number not in self._axes:
            rows = self.query("SELECT members FROM axis WHERE id = ?", number)
            if not rows:
                raise RecordError(f"{self.name} is damaged: it has no axis {number}; use a copy that is whole.")
            self._axes[number] = Axis.from_json(rows[0][0])
        return self._axes[number]

    def steps(self, seq: int, instrument: str, label: str, name: str | None = None) -> tuple[int, ...]:
        """The steps at which a group, or one variable of it, was measured up to a change."""
        rows = self.query(_STEPS, seq, instrument, label, name)
        return tuple(sorted(step for (step,) in rows))

    def points(
        self, seq: int, instrument: str, label: str, name: str, steps: Sequence[int] | None = None
    ) -> list[Points]:
        """Everything that one variable measured up to a change, by series.

        Raises:
            RecordError: if the file is damaged, or the variable too large to be read at once.
        """
        variable = (seq, instrument, label, name)
        if steps is None:
            rows = self.query(_POINTS, *variable)
        else:
            rows = self.query(_SOME_POINTS, *variable, json.dumps([int(step) for step in steps]))
        return [self._points(self.series[key], list(group)) for key, group in groupby(rows, key=itemgetter(0))]

    def close(self) -> None:
        """Close the file; a record in memory stays with its writer."""
        if self._finalizer is not None:
            self._finalizer()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """The connection, with every trouble that a damaged file makes said in one sentence."""
        with self.lock:
            try:
                yield self.connection
            except sqlite3.ProgrammingError as error:
                raise RecordError(f"{self.name} was closed; open it again.") from error
            except (
                sqlite3.Error,
                ValueError,
                TypeError,
                KeyError,
                OverflowError,
                UnicodeError,
                RecursionError,  # JSON that is nested without end
            ) as error:
                raise RecordError(f"{self.name} is damaged ({error}); use a copy that is whole.") from error

    def _points(self, series: SeriesInfo, rows: list[Any]) -> Points:
        axes = tuple(self.axis(number) for number in series.axes)
        if len(axes) != len(series.dims):
            raise RecordError(
                f"{self.name} is damaged: {series.name} has {len(axes)} axes for {len(series.dims)} dims."
            )
        shape = tuple(axis.size for axis in axes)
        dtype = np.dtype(DTYPES[series.dtype])
        if prod(shape) * dtype.itemsize * len(rows) > MAX_BYTES:
            raise RecordError(f"{series.name} is too large to be read at once; read fewer steps with `group.read`.")
        values = self._values(series, rows, dtype, shape)
        return Points(series, axes, tuple(row[1] for row in rows), tuple(row[2] for row in rows), values)

    def _values(
        self, series: SeriesInfo, rows: list[Any], dtype: np.dtype[Any], shape: tuple[int, ...]
    ) -> NDArray[Any]:
        blobs = [row[3] for row in rows]
        nbytes = prod(shape) * dtype.itemsize
        if not all(type(row[1]) is int and abs(row[1]) < 2**63 and type(row[2]) is int for row in rows):
            raise RecordError(f"{self.name} is damaged: {series.name} was measured at steps that are no whole numbers.")
        if not all(blob is None or (type(blob) is bytes and len(blob) == nbytes) for blob in blobs):
            raise RecordError(
                f"{self.name} is damaged: {series.name} is not of shape {shape} and type {dtype} throughout."
            )
        if None not in blobs:
            return _from_bytes(blobs, dtype, shape)
        values = np.empty((len(rows), *shape), dtype)
        for place, (_, _, _, blob, file, tensor) in enumerate(rows):
            values[place] = (
                _from_bytes([blob], dtype, shape)[0] if blob is not None else self._array(file, tensor, dtype, shape)
            )
        return values

    def _array(self, file: Any, tensor: Any, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        if self.folder is None or not isinstance(file, str) or not isinstance(tensor, str):
            raise RecordError(f"{self.name} is damaged: it names an array file {file!r} that it cannot have.")
        return read_array(self.folder, file, tensor, dtype, shape)

    def _follow(self) -> None:
        """Open the file anew if another was put in its place, as for runs on a network file system.

        An older record is read from a copy, so it is opened anew whenever its file has changed.
        """
        stamp = () if self.path is None else _stamp(self.path)
        if self.path is None or stamp[: self._telling] == self._stamp[: self._telling]:
            return
        with self.lock:
            self._finalizer()
            self.connection = _connect(self.path)
            self._hold(stamp)
            self._axes.clear()

    def _hold(self, stamp: tuple[int, ...]) -> None:
        """Keep the connection, which was opened when the file had this stamp."""
        self._finalizer = weakref.finalize(self, self.connection.close)
        self._stamp, self._telling = stamp, None if _is_a_copy(self.connection) else 2


_SERIES = (
    "SELECT id, instrument, label, split, name, dims, axes, dtype, attrs, settings, version FROM series ORDER BY id"
)

_STEPS = """SELECT DISTINCT step FROM point WHERE seq <= ? AND series IN
  (SELECT id FROM series WHERE instrument = ? AND label = ? AND name = coalesce(?, name))"""

_POINTS = """SELECT series, step, seq, data, file, tensor FROM point WHERE seq <= ? AND series IN
  (SELECT id FROM series WHERE instrument = ? AND label = ? AND name = ?) ORDER BY series, step"""

_SOME_POINTS = _POINTS.replace("ORDER BY", "AND step IN (SELECT value FROM json_each(?)) ORDER BY")


def find(path: Path | str) -> Path:
    """The database of a run, given its folder or the file itself.

    Raises:
        RecordError: if there is none.
    """
    path = Path(path)
    file = path / schema.DATABASE if path.is_dir() else path
    if not file.is_file():
        raise RecordError(f"There is no record at {path}; give the folder of a run, which holds {schema.DATABASE}.")
    return file


def _series(row: Any) -> SeriesInfo:
    texts = (*row[1:5], row[9], row[10])
    dims, axes, attrs = json.loads(row[5]), json.loads(row[6]), json.loads(row[8])
    if (
        not all(isinstance(text, str) for text in (*texts, *dims))
        or not all(type(number) is int for number in axes)
        or not isinstance(attrs, dict)
        or len(set(dims)) != len(dims)
        or row[7] not in DTYPES
    ):
        raise ValueError(f"the series {row[4]!r:.60} is not one that a writer makes")
    number, instrument, label, split, name = row[:5]
    return SeriesInfo(number, instrument, label, split, name, tuple(dims), tuple(axes), row[7], attrs, row[9], row[10])


def _from_bytes(blobs: list[bytes], dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    return np.frombuffer(b"".join(blobs), dtype).reshape(len(blobs), *shape)


def _stamp(path: Path) -> tuple[int, ...]:
    """Which file it is (the first two numbers), and its state and that of its log; empty where there is none."""
    found: list[int] = []
    for file in (path, path.with_name(f"{path.name}-wal")):
        try:
            status = os.stat(file)
        except OSError:
            continue
        found += (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    return tuple(found)


def _is_a_copy(connection: sqlite3.Connection) -> bool:
    """Whether it is connected to a copy, whose file has no name."""
    # its length alone: a path need not be text
    (length,) = connection.execute("SELECT length(CAST(file AS BLOB)) FROM pragma_database_list").fetchone()
    return not length


def _connect(path: Path) -> sqlite3.Connection:
    try:
        connection = _try_modes(path)
    except sqlite3.Error as error:
        raise RecordError(f"{path} cannot be read as a record ({error}); use a copy that is whole.") from error
    try:
        _guard(connection)
        version = schema.version_of(connection, str(path))
        if version < schema.VERSION:
            connection = _migrated_copy(connection, version)
        schema.check_tables(connection, str(path))
    except sqlite3.Error as error:
        connection.close()
        raise RecordError(f"{path} is damaged ({error}); use a copy that is whole.") from error
    except BaseException:
        connection.close()
        raise
    return connection


def _guard(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_TEXT)


def _try_modes(path: Path) -> sqlite3.Connection:
    """Read beside a writer; where not even a reader's lock can be kept, read a closed file as it is."""
    try:
        return _attempt(path, "mode=ro")
    except sqlite3.OperationalError:
        if path.with_name(f"{path.name}-wal").exists():
            raise
        return _attempt(path, "mode=ro&immutable=1")


def _attempt(path: Path, how: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"file:{quote(os.fsencode(path.resolve()))}?{how}",
        uri=True,
        timeout=schema.BUSY_MS / 1000,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection


def _migrated_copy(connection: sqlite3.Connection, version: int) -> sqlite3.Connection:
    # a file without a name: it stays in memory while it is small, and is gone once it is closed
    copy = sqlite3.connect("", isolation_level=None, check_same_thread=False)
    try:
        connection.backup(copy)
        connection.close()
        _guard(copy)
        schema.migrate(copy, version)
    except BaseException:
        copy.close()
        raise
    return copy
