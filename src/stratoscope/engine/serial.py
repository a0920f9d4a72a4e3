"""One task after the other, in this process: for debugging, and where a task takes the whole machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from stratoscope.engine.task import Result, Task, perform


@dataclass(frozen=True)
class Serial:
    """Does tasks here and now."""

    def run(self, tasks: Sequence[Task]) -> Iterator[Result]:
        """Each result as it is there."""
        yield from map(perform, tasks)
