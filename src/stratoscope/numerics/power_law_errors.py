"""How far a fitted power law can be believed: a bootstrap that repeats the whole fit, the choice of `xmin` included."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stratoscope.numerics.power_law import PowerLaw, RowFits, fit_rows, log_ratios, tail_candidates

Array = NDArray[np.float64]

_BLOCK_NUMBERS = 2**20
_WEIGHT = 0.25
"""Power of `n_tail` that weighs errors; see `alpha_interval`."""


@dataclass(frozen=True)
class GoodnessOfFit:
    """Could the sample be a power law above `xmin`?

    Attributes:
        p: share of samples from the fitted law that lie at least as far from their own fits; small speaks against the
            law. A large one does not speak for it: short tails of most laws pass.
        standard_error: of `p`, from the number of samples.
        samples: that were drawn.
    """

    p: float
    standard_error: float
    samples: int


@dataclass(frozen=True)
class Interval:
    """A confidence interval of the exponent.

    Attributes:
        low: lower end.
        high: upper end.
        level: nominal probability that the interval covers the exponent.
        samples: bootstrap samples that it rests on.
        corrected: `alpha` with its bias taken off.
    """

    low: float
    high: float
    level: float
    samples: int
    corrected: float


def goodness_of_fit(values: ArrayLike, fit: PowerLaw, *, samples: int = 100, seed: int = 0) -> GoodnessOfFit:
    """Bootstrap p-value of a fitted power law (Clauset, Shalizi and Newman, arXiv:0706.1062, section 4.1).

    Samples of the same size are drawn from the fit: above `xmin` from the law, below it from the values there. Each is
    fitted anew with its own `xmin`. Counted are those whose distance `D` is at least that of the fit, and the fit
    itself, so that `p` is never 0.

    With 256 values, `p < 0.1` came up on 7 % of 200 samples from a power law, 64 % from Marchenko-Pastur noise, 28 %
    from a lognormal law with sigma 1 and 40 % from an exponential law: this test alone does not tell noise from a law.

    Args:
        values: the sample that was fitted.
        fit: its power law.
        samples: how many to draw; the standard error of `p` is at most `0.5 / sqrt(samples)`.
        seed: of the draws.

    Raises:
        ValueError: if there are fewer than 2 distinct values, or `samples` is below 1.

    >>> from stratoscope.numerics.power_law import fit_power_law
    >>> x = np.linspace(1, 2, 300)  # uniform: no power law
    >>> goodness_of_fit(x, fit_power_law(x)).p < 0.1
    True
    """
    replicates = bootstrap_fits(values, fit, samples=samples, seed=seed)
    # a sample without two distinct values has no distance and cannot be further away
    p = (1 + int((replicates.D >= fit.D).sum())) / (samples + 1)
    return GoodnessOfFit(p, math.sqrt(p * (1 - p) / samples), samples)


def alpha_interval(
    values: ArrayLike, fit: PowerLaw, *, level: float = 0.95, samples: int = 400, seed: int = 0
) -> Interval:
    """Bootstrap confidence interval of the exponent, which knows that `xmin` was chosen.

    The samples are those of `goodness_of_fit`, each fitted anew with its own `xmin`. `alpha - 1` is a scale (a power of
    the values multiplies it), so the error that is carried over from the samples to the fit is that of
    `log(alpha - 1)`; with an upper limit it is not, and the error is that of `alpha`. Errors are weighed by
    `n_tail^(1/4)` before and after: a part of them falls with the tail's size as `n_tail^(-1/2)`, the part that comes
    from the choice of `xmin` does not. The power 1/4, between 0 (covers 97 % at a level of 95 %) and 1/2 (94 %), was
    chosen on one set of seeds. On another, with 100 to 1024 values and exponents 2 to 4 (200 seeds each), the interval
    covered 96.3 % of pure laws and 95.9 % of laws above a uniform body, at least 95 % in each of the 18 cells;
    `alpha +- 1.96 sigma` covered 92 to 93 %. A body that runs into the tail misleads: of 100 values, 80 of them
    Marchenko-Pastur noise up to where a law with exponent 3 starts, the fit takes the edge of the noise for the law in
    half of the draws, and the interval covers 53 %.

    `corrected` has the bias of `alpha` taken off, at about the same root-mean-square error. For a known start,
    `(alpha - 1) (n_tail - 2) / n_tail` has no bias; what the choice of `xmin` adds is estimated from the samples and
    taken off. With 100 values of a pure law the bias of `alpha` was +2.7 to +3.3 %, that of `corrected` -0.4 to
    +0.9 %.

    Args:
        values: the sample that was fitted.
        fit: its power law.
        level: of confidence, in `(0, 1)`.
        samples: how many to draw.
        seed: of the draws.

    Returns:
        The interval; NaN where no drawn sample had two distinct values.

    Raises:
        ValueError: if there are fewer than 2 distinct values, `samples` is below 1 or `level` is not in `(0, 1)`.

    >>> from stratoscope.numerics.power_law import fit_power_law
    >>> u = (np.arange(500) + 0.5) / 500
    >>> x = u ** (-1 / 1.5)
    >>> interval = alpha_interval(x, fit_power_law(x))
    >>> round(interval.low, 1), round(interval.high, 1)
    (2.3, 2.7)
    """
    if not 0 < level < 1:
        raise ValueError(f"The level of an interval lies between 0 and 1; level={level}.")
    replicates = bootstrap_fits(values, fit, samples=samples, seed=seed)
    drawn = np.isfinite(replicates.alpha)
    if not drawn.any():
        return Interval(math.nan, math.nan, level, samples, math.nan)
    alphas, sizes = replicates.alpha[drawn], fit.n - replicates.start[drawn]
    errors = alphas - fit.alpha if fit.xmax is not None else np.log((alphas - 1) / (fit.alpha - 1))
    tail = (1 - level) / 2
    most, least = np.quantile(errors * (sizes / fit.n_tail) ** _WEIGHT, [1 - tail, tail])
    corrected = _corrected(fit, alphas, sizes)
    if fit.xmax is not None:
        return Interval(fit.alpha - float(most), fit.alpha - float(least), level, samples, corrected)
    low, high = 1 + (fit.alpha - 1) * np.exp([-most, -least])
    return Interval(float(low), float(high), level, samples, corrected)


def _corrected(fit: PowerLaw, alphas: Array, sizes: NDArray[np.intp]) -> float:
    if fit.xmax is not None:
        return 2 * fit.alpha - float(alphas.mean())
    ratios = (alphas - 1) / (fit.alpha - 1) * _unbiased(sizes)
    return 1 + (fit.alpha - 1) * float(_unbiased(np.array(fit.n_tail))) * (2 - float(ratios.mean()))


def _unbiased(sizes: NDArray[np.intp]) -> Array:
    """Factor that takes the bias of maximum likelihood off `alpha - 1`: the inverse of a gamma variable's mean."""
    return np.asarray(np.maximum(sizes - 2, 1) / sizes)


