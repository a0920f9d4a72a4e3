"""Whether a curve over training falls and then rises again: a valley, and where its bottom lies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float

from stratoscope.numerics.phases import PLACES, Phases, phases

SPIKE = 6.0
"""Deviations of the noise from which a value that stands out from both neighbours is a spike."""

_SEED = 0


@dataclass(frozen=True)
class Valley:
    """What is known of a valley.

    Attributes:
        state: `"valley"`, `"few"` (places), `"flat"` (no rise after the least value is shown) or `"rises"` (it rises
            from the beginning, and no fall before that is shown).
        reason: why there is none, as `phases` says it; empty where there is one.
        low: lower end of the 95 % interval of the place of its bottom; NaN where there is none.
        high: its upper end.
    """

    state: str
    reason: str = ""
    low: float = math.nan
    high: float = math.nan


def valley(steps: Sequence[int], values: Float[np.ndarray, " steps"], least: float, level: float) -> Valley:
    """Whether values over steps fall, and then rise from their least one.

    A fall and a rise are stretches of `phases` over `log2(1 + step)`. The rise has to come after the fall, and the least
    value between the beginning of the fall and the end of the rise: a curve that falls once more below its valley is in
    none. A decoder now and then fails at one measurement, so spikes of one place are taken out before (`without_spikes`).

    Args:
        steps: ascending.
        values: NaN where nothing was measured.
        least: a change of less than this does not count.
        level: share of noise that may be called a phase.
    """
    known = np.isfinite(values)
    if known.sum() < PLACES:
        return Valley("few", f"it takes {PLACES} measurements, and there were {known.sum()}")
    places = np.log2(1.0 + np.asarray(steps, dtype=np.float64)[known])
    return _valley(places.tobytes(), np.asarray(values, dtype=np.float64)[known].tobytes(), least, level)


def without_spikes(values: Float[np.ndarray, " steps"]) -> Float[np.ndarray, " steps"]:
    """Values with those that stand out from both neighbours replaced by the median of the three.

    One stands out if it is `SPIKE` deviations of the noise from that median; the deviation is taken from the median size of
    the change from one value to the next. Ends are compared, by Tukey's rule, with the median of themselves, their neighbour,
    and what the line through their two neighbours gives there. Ordinary noise stays
    as it is, and so do monotone curves but for a jump at an end, which may be either.

    Args:
        values: 3 or more.

    >>> without_spikes(np.array([1.0, 2.0, 70.0, 4.0, 5.0, 5.5, 6.0, 90.0])).tolist()
    [1.0, 2.0, 4.0, 4.0, 5.0, 5.5, 6.0, 7.0]
    """
    usual = values.copy()
    usual[1:-1] = np.median(np.stack([values[:-2], values[1:-1], values[2:]]), axis=0)
    usual[0] = np.median([values[0], usual[1], 3 * usual[1] - 2 * usual[2]])
    usual[-1] = np.median([values[-1], usual[-2], 3 * usual[-2] - 2 * usual[-3]])
    # a normal difference of two is as often below as above 0.954 deviations
    noise = float(np.median(np.abs(np.diff(values)))) / 0.954
    found: np.ndarray = np.where(np.abs(values - usual) > SPIKE * noise, usual, values)
    return found


@lru_cache(maxsize=1024)
def _valley(places: bytes, values: bytes, least: float, level: float) -> Valley:
    """The same of numbers that can be remembered: a training asks of the same beginnings again and again."""
    x, raw = np.frombuffer(places), np.frombuffer(values)
    y = without_spikes(raw)
    if np.ptp(y) <= least:
        return Valley("flat", "it changes by less than what counts")
    found = phases(x, y, level=level, least=least, generator=np.random.default_rng(_SEED))
    bottom = float(x[int(np.argmin(raw))])
    ways = [stretch.direction for stretch in found.stretches]
    rises = [place for place, way in enumerate(ways) if way > 0 and found.stretches[place].end > bottom]
    falls = [place for place, way in enumerate(ways) if way < 0 and found.stretches[place].begin < bottom]
    pairs = [(fall, rise) for fall in falls for rise in rises if fall < rise]
    if pairs:
        return _between(found, *min(pairs, key=lambda pair: pair[1] - pair[0]))
    if rises and not falls:
        return Valley("rises", "it rises, and did not fall before")
    return Valley("flat", found.reason or "it has not risen")


def _between(found: Phases, fall: int, rise: int) -> Valley:
    """The bottom lies between the knot that ends the fall and the one that begins the rise."""
    low, high = found.intervals[fall][0], found.intervals[rise - 1][1]
    return Valley("valley", "", 2.0**low - 1.0, 2.0**high - 1.0)
