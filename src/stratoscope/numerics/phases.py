r"""Phases of a noisy curve: where it falls, rises or does neither, and "no second phase" as a full answer.

**Statement.** Over places $x_1 < \dots < x_T$ a curve is $f(x_t) + e_t$, with $f$ continuous and piecewise linear. For
each number of knots $m$ let $R_m$ be the least sum of squares over all positions of the knots (all are tried:
`stratoscope.numerics.piecewise_linear`). That $f$ has $j$ knots is tested against more by

$$ F_m = (R_j - R_m) / (R_m + A), \qquad m = j + 1, \dots, \mathrm{most}, $$

each ranked among draws of curves with $j$ knots (knots chosen anew in each); the test's own p-value is the rank of the
best rank, so trying several $m$ costs no false alarms. From 0 knots on, one is added while $p \le$ `level`. $F_m$ does not
change with the straight line in $f$ nor with the units, so the first test is exact where the noise is as assumed:

- one run: a stationary autoregression whose correlation is never taken as less than 0.5 and with few places as much more
  (`stratoscope.numerics.curve_noise` says how); $A = 0$;
- seeds, 5 or more: any noise that is independent and normal from seed to seed, however correlated along the curve;
  $A$ is what the seeds differ. Exact for all lengths. (`stratoscope.numerics.change_point` asks the narrower question
  "does it fall after a bend" without normality, by turned signs.)

Later tests take the fitted curve for the true one. So a curve without a knot, noise or trend, gets one in at most `level`
of cases.

**Directions.** A stretch falls or rises where the 95 % interval of its slope excludes 0 and it changes by `least` at
least; otherwise it is flat, which only says that no movement was shown. The interval comes from draws around the fit,
each with knots of its own. Neighbours with one direction are one stretch: a curve that falls and then falls more slowly has a
`bend`, not a second phase.

**Turns.** What lines leave of a smooth curve looks like noise of a long memory, and then hides where it turns. So where
one run shows no fall beside a rise, `stratoscope.numerics.turn` asks its increments alone; that test holds for noise of
any memory up to a random walk, and calls a turn in hardly any noise. What it finds is cut at the curve's extreme.

**Measured** (`benchmarks/phases.py`). A second phase named where there is none, level 0.05:

| noise | one run, T = 12 | 20 | 40 | 5 seeds, 12 | 20 | 40 | 8 seeds, 12 | 20 | 40 |
|---|---|---|---|---|---|---|---|---|---|
| white | 0 % | 0 % | 0 % | 3 % | 1 % | 4 % | 5 % | 3 % | 2 % |
| correlation 0.5 | 0.5 % | 0.5 % | 0.5 % | 3 % | 1 % | 3 % | 2 % | 5 % | 3 % |
| correlation 0.7 | 2.5 % | 3 % | 1 % | 2 % | 1 % | 3 % | 3 % | 4 % | 0 % |
| random walk | 4 % | 9 % | 6 % | 3 % | 1 % | 0 % | 7 % | 1 % | 3 % |

200 curves a cell of one run, 100 of seeds, so that a rate of 5 % may show as 1 to 10 %. Beside a trend of 5 deviations it
was 0 to 5 %, with a random walk of one run and 20 places 7 %. One run alone cannot always tell a random walk from phases:
these 9 % stay.

Planted curves of one run of which all stretches were named in order, each with its direction, and nothing else, in %; in
brackets: any second phase (40 curves a cell, in the last two rows 30; noise relative to the range):

| curve | noise | T = 12, 20 % | T = 20, 20 % | T = 40, 20 % | T = 12, 10 % | T = 20, 10 % | T = 40, 10 % |
|---|---|---|---|---|---|---|---|
| fall, rise | white | 15 (20) | 35 (38) | 95 (95) | 88 (98) | 90 (95) | 100 (100) |
| fall, rise | 0.5 | 52 (62) | 30 (38) | 40 (42) | 95 (98) | 92 (100) | 100 (100) |
| flat, fall, rise | white | 0 (5) | 2 (12) | 8 (72) | 25 (40) | 35 (70) | 78 (98) |
| flat, fall, rise | 0.5 | 2 (20) | 8 (22) | 5 (15) | 70 (80) | 55 (75) | 40 (65) |
| rise, fall, rise | white | 0 (3) | 27 (27) | 83 (83) | 50 (50) | 83 (83) | 100 (100) |
| rise, fall, rise | 0.5 | 20 (27) | 33 (33) | 23 (27) | 80 (80) | 90 (90) | 90 (90) |

With 5 seeds and 12 or 20 places a second phase was named in all of them, and all stretches rightly in 57 to 100 %, at noise
of 20 %. So one run needs noise of 10 % of the range or less: the price of the correlation that it has to assume.

A knot needs three places on each side: what happens within the first three is not seen. Each further knot is one too many
in about `level` of cases, and a flat stretch is said to move in as many; `least` keeps out what is too small to matter. A
curve that is asked again and again while it grows has more chances of a false alarm than these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stratoscope.numerics.change_point import FEWEST, MARGIN, ROUNDING
from stratoscope.numerics.curve_noise import Draws, OneRun, Seeds
from stratoscope.numerics.piecewise_linear import PiecewiseLinear
from stratoscope.numerics.turn import LEAST as LEAST_TURN
from stratoscope.numerics.turn import turn

Array = NDArray[np.float64]

PLACES = 2 * MARGIN + 2
"""Places below which nothing is said."""
SHARE = 0.5
"""A stretch moves if its points alone have so much of the slope that the whole curve's fit gives it, at least: a bent
curve that is fitted by few lines overshoots, and then seems to turn. And a stretch that is not shown to move, but has so
much of the slope of a moving neighbour, is part of that."""
EXACT = 1e-7
"""A fit that leaves less, relative to the largest deviation, leaves nothing."""


@dataclass(frozen=True)
class Stretch:
    """A part of a curve that moves in one direction, or is not shown to move.

    Attributes:
        begin: first place.
        end: last place; the next stretch begins there.
        slope: change over length.
        low: lower end of the 95 % interval of `slope`; NaN where there were too few places, and beside a turn that was told
            by the curve's increments.
        high: upper end.
        change: of the fitted curve, end less begin.
        direction: -1 falling, 1 rising, 0 not shown to move.
    """

    begin: float
    end: float
    slope: float
    low: float
    high: float
    change: float
    direction: int


@dataclass(frozen=True)
class Phases:
    """A curve cut where its direction changes.

    Attributes:
        stretches: one at least; neighbours differ in direction.
        knots: places between them.
        intervals: of each knot, 95 %.
        bends: places where the slope changes and the direction does not.
        p_values: of each knot or bend as it was added, then of the first that was refused (none where there was no room).
        noise: deviation of one curve from what was fitted; of several, of a seed from the mean beside its own line.
        correlation: of that noise from one place to the next, corrected for what the fit takes away.
        assumed: correlation that the tests of one curve assumed; NaN with seeds, which need none.
        reason: why there is no second phase; empty where there is one.
        turned: p-value of a turn that was told by the curve's increments and not by lines; NaN where there is none.
    """

    stretches: tuple[Stretch, ...]
    knots: tuple[float, ...]
    intervals: tuple[tuple[float, float], ...]
    bends: tuple[float, ...]
    p_values: tuple[float, ...]
    noise: float
    correlation: float
    assumed: float
    reason: str
    turned: float = np.nan

    @property
    def directions(self) -> tuple[int, ...]:
        """The direction of each stretch."""
        return tuple(stretch.direction for stretch in self.stretches)

    def direction_at(self, x: ArrayLike) -> NDArray[np.int64]:
        """Direction at places: at a knot that of the stretch which begins there, outside of the curve 0.

        Args:
            x: places of any shape.
        """
        places = np.asarray(x, dtype=np.float64)
        found = np.array(self.directions)[np.searchsorted(self.knots, places, side="right")]
        inside = (places >= self.stretches[0].begin) & (places <= self.stretches[-1].end)
        return np.where(inside, found, 0)


def phases(
    x: ArrayLike,
    curves: ArrayLike,
    *,
    level: float = 0.05,
    least: float = 0.0,
    most: int = 3,
    resamples: int = 300,
    generator: np.random.Generator,
) -> Phases:
    """Cut a curve where its direction changes beyond what noise gives.

    Shift and scale of `curves` change nothing but their units, a turned sign turns all directions; shift and stretch
    of `x` change places and slopes only.

    Args:
        x: places, strictly ascending; for trainings `log2(1 + step)`.
        curves: one curve `(T,)`, or one a seed `(S, T)`. From 2 to 4 seeds their mean is treated as one curve. A seed
            without any number is left out, and so is a place where a seed has NaN.
        level: share of curves without a knot that may get one.
        least: a stretch that changes by less does not move, in units of `curves`.
        most: knots at most.
        resamples: draws of each test and of the intervals.
        generator: of the draws.

    Raises:
        ValueError: if the sizes do not fit, places do not ascend, a number is infinite or a setting out of range.

    >>> x = np.arange(20.0)
    >>> error = np.maximum(8 - x, 0) + 0.5 * np.maximum(x - 8, 0) + 0.1 * np.cos(7 * x)
    >>> found = phases(x, error, generator=np.random.default_rng(0))
    >>> found.directions, round(found.knots[0], 1)
    ((-1, 1), 7.9)
    """
    _check_settings(level, least, most, resamples)
    places, values = _clean(x, curves)
    if len(places) < PLACES:
        return _silent(places, np.nan, f"it takes {PLACES} places, and there were {len(places)} with a number")
    middle = float(values.mean())
    largest = float(np.abs(values - middle).max())
    if largest <= ROUNDING * abs(middle):
        return _silent(places, 0.0, "the curve is constant")
    mean = values.mean(axis=0) - middle
    # a signed unit, so that a turned sign meets the same draws
    unit = largest if mean[np.abs(mean).argmax()] >= 0 else -largest
    fit = PiecewiseLinear(places, most)
    scaled = (values - middle) / unit
    noise = Seeds(fit, scaled) if len(scaled) >= FEWEST else OneRun(fit, scaled.mean(axis=0))
    exact = len(places) * (EXACT + ROUNDING * abs(middle) / largest) ** 2
    knots, p_values = _knots(fit, noise, exact, level, resamples, generator)
    cut = _Cut(fit, noise, knots, places, unit, noise.around(knots, resamples, generator))
    stretches, kept = _stretches(cut, least)
    bends = [float(at) for number, at in enumerate(cut.ends[0, 1:-1]) if number not in kept]
    deviation, correlation = noise.described(knots)
    found = Phases(
        stretches=stretches,
        knots=tuple(stretch.end for stretch in stretches[:-1]),
        intervals=tuple(cut.interval(knot) for knot in kept),
        bends=tuple(bends),
        p_values=p_values,
        noise=deviation * largest,
        correlation=correlation,
        assumed=noise.assumed,
        reason=_reason(stretches, bends, p_values),
    )
    one_run = len(scaled) < FEWEST and {-1, 1} - set(found.directions)
    return _turned(found, places, values.mean(axis=0), level, least, generator) if one_run else found


def _turned(
    found: Phases, places: Array, curve: Array, level: float, least: float, generator: np.random.Generator
) -> Phases:
    """The same with the curve's turn, where its increments show one and lines did not."""
    if len(places) < 2 * LEAST_TURN + 1:
        return found
    seed = int(generator.integers(2**32))  # the same signs both ways, so that a turned sign turns the answer
    ways = [(turn(sign * curve, level=level, generator=np.random.default_rng(seed)), sign) for sign in (1, -1)]
    told, sign = min(ways, key=lambda way: way[0].p_value)
    at = told.place
    before, after = sign * (curve[0] - curve[at]), sign * (curve[-1] - curve[at])
    if told.p_value > level or not 0 < at < len(places) - 1 or min(before, after) < least:
        return found
    earlier = [stretch for stretch in found.stretches if stretch.end < places[at] and stretch.direction != sign]
    while earlier and earlier[-1].direction == -sign:
        earlier.pop()
    begin = earlier[-1].end if earlier else float(places[0])
    stretches = (
        *earlier,
        _told(places, curve, begin, float(places[at]), -sign),
        _told(places, curve, float(places[at]), float(places[-1]), sign),
    )
    knots = tuple(stretch.end for stretch in stretches[:-1])
    return replace(
        found,
        stretches=stretches,
        knots=knots,
        intervals=(*found.intervals[: len(knots) - 1], (float(places[told.low]), float(places[told.high]))),
        bends=tuple(bend for bend in (*found.knots, *found.bends) if bend not in knots),
        reason="",
        turned=told.p_value,
    )


