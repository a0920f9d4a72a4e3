"""The catalogue of weights alone: layers, kinds and matrices from names and shapes, where no module can be asked."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from stratoscope.network.adapters import ADAPTER, with_adapters
from stratoscope.network.effective import Slot, derived_names
from stratoscope.network.experts import experts, of_experts
from stratoscope.network.foreign import has_head_axis, headed, kernel_conv, kernel_recurrent
from stratoscope.network.heads import Heads, heads_in_config, heads_known
from stratoscope.network.layers import ROOT, Catalogue, Layer, Matrix, Param
from stratoscope.network.parts import (
    EMBEDDING,
    Part,
    Shape,
    bare,
    conv,
    flat,
    fused,
    gates,
    matrix_of,
    out_last,
    stacked,
    told,
    transposed_conv,
)
from stratoscope.network.products import with_heads
from stratoscope.network.weights import NOT_TOLD, TensorInfo, Use, WeightSource, no_reals

_WEIGHT = re.compile(r"^(weight|kernel|W|w|weights|(depthwise|pointwise|recurrent)_kernel)$|^[Ww]_")
_BIAS = re.compile(r"(^|_)bias(es)?(_|$)|^b$|^b_|^beta$")
_STATISTIC = re.compile(r"running_mean|running_var|num_batches_tracked|moving_mean|moving_variance|(^|[._])_[uv]$")
_TABLE = re.compile(r"inv_freq|freqs?_(cos|sin|cis)|(^|_)mask(ed_bias)?$|position_ids|relative_position_index")
_NORM = re.compile(r"norm|(^|_)(ln|bn|gn|rms)(_|\d|$)", re.IGNORECASE)
_NOT_A_TABLE = re.compile(r"unembed|embed_out|patch_embed|embed.*(fc|proj|linear|dense)", re.IGNORECASE)
_TRANSPOSED = re.compile(r"conv\w*transpose|transpose\w*conv|deconv|up_?conv|conv_?t\d?$", re.IGNORECASE)
_LAST = re.compile(r"(^|[._/])(lm_head|head|classifier|ln_f|final\w*|output|norm_f|norm)([._/]|$)", re.IGNORECASE)
_HEADED_BIAS = re.compile(r"(^|/)(query|key|value)/bias$")  # Flax: heads x width
_DEPTHWISE = re.compile(r"dw|depth_?wise", re.IGNORECASE)
_RECURRENT = re.compile(r"^weight_(ih|hh|hr)(_l\d+)?(_reverse)?$")
_CODED = re.compile(r"weight|kernel|W_q|packed|blocks|codes|^[Ww]$")  # where quantised weights lie
_QUANTISED = re.compile(
    r"scale|zero|absmax|quant_(map|state)|g_idx|nested|^SCB$|^weight_(format|shape)$", re.IGNORECASE
)


@dataclass(frozen=True)
class _Group:
    """The tensors of one layer, by their names within it."""

    path: str
    prefix: str
    shapes: Mapping[str, Shape]
    outputs_last: bool  # weights are stored as (in, out)
    uses: Mapping[str, Use]  # what the file itself tells
    heads: Heads | None = None
    depthwise: bool = False

    @property
    def last(self) -> str:
        """The last part of the path."""
        return re.split(r"[./]", self.path)[-1]

    @property
    def plain(self) -> dict[str, Shape]:
        """Sizes of what the layer computes with, whatever is stored for it."""
        longest = sorted(self.shapes.items(), key=lambda item: prod(item[1]))
        return {_plain(leaf): shape for leaf, shape in longest}

    def biases(self) -> list[int]:
        """Lengths of the vectors called bias."""
        return [shape[0] for leaf, shape in self.shapes.items() if _BIAS.search(leaf) and len(shape) == 1]


def catalogue_of_weights(
    source: WeightSource, heads: bool | int = False, config: Mapping[str, Any] | None = None
) -> Catalogue:
    """List every layer, param and matrix of weights whose module is not at hand.

    Tensors whose names begin alike are one layer. What names, shapes and the config cannot tell stays whole: a
    projection that stores query, key and value head by head, or with fewer keys than queries, is then one matrix.
    Every tensor is a param of exactly one layer.

    Args:
        source: weights of any kind.
        heads: whether to add the products `:qk[h]` and `:ov[h]` of each attention head (see `network.products`); a
            number is that of the query heads, where the config does not say.
        config: what the model's `config.json` says; its numbers of heads also show how fused projections lie.

    >>> import torch
    >>> from stratoscope.network.weights import StateDict
    >>> catalogue = catalogue_of_weights(StateDict({"rnn.weight_hh_l0": torch.zeros(24, 6)}))
    >>> list(catalogue.matrices)[0], catalogue.layers["rnn"].kind
    ('rnn.weight_hh_l0:input', 'recurrent')
    """
    infos, known = source.describe(), heads_known(heads, heads_in_config(config or source.config))
    found: dict[str, dict[str, str]] = {}
    for name in _in_order(infos):
        path, leaf = _split(name)
        found.setdefault(path, {})[leaf] = name
    outputs_last, depthwise, coded = _outputs_last(infos, found), _depthwise(infos, found), _coded(infos, found)
    layers = {}
    for depth, (path, leaves) in enumerate(found.items()):
        shapes = {leaf: infos[name].shape for leaf, name in leaves.items()}
        uses = {leaf: infos[name].use for leaf, name in leaves.items()}
        prefix = next(iter(leaves.values())).removesuffix(next(iter(leaves)))
        group = _Group(path, prefix, shapes, outputs_last[path], uses, known(path), path in depthwise)
        layers[path or ROOT] = _layer(group, {leaf: infos[name] for leaf, name in leaves.items()}, coded, depth)
    layers = with_adapters(layers)
    return Catalogue(*with_heads(layers, known)) if heads else Catalogue(layers)


def _split(name: str) -> tuple[str, str]:
    """Layer and name within it: `a.b.weight` and `tf/b/kernel`, and parametrized `a.parametrizations.weight.original`."""
    head, mark, rest = name.partition("parametrizations.")
    if mark and (head == "" or head.endswith(".")):
        return head.rstrip("."), mark + rest
    cut = max(name.rfind("."), name.rfind("/"))
    return name[: max(cut, 0)], name[cut + 1 :]


def _in_order(names: Iterable[str]) -> list[str]:
    """The order of the file; where that is merely the alphabet, numbers count as numbers, tables first, heads last."""
    given = list(names)
    if given != sorted(given):
        return given
    return sorted(given, key=_guessed_order)


def _guessed_order(name: str) -> tuple[int, list[tuple[int, int, str]], bool, str]:
    path, leaf = _split(name)
    return _place(path), _natural(path), _BIAS.search(leaf) is not None, leaf


def _place(path: str) -> int:
    parts = re.split(r"[./]", path)
    if path == "":
        return -2
    if any(part.isdigit() for part in parts):
        return 0
    if EMBEDDING.search(parts[-1]) and not _NOT_A_TABLE.search(parts[-1]):
        return -1
    return 0 if not _LAST.search(parts[-1]) else 1 if _NORM.search(parts[-1]) else 2


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Sorts `h.2` before `h.10`.

    >>> sorted(["h.10.w", "h.2.w"], key=_natural)
    ['h.2.w', 'h.10.w']
    """
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.findall(r"\d+|\D+", name)]


