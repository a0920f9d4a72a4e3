"""Formats of weights beside safetensors and torch's own: one file each, found by walking this folder.

A file whose name does not begin with `_` has a `FORMAT`; nothing else must be edited for a new one.
"""

from __future__ import annotations

import pkgutil
from functools import cache
from importlib import import_module
from pathlib import Path

from stratoscope.network.formats._format import Format

__all__ = ["Format", "endings", "format_of_file", "format_of_folder"]


@cache
def _formats() -> tuple[Format, ...]:
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return tuple(import_module(f"{__name__}.{name}").FORMAT for name in names if not name.startswith("_"))


def endings() -> tuple[str, ...]:
    """The endings of files that are read here.

    >>> ".onnx" in endings()
    True
    """
    return tuple(ending for found in _formats() for ending in found.endings)


def format_of_file(path: Path) -> Format | None:
    """The format that a file's ending names, or else its first bytes; `None` if neither does."""
    name = path.name.lower()
    for found in _formats():
        if name.endswith(found.endings):
            return found
    with path.open("rb") as file:
        start = file.read(16)
    return next((found for found in _formats() if found.magic and start.startswith(found.magic)), None)


def format_of_folder(folder: Path) -> Format | None:
    """The format of which a folder is one checkpoint, `None` if it is none of these."""
    return next((found for found in _formats() if found.is_folder is not None and found.is_folder(folder)), None)
