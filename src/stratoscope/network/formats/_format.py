"""What a format of weights is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from stratoscope.network.weights import WeightSource


@dataclass(frozen=True)
class Format:
    """One way to keep weights on disk.

    Attributes:
        name: for people.
        endings: of file names, in lower case; empty for folders.
        open: makes a source of a path; reads no tensor, runs nothing, raises `OpenError`.
        magic: the first bytes, where they tell the format without an ending.
        is_folder: whether a folder is one checkpoint of this format.
    """

    name: str
    endings: tuple[str, ...]
    open: Callable[[Path], WeightSource]
    magic: bytes = b""
    is_folder: Callable[[Path], bool] | None = None
