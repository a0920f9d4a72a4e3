"""How two streams of vectors scatter together: in one pass, mergeable, with all that similarity measures need."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from stratoscope.numerics.hsic import CONSTANT, FEW, KernelProducts
from stratoscope.numerics.moments import as_float64
from stratoscope.numerics.similarity import Alignment, Procrustes, alignment, procrustes_of

PAIRS = ((0, 0), (0, 1), (1, 0), (1, 1))
"""Which two of the streams a sum is of; the first stream is 0 and the second 1."""

NOISE = 1e-12
"""A squared Procrustes distance below this may be rounding of the moments."""


@dataclass(frozen=True)
class _Sums:
    """Sums over the rows of one part, each around the part's own means.

    Attributes:
        n: rows.
        means: of each stream.
        scatter: `sum a b'` for each of `PAIRS`.
        thirds: `sum |a|^2 b`.
        fourths: `sum |a|^2 |b|^2`.
    """

    n: int
    means: tuple[Tensor, Tensor]
    scatter: dict[tuple[int, int], Tensor]
    thirds: dict[tuple[int, int], Tensor]
    fourths: dict[tuple[int, int], Tensor]

    @classmethod
    def of(cls, streams: tuple[Tensor, Tensor]) -> _Sums:
        wide = [as_float64(rows) for rows in streams]
        means = wide[0].mean(0), wide[1].mean(0)
        centred = [rows - mean for rows, mean in zip(wide, means, strict=True)]
        squares = [rows.square().sum(1) for rows in centred]
        return cls(
            len(wide[0]), means,
            {(a, b): centred[a].T @ centred[b] for a, b in PAIRS},
            {(a, b): squares[a] @ centred[b] for a, b in PAIRS},
            {(a, b): squares[a] @ squares[b] for a, b in PAIRS},
        )  # fmt: skip

    def around(self, means: tuple[Tensor, Tensor]) -> _Sums:
        """The same around other means."""
        n, scatter, thirds = self.n, self.scatter, self.thirds
        d = [own - new for own, new in zip(self.means, means, strict=True)]
        length = [step @ step for step in d]
        trace = [scatter[0, 0].trace(), scatter[1, 1].trace()]
        return _Sums(
            n, means,
            {(a, b): scatter[a, b] + n * torch.outer(d[a], d[b]) for a, b in PAIRS},
            {
                (a, b): thirds[a, b] + trace[a] * d[b] + 2 * scatter[b, a] @ d[a] + n * length[a] * d[b]
                for a, b in PAIRS
            },
            {
                (a, b): self.fourths[a, b]
                + 2 * (thirds[a, b] @ d[b] + thirds[b, a] @ d[a] + 2 * d[a] @ scatter[a, b] @ d[b])
                + length[b] * trace[a] + length[a] * trace[b] + n * length[a] * length[b]
                for a, b in PAIRS
            },
        )  # fmt: skip

    def plus(self, other: _Sums) -> _Sums:
        """Both parts together, around their common means."""
        n = self.n + other.n
        mean, second = (own + (new - own) * (other.n / n) for own, new in zip(self.means, other.means, strict=True))
        one, two = self.around((mean, second)), other.around((mean, second))
        added = [
            {pair: getattr(one, name)[pair] + getattr(two, name)[pair] for pair in PAIRS}
            for name in ("scatter", "thirds", "fourths")
        ]
        return _Sums(n, (mean, second), added[0], added[1], added[2])


class CrossScatter:
    """Means, covariances and cross-covariance of two streams of rows that belong together, and how alike they are.

    Each batch is summed around its own means and merged by moving both sides to the common ones (as Chan, Golub and LeVeque,
    doi:10.1080/00031305.1983.10483115, do for a variance), in float64: how rows were cut into batches, or spread over
    processes, changes nothing beyond rounding. NaN and infinity stay.
    Memory: `8 (D^2 + E^2 + 2 D E)` bytes.

    >>> scatter = CrossScatter()
    >>> rows = torch.tensor([[0.0], [1.0], [2.0], [5.0]])
    >>> scatter.update(rows[:3], -2 * rows[:3])
    >>> scatter.update(rows[3:], -2 * rows[3:])
    >>> scatter.cross_covariance.tolist(), scatter.cka().debiased.item()
    ([[-7.0]], 1.0)
    """

    def __init__(self) -> None:
        self._sums: _Sums | None = None
        self._largest = [0.0, 0.0]
        self._rounding = [0.0, 0.0]

    def update(self, first: Shaped[Tensor, "n D"], second: Shaped[Tensor, "n E"]) -> None:
        """Take in rows of both, of any real type.

        Raises:
            ValueError: if they do not form matrices of as many rows, or have other widths than before.
        """
        if first.ndim != 2 or second.ndim != 2 or len(first) != len(second):
            raise ValueError(
                f"Rows that belong together are needed; there were {tuple(first.shape)} and {tuple(second.shape)}."
            )
        for side, rows in enumerate((first, second)):
            if rows.numel():
                self._largest[side] = max(self._largest[side], *(abs(float(end)) for end in torch.aminmax(rows)))
            kind = rows.dtype if rows.is_floating_point() else torch.float64
            self._rounding[side] = max(self._rounding[side], CONSTANT * torch.finfo(kind).eps)
        size = max(1, 2**21 // max(1, first.shape[1], second.shape[1]))
        for part in zip(first.detach().split(size), second.detach().split(size), strict=True):
            if len(part[0]):
                self._add(_Sums.of(part))

    def merge(self, other: Self) -> None:
        """Take in what another accumulator has seen."""
        for side in (0, 1):
            self._largest[side] = max(self._largest[side], other._largest[side])
            self._rounding[side] = max(self._rounding[side], other._rounding[side])
        if other._sums is not None:
            self._add(other._sums)

    @property
    def n(self) -> int:
        """Rows seen."""
        return 0 if self._sums is None else self._sums.n

    @property
    def means(self) -> tuple[Float[Tensor, " D"], Float[Tensor, " E"]]:
        """Mean of each stream.

        Raises:
            ValueError: before the first row.
        """
        return self._known().means

    @property
    def covariances(self) -> tuple[Float[Tensor, "D D"], Float[Tensor, "E E"]]:
        """Population covariance of each stream."""
        sums = self._known()
        return sums.scatter[0, 0] / sums.n, sums.scatter[1, 1] / sums.n

    @property
    def cross_covariance(self) -> Float[Tensor, "D E"]:
        """Population covariance between the streams."""
        sums = self._known()
        return sums.scatter[0, 1] / sums.n

    def cka(self) -> Alignment:
        """Linear CKA over all rows, as `stratoscope.numerics.similarity.linear_cka`; without a standard error.

        Raises:
            ValueError: with less than 4 rows, or if one was NaN or infinite.
        """
        sums = self._usable()
        one, two = ((0.0 if constant else 1.0) for constant in self._constant())
        weights = {(0, 0): one, (0, 1): one * two, (1, 1): two}
        inner = {pair: weight * sums.scatter[pair].square().sum() for pair, weight in weights.items()}
        traces = one * sums.scatter[0, 0].trace(), two * sums.scatter[1, 1].trace()
        return alignment(
            KernelProducts(
                sums.n, inner[0, 1].reshape(1, 1), inner[0, 0].reshape(1), inner[1, 1].reshape(1),
                (weights[0, 1] * sums.fourths[0, 1]).reshape(1, 1),
                (one * sums.fourths[0, 0]).reshape(1), (two * sums.fourths[1, 1]).reshape(1),
                traces[0].reshape(1), traces[1].reshape(1),
            )
        ).at(0, 0)  # fmt: skip

    def procrustes(self) -> Procrustes:
        """Procrustes distance over all rows, as `stratoscope.numerics.similarity.procrustes`; under 1e-6 it is 0.

        Raises:
            ValueError: with less than 4 rows, or if one was NaN or infinite.
        """
        sums = self._usable()
        if any(self._constant()):
            return Procrustes(math.sqrt(2.0), math.sqrt(2.0), sums.n)
        first, second = (sums.scatter[side, side] / sums.scatter[side, side].trace() for side in (0, 1))
        length = (sums.scatter[0, 0].trace() * sums.scatter[1, 1].trace()).sqrt()
        alike = float(torch.linalg.svdvals(sums.scatter[0, 1] / length).sum())
        squared = 2 - 2 * alike
        return procrustes_of(squared if squared > NOISE else 0.0, [first, second], sums.n)

    def _constant(self) -> Iterator[bool]:
        sums = self._known()
        for side in (0, 1):
            spread = float(sums.scatter[side, side].trace()) / sums.n
            yield spread <= (self._rounding[side] * self._largest[side]) ** 2 * len(sums.means[side])

    def _usable(self) -> _Sums:
        sums = self._known()
        if sums.n < FEW:
            raise ValueError(f"At least {FEW} examples are needed, as unbiased sums divide by n - 3; n = {sums.n}.")
        if not all(bool(torch.isfinite(fourth)) for fourth in sums.fourths.values()):
            raise ValueError("Finite rows are needed; some that were seen are NaN or infinite, or too large.")
        return sums

    def _known(self) -> _Sums:
        if self._sums is None:
            raise ValueError("CrossScatter has seen no rows yet; call update first.")
        return self._sums

    def _add(self, sums: _Sums) -> None:
        if self._sums is None:
            self._sums = sums
            return
        widths = [tuple(map(len, some.means)) for some in (self._sums, sums)]
        if widths[0] != widths[1]:
            raise ValueError(f"CrossScatter holds streams of widths {widths[0]}; there came {widths[1]}.")
        self._sums = self._sums.plus(sums)
