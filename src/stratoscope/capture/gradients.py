"""Loss gradients: of the probe set, and of the live mini-batch in a watched training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from stratoscope.capture.batch import SiteBatch
from stratoscope.capture.needs import Live, Reducer, Site, Streamed
from stratoscope.errors import NotApplicable, SettingError


@dataclass(frozen=True)
class Gradients(Streamed):
    """The gradient of the mean loss over the probe set, for every param of a layer, in float64.

    It takes a backward pass beside the forward pass; the params' own `.grad` is left alone.

    Attributes:
        split: a named split, or `None` for the one being measured.
    """

    split: str | None = None
    site: str = "parameter_gradient"

    def reducer(self, site: Site) -> GradientMean | None:
        """A mean for any layer that owns params."""
        return GradientMean() if site.layer.params else None


class GradientMean(Reducer):
    """The mean of batch gradients, weighted by the labelled positions in each."""

    def __init__(self) -> None:
        self._n = 0
        self._sums: dict[str, Tensor] = {}

    def update(self, batch: SiteBatch) -> None:
        """Add one batch."""
        self._n += batch.loss_n
        for name, gradient in batch.gradients.items():
            part = gradient.detach().double() * batch.loss_n
            self._sums[name] = self._sums[name] + part if name in self._sums else part

    def merge(self, other: Self) -> None:
        """Add the gradients of other batches."""
        self._n += other._n
        for name, part in other._sums.items():
            self._sums[name] = self._sums[name] + part if name in self._sums else part

    def result(self) -> dict[str, Tensor]:
        """The mean gradient of each param by its key; a batch whose loss does not depend on it counts as zero.

        Raises:
            NotApplicable: if no batch's loss depends on any of them.
        """
        if not self._sums:
            raise NotApplicable("no gradient reaches its params")
        return {name: total / self._n for name, total in self._sums.items()}


@dataclass(frozen=True)
class StepStatistics:
    """What one optimizer step did to each trained param.

    Attributes:
        params: keys of the params that have a gradient.
        norm: Euclidean norm of this mini-batch's gradient.
        sum_norm: norm of the sum of the gradients in the window.
        square_sum: sum of the squared norms in the window.
        window: mini-batches in the window; 0 where none is full.
        weight_norm: norm of the weights before the step.
        update_norm: norm of the change that the step made.
        full: whether the window of the param is full, so that there is a sum: of several optimizers, each has its own.
    """

    params: tuple[str, ...]
    norm: NDArray[np.float64]
    sum_norm: NDArray[np.float64]
    square_sum: NDArray[np.float64]
    window: int
    weight_norm: NDArray[np.float64]
    update_norm: NDArray[np.float64]
    full: NDArray[np.bool_]

    @property
    def not_finite(self) -> NDArray[np.bool_]:
        """Whether the gradient holds NaN or infinity."""
        return ~np.isfinite(self.norm)


@dataclass(frozen=True)
class TrainingGradients(Live):
    """What the live mini-batch's gradients are, and what the optimizer made of them: `StepStatistics`.

    Attributes:
        window: mini-batches over which the mean gradient is formed, for the signal-to-noise ratio.
    """

    window: int = 32

    def __post_init__(self) -> None:
        if self.window < 2:
            raise SettingError(f"TrainingGradients(window={self.window}): noise shows from 2 mini-batches on.")


@dataclass(frozen=True)
class OptimizerState:
    """The settings of each group of params at this step.

    Attributes:
        kind: the optimizer's class; of several, with commas between.
        learning_rate: rate of each group.
        weight_decay: decay of each group.
        groups: a name for each group: its own or its place; of several optimizers with the optimizer's place before it,
            `"1:0"`.
        momentum: of each group of plain gradient descent, which makes both rate and decay `1 / (1 - momentum)` times as
            large in the long run; 0 for other optimizers.
    """

    kind: str
    learning_rate: tuple[float, ...]
    weight_decay: tuple[float, ...]
    groups: tuple[str, ...] = ()
    momentum: tuple[float, ...] = ()

    @property
    def decay_rate(self) -> float:
        """The share by which weight decay alone shrinks weights a step, of the group where it is largest.

        That is the rate times the decay, over `1 - momentum`; exact for plain gradient descent and for decoupled decay
        (AdamW). Where decay goes through an adaptive step (Adam with L2), it is no more than a lower guess.

        >>> OptimizerState("SGD", (0.1,), (0.01,), momentum=(0.9,)).decay_rate  # doctest: +ELLIPSIS
        0.01...
        """
        momentum = self.momentum or (0.0,) * len(self.learning_rate)
        shares = [
            rate * decay / (1 - again) if again < 1 else 0.0
            for rate, decay, again in zip(self.learning_rate, self.weight_decay, momentum, strict=True)
        ]
        return max(shares, default=0.0)


@dataclass(frozen=True)
class Optimizer(Live):
    """The optimizer's rate, decay and kind: `OptimizerState`."""


@dataclass(frozen=True)
class TrainingLoss(Live):
    """The loss that the training loop handed over at this step, a float; absent if it handed none over."""
