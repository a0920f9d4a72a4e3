"""Frames on their way to disk, and what can be said to be there."""

from __future__ import annotations

import threading
import time

from stratoscope.errors import RecordError
from stratoscope.record.statements import Frame


class Buffer:
    """Frames that wait to be written. Adding one never waits for the disk."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.nbytes = 0
        self.closed = False
        self._frames: list[Frame] = []
        self._since: float | None = None
        self._lowest: int | None = None  # of all that is not on disk: waiting, being written, or lost
        self._highest = -1  # of all that is on disk

    def close(self) -> None:
        """Take no more frames."""
        with self.changed:
            self.closed = True

    def add(self, frame: Frame) -> None:
        """Let a frame wait.

        Raises:
            RecordError: if the writer was closed.
        """
        with self.changed:
            if self.closed:
                raise RecordError("The writer of this record is closed; resume the run to go on.")
            self._frames.append(frame)
            self.nbytes += frame.nbytes
            self._note(frame.step)
            if self._since is None:
                self._since = time.monotonic()
                self.changed.notify_all()

    def take(self) -> list[Frame]:
        """All waiting frames, which count as not written until `settle`. One taker at a time."""
        with self.changed:
            frames, self._frames = self._frames, []
            self.nbytes, self._since = 0, None
            return frames

    def give_back(self, frames: list[Frame]) -> None:
        """Put frames that were taken but not written before those that came since."""
        with self.changed:
            self._frames = [*frames, *self._frames]
            self.nbytes += sum(frame.nbytes for frame in frames)
            if frames and self._since is None:
                self._since = time.monotonic()

    def settle(self, highest: int) -> None:
        """What was taken is on disk, and with it this step."""
        with self.changed:
            self._highest = max(self._highest, highest)
            self._lowest = min((frame.step for frame in self._frames), default=None)

    def lose(self, step: int) -> None:
        """What was taken, or given at this step, will never be on disk."""
        with self.changed:
            self._note(step)

    def age(self) -> float | None:
        """Seconds that the oldest frame has waited; `None` if none waits. Called with `changed` held."""
        return None if self._since is None else time.monotonic() - self._since

    @property
    def on_disk(self) -> int:
        """The highest step such that everything given so far for it and for earlier ones is on disk; -1 if none."""
        with self.changed:
            return self._highest if self._lowest is None else min(self._highest, self._lowest - 1)

    def start_from(self, highest: int) -> None:
        """What an earlier attempt left on disk."""
        with self.changed:
            self._highest = highest

    def _note(self, step: int) -> None:
        self._lowest = step if self._lowest is None else min(self._lowest, step)
