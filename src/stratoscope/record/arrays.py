"""Large arrays as safetensors files beside the database: written, synced, renamed, and only then named in a row."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stratoscope.errors import RecordError
from stratoscope.network.modes import as_umask_says
from stratoscope.record.schema import ARRAYS

_NAME = re.compile(r"[0-9]{4,9}-[0-9]{6,12}\.safetensors")
_OURS = re.compile(_NAME.pattern + r"(\.tmp)?")


def file_name(attempt: int, number: int) -> str:
    """The name of the n-th file of an attempt; no two attempts share one."""
    return f"{attempt:04d}-{number:06d}.safetensors"


def write_arrays(folder: Path, name: str, tensors: Mapping[str, NDArray[Any]]) -> None:
    """Write one file so that it is whole under its name, or not there at all, whatever happens.

    Raises:
        OSError: if the disk does not take it.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    folder.mkdir(exist_ok=True)
    draft = folder / f"{name}.tmp"
    try:
        save_file(dict(tensors), draft)
    except SafetensorError as error:
        raise OSError(str(error)) from error
    as_umask_says(draft)
    sync(draft)
    os.replace(draft, folder / name)
    sync(folder)


def read_array(run: Path, name: str, tensor: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Read one array of a record that may come from anybody.

    Raises:
        RecordError: if the name is not one that we give, leads out of the run folder, or the array is another one.
    """
    path = run / ARRAYS / name
    if not _NAME.fullmatch(name) or path.is_symlink() or not path.resolve().is_relative_to(run.resolve()):
        raise RecordError(
            f"The record names the array file {name!r}, which is not a plain file of its own; do not trust it."
        )
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            found = tuple(file.get_slice(tensor).get_shape())
            values: NDArray[Any] = file.get_tensor(tensor) if found == shape else np.empty(0)
    except (OSError, SafetensorError) as error:
        raise RecordError(f"{path} cannot be read ({error}); use a copy of the run that is whole.") from error
    if found != shape or values.dtype != dtype:
        raise RecordError(f"{path} holds {found} where the record says {shape} of {dtype}; use a copy that is whole.")
    return values


def remove_orphans(run: Path, referenced: Iterable[str]) -> list[str]:
    """Delete array files that no row names, as a crash or a resumed run leaves them.

    Only plain files that bear a name of ours, directly in `arrays`, are touched.

    Returns:
        The names that were deleted.
    """
    folder, keep = run / ARRAYS, set(referenced)
    if folder.is_symlink() or not folder.is_dir():
        return []
    gone = []
    for path in sorted(folder.iterdir()):
        if _OURS.fullmatch(path.name) and path.name not in keep and path.is_file() and not path.is_symlink():
            path.unlink()
            gone.append(path.name)
    return gone


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    if os.name != "posix" and path.is_dir():
        return  # only POSIX opens folders
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