def _told(places: Array, curve: Array, begin: float, end: float, direction: int) -> Stretch:
    """A stretch of which the direction is known and its size is read off the curve."""
    change = float(np.interp(end, places, curve) - np.interp(begin, places, curve))
    return Stretch(begin, end, change / (end - begin), np.nan, np.nan, change, direction)


class _Cut:
    """A curve cut at its knots, and draws of it cut at theirs, in the units of the curve and of its places.

    Attributes:
        ends: `(1 + draws, knots + 2)`: first place, knots, last place; the curve itself first.
        values: of the fits there.
        nearest: for each end of the curve the nearest one of the draw.
    """

    def __init__(
        self, fit: PiecewiseLinear, noise: OneRun | Seeds, knots: Array, places: Array, unit: float, draws: Array
    ) -> None:
        own = np.concatenate([knots[None], fit.best_of(draws, len(knots))])
        ends, values = fit.corners(np.concatenate([noise.curve[None], draws]), own)
        apart = np.abs(ends[:, None, 1:-1] - ends[:1, 1:-1, None])
        near = 1 + apart.argmin(2) if len(knots) else np.zeros((len(ends), 0), dtype=np.intp)
        self.nearest: NDArray[np.intp] = np.pad(near, ((0, 0), (1, 1)), constant_values=((0, 0), (0, len(knots) + 1)))
        self.ends: Array = np.interp(ends, fit.places, places)
        self.values: Array = values * (unit / noise.scale)
        self._places, self._curve = places, noise.curve * (unit / noise.scale)

    def stretch(self, first: int, last: int, least: float) -> Stretch:
        """What lies from one end to another, as one."""
        rows, begins, ends = np.arange(len(self.ends)), self.nearest[:, first], self.nearest[:, last]
        changes = self.values[rows, ends] - self.values[rows, begins]
        lengths = self.ends[rows, ends] - self.ends[rows, begins]
        # a draw that lacks the stretch does not move there
        slopes = changes / np.where(lengths, lengths, np.inf)
        begin, end, slope, change = (
            float(each[0]) for each in (self.ends[:, first], self.ends[:, last], slopes, changes)
        )
        low, high = (float(bound) for bound in np.quantile(slopes[1:], [0.025, 0.975]))
        shown = (low > 0 or high < 0) and abs(change) >= least
        direction = int(np.sign(low)) if shown and self._own_slope(begin, end) / slope >= SHARE else 0
        return Stretch(begin, end, slope, low, high, change, direction)

    def _own_slope(self, begin: float, end: float) -> float:
        """Slope of a straight line through the points there, which knows nothing of the rest of the curve."""
        there = (self._places >= begin) & (self._places <= end)
        along = self._places[there] - self._places[there].mean()
        return float(along @ self._curve[there] / (along @ along))

    def interval(self, knot: int) -> tuple[float, float]:
        """95 % of the draws of one knot; never without the knot itself."""
        at = self.ends[np.arange(len(self.ends)), self.nearest[:, knot + 1]]
        low, high = np.quantile(at[1:], [0.025, 0.975])
        return float(min(low, at[0])), float(max(high, at[0]))


