"""Norms of gradients, weights and updates over one optimizer step, on the CPU and on an accelerator.

What is remembered from step to step takes twice the memory of the params: their weights before the step, and the sum of
the gradients in the window.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Rows = Tensor | NDArray[np.float64]

SAMPLE = 4096
"""Entries of a param that are looked at, to see whether somebody else has changed it."""

STRETCHES = 16
"""In so many stretches and not one by one, since each entry far from the last one is a wait for memory."""


class Trace(ABC):
    """Follows some params through an optimizer's steps. Nothing is written to them or their gradients.

    A step is told as `before`, `add` and `after`. Norms are given squared.
    """

    @abstractmethod
    def before(self, params: Sequence[Tensor]) -> None:
        """Note the weights before the step."""

    @abstractmethod
    def add(self, gradients: Sequence[Tensor], *, first: bool) -> None:
        """Note the gradients of this mini-batch; `first` of a window."""

    @abstractmethod
    def after(self, params: Sequence[Tensor], *, full: bool) -> Rows:
        """Note the weights after the step.

        Returns:
            Rows of squared norms, a column a param: of the gradient, of the weights before the step, of the update; if
            the window is full, also of the sum of the gradients in it, and the sum of their squared norms.
        """

    @abstractmethod
    def interrupted(self) -> None:
        """Steps go by unseen: what is known of the weights no longer holds."""


def trace_of(params: Sequence[Tensor]) -> Trace:
    """The trace for where the params are."""
    on_cpu = all(param.device.type == "cpu" for param in params)
    return HostTrace(params) if on_cpu else DeviceTrace(params)


class HostTrace(Trace):
    """On the CPU: one param after the other, so that what was just read is still in the cache.

    Weights are read before a step only where somebody else than the optimizer has changed them since the last one.
    """

    def __init__(self, params: Sequence[Tensor]) -> None:
        self._before = [torch.empty_like(p, memory_format=torch.preserve_format) for p in params]
        self._sums: list[Tensor] = []
        self._norms: list[float] = []
        self._squares: list[float] = []
        self._weights = [0.0] * len(params)
        self._known = [0.0] * len(params)
        self._dense = all(b.stride() == p.stride() for b, p in zip(self._before, params, strict=True))
        self._spots = _Spots(self._before)

    def before(self, params: Sequence[Tensor]) -> None:
        """Note the weights before the step."""
        if not self._spots.hold(params):
            for place, param in enumerate(params):
                self._known[place] = _square(param)
                self._before[place].copy_(param)
        self._weights = list(self._known)

    def add(self, gradients: Sequence[Tensor], *, first: bool) -> None:
        """Note the gradients of this mini-batch."""
        if first:
            self._sums = [torch.zeros_like(g, dtype=_wide(g)) for g in gradients]
            self._squares = [0.0] * len(gradients)
        self._norms = []
        for gradient, total in zip(gradients, self._sums, strict=True):
            self._norms.append(_square(gradient))
            total.add_(gradient)
        self._squares = [total + norm for total, norm in zip(self._squares, self._norms, strict=True)]

    def after(self, params: Sequence[Tensor], *, full: bool) -> Rows:
        """Note the weights after the step."""
        moved = []
        for place, (before, param) in enumerate(zip(self._before, params, strict=True)):
            moved.append(_square(before.sub_(param)))
            # for the next step, while the param is in the cache
            self._known[place] = _square(param)
            before.copy_(param)
        if self._dense:
            self._spots.remember(params)
        rows = [self._norms, self._weights, moved]
        if full:
            rows += [[_square(total) for total in self._sums], self._squares]
        return np.array(rows)

    def interrupted(self) -> None:
        """Weights are read anew before the next step."""
        self._spots.forget()


class DeviceTrace(Trace):
    """On an accelerator: all params at once, and nothing that makes the CPU wait.

    Weights are read before every step, since asking whether somebody else has changed them would be waiting.
    """

    def __init__(self, params: Sequence[Tensor]) -> None:
        self._before = [torch.empty_like(p, memory_format=torch.preserve_format) for p in params]
        self._sums: list[Tensor] = []
        self._norms = self._squares = self._weights = torch.empty(0)

    def before(self, params: Sequence[Tensor]) -> None:
        """Note the weights before the step."""
        torch._foreach_copy_(self._before, list(params))
        self._weights = _squares(params)

    def add(self, gradients: Sequence[Tensor], *, first: bool) -> None:
        """Note the gradients of this mini-batch."""
        self._norms = _squares(gradients)
        if first:
            self._sums = [torch.zeros_like(g, dtype=_wide(g)) for g in gradients]
            self._squares = torch.zeros_like(self._norms)
        torch._foreach_add_(self._sums, list(gradients))
        self._squares = self._squares + self._norms

    def after(self, params: Sequence[Tensor], *, full: bool) -> Rows:
        """Note the weights after the step."""
        torch._foreach_sub_(self._before, list(params))
        rows = [self._norms, self._weights, _squares(self._before)]
        if full:
            rows += [_squares(self._sums), self._squares]
        return torch.stack(rows)

    def interrupted(self) -> None:
        """Nothing is kept that would no longer hold."""


class _Spots:
    """Whether some params are as they were when they were copied, told by some of their entries.

    Whoever writes through `.data` leaves torch's version counter as it is. A clip that touches one entry in a thousand,
    here and there, is seen in 98 of 100 cases.
    """

    def __init__(self, copies: Sequence[Tensor]) -> None:
        self._copies = [_some(copy) for copy in copies]
        self._views: list[Tensor] = []
        self._versions: list[int] = []
        self._places: list[int] = []

    def remember(self, params: Sequence[Tensor]) -> None:
        """The params have just been copied; both lie densely and in the same way in memory."""
        self._versions = [param._version for param in params]
        places = [param.data_ptr() for param in params]
        if places != self._places:
            self._places, self._views = places, [_some(param) for param in params]

    def forget(self) -> None:
        """Nothing is as it was."""
        self._versions, self._places, self._views = [], [], []

    def hold(self, params: Sequence[Tensor]) -> bool:
        """Whether the params are the same, and as they were."""
        return (
            self._versions == [param._version for param in params]
            and self._places == [param.data_ptr() for param in params]
            and all(map(torch.equal, self._views, self._copies))
        )


def _some(tensor: Tensor) -> Tensor:
    """Some entries of a tensor that lies densely in memory: all of a small one."""
    if tensor.numel() <= SAMPLE:
        return tensor.as_strided((tensor.numel(),), (1,))
    length = SAMPLE // STRETCHES
    return tensor.as_strided((STRETCHES, length), ((tensor.numel() - length) // (STRETCHES - 1), 1))


def _square(tensor: Tensor) -> float:
    """The squared norm, summed in float64 where float32 would overflow or vanish."""
    if tensor.dtype not in (torch.float32, torch.float64):
        tensor = tensor.float()
    flat = tensor.view(-1) if tensor.is_contiguous() else tensor.reshape(-1)
    square: float = torch.dot(flat, flat).item()
    return square if 1e-30 < square < 1e30 else flat.double().square().sum().item()


def _squares(tensors: Sequence[Tensor]) -> Tensor:
    """The squared norm of each, in float64, without waiting for any."""
    home = tensors[0].device
    kind = torch.float32 if home.type == "mps" else torch.float64
    norms = torch._foreach_norm(list(tensors), 2, dtype=kind)
    return torch.stack([norm.to(home, non_blocking=True) for norm in norms]).square()


def _wide(tensor: Tensor) -> torch.dtype:
    return torch.float32 if tensor.dtype.itemsize < 4 else tensor.dtype
