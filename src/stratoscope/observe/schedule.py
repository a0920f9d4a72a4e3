"""When to look: at steps spaced evenly in the logarithm, or every so many, and only as often as the budget allows."""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass
class Schedule:
    """Says at which steps a full measurement is due.

    Attributes:
        every: steps between measurements; log-spaced where it is `None`.
        per_decade: measurements in each decade of steps, when log-spaced.
    """

    every: int | None = None
    per_decade: int = 10
    _next: int = 1

    def due(self, step: int) -> bool:
        """Whether a measurement is due at this step. A due one that could not be afforded stays due."""
        return step >= self._next

    def done(self, step: int) -> None:
        """A measurement was made; the next one comes later.

        >>> schedule, steps = Schedule(per_decade=3), []
        >>> for step in range(1, 101):
        ...     if schedule.due(step):
        ...         schedule.done(step)
        ...         steps.append(step)
        >>> steps
        [1, 3, 5, 10, 22, 47, 100]
        """
        if self.every is not None:
            self._next = step + self.every
            return
        if step < 1:
            self._next = 1
            return
        place = math.floor(round(math.log10(step) * self.per_decade, 9)) + 1
        while (coming := math.ceil(round(10 ** (place / self.per_decade), 6))) <= step:
            place += 1
        self._next = coming


@dataclass
class Budget:
    """Keeps the share of time that measuring takes under a limit.

    The share is time spent over the rest of the elapsed time, so 0.05 means: training takes at most 5 % longer.

    Attributes:
        share: the limit; infinity for none.
        spent: seconds spent so far, apart from those within the optimizer's steps.
        within_steps: seconds spent within the optimizer's steps.
        costs: seconds of every full measurement so far.
    """

    share: float
    spent: float = 0.0
    within_steps: float = 0.0
    costs: list[float] = field(default_factory=list)

    def add(self, seconds: float, full: bool = False) -> None:
        """Note time spent; `full` for a full measurement, whose cost predicts the next one's."""
        self.spent += seconds
        if full:
            self.costs.append(seconds)

    @property
    def next_cost(self) -> float:
        """What the next full measurement is expected to take, in seconds.

        The first one pays for imports and caches, so half of it is expected until a second one is known.
        """
        if len(self.costs) < 2:
            return 0.5 * sum(self.costs)
        return min(self.costs[1:][-3:])

    def used(self, elapsed: float) -> float:
        """The share that has been used after so many seconds in all."""
        training = self._training(elapsed)
        return (self.spent + self.within_steps) / training if training > 0 else math.inf

    def affords(self, elapsed: float) -> bool:
        """Whether the next full measurement is within the share."""
        cost = self.spent + self.within_steps + self.next_cost
        return math.isinf(self.share) or cost <= self.share * self._training(elapsed)

    def allows_step(self, elapsed: float) -> bool:
        """Whether to record one more step; half of the share is left to full measurements."""
        return math.isinf(self.share) or self.within_steps <= 0.5 * self.share * max(self._training(elapsed), 0.0)

    def _training(self, elapsed: float) -> float:
        return elapsed - self.spent - self.within_steps
