"""Theories are found by walking this folder and the entry points `stratoscope.theories`, never by a list."""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any, TypeGuard

import stratoscope.diagnoses.theories as home
from stratoscope.diagnoses.theories.base import Phase, Theory
from stratoscope.errors import SettingError
from stratoscope.instruments.registry import discover

ENTRY_POINTS = "stratoscope.theories"


@cache
def theories() -> dict[str, type[Theory]]:
    """Every theory by its key, in the order in which a timeline shows them.

    Raises:
        SettingError: if two have the same key, a phase of the same name with another letter, or an entry point does
            not name one.
    """
    found: dict[str, type[Theory]] = discover(home, ENTRY_POINTS, is_theory, _add, "theory")
    return dict(sorted(found.items(), key=lambda item: (item[1].order, item[0])))


def table() -> tuple[Phase, ...]:
    """The phases of all theories, each once: the table whose places are the codes in a record."""
    return tuple({phase.name: phase for cls in theories().values() for phase in cls.stated}.values())


def is_theory(cls: Any) -> TypeGuard[type[Theory]]:
    """Whether this is a class that can be used as a theory."""
    return inspect.isclass(cls) and issubclass(cls, Theory) and not inspect.isabstract(cls)


def _add(found: dict[str, type[Theory]], cls: type[Theory]) -> None:
    if cls.key in found:
        other = found[cls.key]
        raise SettingError(f"{cls.__module__} and {other.__module__} both have a theory with the key {cls.key!r}.")
    letters = {phase.name: phase.letter for other in found.values() for phase in other.stated}
    for phase in cls.stated:
        if letters.get(phase.name, phase.letter) != phase.letter:
            raise SettingError(
                f"{cls.__module__} calls the phase {phase.name!r} {phase.letter!r}, and others {letters[phase.name]!r}."
            )
    found[cls.key] = cls
