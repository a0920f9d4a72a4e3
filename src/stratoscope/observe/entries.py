"""From what an instrument measured to rows of a record."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache

from stratoscope.instruments.base import Instrument
from stratoscope.instruments.registry import settings_of
from stratoscope.record.entry import Entry
from stratoscope.record.quantity import Quantity


@cache
def _settings(instrument: Instrument) -> str:
    return json.dumps(settings_of(instrument), sort_keys=True, default=str)


def entries_of(instrument: Instrument, found: Mapping[str, Quantity], split: str | None) -> list[Entry]:
    """One row for each variable, with the instrument's source and settings."""
    settings = _settings(instrument)
    return [Entry(instrument.key, name, value, split=split or "", settings=settings) for name, value in found.items()]


def describe(instruments: list[Instrument]) -> dict[str, dict[str, object]]:
    """What the record says of each instrument: title, source, codes, what it is."""
    import inspect
    import sys

    return {
        instrument.key: {
            "title": instrument.title,
            "source": instrument.source,
            "codes": dict(instrument.codes),
            "settings": settings_of(instrument),
            "method": inspect.getdoc(sys.modules[type(instrument).__module__])
            or inspect.getdoc(type(instrument))
            or "",
        }
        for instrument in instruments
    }
