"""One task of a sweep: a plain function, a JSON spec, a folder. It is done once, however often it is asked for.

```python
def work(spec, folder):
    train_and_watch(spec["batch"], seed=spec["seed"], to=folder)


results = run([Task(work, {"batch": 16, "seed": 0}, Path("runs/16-0"))], engine="local")
```

The folder holds the record that the function writes, and `task.json`, which says how far the task is. A task that is
`finished` is not done again; one that was interrupted, failed or was skipped begins anew. What a task gives depends on
nothing but its function and its spec: the global random generators start from the spec and are put back, and it has
one thread. So every engine gives the same numbers.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stratoscope.errors import NotApplicable, RecordError, SettingError
from stratoscope.record.values import digest, to_json

Spec = Mapping[str, Any]
"""What tells one task from another: names and plain values that JSON can hold."""

Work = Callable[[Spec, Path], None]
"""Does one task: writes its record into the folder. It stands at the top of a module, so that other processes find it."""

NOTE, ERROR = "task.json", "error.txt"
RUNNING, FINISHED, SKIPPED, FAILED = "running", "finished", "skipped", "failed"


@dataclass(frozen=True)
class Task:
    """Something to do once.

    Attributes:
        work: does it.
        spec: what it is given, as JSON holds it.
        folder: where its record goes; nobody else's.
    """

    work: Work
    spec: Spec
    folder: Path

    def __post_init__(self) -> None:
        name = getattr(self.work, "__qualname__", "")
        if not name.isidentifier() or not getattr(self.work, "__module__", ""):
            raise SettingError(
                f"{name or self.work!r} cannot be found by other processes; make it a function at the top of a module."
            )
        plain = json.loads(to_json(dict(self.spec), f"The spec {dict(self.spec)}"))
        object.__setattr__(self, "spec", plain)  # the same for every process: tuples are lists, keys are text


@dataclass(frozen=True)
class Result:
    """How a task ended.

    Attributes:
        spec: of the task.
        folder: of the task.
        state: `"finished"`, `"skipped"` (it does not apply here) or `"failed"`.
        reason: why it was skipped or failed; `error.txt` in the folder has the traceback.
        seconds: what it took.
    """

    spec: Spec
    folder: Path
    state: str
    reason: str = ""
    seconds: float = 0.0


def finished(task: Task) -> Result | None:
    """The result of a task that was done before, if its record is there; else `None`."""
    from stratoscope.record.record import Record

    note = _note_of(task.folder)
    if note.get("state") != FINISHED:
        return None
    try:
        Record.open(task.folder).close()
    except RecordError:
        return None
    return Result(task.spec, task.folder, FINISHED, seconds=float(note.get("seconds", 0.0)))


def perform(task: Task) -> Result:
    """Do a task, unless it was done before. Whatever it raises becomes the result, but for a cancel."""
    before = finished(task)
    if before is not None:
        return before
    began = time.perf_counter()
    trace, mine = "", f"{os.getpid()}-{time.time_ns()}"
    try:
        _begin(task, mine)
        with alone(task.spec):
            task.work(task.spec, task.folder)
        state, reason = FINISHED, ""
        _check_record(task.folder)
    except NotApplicable as answer:
        state, reason = SKIPPED, str(answer)
    except Exception as error:
        state, reason, trace = FAILED, sentence_of(error), traceback.format_exc()
    result = Result(task.spec, task.folder, state, reason, round(time.perf_counter() - began, 3))
    # who outlives a killed parent finds that somebody else has begun the task again, and leaves the folder to them
    return end(result, trace) if _note_of(task.folder).get("by") == mine else result


def end(result: Result, trace: str = "") -> Result:
    """Write down how a task ended, in its folder, if that takes files."""
    try:
        if trace:
            (result.folder / ERROR).write_text(trace, encoding="utf-8", errors="replace")
        _write_note(result.folder, asdict(result) | {"folder": result.folder.name})
    except OSError as error:
        return Result(result.spec, result.folder, FAILED, result.reason or sentence_of(error), result.seconds)
    return result


def is_running(task: Task) -> bool:
    """Whether a task was begun and has not ended, or was killed."""
    return _note_of(task.folder).get("state") == RUNNING


def sentence_of(error: BaseException) -> str:
    r"""What an exception says, in one line.

    >>> sentence_of(ValueError("no weights\ntoday"))
    'ValueError: no weights today'
    """
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}".removesuffix(": ")


@contextmanager
def alone(spec: Spec) -> Iterator[None]:
    """Inside, nothing from outside has a say: one thread, and global random generators that start from the spec.

    NumPy's threads are held back where threadpoolctl is installed.
    """
    import numpy as np
    import torch

    from stratoscope.capture.restore import random_state_kept

    seed = int(digest(to_json(dict(spec), "The spec"))[:8], 16)
    threads = torch.get_num_threads()
    with ExitStack() as stack:
        stack.enter_context(random_state_kept())
        stack.callback(torch.set_num_threads, threads)
        torch.set_num_threads(1)
        try:
            from threadpoolctl import threadpool_limits
        except ImportError:
            pass
        else:
            stack.enter_context(threadpool_limits(1))
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        yield


def _begin(task: Task, mine: str) -> None:
    folder = task.folder
    if folder.exists() and any(folder.iterdir()) and not (folder / NOTE).is_file():
        raise SettingError(f"{folder} holds files that no task has written; choose another folder.")
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    _write_note(folder, {"spec": dict(task.spec), "state": RUNNING, "by": mine})


def _check_record(folder: Path) -> None:
    from stratoscope.record.record import Record

    Record.open(folder).close()


def _note_of(folder: Path) -> dict[str, Any]:
    try:
        note = json.loads((folder / NOTE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}


def _write_note(folder: Path, note: Mapping[str, Any]) -> None:
    draft = folder / f".{NOTE}.{os.getpid()}"
    draft.write_text(json.dumps(note, indent=1), encoding="utf-8")
    os.replace(draft, folder / NOTE)
