"""Watch a training: what every step does, and a full measurement as often as the budget allows."""

from __future__ import annotations

import math
import operator
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn

from stratoscope.capture.gradients import Optimizer, TrainingLoss
from stratoscope.capture.needs import Need, Previous
from stratoscope.capture.views import MEMORY, Capture
from stratoscope.errors import RecordError, SettingError
from stratoscope.findings import Finding, Outcome
from stratoscope.instruments.base import Instrument
from stratoscope.instruments.registry import choose
from stratoscope.network.snapshot import open_snapshot, save_snapshot
from stratoscope.network.subject import Subject
from stratoscope.network.weights import WeightSource
from stratoscope.observe.entries import labels_of
from stratoscope.observe.examine import data_meta, run_meta
from stratoscope.observe.judging import judge
from stratoscope.observe.recorder import StepRecorder
from stratoscope.observe.round import Round, needs_of
from stratoscope.observe.schedule import Budget, Schedule
from stratoscope.observe.settings import Settings, load_settings
from stratoscope.observe.stepwise import Stepwise
from stratoscope.record.entry import Entry
from stratoscope.record.folder import new_run_folder
from stratoscope.record.quantity import quantity
from stratoscope.record.record import Record
from stratoscope.record.writer import RecordWriter

SNAPSHOT_LIMIT = 2 << 30
"""Bytes of weights above which a snapshot of step 0 is kept only on request."""

SNAPSHOT = "initial.safetensors"

ALWAYS = 50
"""Steps at the beginning that are recorded whatever they cost: a learning rate that is too high shows there."""


