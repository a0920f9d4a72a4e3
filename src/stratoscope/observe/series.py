"""Which files are checkpoints of one network along its training, and at which step each of them stands.

Several paths, a pattern such as `runs/*.pt`, or a folder that `open_weights` cannot open as one checkpoint may be a series.
A folder that it can open is one checkpoint, its shards too.
"""

from __future__ import annotations

import glob
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from stratoscope.errors import OpenError
from stratoscope.network.opening import INDEX, endings, open_weights
from stratoscope.network.stores import some
from stratoscope.network.torchfile import OTHERS
from stratoscope.network.weights import WeightSource

ALIKE = 0.75
"""Tensors of the same name and shape, of all tensors of two checkpoints, from which both are taken for one network."""

_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_SHARD = re.compile(r"^(.*)[-_]\d{3,}-of-(\d{3,})\.\w+$")
_STEP = re.compile(r"(steps?|iter|iteration|global_step|updates?|checkpoint|ckpt)[-_= ]?$", re.IGNORECASE)
_MOST_STEP = 2**62


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint of a series.

    Attributes:
        path: where it lies.
        name: what tells it from the others.
        step: where it stands along `step`.
    """

    path: Path
    name: str
    step: int


@dataclass(frozen=True)
class Series:
    """Checkpoints of one network, in order of step.

    Attributes:
        checkpoints: at least two.
        axis: what `step` is, for people.
        left_out: files beside them that are no part of the series.
    """

    checkpoints: tuple[Checkpoint, ...]
    axis: str
    left_out: tuple[str, ...] = ()


def find_series(paths: Sequence[str | Path]) -> Series | Path:
    """What some paths mean: one checkpoint, or several along a training.

    Args:
        paths: files, folders, and patterns with `*`, `?` or `[...]`.

    Returns:
        A series, or the path of the one checkpoint.

    Raises:
        OpenError: if a pattern fits nothing, a folder holds nothing that can be opened, or nothing was given.
    """
    places = [place for path in paths for place in _matches(path)]
    chosen = list(dict.fromkeys(_without_shards(places)))
    if not chosen:
        raise OpenError("No path was given; name a file, a folder or a pattern such as 'runs/*.pt'.")
    for path in chosen:
        if not path.exists():
            raise OpenError(f"There is no file or folder {str(path)!r}; this runs in {Path.cwd()}.")
    if len(chosen) == 1:
        return _within(chosen[0])
    found = [_within(path, alone=False) for path in chosen]
    every = [path for one in found for path in _paths_of(one)]
    left_out = tuple(name for one in found if isinstance(one, Series) for name in one.left_out)
    return _series(every, left_out)


def _paths_of(found: Series | Path) -> list[Path]:
    return [checkpoint.path for checkpoint in found.checkpoints] if isinstance(found, Series) else [found]


def _matches(path: str | Path) -> list[Path]:
    """The path itself, or what a pattern fits."""
    place = Path(path).expanduser()
    if place.exists() or not glob.has_magic(str(place)):
        return [place]
    found = sorted(map(Path, glob.glob(str(place))), key=lambda one: natural(str(one)))
    if not found:
        raise OpenError(f"Nothing fits the pattern {str(path)!r}; this runs in {Path.cwd()}.")
    return [
        one for one in found if _is_weights(one) or (one.is_dir() and any(map(_is_weights, one.iterdir())))
    ] or found


def _without_shards(places: Iterable[Path]) -> list[Path]:
    """The folder of a sharded checkpoint in place of its shards."""
    return [place.parent if _SHARD.match(place.name) and place.is_file() else place for place in places]


def _within(path: Path, alone: bool = True) -> Series | Path:
    """One checkpoint, or the series that a folder holds; one of several that holds neither is told of when measured."""
    if not path.is_dir():
        return path
    try:
        open_weights(path)
    except OpenError as error:
        found = _in_folder(path)
        if found is None and alone:
            raise error from None
        return found or path
    return path


def _in_folder(folder: Path) -> Series | Path | None:
    """Files or subfolders of a folder whose names differ in a number; `None` where there are none."""
    children = sorted((child for child in folder.iterdir() if child.name[0] != "."), key=lambda one: natural(one.name))
    files = [child for child in children if child.is_file() and _is_weights(child)]
    opening = [child for child in children if child.is_dir() and _opens(child)]
    folders = [child for child in opening if _NUMBER.search(child.name)]
    for found in (files, folders):
        shapes = Counter(_shape(child) for child in found)
        common = [child for child in found if shapes and _shape(child) == shapes.most_common(1)[0][0]]
        if found is folders and common:  # one that was not written to its end is not silently left out
            common = [child for child in children if child.is_dir() and _shape(child) == _shape(common[0])]
        if len(common) > 1:
            return _series(common, tuple(child.name for child in found if child not in common))
    return opening[0] if len(opening) == 1 and not files else None


def _opens(folder: Path) -> bool:
    try:
        open_weights(folder)
    except OpenError:
        return False
    return True


def _is_weights(path: Path) -> bool:
    """Whether a file may hold the weights of a network, by its name."""
    name = path.name.lower()
    return name.endswith(endings()) and not name.endswith(INDEX) and not OTHERS.search(path.name)


def _shape(path: Path) -> str:
    """A name without its numbers."""
    return _NUMBER.sub("#", path.name)


def natural(name: str) -> list[tuple[int, int, str]]:
    """A key that sorts names as people count.

    >>> sorted(["b10", "b9", "a"], key=natural)
    ['a', 'b9', 'b10']
    """
    parts = re.split(r"(\d+)", name)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part.lower()) for part in parts if part]


def _series(paths: Sequence[Path], left_out: tuple[str, ...]) -> Series:
    ordered = sorted(paths, key=lambda path: natural(str(path)))
    names = _short(ordered)
    steps, axis = steps_of(names)
    found = [Checkpoint(path, name, step) for path, name, step in zip(ordered, names, steps, strict=True)]
    return Series(tuple(sorted(found, key=lambda one: one.step)), axis, left_out)


def _short(paths: Sequence[Path]) -> list[str]:
    """Paths without the folders that all of them share."""
    parts = [path.resolve().parts for path in paths]
    shared = 0
    while all(len(own) > shared + 1 for own in parts) and len({own[shared] for own in parts}) == 1:
        shared += 1
    return ["/".join(own[shared:]) for own in parts]


def steps_of(names: Sequence[str]) -> tuple[list[int], str]:
    """The step of each name: the last whole number that differs, one called step before others; else its place.

    Args:
        names: in natural order.

    Returns:
        The steps, all different, and what they are.

    >>> steps_of(["epoch=1-step=200.ckpt", "epoch=2-step=400.ckpt"])
    ([200, 400], 'the number after "step=" in the name')
    >>> steps_of(["best.pt", "last.pt"])[0]
    [0, 1]
    """
    stems = [re.sub(r"\.[A-Za-z]\w*$", "", name) for name in names]
    if len({_NUMBER.sub("#", stem) for stem in stems}) == 1:
        before = _NUMBER.split(stems[0])
        columns = list(zip(*(_NUMBER.findall(stem) for stem in stems), strict=True))
        places = [place for place, column in enumerate(columns) if _all_differ(column)]
        places.sort(key=lambda place: (_STEP.search(before[place]) is not None, place))
        if places:
            found = [int(text) for text in columns[places[-1]]]
            return found, _said(before[places[-1]])
    return list(range(len(names))), "the place in order of name, since the names have no number that tells them apart"


def _all_differ(column: Sequence[str]) -> bool:
    whole = all(text.isdecimal() and int(text) < _MOST_STEP for text in column)
    return whole and len(set(map(int, column))) == len(column)


def _said(before: str) -> str:
    word = re.split(r"[/\\]", before)[-1].lstrip("-_ ")[-16:]
    return f'the number after "{word}" in the name' if word else "the number in the name"


def different(first: WeightSource, other: WeightSource) -> str:
    """Why two checkpoints are not of one network, as part of a sentence; empty if they may be."""
    one, two = ({name: info.shape for name, info in source.describe().items()} for source in (first, other))
    shared = [name for name in one if two.get(name) == one[name]]
    union = len(one.keys() | two.keys())
    if union == 0 or len(shared) >= ALIKE * union:
        return ""
    alone = [name for name in two if name not in shared]
    what = f"; {some(alone)} not so in the first" if alone else ""
    return f"only {len(shared)} of {union} tensors have the same name and shape in both{what}"
