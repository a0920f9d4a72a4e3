"""Is the tail a power law, or does another law describe it as well or better: likelihood-ratio tests."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stratoscope.numerics.cut_exponential import (
    cut_exponential_mean,
    cut_exponential_rate,
    cut_exponential_variance,
)
from stratoscope.numerics.power_law import PowerLaw, log_ratios, tail_candidates

Array = NDArray[np.float64]
Bend = Literal["square", "exponential"]
Verdict = Literal["power_law", "other", "undecided"]

_PANELS, _NODES = 16, 16
_DROP = 45.0  # e^-45 of the peak is below the last digit
_ROUNDS = 100
_GAIN = 1e-15  # of the log-likelihood of one value that another step promises: its rounding


@dataclass(frozen=True)
class TailTest:
    """A likelihood-ratio test of the power law against one other law, on one tail.

    Attributes:
        R: log-likelihood ratio over its standard deviation; positive where the power law is likelier. 0 where the best
            member of the other family is the power law itself; NaN where the tail cannot tell.
        p: probability of a ratio as far from 0 if both laws were equally far from the truth; small means that the sign
            of `R` can be believed.
        verdict: which law, or `undecided`.
    """

    R: float
    p: float
    verdict: Verdict


_UNKNOWN = TailTest(math.nan, math.nan, "undecided")


def compare_tails(values: ArrayLike, fit: PowerLaw, *, level: float = 0.1) -> dict[str, TailTest]:
    """Test a fitted power law against lognormal, exponential and truncated power-law tails.

    All laws are fitted by maximum likelihood to the same tail, and cut off where the tail starts (and at `xmax`, if
    the fit has one). Vuong's test (doi:10.2307/1912557) for the first two, as in arXiv:0706.1062; the power law is
    a truncated power law with `lambda = 0`, so twice that log-likelihood ratio is compared with a chi-square of one
    degree of freedom. As `lambda >= 0` is a border, this p-value is up to twice too large: careful, not bold.

    In `z = log(x / xmin)` the densities, up to normalisation, are: power law `e^(-a z)` with `a = alpha - 1`; lognormal
    `e^(-a z - k z^2)`; truncated power law `e^(-a z - k e^z)`, that is `x^-alpha e^(-lambda x)`; exponential the
    same with `a = -1`. Where the tail bends up and not down, the likelihood is greatest at `k = 0`: the other law then
    is the power law, `R = 0` and `p = 1`.

    Nothing depends on the unit of the values.

    Args:
        values: the sample that was fitted.
        fit: its power law.
        level: p-value below which a verdict is given.

    Returns:
        A test for each of `"lognormal"`, `"exponential"` and `"truncated_power_law"`. With fewer than 3 values in the
        tail, or where all pointwise ratios are equal, `R` and `p` are NaN.

    Raises:
        ValueError: if there are fewer than 2 distinct values.

    >>> from stratoscope.numerics.power_law import fit_power_law
    >>> u = (np.arange(500) + 0.5) / 500
    >>> x = u ** (-1 / 1.5)
    >>> compare_tails(x, fit_power_law(x))["exponential"].verdict
    'power_law'
    """
    data = tail_candidates(values, fit.xmax)[-fit.n_tail :]
    z = log_ratios(data, data[0])
    room = math.inf if fit.xmax is None else float(log_ratios(np.array([fit.xmax]), data[0])[0])
    if fit.n_tail < 3 or not 0 < z[-1] < 600:
        return dict.fromkeys(("lognormal", "exponential", "truncated_power_law"), _UNKNOWN)
    straight = -(fit.alpha - 1) * z - log_cut_mass(fit.alpha - 1, room)
    return {
        "lognormal": _vuong(straight - _bent(z, fit.alpha - 1, "square", room), level),
        "exponential": _vuong(straight - _exponential(z, room), level),
        "truncated_power_law": _nested(straight - _bent(z, fit.alpha - 1, "exponential", room), level),
    }


def _vuong(ratios: Array, level: float) -> TailTest:
    total, spread = float(ratios.sum()), float(ratios.std())
    if not ratios.any():
        return TailTest(0.0, 1.0, "undecided")
    if not (math.isfinite(total) and spread > 0):
        return _UNKNOWN
    normal = total / (spread * math.sqrt(len(ratios)))
    p = math.erfc(abs(normal) / math.sqrt(2))
    verdict: Verdict = "undecided" if p >= level else "power_law" if normal > 0 else "other"
    return TailTest(normal, p, verdict)


def _nested(ratios: Array, level: float) -> TailTest:
    plain = _vuong(ratios, level)
    if math.isnan(plain.R):
        return plain
    p = math.erfc(
        math.sqrt(max(0.0, -float(ratios.sum())))
    )  # chi-square with one degree of freedom, of twice the ratio
    return TailTest(plain.R, p, "other" if p < level else "undecided")


def _exponential(z: Array, room: float) -> Array:
    """Log-likelihood, in `z`, of each value under the best exponential law of `x` beyond `xmin`."""
    x = np.expm1(z)
    if math.isinf(room):
        rate, end = 1 / float(x.mean()), math.inf
    else:
        end = math.expm1(room)
        rate = float(cut_exponential_rate(np.array([x.mean() / end]))[0]) / end
    return np.asarray(z - rate * x - log_cut_mass(rate, end))


def _bent(z: Array, slope: float, bend: Bend, room: float) -> Array:
    """Log-likelihood, in `z`, of each value under the best law `e^(-a z - k bend(z))` with `k >= 0`, cut at `room`.

    An exponential family, so the likelihood is concave in `(a, k)` and best where the means of `z` and of the bend are
    those of the sample. Newton's method in `(a, log k)`, damped, from the power law with slope `a`.
    """
    s = _bend(z, bend)
    target = np.array([z.mean(), s.mean()])
    if target[1] >= _straight_mean(slope, bend, room):  # the tail is straight or bends up
        return -slope * z - log_cut_mass(slope, room)
    law = _Law.of(slope, 0.1 / target[1], bend, room)
    for _ in range(_ROUNDS):
        scale = np.array([1.0, law.k])
        gap = (law.mean - target) * scale
        curvature = law.covariance * np.outer(scale, scale)
        curvature[1, 1] += max(0.0, -gap[1])
        step = np.linalg.pinv(curvature, hermitian=True) @ gap
        if float(gap @ step) < _GAIN:
            break
        law, moved = _move(law, step, target)
        if not moved:
            break
    return np.asarray(-law.a * z - law.k * s - law.log_mass)


@dataclass(frozen=True)
class _Law:
    """The density `e^(-a z - k bend(z) - log_mass)` on `[0, room]`, with mean and covariance of `z` and `bend(z)`."""

    a: float
    k: float
    bend: Bend
    room: float
    log_mass: float
    mean: Array
    covariance: Array

    @classmethod
    def of(cls, a: float, k: float, bend: Bend, room: float) -> _Law:
        """By Gauss-Legendre quadrature over where the log-concave density is above `e^-45` of its peak."""
        peak, low, high = _support(a, k, bend, room)
        nodes, weights = _quadrature()
        z = np.concatenate([low + (peak - low) * nodes, peak + (high - peak) * nodes])
        w = np.concatenate([(peak - low) * weights, (high - peak) * weights])
        s = _bend(z, bend)
        at_peak = -a * peak - k * float(_bend(np.array(peak), bend))
        mass = w * np.exp(-a * z - k * s - at_peak)
        total = float(mass.sum())
        both = np.stack([z, s])
        mean = both @ mass / total
        centred = both - mean[:, None]
        covariance = (centred * mass) @ centred.T / total
        return cls(a, k, bend, room, at_peak + math.log(total), mean, covariance)

    def log_likelihood(self, target: Array) -> float:
        """Of one value, on average, in a sample whose `z` and bend have these means."""
        return -self.a * float(target[0]) - self.k * float(target[1]) - self.log_mass


def _move(law: _Law, step: Array, target: Array) -> tuple[_Law, bool]:
    """Along a Newton step, halved until the likelihood does not fall; and whether that went anywhere."""
    before = law.log_likelihood(target)
    size = min(1.0, 3.0 / max(abs(float(step[1])), 1e-300))
    for _ in range(40):
        there = _Law.of(law.a + size * float(step[0]), law.k * math.exp(size * float(step[1])), law.bend, law.room)
        if there.log_likelihood(target) > before:
            return there, True
        size /= 2
    return law, False


def _support(a: float, k: float, bend: Bend, room: float) -> tuple[float, float, float]:
    """Peak of the log-density, and points below and above it beyond which it has dropped by at least 45.

    From the peak outwards the log-density drops at least by a line, and at least by the bend's own convexity; each
    alone gives a bound on how far one has to go, within a small factor.
    """
    if bend == "square":
        peak = min(room, max(0.0, -a / (2 * k)))
        slope = abs(a + 2 * k * peak)
        reach = 2 * _DROP / (slope + math.sqrt(slope**2 + 4 * _DROP * k))
        return peak, max(0.0, peak - reach), min(room, peak + reach)
    peak = min(room, math.log1p(-a / k)) if a < 0 else 0.0
    weight = k * math.exp(peak)
    slope = abs(a + k * math.expm1(peak))
    line = _DROP / max(slope, 1e-300)
    # e^t - 1 - t is at least t^2 / 2, and e^t / 2 from t = 1.7 on; e^-t - 1 + t is at least t^2 / 3 up to 1, and t - 1
    above = min(line, math.log(2 * _DROP / weight + 6), math.sqrt(2 * _DROP / weight))
    below = min(line, math.sqrt(3 * _DROP / weight) if weight >= 3 * _DROP else 1 + _DROP / weight)
    return peak, max(0.0, peak - below), min(room, peak + above)


def _bend(z: Array, bend: Bend) -> Array:
    # less z: the same laws, with a and k nearly independent
    return z**2 if bend == "square" else np.expm1(z) - z


def _straight_mean(slope: float, bend: Bend, room: float) -> float:
    """Mean of the bend under the power law itself."""
    if bend == "exponential":
        if math.isinf(room) and slope <= 1:
            return math.inf
        if math.isinf(room):
            return 1 / (slope * (slope - 1))
        mean = room * float(cut_exponential_mean(np.array([slope * room]))[0])
        return math.expm1(log_cut_mass(slope - 1, room) - log_cut_mass(slope, room)) - mean
    if math.isinf(room):
        return 2 / slope**2
    u = np.array([slope * room])
    return room**2 * float((cut_exponential_variance(u) + cut_exponential_mean(u) ** 2)[0])


def log_cut_mass(slope: float, room: float) -> float:
    """Logarithm of the integral of `e^(-slope z)` from 0 to `room`.

    >>> log_cut_mass(0.5, math.inf) == math.log(2), log_cut_mass(0.0, 3.0) == math.log(3)
    (True, True)
    """
    if math.isinf(room):
        return -math.log(slope)
    u = slope * room
    if u == 0:
        return math.log(room)
    # the larger end is taken out, so that nothing overflows
    return math.log(room) + max(0.0, -u) + math.log(-math.expm1(-abs(u)) / abs(u))


@lru_cache(maxsize=1)
def _quadrature() -> tuple[Array, Array]:
    """Nodes and weights on `[0, 1]`, in equal panels."""
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    starts = np.arange(_PANELS)[:, None]
    return ((starts + (nodes + 1) / 2) / _PANELS).ravel(), np.tile(weights / (2 * _PANELS), _PANELS)
