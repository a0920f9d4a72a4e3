"""The nearest neighbours of every point of a sample, from the one pass over its distances."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from stratoscope.numerics.distances import PairAccumulator, Points, pair_pass

SPARE = 4
"""Candidates beyond those asked for: products round distances, differences put them in order."""

CLOSE = {torch.float32: 1e-2, torch.float64: 1e-7}
"""Squared distances below this share of the largest squared norm have lost digits in a product; they are computed anew."""

_INDEX_BITS, _COLUMN_BITS = 20, 9
_NUMBERS = 2**21


@dataclass(frozen=True)
class NearestNeighbours:
    """The nearest other points of each point.

    Attributes:
        distances: Euclidean, float64, from each point's nearest to its k-th. Of precise points right to eight digits also
            where they lie close together far from the others, at down to 1e-6 of that distance; of float32 points
            neighbours within clusters of under a hundredth of their distance may be others as near.
        index: which points they are; of points at one distance, any.
    """

    distances: Float[Tensor, "n k"]
    index: Int[Tensor, "n k"]

    def nearest(self, k: int) -> NearestNeighbours:
        """The first `k` of them."""
        return NearestNeighbours(self.distances[:, :k], self.index[:, :k])


class NeighbourAccumulator(PairAccumulator):
    """Holds, for each point, candidates for its `k` nearest; `refined` puts them in order.

    A candidate is one whole number: the bits of its distance, which order like distances, with the last 20 given to its
    index. So one partial sort finds both.
    """

    def __init__(self, n: int, k: int, device: torch.device | None = None) -> None:
        """Start with none.

        Args:
            n: number of points, at most a million.
            k: neighbours of each point, at most `n - 1`.
            device: where the distances are.

        Raises:
            ValueError: if there are not so many other points, or more than a million.
        """
        if not 1 <= k < n <= 1 << _INDEX_BITS:
            raise ValueError(
                f"Each of {n} points has {max(0, n - 1)} others; k={k} neighbours of at most {1 << _INDEX_BITS:,} points "
                "can be had if k is from 1 to that number."
            )
        self._k = k
        self._held = min(k + SPARE, n - 1)
        self._candidates = torch.full((n, self._held), torch.iinfo(torch.int64).max, device=device)

    def update(self, distances: Float[Tensor, "a b"], rows: slice, columns: slice) -> None:
        """Take in one block, in both orders."""
        own = distances.clone().fill_diagonal_(torch.inf) if rows == columns else distances
        self._take(own, rows, columns.start)
        if rows != columns:
            self._take(own.T.contiguous(), columns, rows.start)

    def _take(self, distances: Tensor, rows: slice, first: int) -> None:
        near = _nearest(distances, min(self._held, distances.shape[1]))
        bits = distances.gather(1, near).double().view(torch.int64) >> _INDEX_BITS << _INDEX_BITS
        both = torch.cat([self._candidates[rows], bits | (near + first)], 1)
        self._candidates[rows] = _smallest(both, self._held)

    def refined(self, points: Points) -> NearestNeighbours:
        """The neighbours in order; distances that a product has rounded away are computed anew from differences.

        Args:
            points: those whose distances were shown.
        """
        candidates = self._candidates.sort(1).values
        index = candidates & ((1 << _INDEX_BITS) - 1)
        distances = (candidates >> _INDEX_BITS << _INDEX_BITS).view(torch.float64)
        largest = max(float(points.block(rows).square().sum(1).max()) for rows in points.slices())
        close = (distances[:, 0].square() <= CLOSE[points.dtype] * largest).nonzero()[:, 0]
        step = max(1, _NUMBERS // (self._held * max(1, points.values.shape[1])))
        for some in close.split(step):
            distances[some], index[some] = _exact(points, some, index[some])
        return NearestNeighbours(distances[:, : self._k].contiguous(), index[:, : self._k].contiguous())


def _nearest(distances: Float[Tensor, "a b"], k: int) -> Int[Tensor, "a k"]:
    """Columns of the `k` smallest of each row, or of others as near to 14 bits; in any order.

    On a CPU the column goes into the last bits of a float32, whose partial sort is ten times as fast as one of pairs.
    """
    columns = distances.shape[1]
    if distances.device.type != "cpu" or columns > 1 << _COLUMN_BITS or k == columns:
        return distances.topk(k, largest=False, sorted=False).indices
    # a distance beyond what float32 holds is as good as infinite
    bits = distances.float().view(torch.int32) >> _COLUMN_BITS << _COLUMN_BITS
    packed = (bits | torch.arange(columns, dtype=torch.int32)).numpy()
    nearest = np.partition(packed, k - 1, axis=1)[:, :k] & ((1 << _COLUMN_BITS) - 1)
    return torch.from_numpy(nearest.astype(np.int64))


def _smallest(table: Int[Tensor, "a b"], k: int) -> Int[Tensor, "a k"]:
    """The `k` smallest of each row, in any order; NumPy's partial sort is the fastest on a CPU."""
    if k == table.shape[1]:
        return table
    if table.device.type != "cpu":
        return table.topk(k, largest=False, sorted=False).values
    return torch.from_numpy(np.partition(table.numpy(), k - 1, axis=1)[:, :k])


def _exact(points: Points, of: Int[Tensor, " rows"], index: Tensor) -> tuple[Tensor, Tensor]:
    """Distances of some points to others, from differences: ascending, and whose they are."""
    others, own = (replace(points, index=_picked(points, some)) for some in (index.flatten(), of))
    there = others.block(slice(None)).unflatten(0, index.shape)
    squares = (there - own.block(slice(None))[:, None]).square_().sum(2, dtype=torch.float64)
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
    points = centred(features, precise=True)
    held = NeighbourAccumulator(len(features), k, features.device)
    pair_pass(points, [held])
    return held.refined(points)


def centred(features: Float[Tensor, "n D"], *, precise: bool = False) -> Points:
    """The points around their common mean, where products lose the fewest digits of distances.

    Args:
        features: one point a row.
        precise: whether to compute in float64.
    """
    wide = torch.promote_types(features.dtype, torch.float32)
    return Points(features, shift=features.mean(0, dtype=wide), precise=precise)
