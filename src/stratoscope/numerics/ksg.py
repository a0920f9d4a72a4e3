"""Mutual information from nearest neighbours, where that is valid; a reason instead of a number where it is not."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

MOST_REPEATED = 0.05
"""Share of points that another one repeats exactly, from which the variable is not continuous."""
JITTER = 1e-10
"""Noise, as a share of the standard deviation, that breaks ties between rounded numbers."""


STATUS = ("valid", "too_wide", "too_few", "repeated", "too_few_classes", "too_much")
"""What `NeighbourInformation.status` may be."""


@dataclass(frozen=True)
class NeighbourInformation:
    """An estimate in bits, or why there is none.

    Attributes:
        bits: NaN where it is not valid. Scatters around 0, below it too, where the variables are independent.
        ceiling: the most that this many points can show.
        status: `"valid"`, or one word for why it is not, of `STATUS`.
        reason: the same in words; empty where the number is valid.
        n: points that were used.
    """

    bits: float
    ceiling: float
    status: str
    reason: str
    n: int

    @property
    def valid(self) -> bool:
        """Whether there is a number."""
        return self.status == "valid"


def ksg(
    first: Float[np.ndarray, "n a"],
    second: Float[np.ndarray, "n b"],
    k: int = 3,
    *,
    widest: int = 3,
    seed: int = 0,
) -> NeighbourInformation:
    """Mutual information of two continuous variables from their nearest neighbours, in bits.

    Estimator 1 of Kraskov, Stoegbauer and Grassberger (arXiv:cond-mat/0305641), with the largest difference of a
    coordinate as the distance: `psi(k) + psi(n) - mean[psi(n_x + 1) + psi(n_y + 1)]`, `n_x` counting the points that are
    nearer in `x` than the k-th neighbour is in both. Each variable is divided by its own standard deviation first, all its
    units by one number, so that the scales of the two do not matter.

    It needs exponentially many points in the information (Gao, Ver Steeg and Galstyan, arXiv:1411.2003), and can show
    `psi(n) - psi(k)` at most. So it is not valid, and says so, where it finds more than half of that, as for a variable
    that is a function of the other; where points repeat; and with more dimensions than `widest` on a side.

    Args:
        first: one example a row.
        second: of the same examples.
        k: which neighbour.
        widest: most numbers an example on either side.
        seed: of the jitter that breaks ties, 1e-10 of the standard deviation.

    Raises:
        ValueError: if the shapes do not fit, `k` is below 1, or an entry is not finite.

    >>> place = np.linspace(0.0, 1.0, 500)[:, None]
    >>> ksg(place, place).reason
    'more information than 500 points can show, as where one is a function of the other'
    """
    first, second = _checked(first, k), _checked(second, k)
    if len(first) != len(second):
        raise ValueError(f"Both sides are of the same examples; there were {len(first)} and {len(second)}.")
    n = len(first)
    ceiling = _ceiling(n, k)
    refused = _why_not(first, k, widest) or _why_not(second, k, widest)
    if refused:
        return NeighbourInformation(math.nan, ceiling, *refused, n)
    generator = np.random.default_rng(seed)
    first, second = _standardised(first, generator), _standardised(second, generator)
    reach = _tree(np.hstack([first, second])).query(np.hstack([first, second]), k=[k + 1], p=math.inf)[0][:, 0]
    counts = [_nearer(side, reach) for side in (first, second)]  # the point itself among them: n_x + 1
    bits = (_psi(k) + _psi(n) - np.mean(_psi(counts[0]) + _psi(counts[1]))) / math.log(2)
    if bits > ceiling / 2:
        reason = f"more information than {n} points can show, as where one is a function of the other"
        return NeighbourInformation(math.nan, ceiling, "too_much", reason, n)
    return NeighbourInformation(float(bits), ceiling, "valid", "", n)


def neighbour_label_information(
    features: Float[np.ndarray, "n D"],
    labels: Int[np.ndarray, " n"],
    k: int = 3,
    *,
    widest: int = 3,
    seed: int = 0,
) -> NeighbourInformation:
    """Mutual information of a continuous variable and a class, in bits, from nearest neighbours.

    The estimator of Ross (doi:10.1371/journal.pone.0087357): `psi(n) + psi(k) - mean[psi(n_c) + psi(m)]`, with `m` the
    points of any class that are as near as the k-th neighbour of the own class. Classes of `k` points
    or fewer use their last neighbour; those of one are left out. At most about `H(Y)`.

    Args:
        features: one example a row.
        labels: class of each.
        k: which neighbour within the class.
        widest: most numbers an example.
        seed: of the jitter that breaks ties, 1e-10 of the standard deviation.

    Raises:
        ValueError: if the shapes do not fit, `k` is below 1, or an entry is not finite.

    >>> far = np.concatenate([np.linspace(0.0, 1.0, 500), np.linspace(7.0, 8.0, 500)])[:, None]
    >>> round(neighbour_label_information(far, np.repeat([0, 1], 500)).bits, 2)
    1.0
    """
    features = _checked(features, k)
    if labels.shape != features.shape[:1]:
        raise ValueError(f"There is a class for each example; there were {labels.shape} for {len(features)}.")
    _, place, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    kept = sizes[place] > 1
    n = int(kept.sum())
    shares = sizes[sizes > 1] / max(n, 1)
    ceiling = float(-(shares @ np.log2(shares))) + 0.0
    refused = _why_not(features[kept], k, widest)
    if (sizes > 1).sum() < 2:
        refused = "too_few_classes", "fewer than two classes of two examples"
    if refused:
        return NeighbourInformation(math.nan, ceiling, *refused, n)
    points, own = _standardised(features[kept], np.random.default_rng(seed)), place[kept]
    reach, which = np.empty(n), np.empty(n, dtype=np.int64)
    for number in np.flatnonzero(sizes > 1):
        mine = own == number
        which[mine] = min(k, int(sizes[number]) - 1)
        reach[mine] = _tree(points[mine]).query(points[mine], k=[int(which[mine][0]) + 1], p=math.inf)[0][:, 0]
    # the point itself counts in place of its k-th neighbour
    bits = _psi(n) + np.mean(_psi(which) - _psi(sizes[own]) - _psi(_nearer(points, reach)))
    return NeighbourInformation(float(bits) / math.log(2), ceiling, "valid", "", n)


def _ceiling(n: int, k: int) -> float:
    return float(_psi(n) - _psi(k)) / math.log(2) if n > k else 0.0


def _checked(values: Float[np.ndarray, "n D"], k: int) -> Float[np.ndarray, "n D"]:
    if values.ndim != 2 or k < 1:
        raise ValueError(f"Features of shape (n, D) and k of at least 1 are needed; there were {values.shape} and {k}.")
    if not np.isfinite(values).all():
        raise ValueError(f"{np.count_nonzero(~np.isfinite(values))} of {values.size} numbers are NaN or infinite.")
    return values.astype(np.float64)


def _why_not(values: Float[np.ndarray, "n D"], k: int, widest: int) -> tuple[str, str] | None:
    """Why nearest neighbours say nothing here, in a word and in words; `None` if they may."""
    n, width = values.shape
    if width > widest:
        return "too_wide", f"{width} numbers an example; nearest neighbours are trusted up to {widest}"
    if width == 0 or n <= 4 * k:
        return "too_few", f"{n} examples of {width} numbers are too few for neighbour {k}"
    repeated = 1 - len(np.unique(values, axis=0)) / n
    if repeated > MOST_REPEATED:
        return "repeated", f"{repeated:.0%} of the points repeat another one, so this is not continuous"
    return None


def _standardised(values: Float[np.ndarray, "n D"], generator: np.random.Generator) -> Float[np.ndarray, "n D"]:
    """Centred, of one size on average, and without ties."""
    centred = values - values.mean(0)
    return np.asarray(centred / np.sqrt(np.mean(centred**2)) + JITTER * generator.standard_normal(values.shape))


def _tree(points: Float[np.ndarray, "n D"]) -> Any:
    from scipy.spatial import cKDTree

    return cKDTree(points)


def _nearer(points: Float[np.ndarray, "n D"], reach: Float[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """How many points are nearer than so far, the point itself among them."""
    inside = np.maximum(reach - 4 * np.finfo(np.float64).eps * np.abs(points).max(), 0.0)
    if points.shape[1] > 1:
        return np.asarray(_tree(points).query_ball_point(points, inside, p=math.inf, return_length=True))
    # on a line the same is a matter of sorting
    line = points[:, 0]
    ordered = np.sort(line)
    below, above = np.searchsorted(ordered, line - inside, "left"), np.searchsorted(ordered, line + inside, "right")
    return np.asarray(above - below)


def _psi(values: Any) -> Any:
    from scipy.special import digamma

    return digamma(values)
