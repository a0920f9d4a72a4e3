"""Keeping the weights of the step that is advised for transfer, while it is not yet known which step that will be."""

from __future__ import annotations

import json
import math
import re
import shutil
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stratoscope.diagnoses.transfer import Transfer
from stratoscope.errors import NotApplicable, SettingError
from stratoscope.network.snapshot import about_snapshot, copy_snapshot, save_snapshot
from stratoscope.observe.advice import Stop

if TYPE_CHECKING:
    from torch import nn

    from stratoscope.diagnoses.stopping import Course
    from stratoscope.instruments.base import Judge
    from stratoscope.network.subject import Subject
    from stratoscope.record.record import Record

MOST = 12
"""Files of weights that are kept at once while training goes on."""

KEPT = "transfer.safetensors"
"""Where the weights lie at the end, in the folder of the run."""

ABOUT = "stratoscope_transfer"
"""What the metadata of that file call what is said about it, as JSON."""

_FOLDER = "transfer"
_NAME = re.compile(r"step-(\d+)\.safetensors")


def thinned(steps: Collection[int], most: int, fixed: Collection[int] = ()) -> list[int]:
    """At most so many of some steps, spread evenly in the logarithm.

    As long as there are too many, the one goes whose neighbours are nearest to each other, in `log(1 + step)`. The first and
    the last stay.

    Args:
        steps: any; each counts once.
        most: how many may stay, 2 or more.
        fixed: those that stay in any case; with the first and the last at most `most`.

    >>> thinned([0, 1, 2, 3, 4, 8, 16, 17], 5)
    [0, 1, 4, 8, 17]
    """
    left = sorted(set(steps))
    while len(left) > most:
        inner = [place for place in range(1, len(left) - 1) if left[place] not in fixed]
        if not inner:
            break
        left.pop(min(inner, key=lambda place: math.log1p(left[place + 1]) - math.log1p(left[place - 1])))
    return left


