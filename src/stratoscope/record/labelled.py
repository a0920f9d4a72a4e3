"""Numbers and axes as xarray sees them: stacked dims carry a MultiIndex."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stratoscope.record.axis import Axis, levels

if TYPE_CHECKING:
    import xarray as xr


def labelled(
    values: NDArray[Any],
    dims: Sequence[str],
    axes: Sequence[Axis],
    *,
    name: str,
    attrs: Mapping[str, Any],
    names: Mapping[str, tuple[str, ...]] | None = None,
) -> xr.DataArray:
    """Numbers with their labels.

    Args:
        values: the numbers.
        dims: a name for each axis.
        axes: labels along each.
        name: of the variable.
        attrs: of the variable.
        names: the level names of stacked dims, where they are not the usual ones.
    """
    import xarray as xr

    # plain labels in one go: putting them together one by one takes xarray a millisecond
    coords = xr.Coordinates({dim: labels(axis) for dim, axis in zip(dims, axes, strict=True) if axis.depth == 1})
    for dim, axis in zip(dims, axes, strict=True):
        if axis.depth > 1:
            coords = coords.assign(coordinate(dim, axis, (names or {}).get(dim) or levels(dim, axis.depth, dims)))
    return xr.DataArray(values, dims=tuple(dims), coords=coords, name=name, attrs=dict(attrs))


def coordinate(dim: str, axis: Axis, names: tuple[str, ...]) -> xr.Coordinates:
    """The labels along one dim."""
    import xarray as xr

    if axis.depth == 1:
        return xr.Coordinates({dim: labels(axis)})
    import pandas as pd

    if axis.kind == "stacked":
        counts = [count for _, count in axis.members]
        codes = [np.repeat(np.arange(len(counts)), counts), columns(axis)[1]]
        index = pd.MultiIndex(
            levels=[_index(axis.firsts()), np.arange(max(counts, default=0))], codes=codes, names=names
        )
    else:
        index = pd.MultiIndex.from_arrays([_index(part) for part in zip(*axis.members, strict=True)], names=names)
    return xr.Coordinates.from_pandas_multiindex(index, dim)


def columns(axis: Axis) -> list[NDArray[Any]]:
    """The parts of the labels, each as one array as long as the axis."""
    if axis.kind == "stacked":
        counts = [count for _, count in axis.members]
        seconds = [np.arange(count) for count in counts] or [np.empty(0, np.int64)]
        return [np.repeat(column(axis.firsts()), counts), np.concatenate(seconds)]
    if axis.kind == "tuples":
        return [column(part) for part in zip(*axis.members, strict=True)]
    return [labels(axis)]


def labels(axis: Axis) -> NDArray[Any]:
    """The labels of an axis that is not stacked."""
    return column(axis.members if axis.kind == "labels" else range(axis.size))


def column(labels: Sequence[Any]) -> NDArray[Any]:
    """Labels of one kind as an array of that kind; of several kinds as objects."""
    if isinstance(labels, range):
        return np.arange(len(labels))
    kinds = {type(label) for label in labels}
    if len(kinds) == 1 and kinds <= {str, int, float, bool}:
        try:
            return np.array(labels)
        except OverflowError:
            pass
    array = np.empty(len(labels), dtype=object)
    array[:] = labels
    return array


def _index(labels: Sequence[Any]) -> Any:
    import pandas as pd

    array = column(labels)
    return pd.Index(array.astype(object) if array.dtype.kind in "US" else array)
