"""What a training in progress is advised: what its record says so far, and when to stop for transfer."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from stratoscope.diagnoses.base import Diagnosis
from stratoscope.diagnoses.stopping_answers import ADVICE
from stratoscope.diagnoses.transfer import Transfer, told_at_last
from stratoscope.findings import Finding, Outcome
from stratoscope.instruments.base import Instrument, Judge
from stratoscope.observe.deriving import Derived, derive, write
from stratoscope.observe.entries import labels_of
from stratoscope.observe.judging import judge, judgement, said_of
from stratoscope.record.record import Record
from stratoscope.record.writer import RecordWriter

if TYPE_CHECKING:
    from stratoscope.observe.settings import Settings
    from stratoscope.record.group import Group

_PRESSING = (Outcome.ISSUE, Outcome.FAILED, Outcome.TIP)


@dataclass(frozen=True)
class Stop:
    """When to stop for transfer.

    Attributes:
        step: at which; the best step of a real probe where data of another task were given, else the rule's.
        first: first step of the interval: of those at which the probe is not shown to be worse, or the rule's.
        last: its last step.
        now: step at which this was known.
        why: what it rests on, in words.
    """

    step: int
    first: int
    last: int
    now: int
    why: str

    @property
    def passed(self) -> bool:
        """Whether training has gone past the interval."""
        return self.now > self.last

    @classmethod
    def of(cls, measured: Group | None) -> Stop | None:
        """The stop that a record's group `transfer` speaks of; `None` where there is no advice.

        Args:
            measured: the group, if there is one.
        """
        at = None if measured is None else told_at_last(measured)
        if at is None:
            return None
        if math.isfinite(at["transfer_best"]):
            names, why = (
                ("transfer_best", "transfer_best_low", "transfer_best_high"),
                "a probe for the other task was best",
            )
        elif at["state"] == ADVICE:
            names = ("stop", "stop_low", "stop_high")
            why = "between the least reconstruction error and the best classifier"
        else:
            return None
        step, first, last = (int(at[name]) for name in names)
        return cls(step, first, last, at.step, why)


@dataclass(frozen=True)
class Advice:
    """What is known of a training by now.

    Attributes:
        step: of the last measurement that it rests on; `None` where there is none.
        findings: issues and tips of now, the most pressing first, and what failed.
        transfer_step: step to stop at, or whose weights to take, for other tasks; `None` where there is no advice.
        transfer_interval: first and last step that will do as well as is known.
        passed: whether training has gone past that interval: stop now. It may be withdrawn, if the classifier, or the
            probe for the other task, becomes better once more.
    """

    step: int | None = None
    findings: tuple[Finding, ...] = ()
    transfer_step: int | None = None
    transfer_interval: tuple[int, int] | None = None
    passed: bool = False

    def __str__(self) -> str:
        """A few lines for people."""
        if self.step is None:
            return "No advice yet: nothing was measured."
        lines = [f"Advice at step {self.step:,}:"]
        if self.transfer_interval is not None:
            first, last = self.transfer_interval
            now = "; that has passed, stop now" if self.passed else ""
            lines.append(f"  for transfer, stop at step {self.transfer_step:,} (between {first:,} and {last:,}){now}")
        for finding in self.findings:
            lines.append(f"  {finding.outcome} {finding.code}: {finding.says}")
            lines += [f"    {finding.do}"] if finding.do else []
        return "\n".join(lines if len(lines) > 1 else [f"Nothing to do at step {self.step:,}."])


class Adviser:
    """Works out advice from a record in progress, and remembers what has not changed since.

    It writes nothing to the record. What an instrument said is said again as long as its group has no new step, and what a
    diagnosis derived as long as no group that it reads has one.

    Args:
        judges: the instruments and diagnoses of the run.
        settings: what is muted.
    """

    def __init__(self, judges: Iterable[Judge], settings: Settings) -> None:
        self._judges, self._settings = list(judges), settings
        self._diagnoses = [one for one in self._judges if isinstance(one, Diagnosis)]
        self._said: dict[str, tuple[object, list[Finding]]] = {}
        self._derived: dict[Diagnosis, tuple[object, Derived]] = {}

    def advise(self, record: Record, step: int) -> Advice:
        """What is known by now.

        Args:
            record: as it was written until now.
            step: of the last measurement; below 0 where there is none.
        """
        if step < 0:
            return Advice()
        derived = [self._derive(record, one, label) for one, label in labels_of(self._diagnoses).items()]
        with RecordWriter.create(None) as scratch:
            write(scratch, derived, step)
            there = Record.from_writer(scratch)
            anew = {one.group: there.get(one.group) for one in derived}
            whole = record.with_findings(record.findings, anew)
            found = judge(whole, self._judges, self._settings, said_of(record, derived), self._judgement)
            stop = next((Stop.of(anew[one.group]) for one in derived if isinstance(one.diagnosis, Transfer)), None)
        pressing = tuple(finding for finding in found if finding.outcome in _PRESSING)
        if stop is None:
            return Advice(step, pressing)
        return Advice(step, pressing, stop.step, (stop.first, stop.last), stop.passed)

    def _derive(self, record: Record, diagnosis: Diagnosis, label: str) -> Derived:
        read = [name for name in record if name.partition(":")[0] in diagnosis.reads]
        lived = any(
            one.every_step for one in self._judges if isinstance(one, Instrument) and one.key in diagnosis.reads
        )
        steps = None if lived else {name: record[name].steps for name in read}
        kept = self._derived.get(diagnosis)
        if kept is None or steps is None or kept[0] != steps:
            found = replace(derive(record, [diagnosis])[0], label=label)
            kept = self._derived[diagnosis] = steps, found
            self._said.pop(found.group, None)
        return kept[1]

    def _judgement(self, one: Judge, group: Group) -> Iterable[Finding]:
        """What one says of its group; a group of every step has always a new one."""
        if isinstance(one, Instrument) and one.every_step:
            return judgement(one, group)
        # what was derived anew was forgotten already
        steps = group.steps if isinstance(one, Instrument) else None
        kept = self._said.get(group.key)
        if kept is None or kept[0] != steps:
            kept = self._said[group.key] = steps, list(judgement(one, group))
        return kept[1]
