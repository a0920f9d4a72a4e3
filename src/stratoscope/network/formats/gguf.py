"""GGUF files, as llama.cpp keeps language models: unquantised tensors are read, quantised ones get a reason."""

from __future__ import annotations

import mmap
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stratoscope.errors import OpenError
from stratoscope.network.formats._format import Format
from stratoscope.network.formats._raw import read_tensor, stored_sizes
from stratoscope.network.stores import ShardedWeights, listed, printable
from stratoscope.network.weights import NOT_TOLD, TensorInfo, Use, WeightSource, readable

_PLAIN: dict[int, tuple[str, torch.dtype]] = {
    0: ("F32", torch.float32),
    1: ("F16", torch.float16),
    24: ("I8", torch.int8),
    25: ("I16", torch.int16),
    26: ("I32", torch.int32),
    27: ("I64", torch.int64),
    28: ("F64", torch.float64),
    30: ("BF16", torch.bfloat16),
}
_QUANTISED = {
    2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 9: "Q8_1", 10: "Q2_K", 11: "Q3_K", 12: "Q4_K", 13: "Q5_K",
    14: "Q6_K", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 20: "IQ4_NL", 21: "IQ3_S",
    22: "IQ2_S", 23: "IQ4_XS", 29: "IQ1_M", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4", 40: "NVFP4", 41: "Q1_0",
}  # fmt: skip
"""Codes of types that are stored in blocks with a scale each."""

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_LONGEST_NAME = 65_536
_LONGEST_VALUE = 4096
_MAX_DEPTH = 4
_MAX_AXES = 8
_MAX_ALIGNMENT = 2**20
_TABLE = re.compile(r"^(token_embd|position_embd|token_types)\.")
_SPLIT = re.compile(r"^(.*)-(\d{5})-of-(\d{5})\.gguf$", re.IGNORECASE)


@dataclass
class _Reader:
    """Values one after another; nothing is read beyond the end, however much a length claims."""

    data: Any
    at: int = 0

    def number(self, code: str) -> Any:
        size = struct.calcsize(code)
        return struct.unpack(f"<{code}", self._take(size))[0]

    def text(self, longest: int) -> str:
        length = self.number("Q")
        if length > longest:
            raise OpenError(f"a name of {length} bytes")
        return self._take(length).decode("utf-8", "backslashreplace")

    def skip(self, count: int) -> None:
        if count > len(self.data) - self.at:
            raise OpenError("it ends within its header")
        self.at += count

    def value(self, kind: int, depth: int = 0) -> Any:
        """A number or a short string; anything else is passed over and `None`."""
        if kind in _SCALARS:
            return self.number(_SCALARS[kind])
        if kind == _STRING:
            length = self.number("Q")
            if length <= _LONGEST_VALUE:
                return self._take(length).decode("utf-8", "backslashreplace")
            self.skip(length)
        elif kind == _ARRAY and depth < _MAX_DEPTH:
            self._pass_array(depth)
        else:
            raise OpenError(f"a value of type {kind}")
        return None

    def _pass_array(self, depth: int) -> None:
        kind, count = self.number("I"), self.number("Q")
        if kind in _SCALARS:
            self.skip(count * struct.calcsize(_SCALARS[kind]))
            return
        if count * 8 > len(self.data) - self.at:  # a string or an array has at least its length
            raise OpenError("it ends within its header")
        for _ in range(count):
            if kind == _STRING:
                self.skip(self.number("Q"))
            else:
                self.value(kind, depth + 1)

    def _take(self, count: int) -> bytes:
        start = self.at
        self.skip(count)
        return bytes(self.data[start : self.at])


