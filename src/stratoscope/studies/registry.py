"""Studies are found by walking this folder and the entry points `stratoscope.studies`, never by a list."""

from __future__ import annotations

import difflib
import pkgutil
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import Any

import stratoscope.studies as home
from stratoscope.errors import SettingError
from stratoscope.studies.study import Study

ENTRY_POINTS = "stratoscope.studies"


@cache
def available() -> dict[str, Study]:
    """Every study by its name: ours, then other people's in order of name.

    Raises:
        SettingError: if two have the same name, or one cannot be loaded.
    """
    found: dict[str, Study] = {}
    for module in sorted(pkgutil.iter_modules(home.__path__), key=lambda m: m.name):
        name = f"{home.__name__}.{module.name}.study"
        if module.ispkg and find_spec(name) is not None:
            _add(found, f"{name}:STUDY", getattr(import_module(name), "STUDY", None))
    for point in sorted(entry_points(group=ENTRY_POINTS), key=lambda p: p.name):
        try:
            study = point.load()
        except (ImportError, AttributeError) as error:
            raise SettingError(f"The study {point.name} ({point.value}) cannot be loaded: {error}.") from error
        _add(found, point.value, study)
    return found


def _add(found: dict[str, Study], where: str, study: Any) -> None:
    if not isinstance(study, Study):
        raise SettingError(f"{where} is no Study.")
    if study.name in found:
        raise SettingError(f"{where} has the name {study.name!r}, which another study has; change one of them.")
    found[study.name] = study


def study(name: str) -> Study:
    """The study of a name.

    Raises:
        SettingError: if there is none (names those that are near, and all).
    """
    known = available()
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name.lower().replace("_", "-"), known, n=1)
    meant = f" Did you mean {near[0]!r}?" if near else ""
    raise SettingError(f"There is no study {name!r}; there are {', '.join(known) or 'none'}.{meant}")
