"""Weights of ONNX files: the tensors of the graph, read one at a time, those in files of their own too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stratoscope.errors import OpenError
from stratoscope.network.formats._format import Format
from stratoscope.network.formats._onnx_graph import Graph, Stored, read_graph
from stratoscope.network.formats._onnx_use import Usage, is_made_up, usages
from stratoscope.network.formats._protobuf import unpacked
from stratoscope.network.formats._raw import as_tensor, read_range, stored_sizes
from stratoscope.network.placing import plain_name
from stratoscope.network.stores import printable
from stratoscope.network.weights import TensorInfo, WeightSource, readable

_TYPES: dict[int, tuple[torch.dtype, int]] = {
    1: (torch.float32, 4),
    2: (torch.uint8, 5),
    3: (torch.int8, 5),
    4: (torch.uint16, 5),
    5: (torch.int16, 5),
    6: (torch.int32, 5),
    7: (torch.int64, 7),
    9: (torch.bool, 5),
    10: (torch.float16, 5),
    11: (torch.float64, 10),
    12: (torch.uint32, 11),
    13: (torch.uint64, 11),
    14: (torch.complex64, 4),
    15: (torch.complex128, 10),
    16: (torch.bfloat16, 5),
    17: (torch.float8_e4m3fn, 5),
    18: (torch.float8_e4m3fnuz, 5),
    19: (torch.float8_e5m2, 5),
    20: (torch.float8_e5m2fnuz, 5),
    24: (torch.float8_e8m0fnu, 5),
}
"""Codes of types: torch's type, and the field that holds such numbers where they are not raw bytes."""

_OTHER_TYPES = {8: "strings", 21: "4-bit integers", 22: "4-bit integers", 23: "4-bit floats", 25: "2-bit integers",
                26: "2-bit integers"}  # fmt: skip
_RAW = 9
_FIXED_WIDTH = frozenset({4, 10, _RAW})
_ADVICE = "exporters fold batch norm into the weights before it, so layers may be missing"


@dataclass(frozen=True)
class _Place:
    """Where the numbers of a tensor are."""

    path: Path
    start: int = 0
    length: int = 0
    field: int = _RAW


