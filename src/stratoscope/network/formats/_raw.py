"""Tensors from bytes of a file, with every claimed size checked against what is there."""

from __future__ import annotations

import json
import shutil
import tempfile
import weakref
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stratoscope.errors import OpenError
from stratoscope.network.weights import MUCH

MAX_DIMS = 64
"""Axes that a tensor may have; torch allows no more."""

MAX_INDEX = 256 * 2**20
"""Bytes that the description of a checkpoint may have."""


def stored_sizes(claimed: object) -> tuple[int, ...] | None:
    """Sizes of a tensor as a file gives them, or `None` if they are none."""
    if not isinstance(claimed, list | tuple) or len(claimed) > MAX_DIMS:
        return None
    if any(not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < 2**63 for size in claimed):
        return None
    sizes = tuple(int(size) for size in claimed)
    return sizes if prod(size for size in sizes if size) < 2**60 else None


def claims_too_much(shape: Sequence[int], dtype: torch.dtype, stored: int) -> str:
    """Why a tensor is larger than what is stored for it could honestly be; empty if it is not."""
    size = prod(shape) * dtype.itemsize
    return f"it claims {size} bytes but stores {stored}" if size > MUCH and size > stored else ""


def needed(shape: Sequence[int], strides: Sequence[int], start: int) -> int:
    """Numbers that a storage must have for a strided tensor in it.

    >>> needed((2, 3), (4, 1), 5)
    12
    """
    if prod(shape) == 0:
        return 0
    return start + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True)) + 1


def read_range(path: Path, offset: int, length: int) -> bytearray:
    """Bytes of a file.

    Raises:
        OpenError: if the file ends before.
    """
    try:
        with path.open("rb") as file:
            if offset < 0 or length < 0 or offset + length > path.stat().st_size:
                raise OpenError(f"{path} is cut off: bytes {offset} to {offset + length} lie beyond its end.")
            data = bytearray(length)
            file.seek(offset)
            count = file.readinto(data)
    except (OSError, MemoryError, OverflowError) as error:
        raise OpenError(f"{path} cannot be read ({error or type(error).__name__}).") from error
    if count != length:
        raise OpenError(f"{path} was cut off while it was read.")
    return data


def as_tensor(data: bytearray, dtype: torch.dtype, shape: Sequence[int]) -> Tensor:
    r"""The tensor whose numbers these bytes are, first axis slowest; shares memory with them.

    >>> as_tensor(bytearray(b"\x00\x00\x80?"), torch.float32, (1, 1)).tolist()
    [[1.0]]
    """
    if not data:
        return torch.empty(tuple(shape), dtype=dtype)
    return torch.frombuffer(data, dtype=torch.uint8).view(dtype).reshape(tuple(shape))


def read_tensor(path: Path, offset: int, dtype: torch.dtype, shape: Sequence[int]) -> Tensor:
    """A tensor that lies in a file byte by byte.

    Raises:
        OpenError: if the file ends before.
    """
    return as_tensor(read_range(path, offset, prod(shape) * dtype.itemsize), dtype, shape)


def read_json(data: bytes, where: str) -> Any:
    """JSON of a file that others made.

    Raises:
        OpenError: if it is none, or too deep.
    """
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise OpenError(f"{where} is no JSON ({str(error)[:200] or type(error).__name__}).") from error


def scratch_file(owner: object, name: str) -> Path:
    """A path for a file that goes when its owner does."""
    folder = tempfile.mkdtemp(prefix="stratoscope-")
    weakref.finalize(owner, shutil.rmtree, folder, ignore_errors=True)
    return Path(folder) / name


class ScratchOwner:
    """Something for a scratch file to belong to."""
