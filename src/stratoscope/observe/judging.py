"""Findings from a record: every instrument and diagnosis judges what it saved, and muted codes are marked as such."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from stratoscope.diagnoses.registry import available as diagnoses
from stratoscope.diagnoses.registry import choose as choose_diagnoses
from stratoscope.errors import StratoscopeError
from stratoscope.findings import Finding, Outcome
from stratoscope.instruments.registry import available, choose, configured, prefix_of
from stratoscope.observe.deriving import Derived, derive, write
from stratoscope.observe.entries import group_of, labels_of
from stratoscope.observe.settings import Settings
from stratoscope.record.record import Record
from stratoscope.record.writer import RecordWriter

if TYPE_CHECKING:
    from stratoscope.diagnoses.base import Diagnosis
    from stratoscope.instruments.base import Judge
    from stratoscope.record.group import Group

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


Judging = Callable[["Judge", "Group"], Iterable[Finding]]
"""How one is asked what it says of its group."""


def judge(
    record: Record,
    judges: Iterable[Judge],
    settings: Settings | None = None,
    said: Iterable[Finding] = (),
    how: Judging | None = None,
) -> list[Finding]:
    """What instruments and diagnoses say of saved numbers, the most pressing first.

    Failures that were noted while measuring are kept, and why an instrument was not measured at all. An instrument whose
    judgement fails says so, and the others go on.

    Args:
        record: the record.
        judges: the instruments and diagnoses whose groups it may hold.
        settings: what is muted.
        said: what diagnoses that derived nothing say of that.
        how: how one is asked; `judgement` by default.
    """
    groups = {group_of(one, label): one for one, label in labels_of(judges).items()}
    there = {name: (one, record[name]) for name, one in groups.items() if name in record}
    return _judge(record, there, settings or Settings(), said, how or judgement)


def rejudge(record: Record, settings: Settings) -> list[Finding]:
    """The same from a record alone, with the settings that it was measured with and those of a settings file on top.

    What diagnoses derive is derived again, since it may depend on settings, too.
    """
    return rejudged(record, settings).findings


def rejudged(record: Record, settings: Settings) -> Record:
    """A record with what is found and derived anew in place of what was; see `rejudge`. Its file stays as it is.

    Raises:
        SettingError: if the settings name an instrument, a diagnosis or a field that does not exist.
    """
    choose(settings=settings.instruments)
    choose_diagnoses(settings=settings.diagnoses)
    groups: dict[str, tuple[Judge, Group]] = {}
    for name in record:
        key = name.partition(":")[0]
        cls = available().get(key)
        if cls is not None:
            known = _known(cls, _kept(record, name)) | dict(settings.instruments.get(key, {}))
            groups[name] = configured(cls, known), record[name]
    scratch = RecordWriter.create(None)
    derived = derive(record, diagnoses_of(record, settings))
    write(scratch, derived, max(record.steps, default=0))
    again = Record.from_writer(scratch)
    anew = {one.group: again.get(one.group) for one in derived}
    groups |= {one.group: (one.diagnosis, again[one.group]) for one in derived if one.group in again}
    return record.with_findings(_judge(record, groups, settings, said_of(record, derived), judgement), anew)


def silenced(findings: Iterable[Finding], settings: Settings) -> list[Finding]:
    """Findings whose code is muted as such, the others as they are; the most pressing first."""
    muted = [f if not settings.mutes(f.code) else dataclasses.replace(f, outcome=Outcome.MUTED) for f in findings]
    return sorted(muted, key=lambda f: (ORDER.index(f.outcome), f.code))


def diagnoses_of(record: Record, settings: Settings) -> list[Diagnosis]:
    """The diagnoses that belong to a record: those that it was made with, else all; with a settings file's values on top."""
    everything = diagnoses()
    names = record.meta.get("diagnoses")
    if not isinstance(names, list):
        return choose_diagnoses(settings=settings.diagnoses)
    return [
        configured(cls, _known(cls, _kept(record, name)) | dict(settings.diagnoses.get(cls.key, {})))
        for name in names
        if (cls := everything.get(name.partition(":")[0])) is not None
    ]


def said_of(record: Record, derived: Iterable[Derived]) -> list[Finding]:
    """What is to be said of diagnoses that derived nothing."""
    last = max(record.steps, default=None)
    found = ((one.group, one.finding(last)) for one in derived)
    return [dataclasses.replace(finding, instrument=group) for group, finding in found if finding is not None]


def _judge(
    record: Record,
    groups: Mapping[str, tuple[Judge, Group]],
    settings: Settings,
    said: Iterable[Finding],
    how: Judging,
) -> list[Finding]:
    before = [f for f in record.findings if f.instrument.partition(":")[0] not in diagnoses()]
    found = [f for f in before if f.outcome is Outcome.FAILED and JUDGEMENT not in f.says]
    # a training notes it at each measurement
    found += {
        (f.code, f.split): f for f in before if f.outcome is Outcome.NOT_APPLICABLE and f.code.endswith("000")
    }.values()
    found += said
    for name, (one, group) in groups.items():
        found += (dataclasses.replace(f, instrument=name) for f in how(one, group))
    if record.meta.get("watched"):
        found = [_of_a_beginning(f) for f in found]
    return silenced(found, settings)


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


def _known(cls: type[Judge], values: Mapping[str, object]) -> dict[str, object]:
    """Without the settings that there were in another release."""
    settings = {field.name for field in dataclasses.fields(cls)}
    return {name: value for name, value in values.items() if name in settings}


def judgement(one: Judge, group: Group) -> Iterator[Finding]:
    """What an instrument or diagnosis says of its group; that its judgement failed, if it does."""
    try:
        yield from list(one.judge(group))
    except StratoscopeError as error:
        yield _failed(one, str(error))
    except Exception as error:  # other people's judgements may raise anything, and must not take the others with them
        yield _failed(one, f"{type(error).__name__}: {error}")


def _failed(one: Judge, reason: str) -> Finding:
    return one.finding(f"{prefix_of(one)}000", Outcome.FAILED, f"{one.title}: {JUDGEMENT}: {reason}")