class OnnxWeights(WeightSource):
    """The initialisers of an ONNX graph and its larger constants, in the order in which they are used.

    A tensor whose name an exporter made up (`onnx::MatMul_123`) is called after the module that its node comes from
    where the graph tells that.

    Raises:
        OpenError: if it is no ONNX file, or has no weights.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        graph = read_graph(path)
        told = usages(graph)
        kept = [name for name in (*told, *graph.tensors) if _is_weight(graph.tensors[name], told.get(name, Usage()))]
        self._names = _called(dict.fromkeys(kept), told)
        self._places: dict[str, _Place] = {}
        self._infos: dict[str, TensorInfo] = {}
        for name, stored in self._names.items():
            self._add(name, graph.tensors[stored], told.get(stored, Usage()))
        if not self._infos:
            raise OpenError(f"{path} holds no weights: its graph has no tensors of floating-point numbers.")
        self.about = _about(path, graph, self._infos)

    def describe(self) -> Mapping[str, TensorInfo]:
        """In the order in which the graph uses them."""
        return self._infos

    def load(self, name: str) -> Tensor:
        """Read one tensor."""
        shape, dtype = readable(self._infos, name, self._path)
        place = self._places[name]
        if place.length == 0:
            return torch.empty(shape, dtype=dtype)
        data = read_range(place.path, place.start, place.length)
        if place.field in _FIXED_WIDTH:
            return as_tensor(data, dtype, shape)
        try:
            numbers = unpacked(data)
        except OpenError as error:
            raise OpenError(f"The tensor {name!r} in {self._path} cannot be read: {error}.") from None
        if numbers.size != prod(shape):
            raise OpenError(f"The tensor {name!r} in {self._path} has {numbers.size} numbers, not {prod(shape)}.")
        octets = numbers.astype(f"<u{dtype.itemsize}", casting="unsafe").view(np.uint8)
        return torch.from_numpy(octets).view(dtype).reshape(shape)

    def _add(self, name: str, stored: Stored, usage: Usage) -> None:
        dtype, typed = _TYPES.get(stored.type, (None, 0))
        shape = stored_sizes(stored.sizes)
        place, reason = _Place(self._path, stored.start, stored.length, stored.field), stored.odd
        if dtype is None:
            reason = reason or f"stored as {_OTHER_TYPES.get(stored.type, f'type {stored.type}')}, not read here"
        elif shape is None:
            reason = reason or "its sizes are no sizes of a tensor"
        elif not reason and stored.external is not None:
            place, reason = _elsewhere(self._path, stored.external, prod(shape) * dtype.itemsize)
        elif not reason:
            reason = _wrong_length(stored, prod(shape), dtype, typed)
        self._places[name] = place
        trainable = None if usage.use.role != "statistic" else False
        self._infos[name] = TensorInfo(shape or (), dtype, trainable=trainable, reason=reason, use=usage.use)


def _is_weight(stored: Stored, usage: Usage) -> bool:
    """Not shapes, axes and scalars that belong to the graph rather than to the network, nor states to begin with."""
    if usage.use.role not in ("", "other"):
        return True
    made_up = is_made_up(stored.name) and not usage.name
    if stored.constant or (made_up and usage.use.role == "other"):
        return False
    known = _TYPES.get(stored.type)
    whole = known is not None and known[0] in (torch.int64, torch.bool)
    return len(stored.sizes) > 1 or not (whole or made_up)


def _called(kept: Mapping[str, None], told: Mapping[str, Usage]) -> dict[str, str]:
    """The stored name of each tensor by the name that it has here; no name is given twice."""
    names: dict[str, str] = {}
    for stored in kept:
        wanted = told[stored].name if stored in told else ""
        free = wanted and wanted not in kept and wanted not in names
        names[wanted if free else stored] = stored
    return names


def _wrong_length(stored: Stored, count: int, dtype: torch.dtype, typed: int) -> str:
    if stored.field == 0:
        return "" if count == 0 else "it has no numbers"
    if stored.field not in (_RAW, typed):
        return "its numbers are not of its type"
    if stored.field in _FIXED_WIDTH:
        size = count * dtype.itemsize
        return "" if stored.length == size else f"it has {stored.length} bytes where its sizes need {size}"
    return "" if count <= stored.length <= 10 * count else f"it has {stored.length} bytes for {count} numbers"


def _elsewhere(path: Path, external: Mapping[str, str], size: int) -> tuple[_Place, str]:
    """Where external numbers lie, or why they cannot be had."""
    location = external.get("location", "")
    try:
        file = path.parent / plain_name(location)
        offset, length = (
            _number(external.get(key, default)) for key, default in (("offset", "0"), ("length", str(size)))
        )
    except ValueError as error:
        return _Place(path), f"where its numbers lie is refused: {error}"
    if not file.is_file():
        return _Place(path), f"its numbers should be in {location!r} beside the file, which is not there"
    homes = {path.parent.resolve(), path.resolve().parent}  # a cache keeps both files elsewhere, behind links
    if not any(file.resolve().is_relative_to(home) for home in homes):
        return _Place(path), f"where its numbers lie is refused: {location!r} is a link that leads out of the folder"
    if length != size:
        return _Place(path), f"it has {length} bytes where its sizes need {size}"
    if offset + length > file.stat().st_size:
        return _Place(path), f"{location!r} is cut off: its numbers lie beyond the end"
    return _Place(file, offset, length), ""


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise ValueError(f"{text[:40]!r} is no place in a file")
    return int(text)


def _about(path: Path, graph: Graph, infos: Mapping[str, TensorInfo]) -> str:
    left = len(graph.tensors) - len(infos)
    by = f" by {printable(graph.producer, 40)}" if graph.producer else ""
    folded = "" if any(node.op == "BatchNormalization" for node in graph.nodes) else f"; {_ADVICE}"
    rest = f" (left out: {left} constants such as shapes and axes)" if left else ""
    return f"{len(infos)} tensors in {path}, an ONNX graph{by}{rest}{folded}"


FORMAT = Format("ONNX", (".onnx",), OnnxWeights)
