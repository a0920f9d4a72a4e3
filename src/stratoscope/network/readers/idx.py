"""IDX, the format of MNIST: a magic number, the sizes, then big-endian numbers."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from stratoscope.errors import DataError
from stratoscope.network.readers.limits import MAX_BYTES, MAX_DEFLATE, check_size, existing, is_gzip, opened

DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
"""Numpy's name of each type code that the format has."""

MAX_DIMS = 32


def read_idx(path: str | Path, *, max_bytes: int = MAX_BYTES) -> NDArray[Any]:
    """Read an IDX file, plain or gzip (told by content, not by name).

    Args:
        path: the file.
        max_bytes: refuse to unpack more than this.

    Returns:
        The array in the machine's byte order: `uint8 (60000, 28, 28)` for MNIST's training images.

    Raises:
        DataError: if the magic number is wrong, data are missing, left over or damaged, or it is too large.
    """
    path = existing(path)
    with opened(path) as file:
        dtype, shape = _header(path, file)
        size = math.prod(shape) * dtype.itemsize
        _check(path, size, max_bytes)
        body = file.read(size + 1)
    if len(body) != size:
        found = "more" if len(body) > size else f"{len(body):,}"
        raise DataError(f"{path} should hold {size:,} bytes for shape {shape} of {dtype.name}, and holds {found}.")
    try:
        return np.frombuffer(body, dtype).reshape(shape).astype(dtype.newbyteorder("="))
    except ValueError as error:
        raise DataError(f"{path} has the sizes {shape}, which no array can have.") from error


def _header(path: Path, file: BinaryIO) -> tuple[np.dtype[Any], tuple[int, ...]]:
    magic = file.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in DTYPES:
        raise DataError(f"{path} is no IDX file: it begins with {magic.hex(' ') or 'nothing'}.")
    if magic[3] > MAX_DIMS:
        raise DataError(f"{path} claims {magic[3]} dimensions and the limit is {MAX_DIMS}.")
    sizes = file.read(4 * magic[3])
    if len(sizes) < 4 * magic[3]:
        raise DataError(f"{path} ends within its header: it was cut off.")
    return np.dtype(DTYPES[magic[2]]), struct.unpack(f">{magic[3]}I", sizes)


def _check(path: Path, size: int, max_bytes: int) -> None:
    """Refuse a size that the file cannot hold before any memory is taken for it."""
    packed = path.stat().st_size
    if size > packed * (MAX_DEFLATE if is_gzip(path) else 1):
        raise DataError(f"{path} should hold {size:,} bytes and is only {packed:,} long: it was cut off.")
    check_size(path, packed, size, max_bytes)