def _stretches(cut: _Cut, least: float) -> tuple[tuple[Stretch, ...], list[int]]:
    """Stretches that differ from their neighbours in direction, and the numbers of the knots between them."""
    last = cut.ends.shape[1] - 1
    kept = list(range(1, last))
    while True:
        found = [cut.stretch(first, second, least) for first, second in pairwise([0, *kept, last])]
        alike = [_alike(one, other) for one, other in pairwise(found)]
        if not any(alike):
            return tuple(found), [end - 1 for end in kept]
        kept = [end for end, same in zip(kept, alike, strict=True) if not same]


def _alike(one: Stretch, other: Stretch) -> bool:
    """Whether two neighbours are one: the same direction, or one is not shown to move but is as steep as the other."""
    if one.direction == other.direction:
        return True
    if one.direction and other.direction:
        return False
    moving, still = (one, other) if one.direction else (other, one)
    return still.slope / moving.slope >= SHARE


def _knots(
    fit: PiecewiseLinear,
    noise: OneRun | Seeds,
    exact: float,
    level: float,
    resamples: int,
    generator: np.random.Generator,
) -> tuple[Array, tuple[float, ...]]:
    """Knots, added as long as noise does not explain them, and the p-value of each and of the first refused."""
    p_values: list[float] = []
    for knots in noise.best[:-1]:
        draws = noise.under(knots, resamples, generator)
        p_values.append(_p_value(_statistics(fit, draws, len(knots), exact)))
        if p_values[-1] > level:
            return knots, tuple(p_values)
    return noise.best[-1], tuple(p_values)


