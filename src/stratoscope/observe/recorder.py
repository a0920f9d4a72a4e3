"""Reads what every optimizer step does, from the optimizer's own hooks."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stratoscope.capture.gradients import OptimizerState, StepStatistics


class StepRecorder:
    """Hooks on an optimizer: gradients are read just before its step, the change of the weights just after.

    One small transfer a step brings them to the CPU. Nothing is written to the
    params or their gradients.

    Args:
        model: the model, for the names of the params.
        optimizer: the optimizer.
        window: recorded mini-batches in a window for the signal-to-noise ratio.
        wanted: asked before each step whether to record it.
    """

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, window: int, wanted: Callable[[], bool]
    ) -> None:
        self.seconds = 0.0
        self.latest: StepStatistics | None = None
        self._names = {id(p): name for name, p in model.named_parameters()}
        self._optimizer, self._window, self._wanted = optimizer, window, wanted
        self._params: list[Tensor] = []
        self._keys: tuple[str, ...] = ()
        self._before: list[Tensor] = []
        self._sums: list[Tensor] = []
        self._squares = torch.zeros(0)
        self._count = 0
        self._pre: list[Tensor] = []
        self._handles = [
            optimizer.register_step_pre_hook(self._on_pre_step),
            optimizer.register_step_post_hook(self._on_post_step),
        ]

    def remove(self) -> None:
        """Take the hooks away."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def state(self) -> OptimizerState:
        """Learning rate and weight decay of each group, now."""
        groups = self._optimizer.param_groups
        return OptimizerState(
            type(self._optimizer).__name__,
            tuple(float(group.get("lr", float("nan"))) for group in groups),
            tuple(float(group.get("weight_decay", 0.0)) for group in groups),
        )

    def take(self) -> StepStatistics | None:
        """The statistics of the last recorded step, once."""
        latest, self.latest = self.latest, None
        return latest

    @torch.no_grad()
    def _on_pre_step(self, *_: Any) -> None:
        self._params = []
        if not self._wanted():
            return
        start = time.perf_counter()
        trained = [p for p in self._trained() if p.grad is not None]
        self._params = [p.detach() for p in trained]
        if trained:
            self._follow(tuple(self._names.get(id(p), "?") for p in trained))
            self._look([_dense(p.grad) for p in trained if p.grad is not None])
        self.seconds += time.perf_counter() - start

    def _look(self, grads: list[Tensor]) -> None:
        """Norms before the step; one param after the other, so that what was just read is still in the cache."""
        first = self._count == 0
        if first:
            self._sums = [
                torch.zeros_like(g, dtype=torch.float32) if _is_half(g) else torch.zeros_like(g) for g in grads
            ]
        norms, weights = [], []
        for gradient, param, total, before in zip(grads, self._params, self._sums, self._before, strict=True):
            norms.append(_square(gradient))
            total.add_(gradient)
            weights.append(_square(param))
            before.copy_(param)
        squares = _checked(norms, grads)
        self._squares = squares if first else self._squares + squares
        self._pre = [squares, _checked(weights, self._params)]
        self._count += 1

    @torch.no_grad()
    def _on_post_step(self, *_: Any) -> None:
        if not self._params:
            return
        start = time.perf_counter()
        moved = []
        for before, param in zip(self._before, self._params, strict=True):
            moved.append(_square(before.sub_(param)))
        rows = [*self._pre, _checked(moved, self._before)]
        full = self._count >= self._window
        if full:
            rows += [_checked([_square(total) for total in self._sums], self._sums), self._squares]
            self._count = 0
        self._publish(torch.stack(rows).cpu().numpy(), full)
        self.seconds += time.perf_counter() - start

    def _trained(self) -> list[Tensor]:
        return [p for group in self._optimizer.param_groups for p in group["params"]]

    def _follow(self, keys: tuple[str, ...]) -> None:
        """Make room for the params that have a gradient now; a change of them begins a new window."""
        if keys == self._keys and all(b.device == p.device for b, p in zip(self._before, self._params, strict=True)):
            return
        self._keys, self._count = keys, 0
        self._before = [torch.empty_like(p, memory_format=torch.preserve_format) for p in self._params]

    def _publish(self, rows: np.ndarray[Any, np.dtype[np.float64]], full: bool) -> None:
        nothing = np.full(rows.shape[1], np.nan)
        self.latest = StepStatistics(
            params=self._keys,
            norm=np.sqrt(rows[0]),
            weight_norm=np.sqrt(rows[1]),
            update_norm=np.sqrt(rows[2]),
            sum_norm=np.sqrt(rows[3]) if full else nothing,
            square_sum=rows[4] if full else nothing,
            window=self._window if full else 0,
            not_finite=~np.isfinite(rows[0]),
        )


def _dense(gradient: Tensor | None) -> Tensor:
    assert gradient is not None
    return gradient.coalesce().to_dense() if gradient.is_sparse else gradient


def _is_half(tensor: Tensor) -> bool:
    return tensor.dtype.itemsize < 4


def _square(tensor: Tensor) -> Tensor:
    """The squared norm, as a tensor; on a CPU in the tensor's own type, which `_checked` mends."""
    flat = tensor.float().reshape(-1) if _is_half(tensor) else tensor.reshape(-1)
    return torch.dot(flat, flat) if tensor.device.type == "cpu" else flat.double().square().sum()


def _checked(squares: list[Tensor], tensors: list[Tensor]) -> Tensor:
    """Squared norms in float64; those that overflowed or vanished in float32 are taken again in float64."""
    found = torch.stack([square.to(squares[0].device) for square in squares]).double()
    if found.device.type == "cpu":
        for place in np.flatnonzero(~((found.numpy() > 1e-30) & (found.numpy() < 1e30))):
            found[place] = tensors[place].double().square().sum()
    return found