def _outputs_last(infos: Mapping[str, TensorInfo], layers: Mapping[str, Mapping[str, str]]) -> dict[str, bool]:
    """For each layer whether its weights are stored as `(in, out)`, which the lengths of biases show.

    Square and bias-free weights follow the rest of the file; TensorFlow's names (`fc/kernel`) settle what is left.
    """
    own: dict[str, bool] = {}
    for path, leaves in layers.items():
        shapes = {leaf: infos[name].shape for leaf, name in leaves.items()}
        sizes = _Group(path, "", shapes, False, {}).biases()
        for leaf, shape in shapes.items():
            if len(shape) == 2 and _WEIGHT.search(leaf) and shape[0] != shape[1] and set(shape) & set(sizes):
                own[path] = shape[1] in sizes
    slashes = any("/" in name for name in infos)
    kernels = {path: any(leaf.endswith("kernel") for leaf in leaves) for path, leaves in layers.items()}
    rest = slashes if not own else all(own.values())
    return {path: own.get(path, kernels[path] or rest) for path in layers}


def _depthwise(infos: Mapping[str, TensorInfo], layers: Mapping[str, Mapping[str, str]]) -> set[str]:
    """Convolutions of one channel each, `(channels, 1, *kernel)`: so named, or after one with as many outputs."""
    found, outputs = set(), set()
    for path, leaves in layers.items():
        for leaf, name in leaves.items():
            shape = infos[name].shape
            if not (_is_weight(_plain(leaf)) and 3 <= len(shape) <= 5):
                continue
            if shape[1] > 1:
                outputs.add(shape[0])
            elif shape[0] > 1 and prod(shape[2:]) > 1 and (_DEPTHWISE.search(path) or shape[0] in outputs):
                found.add(path)
    return found


