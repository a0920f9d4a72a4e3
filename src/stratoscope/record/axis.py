"""The labels along one dim: kept compactly, read back exactly, joined in order of first appearance."""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stratoscope.errors import RecordError
from stratoscope.record.values import to_json

MAX_PLACES = 2**26
"""More places than this along one dim are refused, so that a hostile file cannot ask for all memory."""

Kind = Literal["count", "labels", "stacked", "tuples"]
Positions = slice | NDArray[np.intp]

_WHOLE = slice(None)


@dataclass(frozen=True)
class Axis:
    """Labels along one dim.

    Attributes:
        kind: `"count"` (0, 1, 2, ...; `members` is the number), `"labels"` (plain labels), `"stacked"` (pairs whose
            second part counts from 0; `members` are (first part, count)), `"tuples"` (any tuples).
        members: the labels in that form.
    """

    kind: Kind
    members: tuple[Any, ...]

    @classmethod
    def of(cls, labels: Sequence[Hashable] | None, size: int) -> Axis:
        """The most compact form of some labels.

        Args:
            labels: plain labels, or tuples of one length; `None` counts from 0.
            size: number of places along the dim.

        Raises:
            RecordError: if a label is no text, number or tuple of these.

        >>> Axis.of([("fc", 0), ("fc", 1), ("out", 0)], 3).members
        (('fc', 2), ('out', 1))
        """
        if labels is None:
            return cls("count", (size,))
        if not labels or not isinstance(labels[0], tuple):
            return cls._flat(tuple(plain(label) for label in labels))
        depth = len(labels[0])
        if depth == 0 or not all(isinstance(label, tuple) and len(label) == depth for label in labels):
            raise RecordError(f"Labels along one dim must be tuples of one length, and {labels[0]!r} is not like all.")
        return cls._nested(tuple(tuple(plain(part) for part in label) for label in labels))  # type: ignore[attr-defined]

    @classmethod
    def _flat(cls, labels: tuple[Any, ...]) -> Axis:
        counts = all(type(label) is int and label == place for place, label in enumerate(labels))
        return cls("count", (len(labels),)) if counts else cls("labels", labels)

    @classmethod
    def _nested(cls, labels: tuple[tuple[Any, ...], ...]) -> Axis:
        if len(labels[0]) != 2:
            return cls("tuples", labels)
        groups = []
        for first, run in groupby(labels, key=lambda label: (type(label[0]), label[0])):
            seconds = [label[1] for label in run]
            if not all(type(second) is int and second == place for place, second in enumerate(seconds)):
                return cls("tuples", labels)
            groups.append((first[1], len(seconds)))
        return cls("stacked", tuple(groups))

    @property
    def size(self) -> int:
        """Number of places, without listing them."""
        if self.kind == "count":
            return int(self.members[0])
        if self.kind == "stacked":
            return sum(count for _, count in self.members)
        return len(self.members)

    @property
    def depth(self) -> int:
        """How many parts a label has; 1 for plain labels."""
        if self.kind == "tuples":
            return len(self.members[0])
        return 2 if self.kind == "stacked" else 1

    def labels(self) -> tuple[Any, ...]:
        """Every label, in order."""
        if self.kind == "count":
            return tuple(range(self.members[0]))
        if self.kind == "stacked":
            return tuple((first, place) for first, count in self.members for place in range(count))
        return self.members

    def firsts(self) -> tuple[Any, ...]:
        """The distinct first parts of the labels (the labels themselves where they are plain), in order."""
        if self.kind == "stacked":
            return tuple(first for first, _ in self.members)
        if self.kind == "tuples":
            return tuple(dict.fromkeys(label[0] for label in self.members))
        return self.labels()

    def to_json(self) -> str:
        """The form on disk."""
        if len(self.members) == 1 and type(self.members[0]) is str:  # 1, 1.0 and True are equal and read differently
            return _of_one(self.kind, self.members[0])
        return to_json({self.kind: self.members}, "A label")

    @classmethod
    def from_json(cls, text: str) -> Axis:
        """Read the form on disk.

        Raises:
            RecordError: if it is none of the four forms, or far too long.
        """
        axis = _parse(text)
        if axis is None or axis.size > MAX_PLACES:
            raise RecordError(f"An axis of the record is damaged ({text:.60}); use a copy that is whole.")
        return axis


@lru_cache(maxsize=4096)
def _of_one(kind: Kind, label: str) -> str:
    """The form of a single name: a layer's, say, which hundreds of variables have."""
    return to_json({kind: (label,)}, "A label")


