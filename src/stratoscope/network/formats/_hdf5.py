"""HDF5 files, listed by a process of its own; numbers that lie there as they are, are read without the library."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stratoscope.errors import OpenError, require
from stratoscope.network.formats._raw import ScratchOwner, as_tensor, read_range, scratch_file, stored_sizes
from stratoscope.network.weights import MUCH
from stratoscope.network.zipcheck import MAX_RATIO

MAX_SECONDS = 60.0
"""Time that the library has for one file, or one data set."""

_CHILD = Path(__file__).with_name("_hdf5_child.py")
_DTYPES: dict[str, torch.dtype] = {
    "f2": torch.float16,
    "bf2": torch.bfloat16,
    "f4": torch.float32,
    "f8": torch.float64,
    "i1": torch.int8,
    "i2": torch.int16,
    "i4": torch.int32,
    "i8": torch.int64,
    "u1": torch.uint8,
    "u2": torch.uint16,
    "u4": torch.uint32,
    "u8": torch.uint64,
    "b1": torch.bool,
}


@dataclass(frozen=True)
class DataSet:
    """One data set, not read yet.

    Attributes:
        path: its place in the file.
        shape: its sizes.
        dtype: of its numbers; `None` if it holds something else.
        swapped: whether they are stored the other way round.
        offset: where they begin, if they lie there as they are.
        address: equal for two names of one data set.
        reason: why it cannot be read; empty if it can.
    """

    path: str
    shape: tuple[int, ...]
    dtype: torch.dtype | None
    swapped: bool
    offset: int | None
    address: int
    reason: str


class Hdf5File:
    """An HDF5 file, or a part of a file that is one.

    Args:
        path: the file.
        start: where in it the HDF5 file begins.
        size: how many bytes it has.
        name: what to call it in errors.
        keep: what must live as long as this, such as the owner of a scratch file.

    Attributes:
        sets: data sets by path.
        groups: attributes of groups by path; the root is `""`.
        links: paths of links that are not followed.

    Raises:
        OpenError: if it is damaged, or takes longer than any sound file.
        StratoscopeError: if h5py is not installed.
    """

    def __init__(self, path: Path, start: int, size: int, name: str, keep: object = None) -> None:
        require("h5py", "keras")
        self._keep = keep
        self._path, self._start, self._size, self._name = path, start, size, name
        found = json.loads(self._ask({}))
        self.groups: dict[str, dict[str, Any]] = found["groups"]
        self.links: list[str] = found["links"]
        self.sets = {place: self._set(place, told) for place, told in found["sets"].items()}

    def load(self, item: DataSet) -> Tensor:
        """The numbers of a data set.

        Raises:
            OpenError: if they cannot be read.
        """
        if item.reason or item.dtype is None:
            raise OpenError(f"{item.path!r} in {self._name} cannot be read: {item.reason}.")
        size = prod(item.shape) * item.dtype.itemsize
        if item.offset is not None:
            data = read_range(self._path, self._start + item.offset, size)
        else:
            data = self._unpacked(item, size)
        if item.swapped:
            width = item.dtype.itemsize
            octets = torch.frombuffer(data, dtype=torch.uint8).view(-1, width).flip(1)
            return octets.contiguous().view(item.dtype).reshape(item.shape)
        return as_tensor(data, item.dtype, item.shape)

    def _unpacked(self, item: DataSet, size: int) -> bytearray:
        if size == 0:
            return bytearray()
        owner = ScratchOwner()
        target = scratch_file(owner, "numbers")
        self._ask({"set": item.path, "target": str(target), "most": size})
        if target.stat().st_size != size:
            raise OpenError(f"{item.path!r} in {self._name} is not of the size that it claims; copy the file again.")
        return read_range(target, 0, size)

    def _ask(self, more: Mapping[str, Any]) -> bytes:
        """What the library says, asked in a process that may crash."""
        request = {"path": str(self._path), "start": self._start, "size": self._size, **more}
        command = [sys.executable, "-P", str(_CHILD), json.dumps(request)]
        environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "HDF5_PLUGIN_PATH": "::"}
        try:
            done = subprocess.run(command, capture_output=True, timeout=MAX_SECONDS, env=environment, check=False)
        except subprocess.TimeoutExpired:
            raise OpenError(
                f"{self._name} is refused: the HDF5 library took more than {MAX_SECONDS:.0f} s over it, as over a "
                "damaged file; copy or save it again."
            ) from None
        if done.returncode:
            said = done.stderr.decode("utf-8", "replace").strip().splitlines()
            why = said[-1][:200].rstrip(".") if said and done.returncode > 0 else "the HDF5 library crashed on it"
            raise OpenError(f"{self._name} is not a complete HDF5 file ({why}); copy or save it again.")
        return done.stdout

    def _set(self, path: str, told: Mapping[str, Any]) -> DataSet:
        order, kind = told["type"][:1], told["type"][1:]
        if kind == "V2" and told["dtype"] == "bfloat16":
            kind = "bf2"
        dtype, shape = _DTYPES.get(kind), stored_sizes(told["shape"])
        reason = told["reason"]
        if dtype is None:
            reason = reason or "it holds no numbers that are read here"
        elif shape is None:
            reason = reason or "its sizes are no sizes of a tensor"
        else:
            reason = reason or _too_much(prod(shape) * dtype.itemsize, told["stored"], told["offset"] is not None)
        swapped = order == ">" and dtype is not None and dtype.itemsize > 1
        if sys.byteorder == "big":
            swapped = order == "<" and dtype is not None and dtype.itemsize > 1
        return DataSet(path, shape or (), dtype, swapped, told["offset"], told["address"], reason)


def _too_much(size: int, stored: int, plain: bool) -> str:
    """Why a data set is larger than what is stored for it could honestly be; empty if it is not."""
    if (plain and stored < size) or (size > MUCH and size > MAX_RATIO * stored):
        return f"it claims {size} bytes but stores {stored}"
    return ""
