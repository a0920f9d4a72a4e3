"""The measurements of a watched training that are made now and then, and what they take."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from stratoscope.capture.needs import Need, Previous
from stratoscope.capture.restore import on_host
from stratoscope.capture.views import Capture
from stratoscope.errors import SettingError
from stratoscope.findings import Finding, Outcome
from stratoscope.instruments.base import Instrument
from stratoscope.network.subject import Subject
from stratoscope.network.weights import WeightSource
from stratoscope.observe.costs import Costs
from stratoscope.observe.entries import group_of, labels_of
from stratoscope.observe.examine import data_meta
from stratoscope.observe.plan import Plan, cadence_of
from stratoscope.observe.round import Round, foreign_of, needs_of, wants_data
from stratoscope.observe.schedule import Budget
from stratoscope.record.rows import NOTHING_SAID, Passed
from stratoscope.record.writer import RecordWriter


class Measurements:
    """Measures some or all of its instruments at a step, and knows what that takes.

    Args:
        subject: the network in training.
        instruments: those that are not measured at every step.
        budget: of the training; what a measurement takes is added to it.
        memory: bytes that kept samples may take.
        every: steps between measurements; log-spaced where it is left out.
        cadence: the same for single instruments, by their key or group.
    """

    def __init__(
        self,
        subject: Subject,
        instruments: Sequence[Instrument],
        budget: Budget,
        memory: int,
        every: int | None = None,
        cadence: Mapping[str, int] | None = None,
    ) -> None:
        self._subject, self._budget, self._memory = subject, budget, memory
        self._labels = labels_of(instruments)
        self._groups = {group_of(one, label): one for one, label in self._labels.items()}
        sharing = [name for name, one in self._groups.items() if wants_data(one)]
        self.costs = Costs(tuple(self._groups), sharing)
        self.plan = Plan(list(self._groups), budget, self.costs, every, _checked(cadence or {}, list(self._groups)))
        self.rounds = self.full_rounds = 0
        self._previous: dict[tuple[Need, str, str | None], Any] = {}
        self._about_data: dict[str, Any] = {}
        self.initial: WeightSource | None = None

    @on_host()
    def measure(
        self,
        names: Sequence[str],
        step: int,
        writer: RecordWriter,
        passed: Passed = NOTHING_SAID,
        planned: bool = True,
    ) -> None:
        """Measure these at this step, the network as it is now. What fails becomes a finding, and a warning.

        Args:
            names: of the instruments, as groups of the record.
            step: of the training.
            writer: of the record.
            passed: how much the training has seen so far.
            planned: whether the plan chose them; the first and last measurement are made in any case.
        """
        if not names:
            return
        # what the device still has to do is the training's own time
        self._synchronize()
        start = time.perf_counter()
        instruments = [self._groups[name] for name in names]
        needs = needs_of(instruments)
        capture = Capture(
            self._subject, needs, self._memory, initial=self.initial, previous=self._previous,
            foreign=foreign_of(instruments),
        )  # fmt: skip
        structure = not self.rounds or not self.costs.sharing or any(name in self.costs.sharing for name in names)
        measured = Round(
            capture, instruments, writer, step, by_layer=False, passed=passed, labels=self._labels, structure=structure
        )
        try:
            measured.run()
            if any(isinstance(need, Previous) for need in needs):
                # of those that were not measured now, the previous measurement is an earlier one
                self._previous |= capture.remember()
        except Exception as error:  # the user's own data and model run here, and may raise anything
            warnings.warn(f"Measuring step {step} failed and training goes on: {error}", stacklevel=4)
            writer.commit(step, [], findings=[_capture_failed(step, error)])
        if capture.passes:
            self._about_data = data_meta(self._subject, capture)
        self._synchronize()
        self._note(measured, step, time.perf_counter() - start, planned)

    @property
    def last(self) -> int:
        """The last step at which anything was measured; -1 before the first."""
        return self.plan.last

    def meta(self) -> dict[str, Any]:
        """What the record says of them."""
        found: dict[str, Any] = {
            "rounds": self.rounds,
            "full_rounds": self.full_rounds,
            "seconds_by_instrument": {name: round(value, 4) for name, value in self.costs.seconds.items()},
            "seconds_of_round": self.costs.kept(),
        }
        return found | ({"data": self._about_data} if self._about_data else {})

    def resume(self, step: int, meta: Mapping[str, Any]) -> None:
        """Go on after a step of an earlier attempt, of which the record says this."""
        self.costs.restore(meta.get("seconds_of_round", {}), meta.get("seconds_by_instrument", {}))
        self.rounds, self.full_rounds = int(meta.get("rounds", 1)), int(meta.get("full_rounds", 1))
        self._about_data = dict(meta.get("data", {}))
        self.plan.done(step, dict.fromkeys(self._groups, 0.0), planned=False)

    def _note(self, measured: Round, step: int, seconds: float, planned: bool) -> None:
        taken = self.costs.note(measured.seconds, measured.passing, seconds)
        self.plan.done(step, taken, planned=planned)
        self.rounds += 1
        self.full_rounds += len(taken) == len(self._groups)
        self._budget.add(seconds)

    def _synchronize(self) -> None:
        if self._subject.device.type != "cpu":
            torch.accelerator.synchronize(self._subject.device)


def _checked(cadence: Mapping[str, int], groups: Sequence[str]) -> dict[str, int]:
    known = {*groups, *(group.partition(":")[0] for group in groups)}
    for key, every in cadence.items():
        if key not in known:
            raise SettingError(
                f"cadence names {key!r}, which is not measured now and then; there are {', '.join(groups)}."
            )
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise SettingError(f"cadence={{{key!r}: {every!r}}} must be a whole number of steps, at least 1.")
    return cadence_of(cadence, groups)


def _capture_failed(step: int, error: Exception) -> Finding:
    return Finding(
        "ST000", "capture", None, step, Outcome.FAILED, str(error), "check the data that were given to watch"
    )
