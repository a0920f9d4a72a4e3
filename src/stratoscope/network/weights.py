"""Where weights come from: a live module or a file, one tensor at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from math import prod
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from stratoscope.errors import OpenError
from stratoscope.network.unwrap import HIDDEN_PREFIX, unwrap

MUCH = 64 * 2**20
"""Bytes from which a tensor that repeats few stored numbers many times is taken for a trick."""


@dataclass(frozen=True)
class Use:
    """What a file tells of how a layer uses a tensor; it weighs more than what names suggest.

    Attributes:
        kind: kind of the layer, as in `Layer.kind`; empty where the file does not tell.
        role: as in `Param.role`; empty where the file does not tell.
        outputs: the axes that count outputs, such as `(1,)` of a dense kernel `(in, out)`; empty where not told.
        kernel: the axes that count places in a convolution's kernel.
        groups: of a convolution.
        parts: names of the equal blocks that the outputs consist of, such as the gates of a recurrent layer.
    """

    kind: str = ""
    role: str = ""
    outputs: tuple[int, ...] = ()
    kernel: tuple[int, ...] = ()
    groups: int = 1
    parts: tuple[str, ...] = ()


NOT_TOLD = Use()


@dataclass(frozen=True)
class TensorInfo:
    """What is known of a tensor without reading it.

    Attributes:
        shape: its sizes.
        dtype: torch's type, or `None` for a stored type that torch does not have.
        role: `"parameter"`, `"buffer"`, `"transient"` (a buffer that no state dict holds), or `"unknown"` (files do
            not say).
        trainable: whether it learns; `None` where nobody says.
        same_as: the first name under which this very tensor was met, if this is a second one.
        reason: why it cannot be read; empty if it can.
        use: how a layer uses it, where the file tells.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype | None
    role: str = "unknown"
    trainable: bool | None = None
    same_as: str | None = None
    reason: str = ""
    use: Use = NOT_TOLD


class WeightSource(ABC):
    """Named tensors that are read one at a time, so that a large checkpoint fits in memory.

    Attributes:
        about: what this is and what was left out of it, for people; may be empty.
        config: what the file says of the network, by the names of Transformers' `config.json`; mostly empty.
    """

    about: str = ""
    config: Mapping[str, Any] = MappingProxyType({})

    @abstractmethod
    def describe(self) -> Mapping[str, TensorInfo]:
        """Every tensor by its exact key, in the order of the file or module; reads no data."""

    @abstractmethod
    def load(self, name: str) -> Tensor:
        """Read one tensor, detached. The caller must not write to it.

        Raises:
            OpenError: if there is no such tensor, or it cannot be read.
        """


class ModuleWeights(WeightSource):
    """The parameters and buffers of a live module, tied ones named once more as such.

    The module may be wrapped (`torch.compile`, `DataParallel`, ...); the names are those of the module inside.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = unwrap(module)
        self.about = f"the live {type(self._module).__name__}"

    def describe(self) -> Mapping[str, TensorInfo]:
        """Parameters first, then persistent and other buffers, in module order."""
        first: dict[Hashable, str] = {}
        found: dict[str, TensorInfo] = {}
        persistent = _persistent_buffers(self._module)
        for name, value in self._named().items():
            parameter = isinstance(value, nn.Parameter)
            same = first.setdefault(identity(value), name)
            found[name] = TensorInfo(
                shape=() if is_lazy(value) else tuple(value.shape),
                dtype=value.dtype,
                role="parameter" if parameter else "buffer" if name in persistent else "transient",
                trainable=value.requires_grad if parameter else False,
                same_as=None if same == name else same,
                reason=unreadable(value),
            )
        return found

    def load(self, name: str) -> Tensor:
        """The live tensor, detached; it shares memory with the module."""
        path, _, leaf = name.rpartition(".")
        try:
            owner = self._module.get_submodule(path)
        except AttributeError:
            owner = self._module
        own = owner.__dict__
        value = own.get("_parameters", {}).get(leaf, own.get("_buffers", {}).get(leaf))
        if value is None:  # a wrapper's key, or a TorchScript module
            value = self._named().get(name)
        return _readable(name, value, type(self._module).__name__)

    def _named(self) -> dict[str, Tensor]:
        named: dict[str, Tensor] = dict(self._module.named_parameters(remove_duplicate=False))
        named |= dict(self._module.named_buffers(remove_duplicate=False))
        return {name.replace(HIDDEN_PREFIX, ""): value for name, value in named.items()}


class StateDict(WeightSource):
    """Tensors by name that are in memory or mapped into it, such as a state dict; anything else in it is left out.

    >>> StateDict({"fc.weight": torch.zeros(2, 3), "epoch": 7}).describe()["fc.weight"].shape
    (2, 3)
    """

    def __init__(self, tensors: Mapping[str, object], about: str = "") -> None:
        self._tensors = {name: value for name, value in tensors.items() if isinstance(value, Tensor)}
        self.about = about or f"a mapping of {len(self._tensors)} tensors"

    def describe(self) -> Mapping[str, TensorInfo]:
        """In the order of the mapping."""
        first: dict[Hashable, str] = {}
        found: dict[str, TensorInfo] = {}
        for name, value in self._tensors.items():
            same = first.setdefault(identity(value), name)
            parameter = isinstance(value, nn.Parameter)
            found[name] = TensorInfo(
                shape=() if is_lazy(value) else tuple(value.shape),
                dtype=value.dtype,
                role="parameter" if parameter else "unknown",
                trainable=value.requires_grad if parameter else None,
                same_as=None if same == name else same,
                reason=unreadable(value),
            )
        return found

    def load(self, name: str) -> Tensor:
        """The tensor, detached; it shares memory with the mapping's."""
        return _readable(name, self._tensors.get(name), self.about)


