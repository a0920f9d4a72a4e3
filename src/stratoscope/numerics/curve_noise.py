r"""The noise of curves: of one run, where it must be guessed from what a fit leaves, and of several seeds, which show it.

**One run.** Noise is a stationary autoregression of order one along the curve, and the question is its correlation
`rho`. What a fit leaves looks far less correlated than what it was fitted to: with 20 points a random walk around a fit
with two knots has a lag-one correlation of about 0. For a projection `M` (off the columns of the fit, and off one step
at each knot, by which a knot can move) the expected one is `tr(M L M R) / tr(M R)`, with `L` the shift by one and
`R = rho^|i - j|`; read backwards it is an estimate of `rho` with little bias left. But it scatters so much that tests
should not trust it: they assume the larger `estimate + 3 / sqrt(degrees of freedom)` of the two fits with most knots, and
never less than 0.5. With 12 places that is 0.98 for most curves, with 40 places of white noise 0.5.

**Seeds.** Under the hypothesis the seeds' curves less the common one, `E (S, T)`, have mean 0. For normal deviations with
any covariance along the curve whatever, `Q E` then has the law of `E` for each orthogonal `Q`, while `E' E` stays; so the
test draws unit vectors `u` and compares `u' E` with what `(1, ..., 1) / sqrt(S)` gives. This is a rotation test (Langsrud,
doi:10.1007/s11222-005-4789-5): exact, without an estimated correlation, and with p-values below `2^(1 - S)`, the least that
turned signs give to a two-sided question.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stratoscope.numerics.piecewise_linear import PiecewiseLinear

Array = NDArray[np.float64]

LEAST_CORRELATION = 0.5
"""Tests of one run never assume less."""
MOST_CORRELATION = 0.98
"""Nor more: from there on it is a random walk for all these lengths."""
DEVIATIONS = 3.0
"""How far above the estimate the assumed correlation lies, in `1 / sqrt(degrees of freedom)`."""

_GRID = np.linspace(-0.95, MOST_CORRELATION, 40)


@dataclass(frozen=True)
class Draws:
    """Curves as they would be under a hypothesis; the observed one first.

    Attributes:
        curves: `(draws, T)`.
        apart: for each draw what no common curve explains, as a sum of squares; 0 for one run.
    """

    curves: Array
    apart: Array


class OneRun:
    """Autoregressive noise around one curve.

    Attributes:
        curve: `(T,)`.
        scale: how many times the mean curve `curve` is: 1.
        best: its best knots for each number of them.
        assumed: correlation from one place to the next that tests assume.
    """

    def __init__(self, fit: PiecewiseLinear, curve: Array) -> None:
        """Judge how correlated the noise may be."""
        self.curve = curve
        self.scale = 1.0
        self._fit = fit
        self.best = fit.best(curve)
        self.assumed = LEAST_CORRELATION
        for knots in self.best[1:][-2:]:
            off = _Remainder(fit, knots)
            self.assumed = max(self.assumed, off.correlation(curve[None]) + DEVIATIONS / np.sqrt(off.dimension))
        self.assumed = min(float(self.assumed), MOST_CORRELATION)
        steps = np.arange(len(curve))
        self._law = self.assumed ** np.abs(steps[:, None] - steps)
        self._root = np.linalg.cholesky(self._law)

    def under(self, knots: Array, resamples: int, generator: np.random.Generator) -> Draws:
        """The curve itself, and draws of the curve that was fitted with these knots plus noise."""
        noise = generator.standard_normal((resamples, len(self.curve))) @ self._root.T
        fitted = self._fit.fitted(self.curve, knots)
        curves = fitted + self._deviation(knots)[0] * noise
        return Draws(np.concatenate([self.curve[None], curves]), np.zeros(resamples + 1))

    def around(self, knots: Array, resamples: int, generator: np.random.Generator) -> Array:
        """Draws for intervals: of a noise whose deviation is itself uncertain, so with heavier tails than normal ones."""
        deviation, freedom = self._deviation(knots)
        noise = generator.standard_normal((resamples, len(self.curve))) @ self._root.T
        tails = np.sqrt(freedom / generator.chisquare(freedom, (resamples, 1)))
        return np.asarray(self._fit.fitted(self.curve, knots) + deviation * tails * noise)

    def described(self, knots: Array) -> tuple[float, float]:
        """Deviation and corrected lag-one correlation of what the fit with these knots leaves."""
        off = _Remainder(self._fit, knots)
        left = self.curve - self._fit.fitted(self.curve, knots)
        return float(np.sqrt(left @ left / off.dimension)), off.correlation(self.curve[None])

    def _deviation(self, knots: Array) -> tuple[float, float]:
        """Deviation of the noise at the assumed correlation, and the degrees of freedom of its square."""
        spread = _Remainder(self._fit, knots).projection @ self._law
        left = self.curve - self._fit.fitted(self.curve, knots)
        expected = float(np.trace(spread))
        return float(np.sqrt(left @ left / expected)), expected**2 / float(np.sum(spread * spread.T))


class Seeds:
    """Curves of several seeds around a common one.

    Attributes:
        curve: `scale` times the mean curve, `(T,)`.
        scale: root of the number of seeds.
        best: its best knots for each number of them.
        assumed: NaN; nothing is assumed about the correlation.
    """

    def __init__(self, fit: PiecewiseLinear, curves: Array) -> None:
        """Take curves `(S, T)`."""
        self._fit = fit
        self._curves = curves
        self.scale = float(np.sqrt(len(curves)))
        self.curve: Array = curves.mean(0) * self.scale
        self.best = fit.best(self.curve)
        self.assumed = float("nan")

    def under(self, knots: Array, resamples: int, generator: np.random.Generator) -> Draws:
        """As for one run; the noise are the seeds' deviations, turned."""
        seeds = len(self._curves)
        common = self._fit.fitted(self.curve, knots)
        deviations = self._fit.left_by_line(self._curves - common / self.scale)
        turns = generator.standard_normal((resamples, seeds))
        turns = np.concatenate([np.ones((1, seeds)), turns])
        turned = (turns / np.linalg.norm(turns, axis=1, keepdims=True)) @ deviations
        apart = np.square(deviations).sum() - np.square(turned).sum(1)
        return Draws(common + turned, np.maximum(apart, 0.0))

    def around(self, knots: Array, resamples: int, generator: np.random.Generator) -> Array:
        """Draws for intervals: a bootstrap over seeds with normal weights, with the tails that few seeds ask for."""
        freedom = len(self._curves) - 1
        weights = generator.standard_normal((resamples, freedom + 1)) / np.sqrt(
            generator.chisquare(freedom, (resamples, 1))
        )
        return np.asarray(self._fit.fitted(self.curve, knots) + weights @ self._deviations())

    def described(self, knots: Array) -> tuple[float, float]:
        """Deviation of a seed from the mean, and its lag-one correlation; each seed's own straight line is taken off."""
        left = self._fit.left_by_line(self._deviations())
        off = _Remainder(self._fit, knots[:0])
        return float(np.sqrt(np.square(left).sum() / (off.dimension * (len(left) - 1)))), off.correlation(left)

    def _deviations(self) -> Array:
        return np.asarray(self._curves - self._curves.mean(0))


