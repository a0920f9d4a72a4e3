r"""Whether curves rise and then fall: a line with one bend, a test that knows how the bend was chosen, and a bootstrap.

Several curves of the same thing (one a seed) over the same places $x$ are together fitted by $a + b x + c\, (x - k)_+$,
least squares of their mean, with one knot $k$. A **second phase** is a fall after the knot. Whether there is one is
asked without that fit: for each candidate $k$ let the fall of each curve be minus the slope of a straight line through
its points from $k$ on, times the distance to the end. Over $S$ seeds it has a mean and a deviation $s(k)$, and

$$ T = \max_k\; \overline{\mathrm{fall}}(k) \,/\, (s(k) / \sqrt S) . $$

Any curve that wiggles has some $T$. What noise gives is found by turning the signs of all falls of a seed at once: all
$2^S$ ways, or 4096 random ones. Where the mean curve is flat and a seed's deviation is as likely up as down, every sign is
as likely, whatever the correlation along the curve; so at most `level` of such sets of curves are called a second phase,
exactly. A mean curve that rises makes falls rarer still. The smallest p-value of $S$ seeds is $2^{-S}$, so it takes 5.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

FEWEST = 5
"""Seeds below which no phase is named."""
MOST_SIGNS = 4096
"""Ways to turn signs that are tried; all of them up to 12 seeds."""
ROUNDING = 1e-12
"""Falls of less, relative to the largest number, are none."""
MARGIN = 3
"""Places on each side of a knot at least."""


@dataclass(frozen=True)
class Bend:
    """A line with one bend through several curves. Intervals are 95 % percentiles of a bootstrap over seeds.

    Attributes:
        second_phase: whether the curves fall after the knot, beyond what noise gives.
        reason: why not, in words; empty where there is one.
        knot: place of the bend: of the best fit to the mean curve.
        knot_interval: of `knot`.
        slope_before: of the mean curve, before the knot.
        slope_after: after it.
        fall: from the knot to the end, of the mean fitted curve; below 0 if it rises.
        fall_interval: of `fall`; the knot is chosen anew each time. Too narrow for few seeds, as every bootstrap.
        falls: of each seed, at the common knot.
        p_value: share of sign changes that give as large a `T`.
        seeds: how many curves.
    """

    second_phase: bool
    reason: str
    knot: float
    knot_interval: tuple[float, float]
    slope_before: float
    slope_after: float
    fall: float
    fall_interval: tuple[float, float]
    falls: tuple[float, ...]
    p_value: float
    seeds: int


def bend(
    x: ArrayLike, curves: ArrayLike, *, level: float = 0.05, resamples: int = 1000, generator: np.random.Generator
) -> Bend:
    """Fit a line with one bend to curves, and say whether there is a second phase.

    Args:
        x: places, strictly ascending, 8 at least; for trainings the logarithm of the step.
        curves: one a row.
        level: share of noise that may be called a second phase.
        resamples: of the bootstrap over seeds.
        generator: of the bootstrap, and of the signs where there are more than 12 seeds.

    Raises:
        ValueError: if the sizes do not fit, a number is not finite, or the places do not ascend.

    >>> x = np.arange(20.0)
    >>> curves = [np.minimum(x, 10) - 0.5 * np.maximum(x - 10, 0) + shift for shift in (0.0, 0.1, 0.4, 0.5, 0.9)]
    >>> found = bend(x, curves, generator=np.random.default_rng(0))
    >>> found.second_phase, found.knot, round(found.fall, 6)
    (True, 10.0, 4.5)
    """
    places, values = _checked(x, curves)
    knots = places[MARGIN:-MARGIN]
    fit = _Fit(places, knots)
    mean = values.mean(0)
    at = int(fit.best(mean[None])[0])
    draws = generator.integers(0, len(values), (resamples, len(values)))
    means = np.stack([values[draw].mean(0) for draw in draws]) if resamples else mean[None]
    chosen = fit.best(means)
    before, after, fall = (float(number) for number in fit.rows[at] @ mean)
    falls = (values - values[:, :1]) @ _falls_from(places, knots).T
    falls[np.abs(falls) <= ROUNDING * float(np.abs(values).max())] = 0.0
    p_value = _p_value(falls, generator)
    reason = _reason(len(values), p_value, level, fall)
    return Bend(
        second_phase=not reason,
        reason=reason,
        knot=float(knots[at]),
        knot_interval=_ends(knots[chosen]),
        slope_before=before,
        slope_after=after,
        fall=fall,
        fall_interval=_ends(np.einsum("rp,rp->r", fit.rows[chosen, 2], means)),
        falls=tuple((values @ fit.rows[at, 2]).tolist()),
        p_value=p_value,
        seeds=len(values),
    )


def _checked(x: ArrayLike, curves: ArrayLike) -> tuple[Array, Array]:
    places, values = np.asarray(x, dtype=np.float64), np.atleast_2d(np.asarray(curves, dtype=np.float64))
    least = 2 * MARGIN + 2
    if places.ndim != 1 or len(places) < least or values.ndim != 2 or values.shape[1] != len(places) or not len(values):
        raise ValueError(
            f"A bend needs {least} places at least and curves over all of them; there were {places.shape} and {values.shape}."
        )
    if not (np.all(np.isfinite(places)) and np.all(np.isfinite(values)) and np.all(np.diff(places) > 0)):
        raise ValueError("A bend needs finite curves over places that ascend.")
    return places, values


class _Fit:
    """Fits by a line with one bend, for all knots at once.

    Attributes:
        rows: for each knot three rows that give, of a curve, the slope before, the slope after, and the fall to the end.
    """

    def __init__(self, places: Array, knots: Array) -> None:
        """Solve for each knot."""
        bases = np.stack(
            [np.stack([np.ones_like(places), places, np.maximum(places - knot, 0.0)], axis=1) for knot in knots]
        )
        solved = np.linalg.pinv(bases)
        after = solved[:, 1] + solved[:, 2]
        self.rows: Array = np.stack([solved[:, 1], after, -after * (places[-1] - knots)[:, None]], axis=1)
        self._bases = np.linalg.qr(bases)[0]

    def best(self, curves: Array) -> NDArray[np.intp]:
        """For each curve the knot that explains most of it."""
        explained = [np.square(curves @ basis).sum(1) for basis in self._bases]
        return np.asarray(np.argmax(np.stack(explained), axis=0))


def _falls_from(places: Array, knots: Array) -> Array:
    """A row of weights for each knot: minus the slope of the points from there on, times their span."""
    rows = np.zeros((len(knots), len(places)))
    for row, knot in zip(rows, knots, strict=True):
        there = places >= knot
        along = places[there] - places[there].mean()
        row[there] = -along / (along @ along) * (places[-1] - knot)
    return rows


def _p_value(falls: Array, generator: np.random.Generator) -> float:
    """How often turned signs give as clear a fall.

    Args:
        falls: one seed a row, one knot a column.
        generator: of signs, where not all can be tried.
    """
    seeds = len(falls)
    if seeds < 2:
        return 1.0
    if 2**seeds <= MOST_SIGNS:
        signs = np.array(list(product((1.0, -1.0), repeat=seeds)))
    else:
        signs = generator.choice([1.0, -1.0], (MOST_SIGNS, seeds))
        signs[0] = 1.0
    mean = signs @ falls / seeds
    # a sum of squares does not know signs
    deviation = np.sqrt(np.maximum((falls**2).mean(0) - mean**2, 0.0) / (seeds - 1))
    least = 1e-12 * float(np.abs(falls).max()) or 1.0
    clearest = (mean / np.maximum(deviation, least)).max(1)
    return float(np.mean(clearest >= clearest[0] * (1 - 1e-9 * np.sign(clearest[0]))))


def _reason(seeds: int, p_value: float, level: float, fall: float) -> str:
    if seeds < FEWEST:
        return f"no second phase is named with fewer than {FEWEST} seeds; there were {seeds}"
    if fall <= 0:
        return "no second phase found: the mean does not fall after its bend"
    if p_value > level:
        return f"no second phase found: noise falls as clearly in {p_value:.0%} of cases"
    return ""


def _ends(values: Array) -> tuple[float, float]:
    low, high = np.quantile(values, [0.025, 0.975])
    return (float(low), float(high)) if math.isfinite(low) else (math.nan, math.nan)
