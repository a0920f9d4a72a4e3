"""Where theories agree on when a layer turns, and where they do not: from saved numbers alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from stratoscope.diagnoses.theories.along import place_of
from stratoscope.diagnoses.theories.base import Answer, Turn
from stratoscope.diagnoses.theories.registry import theories
from stratoscope.findings import Evidence, Finding, Outcome
from stratoscope.instruments.reading import some

if TYPE_CHECKING:
    import xarray as xr

    from stratoscope.diagnoses.timeline import Timeline
    from stratoscope.record.group import Group

_DO = (
    "name the theory when you speak of a phase; where it matters, measure more often around the turn (every= of watch) "
    "and repeat the training with other seeds"
)


@dataclass(frozen=True)
class Saying:
    """What one theory says of one layer, as it was saved."""

    theory: str
    answer: Answer
    turn: Turn
    p_value: float
    points: int
    reason: str
    named: tuple[int, ...]

    @property
    def words(self) -> str:
        """As a part of a sentence."""
        cls = theories().get(self.theory)
        title = cls.title if cls else self.theory
        if self.answer is Answer.TURNS:
            at, low, high = (f"{number:,.0f}" for number in self.turn)
            span = f" ({low} to {high})" if low != high else ""
            return f"{cls.turning if cls else f'{title} turns'} at step {at}{span}"
        if self.answer is Answer.ONE_PHASE:
            return f"{title} finds no second phase"
        if self.answer is Answer.ONLY_SECOND:
            return f"{title} shows its second phase only"
        return f"{title} says nothing"

    @property
    def numbers(self) -> dict[str, Evidence]:
        """As evidence."""
        named: dict[str, Evidence] = {f"{self.theory}_answer": self.answer.meaning}
        if self.answer is Answer.TURNS:
            ends = zip(("turn", "low", "high"), self.turn, strict=True)
            named |= {f"{self.theory}_{end}": float(value) for end, value in ends}
        if not np.isnan(self.p_value):
            named[f"{self.theory}_p"] = self.p_value
        return named


@dataclass(frozen=True)
class Agreement:
    """What all theories say of all layers.

    Attributes:
        step: the last one of the record.
        layers: for each layer, what each theory that looked at it says.
        looked_at: the data split that each theory looked at, where it needs data.
    """

    step: int
    layers: Mapping[str, tuple[Saying, ...]]
    looked_at: Mapping[str, str]

    @classmethod
    def of(cls, made: Timeline, measured: Group) -> Agreement:
        """Read it from the group."""
        del made
        if "answer" not in measured:
            return cls(0, {}, {})
        last = {name: measured[name].isel(step=-1) for name in measured if name != "phase"}
        answer = last["answer"]
        named = _named(measured)
        layers: dict[str, tuple[Saying, ...]] = {}
        for layer in map(str, answer.coords["layer"].values):
            sayings = [_saying(last, named, layer, str(theory)) for theory in answer.coords["theory"].values]
            layers[layer] = tuple(one for one in sayings if one is not None)
        looked = answer.attrs.get("looked_at", {})
        return cls(int(measured["answer"].coords["step"].values[-1]), layers, dict(looked))

    def findings(self, made: Timeline) -> Iterator[Finding]:
        """Every code, once at most a theory."""
        if not self.layers:
            return
        apart = {layer: self._gap(layer) for layer in self.layers}
        told = {layer: gap for layer, gap in apart.items() if gap > made.apart}
        yield from self._turns(made, apart, told)
        yield from self._missing(made, told)
        for theory in dict.fromkeys(one.theory for own in self.layers.values() for one in own):
            yield from self._of_theory(made, theory, Answer.ONE_PHASE)
            yield from self._of_theory(made, theory, Answer.SILENT)

    # -- turns --------------------------------------------------------------------------------------------------------

    def _gap(self, layer: str) -> float:
        """The most doublings between the intervals of two turns; NaN with fewer than two, below 0 where all meet."""
        turns = [one.turn for one in self.layers[layer] if one.answer is Answer.TURNS]
        ends = [place_of([max(a.low, b.low), min(a.high, b.high)]) for a, b in combinations(turns, 2)]
        return max((float(low - high) for low, high in ends), default=float("nan"))

    def _turns(self, made: Timeline, apart: Mapping[str, float], told: Mapping[str, float]) -> Iterator[Finding]:
        compared = [layer for layer, gap in apart.items() if not np.isnan(gap)]
        if told:
            most = max(told, key=lambda layer: told[layer])
            numbers: dict[str, Evidence] = {"gap_in_doublings": told[most], "limit": made.apart}
            yield self._disagree(made, "TL001", list(told), most, len(compared), numbers)
        elif compared:
            first, many = compared[0], len(compared) > 1
            where = f"At all {len(compared)} layers with two turns their intervals meet; at" if many else "At"
            yield self._say(
                made, "TL001", Outcome.PASSED, f"{where} {first} {self._sentence(first)}", "" if many else first,
                {"layers": ", ".join(compared), "gap_in_doublings": max(apart[layer] for layer in compared)},
                limit=made.apart,
            )  # fmt: skip

    def _missing(self, made: Timeline, told: Mapping[str, float]) -> Iterator[Finding]:
        """One theory turns, and another was measured beyond that turn and finds nothing."""
        after = {layer: self._after(sayings) for layer, sayings in self.layers.items()}
        compared = [layer for layer, steps in after.items() if steps is not None]
        found = {
            layer: steps
            for layer, steps in after.items()
            if steps is not None and layer not in told and steps >= max(made.after, 0)
        }
        if found:
            most = max(found, key=lambda layer: found[layer])
            numbers: dict[str, Evidence] = {"steps_after": found[most], "limit": made.after, "level": made.level}
            yield self._disagree(made, "TL002", list(found), most, len(compared), numbers)
        elif compared and not told:
            says = f"Not seen: {made.codes['TL002']}; at {compared[0]} {self._sentence(compared[0])}"
            yield self._say(
                made, "TL002", Outcome.PASSED, says, "", {"layers": ", ".join(compared)}, limit=made.after
            )  # fmt: skip

    @staticmethod
    def _after(sayings: Sequence[Saying]) -> int | None:
        """At how many steps after a turn a theory was measured that finds none; `None` with nothing to compare."""
        turning = [one for one in sayings if one.answer is Answer.TURNS]
        others = [one for one in sayings if one.answer is Answer.ONE_PHASE]
        if len(turning) + len(others) < 2:
            return None
        steps = [sum(step > one.turn.high for step in other.named) for one in turning for other in others]
        return max(steps, default=-1)

    def _disagree(
        self, made: Timeline, code: str, layers: list[str], most: str, of: int, numbers: Mapping[str, Evidence]
    ) -> Finding:
        """One finding for all layers of which it holds, told by the one where it is clearest."""
        says = f"At {most} {self._sentence(most)}"
        many: dict[str, Evidence] = {}
        if len(layers) > 1:
            says = (
                f"At {len(layers)} of {of} layers theories disagree ({some(layers)}); at {most} {self._sentence(most)}"
            )
            many = {"layers": ", ".join(layers), "count": len(layers), "of": of, "most": most}
        own = {name: value for one in self.layers[most] for name, value in one.numbers.items()}
        where = "" if len(layers) > 1 else most
        return self._say(made, code, Outcome.TIP, says, where, {**numbers, **many, **own}, do=_DO)

    def _say(
        self,
        made: Timeline,
        code: str,
        outcome: Outcome,
        says: str,
        layer: str,
        numbers: Mapping[str, Evidence],
        *,
        do: str = "",
        **more: Evidence,
    ) -> Finding:
        said = made.finding(code, outcome, says, layer=layer or None, step=self.step, do=do)
        splits = {f"{theory}_split": split for theory, split in self.looked_at.items()}
        return replace(said, evidence={**numbers, **more, **splits})

    def _sentence(self, layer: str) -> str:
        return ", ".join(one.words for one in self.layers[layer] if one.answer is not Answer.SILENT)

    # -- what one theory does not find ----------------------------------------------------------------------------------

    def _of_theory(self, made: Timeline, theory: str, answer: Answer) -> Iterator[Finding]:
        """The layers at which one theory finds no second phase, or says nothing, and why."""
        own = {layer: one for layer, sayings in self.layers.items() for one in sayings if one.theory == theory}
        where = [layer for layer, one in own.items() if one.answer is answer]
        if not where:
            return
        reason, count = Counter(own[layer].reason for layer in where).most_common(1)[0]
        first = next(layer for layer in where if own[layer].reason == reason)
        words = own[first].words
        at = f"at {first}" if len(where) == 1 else f"at {len(where)} of {len(own)} layers ({some(where)})"
        for_one = "" if count == len(where) else f"{first}: "
        code, outcome = (
            ("TL004", Outcome.SKIPPED) if answer is Answer.SILENT else ("TL003", Outcome.PASSED)
        )  # fmt: skip
        numbers: dict[str, Evidence] = {
            "theory": theory,
            "layers": ", ".join(where),
            "count": len(where),
            "of": len(own),
        }
        says = f"{words[0].upper()}{words[1:]} {at}: {for_one}{reason}"
        said = self._say(made, code, outcome, says, first if len(where) == 1 else "", numbers, level=made.level)
        yield replace(said, split=self.looked_at.get(theory))


def _named(measured: Group) -> dict[tuple[str, str], tuple[int, ...]]:
    """The steps at which each theory names a phase of each layer."""
    if "phase" not in measured:
        return {}
    array = measured["phase"].transpose("step", "layer", "theory")
    there = measured.measured("phase").transpose("step", "layer", "theory").values & ~np.isnan(
        array.values.astype(float)
    )
    steps = array.coords["step"].values
    labels = [[str(label) for label in array.coords[dim].values] for dim in ("layer", "theory")]
    return {
        (layer, theory): tuple(int(step) for step in steps[there[:, i, j]])
        for i, layer in enumerate(labels[0])
        for j, theory in enumerate(labels[1])
    }


def _saying(
    last: Mapping[str, xr.DataArray], named: Mapping[tuple[str, str], tuple[int, ...]], layer: str, theory: str
) -> Saying | None:
    """`None` where the theory did not look at the layer."""

    def read(name: str) -> float:
        return float(last[name].sel(layer=layer, theory=theory)) if name in last else float("nan")

    if np.isnan(read("answer")):
        return None
    reasons = last["reason"].attrs["flag_meanings"]
    turn = Turn(read("turn"), read("turn_low"), read("turn_high"))
    return Saying(
        theory, Answer(int(read("answer"))), turn, read("turn_p"), int(read("points")), str(reasons[int(read("reason"))]),
        named.get((layer, theory), ()),
    )  # fmt: skip
