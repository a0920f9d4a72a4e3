"""Fitting and compression: what a layer tells about the input rises, and falls later on.

`I(X;T)`, read as the entropy of binned activations, over training. **Fitting** where it rises, or what the layer tells
about the labels does; **compression** where it falls later. Points at which the bins say nothing are left out.

Source: Shwartz-Ziv and Tishby, arXiv:1703.00810.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Float, Int

from stratoscope.diagnoses.theories.along import Curves, few, p_of, place_of, stretch_at, turn_at, why
from stratoscope.diagnoses.theories.base import FEWEST, FLAT, Answer, Asked, Phase, Theory, Told, Turn
from stratoscope.numerics.phases import Phases

FITTING = Phase("fitting", "F", "what the layer tells about the input, or about the labels, rises")
COMPRESSION = Phase("compression", "C", "what the layer tells about the input falls")


@dataclass(frozen=True)
class Information(Theory):
    """Fitting and compression in the information plane.

    Attributes:
        least: bits by which a curve has to move for a phase.
    """

    key: ClassVar[str] = "information"
    title: ClassVar[str] = "the information plane"
    source: ClassVar[str] = "arXiv:1703.00810"
    reads: ClassVar[str] = "information"
    stated: ClassVar[tuple[Phase, ...]] = (FITTING, COMPRESSION, FLAT)
    turning: ClassVar[str] = "the information plane turns from fitting to compression"
    order: ClassVar[int] = 10

    least: float = 0.1

    def looked_at(self, asked: Asked) -> str:
        """The split of the information plane."""
        return asked.split_of("information_x") if "information_x" in asked.group else ""

    def tell(self, asked: Asked) -> dict[str, Told]:
        """Fitting and compression of each layer."""
        if "information_x" not in asked.group:
            return {}
        split = self.looked_at(asked)
        x = Curves.of(asked, "information_x", split).within()
        y = Curves.of(asked, "information_y_debiased", split, like=x)
        silent = Curves.of(asked, "uninformative", split, like=x)
        return {
            layer: self._of(asked, x.steps, x.values[:, place], y.values[:, place], silent.values[:, place] == 1)
            for place, layer in enumerate(x.layers)
        }

    def _of(
        self,
        asked: Asked,
        steps: tuple[int, ...],
        x: Float[np.ndarray, " steps"],
        y: Float[np.ndarray, " steps"],
        silent: Bool[np.ndarray, " steps"],
    ) -> Told:
        measured = np.isfinite(x)
        kept = np.flatnonzero(measured & ~silent)
        names = [""] * len(steps)
        if len(kept) < FEWEST:
            ceiling = int((measured & silent).sum())
            total = int(measured.sum())
            full = f"its bins are at their ceiling at {ceiling} of {total} steps, where any layer would read the same"
            return Told(steps, tuple(names), Answer.SILENT, full if ceiling else few(len(kept)))
        places = place_of([steps[place] for place in kept])
        about_input = asked.phases(places, x[kept], self.least)
        labelled = bool(np.isfinite(y[kept]).all())
        about_labels = asked.phases(places, y[kept], self.least) if labelled else None
        phases = _phases(places, about_input, about_labels)
        for place, phase in zip(kept, phases, strict=True):
            names[place] = phase.name
        answer, reason, turn, p_value = self._answer(places, phases, about_input, about_labels, asked.level)
        return Told(steps, tuple(names), answer, reason, turn, p_value)

    def _answer(
        self,
        x: Float[np.ndarray, " points"],
        phases: list[Phase],
        about_input: Phases,
        about_labels: Phases | None,
        level: float,
    ) -> tuple[Answer, str, Turn | None, float]:
        """Whether compression follows fitting; where and why, or why not."""
        fits = phases.index(FITTING) if FITTING in phases else len(phases)
        falls = next((place for place, phase in enumerate(phases) if phase is COMPRESSION and place > fits), None)
        if falls is None and fits == len(phases) and COMPRESSION in phases:
            return Answer.ONLY_SECOND, "it falls without having been seen to fit before", None, float("nan")
        if falls is None:
            seen = "it fits, and is not shown to fall after" if fits < len(phases) else "it is not shown to move"
            p_value = p_of(about_input, level, turned=False)
            return Answer.ONE_PHASE, why(seen, about_input, f"{self.least:g} bits"), None, p_value
        stretch = stretch_at(about_input, x)
        own = int(stretch[falls])
        if any(phase is FITTING and before < own for phase, before in zip(phases, stretch, strict=True)):
            reason = f"it falls by {-about_input.stretches[own].change:.2f} bits"
            return Answer.TURNS, reason, turn_at(about_input, own - 1, x), p_of(about_input, level, turned=True)
        # what it tells about the input fell already, and fitting was that of the labels
        assert about_labels is not None
        knot = int(stretch_at(about_labels, x[falls : falls + 1])[0]) - 1
        reason = "it falls already when what it tells about the labels stops rising"
        return Answer.TURNS, reason, turn_at(about_labels, knot, x), p_of(about_labels, level, turned=True)


def _phases(x: Float[np.ndarray, " points"], about_input: Phases, about_labels: Phases | None) -> list[Phase]:
    """The phase at each place."""
    moves: Int[np.ndarray, " points"] = about_input.direction_at(x)
    labels = np.zeros_like(moves) if about_labels is None else about_labels.direction_at(x)
    stretch = stretch_at(about_input, x)
    fitted = -1  # the first stretch in which there was fitting
    found: list[Phase] = []
    for move, label, own in zip(moves, labels, stretch, strict=True):
        after = 0 <= fitted < own
        if move > 0 or (label > 0 and not (move < 0 and after)):
            found.append(FITTING)
            fitted = int(own) if fitted < 0 else fitted
        else:
            found.append(COMPRESSION if move < 0 else FLAT)
    return found
