"""The matrices that one stored weight holds, from its shape and what kind of weight it is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from stratoscope.network.effective import Slot
from stratoscope.network.heads import Heads
from stratoscope.network.layers import Matrix
from stratoscope.network.views import (
    Bare,
    Chain,
    Flat,
    HeadRows,
    Kernel,
    OutLast,
    OutputAxes,
    Rows,
    TransposedConv,
    View,
    bare_shape,
)
from stratoscope.network.weights import Use

Shape = tuple[int, ...]

GATES: dict[int, tuple[str, ...]] = {1: (), 3: ("reset", "update", "new"), 4: ("input", "forget", "cell", "output")}
"""The gates of torch's recurrent layers in the order in which they are stored, by their number."""

CONTIGUOUS = frozenset({"c_attn", "qkv", "qkv_proj", "qkv_linear", "to_qkv", "attn_qkv", "Wqkv", "in_proj"})
"""Names of fused projections that store all queries, then all keys, then all values."""

KEYS_AND_VALUES = frozenset({"kv", "to_kv"})
"""Names of fused projections that store all keys, then all values."""

GATED = frozenset({"gate_up_proj", "w12"})
"""Names of fused projections of gated units that store the gate, then what it multiplies."""

BY_HEAD = frozenset({"query_key_value"})
"""Names of fused projections that store query, key and value of each head together."""

EMBEDDING = re.compile(r"embed|(^|_)emb(_|$)|^wte$|^wpe$|^lookup", re.IGNORECASE)
"""Names of tables with a row for each token, class or place."""

_NEEDS_ATTENTION = frozenset({"in_proj"})  # the same name stands for other things in state-space models
_ATTENTION = re.compile(r"attn|attention|mha", re.IGNORECASE)
_CROSS = re.compile(r"cross_?attention\.c_attn$")  # GPT-2's, whose queries have a projection of their own
_MIXED = re.compile(r"transformer\.h\.\d+\.attn\.qkv_proj$")  # CodeGen stores blocks of q, v and k in turn


@dataclass(frozen=True)
class Part:
    """One matrix within a weight: what comes after its name, its kind, its sizes and its view.

    Of a convolution also its kernel's sizes, its groups, and what takes the matrix apart into inputs and kernel.
    """

    suffix: str
    kind: str
    shape: tuple[int, int]
    view: View
    kernel: tuple[int, ...] = ()
    groups: int = 1
    unfold: View | None = None


def flat(shape: Shape, kind: str) -> tuple[Part, ...]:
    """The whole weight, outputs first."""
    return (Part("", kind, (shape[0], prod(shape[1:])), Flat()),)


def bare(shape: Shape, kind: str = "other") -> tuple[Part, ...]:
    """The whole of a parameter that no layer type explains."""
    return (Part("", kind, bare_shape(shape), Bare()),)


def out_last(shape: Shape, kind: str) -> tuple[Part, ...]:
    """The whole weight, stored with the outputs last."""
    return (Part("", kind, (shape[-1], prod(shape[:-1])), OutLast()),)


def conv(shape: Shape, groups: int = 1) -> tuple[Part, ...]:
    """The weight of a convolution, `(out, in / groups, *kernel)`."""
    return (Part("", "conv", (shape[0], prod(shape[1:])), Flat(), shape[2:], groups, Kernel(shape[2:])),)


def conv_out_last(shape: Shape) -> tuple[Part, ...]:
    """The weight of a convolution as TensorFlow and Flax store it, `(*kernel, in, out)`."""
    kernel = shape[:-2]
    return (
        Part("", "conv", (shape[-1], prod(shape[:-1])), OutLast(), kernel, unfold=Kernel(kernel, inputs_last=True)),
    )


