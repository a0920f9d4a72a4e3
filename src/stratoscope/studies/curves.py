"""Curves along training as claims read them: one a seed, over doubling iterations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stratoscope.studies.runs import StudyRuns

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Curves:
    """One number along training.

    Attributes:
        steps: iterations.
        values: `(seeds, steps)`.
        seeds: which.
    """

    steps: Array
    values: Array
    seeds: tuple[int, ...]

    @classmethod
    def of(cls, runs: StudyRuns, key: str, variable: str, **labels: str) -> Curves:
        """Read one run a seed.

        Args:
            runs: whose.
            key: group of the record.
            variable: of it.
            **labels: one for each further dim.
        """
        found = {run.spec["seed"]: run.array(key, variable).sel(labels) for run in runs}
        (steps,) = {tuple(along["step"].values.tolist()) for along in found.values()}
        values = np.stack([np.asarray(along.values, dtype=np.float64) for along in found.values()])
        return cls(np.array(steps, dtype=np.float64), values, tuple(found))

    @property
    def mean(self) -> Array:
        """Over seeds."""
        return np.asarray(self.values.mean(0))

    @property
    def places(self) -> Array:
        """`log2(1 + step)`."""
        return np.log2(1 + self.steps)

    def of_others(self, place: int) -> Array:
        """The mean of all seeds but one, by which a step is chosen for that one: its own noise has no part in the choice."""
        if len(self.seeds) < 2:
            return self.mean
        return np.asarray(np.delete(self.values, place, axis=0).mean(0))

    def best(self, *, least: bool = False) -> Array:
        """For each seed the place `log2(1 + step)` of its largest (or least) value, between steps by a parabola."""
        sign = -1.0 if least else 1.0
        return np.array([vertex(self.places, sign * one) for one in self.values])

    def nearest(self, places: Array) -> NDArray[np.intp]:
        """The measured step that is nearest to each place."""
        return np.asarray(np.abs(self.places[None] - places[:, None]).argmin(1))

    def at(self, index: NDArray[np.intp]) -> Array:
        """For each seed its value at a step of its own."""
        return np.asarray(self.values[np.arange(len(self.values)), index])

    def told(self, name: str) -> dict[str, float]:
        """The mean at each step, for printing."""
        return {f"{name} at {step:.0f}": float(value) for step, value in zip(self.steps, self.mean, strict=True)}


def vertex(places: Array, values: Array) -> float:
    """Where values are largest: the vertex of the parabola through the largest and its neighbours, or an end.

    >>> vertex(np.arange(4.0), np.array([0.0, 1.0, 1.0, 0.0]))
    1.5
    """
    at = int(values.argmax())
    if at in (0, len(values) - 1):
        return float(places[at])
    (x0, x1, x2), (y0, y1, y2) = places[at - 1 : at + 2], values[at - 1 : at + 2]
    left, right = (y1 - y0) / (x1 - x0), (y2 - y1) / (x2 - x1)
    if left - right <= 0:
        return float(x1)
    found = (x0 + x1) / 2 + left / (left - right) * (x2 - x0) / 2
    return float(min(max(found, x0), x2))
