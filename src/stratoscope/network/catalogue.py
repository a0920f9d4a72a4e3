"""The catalogue of a live module: every layer, param and matrix of it. The one place that knows layer types."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import prod

import torch
from torch import nn
from torch.nn.utils import parametrize

from stratoscope.network.adapters import ADAPTER, with_adapters
from stratoscope.network.effective import Slot, hooked_names, parametrized_slots
from stratoscope.network.experts import experts, of_experts
from stratoscope.network.heads import heads_in_module, heads_known, heads_of
from stratoscope.network.kinds import CONTAINERS, Kind, is_conv1d_of_transformers, is_transposed, kind_of
from stratoscope.network.layers import ROOT, Catalogue, Layer, Matrix, Param
from stratoscope.network.parts import (
    EMBEDDING,
    Part,
    bare,
    conv,
    flat,
    fused,
    gates,
    matrix_of,
    out_last,
    stacked,
    transposed_conv,
)
from stratoscope.network.products import with_heads
from stratoscope.network.unwrap import HIDDEN_PREFIX, unwrap, wrapped_in
from stratoscope.network.weights import ModuleWeights, TensorInfo, is_lazy, no_reals, own_buffers

_BIAS = re.compile(r"(^|_)bias(_|$)|^b$")
_STATISTIC = re.compile(r"running_mean|running_var|num_batches_tracked|(^|[._])_?[uv]$")
_PARAMETRIZED = re.compile(r"^parametrizations\.(\w+)\.original\d*$")


@dataclass
class _Place:
    """A module, where it is, and what it owns."""

    path: str
    prefix: str
    module: nn.Module
    parent: nn.Module | None
    leaf: bool
    keys: list[str] = field(default_factory=list)


def catalogue_of(module: nn.Module, heads: bool | int = False) -> Catalogue:
    """List every layer, param and matrix of a live module. Nothing is computed or changed.

    Layers are the module as a whole (`"(root)"`, always first), every module without children, every module with
    parameters of its own, and every other module that is not a plain `Sequential`, `ModuleList` or `ModuleDict`
    (kind `"block"`). A module that is reached by two paths is one layer, by its first path; the keys of both are its
    params. Every parameter and every persistent buffer is a param of exactly one layer.

    Args:
        module: any module; `torch.compile` and data-parallel wrappers are looked through.
        heads: whether to add the products `:qk[h]` and `:ov[h]` of each attention head (see `network.products`); a
            number is that of the query heads, where the modules do not say.

    Raises:
        SubjectError: if it is no module, or a TorchScript module.

    >>> net = nn.Sequential(nn.Conv2d(3, 8, 5), nn.ReLU(), nn.Flatten(), nn.LazyLinear(10))
    >>> catalogue = catalogue_of(net)
    >>> [layer.kind for layer in catalogue.layers.values()]
    ['block', 'conv', 'activation', 'other', 'linear']
    >>> catalogue.matrices["0.weight"].shape
    (8, 75)
    """
    module = unwrap(module)
    infos = ModuleWeights(module).describe()
    places = _places(module)
    listed = {key for place in places for key in place.keys}
    places[0].keys += [key for key, info in infos.items() if info.role != "transient" and key not in listed]
    layers = [_layer(place, infos) for place in places if _counts(place)]
    numbered = {layer.name: replace(layer, depth=depth) for depth, layer in enumerate(layers)}
    numbered = with_adapters(numbered)
    notes = _packed(numbered)
    if heads:
        numbered, missing = with_heads(numbered, heads_known(heads, heads_in_module(module)))
        notes += missing
    return Catalogue(numbered, notes)


def _packed(layers: Mapping[str, Layer]) -> tuple[str, ...]:
    """What torch's quantised modules hold outside of their params."""
    hiding = ("_packed_params", "_all_weight_values")
    names = [name for name, layer in layers.items() if any(hasattr(layer.module, attribute) for attribute in hiding)]
    names = [name for name in names if name.rpartition(".")[0] not in names]
    if not names:
        return ()
    listed = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return (f"Quantised weights packed out of sight, which are not measured, in {len(names)} layers: {listed}.",)


def _counts(place: _Place) -> bool:
    return place.path == ROOT or bool(place.keys) or place.leaf or type(place.module) not in CONTAINERS


def _places(root: nn.Module) -> list[_Place]:
    """Every module once, with the keys that it owns under all of its paths, in module order."""
    met: dict[int, _Place] = {}
    todo: list[tuple[str, str, nn.Module, nn.Module | None]] = [("", "", root, None)]
    while todo:
        path, prefix, module, parent = todo.pop()
        while (attribute := wrapped_in(module)) is not None:
            prefix = f"{prefix}{attribute}.".replace(HIDDEN_PREFIX, "")
            module = getattr(module, attribute)
        children = _children(module)
        place = met.setdefault(id(module), _Place(path or ROOT, prefix, module, parent, not children))
        place.keys += _own_keys(module, prefix)
        for name, child in reversed(children):
            todo.append((f"{path}.{name}" if path else name, f"{prefix}{name}.", child, module))
    return list(met.values())