def bootstrap_fits(values: ArrayLike, fit: PowerLaw, *, samples: int, seed: int = 0) -> RowFits:
    """Fits of samples drawn from a fit: the law above `xmin`, the values themselves below it.

    Raises:
        ValueError: if there are fewer than 2 distinct values, or `samples` is below 1.
    """
    if samples < 1:
        raise ValueError(f"A bootstrap needs at least 1 sample; samples={samples}.")
    data = tail_candidates(values, fit.xmax)
    logs = log_ratios(data, fit.xmin)
    limit = None if fit.xmax is None else float(log_ratios(np.array([fit.xmax]), fit.xmin)[0])
    generator = np.random.default_rng(seed)
    rows = max(1, _BLOCK_NUMBERS // len(data))
    parts = [
        fit_rows(_draw(logs, fit, limit, min(rows, samples - k), generator), limit) for k in range(0, samples, rows)
    ]
    return RowFits(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("start", "alpha", "D")))


def _draw(logs: Array, fit: PowerLaw, limit: float | None, samples: int, generator: np.random.Generator) -> Array:
    """Sorted logarithms over `xmin`, one sample a row."""
    shape = (samples, len(logs))
    body = len(logs) - fit.n_tail
    if limit is None:
        tail = generator.standard_exponential(shape) / (fit.alpha - 1)
    else:
        tail = _cut_exponential_draws(generator.random(shape), fit.alpha - 1, limit)
    if body:
        below = logs[generator.integers(0, body, shape)]
        tail = np.where(generator.random(shape) * len(logs) < body, below, tail)
    tail.sort(axis=1)
    return tail


def _cut_exponential_draws(uniform: Array, rate: float, end: float) -> Array:
    """Quantiles of the density proportional to `e^(-rate t)` on `[0, end]`."""
    if rate * end == 0:
        return uniform * end
    return np.minimum(-np.log1p(uniform * math.expm1(-rate * end)) / rate, end)
