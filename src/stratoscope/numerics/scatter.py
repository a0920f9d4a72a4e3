"""Means and scatter of a stream of rows, within and between classes, in one pass, mergeable."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from stratoscope.numerics.moments import as_float64

WIDE = 256
"""From so many columns on, products of float32 rows are float32; their sums over batches stay float64."""


@dataclass(frozen=True)
class ClassScatter:
    """Second moments of rows, split into what lies within classes and what lies between them. All float64.

    Attributes:
        n: rows.
        classes: labels of the classes, ascending; empty where a row came without a label.
        counts: rows of each class.
        means: mean of each class.
        within: pooled covariance of the rows around their own class's mean, over `n`. Summed directly, so that classes
            that have collapsed to points keep their digits. Without labels the covariance around the common mean.
        spreads: for each class, the mean squared distance of its rows from its mean.
    """

    n: int
    classes: tuple[int, ...]
    counts: Int[Tensor, " C"]
    means: Float[Tensor, "C D"]
    within: Float[Tensor, "D D"]
    spreads: Float[Tensor, " C"]

    @property
    def width(self) -> int:
        """Columns."""
        return self.within.shape[0]

    @property
    def mean(self) -> Float[Tensor, " D"]:
        """Mean of all rows."""
        return self.counts.double() @ self.means / self.n

    @property
    def between(self) -> Float[Tensor, "D D"]:
        """Covariance of the class means around the common mean, each class weighted by its share of the rows."""
        offsets = self.means - self.mean
        return (offsets.T * self.counts) @ offsets / self.n

    @property
    def covariance(self) -> Float[Tensor, "D D"]:
        """Covariance of all rows around their mean, over `n`."""
        return self.within + self.between

    @property
    def second(self) -> Float[Tensor, "D D"]:
        """The mean of `x x^T`, around no mean."""
        return self.within + (self.means.T * self.counts) @ self.means / self.n


class Scatter:
    """Accumulates a `ClassScatter`.

    Each batch is reduced around its own class means and merged by the pairwise rule of Chan, Golub and LeVeque
    (doi:10.1080/00031305.1983.10483115), so neither the cut into batches nor the order changes anything beyond
    rounding. NaN and infinity spread to what they are part of.

    >>> scatter = Scatter()
    >>> scatter.update(torch.tensor([[0.0], [2.0], [10.0]]), torch.tensor([5, 5, 7]))
    >>> found = scatter.result()
    >>> found.classes, found.within.item(), found.covariance.item()
    ((5, 7), 0.6666666666666666, 18.666666666666668)
    """

    def __init__(self) -> None:
        self._labels: Tensor | None = None
        self._labelled = True

    @property
    def count(self) -> int:
        """Rows so far."""
        return 0 if self._labels is None else int(self._counts.sum())

    def update(self, rows: Shaped[Tensor, "n D"], labels: Int[Tensor, " n"] | None = None) -> None:
        """Take in one batch.

        Args:
            rows: of any real type.
            labels: class of each row, any integers; a batch without makes the whole unlabelled.

        Raises:
            ValueError: if the rows do not form a matrix, have another width than before, or have not one label each.
        """
        if rows.ndim != 2:
            raise ValueError(f"Scatter takes rows of shape (n, D); there was {tuple(rows.shape)}.")
        if labels is not None and labels.shape != rows.shape[:1]:
            raise ValueError(f"{len(rows)} rows want as many labels; there came {tuple(labels.shape)}.")
        if len(rows) == 0:
            return
        self._labelled &= labels is not None
        labels = torch.zeros(len(rows), dtype=torch.int64) if labels is None else labels
        wide = as_float64(rows.detach())
        names, place = labels.to(wide.device).unique(return_inverse=True)
        counts = torch.bincount(place, minlength=len(names))
        means = wide.new_zeros(len(names), rows.shape[1]).index_add_(0, place, wide) / counts[:, None].double()
        centred = wide - means[place]
        squares = wide.new_zeros(len(names)).index_add_(0, place, centred.square().sum(1))
        # rows are small around their class's mean, so float32 loses relative digits only
        factor = centred.float() if rows.shape[1] > WIDE and rows.dtype.itemsize <= 4 else centred
        self._add(names, counts, means, (factor.T @ factor).double(), squares)

    def merge(self, other: Self) -> None:
        """Take in what another accumulator has seen."""
        self._labelled &= other._labelled
        if other._labels is not None:
            self._add(other._labels, other._counts, other._means, other._within, other._squares)

    def result(self) -> ClassScatter:
        """What was seen so far, on the CPU.

        Raises:
            ValueError: before the first row.
        """
        if self._labels is None:
            raise ValueError("Scatter has seen no rows yet; call update first.")
        n, counts = self.count, self._counts.cpu()
        whole = ClassScatter(
            n, tuple(self._labels.tolist()), counts, self._means.cpu(), self._within.cpu() / n,
            self._squares.cpu() / counts,
        )  # fmt: skip
        if self._labelled:
            return whole
        covariance = whole.covariance
        one = torch.tensor([n])
        return ClassScatter(n, (), one, whole.mean[None], covariance, covariance.trace()[None])

    def _add(self, labels: Tensor, counts: Tensor, means: Tensor, within: Tensor, squares: Tensor) -> None:
        if self._labels is None:
            # copies: these are added to in place, and the batch may be part of other sums too
            self._labels, self._counts, self._means = labels, counts.clone(), means.clone()
            self._within, self._squares = within.clone(), squares.clone()
            return
        if means.shape[1] != self._means.shape[1]:
            raise ValueError(f"Scatter holds {self._means.shape[1]} columns; there came {means.shape[1]}.")
        device = self._means.device
        labels, counts, means, within, squares = (t.to(device) for t in (labels, counts, means, within, squares))
        place = self._make_room(labels)
        old = self._counts[place]
        total = old + counts
        share = counts.double() / total  # a quotient of whole numbers alone would be float32
        step = means - self._means[place]
        weight = old * share
        self._within += within + (step.T * weight) @ step
        self._squares[place] += squares + weight * step.square().sum(1)
        # of a class that is new, the old mean is zero and counts nothing
        self._means[place] += step * share[:, None]
        self._counts[place] = total

    def _make_room(self, labels: Tensor) -> Tensor:
        """Where these classes stand; those that are new are given a place of zeros."""
        assert self._labels is not None
        names = torch.cat([self._labels, labels]).unique()
        if len(names) > len(self._labels):
            place = torch.searchsorted(names, self._labels)
            counts, squares = self._counts.new_zeros(len(names)), self._squares.new_zeros(len(names))
            means = self._means.new_zeros(len(names), self._means.shape[1])
            counts[place], squares[place], means[place] = self._counts, self._squares, self._means
            self._labels, self._counts, self._squares, self._means = names, counts, squares, means
        return torch.searchsorted(names, labels)
