"""Instruments are found by walking this folder and the entry points `stratoscope.instruments`, never by a list."""

from __future__ import annotations

import dataclasses
import inspect
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any, TypeGuard, TypeVar

import stratoscope.instruments as home
from stratoscope.errors import SettingError
from stratoscope.instruments.base import Instrument, Judge, NetworkInstrument

ENTRY_POINTS = "stratoscope.instruments"

J = TypeVar("J", bound=Judge)
T = TypeVar("T")


@cache
def available() -> dict[str, type[Instrument]]:
    """Every instrument by its key: ours, then other people's in order of name.

    Raises:
        SettingError: if two instruments have the same key, or an entry point does not name one.
    """
    return discover(home, ENTRY_POINTS, is_instrument, _add, "instrument")


def discover(
    home: ModuleType,
    group: str,
    fits: Callable[[Any], TypeGuard[type[T]]],
    add: Callable[[dict[str, type[T]], type[T]], None],
    what: str,
) -> dict[str, type[T]]:
    """Every class of a kind by its key: those in the files of a folder, then those that entry points name.

    Args:
        home: the folder.
        group: of the entry points.
        fits: whether something is such a class.
        add: takes one in, or refuses it.
        what: what to call one.

    Raises:
        SettingError: if `add` refuses one, or an entry point does not name one.
    """
    found: dict[str, type[T]] = {}
    for module in sorted(pkgutil.iter_modules(home.__path__), key=lambda m: m.name):
        for _, cls in inspect.getmembers(import_module(f"{home.__name__}.{module.name}"), inspect.isclass):
            if fits(cls) and cls.__module__ == f"{home.__name__}.{module.name}":
                add(found, cls)
    for point in sorted(entry_points(group=group), key=lambda p: p.name):
        cls = point.load()
        if not fits(cls):
            raise SettingError(f"The entry point {point.name!r} ({point.value}) is no {what} class.")
        add(found, cls)
    return found


def _add(found: dict[str, type[Instrument]], cls: type[Instrument]) -> None:
    if cls.key in found:
        other = found[cls.key]
        raise SettingError(f"{cls.__module__} and {other.__module__} both have an instrument with the key {cls.key!r}.")
    if cls.every_step and not issubclass(cls, NetworkInstrument):
        raise SettingError(f"{cls.__module__}.{cls.__name__} measures every step, so it must be a NetworkInstrument.")
    found[cls.key] = cls


def is_instrument(cls: Any) -> TypeGuard[type[Instrument]]:
    """Whether this is a class that can be used as an instrument."""
    return inspect.isclass(cls) and issubclass(cls, Instrument) and not inspect.isabstract(cls)


def choose(
    only: Iterable[str] = (), skip: Iterable[str] = (), settings: Mapping[str, Mapping[str, Any]] | None = None
) -> list[Instrument]:
    """Instruments with their settings.

    Args:
        only: keys, or one; all where it is empty.
        skip: keys to leave out, or one.
        settings: for a key, values for fields of the instrument.

    Raises:
        SettingError: if a key or a setting does not exist (names those that do), or nothing is left.
    """
    everything, settings = available(), settings or {}
    only, skip = ((given,) if isinstance(given, str) else tuple(given) for given in (only, skip))
    for key in (*only, *skip, *settings):
        if key not in everything:
            raise SettingError(f"There is no instrument {key!r}; there are {', '.join(everything)}.")
    keys = [key for key in everything if (not only or key in set(only)) and key not in set(skip)]
    if not keys:
        raise SettingError(f"No instrument is left: only {', '.join(only) or 'all'}, without {', '.join(skip)}.")
    return [configured(everything[key], settings.get(key, {})) for key in keys]


def configured(cls: type[J], values: Mapping[str, Any]) -> J:
    """An instrument with some settings changed.

    Raises:
        SettingError: if there is no such setting, or its value has another type.
    """
    fields = {field.name: field for field in dataclasses.fields(cls)}
    # files of settings know lists only
    values = {name: fixed(value) for name, value in values.items()}
    for name, value in values.items():
        if name not in fields:
            raise SettingError(f"{cls.key} has no setting {name!r}; it has {', '.join(fields) or 'none'}.")
        default = fields[name].default
        number = isinstance(default, (int, float)) and not isinstance(default, bool)
        fits = (
            isinstance(value, (int, float)) and not isinstance(value, bool)
            if number
            else isinstance(value, type(default))
        )
        if default is not dataclasses.MISSING and default is not None and not fits:
            raise SettingError(f"{cls.key}.{name} must be of type {type(default).__name__}, not {value!r}.")
    return cls(**values)


def fixed(value: Any) -> Any:
    """Lists, and those within them, as tuples: settings do not change."""
    return tuple(fixed(item) for item in value) if isinstance(value, list) else value


def settings_of(instrument: Judge) -> dict[str, Any]:
    """The settings as plain values.

    Raises:
        SettingError: if it is no dataclass, so that nobody can say what its settings are.
    """
    if not dataclasses.is_dataclass(instrument):
        raise SettingError(f"{type(instrument).__name__} must be a frozen dataclass, whose fields are its settings.")
    return {field.name: getattr(instrument, field.name) for field in dataclasses.fields(instrument)}


def prefix_of(instrument: Judge | type[Judge]) -> str:
    """The letters that begin each of its codes, as `"UN"`."""
    return next(iter(instrument.codes)).rstrip("0123456789") if instrument.codes else instrument.key[:2].upper()