def _statistics(fit: PiecewiseLinear, draws: Draws, size: int, exact: float) -> Array:
    """What more knots than `size` explain, over what is left then: one draw a row, one number of knots a column."""
    total = np.square(fit.left_by_line(draws.curves)).sum(1)
    explained = np.stack([gains.max(0) for gains in fit.gains(draws.curves, fit.most)[size:]], axis=1)
    left = np.maximum(total[:, None] - explained, 0.0) + draws.apart[:, None]
    more = np.maximum(explained[:, 1:] - explained[:, :1], 0.0)
    if left[0, 0] <= exact:
        more[0] = 0.0
    return np.asarray(more / (left[:, 1:] + exact))


def _p_value(statistics: Array) -> float:
    """Rank of the first row among all: of its best rank over columns."""
    count = len(statistics)
    ranks = [count - np.searchsorted(np.sort(column), column * (1 - 1e-9)) for column in statistics.T]
    best = np.min(ranks, axis=0)
    return float(np.mean(best <= best[0]))


def _reason(stretches: Sequence[Stretch], bends: Sequence[float], p_values: Sequence[float]) -> str:
    if len(stretches) > 1:
        return ""
    if bends:
        where = ", ".join(f"{bend:.4g}" for bend in bends)
        stays = "direction does not" if stretches[0].direction else "curve is not shown to move on either side"
        return f"no second phase found: the slope changes at {where}, the {stays}"
    if p_values:
        return f"no second phase found: noise bends as clearly in {p_values[0]:.0%} of cases"
    return "no second phase found: no knots were asked for"


