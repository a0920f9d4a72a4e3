"""How far a change of a layer's units reaches, and whether everything on the way lets it pass.

A change of basis enters where a linear map gives the units, and leaves where linear maps read them. What lies between must
commute with it: dropout and averages over positions with any linear map, rectifiers and maxima with a positive factor for
each unit and an order of units, other functions that look at each number alone with an order of units only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from stratoscope.errors import SubjectError
from stratoscope.numerics.change_of_basis import Group
from stratoscope.observe.functions import Call, FunctionGraph

LINEAR = ("linear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d")

_DROPOUTS = ("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout")
_AVERAGES = tuple(f"{kind}{d}d" for kind in ("avg_pool", "adaptive_avg_pool") for d in (1, 2, 3))
_SHAPES = ("flatten", "view", "reshape", "squeeze", "unsqueeze", "unflatten", "view_as", "reshape_as")
_ANY = (*_DROPOUTS, *_AVERAGES, *_SHAPES, "contiguous", "clone", "detach", "mean", "permute", "transpose", "pad", "interpolate")  # fmt: skip
_SCALING = (
    "relu", "relu_", "leaky_relu", "leaky_relu_", "prelu", "abs",
    *(f"{kind}{d}d" for kind in ("max_pool", "adaptive_max_pool") for d in (1, 2, 3)),
)  # fmt: skip
_PERMUTATION = (
    "tanh", "tanh_", "sigmoid", "sigmoid_", "gelu", "silu", "elu", "elu_", "selu", "selu_", "celu", "mish", "softplus",
    "softsign", "hardtanh", "hardtanh_", "relu6", "hardswish", "hardsigmoid", "logsigmoid", "tanhshrink", "softshrink",
    "hardshrink", "exp", "sin", "cos", "erf", "square",
)  # fmt: skip
PASSES: dict[str, Group] = (
    dict.fromkeys(_ANY, Group.INVERTIBLE)
    | dict.fromkeys(_SCALING, Group.SCALING)
    | dict.fromkeys(_PERMUTATION, Group.PERMUTATION)
)
"""What functions commute with, by name."""

_WORDS = {
    Group.PERMUTATION: "only an order of units (permute)",
    Group.SCALING: "only a positive factor for each unit and their order (rescale, permute)",
}


@dataclass(frozen=True)
class Place:
    """Where the units are in a value: along one axis, each `inner` times in a row, and all that `outer` times."""

    axis: int
    outer: int = 1
    inner: int = 1


@dataclass(frozen=True)
class Reader:
    """A linear map that reads the units.

    Attributes:
        call: its function.
        place: where the units are in its input.
        norms: the batch norms on the way from the source.
    """

    call: Call
    place: Place
    norms: tuple[Call, ...]


@dataclass
class Region:
    """All that a change of basis touches.

    Attributes:
        source: the linear map that gives the units.
        site_norms: batch norms between the source and the layer.
        readers: the linear maps that read them.
        norms: every batch norm on the way, each with those before it.
        units: how many there are.
        shift: why no vector may be added; empty if one may.
    """

    source: Call
    units: int
    site_norms: tuple[Call, ...] = ()
    readers: list[Reader] = field(default_factory=list)
    norms: list[tuple[Call, tuple[Call, ...]]] = field(default_factory=list)
    shift: str = ""


def region_of(graph: FunctionGraph, model: nn.Module, layer: str, groups: frozenset[Group]) -> Region:
    """Where a change of basis of a layer's output enters and leaves the network.

    Args:
        graph: of one forward pass.
        model: whose pass it was.
        layer: name of the layer, for sentences.
        groups: what the change belongs to.

    Raises:
        SubjectError: if there is no such region; says what is in the way.
    """
    if len(graph.at_layer) != 1 or graph.at_layer[0] < 0:
        times = f"is called {len(graph.at_layer)} times" if len(graph.at_layer) != 1 else "gives no tensor"
        raise _refusal(layer, f"it {times} in one forward pass")
    source = _source(graph, layer, graph.at_layer[0])
    weight = source.given["weight"]
    region = Region(source, weight.shape[1] if "transpose" in source.name else weight.shape[0])
    axis = len(source.shapes[1]) - 1 if source.name == "linear" else 1
    seen: list[int] = []
    todo: list[tuple[int, Place, tuple[Call, ...]]] = [(source.outputs[0], Place(axis), ())]
    while todo:
        value, place, norms = todo.pop()
        seen.append(value)
        if value == graph.at_layer[0]:
            region.site_norms = norms
        todo += _beyond(graph, region, (value, place, norms), layer, groups)
    if graph.at_layer[0] not in seen:
        raise _refusal(layer, "its output cannot be followed")
    _check_params(graph, region, model, layer)
    return region


def _source(graph: FunctionGraph, layer: str, value: int) -> Call:
    """The linear map that the value comes from, through whatever lies between."""
    while True:
        call = graph.producer(value)
        if call is None:
            raise _refusal(layer, "no linear map of the network makes it")
        if call.name in LINEAR:
            return call
        if (call.name not in PASSES and not _is_norm(call)) or len(call.inputs) != 1:
            raise _refusal(layer, f"it is made by {call.name}, through which no change of basis can be traced back")
        value = call.inputs[0]


def _beyond(
    graph: FunctionGraph, region: Region, at: tuple[int, Place, tuple[Call, ...]], layer: str, groups: frozenset[Group]
) -> Iterator[tuple[int, Place, tuple[Call, ...]]]:
    """What a value's readers make of it, where they let the change pass; linear maps end it."""
    value, place, norms = at
    calls = graph.consumers(value)
    if value in graph.returned or not calls:
        raise _refusal(layer, "what the network returns would change: no linear map follows")
    for call in calls:
        if call.name in LINEAR:
            if call.inputs != (value,):
                raise _refusal(layer, f"a weight of {call.name} is computed as the network runs (a parametrization?)")
            _read(region, Reader(call, place, norms), layer)
        elif _is_norm(call) and call.inputs == (value,):
            region.norms.append((call, norms))
            _check_norm(region, call, place, layer)
            yield call.outputs[0], place, (*norms, call)
        else:
            yield _through(region, call, value, layer, groups), _moved(call, place, layer), norms


