"""Going on where an interrupted inspection stopped: what identifies it, and what is there already."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stratoscope.errors import RecordError
from stratoscope.network.opening import endings
from stratoscope.record.record import Record
from stratoscope.record.schema import DATABASE
from stratoscope.record.values import to_json
from stratoscope.record.writer import RecordWriter

IDENTITY = "identity"
"""Where in a run's metadata it says what was inspected and how."""

PARTS = (".distcp", ".data", ".metadata")
"""Endings of files that belong to a checkpoint beside those that `open_weights` opens by themselves."""


@dataclass
class Begun:
    """A record to write to, and what an earlier call has put there.

    Attributes:
        writer: the open writer.
        parts: for each step, how many layers are there already.
        said: what to tell the user about an earlier call; empty where there was none.
    """

    writer: RecordWriter
    parts: Mapping[int, int] = field(default_factory=dict)
    said: str = ""


def identity_of(paths: Iterable[Path], how: Mapping[str, Any]) -> dict[str, Any]:
    """What an inspection is of: each file's place, size and time of change, and the settings that it is done with.

    Args:
        paths: files and folders of checkpoints.
        how: instruments and options, as plain values.
    """
    files = [file for path in paths for file in _files(path)]
    about = ((file, file.stat()) for file in files)
    found = {"files": [[str(file.resolve()), stat.st_size, stat.st_mtime_ns] for file, stat in about], "how": dict(how)}
    # as it reads back from the record
    kept: dict[str, Any] = json.loads(to_json(found, "What an inspection is of"))
    return kept


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        folder = path.parent if path.name.endswith(".index.json") else None
        return [path] if folder is None else _files(folder)
    every = sorted(child for child in path.iterdir() if child.is_file())
    weights = (*endings(), *PARTS)  # a log that grows beside them does not count
    return [child for child in every if child.name.lower().endswith(weights)] or every


def earlier(folder: Path, identity: Mapping[str, Any]) -> Record | None:
    """The record of an earlier call with the same identity; `None` where the folder holds no record.

    Raises:
        RecordError: if the folder holds the record of something else.
    """
    if not (folder / DATABASE).is_file():
        return None
    record = Record.open(folder)
    known = record.meta.get(IDENTITY)
    if not record.meta:  # killed before it was begun
        record.close()
        return None
    if known is None:
        record.close()
        what = record.meta.get("name") or "another run"
        raise RecordError(f"{folder} holds the record of {what!r}, not of an inspection; choose another folder.")
    difference = _difference(known, identity)
    if difference:
        record.close()
        raise RecordError(f"{folder} holds an inspection {difference}; choose another folder, or delete that one.")
    return record


def begin(folder: Path | None, meta: Mapping[str, Any], identity: Mapping[str, Any] | None) -> Begun:
    """Begin a record, or go on with the one that an interrupted call left.

    Args:
        folder: the run folder; `None` keeps the record in memory.
        meta: what to say about the run.
        identity: from `identity_of`; `None` for weights in memory, which nobody can know again.

    Raises:
        RecordError: if the folder holds something else, or cannot be written.
    """
    if folder is None or identity is None or (kept := earlier(folder, identity)) is None:
        known = {} if identity is None else {IDENTITY: identity}
        return Begun(RecordWriter.create(folder, {**meta, **known}))
    parts = kept.parts
    kept.close()
    layers = sum(parts.values())
    said = f"Going on with the inspection in {folder}: {layers:,} layer{'s' if layers != 1 else ''} are there already."
    return Begun(RecordWriter.resume(folder), parts, said)


def _difference(known: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """In what two identities differ, as the end of a sentence; empty if they do not."""
    before = {str(path): (size, time) for path, size, time in known.get("files", [])}
    after = {str(path): (size, time) for path, size, time in now["files"]}
    if set(before) != set(after):
        other = next(iter(sorted(set(before) ^ set(after))))
        return f"of other files ({Path(other).name} is in one of them only)"
    changed = [path for path, about in after.items() if before[path] != about]
    if changed:
        return f"of {Path(changed[0]).name} as it was before it changed"
    settings = [key for key, value in now["how"].items() if known.get("how", {}).get(key) != value]
    return f"with other settings ({', '.join(settings)})" if settings else ""
