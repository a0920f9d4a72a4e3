"""Engines by name: `serial`, `local`, `local:4`, and those of other packages (entry points `stratoscope.engines`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from typing import Protocol

from stratoscope.engine.local import Local
from stratoscope.engine.serial import Serial
from stratoscope.engine.task import Result, Task, finished
from stratoscope.errors import SettingError

ENTRY_POINTS = "stratoscope.engines"

Progress = Callable[[str, int, int], None]
"""Told `(what, done, total)`."""


class Engine(Protocol):
    """Does tasks, somewhere."""

    def run(self, tasks: Sequence[Task]) -> Iterator[Result]:
        """Do `stratoscope.engine.task.perform` for each task; each result as it is there, in any order.

        Closing the iterator cancels what is not done; what is done stays.
        """
        ...


def run(tasks: Sequence[Task], engine: Engine | str = "local", progress: Progress | None = None) -> list[Result]:
    """Do tasks; those that were done before are left as they are.

    Args:
        tasks: what to do, each with a folder of its own.
        engine: where; an engine, or its name.
        progress: told `(what, done, total)`.

    Returns:
        A result for each task, in their order.

    Raises:
        SettingError: if there is no such engine, or two tasks have one folder.
        KeyboardInterrupt: if it is cancelled; what is done is kept, and the next call goes on from there.
    """
    if len({task.folder for task in tasks}) < len(tasks):
        raise SettingError("Two tasks have the same folder; give each one of its own.")
    chosen = choose(engine) if isinstance(engine, str) else engine
    tell = progress or (lambda what, done, total: None)
    results = {task.folder: result for task in tasks if (result := finished(task)) is not None}
    left = [task for task in tasks if task.folder not in results]
    tell("tasks", len(results), len(tasks))
    for result in chosen.run(left):
        results[result.folder] = result
        tell(f"{result.folder.name} {result.state}", len(results), len(tasks))
    return [results[task.folder] for task in tasks]


def choose(name: str) -> Engine:
    """The engine that a name such as `local:4` means.

    Raises:
        SettingError: if there is none (names those that there are), or it cannot be made so.
    """
    known: dict[str, Callable[[str], Engine]] = {"serial": _serial, "local": _local}
    for point in entry_points(group=ENTRY_POINTS):
        known[point.name] = partial(_other, point)
    kind, _, text = name.partition(":")
    if kind not in known:
        raise SettingError(f"There is no engine {kind!r}; there are {', '.join(known)}.")
    return known[kind](text)


def _other(point: EntryPoint, text: str) -> Engine:
    try:
        engine: Engine = point.load()(text)
    except (ImportError, AttributeError) as error:
        raise SettingError(f"The engine {point.name} ({point.value}) cannot be loaded: {error}.") from error
    return engine


def _serial(text: str) -> Serial:
    if text:
        raise SettingError(f"The engine serial takes no number; there was 'serial:{text}'.")
    return Serial()


def _local(text: str) -> Local:
    if not text:
        return Local()
    if not text.isdecimal() or not 0 < int(text) <= 4096:
        raise SettingError(f"'local:{text}' names no number of processes; write for example local:4.")
    return Local(int(text))
