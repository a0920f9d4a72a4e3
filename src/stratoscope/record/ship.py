"""For runs on a network file system: sealed copies of a record that is written on a local disk."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from pathlib import Path

from stratoscope.record.arrays import sync
from stratoscope.record.schema import ARRAYS, DATABASE

INTERVAL = 30.0
"""Seconds between two copies while something changes."""


class Shipper:
    """Copies the record in one folder to another, each time as one file that is whole."""

    def __init__(self, source: Path, target: Path) -> None:
        self.source = source
        self.target = target
        self.last = time.monotonic()
        self._seq: object = None

    def due_in(self) -> float:
        """Seconds until the next copy should be made."""
        return self.last + INTERVAL - time.monotonic()

    def ship(self, seq: object) -> None:
        """Make a copy, if anything changed since the last one.

        The arrays go first, so that no row of the copy names a file that is not there. Writing goes on meanwhile.

        Args:
            seq: differs whenever the record does.

        Raises:
            OSError: if either disk does not take it.
            sqlite3.Error: if the local one does not.
        """
        self.last = time.monotonic()
        if seq == self._seq:
            return
        draft = self.source / f"{DATABASE}.sealed"
        draft.unlink(missing_ok=True)
        connection = sqlite3.connect(self.source / DATABASE, timeout=10, isolation_level=None)
        try:
            connection.execute("VACUUM INTO ?", (str(draft),))
        finally:
            connection.close()
        self._ship_arrays()
        copy_whole(draft, self.target / DATABASE)
        draft.unlink()
        self._seq = seq

    def _ship_arrays(self) -> None:
        if not (self.source / ARRAYS).is_dir():
            return
        (self.target / ARRAYS).mkdir(exist_ok=True)
        for path in sorted((self.source / ARRAYS).glob("*.safetensors")):
            there = self.target / ARRAYS / path.name
            if not there.exists():
                copy_whole(path, there)


def copy_whole(source: Path, target: Path) -> None:
    """Copy a file so that it is whole under its name, or not there at all."""
    draft = target.with_name(f"{target.name}.tmp")
    shutil.copyfile(source, draft)
    sync(draft)
    os.replace(draft, target)
    sync(target.parent)
