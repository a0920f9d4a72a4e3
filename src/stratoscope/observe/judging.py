"""Findings from a record: every instrument judges what it saved, and muted codes are marked as such."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

from stratoscope.errors import StratoscopeError
from stratoscope.findings import Finding, Outcome
from stratoscope.instruments.base import Instrument
from stratoscope.instruments.registry import available, configured, prefix_of
from stratoscope.observe.settings import Settings
from stratoscope.record.record import Record

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
    settings = settings or Settings()
    found = [finding for finding in record.findings if finding.outcome is Outcome.FAILED]
    # a training notes it at each measurement
    found += {
        (f.code, f.split): f for f in record.findings if f.outcome is Outcome.NOT_APPLICABLE and f.code.endswith("000")
    }.values()
    for instrument in instruments:
        if instrument.key in record.keys():  # noqa: SIM118 - a record is no mapping
            found += _of(record, instrument)
    muted = [f if not settings.mutes(f.code) else dataclasses.replace(f, outcome=Outcome.MUTED) for f in found]
    return sorted(muted, key=lambda f: (ORDER.index(f.outcome), f.code))


def rejudge(record: Record, settings: Settings) -> list[Finding]:
    """The same from a record alone, with the settings that its instruments had and those of a settings file on top."""
    instruments = []
    for key in record.keys():  # noqa: SIM118 - a record is no mapping
        cls = available().get(key)
        if cls is not None:
            known = {name: value for name, value in _kept(record, key).items() if name in cls.__dataclass_fields__}  # type: ignore[attr-defined]
            instruments.append(configured(cls, {**known, **settings.instruments.get(key, {})}))
    return judge(record, instruments, settings)


def _kept(record: Record, key: str) -> dict[str, object]:
    described = record.meta.get("instruments", {})
    settings = described.get(key, {}).get("settings", {}) if isinstance(described, dict) else {}
    return {name: tuple(v) if isinstance(v, list) else v for name, v in settings.items()}


def _of(record: Record, instrument: Instrument) -> Iterator[Finding]:
    try:
        yield from list(instrument.judge(record[instrument.key]))
    except StratoscopeError as error:
        yield _failed(instrument, str(error))
    except Exception as error:
        yield _failed(instrument, f"{type(error).__name__}: {error}")


def _failed(instrument: Instrument, reason: str) -> Finding:
    return instrument.finding(
        f"{prefix_of(instrument)}000", Outcome.FAILED, f"{instrument.title}: its judgement failed: {reason}"
    )
