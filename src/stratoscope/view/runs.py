"""The runs that a page may show: those under the paths that were named, and nothing else."""

from __future__ import annotations

import hashlib
import math
import os
import re
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from stratoscope.errors import RecordError, StratoscopeError
from stratoscope.record.record import Record

DATABASE = "run.db"
DEEPEST = 4
"""Folders below a named one that are looked into for runs."""

MOST = 2000
"""Runs that are listed at most."""

LONGEST = 56
"""Characters of an id that come from the name."""

SHORT = 200
"""Characters of a text in the list of runs, and keys of a config, at most: it is sent whole, and often."""

BIGGEST = 2**53
"""Whole numbers above this are not all numbers of the page."""

WAIT = 0.5
"""Seconds that the list waits for a run which is being read."""

PATIENCE = 10
"""After a look for new runs it rests for so many times as long as that took."""


Stamp = tuple[tuple[int, int, int] | None, ...]


@dataclass
class Run:
    """One run, opened when it is asked for.

    Attributes:
        id: what the page calls it: lower case letters, digits and hyphens.
        path: its folder, without links on the way; `None` for a record in memory.
        name: for people, where its record cannot be read.
    """

    id: str
    path: Path | None
    name: str
    _record: Record | None = field(default=None, repr=False)
    _lock: threading.RLock = field(default_factory=threading.RLock, repr=False)
    _told: tuple[Stamp, dict[str, Any]] | None = field(default=None, repr=False)

    @property
    def lock(self) -> threading.RLock:
        """Held by whoever reads the record, since a refresh changes what it shows."""
        return self._lock

    def record(self) -> Record:
        """Its record, as it is now, or, in memory, as its owner last looked at it; a file stays open until `rest`.

        Raises:
            RecordError: if it cannot be read; nothing is said of where it lies.
        """
        with self._lock:
            if self.path is None:
                if self._record is None:
                    raise RecordError(f"The run {self.name} is gone.")
                return self._record
            try:
                self._stay_inside(self.path)
                if self._record is None:
                    self._record = Record.open(self.path)
                return self._record.refresh()
            except StratoscopeError as error:
                self.rest()  # the next time it is opened anew
                raise RecordError(self.said(error)) from error

    @contextmanager
    def reading(self) -> Iterator[Record]:
        """Its record, as it is now, for whoever lays it out; nobody else reads it meanwhile.

        A record may come from anybody. Whatever goes wrong with this one is said of it, and stops no other.

        Raises:
            RecordError: if it cannot be read, or what is in it cannot be laid out.
        """
        with self._lock:
            try:
                yield self.record()
            except StratoscopeError:
                raise
            except Exception as error:  # a record from anybody may make its readers raise anything
                what = f"{type(error).__name__}: {error!s:.{SHORT}}"
                raise RecordError(
                    self.said(f"The run {self.name} cannot be shown ({what}); use a copy that is whole.")
                ) from error

    def rest(self) -> None:
        """Let go of the file until it is asked for again."""
        with self._lock:
            if self.path is not None and self._record is not None:
                self._record.close()
                self._record = None

    def summary(self) -> dict[str, Any]:
        """What the list of runs says of it; `error` in place of numbers where it cannot be read.

        A file that has not changed is not opened again, one that nobody looks at does not stay open, and while much of it
        is being read the list says what it said before.
        """
        told = self._told
        if told is not None and not self._lock.acquire(timeout=WAIT):
            return told[1]
        if told is None:
            self._lock.acquire()
        try:
            return self._summary_now()
        finally:
            self._lock.release()

    def seq(self) -> int:
        """Another one after every change of its record; -1 where it cannot be read."""
        return int(self.summary().get("seq", -1))

    def said(self, error: Exception | str) -> str:
        """What an error says, without the folder."""
        return str(error) if self.path is None else str(error).replace(str(self.path), self.name)

    def _summary_now(self) -> dict[str, Any]:
        stamp = self._stamp()
        if self._told is not None and self._told[0] == stamp and self.path is not None:
            return self._told[1]
        idle = self._record is None
        found = self._summary()
        if idle:
            self.rest()
        self._told = None if "error" in found else (stamp, found)
        return found

    def _summary(self) -> dict[str, Any]:
        try:
            with self.reading() as record:
                meta, steps = record.meta, record.steps
                return {
                    "id": self.id,
                    "name": _short(meta.get("name") or record.run_id or self.name),
                    "folder": self.name,
                    "status": _short(meta.get("status", "unknown")),
                    "started": _short(meta.get("started", "")),
                    "steps": len(steps),
                    "last_step": steps[-1] if steps else None,
                    "seq": record.seq,
                    "findings": _counts(record),
                    "config": _config(meta),
                }
        except StratoscopeError as error:
            told = self.said(error)
            return {"id": self.id, "name": self.name, "folder": self.name, "status": "unreadable", "error": told}

    def _stamp(self) -> Stamp:
        """Differs whenever the file may have changed."""
        return () if self.path is None else tuple(_stamp(self.path / name) for name in (DATABASE, f"{DATABASE}-wal"))

    def _stay_inside(self, path: Path) -> None:
        if not (path / DATABASE).exists():
            raise RecordError(f"The run {self.name} is no longer there.")
        if (path / DATABASE).resolve() != path / DATABASE:
            raise RecordError(f"The run {self.name} is now a link to elsewhere; name the place that it leads to.")


