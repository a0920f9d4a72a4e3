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

    All reductions are fused over the params; one small transfer a step brings them to the CPU. Nothing is written to the
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
        self._active: list[tuple[str, Tensor]] = []
        self._before: list[Tensor] = []
        self._sums: dict[str, Tensor] = {}
        self._squares: dict[str, Tensor] = {}
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
        self._active = []
        if not self._wanted():
            return
        start = time.perf_counter()
        self._active = self._with_gradients()
        if self._active:
            grads = [_dense(p.grad) for _, p in self._active if p.grad is not None]
            params = [p for _, p in self._active]
            norms = _norms(grads)
            self._accumulate(grads, norms)
            self._pre = [norms, _norms(params)]
            self._remember(params)
        self.seconds += time.perf_counter() - start

    @torch.no_grad()
    def _on_post_step(self, *_: Any) -> None:
        if not self._active:
            return
        start = time.perf_counter()
        params = [p.detach() for _, p in self._active]
        torch._foreach_sub_(self._before, params)
        rows = [*self._pre, _norms(self._before)]
        full = self._count >= self._window
        if full:
            names = [name for name, _ in self._active]
            rows += [_norms([self._sums[name] for name in names]), torch.stack([self._squares[name] for name in names])]
        self._publish(torch.stack([row.double() for row in rows]).cpu().numpy(), full)
        if full:
            self._sums, self._squares, self._count = {}, {}, 0
        self.seconds += time.perf_counter() - start

    def _with_gradients(self) -> list[tuple[str, Tensor]]:
        params = [p for group in self._optimizer.param_groups for p in group["params"] if p.grad is not None]
        return [(self._names.get(id(p), f"param {i}"), p) for i, p in enumerate(params)]

    def _remember(self, params: list[Tensor]) -> None:
        same = len(self._before) == len(params) and all(
            old.shape == new.shape and old.dtype == new.dtype and old.device == new.device
            for old, new in zip(self._before, params, strict=True)
        )
        if same:
            torch._foreach_copy_(self._before, params)
        else:
            self._before = [p.detach().clone() for p in params]

    def _accumulate(self, grads: list[Tensor], norms: Tensor) -> None:
        names = [name for name, _ in self._active]
        if self._sums.keys() != set(names):
            self._sums = {name: g.detach().float().clone() for name, g in zip(names, grads, strict=True)}
            self._squares = dict(zip(names, norms.double().square(), strict=True))
            self._count = 1
            return
        torch._foreach_add_([self._sums[name] for name in names], grads)
        for name, square in zip(names, norms.double().square(), strict=True):
            self._squares[name] = self._squares[name] + square
        self._count += 1

    def _publish(self, rows: np.ndarray[Any, np.dtype[np.float64]], full: bool) -> None:
        nothing = np.full(rows.shape[1], np.nan)
        self.latest = StepStatistics(
            params=tuple(name for name, _ in self._active),
            norm=rows[0],
            weight_norm=rows[1],
            update_norm=rows[2],
            sum_norm=rows[3] if full else nothing,
            square_sum=rows[4] if full else nothing,
            window=self._count if full else 0,
            not_finite=~np.isfinite(rows[0]),
        )


def _dense(gradient: Tensor | None) -> Tensor:
    assert gradient is not None
    return gradient.coalesce().to_dense() if gradient.is_sparse else gradient


def _norms(tensors: list[Tensor]) -> Tensor:
    """Euclidean norms, one launch a device and type; half precision is summed in float32."""
    wide = [t.float() if t.dtype.itemsize < 4 else t for t in tensors]
    return torch.stack([norm.to(wide[0].device) for norm in torch._foreach_norm(wide)])
