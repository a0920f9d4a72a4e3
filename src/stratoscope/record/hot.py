"""The database that is being written: where it lies, who may write it, how it is opened and sealed."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import threading
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from stratoscope.errors import RecordError
from stratoscope.record import schema
from stratoscope.record.folder import Lock, cannot_write, lies_on_network, scratch_for
from stratoscope.record.ship import copy_whole


@dataclass(eq=False)
class Hot:
    """One opened database.

    Attributes:
        connection: to it; only used while `lock` is held.
        run: the run folder; `None` in memory.
        folder: where the database and its arrays lie: the run folder, or a local one if that is on a network.
        claim: the right to write the run.
        lock: one user of the connection at a time.
    """

    connection: sqlite3.Connection
    run: Path | None = None
    folder: Path | None = None
    claim: Lock | None = None
    lock: threading.RLock = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        weakref.finalize(self, _close_here, self.connection, os.getpid())

    @property
    def is_shipped(self) -> bool:
        """Whether people read a copy elsewhere."""
        return self.run != self.folder

    def seal(self) -> None:
        """Fold the write-ahead log into the file, so that it can be read on its own, also where nothing is writable.

        A reader that has the file open keeps it in WAL mode; then nothing is lost, and it is sealed the next time.
        """
        self.connection.execute("PRAGMA busy_timeout = 0")
        with contextlib.suppress(sqlite3.OperationalError):
            self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self.connection.execute("PRAGMA journal_mode = DELETE")

    def close(self) -> None:
        """Close a database on disk and give up the right to write; one in memory stays for its readers."""
        if self.folder is not None:
            self.connection.close()
        if self.claim is not None:
            self.claim.release()


def _close_here(connection: sqlite3.Connection, pid: int) -> None:
    if os.getpid() == pid:  # a forked child must leave its parent's database alone
        connection.close()


def in_memory() -> Hot:
    """An empty record that lives as long as the writer and its readers."""
    hot = Hot(_connect(":memory:"))
    schema.build(hot.connection)
    return hot


def create(run: Path) -> Hot:
    """Begin a record in a folder, which is made if it is not there.

    Raises:
        RecordError: if the folder cannot be written, holds a record already, or is being written.
    """
    try:
        run.mkdir(parents=True, exist_ok=True)
        claim = Lock.take(run)
    except OSError as error:
        raise cannot_write(run, error) from error
    with _or_release(claim):
        folder = _place(run)
        for place in {run, folder}:
            _refuse_second(place)
        hot = Hot(_open(folder), run, folder, claim)
        schema.build(hot.connection)
    return hot


def reopen(run: Path) -> Hot:
    """Open the record of a folder to go on writing it.

    Raises:
        RecordError: if there is none, it is being written, or it is of a version that cannot be written.
    """
    if not run.is_dir():
        raise RecordError(f"There is no run in {run}, so it cannot be resumed; create it instead.")
    try:
        claim = Lock.take(run)
    except OSError as error:
        raise cannot_write(run, error) from error
    with _or_release(claim):
        folder = _place(run)
        if folder != run and _progress(run) > _progress(folder):
            _fetch(run, folder)
        if not (folder / schema.DATABASE).is_file():
            raise RecordError(f"There is no {schema.DATABASE} in {run}, so it cannot be resumed; create it instead.")
        hot = Hot(_open(folder), run, folder, claim)
        name = str(run / schema.DATABASE)
        schema.migrate(hot.connection, schema.version_of(hot.connection, name))
        schema.check_tables(hot.connection, name)
    return hot


def _place(run: Path) -> Path:
    return scratch_for(run) if lies_on_network(run) else run


def _progress(folder: Path) -> tuple[int, int]:
    """How far a copy of a record is: its attempt, then its last change; (-1, -1) if there is none."""
    if not (folder / schema.DATABASE).is_file():
        return -1, -1
    connection = _connect(str(folder / schema.DATABASE))
    try:
        attempt = connection.execute("SELECT value FROM meta WHERE key = 'attempt'").fetchone()
        seq = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'frame'").fetchone()
    except sqlite3.Error:
        return 0, -1  # not ours to judge; what is wrong with it is said when it is opened
    finally:
        connection.close()
    return int(attempt[0]) if attempt else 0, int(seq[0]) if seq else 0


def _fetch(run: Path, folder: Path) -> None:
    """Bring the copy to the local disk, as on another machine than the one that began the run."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    if (run / schema.ARRAYS).is_dir():
        shutil.copytree(run / schema.ARRAYS, folder / schema.ARRAYS)
    copy_whole(run / schema.DATABASE, folder / schema.DATABASE)


def _refuse_second(folder: Path) -> None:
    path = folder / schema.DATABASE
    if not path.exists():
        return
    connection = sqlite3.connect(path)
    try:
        if not schema.is_empty(connection):
            raise RecordError(f"{folder} holds a record already; resume it, or choose another folder.")
    finally:
        connection.close()


def _open(folder: Path) -> sqlite3.Connection:
    connection = _connect(str(folder / schema.DATABASE))
    connection.execute("PRAGMA journal_mode = WAL")
    return connection


def _connect(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=schema.BUSY_MS / 1000, isolation_level=None, check_same_thread=False)
    for pragma in ("synchronous = NORMAL", "foreign_keys = ON", "trusted_schema = OFF"):
        connection.execute(f"PRAGMA {pragma}")
    return connection


@contextlib.contextmanager
def _or_release(claim: Lock) -> Iterator[None]:
    """Give the right to write back if opening fails, and say in one sentence why it did."""
    try:
        yield
    except sqlite3.Error as error:
        claim.release()
        raise RecordError(
            f"{claim.path.parent} cannot be opened as a record ({error}); choose another folder."
        ) from error
    except OSError as error:
        claim.release()
        raise cannot_write(claim.path.parent, error) from error
    except BaseException:
        claim.release()
        raise
