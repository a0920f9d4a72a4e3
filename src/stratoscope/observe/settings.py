"""Settings that people keep beside their project: thresholds and muted codes, in `stratoscope.toml`."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stratoscope.errors import SettingError

FILE = "stratoscope.toml"


@dataclass(frozen=True)
class Settings:
    """What a settings file says.

    Attributes:
        instruments: for an instrument's key, values for its fields.
        mute: codes of findings that nobody wants to see; one ending in `*` mutes all that begin so.
        diagnoses: for a diagnosis' key, values for its fields.
    """

    instruments: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    mute: tuple[str, ...] = ()
    diagnoses: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def mutes(self, code: str) -> bool:
        """Whether findings of this code are muted."""
        return matches(code, self.mute)


def matches(code: str, patterns: Iterable[str]) -> bool:
    """Whether a code is among some, of which one that ends in `*` stands for all that begin so.

    >>> matches("UN002", ["SP*", "UN*"]), matches("UN002", ["UN00"])
    (True, False)
    """
    return any(code == one or (one.endswith("*") and code.startswith(one[:-1])) for one in patterns)


def load_settings(path: str | Path | None = None, folder: Path | None = None) -> Settings:
    """Read a settings file: the one named, else `stratoscope.toml` in the folder, else none.

    ```toml
    mute = ["UN002"]

    [instruments.units]
    dead_limit = 0.3

    [diagnoses.depth]
    margin = 0.05
    ```

    Args:
        path: a file; it must exist.
        folder: where to look otherwise; the working directory by default.

    Raises:
        SettingError: if the file is missing, is no TOML, or holds what no settings file holds.
    """
    chosen = Path(path) if path is not None else (folder or Path.cwd()) / FILE
    if not chosen.is_file():
        if path is not None:
            raise SettingError(f"There is no settings file {chosen}.")
        return Settings()
    try:
        content = tomllib.loads(chosen.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingError(f"{chosen} is not valid TOML: {error}.") from error
    unknown = set(content) - {"mute", "instruments", "diagnoses"}
    if unknown:
        known = "'mute', 'instruments' and 'diagnoses'"
        raise SettingError(f"{chosen} holds {sorted(unknown)[0]!r}; a settings file holds {known}.")
    mute = content.get("mute", [])
    if not isinstance(mute, list) or not all(isinstance(code, str) for code in mute):
        raise SettingError(f"{chosen}: 'mute' must be a list of codes, not {mute!r}.")
    for name, one in (("instruments", "instrument"), ("diagnoses", "diagnosis")):
        tables = content.get(name, {})
        if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
            raise SettingError(f"{chosen}: {name!r} must hold one table for each {one}.")
    return Settings(content.get("instruments", {}), tuple(mute), content.get("diagnoses", {}))
