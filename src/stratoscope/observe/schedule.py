"""When to look: at steps spaced evenly in the logarithm, or every so many, and only as often as the budget allows."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

PACE_FROM = 5
"""Steps after which the length of a training can be told from the time that they took."""

PACE_OF = 64
"""So many of the last steps tell how long a step takes."""


@dataclass
class Schedule:
    """Says at which steps a measurement is due.

    Attributes:
        every: steps between measurements; log-spaced where it is `None`.
        per_decade: measurements in each decade of steps, when log-spaced.
        steps: of the whole training, where they are known.
    """

    every: int | None = None
    per_decade: int = 10
    steps: int | None = None
    _last: int = 0
    _next: int = 1

    def due(self, step: int, rounds: float = math.inf) -> bool:
        """Whether a measurement is due at this step. A due one that could not be afforded stays due.

        Args:
            step: of the training.
            rounds: measurements that can be afforded before the last step. Where the length of the training is known and
                they are fewer than are due, they are spread over what is left of it, as evenly as all would be.
        """
        return step >= max(self._next, self._spread(rounds))

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
        self._last = step
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

    def left(self, step: int) -> float:
        """How many more measurements could be due up to the last step; infinity where that is not known."""
        if self.steps is None:
            return math.inf
        ahead = max(0, self.steps - step)
        if self.every is not None:
            return ahead / self.every + 1
        return min(ahead, self.per_decade * math.log10(max(self.steps, step, 1) / max(step, 1))) + 1

    def _spread(self, rounds: float) -> float:
        """The step of the first of so many measurements, spread from the last one to the end of the training."""
        if self.steps is None or math.isinf(rounds) or self._last >= self.steps:
            return 0
        if rounds < 1:
            return self.steps
        parts = math.floor(rounds) + 1
        if self.every is not None:
            return self._last + (self.steps - self._last) / parts
        first = max(self._last, 1)
        # a hair early, so that rounding makes no measurement late
        return math.exp(math.log(first) + math.log(self.steps / first) / parts) - 1e-6


@dataclass
class Budget:
    """Keeps the share of time that measuring takes under a limit.

    The share is time spent over the rest of the elapsed time, so 0.05 means: training takes at most 5 % longer.

    Attributes:
        share: the limit; infinity for none.
        steps: of the whole training, where they are known; then what it will earn can be spent before.
        spent: seconds spent so far, apart from those within the optimizer's steps.
        within_steps: seconds spent within the optimizer's steps.
        before: seconds of training of earlier attempts at the same run.
    """

    share: float
    steps: int | None = None
    spent: float = 0.0
    within_steps: float = 0.0
    before: float = 0.0
    _paces: list[float] = field(default_factory=list)
    _at: tuple[int, float] | None = None

    def add(self, seconds: float) -> None:
        """Note time spent."""
        self.spent += seconds

    @property
    def total(self) -> float:
        """Seconds spent so far, within the optimizer's steps and apart from them."""
        return self.spent + self.within_steps

    def training(self, elapsed: float) -> float:
        """Seconds of training in so many seconds that have passed; never below 0."""
        return max(0.0, elapsed - self.total)

    def used(self, elapsed: float) -> float:
        """The share that has been used after so many seconds in all."""
        training = self.training(elapsed)
        return self.total / training if training > 0 else math.inf

    def passed(self, step: int, elapsed: float) -> None:
        """Note that a step is done: how long steps take tells how long the training will."""
        now = self.training(elapsed)
        if self._at is not None and step > self._at[0]:
            self._paces.append((now - self._at[1]) / (step - self._at[0]))
            del self._paces[:-PACE_OF]
        self._at = (step, now)

    def earned(self, elapsed: float) -> float:
        """Seconds that may have been spent after so many seconds in all.

        Where the number of steps is known, those are counted, too, that the rest of the training will pay for, at the
        pace of the median of the last steps.
        """
        return self.share * (self.training(elapsed) + self._ahead())

    def allows_step(self, elapsed: float, part: float) -> bool:
        """Whether to record one more step, if this part of the share is for that."""
        return math.isinf(self.share) or self.within_steps <= part * self.share * self.training(elapsed)

    def _ahead(self) -> float:
        if self.steps is None or self._at is None or len(self._paces) < PACE_FROM:
            return 0.0
        return max(0, self.steps - self._at[0]) * median(self._paces)


def median(numbers: Iterable[float]) -> float:
    """The middle one, or the lower of the two in the middle.

    >>> median([3.0, 1.0, 2.0, 100.0])
    2.0
    """
    ordered = sorted(numbers)
    return ordered[(len(ordered) - 1) // 2]
