"""Loss and hits of the whole network, counted as the data stream by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import torch
from jaxtyping import Int
from torch import Tensor

from stratoscope.capture.batch import SiteBatch
from stratoscope.capture.loss import loss_of
from stratoscope.capture.needs import Reducer, Site, Streamed
from stratoscope.errors import NotApplicable
from stratoscope.network.layers import ROOT
from stratoscope.numerics.moments import Moments

if TYPE_CHECKING:
    from torch import nn

MAX_CLASSES = 1000
"""Above so many classes hits are counted, but not who is taken for whom."""


@dataclass(frozen=True)
class Tally:
    """What the network got right on one split.

    Attributes:
        n: labelled positions.
        loss: mean loss over them.
        loss_variance: unbiased variance of the loss over them, where the loss of each is known and there are two, else
            NaN.
        kind: which loss it is.
        correct: hits of the highest score, or `None` where this is no classification.
        confusion: counts of (true class, highest score), or `None`.
        not_finite: labelled positions whose scores hold NaN or infinity.
    """

    n: int
    loss: float
    loss_variance: float
    kind: str
    correct: int | None
    confusion: Int[Tensor, "classes classes"] | None
    not_finite: int


@dataclass(frozen=True)
class Predictions(Streamed):
    """Loss and hits on a split.

    Attributes:
        loss: `loss(output, labels)`, or `None` for the usual one of the task. A fixed function compares by identity.
        split: a named split, or `None` for the one being measured.
    """

    loss: Callable[..., Any] | None = None
    split: str | None = None
    site: str = "output"

    def reducer(self, site: Site) -> PredictionTally | None:
        """A tally at the whole network's output; `None` elsewhere."""
        if site.layer.name != ROOT or site.call > 1:
            return None
        return PredictionTally(self.loss, site.layer.module)


class PredictionTally(Reducer):
    """Moments of the loss in float64, counts in integers."""

    def __init__(self, loss: Callable[..., Any] | None, model: nn.Module | None) -> None:
        self._loss, self._model = loss, model
        self._n = self._not_finite = self._correct = 0
        self._sum = 0.0
        self._each = Moments()
        self._kind = ""
        self._classes = True
        self._confusion: Tensor | None = None

    def update(self, batch: SiteBatch) -> None:
        """Add one batch."""
        assert self._model is not None
        found = loss_of(self._loss or batch.criterion, batch.raw, batch.batch, self._model)
        self._kind = found.kind
        self._classes &= found.logits is not None
        if found.n == 0:
            return
        self._n += found.n
        self._sum += float(found.mean.detach()) * found.n
        if found.each is not None:
            self._each.update(found.each[:, None])
        if found.logits is not None and found.labels is not None:
            self._count(found.logits.detach(), found.labels)

    def _count(self, logits: Tensor, labels: Tensor) -> None:
        hits = logits.argmax(1)
        self._not_finite += int((~torch.isfinite(logits)).any(1).sum())
        self._correct += int((hits == labels).sum())
        classes = logits.shape[1]
        if classes <= MAX_CLASSES:
            pairs = torch.bincount(labels * classes + hits, minlength=classes**2).reshape(classes, classes).cpu()
            self._confusion = pairs if self._confusion is None else self._confusion + pairs

    def merge(self, other: Self) -> None:
        """Add another tally."""
        self._n += other._n
        self._sum += other._sum
        self._each.merge(other._each)
        self._correct += other._correct
        self._not_finite += other._not_finite
        self._classes &= other._classes
        self._kind = self._kind or other._kind
        if other._confusion is not None:
            self._confusion = other._confusion if self._confusion is None else self._confusion + other._confusion

    def result(self) -> Tally:
        """The tally."""
        if self._n == 0:
            raise NotApplicable("no position has a label")
        known = self._each.count == self._n
        mean = float(self._each.mean) if known else self._sum / self._n
        variance = float(self._each.variance(unbiased=True)) if known and self._n > 1 else float("nan")
        correct = self._correct if self._classes else None
        confusion = self._confusion if self._classes else None
        return Tally(self._n, mean, variance, self._kind, correct, confusion, self._not_finite)
