"""The tables of `run.db`, their version, and the steps from one version to the next."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from stratoscope.errors import RecordError

APPLICATION_ID = 0x53545243
"""Marks the file as ours ("STRC"), for `file` and for every reader."""

VERSION = 2
"""The schema that this release writes (`PRAGMA user_version`). Version 2 added `frame.tokens`."""

BUSY_MS = 10_000
"""How long one connection waits for another, in milliseconds."""

DATABASE = "run.db"
ARRAYS = "arrays"

TABLES = ("meta", "layer", "axis", "series", "frame", "point", "coverage", "edge", "finding")

_SQL = f"""
BEGIN IMMEDIATE;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {VERSION};
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE layer (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, depth INTEGER NOT NULL,
  parent INTEGER REFERENCES layer, n_params INTEGER NOT NULL DEFAULT 0, spec TEXT NOT NULL DEFAULT '{{}}');
CREATE TABLE axis (id INTEGER PRIMARY KEY, members TEXT NOT NULL, digest TEXT NOT NULL UNIQUE);
CREATE TABLE series (id INTEGER PRIMARY KEY, instrument TEXT NOT NULL, label TEXT NOT NULL, split TEXT NOT NULL,
  name TEXT NOT NULL, dims TEXT NOT NULL, axes TEXT NOT NULL,
  dtype TEXT NOT NULL CHECK (dtype IN ('f4', 'f8', 'i4', 'i8', 'bool')),
  attrs TEXT NOT NULL, settings TEXT NOT NULL, version TEXT NOT NULL, digest TEXT NOT NULL UNIQUE);
CREATE INDEX series_name ON series (instrument, label, name);
CREATE TABLE frame (seq INTEGER PRIMARY KEY AUTOINCREMENT, step INTEGER NOT NULL, attempt INTEGER NOT NULL DEFAULT 0,
  epoch REAL, samples INTEGER, tokens INTEGER, wall_time REAL NOT NULL, cost_ms REAL);
CREATE INDEX frame_step ON frame (step);
CREATE TABLE point (series INTEGER NOT NULL REFERENCES series, step INTEGER NOT NULL,
  seq INTEGER NOT NULL REFERENCES frame, data BLOB, file TEXT, tensor TEXT, PRIMARY KEY (series, step),
  CHECK ((data IS NULL) <> (file IS NULL)), CHECK ((file IS NULL) = (tensor IS NULL))) WITHOUT ROWID;
CREATE INDEX point_seq ON point (seq);
CREATE TABLE coverage (instrument TEXT NOT NULL, label TEXT NOT NULL, layer TEXT NOT NULL, param TEXT NOT NULL,
  split TEXT NOT NULL, step INTEGER NOT NULL, status TEXT NOT NULL, reason TEXT NOT NULL,
  PRIMARY KEY (instrument, label, layer, param, split, step)) WITHOUT ROWID;
CREATE TABLE edge (src TEXT NOT NULL, dst TEXT NOT NULL, kind TEXT NOT NULL, PRIMARY KEY (src, dst, kind)) WITHOUT ROWID;
CREATE TABLE finding (id INTEGER PRIMARY KEY, seq INTEGER REFERENCES frame, code TEXT NOT NULL,
  instrument TEXT NOT NULL, layer TEXT, step INTEGER, outcome TEXT NOT NULL, says TEXT NOT NULL, "do" TEXT NOT NULL,
  evidence TEXT NOT NULL, source TEXT NOT NULL, split TEXT);
CREATE INDEX finding_seq ON finding (seq);
COMMIT;
"""


def _add_tokens(connection: sqlite3.Connection) -> None:
    connection.execute("ALTER TABLE frame ADD COLUMN tokens INTEGER")


MIGRATIONS: dict[int, Callable[[sqlite3.Connection], None]] = {1: _add_tokens}
"""For each older version that can still be read: the function that turns it into the next one.

It runs inside one transaction, which also sets the new `user_version`.
"""


def build(connection: sqlite3.Connection) -> None:
    """Make the tables of the present version in an empty database, in one transaction."""
    connection.executescript(_SQL)


def is_empty(connection: sqlite3.Connection) -> bool:
    """Whether nothing was ever made in this database, as after a kill at the moment of its creation."""
    tables: int = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    return tables == 0 and _pragma(connection, "application_id") == 0


def version_of(connection: sqlite3.Connection, name: str) -> int:
    """The version of a record.

    Args:
        connection: the opened file.
        name: what to call it in an error.

    Raises:
        RecordError: if it is no record, or made by a newer release, or too old to be read.
    """
    if _pragma(connection, "application_id") != APPLICATION_ID:
        raise RecordError(f"{name} is an SQLite file but not a record of Stratoscope; give the folder of a run.")
    version = _pragma(connection, "user_version")
    if version > VERSION:
        raise RecordError(
            f"{name} has record version {version}, and this release reads up to {VERSION}; "
            "upgrade it with: pip install --upgrade stratoscope"
        )
    if any(older not in MIGRATIONS for older in range(version, VERSION)):
        raise RecordError(
            f"{name} has record version {version}, which this release (version {VERSION}) can no longer read; "
            "open it with the release that wrote it and export it."
        )
    return version


def migrate(connection: sqlite3.Connection, version: int) -> None:
    """Bring an opened record from an older version to the present one, a transaction a version."""
    for older in range(version, VERSION):
        connection.execute("BEGIN IMMEDIATE")
        try:
            MIGRATIONS[older](connection)
            connection.execute(f"PRAGMA user_version = {older + 1}")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")


def check_tables(connection: sqlite3.Connection, name: str) -> None:
    """Refuse a file whose tables are missing, or are views that would run something when read.

    Raises:
        RecordError: with the table that is wrong.
    """
    kinds = dict(connection.execute("SELECT name, type FROM sqlite_master WHERE type IN ('table', 'view')").fetchall())
    for table in TABLES:
        if kinds.get(table) != "table":
            raise RecordError(f"{name} is damaged: it has no table {table!r}; use a copy that is whole.")


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])
