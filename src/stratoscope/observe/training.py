"""A training that is recorded: what every step does, and a full measurement as often as the budget allows."""

from __future__ import annotations

import logging
import math
import operator
import time
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, final

from torch import Tensor

from stratoscope.capture.gradients import Optimizer, OptimizerState, StepStatistics, TrainingLoss
from stratoscope.capture.needs import Need
from stratoscope.capture.restore import on_host
from stratoscope.capture.views import MEMORY
from stratoscope.errors import RecordError, SettingError
from stratoscope.network.subject import Subject
from stratoscope.observe.advice import Advice, Adviser
from stratoscope.observe.beginning import keep_beginning
from stratoscope.observe.coming import Coming, InOrder
from stratoscope.observe.diagnosing import Chosen, conclude
from stratoscope.observe.entries import labels_of
from stratoscope.observe.examine import run_meta
from stratoscope.observe.keeping import TransferKeeper
from stratoscope.observe.live import Watch
from stratoscope.observe.measuring import Measurements
from stratoscope.observe.recorder import StepRecorder, names_of, state_of, together
from stratoscope.observe.schedule import Budget
from stratoscope.observe.settings import Settings
from stratoscope.observe.stepwise import Stepwise
from stratoscope.observe.tally import Tally
from stratoscope.record.entry import Entry
from stratoscope.record.quantity import quantity
from stratoscope.record.record import Record
from stratoscope.record.rows import NOTHING_SAID, Passed
from stratoscope.record.writer import RecordWriter

_LOG = logging.getLogger(__name__)
_OPTIMIZER, _LOSS = Optimizer(), TrainingLoss()

ALWAYS = 50
"""Steps at the beginning that are recorded whatever they cost: a learning rate that is too high shows there."""

STEPS_PART = 0.25
"""The part of the budget that single steps may take; the rest is left to the measurements of the network."""