class GgufFile(WeightSource):
    """One GGUF file. Sizes are given outputs first, which is the reverse of how the format counts them.

    Attributes:
        metadata: what the file says of itself: numbers and short strings by key.

    Raises:
        OpenError: if it is no complete GGUF file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.metadata: dict[str, Any] = {}
        self._starts: dict[str, int] = {}
        self._infos: dict[str, TensorInfo] = {}
        try:
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                self._read(_Reader(data))
        except (OpenError, OSError, ValueError, struct.error) as error:
            raise OpenError(f"{path} is not a complete GGUF file ({error}); copy or download it again.") from None
        self.config = _config(self.metadata)
        self.about = f"{len(self._infos)} tensors in {path}{_said(self.metadata)}"

    def describe(self) -> Mapping[str, TensorInfo]:
        """In the order of the file."""
        return self._infos

    def load(self, name: str) -> Tensor:
        """Read one tensor."""
        shape, dtype = readable(self._infos, name, self._path)
        return read_tensor(self._path, self._starts[name], dtype, shape)

    def _read(self, reader: _Reader) -> None:
        tensors, values = _head(reader)
        for _ in range(values):
            key = reader.text(_LONGEST_NAME)
            value = reader.value(reader.number("I"))
            if value is not None:
                self.metadata[key] = value
        ends = []
        for _ in range(tensors):
            name = reader.text(_LONGEST_NAME)
            if name in self._infos:
                raise OpenError(f"two tensors have the name {name[:80]!r}")
            self._infos[name], self._starts[name] = _tensor(reader, name)
            info = self._infos[name]
            size = prod(info.shape) * info.dtype.itemsize if info.dtype is not None and not info.reason else 0
            ends.append(self._starts[name] + size)
        alignment = self.metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or not 0 < alignment <= _MAX_ALIGNMENT or alignment & (alignment - 1):
            raise OpenError(f"its alignment is {alignment}")
        start = -(-reader.at // alignment) * alignment
        if ends and start + max(ends) > len(reader.data):
            raise OpenError(f"its tensors need {start + max(ends)} bytes and it has {len(reader.data)}")
        self._starts = {name: start + offset for name, offset in self._starts.items()}


def _head(reader: _Reader) -> tuple[int, int]:
    """How many tensors and values follow."""
    if reader.number("I") != 0x46554747:
        raise OpenError("it does not begin with GGUF")
    version = reader.number("I")
    if version not in (2, 3):
        big = "; it was written for a big-endian machine" if version and version % 65536 == 0 else ""
        raise OpenError(f"version {version} of the format, where 2 and 3 are read here{big}")
    tensors, values = reader.number("Q"), reader.number("Q")
    if tensors * 24 + values * 13 > len(reader.data):  # what each needs at least
        raise OpenError(f"it claims {tensors} tensors and {values} values, more than fit in it")
    return tensors, values


def _tensor(reader: _Reader, name: str) -> tuple[TensorInfo, int]:
    """What is known of the next tensor, and where it begins behind the header."""
    axes = reader.number("I")
    if axes > _MAX_AXES:
        raise OpenError(f"a tensor of {axes} axes")
    shape = stored_sizes([reader.number("Q") for _ in range(axes)][::-1])
    kind, offset = reader.number("I"), reader.number("Q")
    if shape is None:
        raise OpenError("a tensor of impossible sizes")
    if kind in _PLAIN:
        table = _TABLE.match(name) is not None and len(shape) == 2
        use = Use("embedding", "embedding", (0,)) if table else NOT_TOLD
        return TensorInfo(shape, _PLAIN[kind][1], use=use), offset
    coded = _QUANTISED.get(kind)
    reason = f"{coded}: quantised in blocks, codes not weights" if coded else f"stored as type {kind}, not known here"
    return TensorInfo(shape, None, reason=reason), offset


def _config(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The heads of attention layers, by the names that Transformers gives them."""
    prefix = f"{metadata.get('general.architecture', '')}.attention."
    known = {"num_attention_heads": "head_count", "num_key_value_heads": "head_count_kv", "head_dim": "key_length"}
    found = {name: metadata.get(prefix + key) for name, key in known.items()}
    return {name: value for name, value in found.items() if isinstance(value, int) and value > 0}


def _said(metadata: Mapping[str, Any]) -> str:
    """Architecture and heads, for people."""
    architecture = metadata.get("general.architecture")
    said = [f"architecture {printable(str(architecture), 40)}"] if architecture else []
    config = _config(metadata)
    if "num_attention_heads" in config:
        keys = config.get("num_key_value_heads", config["num_attention_heads"])
        said.append(f"{config['num_attention_heads']} heads, {keys} of keys and values")
    return f" ({'; '.join(said)})" if said else ""


def open_gguf(path: Path) -> WeightSource:
    """Open a GGUF file, or all parts of one that was split: by one of them, or by the folder that holds no others.

    Raises:
        OpenError: if it is no complete GGUF file, or a part is missing.
    """
    path = _parts_in(path)[0] if path.is_dir() else path
    part = _SPLIT.match(path.name)
    if part is None or int(part[3]) < 2:
        return GgufFile(path)
    count = int(part[3])
    parts = [path.with_name(f"{part[1]}-{number:05d}-of-{part[3]}.gguf") for number in range(1, count + 1)]
    missing = [each.name for each in parts if not each.is_file()]
    if missing:
        raise OpenError(f"{path} is one of {count} parts, and {listed(missing)} are not beside it; download them too.")
    files = [GgufFile(each) for each in parts]
    homes: dict[str, WeightSource] = {}
    for file in files:
        for name in file.describe():
            if name in homes:
                raise OpenError(f"{path} is one of {count} parts, two of which hold {name!r}; download them again.")
            homes[name] = file
    whole = ShardedWeights(homes, f"{len(homes)} tensors in {count} parts of {path}{_said(files[0].metadata)}")
    whole.config = files[0].config
    return whole


def _parts_in(folder: Path) -> list[Path]:
    """The parts of the one split file that a folder holds; empty if it holds another `.gguf` too."""
    files = sorted(path for path in folder.iterdir() if path.name.lower().endswith(".gguf") and path.is_file())
    parts = [_SPLIT.match(path.name) for path in files]
    return files if len({(part[1], part[3]) if part else None for part in parts} - {None}) == 1 and all(parts) else []


FORMAT = Format("GGUF", (".gguf",), open_gguf, magic=b"GGUF", is_folder=lambda folder: bool(_parts_in(folder)))
