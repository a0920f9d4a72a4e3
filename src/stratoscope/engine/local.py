"""Several processes of this machine, by joblib: one thread each."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import cache

from stratoscope.engine.task import FAILED, Result, Task, end, is_running, perform, sentence_of

MEMORY = 2 << 30
"""Bytes of the machine's memory that each process is left, where their number is not given."""


@dataclass(frozen=True)
class Local:
    """Does tasks in processes of their own.

    A process that is killed (most often for want of memory) takes no other task with it: those that were begun are
    tried once more, each alone, and the one that is killed again has failed.

    Attributes:
        workers: how many; by default as many as there are cores, and as memory allows.
    """

    workers: int | None = None

    def run(self, tasks: Sequence[Task]) -> Iterator[Result]:
        """Each result as it is there, in no order."""
        left = {task.folder: task for task in tasks}
        while left:
            try:
                for result in _in_processes(list(left.values()), self.workers or workers_here()):
                    del left[result.folder]
                    yield result
            except BrokenProcessPool:
                suspects = [task for task in left.values() if is_running(task)]
                for task in suspects or list(left.values()):
                    del left[task.folder]
                    yield _by_itself(task)


def _in_processes(tasks: list[Task], workers: int) -> Iterator[Result]:
    from joblib import Parallel, delayed, parallel_config

    count = min(workers, len(tasks))
    with parallel_config(backend="loky", inner_max_num_threads=1):
        # with one process joblib would take ours; of two, of which only one is given work, none can take us with it
        pool = Parallel(max(count, 2), return_as="generator_unordered", batch_size=1, pre_dispatch=count)
        yield from pool(delayed(_perform_here)(task, os.getpid()) for task in tasks)


def _perform_here(task: Task, parent: int) -> Result:
    if os.getpid() != parent:  # inside another pool joblib may have stayed in this process
        _belong_to(parent)
    return perform(task)


@cache
def _belong_to(parent: int) -> None:
    """End with the process that began this one, also if it is killed, and let it answer for both to a Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    if os.getppid() != parent:
        os._exit(1)
    threading.Thread(target=watch, daemon=True).start()


def _by_itself(task: Task) -> Result:
    try:
        (result,) = _in_processes([task], 1)
    except BrokenProcessPool as error:
        killed = "its process was killed, as happens when memory runs out"
        return end(Result(task.spec, task.folder, FAILED, killed if is_running(task) else sentence_of(error)))
    return result


def workers_here() -> int:
    """How many processes this machine bears: its cores that we may use, and 2 GiB of memory for each."""
    from joblib import cpu_count

    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return int(cpu_count())
    return max(1, min(int(cpu_count()), memory // MEMORY))
