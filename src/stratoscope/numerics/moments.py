"""Mean and variance of a stream, in one pass, mergeable."""

from __future__ import annotations

from typing import Self

import torch
from jaxtyping import Float, Shaped
from torch import Tensor


class Moments:
    """Count, mean and variance of each column of rows that arrive in batches.

    Each batch is reduced by two passes around its own mean and merged by the pairwise rule of Chan, Golub and LeVeque
    (doi:10.1080/00031305.1983.10483115), all in float64: no digits are lost for columns that lie far from zero, and
    how the rows were cut into batches, or spread over processes, changes nothing beyond rounding. NaN and infinity
    stay in their column.

    >>> moments = Moments()
    >>> moments.update(torch.tensor([[1.0], [3.0]]))
    >>> moments.update(torch.tensor([[5.0]]))
    >>> moments.variance(unbiased=True).item()
    4.0
    """

    def __init__(self) -> None:
        self.count = 0
        self._mean: Tensor | None = None
        self._squares: Tensor | None = None

    def update(self, rows: Shaped[Tensor, "n D"]) -> None:
        """Take in one batch of rows, of any real type.

        Raises:
            ValueError: if the rows do not form a matrix, or have another width than before.
        """
        if rows.ndim != 2:
            raise ValueError(f"Moments takes rows of shape (n, D); there was {tuple(rows.shape)}.")
        for block in torch.split(rows.detach(), max(1, 2**20 // max(1, rows.shape[1]))):
            wide = as_float64(block)
            if len(wide):
                mean = wide.mean(0)
                self._add(len(wide), mean, (wide - mean).square_().sum(0))

    def merge(self, other: Self) -> None:
        """Take in what another accumulator has seen."""
        if other._mean is not None and other._squares is not None:
            self._add(other.count, other._mean.clone(), other._squares.clone())

    @property
    def mean(self) -> Float[Tensor, " D"]:
        """Mean of each column, float64.

        Raises:
            ValueError: before the first row.
        """
        return self._known()[0]

    def variance(self, *, unbiased: bool = False) -> Float[Tensor, " D"]:
        """Variance of each column, float64.

        Args:
            unbiased: divide by `n - 1` instead of `n`; one row then gives NaN.

        Raises:
            ValueError: before the first row.
        """
        squares = self._known()[1]
        return squares / (self.count - 1 if unbiased else self.count)

    def _known(self) -> tuple[Tensor, Tensor]:
        if self._mean is None or self._squares is None:
            raise ValueError("Moments has seen no rows yet; call update first.")
        return self._mean, self._squares

    def _add(self, count: int, mean: Tensor, squares: Tensor) -> None:
        if self._mean is None or self._squares is None:
            self.count, self._mean, self._squares = count, mean, squares
            return
        if mean.shape != self._mean.shape:
            raise ValueError(f"Moments holds {len(self._mean)} columns; there came {len(mean)}.")
        total = self.count + count
        step = mean.to(self._mean.device) - self._mean
        self._mean = self._mean + step * (count / total)
        self._squares = self._squares + squares.to(step.device) + step.square() * (self.count * count / total)
        self.count = total


def as_float64(values: Tensor) -> Tensor:
    """The same in float64, on the CPU where the device has no such type."""
    return (values.cpu() if values.device.type == "mps" else values).to(torch.float64)
