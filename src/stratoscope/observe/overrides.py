"""Settings that are given one by one, as text: `--set units.dead_limit=0.3`."""

from __future__ import annotations

import dataclasses
import math
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from stratoscope.diagnoses.registry import available as diagnoses
from stratoscope.errors import SettingError
from stratoscope.instruments.base import Instrument, Judge
from stratoscope.instruments.registry import available as instruments
from stratoscope.instruments.registry import configured, fixed
from stratoscope.observe.settings import Settings

_TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclass(frozen=True)
class Override:
    """One setting of one instrument or diagnosis.

    Attributes:
        judge: the class that has it.
        field: its name.
        value: the value, of the field's type.
    """

    judge: type[Judge]
    field: str
    value: Any

    @property
    def decides_what_is_measured(self) -> bool:
        """Whether it changes what an instrument looks at, so that saved numbers cannot tell what it would do."""
        if not issubclass(self.judge, Instrument):
            return False
        usual, other = configured(self.judge, {}), configured(self.judge, {self.field: self.value})
        return (usual.requires, usual.uses) != (other.requires, other.uses)


def override(text: str) -> Override:
    """Read one setting.

    Args:
        text: `KEY.FIELD=VALUE`, the value as it would stand in a settings file; quotes may be left out.

    Raises:
        SettingError: if it is written otherwise, there is no such key or field, or the value has another type.

    >>> override("units.dead_limit=0.3").value
    0.3
    """
    name, equals, value = text.partition("=")
    key, dot, field = name.strip().partition(".")
    if not (equals and dot and key and field):
        raise SettingError(f"--set {text}: write KEY.FIELD=VALUE, as in --set units.dead_limit=0.3.")
    every: dict[str, type[Judge]] = {**instruments(), **diagnoses()}
    if key not in every:
        raise SettingError(f"There is no instrument {key!r}, nor a diagnosis; there are {', '.join(every)}.")
    judge = every[key]
    fields = {one.name: one for one in dataclasses.fields(judge)}
    if field not in fields:
        raise SettingError(f"{key} has no setting {field!r}; it has {', '.join(fields) or 'none'}.")
    found = Override(judge, field, _value(name.strip(), value.strip(), fields[field]))
    configured(judge, {field: found.value})  # a value that the judge refuses is refused here
    return found


def overridden(settings: Settings, overrides: Iterable[Override] = (), mute: Iterable[str] = ()) -> Settings:
    """Settings with single ones changed, and further codes muted."""
    tables: dict[str, dict[str, dict[str, Any]]] = {
        "instruments": {key: dict(table) for key, table in settings.instruments.items()},
        "diagnoses": {key: dict(table) for key, table in settings.diagnoses.items()},
    }
    for one in overrides:
        room = "instruments" if issubclass(one.judge, Instrument) else "diagnoses"
        tables[room].setdefault(one.judge.key, {})[one.field] = one.value
    return Settings(tables["instruments"], (*settings.mute, *mute), tables["diagnoses"])


def _value(name: str, text: str, field: dataclasses.Field[Any]) -> Any:
    """A text as a value of the type of a field's default."""
    default = field.default
    read: Callable[[str], Any]
    wanted, read = "", _free
    if isinstance(default, bool):
        wanted, read = "true or false", _truth
    elif isinstance(default, int) and "float" not in str(field.type):
        wanted, read = "a whole number", int
    elif isinstance(default, int | float):
        wanted, read = "a number", _number
    elif isinstance(default, str):
        read = _text
    elif isinstance(default, tuple):
        wanted, read = "a list, such as [1, 2]", lambda given: _tuple(given, default)
    try:
        return read(text)
    except (ValueError, KeyError) as error:
        raise SettingError(f"--set {name}={text}: it must be {wanted}; it is {default!r} by default.") from error


def _truth(text: str) -> bool:
    return _TRUTH[text.lower()]


def _number(text: str) -> float:
    found = float(text)
    if math.isnan(found):
        raise ValueError(text)
    return found


def _text(text: str) -> str:
    found = _toml(text)
    return found if isinstance(found, str) else text


def _tuple(text: str, default: tuple[Any, ...]) -> tuple[Any, ...]:
    """A list as in a settings file, or its items with commas between them."""
    found = _toml(text if text.startswith("[") else f"[{text}]")
    items = fixed(found) if isinstance(found, list) else tuple(part.strip() for part in text.split(","))
    kind = type(default[0]) if default else object
    if not all(isinstance(item, kind) or (kind is float and isinstance(item, int)) for item in items):
        raise ValueError(text)
    return items


def _free(text: str) -> Any:
    """A value of a setting that has none by default, so that nothing says of what type it is."""
    return None if text.lower() == "none" else fixed(_toml(text))


def _toml(text: str) -> Any:
    """A value of a settings file; a text that is none is taken as it stands."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, KeyError):
        return text
