"""Reads what every optimizer step does, from the optimizer's own hooks."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stratoscope.capture.gradients import OptimizerState, StepStatistics
from stratoscope.observe.coming import Coming
from stratoscope.observe.traces import Trace, trace_of

FloatArray = NDArray[np.float64]


class StepRecorder:
    """Hooks on an optimizer: gradients are read just before its step, the change of the weights just after.

    On an accelerator nothing waits for the numbers: one small transfer a step brings them to the CPU. Nothing is written
    to the params or their gradients. Params that are not the model's have no name here and are left out.

    An optimizer that is given a closure (`LBFGS`) works out gradients within its step, perhaps many times: recorded are
    those of the last time, and one update for the whole step. Under a gradient scaler that leaves its scale to the
    optimizer (fused ones), gradients are read without it, and a step that it skips is not recorded; to know that, the
    CPU has to wait for the device.

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
        self.latest: Coming[StepStatistics] | None = None
        self._model, self._names = model, names_of(model)
        self._optimizer, self._window, self._wanted = optimizer, window, wanted
        self._params: list[Tensor] = []
        self._given: list[tuple[Tensor | None, int]] = []
        self._naming = _Naming((), window)
        self._followed: list[int] = []
        self._held: list[Tensor] = []
        self._homes: list[torch.device] = []
        self._trace: Trace | None = None
        self._inside = False
        self._scale = 1.0
        self._count = 0
        self._handles = [
            optimizer.register_step_pre_hook(self._on_pre_step),
            optimizer.register_step_post_hook(self._on_post_step),
        ]

    def remove(self) -> None:
        """Take the hooks away, and let go of the memory."""
        for handle in self._handles:
            handle.remove()
        self._handles, self._params, self._given, self._trace = [], [], [], None
        self._followed, self._held, self._count = [], [], 0

    def state(self) -> OptimizerState:
        """Learning rate and weight decay of each group, now."""
        return state_of([self._optimizer])

    def take(self) -> StepStatistics | None:
        """The statistics of the last recorded step, once; waits for them."""
        latest, self.latest = self.latest, None
        return None if latest is None else latest.get()

    @torch.no_grad()
    def _on_pre_step(self, optimizer: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        if self._params and self._goes_on():
            return
        self._params = []
        if not self._wanted():
            if self._trace is not None:
                self._trace.interrupted()
            return
        start = time.perf_counter()
        self._inside = any(callable(given) and given is not optimizer for given in (*args, *kwargs.values()))
        self._scale, skipped = self._scaling()
        # not detached: an optimizer may put another tensor into a param's `.data`
        self._params = [] if skipped else self._trained()
        self._given = [(g := p.grad, -1 if g is None else g._version) for p in self._params]
        if self._params:
            trace = self._follow()
            trace.before(self._params)
            if not self._inside:
                self._look(trace)
        self.seconds += time.perf_counter() - start

    @torch.no_grad()
    def _on_post_step(self, *_: Any) -> None:
        if not self._params or self._trace is None:
            return
        start = time.perf_counter()
        if self._inside:
            self._look(self._trace)
        full = self._count >= self._window
        rows = self._trace.after(self._params, full=full)
        if full:
            self._count = 0
        self.latest = Coming(rows, self._naming)
        self._params, self._given = [], []
        self.seconds += time.perf_counter() - start

    def _look(self, trace: Trace) -> None:
        gradients = [_dense(param) for param in self._params]
        if self._scale != 1:
            gradients = [gradient / self._scale for gradient in gradients]
        trace.add(gradients, first=self._count == 0)
        self._count += 1

    def _goes_on(self) -> bool:
        """Whether this is a step within the step that began: of its parent class, for which torch calls hooks too."""
        pairs = zip(self._params, self._given, strict=True)
        return all(
            p.grad is gradient and (gradient is None or gradient._version == version)
            for p, (gradient, version) in pairs
        )

    def _trained(self) -> list[Tensor]:
        """The model's params that are about to be changed."""
        inside = self._inside
        every = [
            param
            for group in self._optimizer.param_groups
            for param in group["params"]
            if param.grad is not None or (inside and param.requires_grad)
        ]
        if list(map(id, every)) == self._followed:
            return every
        if any(id(param) not in self._names for param in every):
            self._names = names_of(self._model)  # layers may have come since
        return [param for param in every if id(param) in self._names]

    def _scaling(self) -> tuple[float, bool]:
        """What a gradient scaler leaves to the optimizer: the scale of the gradients, and whether to skip the step."""
        scale, infinite = getattr(self._optimizer, "grad_scale", None), getattr(self._optimizer, "found_inf", None)
        return 1.0 if scale is None else float(scale), infinite is not None and bool(infinite)

    def _follow(self) -> Trace:
        """The trace of the params that have a gradient now; a change of them begins a new window."""
        followed, homes = list(map(id, self._params)), [param.device for param in self._params]
        if self._trace is None or followed != self._followed or homes != self._homes:
            # held, so that no other param can take the place of one of them in memory
            self._followed, self._held, self._homes, self._count = followed, list(self._params), homes, 0
            self._naming = _Naming(tuple(self._names[one] for one in followed), self._window)
            self._trace = trace_of(self._params)
        return self._trace


def state_of(optimizers: Sequence[torch.optim.Optimizer]) -> OptimizerState:
    """Learning rate and weight decay of each group of params of some optimizers, now."""
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    return OptimizerState(
        ", ".join([type(optimizer).__name__ for optimizer in optimizers]),
        tuple([float(group.get("lr", math.nan)) for group in groups]),
        tuple([float(group.get("weight_decay", 0.0)) for group in groups]),
        _names_of_groups(optimizers) if len(groups) > 1 else ("0",),
        tuple([float(group.get("momentum", 0.0)) for group in groups]),
    )


def _names_of_groups(optimizers: Sequence[torch.optim.Optimizer]) -> tuple[str, ...]:
    names = [
        (str(number), str(group.get("name", place)))
        for number, optimizer in enumerate(optimizers)
        for place, group in enumerate(optimizer.param_groups)
    ]
    return tuple(":".join(name) if len(optimizers) > 1 else name[1] for name in names)


def together(steps: Sequence[StepStatistics]) -> StepStatistics | None:
    """What several optimizers did between two counts of the loop; `None` where none did anything."""
    if len(steps) < 2:
        return steps[0] if steps else None
    return StepStatistics(
        params=tuple(name for step in steps for name in step.params),
        window=max(step.window for step in steps),
        **{
            name: np.concatenate([getattr(step, name) for step in steps])
            for name in ("norm", "sum_norm", "square_sum", "weight_norm", "update_norm", "full")
        },
    )


def names_of(model: nn.Module) -> dict[int, str]:
    """The key of each param of a model, by the identity of the tensor."""
    return {id(param): name for name, param in model.named_parameters()}


class _Naming:
    """Makes statistics of rows of squared norms; what is the same at every step is made once."""

    def __init__(self, keys: tuple[str, ...], window: int) -> None:
        self._keys, self._window = keys, window
        self._nothing: FloatArray = np.full(len(keys), math.nan)
        self._full = {full: np.full(len(keys), full) for full in (False, True)}

    def __call__(self, rows: FloatArray) -> StepStatistics:
        full, roots = len(rows) > 3, np.sqrt(rows)
        return StepStatistics(
            params=self._keys,
            norm=roots[0],
            weight_norm=roots[1],
            update_norm=roots[2],
            sum_norm=roots[3] if full else self._nothing,
            square_sum=rows[4] if full else self._nothing,
            window=self._window if full else 0,
            full=self._full[full],
        )


def _dense(param: Tensor) -> Tensor:
    gradient = param.grad
    if gradient is None:  # a closure has not reached it
        return torch.zeros_like(param)
    return gradient.coalesce().to_dense() if gradient.is_sparse else gradient
