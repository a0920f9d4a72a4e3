"""How far a fitted power law can be believed: a bootstrap that repeats the whole fit, the choice of `xmin` included."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stratoscope.numerics.power_law import PowerLaw, RowFits, fit_rows, log_ratios, tail_candidates

Array = NDArray[np.float64]

_BLOCK_NUMBERS = 2**20


@dataclass(frozen=True)
class GoodnessOfFit:
    """Could the sample be a power law above `xmin`?

    Attributes:
        p: share of samples from the fitted law that lie at least as far from their own fits; small speaks against the law. A large
            one does not speak for it: short tails of most laws pass.
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
    fitted anew with its own `xmin`. Counted are those whose distance `D` is at least that of the fit, and the fit itself, so
    that `p` is never 0.

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

    Args:
        values: the sample that was fitted.
        fit: its power law.
        level: of confidence, in `(0, 1)`.
        samples: how many to draw.
        seed: of the draws.

    Raises:
        ValueError: if there are fewer than 2 distinct values, `samples` is below 1 or `level` is not in `(0, 1)`.

    >>> from stratoscope.numerics.power_law import fit_power_law
    >>> u = (np.arange(500) + 0.5) / 500
    >>> x = u ** (-1 / 1.5)
    >>> interval = alpha_interval(x, fit_power_law(x))
    >>> interval.low < 2.5 < interval.high
    True
    """
    if not 0 < level < 1:
        raise ValueError(f"The level of an interval lies between 0 and 1; level={level}.")
    replicates = bootstrap_fits(values, fit, samples=samples, seed=seed)
    ratios = (replicates.alpha - 1) / (fit.alpha - 1)
    ratios = ratios[np.isfinite(ratios)]
    tail = (1 - level) / 2
    low, high = (fit.alpha - 1) / np.quantile(ratios, [1 - tail, tail])
    corrected = 1 + (fit.alpha - 1) / ratios.mean()
    return Interval(1 + float(low), 1 + float(high), level, samples, float(corrected))


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