def _layer(group: _Group, infos: Mapping[str, TensorInfo], coded: Collection[str], depth: int) -> Layer:
    kind = next((use.kind for use in group.uses.values() if use.kind), "") or _kind(group)
    block_codes = _block_codes(infos)
    params = {}
    for leaf, info in infos.items():
        name = group.prefix + leaf
        reason = info.reason or no_reals(info) or block_codes.get(leaf, "")
        if not reason and _QUANTISED.search(leaf) and _coded_around(group.path, coded):
            reason = "it belongs to a quantised weight"
        role = group.uses[leaf].role or _role(name, leaf, kind, info.shape)
        params[leaf] = Param(name, group.path or ROOT, info.shape, role, info.trainable, info.same_as, reason)
    matrices = [matrix for slot in _slots(group, params) for matrix in _matrices(group, kind, slot)]
    channel_dim = 1 if kind == "conv" or any("running_mean" in leaf for leaf in infos) else -1
    return Layer(group.path or ROOT, kind, depth, tuple(params.values()), tuple(matrices), channel_dim)


def _coded(infos: Mapping[str, TensorInfo], layers: Mapping[str, Mapping[str, str]]) -> set[str]:
    """Layers whose weight is stored as integers: what lies beside it and below it are its scales."""
    return {
        path
        for path, leaves in layers.items()
        for leaf, name in leaves.items()
        if _CODED.search(leaf)
        and not _QUANTISED.search(leaf)
        and len(infos[name].shape) > 1
        and (kind := infos[name].dtype) is not None
        and not kind.is_floating_point
    }


def _coded_around(path: str, coded: Collection[str]) -> bool:
    """Whether a layer, or one of the two around it, has a quantised weight: `q_proj.weight.absmax`."""
    around = path.rpartition(".")[0]
    return not {path, around, around.rpartition(".")[0]}.isdisjoint(coded)


def _block_codes(infos: Mapping[str, TensorInfo]) -> dict[str, str]:
    """Numbers of 8 bits that only mean something together with a scale for each row or block."""
    tables = [leaf for leaf in infos if _QUANTISED.search(leaf)]
    eight = [leaf for leaf, info in infos.items() if info.dtype is not None and info.dtype.itemsize == 1]
    if not eight or not any(len(infos[leaf].shape) > 1 for leaf in tables):
        return {}
    return dict.fromkeys(tables, "it belongs to a quantised weight") | dict.fromkeys(
        eight, "quantised to 8 bits with a scale for each block"
    )


def _kind(group: _Group) -> str:
    if (
        group.path == ""
        and not group.shapes.keys() & {"weight", "kernel"}
        and not any(map(_RECURRENT.match, group.plain))
    ):
        return "block"  # parameters of the whole, not of one layer
    shapes, last = group.shapes, group.last
    if len(shapes.get("weight", ())) > 1 and shapes["weight"] == shapes.get("bias"):
        return "norm"  # one gain and one bias for each of its units
    weights = {leaf: shape for leaf, shape in shapes.items() if len(shape) >= 2 and not _BIAS.search(leaf)}
    names = "/".join((group.path, *shapes)).lower()
    if any(_RECURRENT.match(leaf) for leaf in group.plain) or re.search(
        r"(lstm|gru|rnn)_cell/|recurrent_kernel", names
    ):
        return "recurrent"
    if "in_proj_weight" in shapes or "q_proj_weight" in shapes:
        return "attention"
    if not weights:
        norm = _NORM.search(last) or any(_STATISTIC.search(leaf) for leaf in shapes)
        return "norm" if norm or ("bias" in shapes and "weight" in shapes) else "other"
    effective = [_plain(leaf) for leaf in weights]
    if any(
        len(shape) in (3, 4, 5) and _is_weight(leaf) for leaf, shape in zip(effective, weights.values(), strict=True)
    ):
        return "linear" if "bilinear" in last.lower() or _stacked(group, weights) else "conv"
    if EMBEDDING.search(last) and not _NOT_A_TABLE.search(last) and not group.biases():
        return "embedding"
    return "linear" if any(_is_weight(leaf) for leaf in effective) else "other"


def _stacked(group: _Group, weights: Mapping[str, Shape]) -> bool:
    """Whether all weights have an axis that counts experts or heads, and none a convolution's kernel."""
    return all(
        has_head_axis(group.last, leaf, shape) or (len(shape) == 3 and of_experts(f"{group.prefix}{leaf}"))
        for leaf, shape in weights.items()
    )


def _plain(leaf: str) -> str:
    """`weight` for `weight_v`, `weight_orig` and `parametrizations.weight.original1`."""
    leaf = re.sub(r"^parametrizations\.(\w+)\.original\d*$", r"\1", leaf)
    return re.sub(r"^(weight\w*)_(g|v|orig)$", r"\1", leaf)


