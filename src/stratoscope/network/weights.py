"""Where weights come from: a live module or a file, one tensor at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stratoscope.errors import OpenError


@dataclass(frozen=True)
class TensorInfo:
    """What is known of a tensor without reading it.

    Attributes:
        shape: its sizes.
        dtype: torch's type, or `None` for a stored type that torch does not have.
        role: `"parameter"`, `"buffer"`, or `"unknown"` (files do not say).
        trainable: whether it learns; `None` where nobody says.
        same_as: the first name under which this very tensor was met, if this is a second one.
        reason: why it cannot be read; empty if it can.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype | None
    role: str = "unknown"
    trainable: bool | None = None
    same_as: str | None = None
    reason: str = ""


class WeightSource(ABC):
    """Named tensors that are read one at a time, so that a large checkpoint fits in memory."""

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
    """The parameters and buffers of a live module, tied ones named once more as such."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module

    def describe(self) -> Mapping[str, TensorInfo]:
        """Parameters first, then persistent and other buffers, in module order."""
        first: dict[int, str] = {}
        found: dict[str, TensorInfo] = {}
        for name, value in self._named():
            parameter = isinstance(value, nn.Parameter)
            materialised = not isinstance(value, nn.parameter.UninitializedTensorMixin)
            same = first.setdefault(id(value), name)
            found[name] = TensorInfo(
                shape=tuple(value.shape) if materialised else (),
                dtype=value.dtype,
                role="parameter" if parameter else "buffer",
                trainable=value.requires_grad if parameter else False,
                same_as=None if same == name else same,
                reason="" if materialised else "a lazy parameter that has not seen data yet",
            )
        return found

    def load(self, name: str) -> Tensor:
        """The live tensor, detached; it shares memory with the module."""
        for known, value in self._named():
            if known == name:
                return value.detach()
        raise OpenError(f"There is no tensor {name!r} in this {type(self._module).__name__}.")

    def _named(self) -> list[tuple[str, Tensor]]:
        parameters = list(self._module.named_parameters(remove_duplicate=False))
        return parameters + list(self._module.named_buffers(remove_duplicate=False))
