"""Two classifiers on the same examples: by how much one is right more often, and whether that is chance."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class PairedDifference:
    """How two shares of hits on the same examples differ.

    Attributes:
        difference: share of the first less that of the second.
        low: lower end of its interval.
        high: its upper end.
        p_value: of McNemar's exact test: how likely a split of the discordant examples as uneven is, if each goes
            either way with the same chance; 1 where there are none.
        n: examples.
    """

    difference: float
    low: float
    high: float
    p_value: float
    n: int


def wilson(k: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Two-sided score interval of a binomial share (Wilson, doi:10.1080/01621459.1927.10502953).

    Covers the share about as often as it says on average over shares, where the exact interval covers it more often.

    Args:
        k: hits.
        n: trials; with none, nothing is known: 0 and 1.
        confidence: in `(0, 1)`.

    Raises:
        ValueError: if not `0 <= k <= n`, or `confidence` is out of range.

    >>> low, high = wilson(5, 10)
    >>> round(low, 3), round(high, 3)
    (0.237, 0.763)
    """
    if not 0 <= k <= n:
        raise ValueError(f"A count needs 0 <= k <= n; there was k={k}, n={n}.")
    z = _normal(confidence)
    if n == 0:
        return 0.0, 1.0
    centre = (k + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * math.sqrt(k * (n - k) / n + z * z / 4)
    return (0.0 if k == 0 else centre - half), (1.0 if k == n else centre + half)


def paired_difference(both: int, first: int, second: int, neither: int, confidence: float = 0.95) -> PairedDifference:
    """Difference of two shares of hits on the same examples, with its interval and McNemar's exact test.

    The interval is Newcombe's tenth (doi:10.1002/(SICI)1097-0258(19981130)17:22<2635::AID-SIM954>3.0.CO;2-C): Wilson's
    intervals of the two shares, put together with their correlation. The test is McNemar's (doi:10.1007/BF02295996) in
    its exact form. Swapping the classifiers changes the signs alone.

    Args:
        both: examples on which both are right.
        first: on which only the first is right.
        second: on which only the second is right.
        neither: on which none is right.
        confidence: of the interval, in `(0, 1)`.

    Raises:
        ValueError: if a count is negative, there are no examples, or `confidence` is out of range.

    >>> round(paired_difference(80, 2, 8, 10).difference, 4), round(paired_difference(80, 2, 8, 10).p_value, 4)
    (-0.06, 0.1094)
    """
    n = both + first + second + neither
    if min(both, first, second, neither) < 0 or n == 0:
        raise ValueError(f"Counts are 0 or more, of at least one example; there was {(both, first, second, neither)}.")
    hits, others = both + first, both + second
    (low1, high1), (low2, high2) = wilson(hits, n, confidence), wilson(others, n, confidence)
    one, two = hits / n, others / n
    phi = _correlation(both, first, second, neither)
    down = _together(one - low1, high2 - two, phi)
    up = _together(high1 - one, two - low2, phi)
    difference = (first - second) / n
    return PairedDifference(difference, difference - down, difference + up, _mcnemar(first, second), n)


def _together(one: float, two: float, phi: float) -> float:
    return math.sqrt(max(one * one - 2 * phi * one * two + two * two, 0.0))


def _correlation(both: int, first: int, second: int, neither: int) -> float:
    """Of the two classifiers' hits; drawn towards zero where it is positive, as Newcombe does."""
    scale = (both + first) * (second + neither) * (both + second) * (first + neither)
    if scale == 0:
        return 0.0
    n = both + first + second + neither
    excess = both * neither - first * second
    return (max(excess - n / 2, 0.0) if excess > 0 else excess) / math.sqrt(scale)


def _mcnemar(first: int, second: int) -> float:
    from scipy.stats import binomtest

    return float(binomtest(first, first + second, 0.5).pvalue) if first + second else 1.0


def _normal(confidence: float) -> float:
    from scipy.special import ndtri

    if not 0 < confidence < 1:
        raise ValueError(f"A confidence lies between 0 and 1; there was {confidence}.")
    return float(ndtri(0.5 + confidence / 2))
