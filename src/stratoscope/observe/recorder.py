"""Reads what every optimizer step does, from the optimizer's own hooks."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stratoscope.capture.gradients import OptimizerState, StepStatistics

Number = float | Tensor
FloatArray = NDArray[np.float64]

SAMPLE = 4096
"""Entries of a param that are looked at, to see whether somebody else has changed it."""


class StepRecorder:
    """Hooks on an optimizer: gradients are read just before its step, the change of the weights just after.

    One small transfer a step brings them to the CPU. Nothing is written to the params or their gradients. Params that
    are not the model's have no name here and are left out. Under a gradient scaler that leaves its scale to the
    optimizer (fused ones), gradients are read without it, and a step that it skips is not recorded.

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
        self._model, self._names = model, _names(model)
        self._optimizer, self._window, self._wanted = optimizer, window, wanted
        self._params: list[Tensor] = []
        self._given: list[tuple[Tensor, int]] = []
        self._keys: tuple[str, ...] = ()
        self._before: list[Tensor] = []
        self._versions: list[int] = []
        self._sums: list[Tensor] = []
        self._norms: list[Number] = []
        self._weights: list[Number] = []
        self._squares: list[Number] = []
        self._count = 0
        self._handles = [
            optimizer.register_step_pre_hook(self._on_pre_step),
            optimizer.register_step_post_hook(self._on_post_step),
        ]

    def remove(self) -> None:
        """Take the hooks away, and let go of the memory."""
        for handle in self._handles:
            handle.remove()
        self._handles, self._params, self._given, self._before, self._sums = [], [], [], [], []
        self._keys, self._count = (), 0

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
        if self._params and self._goes_on():
            return
        self._params = []
        if not self._wanted():
            self._versions = [-1] * len(self._versions)
            return
        start = time.perf_counter()
        scale, skipped = self._scaling()
        # not detached: an optimizer may put another tensor into a param's `.data`
        self._params = [] if skipped else self._trained()
        self._given = [(p.grad, p.grad._version) for p in self._params if p.grad is not None]
        if self._params:
            self._follow(tuple(self._names[id(p)] for p in self._params))
            self._look([_dense(p.grad) / scale if scale != 1 else _dense(p.grad) for p in self._params])
        self.seconds += time.perf_counter() - start

    def _look(self, grads: list[Tensor]) -> None:
        """Norms before the step; one param after the other, so that what was just read is still in the cache."""
        if self._count == 0:
            self._sums = [torch.zeros_like(g, dtype=_wide(g)) for g in grads]
            self._squares = [0.0] * len(grads)
        self._norms = []
        for place, (gradient, param) in enumerate(zip(grads, self._params, strict=True)):
            self._norms.append(_square(gradient))
            self._sums[place].add_(gradient)
            if self._versions[place] != param._version or not _alike(self._before[place], param):
                self._weights[place] = _square(param)
                self._before[place].copy_(param)
        self._squares = [total + norm for total, norm in zip(self._squares, self._norms, strict=True)]
        self._count += 1

    @torch.no_grad()
    def _on_post_step(self, *_: Any) -> None:
        if not self._params:
            return
        start = time.perf_counter()
        moved, weights = [], list(self._weights)
        for place, (before, param) in enumerate(zip(self._before, self._params, strict=True)):
            moved.append(_square(before.sub_(param)))
            # for the next step, while the param is in the cache
            self._weights[place] = _square(param)
            before.copy_(param)
            self._versions[place] = param._version
        rows = [self._norms, weights, moved]
        full = self._count >= self._window
        if full:
            rows += [[_square(total) for total in self._sums], self._squares]
            self._count = 0
        self._publish(_numbers(rows), full)
        self._params, self._given = [], []
        self.seconds += time.perf_counter() - start

    def _goes_on(self) -> bool:
        """Whether this is a step within the step that began: of its parent class, for which torch calls hooks too."""
        pairs = zip(self._params, self._given, strict=True)
        return all(p.grad is gradient and gradient._version == version for p, (gradient, version) in pairs)

    def _trained(self) -> list[Tensor]:
        """The model's params that are about to be changed."""
        every = [p for group in self._optimizer.param_groups for p in group["params"] if p.grad is not None]
        if any(id(p) not in self._names for p in every):
            self._names = _names(self._model)  # layers may have come since
        return [p for p in every if id(p) in self._names]

    def _scaling(self) -> tuple[float, bool]:
        """What a gradient scaler leaves to the optimizer: the scale of the gradients, and whether to skip the step."""
        scale, infinite = getattr(self._optimizer, "grad_scale", None), getattr(self._optimizer, "found_inf", None)
        return 1.0 if scale is None else float(scale), infinite is not None and bool(infinite)

    def _follow(self, keys: tuple[str, ...]) -> None:
        """Make room for the params that have a gradient now; a change of them begins a new window."""
        if keys == self._keys and all(b.device == p.device for b, p in zip(self._before, self._params, strict=True)):
            return
        self._keys, self._count = keys, 0
        self._before = [torch.empty_like(p, memory_format=torch.preserve_format) for p in self._params]
        self._versions = [-1] * len(self._params)
        self._weights = [0.0] * len(self._params)

    def _publish(self, rows: FloatArray, full: bool) -> None:
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


def _names(model: nn.Module) -> dict[int, str]:
    return {id(p): name for name, p in model.named_parameters()}


def _alike(before: Tensor, param: Tensor) -> bool:
    """Whether a param is as it was, so that it need not be read again; told by a sample of its entries.

    Whoever writes through `.data` leaves torch's version counter as it is. A clip that touches one entry in a thousand,
    here and there, is seen in 98 of 100 cases. On an accelerator reading it again is cheap, and asking would make the CPU wait.
    """
    if param.device.type != "cpu" or before.stride() != param.stride():
        return False
    # sixteen stretches and not single entries, since each entry far from the last one is a wait for memory
    length = SAMPLE // 16
    size: tuple[int, ...]
    stride: tuple[int, ...]
    if param.numel() <= SAMPLE:
        size, stride = (param.numel(),), (1,)
    else:
        size, stride = (16, length), ((param.numel() - length) // 15, 1)
    return torch.equal(before.as_strided(size, stride), param.as_strided(size, stride))


def _dense(gradient: Tensor | None) -> Tensor:
    assert gradient is not None
    return gradient.coalesce().to_dense() if gradient.is_sparse else gradient


def _wide(tensor: Tensor) -> torch.dtype:
    return torch.float32 if tensor.dtype.itemsize < 4 else tensor.dtype


def _square(tensor: Tensor) -> Number:
    """The squared norm: a float on a CPU; on an accelerator a tensor, so that nobody has to wait for it.

    Summed in float64 where float32 would overflow or vanish.
    """
    flat = tensor.to(_wide(tensor)).reshape(-1)
    if tensor.device.type != "cpu":
        return flat.double().square().sum()
    square = torch.dot(flat, flat).item()
    return square if 1e-30 < square < 1e30 else flat.double().square().sum().item()


def _numbers(rows: list[list[Number]]) -> FloatArray:
    """Rows of numbers in float64, brought to the CPU in one transfer."""
    flat = [number for row in rows for number in row]
    if any(isinstance(number, Tensor) for number in flat):
        home = next(number.device for number in flat if isinstance(number, Tensor))
        flat = torch.stack([torch.as_tensor(number, dtype=torch.float64, device=home) for number in flat]).tolist()
    return np.array(flat, dtype=np.float64).reshape(len(rows), -1)
