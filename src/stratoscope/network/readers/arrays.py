"""Named arrays: numpy's npz without pickle, and safetensors."""

from __future__ import annotations

import math
import sys
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from stratoscope.errors import DataError, OpenError
from stratoscope.network import zipcheck
from stratoscope.network.readers.limits import MAX_BYTES, check_zip, existing


def read_npz(path: str | Path, *, max_bytes: int = MAX_BYTES) -> dict[str, NDArray[Any]]:
    """Read every array of an npz file; never unpickles.

    The zip's table of contents is checked before anything is read (members, total size, ratio), and each array's
    header before memory is taken for it.

    Args:
        path: the file, as `numpy.savez` or `savez_compressed` wrote it.
        max_bytes: refuse to unpack more than this.

    Raises:
        DataError: if it is no npz file, is damaged or too large, or holds Python objects.
    """
    path = existing(path)
    try:
        zipcheck.check_zip(path, deflated=True, max_bytes=sys.maxsize)  # its directory, before an object for each entry
        with zipfile.ZipFile(path) as archive:
            check_zip(path, archive, max_bytes)
            return {
                member.filename.removesuffix(".npy"): _array(path, archive, member) for member in archive.infolist()
            }
    except OpenError as error:
        raise DataError(f"{path} is no sound npz file: {error}") from error
    except zipfile.BadZipFile as error:
        raise DataError(f"{path} is no sound npz file: {error}.") from error
    except (zlib.error, EOFError, NotImplementedError) as error:
        raise DataError(f"{path} is damaged: {error}.") from error


def _array(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[Any]:
    name = member.filename.removesuffix(".npy")
    if not member.filename.endswith(".npy"):
        raise DataError(f"{path} holds {member.filename!r}, which is no array.")
    try:
        with archive.open(member) as file:
            shape, dtype = _header(file)
            at = file.tell()
        if dtype.hasobject:
            raise DataError(f"{path} holds Python objects in {name!r}, which are never unpickled; save plain numbers.")
        if at + math.prod(shape) * dtype.itemsize != member.file_size:
            raise DataError(f"{path} does not hold what the header of {name!r} says: {dtype} of shape {shape}.")
        with archive.open(member) as file:
            array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
            return array
    except (ValueError, OSError) as error:  # a place before the beginning of the file is an OSError
        raise DataError(f"{path} has no readable array in {name!r}: {str(error).splitlines()[0]}.") from error


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type; version 3 differs from 2 only in the encoding of field names."""
    read = (
        np.lib.format.read_array_header_1_0
        if np.lib.format.read_magic(file) == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    shape, _, dtype = read(file)
    return shape, dtype


def read_safetensors(path: str | Path) -> dict[str, Tensor]:
    """Read every tensor of a safetensors file. The format itself rules out code and promises of more than it holds.

    Raises:
        DataError: if it is no sound safetensors file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = existing(path)
    try:
        return load_file(path)
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise DataError(f"{path} is no sound safetensors file: {error}.") from error
