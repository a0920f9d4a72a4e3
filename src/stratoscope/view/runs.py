"""The runs that a page may show: those under the paths that were named, and nothing else."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stratoscope.errors import RecordError, StratoscopeError
from stratoscope.record.record import Record

DATABASE = "run.db"
DEEPEST = 4
"""Folders below a named one that are looked into for runs."""

MOST = 2000
"""Runs that are listed at most."""


@dataclass
class Run:
    """One run, opened when it is asked for.

    Attributes:
        id: what the page calls it: lower case letters, digits and hyphens.
        path: its folder; `None` for a record in memory.
        name: for people, where its record cannot be read.
    """

    id: str
    path: Path | None
    name: str
    _record: Record | None = field(default=None, repr=False)
    _lock: threading.RLock = field(default_factory=threading.RLock, repr=False)

    @property
    def lock(self) -> threading.RLock:
        """Held by whoever reads the record, since a refresh changes what it shows."""
        return self._lock

    def record(self) -> Record:
        """Its record, as it is now.

        Raises:
            RecordError: if it cannot be read.
        """
        with self._lock:
            if self._record is None:
                if self.path is None:
                    raise RecordError(f"The run {self.name} is gone.")
                self._record = Record.open(self.path)
            return self._record if self.path is None else self._record.refresh()

    def summary(self) -> dict[str, Any]:
        """What the list of runs says of it; `error` in place of numbers where it cannot be read."""
        try:
            with self._lock:
                record = self.record()
                meta, steps = record.meta, record.steps
                return {
                    "id": self.id,
                    "name": str(meta.get("name") or record.run_id or self.name),
                    "folder": self.name,
                    "status": str(meta.get("status", "unknown")),
                    "started": str(meta.get("started", "")),
                    "steps": len(steps),
                    "last_step": steps[-1] if steps else None,
                    "seq": record.seq,
                    "findings": _counts(record),
                    "config": _config(meta),
                }
        except StratoscopeError as error:
            return {"id": self.id, "name": self.name, "folder": self.name, "status": "unreadable", "error": str(error)}

    def seq(self) -> int:
        """Goes up with every change of its record; -1 where it cannot be read."""
        try:
            with self._lock:
                return self.record().seq
        except StratoscopeError:
            return -1


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
        for name, record in records:
            self._add(Run(self._free(name), None, name, record))
        if not self.scan():
            where = ", ".join(str(path) for path in paths) or "nothing"
            raise RecordError(f"There is no run in {where}; a run is a folder with a {DATABASE}, as watch makes it.")

    def scan(self) -> list[Run]:
        """Every run that is there now, those known before first."""
        with self._lock:
            known = {run.path: run for run in self._runs.values()}
            for root in self._roots:
                for folder in _folders(root):
                    if folder not in known and len(self._runs) < MOST:
                        name = folder.name if folder == root else str(folder.relative_to(root))
                        known[folder] = self._add(Run(self._free(name), folder, name))
            return list(self._runs.values())

    def __getitem__(self, name: str) -> Run:
        """A run by its id.

        Raises:
            KeyError: if there is none.
        """
        with self._lock:
            return self._runs[name]

    def _add(self, run: Run) -> Run:
        self._runs[run.id] = run
        return run

    def _free(self, name: str) -> str:
        slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[-56:].strip("-") or "run"
        names = (slug if number == 1 else f"{slug}-{number}" for number in range(1, MOST + 2))
        return next(one for one in names if one not in self._runs)


def _folders(root: Path) -> Iterator[Path]:
    """Run folders at or under a folder, in order; links are not followed out of it."""
    waiting = [(root, 0)]
    while waiting:
        folder, depth = waiting.pop(0)
        if (folder / DATABASE).is_file():
            yield folder
            continue
        if depth < DEEPEST and folder.is_dir():
            inner = (one for one in folder.iterdir() if one.is_dir() and not one.is_symlink())
            waiting += [(one, depth + 1) for one in sorted(inner) if not one.name.startswith(".")]


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
    return {str(name): value for name, value in found.items() if isinstance(value, str | int | float | bool)}
