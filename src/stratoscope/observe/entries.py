"""From what an instrument measured to rows of a record."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, TypeVar

from stratoscope.errors import CaptureError, SettingError
from stratoscope.instruments.base import Judge
from stratoscope.instruments.registry import settings_of
from stratoscope.record.entry import Entry
from stratoscope.record.quantity import Quantity

J = TypeVar("J", bound=Judge)


@cache
def _settings(instrument: Judge) -> str:
    return json.dumps(settings_of(instrument), sort_keys=True, default=str)


def labels_of(instruments: Iterable[J]) -> dict[J, str]:
    """Each instrument once, with what tells it from others of the same key: the settings in which they differ.

    Raises:
        SettingError: if an instrument cannot be compared by value.

    >>> from stratoscope.instruments.units import Units
    >>> list(labels_of([Units(), Units(), Units(slope=0.2)]).values())
    ['slope=0.1', 'slope=0.2']
    """
    instruments = list(instruments)
    try:
        once = list(dict.fromkeys(instruments))
    except TypeError as error:
        raise SettingError(f"An instrument's settings must be plain values that do not change: {error}.") from error
    labels = {}
    for instrument in once:
        own = settings_of(instrument)
        others = [settings_of(other) for other in once if other.key == instrument.key and other is not instrument]
        differing = [name for name in own if any(other.get(name) != own[name] for other in others)]
        labels[instrument] = ",".join(f"{name}={own[name]}" for name in differing)
    return labels


def group_of(instrument: Judge, label: str) -> str:
    """The name of its group in a record."""
    return f"{instrument.key}:{label}" if label else instrument.key


def entries_of(instrument: Judge, found: Mapping[str, Quantity], split: str | None, label: str = "") -> list[Entry]:
    """One row for each variable, with the instrument's source and settings."""
    settings = _settings(instrument)
    return [Entry(instrument.key, name, value, label, split or "", settings) for name, value in found.items()]


def quantities_of(found: Any) -> Mapping[str, Quantity]:
    """A data set as quantities; a mapping of quantities as it is.

    Raises:
        CaptureError: if it is neither.
    """
    if isinstance(found, Mapping) and all(isinstance(value, Quantity) for value in found.values()):
        return found
    if not hasattr(found, "data_vars"):
        raise CaptureError(
            f"it gave {found!r:.80}; a mapping from names to quantities is wanted, as quantity(...) makes."
        )
    return {
        str(name): Quantity(
            array.values,
            tuple(str(dim) for dim in array.dims),
            {str(d): tuple(array.coords[d].values.tolist()) for d in array.dims if d in array.coords},
            dict(array.attrs),
        )
        for name, array in found.data_vars.items()
    }


def describe(instruments: Iterable[Judge]) -> dict[str, dict[str, object]]:
    """What the record says of each instrument: title, source, codes, what it is."""
    import inspect
    import sys

    return {
        group_of(instrument, label): {
            "title": instrument.title,
            "source": instrument.source,
            "codes": dict(instrument.codes),
            "settings": settings_of(instrument),
            "method": inspect.getdoc(sys.modules[type(instrument).__module__])
            or inspect.getdoc(type(instrument))
            or "",
        }
        for instrument, label in labels_of(instruments).items()
    }
