"""Numbers that an accelerator has yet to work out, and what is to be done with them once they are there.

Asking a device for a number makes the CPU wait until everything before it is done: in a training that is waiting for the
step itself. So numbers are sent on their way, and looked at when they have arrived.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

T_co = TypeVar("T_co", covariant=True)

LONGEST = 1.0
"""Seconds after which numbers are waited for."""


class Coming(Generic[T_co]):
    """A value that is made of numbers which may still be on their way from a device.

    >>> Coming(torch.tensor([1.0, 2.0]), lambda numbers: float(numbers.sum())).get()
    3.0
    """

    def __init__(self, numbers: Tensor | NDArray[np.float64] | float, make: Callable[[Any], T_co]) -> None:
        """Send the numbers on their way.

        Args:
            numbers: any shape; a tensor may be on any device.
            make: makes the value of them, given as an array of float64, or as the float that they were.
        """
        self._make, self._event = make, None
        self._here: Any = numbers
        if not isinstance(numbers, Tensor):
            return
        # half precision has no NumPy form everywhere, and MPS has no float64
        wide = numbers.detach().to(torch.float64 if numbers.device.type != "mps" else torch.float32)
        # on a device, the copy is pinned, so the CPU does not wait for it
        self._here = wide.to("cpu", non_blocking=True)
        if numbers.device.type != "cpu":
            self._event = torch.Event(numbers.device)
            self._event.record(torch.accelerator.current_stream(numbers.device))

    def arrived(self) -> bool:
        """Whether the value can be had without waiting."""
        return self._event is None or bool(self._event.query())

    def get(self) -> T_co:
        """The value; waits for it."""
        if self._event is not None:
            self._event.synchronize()
        if isinstance(self._here, Tensor):
            self._here = np.asarray(self._here.numpy(), dtype=np.float64)
        return self._make(self._here)


class InOrder:
    """Does one thing after the other, each once the numbers that it needs have arrived."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[float, tuple[Coming[object], ...], Callable[[], None]]] = deque()

    def add(self, numbers: Sequence[Coming[object]], then: Callable[[], None]) -> None:
        """Do something when these numbers are there and all that was added before is done; at once if they are."""
        if not self._waiting and all([number.arrived() for number in numbers]):
            then()
            return
        self._waiting.append((time.monotonic(), tuple(numbers), then))
        self.settle()

    def settle(self, *, wait: bool = False) -> None:
        """Do what can be done without waiting, and what has waited for too long; or everything."""
        while self._waiting:
            since, needed, then = self._waiting[0]
            late = wait or time.monotonic() - since > LONGEST
            if not late and not all(number.arrived() for number in needed):
                return
            self._waiting.popleft()
            then()
