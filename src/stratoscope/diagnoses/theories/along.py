"""What theories share: curves over the steps of a training, their turns, and phases that are no wiggles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from stratoscope.diagnoses.curves import table
from stratoscope.diagnoses.theories.base import FEWEST, Turn

if TYPE_CHECKING:
    from stratoscope.diagnoses.theories.base import Asked
    from stratoscope.numerics.phases import Phases


@dataclass(frozen=True)
class Curves:
    """One variable along training, for each layer: steps x layers, NaN where it was not measured."""

    steps: tuple[int, ...]
    layers: tuple[str, ...]
    values: Float[np.ndarray, "steps layers"]

    @classmethod
    def of(cls, asked: Asked, name: str, split: str, like: Curves | None = None) -> Curves:
        """Read a variable on one split.

        Args:
            asked: the group.
            name: of the variable.
            split: the split; `""` for a variable without.
            like: where to read it at; else at its own steps and layers.
        """
        steps = asked.group.steps_of(name) if like is None else like.steps
        if like is None:
            layers = tuple(str(layer) for layer in asked.group[name].coords["layer"].values)
        else:
            layers = like.layers
        return cls(steps, layers, table(asked.group, name, steps, [split], layers)[:, 0])

    def within(self) -> Curves:
        """Without steps and layers at which nothing is there."""
        rows, columns = (~np.isnan(self.values)).any(1), (~np.isnan(self.values)).any(0)
        steps = tuple(step for step, there in zip(self.steps, rows, strict=True) if there)
        layers = tuple(layer for layer, there in zip(self.layers, columns, strict=True) if there)
        return Curves(steps, layers, self.values[np.ix_(rows, columns)])


def place_of(step: Sequence[float] | Float[np.ndarray, " steps"]) -> Float[np.ndarray, " steps"]:
    """Where steps lie on the axis on which phases are looked for: `log2(1 + step)`.

    >>> place_of([0, 1, 7]).tolist()
    [0.0, 1.0, 3.0]
    """
    found: np.ndarray = np.log2(1.0 + np.asarray(step, dtype=np.float64))
    return found


def step_of(place: float) -> float:
    """The step at a place; the inverse of `place_of`."""
    return float(2.0**place - 1.0)


def turn_at(found: Phases, knot: int, x: Float[np.ndarray, " points"]) -> Turn:
    """The turn at a knot, as steps. Knots are among the measured places, so each end moves half the way to the next one."""
    ends = np.pad(x, 1, mode="edge")
    low, high = (int(np.argmin(np.abs(x - end))) + 1 for end in found.intervals[knot])
    low_end, high_end = (ends[low - 1] + ends[low]) / 2, (ends[high] + ends[high + 1]) / 2
    return Turn(step_of(found.knots[knot]), step_of(float(low_end)), step_of(float(high_end)))


def p_of(found: Phases, level: float, *, turned: bool) -> float:
    """The largest p-value of what was accepted, or that of what was refused; NaN where nothing of the kind was tried."""
    kept = [p for p in found.p_values if (p <= level) == turned]
    return max(kept, default=float("nan"))


def why(seen: str, found: Phases, least: str) -> str:
    """Why there is no second phase: what is seen, and what the test says.

    Args:
        seen: what the curve does.
        found: its phases.
        least: how little does not count, in words.
    """
    if len(found.stretches) > 1:
        return seen
    if found.bends:
        bends = ", ".join(f"{step_of(bend):,.0f}" for bend in found.bends)
        but = "but not its direction" if found.directions[0] else f"but by less than {least} or within its noise"
        return f"{seen} (its slope changes at step {bends}, {but})"
    said = found.reason.removeprefix("no second phase found: ")
    return f"{seen} ({said})" if said else seen


def stretch_at(found: Phases, x: Float[np.ndarray, " points"]) -> np.ndarray:
    """Which stretch each place lies in."""
    return np.searchsorted(found.knots, x, side="right")


def few(points: int, what: str = "measured step") -> str:
    """Why nothing is said of so few.

    >>> few(1), few(5)
    ('1 measured step; 8 are needed', '5 measured steps; 8 are needed')
    """
    return f"{points} {what}{'' if points == 1 else 's'}; {FEWEST} are needed"


def steady(phases: Sequence[int | None]) -> list[int | None]:
    """Phases without wiggles: what is seen at a single measurement is held back until the next confirms it.

    A step away from the phase that holds counts where the next measurement has gone as far, in the same direction, or
    further. The last measurement has no next one, so it cannot begin a phase; the first one is where things stand.

    Args:
        phases: places in their order, early ones first; `None` where nothing is known.

    >>> steady([0, 0, 2, 0, 1, 1, 2])
    [0, 0, 0, 0, 1, 1, 1]
    >>> steady([0, 1, 2, 3, 3])
    [0, 1, 2, 3, 3]
    """
    known = [place for place, phase in enumerate(phases) if phase is not None]
    found: list[int | None] = [None] * len(phases)
    held: int | None = None
    for place, following in zip_longest(known, known[1:]):
        now = phases[place]
        after = None if following is None else phases[following]
        if held is None or (now is not None and after is not None and _confirms(held, now, after)):
            held = now
        found[place] = held
    return found


def _confirms(held: int, now: int, after: int) -> bool:
    return after >= now > held or after <= now < held
