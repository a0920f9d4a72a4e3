"""Exact confidence bounds for a share of which only a count is known."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def clopper_pearson(
    k: ArrayLike, n: ArrayLike, confidence: float = 0.95
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two-sided bounds of a binomial share after `k` hits in `n` independent trials.

    Exact in the sense that, whatever the true share, the interval covers it with at least the stated probability
    (Clopper and Pearson, doi:10.1093/biomet/26.4.404). With `n = 0` nothing is known: 0 and 1.

    Args:
        k: hits, one number or an array.
        n: trials, broadcast against `k`.
        confidence: in `(0, 1)`.

    Returns:
        The lower and the upper bound.

    Raises:
        ValueError: if not `0 <= k <= n` everywhere, or `confidence` is out of range.

    >>> low, high = clopper_pearson(0, 100)
    >>> round(float(high), 4)
    0.0362
    """
    tail = (1 - _checked(confidence)) / 2
    hits, trials = _counts(k, n)
    return 1 - _upper(trials - hits, trials, tail), _upper(hits, trials, tail)


def upper_bound(k: ArrayLike, n: ArrayLike, confidence: float = 0.95) -> NDArray[np.float64]:
    """One-sided upper bound of a binomial share after `k` hits in `n` independent trials.

    For `k = 0` it is `1 - (1 - confidence)^(1/n)`, about `3 / n` at 95 %: the rule of three. A unit that was active
    on none of `n` examples is active on less than this share of all examples.

    Args:
        k: hits, one number or an array.
        n: trials, broadcast against `k`.
        confidence: in `(0, 1)`.

    Raises:
        ValueError: if not `0 <= k <= n` everywhere, or `confidence` is out of range.

    >>> round(float(upper_bound(0, 1000)), 5)
    0.00299
    """
    hits, trials = _counts(k, n)
    return _upper(hits, trials, 1 - _checked(confidence))


def lower_bound(k: ArrayLike, n: ArrayLike, confidence: float = 0.95) -> NDArray[np.float64]:
    """One-sided lower bound of a binomial share after `k` hits in `n` independent trials.

    Args:
        k: hits, one number or an array.
        n: trials, broadcast against `k`.
        confidence: in `(0, 1)`.

    Raises:
        ValueError: if not `0 <= k <= n` everywhere, or `confidence` is out of range.

    >>> round(float(lower_bound(1000, 1000)), 5)
    0.99701
    """
    hits, trials = _counts(k, n)
    return 1 - _upper(trials - hits, trials, 1 - _checked(confidence))


def _upper(hits: NDArray[np.float64], trials: NDArray[np.float64], tail: float) -> NDArray[np.float64]:
    """The share at which `hits` or fewer have the probability `tail`."""
    from scipy.special import betaincinv

    all_hit = hits >= trials
    misses = np.where(all_hit, 1.0, trials - hits)
    return np.where(all_hit, 1.0, betaincinv(hits + 1.0, misses, 1 - tail))


def _counts(k: ArrayLike, n: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    hits, trials = np.broadcast_arrays(np.asarray(k, dtype=np.float64), np.asarray(n, dtype=np.float64))
    if not bool(np.all((hits >= 0) & (hits <= trials))):
        raise ValueError(f"Each count needs 0 <= k <= n; there was k={k!r}, n={n!r}.")
    return hits, trials


def _checked(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"A confidence lies between 0 and 1; there was {confidence}.")
    return confidence
