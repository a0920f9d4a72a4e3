"""Pieces of one labelled array laid into a whole; what no piece covers is known as not measured."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stratoscope.errors import RecordError
from stratoscope.record.axis import Axis, Positions, union
from stratoscope.record.values import to_json

MAX_BYTES = 2**34
"""A whole that would be larger is refused with what to do instead."""


@dataclass(frozen=True)
class Piece:
    """A block of numbers, the labels along each of its dims, and what of it was measured (`None`: all)."""

    values: NDArray[Any]
    axes: tuple[Axis, ...]
    measured: NDArray[np.bool_] | None = None

    @property
    def covers(self) -> int:
        """How many places were measured."""
        return self.values.size if self.measured is None else int(np.count_nonzero(self.measured))


@dataclass(frozen=True)
class Joined:
    """The whole.

    Attributes:
        values: the numbers; where nothing was measured NaN, or `fill` for categories.
        axes: the labels along each dim.
        measured: what some piece covers; `None` if everything is.
        fill: the number that stands for "not measured" in an integer array, else `None`.
        overlaps: whether two pieces covered the same place (the later one is in `values`).
    """

    values: NDArray[Any]
    axes: tuple[Axis, ...]
    measured: NDArray[np.bool_] | None = None
    fill: int | None = None
    overlaps: bool = False


def join(pieces: Sequence[Piece], attrs: Mapping[str, Any], first: Mapping[int, Axis] | None = None) -> Joined:
    """Lay pieces of the same dims into one array, along the union of their labels in order of first appearance.

    Integers and truth values become float64 where something was not measured, since NaN needs a place, except
    categories (`flag_values` or `flag_meanings` in `attrs`), which are filled with -1.

    Args:
        pieces: at least one; a later piece wins where two cover the same place.
        attrs: of the variable.
        first: for some dims, by position, labels that come before all others, such as all steps in order.

    Raises:
        RecordError: if the whole would take more than 16 GiB.
    """
    axes, places = _places(pieces, first or {})
    if len(pieces) == 1 and axes == pieces[0].axes and pieces[0].measured is None:
        return Joined(pieces[0].values, axes)
    dtype = np.result_type(*(piece.values.dtype for piece in pieces))
    shape = tuple(axis.size for axis in axes)
    if prod(shape) * dtype.itemsize > MAX_BYTES:
        size = prod(shape) * dtype.itemsize / 2**30
        raise RecordError(f"This variable would take {size:.0f} GiB at once; read fewer steps with `group.read`.")
    indices = [_index(place, piece.values.shape) for piece, place in zip(pieces, places, strict=True)]
    measured = np.zeros(shape, dtype=np.bool_)
    for piece, index in zip(pieces, indices, strict=True):
        measured[index] = True if piece.measured is None else measured[index] | piece.measured
    covered = int(np.count_nonzero(measured))
    gaps = covered < measured.size
    dtype, fill = _with_gaps(dtype, attrs) if gaps else (dtype, None)
    values = np.full(shape, np.nan if fill is None else fill, dtype) if gaps else np.empty(shape, dtype)
    for piece, index in zip(pieces, indices, strict=True):
        values[index] = (
            piece.values if piece.measured is None else np.where(piece.measured, piece.values, values[index])
        )
    overlaps = covered < sum(piece.covers for piece in pieces)
    return Joined(values, axes, measured if gaps else None, fill, overlaps)


def _places(pieces: Sequence[Piece], first: Mapping[int, Axis]) -> tuple[tuple[Axis, ...], list[tuple[Positions, ...]]]:
    axes, columns = [], []
    for dim in range(pieces[0].values.ndim):
        lead = [first[dim]] if dim in first else []
        axis, places = union([*lead, *(piece.axes[dim] for piece in pieces)])
        axes.append(axis)
        columns.append(places[len(lead) :])
    return tuple(axes), list(zip(*columns, strict=True)) if columns else [()] * len(pieces)


def _index(places: tuple[Positions, ...], shape: tuple[int, ...]) -> Any:
    if all(isinstance(place, slice) for place in places):
        return places
    lists = [
        np.arange(size) + (place.start or 0) if isinstance(place, slice) else place
        for place, size in zip(places, shape, strict=True)
    ]
    return np.ix_(*lists)


def _with_gaps(dtype: np.dtype[Any], attrs: Mapping[str, Any]) -> tuple[np.dtype[Any], int | None]:
    if dtype.kind == "f":
        return dtype, None
    if dtype.kind != "i" or not ("flag_values" in attrs or "flag_meanings" in attrs):
        return np.dtype(np.float64), None
    flags = [int(value) for value in np.ravel(attrs.get("flag_values", 0))]
    return dtype, -1 if -1 not in flags else min(flags) - 1


def _told_apart(attrs: Mapping[str, Any]) -> Hashable:
    """Equal for attributes of the same values and kinds only; a list makes it their text."""
    key = tuple([(name, type(value), value) for name, value in attrs.items()])
    try:
        hash(key)
    except TypeError:
        return to_json(dict(attrs), "An attribute")
    return key


def merge_attrs(many: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The attributes of several pieces: the last one's value where they differ, named in `varies`.

    >>> merge_attrs([{"units": "1", "n": 5}, {"units": "1", "n": 7}])
    {'units': '1', 'n': 7, 'varies': ['n']}
    """
    # most are the same, of plain values: telling that takes a tenth of writing each of them out
    differing = {_told_apart(attrs): attrs for attrs in many}.values()
    distinct = list({to_json(dict(attrs), "An attribute"): attrs for attrs in differing}.values())
    merged = {key: value for attrs in (*distinct, *many[-1:]) for key, value in attrs.items()}
    varies = [key for key in merged if any(not _same(attrs.get(key), merged[key]) for attrs in distinct)]
    return {**merged, "varies": varies} if varies else merged


def _same(left: Any, right: Any) -> bool:
    return left is right or to_json(left, "An attribute") == to_json(right, "An attribute")
