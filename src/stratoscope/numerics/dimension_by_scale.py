"""The dimension of a sample at several scales, and what linear correlation alone would read."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F  # noqa: N812 - the usual name
from jaxtyping import Bool, Float, Int
from torch import Tensor

from stratoscope.numerics.distances import Points
from stratoscope.numerics.intrinsic_dimension import Estimate, TwoNearest, two_nn
from stratoscope.numerics.neighbours import NearestNeighbours

_NUMBERS = 2**21


def distinct(features: Float[Tensor, "n D"], nearest: Float[Tensor, " n"]) -> Bool[Tensor, " n"]:
    """One point of each set of equal points: the first.

    Args:
        features: the points.
        nearest: distance of each point to its nearest other one; those at zero have a duplicate.

    >>> points = torch.tensor([[1.0], [0.0], [1.0]])
    >>> distinct(points, torch.tensor([0.0, 1.0, 0.0])).tolist()
    [True, True, False]
    """
    chosen = torch.ones(len(features), dtype=torch.bool)
    twins = (nearest <= 0).nonzero()[:, 0].cpu()
    if len(twins):
        _, group = torch.unique(features[twins].cpu(), dim=0, return_inverse=True)
        first = torch.full((int(group.max()) + 1,), len(twins)).scatter_reduce(
            0, group, torch.arange(len(twins)), "amin"
        )
        chosen[twins] = False
        chosen[twins[first]] = True
    return chosen.to(features.device)


def two_nn_by_scale(
    features: Float[Tensor, "n D"],
    nearest: NearestNeighbours,
    known: Bool[Tensor, " n"],
    cuts: Iterable[int],
    *,
    seed: int,
    discard: float = 0.1,
) -> dict[int, TwoNearest]:
    """TwoNN on the whole sample and on random parts of it, whose points lie further apart.

    For each cut the sample is dealt out into so many parts, the estimates of which are averaged (the block analysis of
    Facco et al.). A dimension that depends on the cut is not that of a smooth set without noise. The neighbours within
    a part are exact and cost no further pass over all distances. Of the parts' standard errors the share that is due to
    dependence between neighbours is taken over from the whole sample.

    Args:
        features: the points.
        nearest: neighbours of each among all points; 20 are enough for 4 parts.
        known: which points count; see `distinct`.
        cuts: numbers of parts; 1 is the whole sample.
        seed: of the dealing.
        discard: see `two_nn`.

    >>> from stratoscope.numerics.neighbours import nearest_neighbours
    >>> points = torch.randn(1000, 3, generator=torch.Generator().manual_seed(0))
    >>> found = two_nn_by_scale(points, nearest_neighbours(points, 20), torch.ones(1000, dtype=bool), (1, 4), seed=0)
    >>> [round(found[cut].fit.value) for cut in (1, 4)]
    [3, 3]
    """
    order = torch.empty(len(features), dtype=torch.int64)
    order[torch.randperm(len(features), generator=torch.Generator().manual_seed(seed))] = torch.arange(len(features))
    order = order.to(known.device)
    (whole,) = _parts(features, nearest, (order % 1).masked_fill(~known, -1), 1, discard)
    inflation = whole.likelihood.standard_error * math.sqrt(whole.likelihood.n) / whole.likelihood.value
    found = {1: whole}
    for cut in cuts:
        if cut > 1:
            parts = _parts(features, nearest, (order % cut).masked_fill(~known, -1), cut, discard)
            found[cut] = TwoNearest(
                _mean([part.fit for part in parts], inflation), _mean([part.likelihood for part in parts], inflation)
            )
    return {cut: found[cut] for cut in cuts}


def gaussian_two_nn(
    variances: Float[Tensor, " r"], n: int, *, points: int = 300, seed: int, discard: float = 0.1
) -> Estimate:
    """What TwoNN reads on `n` draws from a normal distribution: its bias included, so the reading of no curvature.

    Only the variances along the principal axes matter, since a rotation leaves distances as they are.

    Args:
        variances: along the principal axes.
        n: draws.
        points: for how many of the draws neighbours are looked for.
        seed: of the draws.
        discard: see `two_nn`.

    >>> round(gaussian_two_nn(torch.tensor([1.0, 1.0, 1.0, 1e-6]), 1000, seed=0).value)
    3
    """
    if n < 3:
        return Estimate(math.nan, math.nan, n)
    generator = torch.Generator().manual_seed(seed)
    axes = variances.double().cpu().sqrt()
    # drawn in float32, which is several times as fast, and computed in float64: near draws keep their distances
    draws = torch.randn(n, len(axes), generator=generator).double() * axes
    squares, points = draws.square().sum(1), min(points, n)
    squared = torch.addmm(squares[None] + squares[:points, None], draws[:points], draws.T, alpha=-2)
    squared.diagonal().fill_(math.inf)
    first, place = squared.min(1)
    second = squared.scatter_(1, place[:, None], math.inf).amin(1)
    near = torch.stack([first, second], 1).clamp_(min=0).sqrt_()
    return two_nn(near[near[:, 0] > 0], discard=discard).fit


def _parts(features: Tensor, nearest: NearestNeighbours, part: Tensor, cut: int, discard: float) -> list[TwoNearest]:
    """TwoNN of each part; points without two neighbours in theirs are left out."""
    distances, index = _nearest_within(features, nearest.distances, nearest.index, part)
    there = distances[:, 1].isfinite()
    if cut == 1:
        own = there.nonzero()[:, 0]
        place = torch.full_like(part, -1)
        place[own] = torch.arange(len(own), device=own.device)
        return [two_nn(distances[own], place[index[own]], discard=discard)]
    return [two_nn(distances[there & (part == name)], discard=discard) for name in range(cut)]


def _mean(estimates: list[Estimate], inflation: float) -> Estimate:
    """Of independent estimates, their errors inflated; NaN if one of them is."""
    count = len(estimates)
    value = sum(e.value for e in estimates) / count
    error = inflation * math.hypot(*(e.standard_error for e in estimates)) / count
    return Estimate(value, error, sum(e.n for e in estimates))


def _nearest_within(
    features: Float[Tensor, "n D"],
    distances: Float[Tensor, "n k"],
    index: Int[Tensor, "n k"],
    part: Int[Tensor, " n"],
) -> tuple[Float[Tensor, "n 2"], Int[Tensor, "n 2"]]:
    """The two nearest neighbours of each point among the points of its own part, exactly.

    They are read off the `k` neighbours among all points. Where fewer than two of these belong to the part, the
    distances to the whole part are computed; that is one point in forty for a quarter of the points and `k = 20`.
    Points at distance zero are passed over.

    Args:
        features: the points.
        distances: of each point to its `k` nearest other points, ascending.
        index: which points these are.
        part: of each point; negative for points that are in none.

    Returns:
        Distances and places; infinite and -1 where a part has too few points, and for points in no part.
    """
    same = (part[index] == part[:, None]) & (part >= 0)[:, None] & (distances > 0)
    both, column = distances.double().masked_fill(~same, math.inf).topk(min(2, same.shape[1]), largest=False)
    places = index.gather(1, column).masked_fill(both.isinf(), -1)
    if both.shape[1] < 2:
        both, places = F.pad(both, (0, 1), value=math.inf), F.pad(places, (0, 1), value=-1)
    short = (both[:, 1].isinf() & (part >= 0)).nonzero()[:, 0]
    for name in part[short].unique().tolist():
        members, asking = (part == name).nonzero()[:, 0], short[part[short] == name]
        if len(members) > 2:
            both[asking], places[asking] = _two_nearest(features, asking, members)
    return both, places


def _two_nearest(features: Tensor, asking: Tensor, members: Tensor) -> tuple[Tensor, Tensor]:
    """Exact distances from some points to the two nearest of others, themselves left out."""
    points = Points(features, members, shift=features.mean(0))
    others, found = points.block(slice(None)), []
    rows = max(1, _NUMBERS // (len(members) * max(1, features.shape[1])))
    for some in asking.split(rows):
        here = Points(features, some, shift=points.shift).block(slice(None))
        squared = (here[:, None] - others).square_().sum(2, dtype=torch.float64)
        squared[squared <= 0] = math.inf  # itself, and what equals it
        found.append(squared.topk(2, largest=False))
    distances = torch.cat([squared for squared, _ in found]).sqrt()
    return distances, members[torch.cat([place for _, place in found])]