def is_lazy(value: Tensor) -> bool:
    """Whether this is a parameter or buffer whose shape waits for the first data."""
    return isinstance(value, UninitializedParameter | UninitializedBuffer)


def identity(value: Tensor) -> Hashable:
    """Equal for two tensors that are the same numbers in memory, seen in the same way."""
    try:
        address = 0 if is_lazy(value) or value.numel() == 0 else value.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError):  # sparse tensors, and classes that wrap others, have no storage
        address = 0
    if address == 0 or value.device.type == "meta":
        return id(value)
    return value.device, address, value.storage_offset(), tuple(value.shape), value.stride(), value.dtype


def unreadable(value: Tensor) -> str:
    """Why a tensor's numbers cannot be read here; empty if they can."""
    if is_lazy(value):
        return "a lazy parameter that has not seen data yet"
    if value.device.type == "meta":
        return "on the meta device: it has a shape but no numbers"
    if value.is_quantized:
        return f"quantised ({value.dtype}): its numbers are codes, not weights"
    if value.layout != torch.strided:
        return f"sparse ({value.layout}): no dense matrix is stored"
    if type(value).__name__ == "DTensor":
        return "sharded over processes: only a part of it is here"
    size = value.numel() * value.dtype.itemsize
    if size > MUCH and size > _stored_bytes(value):
        return f"it claims {size} bytes but stores fewer, which are repeated"
    return ""


def no_reals(info: TensorInfo) -> str:
    """Why a readable tensor of two or more dimensions is no matrix of real numbers; empty if it is, or is a vector."""
    if info.dtype is None or len(info.shape) < 2:
        return ""
    if prod(info.shape) == 0:
        return "it has no elements"
    if info.dtype.is_complex:
        return f"complex numbers ({info.dtype}), which no instrument here reads"
    if not info.dtype.is_floating_point:
        return f"stored as {info.dtype}: integers, as quantised weights, masks and indices are"
    return ""


def _stored_bytes(value: Tensor) -> int:
    try:
        return value.untyped_storage().nbytes()
    except (RuntimeError, NotImplementedError):
        return value.numel() * value.dtype.itemsize


def readable(infos: Mapping[str, TensorInfo], name: str, where: object) -> tuple[tuple[int, ...], torch.dtype]:
    """Sizes and type of a tensor whose numbers can be read.

    Raises:
        OpenError: if there is no such tensor, or its numbers cannot be read.
    """
    info = infos.get(name)
    if info is None:
        raise OpenError(f"There is no tensor {name!r} in {where}.")
    if info.reason or info.dtype is None:
        raise OpenError(f"The tensor {name!r} in {where} cannot be read: {info.reason}.")
    return info.shape, info.dtype


def _readable(name: str, value: Tensor | None, where: str) -> Tensor:
    if value is None:
        raise OpenError(f"There is no tensor {name!r} in {where}.")
    reason = unreadable(value)
    if reason:
        raise OpenError(f"The tensor {name!r} cannot be read: {reason}.")
    return value.detach()


def own_buffers(module: nn.Module) -> list[str]:
    """Names of the buffers of a module, not of its children, that its state dict holds."""
    hidden = getattr(module, "_non_persistent_buffers_set", ())
    named = module.named_buffers(recurse=False, remove_duplicate=False)
    return [name for name, _ in named if name not in hidden]


def _persistent_buffers(module: nn.Module) -> set[str]:
    found = set()
    for path, child in module.named_modules(remove_duplicate=False):
        prefix = f"{path}." if path else ""
        found |= {(prefix + leaf).replace(HIDDEN_PREFIX, "") for leaf in own_buffers(child)}
    return found


class WithTwins(WeightSource):
    """A file's weights for a model that ties some: a file may hold a tied tensor under one of its names only.

    >>> model = nn.ModuleDict({"table": nn.Embedding(5, 3), "head": nn.Linear(3, 5, bias=False)})
    >>> model["head"].weight = model["table"].weight
    >>> source = WithTwins(StateDict({"table.weight": torch.zeros(5, 3)}), model)
    >>> source.describe()["head.weight"].same_as
    'table.weight'
    """

    def __init__(self, source: WeightSource, module: nn.Module) -> None:
        self._source = source
        self.config = source.config
        there, families = source.describe(), dict[str, list[str]]()
        for name, info in ModuleWeights(module).describe().items():
            families.setdefault(info.same_as or name, []).append(name)
        self._stand_in = {
            name: held
            for family in families.values()
            for name in family
            if name not in there and (held := next((other for other in family if other in there), None))
        }

    def describe(self) -> Mapping[str, TensorInfo]:
        """What the file holds, and then the names that stand for something it holds."""
        there = dict(self._source.describe())
        return there | {name: replace(there[held], same_as=held) for name, held in self._stand_in.items()}

    def load(self, name: str) -> Tensor:
        """The tensor of that name, or the one that it is tied to."""
        return self._source.load(self._stand_in.get(name, name))