@final
class RecordedTraining(Watch):
    """The watch of the process that records.

    Attributes:
        folder: where the record lies.
        subject: the network, its data and optimizer.
        instruments: those that run on the schedule, and those that run at every step.
    """

    def __init__(
        self,
        subject: Subject,
        folder: Path | None,
        chosen: Chosen,
        *,
        budget: float = 0.05,
        every: int | None = None,
        cadence: Mapping[str, int] | None = None,
        steps: int | None = None,
        snapshot: bool | None = None,
        memory: int = MEMORY,
        settings: Settings | None = None,
        resume: bool | int = False,
        best_transfer: bool | str | Path = False,
    ) -> None:
        if not budget > 0:
            raise SettingError(f"budget={budget} must be above 0: the share of training time that may be spent.")
        if every is not None and every < 1:
            raise SettingError(f"every={every} must be at least 1 step.")
        if steps is not None and steps < 1:
            raise SettingError(f"steps={steps} must be at least 1: the steps of the whole training.")
        self.subject, self.folder = subject, folder
        self.instruments, self._chosen = chosen.instruments, chosen
        self._stepwise = Stepwise(subject, labels_of(chosen.instruments))
        self._snapshot = snapshot
        self._settings, self._resume = settings or Settings(), resume
        self._budget = Budget(budget, steps)
        self._measurements = Measurements(
            subject, chosen.without_training().instruments, self._budget, memory, every, cadence
        )
        self._step, self._tally = 0, Tally()
        self._offset: int | None = None
        self._optimizers = subject.optimizers
        self._recorders: list[StepRecorder] = []
        self._in_order = InOrder()
        self._writer: RecordWriter | None = None
        self._aside = {"beginning": 0.0, "steps": 0.0, "conclusions": 0.0}
        self._adviser = Adviser(chosen.judges, self._settings)
        self._advice: Advice | None = None
        self._keeper = TransferKeeper.of(best_transfer, folder, chosen.judges, subject)
        self._ended: float | None = None

    # -- the life of a run ------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        start = self._began = time.perf_counter()
        meta = run_meta(self.subject, self._chosen)
        if self._resume is not False and self.folder is not None and (self.folder / "run.db").exists():
            self._go_on(self.folder)
        else:
            self._writer = RecordWriter.create(self.folder, meta)
        self._open_writer().write_meta("watched", True)
        before = self._budget.spent
        if self._keeper is not None:
            self._keeper.begin(self._step if self._measurements.last >= 0 else None)
        try:
            self._measurements.initial = keep_beginning(
                self._open_writer(), self.folder, self.subject.module, new=self._step == 0, wanted=self._snapshot
            )
            self._attach()
            if self._step == 0:
                self._measure(planned=False)
        except BaseException as error:  # Python calls no __exit__ for what __enter__ did not finish
            self.__exit__(type(error), error, None)
            raise
        # all of it was done for watching
        taken = time.perf_counter() - start
        self._aside["beginning"] += taken - (self._budget.spent - before)
        self._budget.spent = before + taken
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        start, before = time.perf_counter(), self._budget.spent
        for recorder in self._recorders:
            recorder.remove()
        self._in_order.settle(wait=True)
        if kind is None:
            self._measure(planned=False)
        writer = self._open_writer()
        writer.flush()
        concluding = time.perf_counter()
        self._conclude(writer)
        if self._keeper is not None:
            with Record.from_writer(writer) as record:
                writer.write_meta("best_transfer", self._keeper.finish(record, whole=kind is None))
        now = time.perf_counter()
        self._aside["conclusions"] += now - concluding
        self._budget.spent = before + now - start
        self._ended = self._elapsed
        self._note_spending(writer)
        status = "finished" if kind is None else "interrupted" if issubclass(kind, KeyboardInterrupt) else "failed"
        writer.close(status)
        _LOG.info("%s", self.summary)

    def step(
        self,
        i: int | None = None,
        *,
        loss: Tensor | float | None = None,
        epoch: float | None = None,
        tokens: float | None = None,
    ) -> None:
        """Say that an optimizer step is done."""
        self._check_open()
        start = time.perf_counter()
        value = None if loss is None else _number(loss, "loss")
        passed = self._tally.checked(epoch, tokens)
        self._count(i)
        self._tally.keep(passed)
        self._record_step(value, passed)
        self._budget.within_steps = sum(recorder.seconds for recorder in self._recorders)
        self._budget.passed(self._step, self._elapsed)
        names = self._measurements.plan.choose(self._step, self._elapsed)
        taken = time.perf_counter() - start
        self._aside["steps"] += taken
        self._budget.add(taken)
        if names:
            self._measure(names, passed)

    def log(self, name: str, value: Tensor | float) -> None:
        """Keep a number of your own at this step, in the record's group `logged`."""
        if not name:
            raise SettingError("A logged number needs a name.")
        self._check_open()
        number, step, writer = _number(value, name), self._step, self._open_writer()

        def keep() -> None:
            writer.append(step, [Entry("logged", name, quantity(number.get(), units="1", long_name=name))])

        self._in_order.add([number], keep)

    # -- what it says of itself -------------------------------------------------------------------------------------

    @property
    def committed(self) -> int:
        """The highest step that is safe: everything recorded at or before it survives `kill -9`."""
        return self._open_writer().committed

    @property
    def spent(self) -> float:
        """Seconds spent on measuring so far."""
        return self._budget.total

    @property
    def share(self) -> float:
        """Time spent on measuring over the rest of the time."""
        return self._budget.used(self._elapsed)

    @property
    def summary(self) -> str:
        """What was measured and what that took, in a sentence."""
        measured, elapsed = self._measurements, self._elapsed
        parts = [f"{measured.full_rounds} measurements of the whole network"]
        if (partial := measured.rounds - measured.full_rounds) > 0:
            parts.append(f"{partial} of parts of it")
        if math.isfinite(self.share):
            limit = "" if math.isinf(self._budget.share) else f" (budget {self._budget.share:.3g})"
            training = self._budget.training(elapsed)
            parts.append(f"{self.spent:.1f} s beside {training:.1f} s of training: {self.share:.1%}{limit}")
        return ", ".join(parts)

    @property
    def record(self) -> Record:
        """The record, readable while it is written."""
        if self._ended is not None and self.folder is not None:
            return Record.open(self.folder)
        self._in_order.settle(wait=True)
        return Record.from_writer(self._open_writer())

    @property
    def advice(self) -> Advice:
        """What the record says by now; worked out when it is asked for, once a full measurement."""
        if self._advice is None:
            self._advice = self._work_out()
        return self._advice

    @property
    def best_transfer(self) -> Path | None:
        """The weights that were kept for transfer, once training has ended; `None` before, and where there are none."""
        return None if self._keeper is None else self._keeper.path

    # -- inside -----------------------------------------------------------------------------------------------------

    def _open_writer(self) -> RecordWriter:
        if self._writer is None:
            raise RecordError("This watch has not begun; use it as: with watch(model) as w: ...")
        return self._writer

    def _check_open(self) -> None:
        if self._ended is not None:
            raise RecordError("This watch has ended with its `with`; steps belong inside of it.")

    def _go_on(self, folder: Path) -> None:
        """Open the record of an earlier attempt; what it holds beyond the step at which this one begins is replaced."""
        kept = Record.open(folder)
        self._offset = int(kept.meta.get("step_offset", 0))
        last = max(kept.steps, default=0)
        begin = last if self._resume is True else int(self._resume) + self._offset
        if not 0 <= begin <= last:
            raise SettingError(f"resume={self._resume} is no step of this run, which ends at {last - self._offset}.")
        self._writer = RecordWriter.resume(folder, begin + 1)
        self._step = begin
        self._tally.tokens = max((when.tokens or 0 for step, when in kept.clock.items() if step <= begin), default=0)
        self._measurements.resume(begin, kept.meta)
        self._aside |= kept.meta.get("seconds_aside", {})
        # the earlier attempts are a part of this training, and so is what they spent
        self._budget.spent = float(kept.meta.get("seconds_spent", 0.0))
        self._began -= self._budget.spent + float(kept.meta.get("seconds_trained", 0.0))

    def _count(self, i: int | None) -> None:
        if i is None:
            self._step += 1
            return
        try:
            i = operator.index(i)
        except TypeError as error:
            raise SettingError(f"A step is a whole number, not {i!r:.40}.") from error
        if self._offset is None:
            self._offset = 1 if i == 0 else 0
            self._open_writer().write_meta("step_offset", self._offset)
        if i + self._offset < self._step:
            raise SettingError(
                f"Step {i} comes after step {self._step - self._offset}; steps must not go backwards. "
                "To train again from a checkpoint, pass its step: watch(..., resume=STEP)."
            )
        self._step = i + self._offset

    def _attach(self) -> None:
        model = self.subject.module
        window = max((need.window for need in self._stepwise.gradient_needs), default=None)
        if model is None or window is None:
            return
        own = names_of(model)
        for optimizer in self._optimizers:
            self._recorders.append(StepRecorder(model, optimizer, window, self._recording))
            if not any(id(param) in own for group in optimizer.param_groups for param in group["params"]):
                warnings.warn(
                    f"The optimizer holds no param of this {type(model).__name__}, so its steps cannot be recorded; "
                    "is it another model's?",
                    stacklevel=3,
                )

    @property
    def _elapsed(self) -> float:
        """Seconds since the beginning, those of earlier attempts included; at the end they stand still."""
        return time.perf_counter() - self._began if self._ended is None else self._ended

    def _recording(self) -> bool:
        """Whether there is budget to record this step."""
        self._budget.within_steps = sum(recorder.seconds for recorder in self._recorders)
        return self._step < ALWAYS or self._budget.allows_step(self._elapsed, STEPS_PART)

    def _record_step(self, loss: Coming[float] | None, passed: Passed) -> None:
        """Hand the step over to be recorded, as soon as its numbers have come from the device."""
        latest: list[Coming[StepStatistics]] = []
        for recorder in self._recorders:
            if recorder.latest is not None:
                latest.append(recorder.latest)
                recorder.latest = None
        state = state_of(self._optimizers) if self._recorders else None
        numbers = latest if loss is None else [*latest, loss]
        record = partial(self._record_now, self._step, latest, loss, state, passed)
        self._in_order.add(numbers, record)

    def _record_now(
        self,
        step: int,
        latest: list[Coming[StepStatistics]],
        loss: Coming[float] | None,
        state: OptimizerState | None,
        passed: Passed,
    ) -> None:
        live: dict[Need, Any] = {}
        if state is not None:
            live[_OPTIMIZER] = state
        if loss is not None:
            live[_LOSS] = loss.get()
        taken = together([statistics.get() for statistics in latest])
        if taken is not None:
            for need in self._stepwise.gradient_needs:
                live[need] = taken
        self._stepwise.record(self._open_writer(), step, live, passed)

    @on_host()
    def _measure(
        self, names: Sequence[str] | None = None, passed: Passed = NOTHING_SAID, *, planned: bool = True
    ) -> None:
        """Measure those that the plan chose, or all that were not yet measured at this step."""
        start = time.perf_counter()
        # in the record, too, one step comes after the other
        self._in_order.settle(wait=True)
        self._budget.add(time.perf_counter() - start)
        writer, measured = self._open_writer(), self._measurements
        if names is None:
            names = measured.plan.left(self._step)
        if not names:
            return
        measured.measure(names, self._step, writer, passed, planned)
        self._advice = None
        if self._keeper is not None and self.subject.module is not None:
            start = time.perf_counter()
            with Record.from_writer(writer) as record:
                self._keeper.look(record, self._step, self.subject.module)
            self._set_aside("keeping", start)
        self._note_spending(writer)

    def _set_aside(self, what: str, since: float) -> None:
        """Count time that no instrument took."""
        taken = time.perf_counter() - since
        self._aside[what] = self._aside.get(what, 0.0) + taken
        self._budget.add(taken)

    @on_host()
    def _work_out(self) -> Advice:
        """The advice of now. What goes wrong is said, and training goes on."""
        start, record = time.perf_counter(), self.record
        try:
            found = self._adviser.advise(record, self._measurements.last)
        except Exception as error:  # other people's rules speak here; a training must not end by them
            warnings.warn(
                f"The advice of step {self._measurements.last} could not be worked out: {error}", stacklevel=3
            )
            found = Advice()
        record.close()
        self._set_aside("advice", start)
        return found

    def _conclude(self, writer: RecordWriter) -> None:
        try:
            conclude(writer, self._chosen, self._settings)
        except Exception as error:  # what was measured is kept whatever judging it raises
            warnings.warn(f"The findings of this run could not be written: {error}", stacklevel=3)

    def _note_spending(self, writer: RecordWriter) -> None:
        """Write what measuring takes, so that a resumed training knows it, and whoever reads the record meanwhile."""
        training = self._budget.training(self._elapsed)
        aside = self._aside | {"steps": self._aside["steps"] + self._budget.within_steps}
        about: dict[str, Any] = {
            "budget": self._budget.share if math.isfinite(self._budget.share) else None,
            "share_spent": round(self.share, 5) if training > 0 else None,
            "seconds_spent": round(self.spent, 4),
            "seconds_trained": round(training, 4),
            "seconds_aside": {name: round(value, 4) for name, value in aside.items()},
            **self._measurements.meta(),
        }
        for key, value in about.items():
            writer.write_meta(key, value)


def _number(value: Tensor | float, what: str) -> Coming[float]:
    """A number, on its way if it is on a device."""
    if isinstance(value, Tensor):
        if value.numel() != 1:
            raise SettingError(f"The {what} has shape {tuple(value.shape)}; hand over one number, such as its mean.")
        value = value.detach()
        if value.is_complex():
            raise SettingError(f"The {what} must be one number, not {value!r:.40}.")
        if value.device.type != "cpu":
            return Coming(value.reshape(()), float)
    try:
        return Coming(float(value), float)
    except (TypeError, ValueError) as error:
        raise SettingError(f"The {what} must be one number, not {value!r:.40}.") from error