class _Remainder:
    """What is left of noise beside a fit with these knots.

    Attributes:
        projection: off the fit and off the steps by which its knots can move.
        dimension: of what is left.
    """

    def __init__(self, fit: PiecewiseLinear, knots: Array) -> None:
        columns = np.concatenate([fit.design(knots), fit.steps(knots)], axis=1)
        basis = np.linalg.qr(columns)[0]
        self.projection: Array = np.eye(len(columns)) - basis @ basis.T
        self.dimension = columns.shape[0] - columns.shape[1]
        self._fitted = np.linalg.qr(fit.design(knots))[0]

    def correlation(self, curves: Array) -> float:
        """Correlation of noise whose remainder is expected to look as correlated as that of these curves does."""
        left = curves - (curves @ self._fitted) @ self._fitted.T
        energy = float(np.square(left).sum())
        if not energy:
            return 0.0
        seen = float((left[:, 1:] * left[:, :-1]).sum()) / energy
        lags = np.abs(np.subtract.outer(np.arange(curves.shape[1]), np.arange(curves.shape[1]))).ravel()
        shifted = self.projection[:, 1:] @ self.projection[:-1]
        powers = _GRID[:, None] ** np.arange(curves.shape[1])
        expected = (powers @ np.bincount(lags, shifted.ravel())) / (powers @ np.bincount(lags, self.projection.ravel()))
        return float(np.interp(seen, np.maximum.accumulate(expected), _GRID))
