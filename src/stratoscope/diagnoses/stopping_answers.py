"""What the rule says at each step of a training, from what was known by then."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float

from stratoscope.diagnoses.stopping import Course
from stratoscope.diagnoses.valley import Valley, valley
from stratoscope.numerics.phases import PLACES
from stratoscope.record.quantity import Quantity, quantity

ADVICE, FEW, FLAT, RISES, FIRST, NO_CLASSES = range(6)
STATES = (
    "advice",
    "too few measurements",
    "the error has not risen",
    "the error rose from the beginning",
    "the classifier was best first",
    "nothing says how good the classifier is",
)
"""Meanings of the states, by their number."""

GROWTH = 1.1
"""By so much `1 + step` grows between two looks, so that a long run is not looked at more often than a short one."""

_LOW, _HIGH = ", lower end of its 95 % interval", ", upper end of its 95 % interval"

_MEANINGS = {
    "state": "whether there is advice when to stop for transfer",
    "stop": "step at which to stop for transfer",
    "stop_low": "first step of the advice: the reconstruction's best",
    "stop_high": "last step of the advice: the classifier's best",
    "reconstruction_best": "step of the least reconstruction error so far",
    "reconstruction_best_low": "step of the least reconstruction error" + _LOW,
    "reconstruction_best_high": "step of the least reconstruction error" + _HIGH,
    "classifier_best": "step of the highest accuracy so far",
    "error_ratio": "reconstruction error now over that at the stop",
    "transfer_best": "step of the best probe for another task so far",
    "transfer_best_low": "first step at which that probe is not shown to be worse",
    "transfer_best_high": "last step at which that probe is not shown to be worse",
    "transfer_now": "accuracy of the probe for another task",
    "transfer_gain": "accuracy of the probe for another task at its best above that of now",
    "transfer_gain_low": "gain of the best, lower end of its interval, corrected for the choice of the best",
    "transfer_gain_high": "gain of the best, upper end of its interval, corrected for the choice of the best",
    "stop_gain": "accuracy of the probe for another task at the stop above that of now",
    "stop_gain_low": "gain of the stop" + _LOW,
    "stop_gain_high": "gain of the stop" + _HIGH,
    "stop_short": "accuracy of the probe for another task at the stop below the best",
    "stop_short_low": "shortfall of the stop, lower end of its interval, corrected for the choice of the best",
    "stop_short_high": "shortfall of the stop, upper end of its interval, corrected for the choice of the best",
}
NAMES = tuple(name for name in _MEANINGS if name != "state")
"""Of all quantities but the state."""

_SHOWN = ("stop", "reconstruction_best", "classifier_best", "transfer_best", "transfer_now")


@dataclass(frozen=True)
class Answers:
    """The rule, asked at each step of a course.

    Attributes:
        course: what was measured.
        rise: a change of the error by less than this share of its floor does not count.
        level: share of noise that may be called a valley.
    """

    course: Course
    rise: float
    level: float

    def quantities(self) -> dict[str, Quantity]:
        """Everything along `step`; what is nowhere known is left out."""
        rows = [self.at(place) for place in range(len(self.course.steps))]
        found = {name: np.array([row.get(name, np.nan) for row in rows]) for name in _MEANINGS}
        return {name: self._quantity(name, values) for name, values in found.items() if np.isfinite(values).any()}

    def at(self, place: int) -> dict[str, float]:
        """What is known at one step, by name."""
        course, found = self.course, self._valley(place)
        reconstruction, classifier = int(course.reconstruction_best[place]), int(course.classifier_best[place])
        state = self._state(found, reconstruction, classifier)
        known = {"state": float(state), "reconstruction_best_low": found.low, "reconstruction_best_high": found.high}
        known |= self._named(reconstruction_best=reconstruction, classifier_best=classifier)
        stop = int(course.stop[place]) if state == ADVICE else -1
        if stop >= 0:
            known |= self._named(stop=stop, stop_low=reconstruction, stop_high=classifier)
            known["error_ratio"] = self._ratio(place, stop)
        return known | self._transfer(place, stop)

    @cached_property
    def _error(self) -> Float[np.ndarray, " steps"]:
        """The error as a share of its floor, where the floor is known."""
        course = self.course
        floor = np.where(np.isfinite(course.floor) & (course.floor > 0), course.floor, np.nan)
        scale = np.where(np.isnan(floor), np.nanmedian(floor), floor) if np.isfinite(floor).any() else 1.0
        found: np.ndarray = np.where(np.isfinite(course.error), course.error, np.nan) / scale
        return found

    @cached_property
    def _looks(self) -> list[int]:
        """Places at which a valley is looked for: the first `PLACES`th, then where `1 + step` has grown by a tenth."""
        known = np.flatnonzero(np.isfinite(self._error))
        looks: list[int] = []
        for place in map(int, known[PLACES - 1 :]):
            if not looks or 1 + self.course.steps[place] >= GROWTH * (1 + self.course.steps[looks[-1]]):
                looks.append(place)
        return looks

    def _valley(self, place: int) -> Valley:
        """What the last look showed, unless the error has fallen below all that it saw since."""
        looks = [look for look in self._looks if look <= place]
        end = looks[-1] if looks else place
        found = valley(self.course.steps[: end + 1], self._error[: end + 1], self.rise, self.level)
        best = self.course.reconstruction_best
        return found if best[place] == best[end] else Valley("flat", "it has fallen to its least")

    def _state(self, found: Valley, reconstruction: int, classifier: int) -> int:
        if classifier < 0:
            return NO_CLASSES
        if found.state != "valley":
            return {"few": FEW, "flat": FLAT, "rises": RISES}[found.state]
        return ADVICE if reconstruction < classifier else FIRST

    def _ratio(self, place: int, stop: int) -> float:
        """The last error that was measured over the one at the stop, or at the measured step before it."""
        known = np.flatnonzero(np.isfinite(self.course.error[: place + 1]))
        at = known[known <= stop][-1]
        least = float(self.course.error[at])
        return float(self.course.error[known[-1]]) / least if least > 0 else math.nan

    def _transfer(self, place: int, stop: int) -> dict[str, float]:
        course, best = self.course, int(self.course.transfer_best[place])
        if best < 0:
            return {}
        measured = np.flatnonzero(np.isfinite(course.transfer[: place + 1]))
        # the best is one of many, so it is compared as often as there are others
        now, often = int(measured[-1]), 1 - 0.05 / max(len(measured) - 1, 1)
        low, high = course.as_good(best, place, often)
        known = self._named(transfer_best=best, transfer_best_low=low, transfer_best_high=high)
        known["transfer_now"] = float(course.transfer[now])
        known |= _ends("transfer_gain", course.difference(best, now, often))
        if stop >= 0:
            near = int(measured[np.argmin(np.abs(measured - stop))])
            known |= _ends("stop_gain", course.difference(near, now))
            known |= _ends("stop_short", course.difference(best, near, often))
        return known

    def _named(self, **places: int) -> dict[str, float]:
        return {name: float(self.course.steps[place]) for name, place in places.items() if place >= 0}

    def _quantity(self, name: str, values: np.ndarray) -> Quantity:
        attrs: dict[str, Any] = {} if name in _SHOWN else {"chart": "none"}
        if name == "state":
            course = self.course
            attrs |= {"flag_values": list(range(len(STATES))), "flag_meanings": list(STATES)}
            attrs |= {"judged_layer": course.layer, "judged_split": course.split, "classifier": course.classifier}
        coords = {"step": self.course.steps}
        return quantity(values, units="1", long_name=_MEANINGS[name], dims="step", coords=coords, **attrs)


def _ends(name: str, found: tuple[float, float, float]) -> dict[str, float]:
    return {name: found[0], f"{name}_low": found[1], f"{name}_high": found[2]}
