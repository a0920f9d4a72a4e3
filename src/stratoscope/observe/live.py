"""A watched training as its loop sees it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import TYPE_CHECKING, Self, final

from stratoscope.errors import RecordError
from stratoscope.observe.advice import Advice

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from stratoscope.record.record import Record


class Watch(ABC):
    """A watched training; made by `watch`, used in a `with`.

    Step k is the network after k updates; step 0 is the network before training, measured on entry. A loop that counts
    from 0 may hand over its own count: if the first step it names is 0, every step is recorded one higher.
    """

    @abstractmethod
    def __enter__(self) -> Self: ...

    @abstractmethod
    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None: ...

    @abstractmethod
    def step(
        self,
        i: int | None = None,
        *,
        loss: Tensor | float | None = None,
        epoch: float | None = None,
        tokens: float | None = None,
    ) -> None:
        """Say that an optimizer step is done.

        Args:
            i: the loop's count of steps; counted here where it is left out.
            loss: the mini-batch loss.
            epoch: passes over the training data so far.
            tokens: tokens seen so far in the whole training, a whole number; examples, where those are what counts.

        Raises:
            SettingError: if the count of steps or tokens goes backwards, tokens are no count, or the loss or the epoch
                is not one number.
            RecordError: if the watch has ended.
        """

    @abstractmethod
    def log(self, name: str, value: Tensor | float) -> None:
        """Keep a number of your own at this step, in the record's group `logged`.

        Args:
            name: a variable name; anything but an empty string.
            value: a number.
        """

    @property
    @abstractmethod
    def committed(self) -> int:
        """The highest step that is safe: everything recorded at or before it survives `kill -9`."""

    @property
    @abstractmethod
    def spent(self) -> float:
        """Seconds spent on measuring so far."""

    @property
    @abstractmethod
    def share(self) -> float:
        """Time spent on measuring over the rest of the time."""

    @property
    @abstractmethod
    def summary(self) -> str:
        """What was measured and what that took, in a sentence."""

    @property
    @abstractmethod
    def record(self) -> Record:
        """The record, readable while it is written."""

    @property
    @abstractmethod
    def advice(self) -> Advice:
        """What the record says by now: issues and tips, and when to stop for transfer.

        It is worked out when it is asked for, from the record until the last full measurement, and kept until the next
        one; the time that takes counts as spent on measuring.

        Raises:
            RecordError: if the watch has not begun.
        """

    @property
    @abstractmethod
    def best_transfer(self) -> Path | None:
        """The weights that `best_transfer=` kept, once training has ended; `None` before, and where there are none."""


@final
class SilentWatch(Watch):
    """The watch of every process but the first in a distributed training: it does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        return

    def step(
        self,
        i: int | None = None,
        *,
        loss: Tensor | float | None = None,
        epoch: float | None = None,
        tokens: float | None = None,
    ) -> None:
        """Nothing: the first process records."""

    def log(self, name: str, value: Tensor | float) -> None:
        """Nothing: the first process records."""

    @property
    def committed(self) -> int:
        """-1: nothing is recorded here."""
        return -1

    @property
    def spent(self) -> float:
        """0: nothing is measured here."""
        return 0.0

    @property
    def share(self) -> float:
        """0: nothing is measured here."""
        return 0.0

    @property
    def summary(self) -> str:
        """That nothing is measured here."""
        return "the first process measures"

    @property
    def record(self) -> Record:
        """There is none.

        Raises:
            RecordError: always.
        """
        raise RecordError("The first process keeps the record of this training; open it there.")

    @property
    def advice(self) -> Advice:
        """None: nothing is measured here."""
        return Advice()

    @property
    def best_transfer(self) -> Path | None:
        """`None`: the first process keeps weights."""
        return None
