"""Archives of `torch.export` (`.pt2`), of which the weights are read and nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stratoscope.errors import OpenError
from stratoscope.network.formats._format import Format
from stratoscope.network.formats._raw import (
    MAX_INDEX,
    claims_too_much,
    needed,
    read_json,
    read_range,
    read_tensor,
    scratch_file,
    stored_sizes,
)
from stratoscope.network.stores import printable
from stratoscope.network.torchfile import open_torch
from stratoscope.network.weights import TensorInfo, WeightSource, readable
from stratoscope.network.zipcheck import Member, extract_member, zip_members

_DTYPES: dict[int, torch.dtype] = {
    1: torch.uint8,
    2: torch.int8,
    3: torch.int16,
    4: torch.int32,
    5: torch.int64,
    6: torch.float16,
    7: torch.float32,
    8: torch.float64,
    9: torch.complex32,
    10: torch.complex64,
    11: torch.complex128,
    12: torch.bool,
    13: torch.bfloat16,
    28: torch.uint16,
    29: torch.float8_e4m3fn,
    30: torch.float8_e5m2,
    31: torch.float8_e4m3fnuz,
    32: torch.float8_e5m2fnuz,
    33: torch.float8_e8m0fnu,
    34: torch.uint32,
    35: torch.uint64,
}
"""Codes of types in the schema of `torch.export`."""

_STRIDED = 7
_CONFIGS = {"data/weights/": "_weights_config.json", "data/constants/": "_constants_config.json"}
_OLD_WEIGHTS = ("serialized_state_dict.pt", "serialized_state_dict.json")


@dataclass(frozen=True)
class _Place:
    """Where and how a tensor lies in the archive."""

    member: str
    info: TensorInfo
    strides: tuple[int, ...] = ()
    start: int = 0


class ExportedWeights(WeightSource):
    """The weights and constants of a `.pt2` archive; the exported program in it is never looked at.

    Raises:
        OpenError: if it is damaged, compiled, or holds no weights.
    """

    def __init__(self, path: Path, members: Mapping[str, Member], root: str) -> None:
        self._path = path
        self._members = members
        self._places = dict(_with_twins(_places(path, members, root)))
        if not self._places:
            raise OpenError(f"{path} holds no weights: {_why_none(members, root)}.")
        self._infos = {name: place.info for name, place in self._places.items()}
        constants = sum(info.role == "transient" for info in self._infos.values())
        self.about = f"{len(self._places)} tensors in {path}" + (f", {constants} of them constants" * (constants > 0))

    def describe(self) -> Mapping[str, TensorInfo]:
        """Weights in the order of the archive, then constants."""
        return self._infos

    def load(self, name: str) -> Tensor:
        """Read one tensor."""
        shape, dtype = readable(self._infos, name, self._path)
        place = self._places[name]
        member = self._members[place.member]
        count = needed(shape, place.strides, place.start)
        if count == 0:
            return torch.empty(shape, dtype=dtype)
        flat = read_tensor(self._path, member.offset, dtype, (count,))
        return flat.as_strided(shape, place.strides, place.start)


class _Unpacked(WeightSource):
    """Weights of an archive whose state dict is a torch file within it, as torch wrote until 2.7."""

    def __init__(self, path: Path, name: str, size: int) -> None:
        self._made_of = path, name, size
        inner = scratch_file(self, "weights.pt")
        extract_member(path, name, inner, size)
        try:
            self._source = open_torch(inner)
        except OpenError as error:
            raise OpenError(str(error).replace(str(inner), f"{name} in {path}")) from None
        self.about = self._source.about.replace(str(inner), str(path))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._made_of  # the file that was unpacked stays with its process

    def describe(self) -> Mapping[str, TensorInfo]:
        return self._source.describe()

    def load(self, name: str) -> Tensor:
        return self._source.load(name)


def open_exported(path: Path) -> WeightSource:
    """Open an archive of `torch.export.save`.

    Raises:
        OpenError: if it is damaged, unsafe, or holds no weights.
    """
    members = zip_members(path)
    for name in _OLD_WEIGHTS:
        if name in members:
            return _Unpacked(path, name, members[name].size)
    roots = {name.split("/", 1)[0] for name in members}
    if len(roots) != 1:
        raise OpenError(f"{path} is no archive of torch.export: its members do not lie in one folder.")
    root = roots.pop()
    order = members.get(f"{root}/byteorder")
    if order is not None and bytes(read_range(path, order.offset, min(order.size, 8))) != b"little":
        raise OpenError(f"{path} was written on a big-endian machine, whose numbers are not read here.")
    return ExportedWeights(path, members, root)


def _why_none(members: Mapping[str, Member], root: str) -> str:
    if any(name.startswith(f"{root}/data/aotinductor/") for name in members):
        return "it was compiled by AOTInductor into machine code; save the state_dict() of the module instead"
    return "it has no index of weights, so it is not what torch.export.save writes"


def _places(path: Path, members: Mapping[str, Member], root: str) -> Iterator[tuple[str, _Place]]:
    """Every tensor by its name; of an archive with several models, with the model's name before it."""
    found = [
        (name.removeprefix(f"{root}/{folder}").removesuffix(ending), folder, name)
        for folder, ending in _CONFIGS.items()
        for name in members
        if name.startswith(f"{root}/{folder}") and name.endswith(ending)
    ]
    several = len({model for model, _, _ in found}) > 1
    for model, folder, name in found:
        for key, meta in _config(path, name, members[name]).items():
            role = "transient" if "constants" in folder else "parameter" if meta.get("is_param") else "buffer"
            yield (f"{model}.{key}" if several else key), _place(f"{root}/{folder}", meta, role, members)


