"""What diagnoses derive from a record, and how it is kept there: a group of its own for each."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from stratoscope.diagnoses.base import Diagnosis
from stratoscope.errors import NotApplicable, RecordError, StratoscopeError
from stratoscope.findings import Finding, Outcome
from stratoscope.instruments.registry import prefix_of
from stratoscope.observe.entries import entries_of, group_of, labels_of, quantities_of
from stratoscope.record.entry import Entry
from stratoscope.record.quantity import Quantity
from stratoscope.record.record import Record
from stratoscope.record.rows import Coverage
from stratoscope.record.writer import RecordWriter

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Derived:
    """What came of one diagnosis.

    Attributes:
        diagnosis: which one.
        label: which settings of it; `""` normally.
        found: what it derived; empty where it derived nothing.
        status: as in coverage: `"measured"`, `"not_applicable"` or `"failed"`.
        reason: why nothing was derived.
        reads: the groups that it read.
    """

    diagnosis: Diagnosis
    label: str
    found: Mapping[str, Quantity] = field(default_factory=dict)
    status: str = "measured"
    reason: str = ""
    reads: tuple[str, ...] = ()

    @property
    def group(self) -> str:
        """The name of its group in a record."""
        return group_of(self.diagnosis, self.label)

    def finding(self, step: int | None) -> Finding | None:
        """What to say where nothing was derived; nothing where nothing that it reads was measured at all."""
        code, title = f"{prefix_of(self.diagnosis)}000", self.diagnosis.title
        if self.status == "failed":
            says, do = f"{title} failed: {self.reason}", "run with --debug for the traceback, or skip this diagnosis"
            return self.diagnosis.finding(code, Outcome.FAILED, says, step=step, do=do)
        if self.status == "not_applicable" and self.reads:
            says = f"{title} does not apply: {self.reason}"
            return self.diagnosis.finding(code, Outcome.NOT_APPLICABLE, says, step=step)
        return None


def derive(record: Record, diagnoses: Iterable[Diagnosis]) -> list[Derived]:
    """Let each diagnosis derive what it can; one that fails takes nothing with it."""
    return [_derive(record, diagnosis, label) for diagnosis, label in labels_of(diagnoses).items()]


def _derive(record: Record, diagnosis: Diagnosis, label: str) -> Derived:
    telling = (diagnosis.reads - diagnosis.optional) | diagnosis.any_of
    reads = tuple(key for key in record if key.partition(":")[0] in telling)
    try:
        reads = tuple(group.key for group in diagnosis.groups(record).values())
        found = quantities_of(diagnosis.derive(record))
        # what cannot be kept is a failure of its own
        for _ in _slices(found, 0):
            pass
        if not found:
            raise NotApplicable("nothing follows from what was measured")
        return Derived(diagnosis, label, found, reads=reads)
    except NotApplicable as why:
        return Derived(diagnosis, label, status="not_applicable", reason=str(why), reads=reads)
    except Exception as error:  # other people's rules may raise anything; the record says that this one failed
        _LOG.debug("%s failed", diagnosis.title, exc_info=True)
        reason = str(error) if isinstance(error, StratoscopeError) else f"{type(error).__name__}: {error}"
        return Derived(diagnosis, label, status="failed", reason=reason, reads=reads)


def write(writer: RecordWriter, derived: Sequence[Derived], last: int) -> None:
    """Put what was derived in place of what was derived before.

    Args:
        writer: of the record from which it was derived.
        derived: from `derive`.
        last: the last step of the record.
    """
    by_step: dict[int, list[Entry]] = {last: []}
    for one in derived:
        writer.forget(one.diagnosis.key, one.label)
        for step, split, found in _slices(one.found, last):
            named = {name: _naming(value, one.reads) for name, value in found.items()}
            by_step.setdefault(step, []).extend(entries_of(one.diagnosis, named, split, one.label))
    coverage = [Coverage(one.diagnosis.key, one.label, "", "", "", last, one.status, one.reason) for one in derived]
    for step, entries in sorted(by_step.items()):
        covered = coverage if step == last else ()
        passed = writer.passed_at(step)
        writer.commit(step, entries, coverage=covered, epoch=passed.epoch, tokens=passed.tokens, cost_ms=0.0)


def _naming(value: Quantity, reads: tuple[str, ...]) -> Quantity:
    return Quantity(value.values, value.dims, value.coords, {**value.attrs, "reads": ", ".join(reads)})


def _slices(found: Mapping[str, Quantity], last: int) -> Iterator[tuple[int, str, dict[str, Quantity]]]:
    """For each step and split, the quantities that are known there, without these two dims."""
    parts: dict[tuple[int, str], dict[str, Quantity]] = {}
    for name, value in found.items():
        steps, values = _first(value, "step", (last,), np.asarray(value.values), value.dims)
        splits, values = _first(value, "split", ("",), values, ("step", *(d for d in value.dims if d != "step")), 1)
        rest = tuple(dim for dim in value.dims if dim not in ("step", "split"))
        coords = {dim: labels for dim, labels in value.coords.items() if dim in rest}
        for i, step in enumerate(steps):
            for j, split in enumerate(splits):
                part = values[i, j]
                if not _known(part):
                    continue
                whole = _whole(name, step)
                parts.setdefault((whole, str(split)), {})[name] = Quantity(part, rest, coords, value.attrs)
    for (step, split), quantities in sorted(parts.items(), key=lambda part: part[0][0]):  # splits as they came
        yield step, split, quantities


def _first(
    value: Quantity, dim: str, absent: tuple[Any, ...], values: np.ndarray, dims: Sequence[str], place: int = 0
) -> tuple[tuple[Any, ...], np.ndarray]:
    """The labels along a dim, and the values with that dim at a place; of length one where there is none."""
    if dim not in value.dims:
        return absent, np.expand_dims(values, place)
    return value.labels(dim), np.moveaxis(values, list(dims).index(dim), place)


def _known(part: np.ndarray) -> bool:
    return part.dtype.kind != "f" or not bool(np.isnan(part).all())


def _whole(name: str, step: Any) -> int:
    try:
        if int(step) == step:
            return int(step)
    except (TypeError, ValueError):
        pass
    raise RecordError(f"{name} has the step {step!r}; label the dim 'step' with the record's steps.")
