"""Sums of Gaussian kernels over all pairs of a sample, for several widths in one pass over its distances."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - the usual name
from jaxtyping import Float, Int
from torch import Tensor

from stratoscope.numerics.distances import PairAccumulator

FARTHEST = 80.0
"""Exponents are cut here: what is left is nothing beside the 1 of a point with itself, and still no denormal number."""

PRODUCT_CLASSES = 256
"""Up to so many classes a block is summed over each class by one product."""


class KernelAccumulator(PairAccumulator):
    r"""For each point, $\sum_j \exp(-d_{ij}^2 / 2v)$ over all points and over its own class, itself included.

    Attributes:
        sums: variances x points, float64; at least 1 each.
        own: the same over the point's own class; `None` without labels.
    """

    def __init__(
        self, variances: Float[Tensor, " V"], n: int, labels: Int[Tensor, " n"] | None = None, n_classes: int = 0
    ) -> None:
        """Start at zero.

        Args:
            variances: of the kernels, each above 0.
            n: number of points.
            labels: class of each point, from 0.
            n_classes: how many classes.

        Raises:
            ValueError: if a variance is not above 0.
        """
        if not bool((variances > 0).all()):
            raise ValueError(f"A kernel's variance must be above 0; there was {float(variances.min())}.")
        self._halves = (0.5 / variances.double()).tolist()
        self._labels, self._classes = labels, n_classes
        device = variances.device
        self.sums = torch.zeros(len(variances), n, dtype=torch.float64, device=device)
        self.own = None if labels is None else torch.zeros_like(self.sums)

    def update(self, distances: Float[Tensor, "a b"], rows: slice, columns: slice) -> None:
        """Add one block, in both orders; kernels and the sums within a block are float32, or the distances' own type."""
        squares = distances.square()
        if squares.dtype == torch.float64 and squares.device.type == "cpu":
            squares = (
                squares.float()
            )  # relative digits are what an exponent needs, and float32 has them at half the price
        for number, half in enumerate(self._halves):
            kernels = (squares * -half).clamp_min_(-FARTHEST).exp_()
            self._add(number, kernels, rows, columns)
            if rows != columns:
                self._add(number, kernels.T, columns, rows)

    def _add(self, number: int, kernels: Tensor, rows: slice, columns: slice) -> None:
        if self.own is None or self._labels is None:
            self.sums[number, rows] += kernels.sum(1)
            return
        here, there = self._labels[rows], self._labels[columns]
        if self._classes > PRODUCT_CLASSES:
            self.sums[number, rows] += kernels.sum(1)
            self.own[number, rows] += (kernels * (here[:, None] == there)).sum(1)
            return
        by_class = kernels @ F.one_hot(there, self._classes).to(kernels.dtype)
        self.sums[number, rows] += by_class.sum(1)
        self.own[number, rows] += by_class.gather(1, here[:, None])[:, 0]
