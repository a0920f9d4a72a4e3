"""The nearest neighbours of every point of a sample, from the one pass over its distances."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from stratoscope.numerics.distances import PairAccumulator, Points, pair_pass

SPARE = 4
"""Candidates beyond those asked for: products round distances, differences put them in order."""

_NUMBERS = 2**21


@dataclass(frozen=True)
class NearestNeighbours:
    """The nearest other points of each point.

    Attributes:
        distances: Euclidean, from each point's nearest to its k-th; from differences, so right to the last digits also
            for points that lie close together far from the origin.
        index: which points they are; of points at one distance, any.
    """

    distances: Float[Tensor, "n k"]
    index: Int[Tensor, "n k"]

    def nearest(self, k: int) -> NearestNeighbours:
        """The first `k` of them."""
        return NearestNeighbours(self.distances[:, :k], self.index[:, :k])


class NeighbourAccumulator(PairAccumulator):
    """Holds, for each point, candidates for its `k` nearest; `refined` puts them in order by exact distances."""

    def __init__(self, n: int, k: int, device: torch.device | None = None) -> None:
        """Start with none.

        Args:
            n: number of points.
            k: neighbours of each point, at most `n - 1`.
            device: where the distances are.

        Raises:
            ValueError: if there are not so many other points.
        """
        if not 1 <= k < n:
            raise ValueError(f"Each of {n} points has {max(0, n - 1)} others; k={k} neighbours cannot be had.")
        self._k = k
        self._held = min(k + SPARE, n - 1)
        self._distances = torch.full((n, self._held), torch.inf, device=device)
        self._index = torch.zeros(n, self._held, dtype=torch.int64, device=device)

    def update(self, distances: Float[Tensor, "a b"], rows: slice, columns: slice) -> None:
        """Take in one block, in both orders."""
        self._take(distances, rows, columns)
        if rows != columns:
            self._take(distances.T, columns, rows)

    def _take(self, distances: Tensor, rows: slice, columns: slice) -> None:
        near = distances.to(self._distances.dtype)
        if rows == columns:
            near = near.clone().fill_diagonal_(torch.inf)
        near, place = near.topk(min(self._held, near.shape[1]), largest=False, sorted=False)
        both = torch.cat([self._distances[rows], near], 1)
        index = torch.cat([self._index[rows], place + columns.start], 1)
        best, place = both.topk(self._held, largest=False, sorted=False)
        self._distances[rows], self._index[rows] = best, index.gather(1, place)

    def refined(self, points: Points) -> NearestNeighbours:
        """The neighbours in order, with distances computed anew from differences.

        Args:
            points: those whose distances were shown.
        """
        n, width = self._index.shape[0], points.values.shape[1]
        rows = max(1, _NUMBERS // (self._held * max(1, width)))
        found = [self._exact(points, slice(start, min(start + rows, n))) for start in range(0, n, rows)]
        distances, index = torch.cat([d for d, _ in found]), torch.cat([i for _, i in found])
        return NearestNeighbours(distances[:, : self._k], index[:, : self._k])

    def _exact(self, points: Points, rows: slice) -> tuple[Tensor, Tensor]:
        index = self._index[rows]
        others = Points(points.values, _picked(points, index.flatten()), points.shift, points.scale)
        there = others.block(slice(None)).unflatten(0, index.shape)
        squares = (there - points.block(rows)[:, None]).square_().sum(2, dtype=torch.float64)
        distances, order = squares.sqrt().sort(1)
        return distances, index.gather(1, order)


def _picked(points: Points, index: Tensor) -> Tensor:
    return index if points.index is None else points.index[index]


def nearest_neighbours(features: Float[Tensor, "n D"], k: int) -> NearestNeighbours:
    """The `k` nearest other points of each point, by Euclidean distance; no matrix of all distances is held.

    Time `n^2 D` multiplications; memory beside the input under 64 MB.

    Raises:
        ValueError: if there are not so many other points.

    >>> found = nearest_neighbours(torch.tensor([[0.0], [1.0], [3.0]]), 1)
    >>> found.distances.flatten().tolist(), found.index.flatten().tolist()
    ([1.0, 1.0, 2.0], [1, 0, 1])
    """
    points = centred(features)
    held = NeighbourAccumulator(len(features), k, features.device)
    pair_pass(points, [held])
    return held.refined(points)


def centred(features: Float[Tensor, "n D"]) -> Points:
    """The points around their common mean, where products lose the fewest digits of distances."""
    return Points(features, shift=features.to(torch.promote_types(features.dtype, torch.float32)).mean(0))
