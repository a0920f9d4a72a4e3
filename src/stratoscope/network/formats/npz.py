"""Archives of NumPy arrays (`.npz`), as JAX and older checkpoints are kept; no Python object in one is loaded."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from stratoscope.errors import OpenError
from stratoscope.network.formats._format import Format
from stratoscope.network.formats._raw import stored_sizes
from stratoscope.network.stores import first_line
from stratoscope.network.weights import TensorInfo, WeightSource, readable
from stratoscope.network.zipcheck import FREE_BYTES, MAX_RATIO, Member, zip_members

_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError, ValueError, KeyError)


class NpzWeights(WeightSource):
    """The arrays of an `.npz` file, by their names, each unpacked when it is asked for.

    Raises:
        OpenError: if it is damaged, or holds no arrays of numbers.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        members = zip_members(path, deflated=True, max_bytes=max(FREE_BYTES, MAX_RATIO * path.stat().st_size))
        self._infos: dict[str, TensorInfo] = {}
        for member, place in members.items():
            if member.endswith(".npy"):
                self._add(member, place)
        if not self._infos:
            raise OpenError(f"{path} holds no NumPy arrays.")
        self.about = f"{len(self._infos)} arrays in {path}"

    def describe(self) -> Mapping[str, TensorInfo]:
        """In the order of the archive."""
        return self._infos

    def load(self, name: str) -> Tensor:
        """Read one array."""
        shape, _ = readable(self._infos, name, self._path)
        try:
            with zipfile.ZipFile(self._path) as archive, archive.open(f"{name}.npy") as file:
                array = np.lib.format.read_array(file, allow_pickle=False)
        except (*_DAMAGE, MemoryError) as error:
            raise OpenError(f"The array {name!r} in {self._path} cannot be read ({first_line(error)}).") from error
        native = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="), copy=False))
        return torch.from_numpy(native).reshape(shape)

    def _add(self, member: str, place: Member) -> None:
        name = member.removesuffix(".npy")
        try:
            with zipfile.ZipFile(self._path) as archive, archive.open(member) as file:
                shape, dtype = _header(file)
        except _DAMAGE as error:
            raise OpenError(
                f"{self._path} is damaged: {member!r} is no NumPy array ({first_line(error)}); copy it again."
            ) from error
        sizes = stored_sizes(list(shape))
        if dtype.hasobject:
            self._infos[name] = TensorInfo(sizes or (), None, reason="Python objects, which are not loaded")
            return
        stored = _torch_type(dtype)
        if stored is None:
            self._infos[name] = TensorInfo(sizes or (), None, reason=f"stored as {dtype}, which torch does not have")
        elif sizes is None or prod(sizes) * dtype.itemsize > place.size:
            self._infos[name] = TensorInfo(sizes or (), stored, reason="it claims more bytes than it has")
        else:
            self._infos[name] = TensorInfo(sizes, stored)


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype


def _torch_type(dtype: np.dtype[Any]) -> torch.dtype | None:
    try:
        return torch.from_numpy(np.empty(0, dtype.newbyteorder("="))).dtype
    except TypeError:
        return None


FORMAT = Format("NumPy archive", (".npz",), NpzWeights)
