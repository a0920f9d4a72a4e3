"""Sums of Gaussian kernels over all pairs of a sample, for several widths in one pass over its distances."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - the usual name
from jaxtyping import Float, Int
from torch import Tensor

from stratoscope.numerics.distances import PairAccumulator

FARTHEST = 85.0
"""Exponents are cut here: what is left is nothing beside the 1 of a point with itself, and still no denormal number.

Those of the wider kernels are cut at a quarter of it, at 6e-10."""

PRODUCT_CLASSES = 256
"""Up to so many classes a block is summed over each class by one product."""


class KernelAccumulator(PairAccumulator):
    r"""For each point, $\sum_j \exp(-d_{ij}^2 / 2v)$ over all points and over its own class, itself included.

    Each sum is taken at `v` and at `4 v`, which bound an entropy from both sides; the narrow kernel is the fourth power
    of the wide one.

    Attributes:
        sums: at `v` and at `4 v` x variances x points, float64; at least 1 each.
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
        self._eighths = (0.125 / variances.double()).tolist()
        self._labels, self._classes = labels, n_classes
        self.sums = torch.zeros(2, len(variances), n, dtype=torch.float64, device=variances.device)
        self.own = None if labels is None else torch.zeros_like(self.sums)

    def update(self, distances: Float[Tensor, "a b"], rows: slice, columns: slice) -> None:
        """Add one block, in both orders; kernels and the sums within a block are float32, or the distances' own type."""
        squares = distances.square()
        if squares.dtype == torch.float64 and squares.device.type == "cpu":
            squares = (
                squares.float()
            )  # relative digits are what an exponent needs, and float32 has them at half the price
        here, there = self._indicators(rows, squares), self._indicators(columns, squares)
        for number, eighth in enumerate(self._eighths):
            kernels = (squares * -eighth).clamp_min_(-FARTHEST / 4).exp_()
            for width in (1, 0):
                self._add((width, number), kernels, here, rows, columns)
                if rows != columns:
                    self._add((width, number), kernels.T, there, columns, rows)
                if width:
                    kernels = kernels.square_().square_()

    def _indicators(self, points: slice, like: Tensor) -> Tensor | None:
        """One row a class, with ones at its points; `None` where there are no classes, or too many for a product."""
        if self._labels is None or self._classes > PRODUCT_CLASSES:
            return None
        return F.one_hot(self._labels[points], self._classes).T.to(like.dtype).contiguous()

    def _add(
        self, number: tuple[int, int], kernels: Tensor, indicators: Tensor | None, rows: slice, columns: slice
    ) -> None:
        """Sums over `rows`, for each of `columns`."""
        if indicators is not None and self.own is not None and self._labels is not None:
            by_class = indicators @ kernels
            self.sums[(*number, columns)] += by_class.sum(0)
            self.own[(*number, columns)] += by_class.gather(0, self._labels[columns][None])[0]
            return
        self.sums[(*number, columns)] += kernels.sum(0)
        if self.own is not None and self._labels is not None:
            same = self._labels[rows][:, None] == self._labels[columns]
            self.own[(*number, columns)] += (kernels * same).sum(0)