def _config(path: Path, name: str, member: Member) -> Mapping[str, Mapping[str, Any]]:
    if member.size > MAX_INDEX:
        raise OpenError(f"{path} is refused: its index {name!r} has {member.size} bytes, more than {MAX_INDEX}.")
    read = read_json(bytes(read_range(path, member.offset, member.size)), f"{name!r} in {path}")
    config = read.get("config") if isinstance(read, dict) else None
    if not isinstance(config, dict) or not all(isinstance(meta, dict) for meta in config.values()):
        raise OpenError(f"{name!r} in {path} is no index of tensors; was it written by torch.export.save?")
    return config


def _place(folder: str, meta: Mapping[str, Any], role: str, members: Mapping[str, Member]) -> _Place:
    told = meta.get("tensor_meta")
    member = f"{folder}{meta.get('path_name')}"
    if not isinstance(told, dict):
        return _Place(member, TensorInfo((), None, role, reason="an object that is no tensor"))
    dtype = _DTYPES.get(told.get("dtype", 0)) if isinstance(told.get("dtype"), int) else None
    shape = stored_sizes(_integers(told.get("sizes")))
    strides = stored_sizes(_integers(told.get("strides")))
    start = stored_sizes(_integers([told.get("storage_offset")]))
    trainable = bool(told.get("requires_grad")) if role == "parameter" else False
    info = TensorInfo(shape or (), dtype, role, trainable)
    if shape is None or strides is None or start is None or len(shape) != len(strides):
        return _Place(member, replace(info, reason="its sizes are no sizes of a tensor"))
    reason = _unreadable(info, strides, start[0], meta, told, members.get(member))
    return _Place(member, replace(info, reason=reason), strides, start[0])


def _unreadable(
    info: TensorInfo,
    strides: tuple[int, ...],
    start: int,
    meta: Mapping[str, Any],
    told: Mapping[str, Any],
    member: Member | None,
) -> str:
    """Why a tensor cannot be read; empty if it can."""
    if meta.get("use_pickle"):
        return "a subclass of tensors, stored as a Python object, which is not loaded"
    if info.dtype is None:
        return f"stored as type {printable(str(told.get('dtype')), 40)}, which is not read here"
    if told.get("layout", _STRIDED) != _STRIDED:
        return "sparse: no dense matrix is stored"
    if member is None:
        return "its member of the archive is missing"
    if needed(info.shape, strides, start) * info.dtype.itemsize > member.size:
        return f"its member of the archive has {member.size} bytes, too few for its sizes"
    return claims_too_much(info.shape, info.dtype, member.size)


def _integers(values: object) -> object:
    """`[{"as_int": 3}]` as `[3]`; sizes that are symbols stay what they are."""
    if not isinstance(values, list):
        return None
    return [value.get("as_int") if isinstance(value, dict) else value for value in values]


def _with_twins(places: Iterator[tuple[str, _Place]]) -> Iterator[tuple[str, _Place]]:
    """Tensors that are the same part of one member are tied."""
    first: dict[object, str] = {}
    for name, place in places:
        same = first.setdefault((place.member, place.info.shape, place.info.dtype, place.strides, place.start), name)
        tied = same != name and not place.info.reason
        yield name, replace(place, info=replace(place.info, same_as=same)) if tied else place


FORMAT = Format("torch.export archive", (".pt2",), open_exported)
