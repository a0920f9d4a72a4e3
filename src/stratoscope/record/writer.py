"""Writing a record while a network trains: nothing acknowledged is lost, and training is never stopped."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import sqlite3
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from stratoscope.errors import RecordError
from stratoscope.findings import Finding
from stratoscope.record import hot as hot_file
from stratoscope.record import statements
from stratoscope.record.arrays import remove_orphans
from stratoscope.record.buffer import Buffer
from stratoscope.record.entry import Encoder, Entry
from stratoscope.record.folder import is_run_id, new_run_id
from stratoscope.record.hot import Hot
from stratoscope.record.rows import NOTHING_SAID, Coverage, Edge, Passed
from stratoscope.record.ship import Shipper
from stratoscope.record.statements import Frame, Tables
from stratoscope.record.values import to_json

if TYPE_CHECKING:
    from stratoscope.network.layers import Catalogue

FLUSH_AFTER = 0.5
"""Seconds that an appended frame waits before the flusher writes it; the other half second is for the disk."""

MAX_WAITING = 64 * 2**20
"""Bytes that may wait; beyond this, `append` itself writes."""


class RecordWriter:
    """The one writer of a record. Make it with `create` or `resume`; use it in a `with`, or `close` it.

    Safe to use from several threads. Wrong use (an entry that has no form on disk, a closed writer) raises
    `RecordError`; trouble with the disk never does: it is said once as a warning, `broken` gives the reason,
    nothing further is written, and what was on disk stays.

    Attributes:
        folder: the run folder; `None` in memory.
        run_id: name of the run.
        attempt: 0, and one more each time the run was resumed.
        broken: why writing stopped; `None` while all is well.
    """

    def __init__(self, hot: Hot, run_id: str, attempt: int) -> None:
        """Use `create` or `resume` instead."""
        self.folder = hot.run
        self.run_id = run_id
        self.attempt = attempt
        self.broken: str | None = None
        self._hot = hot
        self._pid = os.getpid()
        self._closed = False
        self._buffer = Buffer()
        self._tables = Tables(attempt, hot.folder)
        self._encoder = Encoder(float("inf")) if hot.folder is None else Encoder()
        self._thread: threading.Thread | None = None
        self._shipper: Shipper | None = None
        self._ship_warned = False
        if hot.run is not None and hot.folder is not None and hot.is_shipped:
            self._shipper = Shipper(hot.folder, hot.run)
            self._warn(
                f"{hot.run} lies on a network file system: recording goes to {hot.folder}, copied there twice a minute."
            )
            self._start_thread()
        if hot.folder is not None:
            atexit.register(self._at_exit)

    @classmethod
    def create(cls, folder: Path | str | None, meta: Mapping[str, Any] | None = None) -> RecordWriter:
        """Begin a record.

        Args:
            folder: the run folder, made if it is not there; `None` keeps the record in memory, for as long as the
                writer or a `Record` of it lives.
            meta: what to say about the run; `run_id`, `created`, `status` and `attempt` are added.

        Raises:
            RecordError: if the folder cannot be written, holds a record already, or another process writes it.

        >>> from stratoscope.record.quantity import quantity
        >>> with RecordWriter.create(None) as writer:
        ...     seq = writer.commit(0, [Entry("training", "loss", quantity(2.5, units="1", long_name="loss"))])
        >>> seq, writer.committed
        (1, 0)
        """
        path = None if folder is None else Path(folder)
        hot = hot_file.in_memory() if path is None else hot_file.create(path)
        run_id = path.resolve().name if path is not None and is_run_id(path.resolve().name) else new_run_id()
        writer = cls(hot, run_id, 0)
        about = {"run_id": run_id, "created": _now(), "status": "running", "attempt": 0}
        try:
            items = _meta_items({**about, **(meta or {})})
        except RecordError:
            writer.close("failed")
            raise
        writer._change(lambda connection: statements.put_meta(connection, items), announce=False)
        return writer

    @classmethod
    def resume(cls, folder: Path | str, step: int | None = None) -> RecordWriter:
        """Go on with a record as a new attempt.

        Args:
            folder: the run folder.
            step: the step at which training goes on; what was measured at it and later is deleted, since it will
                be measured again. By default everything is kept; `committed` says where it ends.

        Raises:
            RecordError: if there is no record, it cannot be written, or another process writes it.
        """
        hot = hot_file.reopen(Path(folder))
        try:
            meta = {key: json.loads(value) for key, value in hot.connection.execute("SELECT key, value FROM meta")}
            writer = cls(hot, str(meta.get("run_id", new_run_id())), int(meta.get("attempt", 0)) + 1)
            writer._begin_attempt(step, meta)
        except (sqlite3.Error, ValueError, TypeError) as error:
            hot.close()
            raise RecordError(f"The record in {folder} is damaged ({error}); start a new run.") from error
        return writer

    def commit(
        self,
        step: int,
        entries: Iterable[Entry],
        *,
        findings: Iterable[Finding] = (),
        coverage: Iterable[Coverage] = (),
        epoch: float | None = None,
        samples: int | None = None,
        tokens: int | None = None,
        cost_ms: float | None = None,
    ) -> int:
        """Write what was measured at a step, in one transaction together with all that was appended before.

        Several commits may have the same step (layer by layer); the same variable of the same parts at the same
        step is replaced. Coverage is kept where it changed, under `step`.

        Args:
            step: of training, from 0.
            entries: what was measured.
            findings: what it means; added to those there.
            coverage: what was and was not measured.
            epoch: passes over the training data so far.
            samples: examples seen so far.
            tokens: tokens seen so far.
            cost_ms: what measuring took, in milliseconds.

        Returns:
            The sequence number that readers poll; -1 if writing has stopped (see `broken`).

        Raises:
            RecordError: if an entry has no form on disk, or the writer is closed.
        """
        rows = [self._encoder.encode(entry) for entry in entries]
        texts = [statements.finding_row(finding) for finding in findings]
        covered = statements.checked_coverage(coverage)
        seen = statements.checked_tokens(tokens)
        return self._write(Frame(int(step), rows, time.time(), epoch, samples, seen, cost_ms, texts, covered))

    def append(
        self,
        step: int,
        entries: Iterable[Entry],
        *,
        epoch: float | None = None,
        samples: int | None = None,
        tokens: int | None = None,
    ) -> None:
        """Hand over a few numbers of a step without waiting; they are on disk within a second.

        Args:
            step: of training, from 0.
            entries: what was measured; the numbers are copied at once.
            epoch: passes over the training data so far.
            samples: examples seen so far.
            tokens: tokens seen so far.

        Raises:
            RecordError: if an entry has no form on disk, or the writer is closed.
        """
        self._refuse_closed()
        rows, seen = [self._encoder.encode(entry) for entry in entries], statements.checked_tokens(tokens)
        frame = Frame(int(step), rows, time.time(), epoch, samples, seen)
        if self.broken is not None:
            self._buffer.lose(frame.step)
            return
        self._buffer.add(frame)
        if self._thread is None:
            self._start_thread()
        if self._buffer.nbytes > MAX_WAITING:
            self.flush()

    def flush(self) -> None:
        """Write everything that was appended, now."""
        if not self._closed:
            self._write(None)

    @property
    def committed(self) -> int:
        """The highest step such that everything given so far for it and for earlier steps is on disk.

        "Given" means appended, or committed by a call that has returned; "on disk" means that the operating system
        has it, so it survives the end of this process by any means (a loss of power may take the last second).
        For a run on a network file system it is the local disk. -1 if there is none; falls back below a step for
        which more was appended since.
        """
        return self._buffer.on_disk

    def write_layers(self, layers: Catalogue) -> None:
        """Write the layers of the network, in place of those there."""
        self._change(lambda connection: statements.replace_layers(connection, layers))

    def write_edges(self, edges: Iterable[Edge | tuple[str, str, str]]) -> None:
        """Write which layer's output goes into which (source, destination, kind), in place of those there."""
        rows = [edge if isinstance(edge, Edge) else Edge(*edge) for edge in edges]
        self._change(lambda connection: statements.replace_edges(connection, rows))

    def write_meta(self, key: str, value: Any) -> None:
        """Write one entry of the run metadata.

        Raises:
            RecordError: if the value has no text form.
        """
        items = _meta_items({key: value})
        self._change(lambda connection: statements.put_meta(connection, items))

    def replace_findings(self, findings: Iterable[Finding]) -> None:
        """Write findings in place of all there, as when the whole run was judged at its end."""
        rows = [statements.finding_row(finding) for finding in findings]

        def change(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM finding")
            statements.insert_findings(connection, rows, None)

        self._change(change)

    def passed_at(self, step: int) -> Passed:
        """What was given with a step of epochs and tokens; `None` where none were, or writing has stopped."""
        with self._hot.lock:
            self.flush()
            if self._closed or self.broken is not None:
                return NOTHING_SAID
            return statements.passed_at(self._hot.connection, int(step))

    def forget(self, instrument: str, label: str = "") -> None:
        """Delete everything that was written of one group, as when what follows from other groups is derived anew.

        Args:
            instrument: the group's key.
            label: which settings of it.
        """
        with self._hot.lock:
            self.flush()
            self._change(lambda connection: statements.forget_group(connection, instrument, label))
            self._tables.load(self._hot.connection)
            for key in [key for key in self._encoder.dims if key[:2] == (instrument, label)]:
                del self._encoder.dims[key]

    def close(self, status: str = "finished") -> None:
        """Write what waits, note how the run ended, and seal the file so that it can be read anywhere.

        Args:
            status: `"finished"`, `"interrupted"` or `"failed"`.
        """
        if self._closed:
            return
        self._buffer.close()
        self.flush()
        items = _meta_items({"status": status, "ended": _now()})
        self._change(lambda connection: statements.put_meta(connection, items))
        with self._buffer.changed:
            self._closed = True
            self._buffer.changed.notify_all()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        atexit.unregister(self._at_exit)
        with self._hot.lock:
            shipped = self._ship()
            if self._hot.folder is not None:
                with suppress(sqlite3.Error):
                    self._hot.seal()
            self._hot.close()
            if shipped and self._hot.folder is not None:
                shutil.rmtree(self._hot.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.close("interrupted" if issubclass(kind, KeyboardInterrupt | SystemExit) else "failed")

    def __repr__(self) -> str:
        where = "in memory" if self.folder is None else str(self.folder)
        state = "closed" if self._closed else self.broken or f"committed up to step {self.committed}"
        return f"RecordWriter({where}, {state})"

    def _begin_attempt(self, step: int | None, meta: Mapping[str, Any]) -> None:
        resumed = [*meta.get("resumed", []), {"attempt": self.attempt, "step": step, "time": _now()}]
        items = _meta_items({"status": "running", "attempt": self.attempt, "resumed": resumed})
        with self._hot.lock, self._transaction() as connection:
            if step is not None:
                statements.forget_from(connection, int(step))
            statements.put_meta(connection, items)
            statements.touch(connection)
        connection = self._hot.connection
        self._tables.load(connection)
        for instrument, label, name, dims in connection.execute("SELECT instrument, label, name, dims FROM series"):
            self._encoder.dims[instrument, label, name] = tuple(json.loads(dims))
        self._buffer.start_from(connection.execute("SELECT coalesce(max(step), -1) FROM frame").fetchone()[0])
        if self._hot.folder is not None:
            remove_orphans(self._hot.folder, self._array_files())

    def _array_files(self) -> set[str]:
        return {
            name for (name,) in self._hot.connection.execute("SELECT DISTINCT file FROM point WHERE file IS NOT NULL")
        }

    def _write(self, last: Frame | None) -> int:
        with self._hot.lock:
            self._refuse_closed()
            waiting = self._buffer.take()
            frames = waiting if last is None else [*waiting, last]
            if not frames:
                return -1
            if self.broken is not None:
                self._buffer.lose(min(frame.step for frame in frames))
                return -1
            try:
                stored = self._tables.store_large(frames)
                with self._transaction() as connection:
                    seq = [self._tables.insert(connection, frame, stored) for frame in frames][-1]
            except (sqlite3.Error, OSError) as error:
                self._buffer.lose(min(frame.step for frame in frames))
                self._stop(error)
                return -1
            except BaseException:  # Ctrl-C: what was appended is written by the next flush
                self._tables.load(self._hot.connection)
                self._buffer.give_back(waiting)
                raise
            self._buffer.settle(max(frame.step for frame in frames))
            return seq

    def _change(self, change: Callable[[sqlite3.Connection], None], announce: bool = True) -> None:
        with self._hot.lock:
            self._refuse_closed()
            if self.broken is not None:
                return
            try:
                with self._transaction() as connection:
                    change(connection)
                    if announce:
                        statements.touch(connection)
            except (sqlite3.Error, OSError) as error:
                self._stop(error)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        connection = self._hot.connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise

    def _stop(self, error: Exception) -> None:
        self.broken = str(error) or type(error).__name__
        kept = f"what was recorded up to step {self.committed} is kept" if self.committed >= 0 else "nothing was kept"
        self._warn(f"Recording to {self.folder or 'memory'} stopped ({self.broken}); training goes on, {kept}.")

    def _warn(self, message: str) -> None:
        with suppress(UserWarning):  # where warnings are errors, training goes on all the same
            warnings.warn(message, UserWarning, stacklevel=2)

    def _refuse_closed(self) -> None:
        if os.getpid() != self._pid:
            raise RecordError(f"The writer of {self.folder} belongs to process {self._pid}; only that one may write.")
        if self._closed:
            raise RecordError(
                f"The writer of {self.folder or 'a record in memory'} is closed; resume the run to go on."
            )

    def _start_thread(self) -> None:
        with self._hot.lock:
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._keep_flushing, name="stratoscope-flush", daemon=True)
                self._thread.start()

    def _keep_flushing(self) -> None:
        while True:
            with self._buffer.changed:
                if self._closed:
                    return
                wait = self._due_in()
                if wait is None or wait > 0:
                    self._buffer.changed.wait(wait)
                    continue
            with suppress(RecordError):  # closed meanwhile, which has written everything
                self.flush()
            if self._shipper is not None and self._shipper.due_in() <= 0:
                self._ship()

    def _due_in(self) -> float | None:
        age = self._buffer.age()
        times = [] if age is None else [FLUSH_AFTER - age]
        if self._shipper is not None:
            times.append(self._shipper.due_in())
        return min(times, default=None)

    def _ship(self) -> bool:
        """Copy the record to the run folder; whether that was asked for, and worked."""
        if self._shipper is None or self._hot.run is None:
            return False
        try:
            with self._hot.lock:
                seq = self._hot.connection.execute("SELECT seq FROM sqlite_sequence").fetchone()
                files = self._array_files() if self._closed else None
            self._shipper.ship(seq)
            if files is not None:
                remove_orphans(self._hot.run, files)
            return True
        except (sqlite3.Error, OSError) as error:
            if not self._ship_warned or self._closed:
                self._warn(
                    f"The record could not be copied to {self._hot.run} ({error}); it is safe in {self._hot.folder}."
                )
            self._ship_warned = True
            return False

    def _at_exit(self) -> None:
        if os.getpid() == self._pid:  # a forked child must not close what its parent writes
            self.close("interrupted")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _meta_items(items: Mapping[str, Any]) -> dict[str, str]:
    return {key: to_json(value, f"The run metadata {key!r}") for key, value in items.items()}
