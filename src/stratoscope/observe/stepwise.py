"""Instruments that measure at every step of a watched training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stratoscope.capture.gradients import TrainingGradients
from stratoscope.capture.needs import Need
from stratoscope.capture.views import Capture, Seen
from stratoscope.errors import NotApplicable
from stratoscope.findings import Finding, Outcome
from stratoscope.instruments.base import Instrument, NetworkInstrument
from stratoscope.instruments.registry import prefix_of
from stratoscope.network.subject import Subject
from stratoscope.observe.entries import entries_of
from stratoscope.observe.round import needs_of, status_of
from stratoscope.record.entry import Entry
from stratoscope.record.rows import Coverage, Passed
from stratoscope.record.writer import RecordWriter


class Stepwise:
    """Hands what a training step gave to its instruments, and what they made of it to the record.

    Args:
        subject: the network in training.
        labels: every instrument of the run with its label; those of every step are taken.
    """

    def __init__(self, subject: Subject, labels: Mapping[Instrument, str]) -> None:
        self._subject = subject
        self._labels = {i: label for i, label in labels.items() if i.every_step and isinstance(i, NetworkInstrument)}
        self._failed: set[Instrument] = set()
        self._captures = {i: Capture(subject, frozenset(i.requires | i.uses)) for i in self._labels}
        self._covered: dict[Instrument, tuple[list[Any], frozenset[Any]]] = {}
        self.gradient_needs = [need for need in needs_of(self._labels) if isinstance(need, TrainingGradients)]

    def record(self, writer: RecordWriter, step: int, live: Mapping[Need, Any], passed: Passed) -> None:
        """Measure one step. An instrument that fails says so once; training and the others go on."""
        entries: list[Entry] = []
        findings: list[Finding] = []
        coverage: list[Coverage] = []
        for instrument, label in self._labels.items():
            try:
                found = self._measure(instrument, live)
                entries += entries_of(instrument, found, None, label)
                labels = [value.coords.get("param", ()) for value in found.values()]
                coverage += self._new_coverage(step, instrument, labels)
            except NotApplicable:
                continue
            except Exception as error:  # other people's instruments may raise anything; training goes on
                self._failed.add(instrument)
                findings.append(_failed(instrument, step, error))
        # all of a step in one transaction, or after a kill a step would be there by half
        if findings or coverage:
            writer.commit(step, entries, findings=findings, coverage=coverage, epoch=passed.epoch, tokens=passed.tokens)
        elif entries:
            writer.append(step, entries, epoch=passed.epoch, tokens=passed.tokens)

    def _measure(self, instrument: NetworkInstrument, live: Mapping[Need, Any]) -> Any:
        if instrument in self._failed:
            raise NotApplicable("it failed before")
        capture = self._captures[instrument]
        capture.live = live
        return instrument.measure(Seen(None, capture))

    def _new_coverage(self, step: int, instrument: NetworkInstrument, labels: list[Any]) -> list[Coverage]:
        """Of every param whether it has a row, where that is new."""
        before, known = self._covered.get(instrument, ([], frozenset()))
        if labels == before:
            return []
        rows = frozenset(name for along in labels for name in along)
        if not rows or known == rows:
            return []
        self._covered[instrument] = (labels, rows)
        return [
            Coverage(instrument.key, self._labels[instrument], param.layer, param.name, "", step, *status)
            for param in self._subject.catalogue.params.values()
            for status in [status_of(param, rows, "no gradient reaches it")]
        ]


def _failed(instrument: Instrument, step: int, error: Exception) -> Finding:
    says = f"{instrument.title} failed at step {step}: {type(error).__name__}: {error}"
    return instrument.finding(
        f"{prefix_of(instrument)}000", Outcome.FAILED, says, step=step, do="run with --debug for the traceback"
    )