def _parse(text: str) -> Axis | None:
    try:
        ((kind, members),) = json.loads(text).items()
    except (ValueError, AttributeError):
        return None
    if not isinstance(members, list):
        return None
    if kind == "count":
        return Axis("count", tuple(members)) if len(members) == 1 and _is_count(members[0]) else None
    if kind == "labels":
        return Axis("labels", tuple(members)) if all(map(_is_plain, members)) else None
    rows = all(isinstance(row, list) and row and all(map(_is_plain, row)) for row in members)
    if not rows or kind not in ("stacked", "tuples"):
        return None
    lengths = {len(row) for row in members}
    pairs = kind == "tuples" or (lengths <= {2} and all(_is_count(row[1]) for row in members))
    return Axis(kind, tuple(map(tuple, members))) if pairs and (len(lengths) == 1 or kind == "stacked") else None


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MAX_PLACES


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float)


def plain(label: Any) -> Any:
    """A label as text, number or truth value of Python's own.

    Raises:
        RecordError: if it is none of these.
    """
    if label is None or type(label) in (str, int, float, bool):
        return label
    if hasattr(label, "item") and getattr(label, "ndim", 0) == 0:
        label = label.item()
    for kind in (bool, int, float, str):
        if isinstance(label, kind):
            return kind(label)
    raise RecordError(f"{label!r:.60} cannot be a label; labels are text, numbers, or tuples of these.")


def levels(dim: str, depth: int, taken: Iterable[str] = ()) -> tuple[str, ...]:
    """Names for the parts of the labels along a stacked dim: `layer_unit` has `layer` and `unit`.

    Args:
        dim: the stacked dim.
        depth: number of parts.
        taken: names that they must not have, such as those of the other dims.

    >>> levels("layer_unit", 2), levels("pair", 2)
    (('layer', 'unit'), ('pair_0', 'pair_1'))
    """
    names = tuple(dim.split("_", depth - 1))
    if len(names) != depth or not all(names) or len(set(names)) != depth:
        return tuple(f"{dim}_{place}" for place in range(depth))
    return tuple(f"{dim}_{name}" for name in names) if set(names) & set(taken) else names


def union(axes: Sequence[Axis]) -> tuple[Axis, list[Positions]]:
    """All labels of several axes, each once, in order of first appearance.

    Returns:
        The joined axis, and for each given axis where its labels lie along it.

    >>> union([Axis.of(["b", "a"], 2), Axis.of(["a", "c"], 2)])[0].labels()
    ('b', 'a', 'c')
    """
    first = axes[0]
    if all(axis is first or axis == first for axis in axes):
        return first, [_WHOLE] * len(axes)
    distinct = list({id(axis): axis for axis in axes}.values())
    joined, places = _union_stacked(distinct) or _union_any(distinct)
    where = {id(axis): _as_slice(place) for axis, place in zip(distinct, places, strict=True)}
    return joined, [where[id(axis)] for axis in axes]


def _union_any(axes: list[Axis]) -> tuple[Axis, list[NDArray[np.intp]]]:
    order: dict[Any, int] = {}
    listed = [axis.labels() for axis in axes]
    for labels in listed:
        for label in labels:
            order.setdefault(label, len(order))
    joined = Axis.of(tuple(order), len(order))
    return joined, [np.fromiter((order[label] for label in labels), np.intp, len(labels)) for labels in listed]


def _union_stacked(axes: list[Axis]) -> tuple[Axis, list[NDArray[np.intp]]] | None:
    """By groups, without listing a million labels; not possible where a group's size differs."""
    if not all(axis.kind == "stacked" for axis in axes):
        return None
    counts: dict[Any, int] = {}
    for axis in axes:
        for first, count in axis.members:
            if counts.setdefault(first, count) != count:
                return None
    if any(len(dict(axis.members)) != len(axis.members) for axis in axes):
        return None
    starts = dict(zip(counts, np.cumsum([0, *counts.values()])[:-1].tolist(), strict=True))
    joined = Axis("stacked", tuple(counts.items()))
    return joined, [_runs([(starts[first], count) for first, count in axis.members]) for axis in axes]


def _runs(runs: list[tuple[int, int]]) -> NDArray[np.intp]:
    return np.concatenate(
        [np.arange(start, start + count, dtype=np.intp) for start, count in runs] or [np.empty(0, np.intp)]
    )


def _as_slice(places: NDArray[np.intp]) -> Positions:
    if places.size and places[-1] - places[0] + 1 == places.size and bool((np.diff(places) == 1).all()):
        return slice(int(places[0]), int(places[-1]) + 1)
    return places