class TransferKeeper:
    """Keeps the weights of steps that may still come to be advised, and at the end those of one.

    The rule's step never moves back (`diagnoses.transfer`), so what comes before it is deleted; later steps may come to be
    advised, so each measurement's weights are written, to `transfer/step-000128.safetensors` in the folder of the run, and
    thinned to `most` files. Where data of another task were given, the one file of its best probe so far suffices. The
    weights of the best classifier are kept in any case: they are what is left where there is no advice at the end.

    Disk: up to `most + 1` times the weights while training, once at the end.

    Args:
        diagnosis: the rule.
        folder: of the run.
        target: where the weights lie at the end; an older file is replaced.
        most: files at once, 4 at least.

    Attributes:
        path: the file, once training has ended; `None` before, and if there is none.
    """

    def __init__(self, diagnosis: Transfer, folder: Path, target: Path | None = None, most: int = MOST) -> None:
        if most < 4:
            raise SettingError(f"{most} files are too few to keep what may be advised; at least 4 are needed.")
        self._diagnosis, self._most = diagnosis, most
        self._folder, self._target = folder / _FOLDER, target or folder / KEPT
        self._broken = ""
        self.path: Path | None = None

    @classmethod
    def of(
        cls, wanted: bool | str | Path, folder: Path | None, judges: Sequence[Judge], subject: Subject
    ) -> TransferKeeper | None:
        """What `watch(..., best_transfer=...)` asks for; `None` where it asks for nothing.

        Raises:
            SettingError: if nothing could ever be kept.
        """
        if wanted is False:
            return None
        diagnosis = next((one for one in judges if isinstance(one, Transfer)), None)
        if diagnosis is None or not any(one.key == "reconstruction" for one in judges):
            raise SettingError(
                "best_transfer needs the diagnosis 'transfer' and the instrument 'reconstruction', one of which was left out."
            )
        if folder is None:
            raise SettingError("best_transfer needs a folder for the run, to keep weights in; name one with to=.")
        if subject.data is None:
            raise SettingError("best_transfer needs data, from which it can be told when to stop; hand some over.")
        return cls(diagnosis, folder, None if wanted is True else Path(wanted))

    def begin(self, step: int | None) -> None:
        """Begin, or go on after a step: what an earlier attempt has kept of later steps goes.

        Args:
            step: the last step that stays; `None` for a new run.
        """
        with self._careful("taken up again"):
            for unfinished in self._folder.glob(".step-*.tmp"):
                unfinished.unlink(missing_ok=True)
            if step is not None:
                self._take_back()
            self._drop([kept for kept in self._files() if step is None or kept > step])

    def look(self, record: Record, step: int, model: nn.Module) -> None:
        """After a measurement: write these weights if they may come to be advised, and delete what cannot any more.

        Trouble with the disk is said once, and nothing more is written.

        Args:
            record: as it is now.
            step: that was measured.
            model: as it is now.
        """
        if self._broken:
            return
        with self._careful("kept"):
            course = self._course(record)
            if course is None or step not in course.steps:
                return
            there = set(self._files())
            wanted = self._wanted(course, there | {step})
            if step in wanted and step not in there:
                save_snapshot(model, self._file(step))
            self._drop(there - set(wanted))

    def finish(self, record: Record, *, whole: bool) -> dict[str, Any]:
        """Put the weights of the advised step where they belong.

        Args:
            record: with what was derived from it.
            whole: whether training came to its end; otherwise what it may go on with is kept, too.

        Returns:
            What to say of it in the record.
        """
        said: dict[str, Any] = {"why": ""}
        with self._careful("kept"):
            step, said = self._choice(record)
            there = list(self._files())
            if step is not None and there:
                near = min(there, key=lambda one: abs(math.log1p(one) - math.log1p(step)))
                said |= {"step": near}
                copy_snapshot(self._file(near), self._target, {ABOUT: json.dumps(said)})
                self.path = self._target
            if whole:
                shutil.rmtree(self._folder, ignore_errors=True)
        if self.path is None:
            return {"kept": False, "reason": self._broken or said["why"]}
        return {"kept": True, "file": str(self._target), **said}

    def _course(self, record: Record) -> Course | None:
        try:
            return self._diagnosis.course(record)
        except NotApplicable:
            return None

    def _wanted(self, course: Course, steps: Collection[int]) -> list[int]:
        """Of some steps, those that may still be asked for."""
        stop, classifier, transfer = (int(at[-1]) for at in (course.stop, course.classifier_best, course.transfer_best))
        if transfer >= 0:
            return [step for step in steps if step == course.steps[transfer]]
        if classifier < 0:
            return []
        first, best = course.steps[max(stop, 0)], course.steps[classifier]
        return thinned([step for step in steps if step >= first or step == best], self._most, {best, first})

    def _choice(self, record: Record) -> tuple[int | None, dict[str, Any]]:
        """The step whose weights are wanted now, and what is to be said of it."""
        name = next((name for name in record if name.partition(":")[0] == Transfer.key), None)
        stop = None if name is None else Stop.of(record[name])
        if stop is not None:
            return stop.step, {"advised": stop.step, "interval": [stop.first, stop.last], "why": stop.why}
        course = self._course(record)
        if course is None or not len(course.steps) or course.classifier_best[-1] < 0:
            return None, {"why": "there is no advice, and nothing says when the classifier was best"}
        best = course.steps[course.classifier_best[-1]]
        return best, {"advised": None, "interval": None, "why": f"there is no advice; the best of {course.classifier}"}

    def _take_back(self) -> None:
        """Make the file of an earlier attempt one of those that may be advised."""
        said = json.loads(about_snapshot(self._target).get(ABOUT, "{}")) if self._target.is_file() else {}
        if not isinstance(said.get("step"), int):
            return
        place = self._file(said["step"])
        if not place.exists():
            copy_snapshot(self._target, place, {})
        self._target.unlink()

    def _files(self) -> dict[int, Path]:
        """What is kept, by step."""
        names = ((_NAME.fullmatch(path.name), path) for path in sorted(self._folder.glob("step-*.safetensors")))
        return {int(name[1]): path for name, path in names if name is not None}

    def _file(self, step: int) -> Path:
        return self._folder / f"step-{step:06d}.safetensors"

    def _drop(self, steps: Collection[int]) -> None:
        for step in steps:
            self._file(step).unlink(missing_ok=True)
        with suppress(OSError):  # not empty, or not there
            self._folder.rmdir()

    @contextmanager
    def _careful(self, what: str) -> Iterator[None]:
        """Training goes on whatever comes of this."""
        try:
            yield
        except Exception as error:  # a full disk, or weights that cannot be written: a training must not end by it
            self._broken = str(error) or type(error).__name__
            message = f"The weights for transfer could not be {what} ({self._broken}); training goes on."
            with suppress(UserWarning):  # where warnings are errors, training goes on all the same
                warnings.warn(message, stacklevel=4)