def transposed_conv(shape: Shape, groups: int = 1) -> tuple[Part, ...]:
    """The weight of a transposed convolution, stored with the inputs first."""
    sizes = (groups * shape[1], shape[0] // groups * prod(shape[2:]))
    return (Part("", "conv", sizes, TransposedConv(groups), shape[2:], groups, Kernel(shape[2:])),)


def told(path: str, shape: Shape, kind: str, use: Use, heads: Heads | None = None) -> tuple[Part, ...]:
    """The weight as the file tells to see it, cut into the parts that it names.

    >>> gates = Use(outputs=(0, 1), parts=("reset", "update"))
    >>> [part.shape for part in told("rnn", (1, 8, 3), "recurrent", gates)]
    [(4, 3), (4, 3)]
    """
    kernel = tuple(shape[axis] for axis in use.kernel)
    rows = prod(shape[axis] for axis in use.outputs)
    if kernel and use.kernel == tuple(range(2, len(shape))) and use.outputs in ((0,), (1,)):  # torch and ONNX
        return transposed_conv(shape, use.groups) if use.outputs == (1,) else conv(shape, use.groups)
    unfold = Kernel(kernel) if kernel else None
    view = OutputAxes(use.outputs, use.kernel)
    whole = Part("", kind, (rows, prod(shape) // rows), view, kernel, use.groups, unfold)
    if use.parts and rows % len(use.parts) == 0:
        return stacked(whole, use.parts, [rows // len(use.parts)] * len(use.parts), kind)
    return (fused(path, whole, heads) if kind == "linear" else None) or (whole,)


def matrix_of(part: Part, slot: Slot, prefix: str, layer: str) -> Matrix:
    """The matrix that a part of what a layer computes with is."""
    view = part.view if slot.view is None else Chain(slot.view, part.view)
    return Matrix(
        name=f"{prefix}{slot.leaf}{part.suffix}",
        layer=layer,
        params=slot.params,
        kind=part.kind,
        shape=part.shape,
        view=view,
        law=slot.law,
        kernel=part.kernel,
        groups=part.groups,
        kernel_view=None if part.unfold is None else Chain(view, part.unfold),
    )


def stacked(whole: Part, names: Sequence[str], sizes: Sequence[int], kind: str) -> tuple[Part, ...]:
    """A matrix cut into named blocks of rows.

    >>> [part.shape for part in stacked(flat((6, 4), "linear")[0], "qkv", (2, 2, 2), "attention")]
    [(2, 4), (2, 4), (2, 4)]
    """
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return tuple(
        Part(f":{name}", kind, (size, whole.shape[1]), Chain(whole.view, Rows(start, start + size)))
        for name, start, size in zip(names, starts, sizes, strict=True)
    )


def gates(whole: Part, count: int) -> tuple[Part, ...]:
    """The gates of a recurrent weight, or the whole where there is one or they cannot be told apart."""
    names = GATES.get(count, ())
    rows = whole.shape[0]
    if not names or rows % count:
        return (Part("", "recurrent", whole.shape, whole.view),)
    return stacked(whole, names, [rows // count] * count, "recurrent")


def fused(path: str, whole: Part, heads: Heads | None = None, owner: str = "") -> tuple[Part, ...] | None:
    """The projections that a fused one consists of, or `None` if this is not known to be one.

    Args:
        path: module path; its last part decides.
        whole: the projection as one matrix.
        heads: the heads, where a module says.
        owner: class name of the module around it.
    """
    name = path.rpartition(".")[2]
    rows, columns = whole.shape
    if rows % 2 == 0 and name in GATED:
        return stacked(whole, ("gate", "up"), [rows // 2] * 2, "linear")
    if rows % 2 == 0 and (name in KEYS_AND_VALUES or _CROSS.search(path)):
        return stacked(whole, "kv", [rows // 2] * 2, "attention")
    if name in BY_HEAD:
        return _by_head(whole, heads)
    if name not in CONTIGUOUS or _MIXED.search(path) or owner.startswith(("CodeGen", "GPTBigCode")):
        return None
    if name in _NEEDS_ATTENTION and heads is None and not _ATTENTION.search(path):
        return None
    shared = heads is not None and heads.keys not in (None, heads.queries)
    if rows == 3 * columns and not shared:
        return stacked(whole, "qkv", [columns] * 3, "attention")
    sizes = None if heads is None else _rows_of_keys(rows, heads)
    if sizes is not None:
        return stacked(whole, "qkv", [rows - 2 * sizes, sizes, sizes], "attention")
    return (Part("", "attention", whole.shape, whole.view),)


def _rows_of_keys(rows: int, heads: Heads) -> int | None:
    """How many rows the keys of a fused projection take, if what is known of its heads settles it."""
    if heads.keys is None and heads.width is None:
        return None
    keys = heads.keys
    if keys is None:
        keys = (rows // (heads.width or 1) - heads.queries) // 2
    width = rows // (heads.queries + 2 * keys)
    fits = keys > 0 and width * (heads.queries + 2 * keys) == rows and heads.width in (None, width)
    return keys * width if fits else None


def _by_head(whole: Part, heads: Heads | None) -> tuple[Part, ...]:
    rows, columns = whole.shape
    if heads is None or heads.keys not in (None, heads.queries) or rows % (3 * heads.queries):
        return (Part("", "attention", whole.shape, whole.view),)
    if heads.width not in (None, rows // (3 * heads.queries)):
        return (Part("", "attention", whole.shape, whole.view),)
    return tuple(
        Part(f":{name}", "attention", (rows // 3, columns), Chain(whole.view, HeadRows(i, heads.queries)))
        for i, name in enumerate("qkv")
    )
