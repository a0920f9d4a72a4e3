"""Diagnoses are found by walking this folder and the entry points `stratoscope.diagnoses`, never by a list."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, TypeGuard

import stratoscope.diagnoses as home
from stratoscope.diagnoses.base import Diagnosis
from stratoscope.errors import SettingError
from stratoscope.instruments import registry as instruments
from stratoscope.instruments.registry import configured, discover

ENTRY_POINTS = "stratoscope.diagnoses"


@cache
def available() -> dict[str, type[Diagnosis]]:
    """Every diagnosis by its key: ours, then other people's in order of name.

    Raises:
        SettingError: if two diagnoses, or a diagnosis and an instrument, have the same key, or an entry point does not
            name one.
    """
    return discover(home, ENTRY_POINTS, is_diagnosis, _add, "diagnosis")


def _add(found: dict[str, type[Diagnosis]], cls: type[Diagnosis]) -> None:
    for kind, others in (("a diagnosis", found), ("an instrument", instruments.available())):
        other = others.get(cls.key)
        if other is not None:
            raise SettingError(
                f"{cls.__module__} has a diagnosis with the key {cls.key!r}, and {other.__module__} {kind}."
            )
    found[cls.key] = cls


def is_diagnosis(cls: Any) -> TypeGuard[type[Diagnosis]]:
    """Whether this is a class that can be used as a diagnosis."""
    return inspect.isclass(cls) and issubclass(cls, Diagnosis) and not inspect.isabstract(cls)


def choose(
    only: Iterable[str] | None = None,
    skip: Iterable[str] = (),
    settings: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[Diagnosis]:
    """Diagnoses with their settings.

    Args:
        only: keys; all where it is `None`.
        skip: keys to leave out.
        settings: for a key, values for fields of the diagnosis.

    Raises:
        SettingError: if a key or a setting does not exist (names those that do).
    """
    everything, settings = available(), settings or {}
    only, skip = None if only is None else set(only), set(skip)
    for key in (*(only or ()), *skip, *settings):
        if key not in everything:
            raise SettingError(f"There is no diagnosis {key!r}; there are {', '.join(everything) or 'none'}.")
    keys = [key for key in everything if (only is None or key in only) and key not in skip]
    return [configured(everything[key], settings.get(key, {})) for key in keys]
