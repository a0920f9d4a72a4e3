"""Files of safetensors, one or many, read one tensor at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from stratoscope.errors import OpenError
from stratoscope.network.weights import TensorInfo, WeightSource, readable

_DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "F8_E8M0": torch.float8_e8m0fnu,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "C64": torch.complex64,
}


class SafetensorsFile(WeightSource):
    """One safetensors file, memory-mapped; tensors are read when asked for.

    Names that the file's metadata call other names of a stored tensor (as `safetensors.torch.save_model` and
    `save_snapshot` write them) are there as tied tensors.

    Attributes:
        metadata: what the file says beside its tensors.

    Raises:
        OpenError: if it is no complete safetensors file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: Any = None
        names = list(self._handle().keys())
        stored = set(names)
        self.metadata: dict[str, str] = self._handle().metadata() or {}
        self._aliases = {
            alias: name for alias, name in self.metadata.items() if name in stored and alias not in stored | {"format"}
        }
        self._infos = {name: self._info(name) for name in names}
        for alias, name in self._aliases.items():
            info = self._infos[name]
            self._infos[alias] = TensorInfo(info.shape, info.dtype, same_as=name, reason=info.reason)
        self.about = f"{len(self._infos)} tensors in {path}"

    def describe(self) -> Mapping[str, TensorInfo]:
        """In the order of names, which is all that the format keeps."""
        return self._infos

    def load(self, name: str) -> Tensor:
        """Read one tensor: a mapping of its own, whose memory goes when the tensor does."""
        readable(self._infos, name, self._path)
        try:
            # one open file for all would keep every page that was ever read
            file: Any = safe_open(str(self._path), framework="pt", device="cpu")
            tensor: Tensor = file.get_tensor(self._aliases.get(name, name))
        except (SafetensorError, RuntimeError, OSError) as error:
            raise OpenError(f"The tensor {name!r} in {self._path} cannot be read ({error}).") from error
        return tensor

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None}  # an open file stays in its process

    def _handle(self) -> Any:
        if self._file is None:
            try:
                self._file = safe_open(str(self._path), framework="pt", device="cpu")
            except (SafetensorError, OSError, ValueError) as error:
                raise OpenError(
                    f"{self._path} is not a complete safetensors file ({first_line(error)}); copy or download it again."
                ) from error
        return self._file

    def _info(self, name: str) -> TensorInfo:
        part = self._handle().get_slice(name)
        stored = part.get_dtype()
        dtype = _DTYPES.get(stored)
        reason = "" if dtype is not None else f"stored as {stored}, a packed type that is not read here"
        return TensorInfo(tuple(part.get_shape()), dtype, reason=reason)


class ShardedWeights(WeightSource):
    """Weights spread over several files; each is opened when it is first needed.

    Args:
        homes: for each tensor, the source that holds it.
        about: what this is, for people.

    Raises:
        OpenError: if a tensor is not where it should be.
    """

    def __init__(self, homes: Mapping[str, WeightSource], about: str) -> None:
        self._homes = dict(homes)
        self.about = about
        found = {id(source): source.describe() for source in self._homes.values()}
        absent = [name for name, source in self._homes.items() if name not in found[id(source)]]
        if absent:
            raise OpenError(f"{some(absent)} listed in the index, but not in the shard named there; {about}.")
        self._infos = {name: found[id(source)][name] for name, source in self._homes.items()}

    def describe(self) -> Mapping[str, TensorInfo]:
        """In the order of the index."""
        return self._infos

    def load(self, name: str) -> Tensor:
        """Read one tensor from its shard."""
        if name not in self._homes:
            raise OpenError(f"There is no tensor {name!r} in {self.about}.")
        return self._homes[name].load(name)


def listed(names: Sequence[str], most: int = 5) -> str:
    """The first few names, and how many more there are."""
    shown = ", ".join(printable(name) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def some(names: Sequence[str]) -> str:
    """The first few names with their verb."""
    return f"{listed(names, 3)} {'is' if len(names) == 1 else 'are'}"


def printable(text: str, most: int = 200) -> str:
    r"""A text of a file in one line, cut short, with what is not to be printed escaped.

    >>> printable("a\nb")
    'a\\nb'
    """
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text[:most])


def first_line(error: Exception) -> str:
    """What an error of another library says, cut short."""
    return str(error).strip().partition("\n")[0][:200].rstrip(". ") or type(error).__name__