def _silent(places: Array, slope: float, why: str) -> Phases:
    """One flat stretch: with a slope of 0, or of NaN where nothing can be said."""
    begin, end = (float(places[0]), float(places[-1])) if len(places) else (np.nan, np.nan)
    stretch = Stretch(begin, end, slope, slope, slope, slope, 0)
    return Phases((stretch,), (), (), (), (), slope, np.nan, np.nan, f"no second phase found: {why}")


def _check_settings(level: float, least: float, most: int, resamples: int) -> None:
    if not 0 < level < 1 or (resamples + 1) * level < 1:
        raise ValueError(f"Phases need a level in (0, 1) and at least 1 / level draws; {level=}, {resamples=}.")
    if not least >= 0 or most < 0:
        raise ValueError(f"Phases need a least change and a number of knots from 0 on; {least=}, {most=}.")


def _clean(x: ArrayLike, curves: ArrayLike) -> tuple[Array, Array]:
    """Places where every seed has a number, and the curves there; seeds without any number are left out."""
    places, values = np.asarray(x, dtype=np.float64), np.atleast_2d(np.asarray(curves, dtype=np.float64))
    if places.ndim != 1 or values.ndim != 2 or values.shape[1] != len(places) or not len(values):
        raise ValueError(
            f"Phases need places and curves over all of them; there were {places.shape} and {values.shape}."
        )
    if not np.all(np.isfinite(places)) or np.any(np.diff(places) <= 0) or np.any(np.isinf(values)):
        raise ValueError("Phases need places that ascend and curves without infinite numbers.")
    measured = np.isfinite(values)
    values = values[measured.any(axis=1)]
    kept = measured[measured.any(axis=1)].all(axis=0) & bool(len(values))
    return places[kept], values[:, kept]
