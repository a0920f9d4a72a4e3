"""A measure along the layers of a path, with its interval: what a layer lacks that a later one has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float

if TYPE_CHECKING:
    from stratoscope.record.group import Group

NORMAL_95 = 1.959963984540054


@dataclass(frozen=True)
class Curve:
    """One measure at one step and split; more is better.

    Attributes:
        value: along the path; NaN where it was not measured.
        low: lower end of the 95 % interval.
        high: its upper end.
        informative: where it is more than noise would give.
    """

    value: Float[np.ndarray, " layers"]
    low: Float[np.ndarray, " layers"]
    high: Float[np.ndarray, " layers"]
    informative: Bool[np.ndarray, " layers"]

    @property
    def measured(self) -> Bool[np.ndarray, " layers"]:
        """Where there is a value."""
        found: np.ndarray = ~np.isnan(self.value)
        return found

    def until(self, place: int) -> Curve:
        """The part before a place."""
        return Curve(self.value[:place], self.low[:place], self.high[:place], self.informative[:place])

    def less(self, other: Curve) -> Float[np.ndarray, "3 layers"]:
        """The difference to another curve, and the ends of its interval."""
        more = self.value - other.value
        down = np.hypot(self.value - self.low, other.high - other.value)
        up = np.hypot(self.high - self.value, other.value - other.low)
        found: np.ndarray = np.stack([more, more - down, more + up])
        return found

    def left(self) -> Float[np.ndarray, "3 layers"]:
        """The most that a later layer has more than each, and the ends of its interval.

        The interval of a difference is that of Newcombe's hybrid of two intervals (doi:10.1002/(SICI)1097-0258
        (19980430)17:8<873::AID-SIM779>3.0.CO;2-I), as if the layers had been measured on different examples; on the
        same ones, as they are, it is too wide rather than too narrow. The upper end is the highest of all later
        layers', so it holds for each of them.

        Returns:
            Difference, lower end, upper end; NaN where nothing comes later.
        """
        found = np.full((3, len(self.value)), np.nan)
        for place in np.flatnonzero(self.measured):
            later = place + 1 + np.flatnonzero(self.measured[place + 1 :])
            if len(later):
                more = self.value[later] - self.value[place]
                down = np.hypot(self.value[later] - self.low[later], self.high[place] - self.value[place])
                up = np.hypot(self.high[later] - self.value[later], self.value[place] - self.low[place])
                found[:, place] = more.max(), (more - down).max(), (more + up).max()
        return found

    def best(self) -> int:
        """Where it is largest; the first of several. -1 where it was not measured."""
        return int(np.nanargmax(self.value)) if self.measured.any() else -1

    def enough(self, margin: float) -> list[int]:
        """The places after which nothing is better by `margin`, whatever the errors: an unbroken run, the last one first.

        Walking back from the last place, each is asked whether the upper end of what a later one has more stays below
        the margin, until one fails. Tests in an order that is fixed beforehand, stopped at the first failure, need no
        correction for their number: that any of these places is wrong has the probability of a single test's error.
        """
        upper = self.left()[2]
        run: list[int] = []
        for place in np.flatnonzero(self.measured)[::-1]:
            if run and not upper[place] < margin:
                break
            run.append(int(place))
        return run

    def lost(self, best: int, margin: float) -> float:
        """Where, after the best place, it becomes noise, stays noise to the end, and is lower by `margin` beyond the intervals.

        NaN where it does not.
        """
        measured = np.flatnonzero(self.measured)
        run = []
        for place in measured[measured > best][::-1]:
            if self.informative[place]:
                break
            run.append(place)
        clear = bool(run) and self.informative[best] and bool((self.high[run] + margin < self.low[best]).all())
        return float(run[-1]) if clear else float("nan")


def table(
    group: Group, name: str, steps: Sequence[int], splits: Sequence[str], layers: Sequence[str]
) -> Float[np.ndarray, "steps splits layers"]:
    """A variable along layers as plain numbers; NaN where it was not measured.

    Args:
        group: what an instrument measured.
        name: of the variable.
        steps: those wanted.
        splits: those wanted; `""` for a variable without splits.
        layers: those wanted, in this order.
    """
    if name not in group:
        return np.full((len(steps), len(splits), len(layers)), np.nan)
    array = group[name].astype(float).where(group.measured(name))
    if "split" not in array.dims:
        array = array.expand_dims(split=[""])
    if "layer" not in array.dims:
        array = array.expand_dims(layer=list(layers))
    array = array.reindex(step=list(steps), split=list(splits), layer=list(layers))
    found: np.ndarray = array.transpose("step", "split", "layer").values
    return found