def _through(region: Region, call: Call, value: int, layer: str, groups: frozenset[Group]) -> int:
    """The value beyond a function that lets the change pass."""
    group = PASSES.get(call.name)
    if len(call.inputs) > 1 and call.name not in PASSES:
        raise _refusal(layer, f"{call.name} joins it with another value, such as a shortcut")
    if group is None or call.inputs != (value,) or len(call.outputs) != 1:
        raise _refusal(layer, f"{call.name} reads it, which is not known to commute with any change of its units")
    if group not in groups:
        raise _refusal(layer, f"{call.name} lies between the linear maps, which commutes with {_WORDS[group]}")
    if call.name in _DROPOUTS and call.given.get("training", True) and call.given.get("p", 0.5):
        raise _refusal(layer, f"{call.name} is at work although the network is in eval mode")
    if call.name == "prelu" and call.given["weight"].numel() > 1:
        raise _refusal(layer, "prelu lies between the linear maps, with a slope of its own for each unit")
    if group is not Group.INVERTIBLE:
        region.shift = region.shift or f"{call.name} lies between the linear maps"
    if call.name == "pad" and call.given.get("mode", "constant") == "constant":
        region.shift = region.shift or "a border of constants is put around it"
    if call.name.startswith("avg_pool") and call.given.get("padding", 0) not in (0, (0,), (0, 0), (0, 0, 0)):
        region.shift = region.shift or "averages count a border of zeros"
    return call.outputs[0]


def _moved(call: Call, place: Place, layer: str) -> Place:
    """Where the units are after a function."""
    before, after = call.shapes
    found: Place | None = place
    if call.name in _SHAPES:
        found = _reshaped(before, after, place)
    elif call.name in ("permute", "transpose"):
        order = _order(call, len(before))
        found = Place(order.index(place.axis), place.outer, place.inner) if order and order[0] == 0 else None
    elif call.name == "mean":
        found = _averaged(call, len(before), place)
    elif call.name == "pad":
        pad = call.given.get("pad", ())
        found = place if place.axis < len(before) - len(pad) // 2 else None
    elif "pool" in call.name or call.name == "interpolate":
        found = place if place.axis == 1 and place.inner == place.outer == 1 and len(before) > 2 else None
    if found is None:
        raise _refusal(layer, f"{call.name} lays its units out of {before} into {after}, where they cannot be followed")
    return found


def _reshaped(before: tuple[int, ...], after: tuple[int, ...], place: Place) -> Place | None:
    """Neighbouring axes were joined: which one holds the units now, and how often each."""
    axis = place.axis
    for last in range(axis + 1, len(before) + 1):
        for first in range(axis, 0, -1):  # examples stay an axis of their own
            for to, size in enumerate(after):
                same = prod(after[:to]) == prod(before[:first]) and prod(after[to + 1 :]) == prod(before[last:])
                if same and size == prod(before[first:last]):
                    outer, inner = prod(before[first:axis]), prod(before[axis + 1 : last])
                    return Place(to, outer * place.outer, place.inner * inner)
    return None