class Runs:
    """All runs under some paths; a new one appears when the list is read again.

    Args:
        paths: run folders, folders of such, at any depth up to four.
        records: further records, in memory, by name.

    Raises:
        RecordError: if a path does not exist, or there is no run anywhere.
    """

    def __init__(self, paths: Sequence[Path] = (), records: Iterable[tuple[str, Record]] = ()) -> None:
        self._roots = [path.resolve() for path in paths]
        for given, root in zip(paths, self._roots, strict=True):
            if not root.exists():
                raise RecordError(f"There is no run {given}.")
        self._runs: dict[str, Run] = {}
        self._lock = threading.Lock()
        self._looked, self._took = -math.inf, 0.0
        for name, record in records:
            self._add(Run(self._free(name), None, name, record))
        if not self.scan():
            where = ", ".join(str(path) for path in paths) or "nothing"
            raise RecordError(f"There is no run in {where}; a run is a folder with a {DATABASE}, as watch makes it.")

    def scan(self) -> list[Run]:
        """Every run that is there now, those known before first.

        Folders that take long to walk are not walked anew at every call.
        """
        if time.monotonic() - self._looked > PATIENCE * self._took:
            begin = time.monotonic()
            found = [(root, folder) for root in self._roots for folder in _folders(root)]
            self._looked = time.monotonic()
            self._took = self._looked - begin
            self._know(found)
        with self._lock:
            return list(self._runs.values())

    def __getitem__(self, name: str) -> Run:
        """A run by its id.

        Raises:
            KeyError: if there is none.
        """
        with self._lock:
            return self._runs[name]

    def _know(self, found: list[tuple[Path, Path]]) -> None:
        with self._lock:
            known = {run.path for run in self._runs.values()}
            for root, folder in found:
                if folder not in known and len(self._runs) < MOST:
                    name = _text(folder.name if folder == root else str(folder.relative_to(root)))
                    self._add(Run(self._free(name), folder, name))
                    known.add(folder)

    def _add(self, run: Run) -> None:
        self._runs[run.id] = run

    def _free(self, name: str) -> str:
        """An id of a run; the same one the next time, wherever the name alone can see to that."""
        slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
        if len(slug) > LONGEST or not name.isascii():
            # what was left out tells it from others
            slug = f"{slug[:LONGEST]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}".strip("-")
        slug = slug or "run"
        names = (slug if number == 1 else f"{slug}-{number}" for number in range(1, MOST + 2))
        return next(one for one in names if one not in self._runs)


def _folders(root: Path) -> Iterator[Path]:
    """Run folders at or under a folder, in order; links are not followed, and what may not be read is passed over."""
    waiting = [(str(root), 0)]
    while waiting:
        folder, depth = waiting.pop(0)
        try:
            with os.scandir(folder) as entries:
                inside = sorted(entries, key=lambda entry: entry.name)
            is_run = any(entry.name == DATABASE and entry.is_file(follow_symlinks=False) for entry in inside)
            folders = [entry.path for entry in inside if _is_folder(entry)]
        except OSError:
            continue
        if is_run:
            yield Path(folder)
        elif depth < DEEPEST:
            waiting += [(one, depth + 1) for one in folders]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir(follow_symlinks=False) and not entry.name.startswith(".")


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.lstat()
    except OSError:
        return None
    # a reader may leave an empty log behind, which says nothing
    return (status.st_ino, status.st_size, status.st_mtime_ns) if status.st_size else None


def _text(name: str) -> str:
    """A name of a file as text; bytes in it that are no text are question marks."""
    return name.encode("utf-8", "replace").decode("utf-8")


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= SHORT else f"{text[: SHORT - 1]}…"


def _counts(record: Record) -> dict[str, int]:
    counts: dict[str, int] = {}
    for finding in record.findings:
        counts[finding.outcome.value] = counts.get(finding.outcome.value, 0) + 1
    return counts


def _config(meta: dict[str, Any]) -> dict[str, Any]:
    """Plain values by which runs may be grouped: what the user noted, and what every run knows."""
    own = meta.get("config")
    found = dict(own) if isinstance(own, dict) else {}
    for name in ("device", "seed", "threads"):
        found.setdefault(name, meta.get(name))
    plain = ((name, value) for name, value in found.items() if isinstance(value, str | int | float | bool))
    return {_short(name): _plain(value) for name, value in islice(plain, SHORT)}


def _plain(value: str | float) -> str | float:
    """A value of a config as JSON and the page hold it: no infinities, no integers that a float lacks, no long texts."""
    if isinstance(value, str):
        return _short(value)
    exact = abs(value) <= BIGGEST if isinstance(value, int) else math.isfinite(value)
    return value if exact else _short(value)
