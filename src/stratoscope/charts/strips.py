"""A phase timeline as rows of phases: what pictures, the terminal and pages draw from the record's group `timeline`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stratoscope.charts.numbers import format_number
from stratoscope.charts.thin import kept_evenly
from stratoscope.charts.values import FloatArray
from stratoscope.charts.variable import Variable, variables_of

if TYPE_CHECKING:
    from stratoscope.record.record import Record

NOTHING = "·"
"""The sign where a theory says nothing."""


@dataclass(frozen=True)
class Strip:
    """What one theory says of one layer, in signs.

    Attributes:
        layer: name of the layer.
        theory: name of the theory.
        letters: a sign for the phase at each of the timeline's `steps`, `NOTHING` where nothing is said.
        phases: its phases one after the other, each with the first step at which it is seen.
        turn: step at which the second phase begins; NaN where none was found.
        low: lower end of its 95 % interval.
        high: upper end.
        answer: what there is to say of a second phase, in a few words.
        reason: why there is none, or what the turn rests on.
    """

    layer: str
    theory: str
    letters: str
    phases: tuple[tuple[str, int], ...]
    turn: float
    low: float
    high: float
    answer: str
    reason: str

    @property
    def says(self) -> str:
        """In a line: where it turns, with the interval, or why it does not."""
        if np.isfinite(self.turn):
            return f"turns at {_step(self.turn)} ({_step(self.low)} to {_step(self.high)}); {self.reason}"
        return f"{self.answer}: {self.reason}" if self.reason else self.answer


@dataclass(frozen=True, eq=False)
class Strips:
    """A phase timeline.

    Attributes:
        steps: at which anything is said.
        layers: of which any theory says something, by depth.
        theories: that say something of any of them.
        phases: every phase that there is, the early ones of a theory first.
        letters: a sign for each phase.
        told_by: the theories that know each phase.
        families: all theories that know a phase, whether they say something here or not.
        codes: layers x theories x steps: a place in `phases`, or NaN.
        turns: layers x theories x 3: turn, and the ends of its interval.
        answers: layers x theories: what there is to say of a second phase; empty where a theory did not look.
        reasons: layers x theories: why.
        silent: how many layers were looked at, and no theory names a phase of them.
    """

    steps: tuple[int, ...]
    layers: tuple[str, ...]
    theories: tuple[str, ...]
    phases: tuple[str, ...]
    letters: tuple[str, ...]
    told_by: tuple[tuple[str, ...], ...]
    families: tuple[str, ...]
    codes: FloatArray
    turns: FloatArray
    answers: tuple[tuple[str, ...], ...]
    reasons: tuple[tuple[str, ...], ...]
    silent: int = 0

    def shown(self, columns: int | None = None) -> tuple[int, ...]:
        """The steps that have a column, where there is room for so many; the first and the last always have one."""
        kept = kept_evenly(len(self.steps), max(columns or len(self.steps), 1))
        return tuple(self.steps[place] for place in kept)

    def rows(self, columns: int | None = None) -> Iterator[Strip]:
        """What each theory says of each layer that it looked at, layer by layer.

        Args:
            columns: room for signs; by default one for each step.
        """
        kept = kept_evenly(len(self.steps), max(columns or len(self.steps), 1))
        for row, layer in enumerate(self.layers):
            for column, theory in enumerate(self.theories):
                if not self.answers[row][column]:
                    continue
                codes, (turn, low, high) = self.codes[row, column], self.turns[row, column]
                letters = "".join(NOTHING if np.isnan(code) else self.letters[int(code)] for code in codes[kept])
                yield Strip(
                    layer, theory, letters, self._runs(codes), float(turn), float(low), float(high),
                    self.answers[row][column], self.reasons[row][column],
                )  # fmt: skip

    def legend(self) -> Iterator[tuple[str, tuple[tuple[str, str], ...]]]:
        """For each theory, the signs and names of its phases that occur."""
        for column, theory in enumerate(self.theories):
            seen = np.unique(self.codes[:, column][~np.isnan(self.codes[:, column])]).astype(int)
            yield theory, tuple((self.letters[code], self.phases[code]) for code in seen)

    def sayings(self) -> Iterator[str]:
        """A sentence for each theory: in which phases the layers end."""
        for column, theory in enumerate(self.theories):
            last = self.codes[:, column, -1]
            ends = Counter(self.phases[int(code)] for code in last[~np.isnan(last)])
            if ends:
                said = ", ".join(f"{name} ({count})" for name, count in ends.most_common())
                turned = int(np.isfinite(self.turns[:, column, 0]).sum())
                asked = sum(bool(own[column]) for own in self.answers) or len(self.layers)
                yield f"By {theory}, layers end in {said}; {turned or 'none'} of {asked} turned."

    def _runs(self, codes: FloatArray) -> tuple[tuple[str, int], ...]:
        keys = np.where(np.isnan(codes), -1, codes).astype(int)
        starts = np.flatnonzero(np.diff(keys, prepend=-2))
        return tuple((self.phases[keys[at]] if keys[at] >= 0 else "", self.steps[at]) for at in starts)


def timeline_of(record: Record, key: str = "timeline") -> Strips | None:
    """The phase timeline of a record; `None` where there is none, or no theory names a phase.

    Args:
        record: finished or still being written.
        key: of the group.
    """
    phase = variables_of(record, key).get("phase") if key in record else None
    fits = phase is not None and phase.dims == ("layer", "theory") and phase.meanings
    return strips_of(phase) if phase is not None and fits else None


def strips_of(variable: Variable) -> Strips | None:
    """A phase timeline from its variable `phase`; `None` where no theory names a phase."""
    layers, theories = ([str(label) for label in along] for along in variable.labels)
    codes = np.where(variable.measured, variable.values, np.nan)[:, 0].transpose(1, 2, 0)
    there = ~np.isnan(codes)
    if not there.any():
        return None
    rows, columns, steps = (np.flatnonzero(there.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1)))
    told_by = tuple(tuple(map(str, names)) for names in variable.attrs.get("told_by", ()))
    names = variable.meanings
    told_by = told_by if len(told_by) == len(names) else (tuple(theories),) * len(names)
    letters = tuple(map(str, variable.attrs.get("letters", ())))
    taken = np.ix_(rows, columns)
    return Strips(
        steps=tuple(variable.steps[place] for place in steps),
        layers=tuple(layers[row] for row in rows),
        theories=tuple(theories[column] for column in columns),
        phases=names,
        letters=letters if len(letters) == len(names) else tuple(name[:1] for name in names),
        told_by=told_by,
        families=tuple(dict.fromkeys(theory for own in told_by for theory in own)),
        codes=codes[np.ix_(rows, columns, steps)],
        turns=np.stack([_last(variable, name)[taken] for name in ("turn", "turn_low", "turn_high")], axis=-1),
        answers=_texts(variable, "answer", taken),
        reasons=_texts(variable, "reason", taken),
        silent=len(layers) - len(rows),
    )


def _last(variable: Variable, name: str) -> FloatArray:
    """Layers x theories of another variable of the group, in the same order; NaN where it has none."""
    shape = tuple(len(along) for along in variable.labels)
    other = variable.companions.get(name)
    found = np.full(shape, np.nan)
    if other is None or other.dims != variable.dims:
        return found
    last = other.values[-1, 0]
    places = [{str(label): place for place, label in enumerate(along)} for along in other.labels]
    for where in np.ndindex(*shape):
        at = [own.get(str(along[place])) for own, along, place in zip(places, variable.labels, where, strict=True)]
        if None not in at:
            found[where] = last[tuple(at)]
    return found


def _texts(variable: Variable, name: str, taken: tuple[np.ndarray, ...]) -> tuple[tuple[str, ...], ...]:
    meanings = variable.companions[name].meanings if name in variable.companions else ()
    return tuple(
        tuple(meanings[int(code)] if 0 <= code < len(meanings) else "" for code in row)
        for row in _last(variable, name)[taken]
    )


def _step(value: float) -> str:
    return format_number(round(value))
