"""Three phases of reconstruction: the error of rebuilding the input from a layer is flat, falls, and rises again.

Source: Schneider and Prabhushankar, arXiv:2312.06887.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from stratoscope.diagnoses.theories.along import Curves, few, p_of, place_of, turn_at, why
from stratoscope.diagnoses.theories.base import FEWEST, FLAT, Answer, Asked, Phase, Theory, Told
from stratoscope.numerics.phases import Phases

FALLING = Phase("falling", "\\", "the error of rebuilding the input from the layer falls")
RISING = Phase("rising", "/", "the error of rebuilding the input from the layer rises")
MEAN = "at no step can the input be rebuilt better than by its mean"
BY_DIRECTION = {-1: FALLING, 0: FLAT, 1: RISING}


@dataclass(frozen=True)
class Reconstruction(Theory):
    """Flat, falling and rising error of reconstruction.

    Attributes:
        least: by how much the error has to move for a phase, as a share of the mean image's error.
    """

    key: ClassVar[str] = "reconstruction"
    title: ClassVar[str] = "reconstruction"
    source: ClassVar[str] = "arXiv:2312.06887"
    reads: ClassVar[str] = "reconstruction"
    stated: ClassVar[tuple[Phase, ...]] = (FLAT, FALLING, RISING)
    turning: ClassVar[str] = "the reconstruction error turns from falling to rising"
    order: ClassVar[int] = 20

    least: float = 0.01

    def looked_at(self, asked: Asked) -> str:
        """The split on which the error was measured."""
        return asked.split_of("error") if "error" in asked.group else ""

    def tell(self, asked: Asked) -> dict[str, Told]:
        """How the error of each layer moves."""
        if "error" not in asked.group:
            return {}
        split = self.looked_at(asked)
        error = Curves.of(asked, "error", split).within()
        floor = Curves.of(asked, "error_floor", split, like=error)
        silent = Curves.of(asked, "uninformative", split, like=error)
        return {
            layer: self._of(asked, error.steps, error.values[:, place], floor.values[:, place])
            if (silent.values[:, place] != 1).any()
            else Told(error.steps, ("",) * len(error.steps), Answer.SILENT, MEAN)
            for place, layer in enumerate(error.layers)
        }

    def _of(
        self,
        asked: Asked,
        steps: tuple[int, ...],
        error: Float[np.ndarray, " steps"],
        floor: Float[np.ndarray, " steps"],
    ) -> Told:
        kept = np.flatnonzero(np.isfinite(error))
        names = [""] * len(steps)
        if len(kept) < FEWEST:
            return Told(steps, tuple(names), Answer.SILENT, few(len(kept)))
        # one scale for the whole curve, so that it keeps its shape
        scale = float(np.median(floor[kept])) if np.isfinite(floor[kept]).all() else float(error[kept].max())
        places = place_of([steps[place] for place in kept])
        found = asked.phases(places, error[kept] / (scale if scale > 0 else 1.0), self.least)
        for place, direction in zip(kept, found.direction_at(places), strict=True):
            names[place] = BY_DIRECTION[int(direction)].name
        return self._told(steps, tuple(names), found, places, asked.level)

    def _told(
        self,
        steps: tuple[int, ...],
        names: tuple[str, ...],
        found: Phases,
        x: Float[np.ndarray, " points"],
        level: float,
    ) -> Told:
        """Whether the error rises after it fell."""
        ways = found.directions
        rises = [place for place, way in enumerate(ways) if way > 0]
        after = [place for place in rises if -1 in ways[:place]]
        if after:
            reason = f"the error rises by {found.stretches[after[0]].change:.1%} of the mean image's"
            turn = turn_at(found, after[0] - 1, x)
            return Told(steps, names, Answer.TURNS, reason, turn, p_of(found, level, turned=True))
        if rises:
            return Told(steps, names, Answer.ONLY_SECOND, "the error rises without having been seen to fall before")
        seen = "the error falls, and is not shown to rise after" if -1 in ways else "the error is not shown to move"
        return Told(
            steps,
            names,
            Answer.ONE_PHASE,
            why(seen, found, f"{self.least:.1%} of the mean image's"),
            p_value=p_of(found, level, turned=False),
        )
