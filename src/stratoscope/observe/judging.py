"""Findings from a record: every instrument judges what it saved, and muted codes are marked as such."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping

from stratoscope.errors import StratoscopeError
from stratoscope.findings import Finding, Outcome
from stratoscope.instruments.base import Instrument
from stratoscope.instruments.registry import available, configured, prefix_of
from stratoscope.observe.entries import group_of, labels_of
from stratoscope.observe.settings import Settings
from stratoscope.record.record import Record

JUDGEMENT = "its judgement failed"
"""How a finding begins that comes from judging, not from measuring, and goes when the record is judged again."""

ORDER = [
    Outcome.ISSUE,
    Outcome.FAILED,
    Outcome.TIP,
    Outcome.SKIPPED,
    Outcome.PASSED,
    Outcome.NOT_APPLICABLE,
    Outcome.MUTED,
]


def judge(record: Record, instruments: Iterable[Instrument], settings: Settings | None = None) -> list[Finding]:
    """What the instruments say of saved numbers, the most pressing first.

    Failures that were noted while measuring are kept, and why an instrument was not measured at all. An instrument whose
    judgement fails says so, and the others go on.
    """
    groups = {group_of(instrument, label): instrument for instrument, label in labels_of(instruments).items()}
    return _judge(record, {group: groups[group] for group in groups if group in record}, settings or Settings())


def rejudge(record: Record, settings: Settings) -> list[Finding]:
    """The same from a record alone, with the settings that its instruments had and those of a settings file on top."""
    groups = {}
    for group in record:
        key = group.partition(":")[0]
        cls = available().get(key)
        if cls is not None:
            known = {name: value for name, value in _kept(record, group).items() if name in cls.__dataclass_fields__}  # type: ignore[attr-defined]
            groups[group] = configured(cls, {**known, **settings.instruments.get(key, {})})
    return _judge(record, groups, settings)


def _judge(record: Record, groups: Mapping[str, Instrument], settings: Settings) -> list[Finding]:
    found = [f for f in record.findings if f.outcome is Outcome.FAILED and JUDGEMENT not in f.says]
    # a training notes it at each measurement
    found += {
        (f.code, f.split): f for f in record.findings if f.outcome is Outcome.NOT_APPLICABLE and f.code.endswith("000")
    }.values()
    for group, instrument in groups.items():
        found += (dataclasses.replace(f, instrument=group) for f in _of(record, instrument, group))
    if record.meta.get("watched"):
        found = [_of_a_beginning(f) for f in found]
    muted = [f if not settings.mutes(f.code) else dataclasses.replace(f, outcome=Outcome.MUTED) for f in found]
    return sorted(muted, key=lambda f: (ORDER.index(f.outcome), f.code))


def _of_a_beginning(finding: Finding) -> Finding:
    """A run that ended before a second measurement knows the untrained network only, to which no tip applies."""
    if finding.outcome is not Outcome.TIP or finding.step != 0:
        return finding
    says = f"{finding.says}; this is the network before training"
    return dataclasses.replace(finding, outcome=Outcome.SKIPPED, says=says, do="judge it when it has been trained")


def _kept(record: Record, key: str) -> dict[str, object]:
    described = record.meta.get("instruments", {})
    settings = described.get(key, {}).get("settings", {}) if isinstance(described, dict) else {}
    return {name: tuple(v) if isinstance(v, list) else v for name, v in settings.items()}


def _of(record: Record, instrument: Instrument, group: str) -> Iterator[Finding]:
    try:
        yield from list(instrument.judge(record[group]))
    except StratoscopeError as error:
        yield _failed(instrument, str(error))
    except Exception as error:
        yield _failed(instrument, f"{type(error).__name__}: {error}")


def _failed(instrument: Instrument, reason: str) -> Finding:
    return instrument.finding(
        f"{prefix_of(instrument)}000", Outcome.FAILED, f"{instrument.title}: {JUDGEMENT}: {reason}"
    )