class Watch:
    """A watched training; made by `watch`, used in a `with`.

    Step k is the network after k updates; step 0 is the network before training, measured on entry. A loop that counts
    from 0 may hand over its own count: if the first step it names is 0, every step is recorded one higher.

    Attributes:
        folder: where the record lies.
        subject: the network, its data and optimizer.
        instruments: those that run on the schedule, and those that run at every step.
    """

    def __init__(
        self,
        subject: Subject,
        folder: Path | None,
        instruments: list[Instrument],
        *,
        budget: float = 0.05,
        every: int | None = None,
        snapshot: bool | None = None,
        memory: int = MEMORY,
        settings: Settings | None = None,
        resume: bool | int = False,
    ) -> None:
        if not budget > 0:
            raise SettingError(f"budget={budget} must be above 0: the share of training time that may be spent.")
        if every is not None and every < 1:
            raise SettingError(f"every={every} must be at least 1 step.")
        self.subject, self.folder = subject, folder
        self.instruments = instruments
        self._scheduled = [i for i in instruments if not i.every_step]
        self._stepwise = Stepwise(subject, labels_of(instruments))
        self._needs = needs_of(self._scheduled)
        self._snapshot, self._memory = snapshot, memory
        self._settings, self._resume = settings or Settings(), resume
        self._budget, self._schedule = Budget(budget), Schedule(every)
        self._step, self._measured = 0, -1
        self._offset: int | None = None
        self._previous: dict[tuple[Need, str, str | None], Any] = {}
        self._initial: WeightSource | None = None
        self._recorder: StepRecorder | None = None
        self._writer: RecordWriter | None = None
        self._capture: Capture | None = None
        self._ended = False

    # -- the life of a run ------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self._began = time.perf_counter()
        meta = run_meta(self.subject, self.instruments)
        if self._resume is not False and self.folder is not None and (self.folder / "run.db").exists():
            self._go_on(self.folder)
        else:
            self._writer = RecordWriter.create(self.folder, meta)
        try:
            self._keep_snapshot()
            self._attach()
            if self._step == 0:
                self._measure_fully()
        except BaseException as error:  # Python calls no __exit__ for what __enter__ did not finish
            self.__exit__(type(error), error, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        if self._recorder is not None:
            self._recorder.remove()
        if kind is None and self._measured < self._step:
            self._measure_fully()
        writer = self._open_writer()
        writer.flush()
        self._sum_up(writer)
        status = "finished" if kind is None else "interrupted" if issubclass(kind, KeyboardInterrupt) else "failed"
        writer.close(status)
        self._ended = True
        self._capture, self._previous = None, {}

    def step(self, i: int | None = None, *, loss: Tensor | float | None = None, epoch: float | None = None) -> None:
        """Say that an optimizer step is done.

        Args:
            i: the loop's count of steps; counted here where it is left out.
            loss: the mini-batch loss.
            epoch: epochs so far, for people.

        Raises:
            SettingError: if the count goes backwards, or the loss is not one number.
            RecordError: if the watch has ended.
        """
        self._check_open()
        start = time.perf_counter()
        value = None if loss is None else _number(loss, "loss")
        self._count(i)
        self._record_step(value, epoch)
        self._budget.add(time.perf_counter() - start)
        if self._schedule.due(self._step) and self._affordable():
            self._measure_fully(epoch)

    def log(self, name: str, value: Tensor | float) -> None:
        """Keep a number of your own at this step, in the record's group `logged`.

        Args:
            name: a variable name; anything but an empty string.
            value: a number.
        """
        if not name:
            raise SettingError("A logged number needs a name.")
        self._check_open()
        number = quantity(_number(value, name), units="1", long_name=name)
        self._open_writer().append(self._step, [Entry("logged", name, number)])

    # -- what it says of itself -------------------------------------------------------------------------------------

    @property
    def committed(self) -> int:
        """The highest step that is safe: everything recorded at or before it survives `kill -9`."""
        return self._open_writer().committed

    @property
    def spent(self) -> float:
        """Seconds spent on measuring so far."""
        recorder = self._recorder.seconds if self._recorder else 0.0
        return self._budget.spent + recorder

    @property
    def share(self) -> float:
        """Time spent on measuring over the rest of the time."""
        elapsed = time.perf_counter() - self._began
        return self.spent / max(elapsed - self.spent, 1e-9)

    @property
    def record(self) -> Record:
        """The record, readable while it is written."""
        if self._ended and self.folder is not None:
            return Record.open(self.folder)
        return Record.from_writer(self._open_writer())

    # -- inside -----------------------------------------------------------------------------------------------------

    def _open_writer(self) -> RecordWriter:
        if self._writer is None:
            raise RecordError("This watch has not begun; use it as: with watch(model) as w: ...")
        return self._writer

    def _check_open(self) -> None:
        if self._ended:
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
        self._step = self._measured = begin

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
        optimizer, model = self.subject.optimizer, self.subject.module
        window = max((need.window for need in self._stepwise.gradient_needs), default=None)
        if optimizer is not None and model is not None and window is not None:
            self._recorder = StepRecorder(model, optimizer, window, self._recording)
            own = {id(param) for param in model.parameters()}
            if not any(id(param) in own for group in optimizer.param_groups for param in group["params"]):
                warnings.warn(
                    f"The optimizer holds no param of this {type(model).__name__}, so its steps cannot be recorded; "
                    "is it another model's?",
                    stacklevel=4,
                )

    def _recording(self) -> bool:
        """Whether there is budget to record this step; half of it is left to the full measurements."""
        if math.isinf(self._budget.share) or self._recorder is None or self._step < ALWAYS:
            return True
        training = time.perf_counter() - self._began - self.spent
        return self._recorder.seconds <= 0.5 * self._budget.share * max(training, 0.0)

    def _affordable(self) -> bool:
        if math.isinf(self._budget.share):
            return True
        training = time.perf_counter() - self._began - self.spent
        return self.spent + self._budget.next_cost <= self._budget.share * training

    def _record_step(self, loss: float | None, epoch: float | None) -> None:
        taken = self._recorder.take() if self._recorder else None
        live: dict[Need, Any] = {}
        if loss is not None:
            live[TrainingLoss()] = loss
        if self._recorder is not None:
            live[Optimizer()] = self._recorder.state()
        if taken is not None:
            live |= dict.fromkeys(self._stepwise.gradient_needs, taken)
        self._stepwise.record(self._open_writer(), self._step, live, epoch)

    def _measure_fully(self, epoch: float | None = None) -> None:
        if self._measured == self._step or not self._scheduled:
            return
        start = time.perf_counter()
        writer = self._open_writer()
        capture = Capture(self.subject, self._needs, self._memory, initial=self._initial, previous=self._previous)
        try:
            Round(capture, self._scheduled, writer, self._step, by_layer=False, epoch=epoch).run()
            if any(isinstance(need, Previous) for need in self._needs):
                self._previous = capture.remember()
        except Exception as error:
            warnings.warn(f"Measuring step {self._step} failed and training goes on: {error}", stacklevel=3)
            writer.commit(self._step, [], findings=[_capture_failed(self._step, error)])
        self._capture = capture
        self._measured = self._step
        self._schedule.done(self._step)
        self._budget.add(time.perf_counter() - start, full=True)

    def _keep_snapshot(self) -> None:
        """Keep the weights of step 0, unless nobody wants them or they are too large; open those kept before."""
        writer, model = self._open_writer(), self.subject.module
        if self.folder is None or model is None:
            return
        path = self.folder / SNAPSHOT
        if not path.exists() and self._step == 0 and self._snapshot is not False:
            size = sum(t.numel() * t.element_size() for t in model.state_dict().values() if isinstance(t, Tensor))
            if self._snapshot is None and size > SNAPSHOT_LIMIT:
                reason = f"{size / 2**30:.1f} GiB of weights; pass snapshot=True to keep step 0"
                writer.write_meta("snapshot", {"kept": False, "reason": reason})
                return
            save_snapshot(model, path)
            writer.write_meta("snapshot", {"kept": True, "file": SNAPSHOT})
        if path.exists():
            self._initial = open_snapshot(path)

    def _sum_up(self, writer: RecordWriter) -> None:
        writer.write_meta("share_spent", round(self.share, 5))
        writer.write_meta("seconds_spent", round(self.spent, 4))
        if self._capture is not None:
            writer.write_meta("data", data_meta(self.subject, self._capture))
        try:
            record = Record.from_writer(writer)
            writer.replace_findings(judge(record, self.instruments, self._settings))
        except Exception as error:
            warnings.warn(f"The findings of this run could not be written: {error}", stacklevel=3)


class _Inert(Watch):
    """The watch of every process but the first in a distributed training: it does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        return

    def step(self, i: int | None = None, *, loss: Tensor | float | None = None, epoch: float | None = None) -> None:
        """Nothing: the first process records."""

    def log(self, name: str, value: Tensor | float) -> None:
        """Nothing: the first process records."""

    @property
    def committed(self) -> int:
        """-1: nothing is recorded here."""
        return -1

    @property
    def share(self) -> float:
        """0: nothing is measured here."""
        return 0.0

    @property
    def record(self) -> Record:
        """There is none.

        Raises:
            RecordError: always.
        """
        raise RecordError("The first process keeps the record of this training; open it there.")


def watch(
    model: nn.Module,
    data: Any = None,
    *,
    optimizer: torch.optim.Optimizer | None = None,
    loss: Callable[..., Any] | None = None,
    labels: Any = None,
    to: str | Path | None = None,
    budget: float = 0.05,
    every: int | None = None,
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    instruments: Sequence[Instrument] | None = None,
    probe: int = 512,
    batch_size: int = 128,
    seed: int = 0,
    snapshot: bool | None = None,
    memory: int = MEMORY,
    resume: bool | int = False,
    settings: Settings | None = None,
    name: str = "",
) -> Watch:
    """Watch a training.

    ```python
    with watch(model, {"train": (x, y), "test": (u, v)}, optimizer=opt, to="runs/mlp") as w:
        for i, batch in enumerate(loader):
            ...
            opt.step()
            w.step(i, loss=loss)
    ```

    With nothing but a model it measures what needs no more.

    Args:
        model: the module; left as it is.
        data: as for `examine`; a fixed sample of each split is looked at.
        optimizer: read by its hooks; without it there are no gradients and updates.
        loss: `loss(output, labels)` on the data; the usual one of the task otherwise.
        labels: labels of `data`, where it does not hold them.
        to: a new folder for the record; a dated one under `runs/` where it is left out.
        budget: share of training time that may be spent on measuring; step 0 and the last step are measured always.
            Loss and rate are recorded at every step; gradients at the first steps, and then as often as half the budget
            pays for.
        every: steps between full measurements; log-spaced where it is left out.
        only: keys of the instruments to run.
        skip: keys of the instruments to leave out.
        instruments: instruments with their settings instead.
        probe: examples drawn from each split.
        batch_size: examples a forward pass.
        seed: of everything random.
        snapshot: keep the weights of step 0; by default if they take at most 2 GiB.
        memory: bytes that kept samples may take.
        resume: go on with the record that lies in `to`, after its last step, or after the step that is named (of a
            checkpoint that was loaded), whose later steps are replaced. Without a record there, a new one is begun.
        settings: thresholds and muted codes; those of `stratoscope.toml` by default.
        name: of the run.

    Raises:
        StratoscopeError: if something cannot be used; one sentence says what.
    """
    settings = settings if settings is not None else load_settings()
    subject = Subject(model, data, loss, labels, None, optimizer, name or type(model).__name__, probe, batch_size, seed)
    chosen = list(instruments) if instruments is not None else choose(only, skip, settings.instruments)
    first = not torch.distributed.is_available() or not torch.distributed.is_initialized()
    first = first or torch.distributed.get_rank() == 0
    folder = None if not first else Path(to) if to is not None else new_run_folder(Path("runs"))
    return (Watch if first else _Inert)(
        subject, folder, chosen, budget=budget, every=every, snapshot=snapshot, memory=memory, settings=settings,
        resume=resume,
    )  # fmt: skip


def _number(value: Tensor | float, what: str) -> float:
    if isinstance(value, Tensor):
        if value.numel() != 1:
            raise SettingError(f"The {what} has shape {tuple(value.shape)}; hand over one number, such as its mean.")
        value = value.detach()
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise SettingError(f"The {what} must be one number, not {value!r:.40}.") from error


def _capture_failed(step: int, error: Exception) -> Finding:
    return Finding(
        "ST000", "capture", None, step, Outcome.FAILED, str(error), "check the data that were given to watch"
    )
