"""Who is measured at which step of a training: all at the first and the last, in between as the budget pays for."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from stratoscope.observe.costs import Costs
from stratoscope.observe.schedule import Budget, Schedule

DEAR = 3.0
"""An instrument that takes so many times what all cheaper ones take together does not hold them up."""

CONCLUDING = 0.5
"""What the conclusions at the end are expected to take, in full measurements, before it is known."""


AGAIN = 1e-3
"""The part of the time so far after which it is looked again whether what could not be afforded now can be."""


@dataclass(frozen=True)
class Party:
    """Instruments that are measured together, since none of them is dear beside the others.

    Attributes:
        names: of the instruments.
        leader: its name, in whose rounds they take part; their own where they are the cheapest of their cadence.
    """

    names: tuple[str, ...]
    leader: int


class Plan:
    """Chooses, within a budget, who is measured at a step.

    A step is due for an instrument by its own schedule. What may be spent is what training has earned, less what was
    spent, less what the last measurement of all instruments and the conclusions will take. Those that are due are
    measured together as soon as all of them can be afforded, since one pass serves them all. Instruments that are dear
    beside all cheaper ones form parties of their own, so that they hold nobody up: each party is entitled to an equal
    part of what was earned, and what one does not need is the others'. A dear party takes part in the rounds of the
    cheaper ones. So nobody starves, and one that no budget pays for is measured at the first and the last step.

    Args:
        names: of the instruments.
        budget: what may be spent, and what was.
        costs: what each instrument takes.
        every: steps between measurements; log-spaced where it is left out.
        cadence: the same for single instruments.
    """

    def __init__(
        self,
        names: Sequence[str],
        budget: Budget,
        costs: Costs,
        every: int | None = None,
        cadence: Mapping[str, int] | None = None,
    ) -> None:
        self._names, self._budget, self._costs = tuple(names), budget, costs
        self._cadence = dict.fromkeys(names, every) | dict(cadence or {})
        self._schedules = {name: Schedule(self._cadence[name], steps=budget.steps) for name in names}
        self._between = dict.fromkeys(names, 0.0)
        self._last = dict.fromkeys(names, -1)
        self._again = 0.0
        self.concluding: float | None = None

    def choose(self, step: int, elapsed: float) -> tuple[str, ...]:
        """Those to be measured at this step; often nobody.

        Args:
            step: of the training, from 1.
            elapsed: seconds that have passed since the training began to be watched.
        """
        due = [name for name in self._names if self._schedules[name].due(step) and self._last[name] < step]
        if not due or math.isinf(self._budget.share):
            return tuple(due)
        if elapsed < self._again:
            return ()
        room = self._budget.earned(elapsed) - self._budget.total - self.reserve
        chosen = self._afforded(step, room) if room > 0 else ()
        # to reckon at every step would itself take its time
        self._again = 0.0 if chosen else elapsed * (1 + AGAIN)
        return chosen

    def done(self, step: int, seconds: Mapping[str, float], *, planned: bool = True) -> None:
        """Note who was measured at a step.

        Args:
            step: of the training.
            seconds: what each of them took, their part of what is shared included.
            planned: whether they were chosen; the first and last measurement are not.
        """
        for name, value in seconds.items():
            self._schedules[name].done(step)
            self._last[name] = step
            if planned:
                self._between[name] += value

    def left(self, step: int) -> tuple[str, ...]:
        """Those that were not measured at this step."""
        return tuple(name for name in self._names if self._last[name] < step)

    @property
    def last(self) -> int:
        """The last step at which anybody was measured; -1 before the first."""
        return max(self._last.values(), default=-1)

    @property
    def reserve(self) -> float:
        """Seconds that are kept for the end: a measurement of all, and the conclusions."""
        full = self._costs.round(self._names)
        return full + (CONCLUDING * full if self.concluding is None else self.concluding)

    # -- inside -----------------------------------------------------------------------------------------------------

    def _afforded(self, step: int, room: float) -> tuple[str, ...]:
        parties = self._parties()
        claims = self._claims(parties, room, step)
        # those first that have waited longest
        order = sorted(range(len(parties)), key=lambda i: (parties[i].leader != i, self._oldest(parties[i].names)))
        waiting = {i: names for i in order if (names := self._due(parties[i], i, claims, room, step))}
        chosen: list[str] = []
        led: set[int] = set()
        for i, names in waiting.items():
            if parties[i].leader not in led | {i}:
                continue
            cost = self._costs.round([*chosen, *names]) - self._costs.round(chosen)
            claimed = sum(claims[other] for other in waiting if other != i and other not in led)
            if cost <= room - claimed:
                room -= cost
                led.add(i)
                chosen += names
        return tuple(name for name in self._names if name in chosen)

    def _parties(self) -> list[Party]:
        """Of each cadence, the cheap ones together, and then those that are dear beside them."""
        found: list[Party] = []
        for cadence in dict.fromkeys(self._cadence.values()):
            names = sorted((n for n in self._names if self._cadence[n] == cadence), key=self._costs.of)
            leader, so_far = len(found), self._costs.passing(names)
            parts: list[list[str]] = [[]]
            for name in names:
                if parts[-1] and self._costs.of(name) > DEAR * so_far:
                    parts.append([])
                parts[-1].append(name)
                so_far += self._costs.of(name)
            found += [Party(tuple(part), leader) for part in parts]
        return found

    def _claims(self, parties: Sequence[Party], room: float, step: int) -> list[float]:
        """Seconds that each party is still entitled to, as far as it has use for them."""
        spent = [sum(self._between[name] for name in party.names) for party in parties]
        equal = (room + sum(spent)) / len(parties)
        uses = [self._cost(party) * self._schedules[party.names[0]].left(step) for party in parties]
        return [max(0.0, min(equal - own, use)) for own, use in zip(spent, uses, strict=True)]

    def _due(self, party: Party, number: int, claims: Sequence[float], room: float, step: int) -> list[str]:
        own = room - sum(claims[:number]) - sum(claims[number + 1 :])
        cost = self._cost(party)
        rounds = own / cost if cost > 0 else math.inf
        due = [name for name in party.names if self._last[name] < step and self._schedules[name].due(step, rounds)]
        # the pass is paid for, so whoever would be due without a plan comes along
        return [n for n in party.names if n in due or (due and self._last[n] < step and self._schedules[n].due(step))]

    def _cost(self, party: Party) -> float:
        return self._costs.round(party.names)

    def _oldest(self, names: Iterable[str]) -> int:
        return min(self._last[name] for name in names)


def cadence_of(cadence: Mapping[str, int], groups: Collection[str]) -> dict[str, int]:
    """The cadence of each group of a record, from that of keys or groups.

    >>> cadence_of({"units": 5}, ["units:slope=0.1", "units:slope=0.2", "spectrum"])
    {'units:slope=0.1': 5, 'units:slope=0.2': 5}
    """
    return {group: cadence[key] for group in groups for key in (group.partition(":")[0], group) if key in cadence}
