"""The weights of a network after a change of a layer's units: made at the map that gives them, undone at those that read."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from stratoscope.numerics.change_of_basis import ChangeOfBasis, Group
from stratoscope.observe.functions import Call
from stratoscope.observe.region import Reader, Region


def refitted(region: Region, change: ChangeOfBasis, names: Mapping[int, str]) -> dict[str, Tensor]:
    """The new value of every param and buffer that changes, by name, in the type and on the device of the old one.

    Args:
        region: where the change enters and leaves the network.
        change: of the layer's units.
        names: of the network's params and buffers, by `id`.
    """
    found: dict[int, Tensor] = {}
    if Group.SCALING in change.groups:
        for norm, _ in region.norms:
            found |= _carried(norm, change)
        scales = {id(norm): torch.ones(region.units, dtype=torch.float64) for norm, _ in region.norms}
    else:
        scales = {id(norm): _gain(norm) for norm, _ in region.norms}

    def gain(norms: tuple[Call, ...]) -> Tensor:
        one = torch.ones(region.units, dtype=torch.float64)
        for norm in norms:
            one = one * scales[id(norm)]
        return one

    # what acts on the layer acts on the map before it, times the gains in between
    start = change.matrix * gain(region.site_norms)
    found |= _made(region.source, start, change.shift)
    for reader in region.readers:
        inverse = gain(reader.norms)[:, None] / gain(region.site_norms)[:, None] * change.inverse
        found |= _reading(reader, inverse, change.shift)
    if Group.SCALING not in change.groups:
        for norm, before in region.norms:
            at = start / gain((*before, norm))
            found |= _emptied(norm, at @ _offset(norm))
    return {names[key]: value for key, value in found.items()}


def _made(source: Call, matrix: Tensor, shift: Tensor) -> dict[int, Tensor]:
    """The linear map that gives the units: it gives the changed ones."""
    weight, bias = source.given["weight"], source.given.get("bias")
    matrix, shift = matrix.to(weight), shift.to(weight)
    axis = 1 if "transpose" in source.name else 0
    found = {id(weight): torch.tensordot(matrix, weight, ([1], [axis])).movedim(0, axis)}
    return found if bias is None else found | {id(bias): matrix @ bias + shift}


def _reading(reader: Reader, inverse: Tensor, shift: Tensor) -> dict[int, Tensor]:
    """A linear map that reads the units: it undoes the change."""
    weight, bias, place = reader.call.given["weight"], reader.call.given.get("bias"), reader.place
    inverse, shift = inverse.to(weight), shift.to(weight)
    if "transpose" in reader.call.name:
        return {id(weight): torch.tensordot(inverse, weight, ([0], [0]))}
    rest = weight.shape[2:] if weight.ndim > 2 else (place.inner,)
    outer = place.outer if weight.ndim == 2 else 1
    laid = weight.reshape(weight.shape[0], outer, len(inverse), *rest)
    new = torch.tensordot(laid, inverse, ([2], [0])).movedim(-1, 2)
    found = {id(weight): new.reshape(weight.shape)}
    if bias is None:
        return found
    return found | {id(bias): bias - new.flatten(3).sum(3).sum(1) @ shift}


def _carried(norm: Call, change: ChangeOfBasis) -> dict[int, Tensor]:
    """A batch norm between: of each unit as before, at its new place and in its new unit."""
    given = norm.given
    mean, variance = given["running_mean"], given["running_var"]
    matrix, shift = change.matrix.to(mean), change.shift.to(mean)
    order = (matrix != 0).to(mean)
    found = {id(mean): matrix @ mean + shift, id(variance): order @ variance}
    weight, bias = given.get("weight"), given.get("bias")
    if weight is not None:
        found[id(weight)] = order @ weight
    return found if bias is None else found | {id(bias): matrix @ bias + shift}


def _gain(norm: Call) -> Tensor:
    given = norm.given
    scale: Tensor = (given["running_var"].double() + given.get("eps", 1e-5)).rsqrt().cpu()
    weight = given.get("weight")
    return scale if weight is None else scale * weight.double().cpu()


def _offset(norm: Call) -> Tensor:
    bias = norm.given.get("bias")
    mean: Tensor = norm.given["running_mean"].double().cpu()
    offset = -mean * _gain(norm)
    return offset if bias is None else offset + bias.double().cpu()


def _emptied(norm: Call, shift: Tensor) -> dict[int, Tensor]:
    """A batch norm whose gains went into the linear maps: it adds a vector and does nothing else."""
    given = norm.given
    mean, variance = given["running_mean"], given["running_var"]
    found = {id(mean): -shift.to(mean), id(variance): torch.full_like(variance, 1.0 - given.get("eps", 1e-5))}
    for name, value in (("weight", 1.0), ("bias", 0.0)):
        if given.get(name) is not None:
            found[id(given[name])] = torch.full_like(given[name], value)
    return found
