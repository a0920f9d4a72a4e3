"""One instrument's results for each layer, joined into one variable each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from stratoscope.errors import RecordError
from stratoscope.record.axis import Axis
from stratoscope.record.join import Piece, join, merge_attrs
from stratoscope.record.quantity import Quantity, quantity

GLOBAL = ("layer", "matrix", "param")
"""Dims whose labels are unique in the whole network, alone or at the front of a stacked dim."""

RAGGED = ("unit", "eigen", "head", "token")
"""Dims that count anew in each layer, and have another length there."""


def assemble(per_layer: Mapping[str, Mapping[str, Quantity]]) -> dict[str, Quantity]:
    """Join per-layer results into one quantity for each variable.

    What decides is the first of a variable's dims that is in one of these lists; the others are shared:

    * `layer`, `matrix`, `param`, or stacked behind one of them (`matrix_eigen`): laid one after the other, since
      their labels are unique in the network;
    * `unit`, `eigen`, `head`, `token`: stacked to `layer_unit` and so on, with the labels `(layer, unit)`, so that
      layers of different width need no padding;
    * none of them: a new first dim `layer`.

    Shared dims (`class`, `bin`, `seed`, ...) should have the same labels in every layer; otherwise they get all
    labels in order of first appearance, and NaN where a layer has none (-1 for categories). A number that differs
    between layers should be a variable; of an attribute that differs the last is kept, and `varies` names it.

    Args:
        per_layer: for each layer, its variables by name.

    Raises:
        RecordError: if a variable has other dims in another layer, or two layers give the same matrix or param.

    >>> shares = {"fc": [0.1, 0.9], "out": [1.0]}
    >>> joined = assemble(
    ...     {name: {"share": quantity(x, units="1", long_name="share", dims="unit")} for name, x in shares.items()}
    ... )
    >>> joined["share"].dims, joined["share"].labels("layer_unit")
    (('layer_unit',), (('fc', 0), ('fc', 1), ('out', 0)))
    """
    variables: dict[str, dict[str, Quantity]] = {}
    for layer, found in per_layer.items():
        for name, measured in found.items():
            variables.setdefault(name, {})[layer] = measured
    return {name: _assemble(name, found) for name, found in variables.items()}


def _assemble(name: str, found: Mapping[str, Quantity]) -> Quantity:
    dims = next(iter(found.values())).dims
    for layer, measured in found.items():
        if measured.dims != dims:
            raise RecordError(
                f"{name} has the dims {dims} in {next(iter(found))} and {measured.dims} in {layer}; make them one."
            )
    place = next((place for place, dim in enumerate(dims) if _is_global(dim) or dim in RAGGED), None)
    if place is None:
        return _join(name, found, ("layer", *dims), _as_layer)
    if _is_global(dims[place]):
        return _join(name, found, dims, lambda _, measured: _piece(measured))
    stacked = (*dims[:place], f"layer_{dims[place]}", *dims[place + 1 :])
    return _join(name, found, stacked, lambda layer, measured: _as_stacked(layer, measured, place))


def _join(name: str, found: Mapping[str, Quantity], dims: tuple[str, ...], turn: Any) -> Quantity:
    attrs = merge_attrs([measured.attrs for measured in found.values()])
    joined = join([turn(layer, measured) for layer, measured in found.items()], attrs)
    if joined.overlaps:
        raise RecordError(f"Two layers give {name} for the same {dims[0]}; give each name once.")
    if joined.fill is not None:
        attrs["_FillValue"] = joined.fill
    coords = {dim: axis.labels() for dim, axis in zip(dims, joined.axes, strict=True) if axis.kind != "count"}
    return Quantity(joined.values, dims, coords, attrs)


def _piece(measured: Quantity) -> Piece:
    values = np.asarray(measured.values)
    sizes = zip(measured.dims, values.shape, strict=True)
    return Piece(values, tuple(Axis.of(measured.coords.get(dim), size) for dim, size in sizes))


def _as_layer(layer: str, measured: Quantity) -> Piece:
    piece = _piece(measured)
    return Piece(piece.values[None], (Axis("labels", (layer,)), *piece.axes))


def _as_stacked(layer: str, measured: Quantity, place: int) -> Piece:
    piece = _piece(measured)
    axis = piece.axes[place]
    if axis.kind == "count":
        stacked = Axis("stacked", ((layer, axis.size),))
    else:
        labels = tuple((layer, *(label if isinstance(label, tuple) else (label,))) for label in axis.labels())
        stacked = Axis.of(labels, len(labels))
    return Piece(piece.values, (*piece.axes[:place], stacked, *piece.axes[place + 1 :]))


def _is_global(dim: str) -> bool:
    return dim in GLOBAL or dim.startswith(tuple(f"{name}_" for name in GLOBAL))


def ragged(
    values: Mapping[str, ArrayLike],
    outer: str = "matrix",
    inner: str = "eigen",
    *,
    units: str,
    long_name: str,
    **attrs: Any,
) -> Quantity:
    """Vectors of different lengths as one quantity, for layers that have several matrices.

    Args:
        values: a vector for each name; the names are unique in the network.
        outer: the dim that the names lie along.
        inner: the dim that each vector lies along, counted from 0.
        units: as in `quantity`.
        long_name: as in `quantity`.
        **attrs: as in `quantity`.

    Returns:
        A quantity with the one dim `outer_inner` and the labels `(name, place)`.

    Raises:
        RecordError: if one of the values is not a vector.

    >>> ragged({"q": [3.0, 1.0], "k": [2.0]}, units="1", long_name="singular value").labels("matrix_eigen")
    (('q', 0), ('q', 1), ('k', 0))
    """
    vectors = {
        name: quantity(vector, units=units, long_name=long_name, dims=inner).values for name, vector in values.items()
    }
    labels = tuple((name, place) for name, vector in vectors.items() for place in range(len(vector)))
    together = np.concatenate(list(vectors.values())) if vectors else np.empty(0)
    dim = f"{outer}_{inner}"
    return quantity(together, units=units, long_name=long_name, dims=dim, coords={dim: labels}, **attrs)
