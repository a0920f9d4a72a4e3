"""The five phases of self-regularisation, and a sixth: how far a weight matrix has left noise behind.

Each matrix' phase comes from the instrument `spectrum`. Of several matrices of a layer the most advanced speaks.

Source: Martin and Mahoney, arXiv:1810.01075.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from stratoscope.diagnoses.theories.along import steady
from stratoscope.diagnoses.theories.base import Answer, Asked, Phase, Theory, Told, Turn

STATED = (
    Phase(
        "flatter-than-noise", "o", "the eigenvalues are closer together than noise has them, as at an orthogonal start"
    ),
    Phase("random-like", "R", "no eigenvalue is beyond what noise reaches"),
    Phase("bleeding-out", "b", "a few eigenvalues are just beyond what noise reaches"),
    Phase("bulk+spikes", "s", "a few eigenvalues stand out of noise"),
    Phase("bulk-decay", "d", "many eigenvalues stand out, and the edge of noise is blurred"),
    Phase("heavy-tailed", "H", "noise does not describe the eigenvalues any more"),
    Phase("rank-collapse", "x", "many eigenvalues are zero"),
)
NAMES = {
    "flat": "flatter-than-noise",
    **{phase.name: phase.name for phase in STATED},
    **{f"heavy-tailed-{tail}": "heavy-tailed" for tail in ("weak", "fat", "very-heavy")},
}
"""What the instrument calls them."""
WITHOUT = {"too-small": "the matrix is too small for a phase", "no-test": "noise has no known law here"}
PLACES = {phase.name: place for place, phase in enumerate(STATED)}
RANDOM = PLACES["random-like"]
"""Up to here nothing was learned that could be seen."""


@dataclass(frozen=True)
class Spectrum(Theory):
    """Phases of self-regularisation of the layer's weight matrices."""

    key: ClassVar[str] = "spectrum"
    title: ClassVar[str] = "the spectrum"
    source: ClassVar[str] = "arXiv:1810.01075"
    reads: ClassVar[str] = "spectrum"
    stated: ClassVar[tuple[Phase, ...]] = STATED
    turning: ClassVar[str] = "the weights' spectrum leaves what noise would have"
    order: ClassVar[int] = 30

    def tell(self, asked: Asked) -> dict[str, Told]:
        """The phases of each layer's matrices."""
        if "phase" not in asked.group:
            return {}
        steps, matrices = _read(asked)
        layers: dict[str, dict[str, list[str]]] = {}
        for name, phases in matrices.items():
            layers.setdefault(asked.owner(name), {})[name] = phases
        return {layer: _told(steps, own) for layer, own in layers.items()}


def _read(asked: Asked) -> tuple[tuple[int, ...], dict[str, list[str]]]:
    """Steps, and for each matrix what the instrument called its phase; `""` where it was not measured."""
    array = asked.group["phase"].transpose("step", "matrix")
    said = array.attrs.get("flag_meanings", "")
    meanings = said.split() if isinstance(said, str) else [str(name) for name in said]
    flags = [float(flag) for flag in np.ravel(array.attrs.get("flag_values", range(len(meanings))))]
    called = dict(zip(flags, meanings, strict=False))
    values = np.where(asked.group.measured("phase").transpose("step", "matrix").values, array.values, np.nan)
    steps = tuple(int(step) for step in array.coords["step"].values)
    names = [str(name) for name in array.coords["matrix"].values]
    return steps, {
        name: [called.get(float(value), "") for value in column]
        for name, column in zip(names, values.T.astype(float), strict=True)
    }


def _told(steps: tuple[int, ...], matrices: Mapping[str, list[str]]) -> Told:
    """What the matrices of one layer say together."""
    phases = {name: steady([PLACES.get(NAMES.get(one, "")) for one in called]) for name, called in matrices.items()}
    rows = list(zip(*phases.values(), strict=True))
    most = [max((place for place in row if place is not None), default=None) for row in rows]
    names = tuple("" if place is None else STATED[place].name for place in most)
    known = [number for number, place in enumerate(most) if place is not None]
    if not known:
        last = {WITHOUT.get(called, "it was not measured") for one in matrices.values() for called in one[-1:]}
        return Told(steps, names, Answer.SILENT, "; ".join(sorted(last)))
    told = [(number, place) for number, place in enumerate(most) if place is not None]
    differ = _differing({name: row[-1] for name, row in phases.items()})
    learned = [number for number, place in told if place > RANDOM]
    if told[-1][1] <= RANDOM:
        back = ", after it had been beyond" if learned else ""
        return Told(steps, names, Answer.ONE_PHASE, f"at the end no eigenvalue is beyond noise{back}{differ}")
    still = [number for number, place in told if place <= RANDOM]
    if not still:
        return Told(steps, names, Answer.ONLY_SECOND, f"eigenvalues are beyond noise from the first look on{differ}")
    first = next(number for number in learned if number > still[-1])
    turn = Turn(float(steps[first]), float(steps[still[-1]]), float(steps[first]))
    return Told(steps, names, Answer.TURNS, f"it ends as {names[told[-1][0]]}{differ}", turn)


def _differing(last: Mapping[str, int | None]) -> str:
    """The matrices of a layer that are in different phases at the end."""
    known = {name: place for name, place in last.items() if place is not None}
    if len(set(known.values())) < 2:
        return ""
    return "; its matrices differ: " + ", ".join(f"{name} {STATED[place].name}" for name, place in known.items())