def _children(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """Children by every name; `named_children` leaves out the second name of the same one, which has its own keys."""
    hidden = "parametrizations" if parametrize.is_parametrized(module) else None
    return [(name, child) for name, child in module._modules.items() if child is not None and name != hidden]


def _own_keys(module: nn.Module, prefix: str) -> list[str]:
    keys = [name for name, _ in module.named_parameters(recurse=False, remove_duplicate=False)]
    keys += own_buffers(module)
    if parametrize.is_parametrized(module):
        assert isinstance(module.parametrizations, nn.ModuleDict)
        keys += [f"parametrizations.{name}" for name in module.parametrizations.state_dict(keep_vars=True)]
    return [prefix + key for key in keys]


def _layer(place: _Place, infos: Mapping[str, TensorInfo]) -> Layer:
    kind = kind_of(place.module, place.leaf)
    if place.path == ROOT and kind.name == "other":
        kind = Kind("block")
    params = {key: _param(key, place, kind, infos[key]) for key in place.keys if key in infos}
    slots = _slots(place, params)
    matrices = [matrix for slot in slots for matrix in _matrices(place, kind, slot)]
    live = None if isinstance(place.module, torch.jit.ScriptModule) else place.module
    return Layer(
        place.path, kind.name, 0, tuple(params.values()), tuple(matrices), kind.channel_dim, kind.activation, live
    )


def _param(key: str, place: _Place, kind: Kind, info: TensorInfo) -> Param:
    leaf = _PARAMETRIZED.sub(r"\1", key.removeprefix(place.prefix))
    reason = info.reason or no_reals(info)
    return Param(key, place.path, info.shape, _role(key, leaf, kind, info), info.trainable, info.same_as, reason)


def _role(key: str, leaf: str, kind: Kind, info: TensorInfo) -> str:
    if info.role == "buffer":
        return "statistic" if kind.name == "norm" or _STATISTIC.search(leaf) else "other"
    if ADAPTER.search(key):
        return "adapter"
    if _BIAS.search(leaf) and (len(info.shape) < 2 or kind.name in ("attention", "norm") or of_experts(key)):
        return "bias"
    return {"norm": "gain", "embedding": "embedding"}.get(kind.name, "weight")


def _slots(place: _Place, params: dict[str, Param]) -> list[Slot]:
    """What the layer's matrices are made from, in the order of its params; reasons are noted in `params`."""
    slots: list[Slot] = []
    taken: set[str] = set()
    for slot in parametrized_slots(place.module, place.prefix):
        if isinstance(slot, Slot):
            slots.append(slot)
            taken.update(slot.params)
        else:
            keys, reason = slot
            params |= {key: replace(params[key], reason=params[key].reason or reason) for key in keys}
    for leaf, (parts, view) in hooked_names(place.module).items():
        keys = tuple(place.prefix + part for part in parts)
        slots.append(Slot(leaf, keys, max((params[key].shape for key in keys), key=prod), view))
        taken.update(keys)
    slots += [
        Slot(key.removeprefix(place.prefix), (key,), param.shape)
        for key, param in params.items()
        if key not in taken and param.role in ("weight", "embedding", "adapter")
    ]
    order = {key: i for i, key in enumerate(params)}
    usable = [slot for slot in slots if len(slot.shape) >= 2 and _usable([params[key] for key in slot.params])]
    return sorted(usable, key=lambda slot: order[slot.params[0]])


def _usable(params: list[Param]) -> bool:
    """Whether all can be read, and not all of them are other names of tensors met before."""
    return not any(param.reason for param in params) and not all(param.same_as for param in params)


def _matrices(place: _Place, kind: Kind, slot: Slot) -> Iterator[Matrix]:
    for part in _parts(place, kind, slot.leaf, slot.shape):
        yield matrix_of(part, slot, place.prefix, place.path)


def _parts(place: _Place, kind: Kind, leaf: str, shape: tuple[int, ...]) -> tuple[Part, ...]:
    module = place.module
    if isinstance(module, nn.RNNBase | nn.RNNCellBase) and leaf.startswith("weight_"):
        whole = flat(shape, "recurrent")
        return whole if leaf.startswith("weight_hr") else gates(whole[0], _gate_count(module))
    if isinstance(module, nn.MultiheadAttention) and leaf.endswith("proj_weight"):
        whole = flat(shape, "attention")
        return stacked(whole[0], "qkv", [shape[0] // 3] * 3, "attention") if leaf == "in_proj_weight" else whole
    if leaf != "weight" or kind.name not in ("conv", "linear", "embedding"):
        split = experts(f"{place.prefix}{leaf}", shape, _shapes(module))
        return split or bare(shape, "embedding" if EMBEDDING.search(leaf) else "other")
    if isinstance(module, nn.modules.conv._ConvNd):
        return transposed_conv(shape, module.groups) if is_transposed(module) else conv(shape, module.groups)
    whole = out_last(shape, "linear") if is_conv1d_of_transformers(module) else flat(shape, kind.name)
    owner = type(place.parent).__name__
    projections = fused(place.path, whole[0], heads_of(place.parent), owner) if kind.name == "linear" else None
    return projections or whole


def _shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(p.shape) for name, p in module.named_parameters(recurse=False) if not is_lazy(p)}


def _gate_count(module: nn.RNNBase | nn.RNNCellBase) -> int:
    if isinstance(module, nn.RNNCellBase):
        return 4 if isinstance(module, nn.LSTMCell) else 3 if isinstance(module, nn.GRUCell) else 1
    return {"LSTM": 4, "GRU": 3}.get(str(module.mode), 1)
