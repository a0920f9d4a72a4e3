"""Paths of files within a folder, as indexes and descriptions of checkpoints name them."""

from __future__ import annotations

from pathlib import PurePosixPath, PureWindowsPath


def plain_name(name: object) -> str:
    """The path of a file within a folder that a description names.

    Raises:
        ValueError: if it could lead out of the folder.
    """
    if not isinstance(name, str) or not name or "\0" in name:
        raise ValueError(f"{name!r} is no file name")
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or PureWindowsPath(name).drive or "\\" in name:
        raise ValueError(f"{name!r} leads out of the folder")
    return name