def _is_weight(leaf: str) -> bool:
    return _WEIGHT.search(leaf) is not None


def _role(name: str, leaf: str, kind: str, shape: Shape) -> str:
    plain = _plain(leaf)
    if _STATISTIC.search(leaf):
        return "statistic"
    if ADAPTER.search(name):
        return "adapter"
    one_axis = prod(shape) == max(shape, default=1)
    if _BIAS.search(plain) and (one_axis or kind == "norm" or of_experts(name) or _HEADED_BIAS.search(name)):
        return "bias"
    if _TABLE.search(leaf) or plain == "bias":  # some models keep a mask under this name
        return "other"
    return {"norm": "gain", "embedding": "embedding"}.get(kind, "weight")


def _slots(group: _Group, params: Mapping[str, Param]) -> Iterator[Slot]:
    """What the layer's matrices are made from."""
    taken: set[str] = set()
    derived = derived_names(group.shapes)
    for leaf, (parts, view) in derived.items():
        taken |= set(parts)
        made = [params[part] for part in parts]
        if not any(param.reason for param in made) and not all(param.same_as for param in made):
            shape = max((param.shape for param in made), key=lambda shape: (len(shape), shape))
            yield Slot(leaf, tuple(param.name for param in made), shape, view)
    for leaf, param in params.items():
        if leaf in taken or param.reason or param.same_as or len(param.shape) < 2:
            continue
        if param.role in ("weight", "embedding", "adapter"):
            yield Slot(leaf, (param.name,), param.shape)


def _matrices(group: _Group, kind: str, slot: Slot) -> Iterator[Matrix]:
    for part in _parts(group, kind, slot.leaf, slot.shape):
        yield matrix_of(part, slot, group.prefix, group.path or ROOT)


def _parts(group: _Group, kind: str, leaf: str, shape: Shape) -> tuple[Part, ...]:
    use = group.uses.get(leaf, NOT_TOLD)
    if use.outputs:
        return told(group.path, shape, kind, use, group.heads)
    if kind == "recurrent":
        return _recurrent(group, leaf, shape)
    if leaf == "in_proj_weight" and shape[0] == 3 * shape[1]:
        return stacked(flat(shape, "attention")[0], "qkv", [shape[1]] * 3, "attention")
    if leaf.endswith("proj_weight"):
        return flat(shape, "attention")
    if has_head_axis(group.last, leaf, shape):
        return headed(group.last, shape)
    split = experts(f"{group.prefix}{leaf}", shape, group.shapes)
    if split is not None:
        return split
    if not _is_weight(leaf) or kind not in ("conv", "linear", "embedding"):
        named = "embedding" if EMBEDDING.search(leaf) else _named_kind(leaf, shape)
        return out_last(shape, named) if named == "linear" and group.outputs_last else bare(shape, named)
    if kind == "conv":
        return _conv(group, leaf, shape)
    if kind == "embedding" or len(shape) != 2:
        return flat(shape, kind)
    whole = out_last(shape, "linear") if group.outputs_last else flat(shape, "linear")
    return fused(group.path, whole[0], group.heads) or whole


def _named_kind(leaf: str, shape: Shape) -> str:
    named = re.search(r"(^|_)(fc|dense|linear|proj|head)\d*(_|$)", leaf) or _is_weight(leaf)
    return "linear" if named and len(shape) == 2 else "other"


def _conv(group: _Group, leaf: str, shape: Shape) -> tuple[Part, ...]:
    biases = group.biases()
    turned = _TRANSPOSED.search(group.last) is not None
    if "kernel" in "".join(group.shapes):
        return kernel_conv(leaf, shape, turned or (shape[-2] in biases and shape[-1] not in biases))
    if turned or (shape[1] in biases and shape[0] not in biases):
        return transposed_conv(shape)
    return conv(shape, shape[0] if group.depthwise else 1)


def _recurrent(group: _Group, leaf: str, shape: Shape) -> tuple[Part, ...]:
    match = _RECURRENT.match(leaf)
    if match is None:
        return kernel_recurrent(group.path, leaf, group.shapes)
    whole = flat(shape, "recurrent")
    ending = (match[2] or "") + (match[3] or "")
    projection, hidden = (group.plain.get(f"weight_{part}{ending}") for part in ("hr", "hh"))
    width = projection[1] if projection else hidden[1] if hidden else 0
    if width == 0 or shape[0] % width:
        return whole
    return gates(whole[0], shape[0] // width)