def _order(call: Call, ndim: int) -> list[int]:
    """Which axis of the input each axis of the output is."""
    order = list(range(ndim))
    if call.name == "permute":
        dims: Any = call.given.get("dims", call.given["args"][1:])
        dims = dims[0] if len(dims) == 1 and not isinstance(dims[0], int) else dims
        return [d % ndim for d in dims]
    one, two = (int(call.given[name]) % ndim for name in ("dim0", "dim1"))
    order[one], order[two] = order[two], order[one]
    return order


def _averaged(call: Call, ndim: int, place: Place) -> Place | None:
    dims = call.given.get("dim")
    if dims is None or "dtype" in call.given:
        return None
    gone = {d % ndim for d in ((dims,) if isinstance(dims, int) else dims)}
    if place.axis in gone or 0 in gone:
        return None
    fewer = 0 if call.given.get("keepdim", False) else sum(d < place.axis for d in gone)
    return Place(place.axis - fewer, place.outer, place.inner)


def _read(region: Region, reader: Reader, layer: str) -> None:
    call, place = reader.call, reader.place
    axis = len(call.shapes[0]) - 1 if call.name == "linear" else 1
    if place.axis != axis or (call.name != "linear" and place.inner * place.outer != 1):
        raise _refusal(layer, f"{call.name} reads another axis than that of its units")
    if call.given.get("groups", 1) != 1:
        raise _refusal(layer, f"a {call.name} of groups reads it, in which not every unit meets every other")
    if "transpose" in call.name or call.given.get("padding", 0) not in (0, (0,), (0, 0), (0, 0, 0), "valid"):
        region.shift = region.shift or f"{call.name} puts a border of zeros around it"
    if call.given.get("bias") is None:
        region.shift = region.shift or "a linear map that reads it has no bias"
    region.readers.append(reader)


def _is_norm(call: Call) -> bool:
    return call.name == "batch_norm" and call.home == "torch.nn.functional"


def _check_norm(region: Region, call: Call, place: Place, layer: str) -> None:
    given = call.given
    if given.get("training") or given.get("running_mean") is None:
        raise _refusal(layer, "a batch norm without running statistics reads it, which is not affine")
    if place.axis != 1 or place.inner * place.outer != 1:
        raise _refusal(layer, "a batch norm reads another axis than that of its units")
    if given.get("bias") is None:
        region.shift = region.shift or "a batch norm on the way has no bias"
    weight = given.get("weight")
    if weight is not None and bool((weight == 0).any()):
        raise _refusal(layer, "a batch norm on the way has a gain of 0, so that no map can be undone behind it")


def _check_params(graph: FunctionGraph, region: Region, model: nn.Module, layer: str) -> None:
    """Every tensor that is to be changed must be the model's own, and used once."""
    source = region.source
    if source.given.get("groups", 1) != 1:
        raise _refusal(layer, f"a {source.name} of groups makes it, in which units see different inputs")
    if source.given.get("bias") is None:
        region.shift = region.shift or "the linear map that makes it has no bias"
    params = {id(param) for param in model.parameters()}
    kept = {id(buffer) for buffer in model.buffers()}
    for call in [source, *(reader.call for reader in region.readers), *(call for call, _ in region.norms)]:
        names = ("running_mean", "running_var", "weight", "bias") if _is_norm(call) else ("weight", "bias")
        for tensor in (call.given.get(name) for name in names):
            if not isinstance(tensor, Tensor):
                continue
            if id(tensor) not in params | kept:
                raise _refusal(layer, f"a weight of {call.name} is computed as the network runs (a parametrization?)")
            if graph.uses[id(tensor)] != 1:
                raise _refusal(layer, f"a weight of {call.name} is shared with another place of the network")


def _refusal(layer: str, why: str) -> SubjectError:
    return SubjectError(f"There is no twin by a change of units at {layer}: {why}.")


def names_of(model: nn.Module) -> dict[int, str]:
    """The name of each param and buffer by `id`.

    >>> sorted(names_of(nn.Linear(2, 2)).values())
    ['bias', 'weight']
    """
    tensors: list[tuple[str, torch.Tensor]] = [*model.named_parameters(), *model.named_buffers()]
    return {id(tensor): name for name, tensor in tensors}
