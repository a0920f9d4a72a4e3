"""What a theory of phases is: a rule from what one instrument measured of a layer to the phase that it is in at each step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
from jaxtyping import Float

from stratoscope.network.layers import ROOT
from stratoscope.network.subject import TRANSFER
from stratoscope.numerics.phases import PLACES, Phases, phases

if TYPE_CHECKING:
    from dataclasses import Field

    from stratoscope.record.group import Group
    from stratoscope.record.record import Record

FEWEST = PLACES
"""Measured steps of a curve below which no phase is named."""

TRAIN = "train"


class Phase(NamedTuple):
    """One phase of a theory.

    Attributes:
        name: as people call it.
        letter: the sign for it where there is room for one only.
        meaning: what is seen there.
    """

    name: str
    letter: str
    meaning: str


FLAT = Phase("flat", "-", "is not shown to move")
"""The same for every theory that looks at a curve."""


class Answer(IntEnum):
    """What a theory has to say of a layer."""

    SILENT = 0
    ONE_PHASE = 1
    TURNS = 2
    ONLY_SECOND = 3

    @property
    def meaning(self) -> str:
        """In words."""
        return ("says nothing", "no second phase found", "second phase found", "only the second phase seen")[self]


class Turn(NamedTuple):
    """Where the second phase begins: a step, and the ends of its 95 % interval."""

    at: float
    low: float
    high: float


@dataclass(frozen=True)
class Told:
    """What a theory says of one layer.

    Attributes:
        steps: where it looked, ascending.
        phases: the name of the phase from each of these steps to the next; `""` where it says nothing.
        answer: whether there is a second phase.
        reason: why there is none, or why it says nothing; else what the turn rests on.
        turn: where the second phase begins, if it does.
        p_value: of the turn, or of the first one that was refused; NaN where no test was made.
        until: the last step of which the last phase still holds; by default the last of `steps`.
        columns: the steps of the record to show it at where no other theory has any; by default `steps`.
    """

    steps: tuple[int, ...]
    phases: tuple[str, ...]
    answer: Answer
    reason: str
    turn: Turn | None = None
    p_value: float = float("nan")
    until: int | None = None
    columns: tuple[int, ...] = ()

    @property
    def points(self) -> int:
        """At how many steps it names a phase."""
        return sum(bool(phase) for phase in self.phases)

    def at(self, steps: Sequence[int]) -> list[str]:
        """The phase at other steps: that of the last step before at which it looked, and none after the last."""
        if not self.steps:
            return [""] * len(steps)
        places = np.searchsorted(self.steps, steps, side="right") - 1
        last = self.steps[-1] if self.until is None else self.until
        return [
            self.phases[place] if place >= 0 and step <= last else "" for place, step in zip(places, steps, strict=True)
        ]


@dataclass(frozen=True)
class Asked:
    """What a theory may look at, and how it is to look.

    Attributes:
        group: of the instrument that it reads.
        owners: the layer of each param and matrix.
        weights: params that matrices are made of; empty where the record does not say.
        split: the data split to look at; `None` for the first one that is not training data.
        level: share of curves without a second phase in which one may be found.
        resamples: draws of each test and interval.
        seed: of the draws; every curve gets the same ones, so that equal curves get equal answers.
    """

    group: Group
    owners: Mapping[str, str] = field(default_factory=dict)
    weights: frozenset[str] = frozenset()
    split: str | None = None
    level: float = 0.05
    resamples: int = 400
    seed: int = 0
    _found: dict[Any, Phases] = field(default_factory=dict, repr=False, compare=False)

    def phases(self, x: Float[np.ndarray, " points"], y: Float[np.ndarray, " points"], least: float) -> Phases:
        """The phases of one curve; layers that hand on what they get have the same one, which is worked out once.

        Args:
            x: places, ascending.
            y: values.
            least: a change of less than this does not count.
        """
        key = (x.tobytes(), y.tobytes(), least)
        if key not in self._found:
            generator = np.random.default_rng(self.seed)
            self._found[key] = phases(
                x, y, level=self.level, least=least, resamples=self.resamples, generator=generator
            )
        return self._found[key]

    def split_of(self, name: str) -> str:
        """The split of a variable to look at: the one asked for, else held-out data of the same task, else the first."""
        array = self.group[name]
        if "split" not in array.dims:
            return ""
        splits = [str(split) for split in array.coords["split"].values]
        if self.split in splits:
            return str(self.split)
        own = [split for split in splits if split != TRANSFER] or splits
        return next((split for split in own if split != TRAIN), own[0])

    def owner(self, name: str) -> str:
        """The layer of a param or a matrix; by its name where the record does not say."""
        return self.owners.get(name) or name.partition(":")[0].rpartition(".")[0] or name


class Theory(ABC):
    """One theory of how learning goes in phases. Subclass it as a frozen dataclass, whose fields are its settings.

    Attributes:
        key: short name; a label of the dim `theory`.
        title: name for people, as it stands in a sentence: `"the information plane"`.
        source: arXiv id or DOI.
        reads: key of the instrument whose group it looks at.
        stated: its phases, the early ones first.
        turning: what happens at its turn, as it stands in a sentence after the layer's name.
        order: place among the others; those with the same in order of their keys.
        dense: whether it looks at so many steps that they make no columns of a timeline where others have theirs.
    """

    key: ClassVar[str]
    title: ClassVar[str]
    source: ClassVar[str]
    reads: ClassVar[str]
    stated: ClassVar[tuple[Phase, ...]]
    turning: ClassVar[str]
    order: ClassVar[int] = 100
    dense: ClassVar[bool] = False

    if TYPE_CHECKING:
        __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @abstractmethod
    def tell(self, asked: Asked) -> dict[str, Told]:
        """What it says of each layer that was measured, silence with its reason among it.

        Args:
            asked: the numbers, and how to look at them.
        """

    def looked_at(self, asked: Asked) -> str:
        """The data split that it looks at; empty where it needs no data."""
        del asked
        return ""


def owners_of(record: Record) -> dict[str, str]:
    """The layer of each param and matrix of a record."""
    return {
        str(part["name"]): row.name
        for row in record.layers
        for part in (*row.spec.get("params", ()), *row.spec.get("matrices", ()))
    }


def weights_of(record: Record) -> frozenset[str]:
    """The params of a record that weight matrices are made of."""
    return frozenset(str(name) for row in record.layers for m in row.spec.get("matrices", ()) for name in m["params"])


def in_order(record: Record, names: Sequence[str]) -> list[str]:
    """Layers in the order of the record; the whole network only where it is all that there is."""
    known = [row.name for row in record.layers]
    place = {name: number for number, name in enumerate(known)}
    ordered = sorted(dict.fromkeys(names), key=lambda name: place.get(name, len(known)))
    return [name for name in ordered if name != ROOT] or ordered
