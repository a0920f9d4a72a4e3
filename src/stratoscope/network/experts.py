"""The weights of a mixture of experts, stored as one tensor with an axis that counts experts."""

from __future__ import annotations

import re
from collections.abc import Mapping

from stratoscope.network.parts import Part, Shape
from stratoscope.network.views import Chosen

_NAMED = re.compile(r"experts?(?![a-z])(?![._/]\d)|_exps(?![a-z])|(^|[._/])(\w+_)?moe([._/]|$)", re.IGNORECASE)
_ONE = re.compile(r"experts?[._/]\d", re.IGNORECASE)  # what follows belongs to one expert


def of_experts(name: str) -> bool:
    """Whether a name says that a tensor holds several experts.

    >>> [of_experts(n) for n in ("mlp.experts.down_proj", "experts.3.conv.weight", "blk.0.ffn_up_exps.weight")]
    [True, False, True]
    """
    return _NAMED.search(name) is not None and _ONE.search(name) is None


def experts(name: str, shape: Shape, siblings: Mapping[str, Shape]) -> tuple[Part, ...] | None:
    """One matrix for each expert of a tensor `(experts, in, out)` or `(experts, out, in)`, or `None` if it is no such.

    Args:
        name: the tensor's full name.
        shape: its sizes.
        siblings: sizes of the tensors of the same layer by their names within it, which show the order.

    >>> [part.shape for part in experts("experts.down_proj", (2, 6, 8), {})]
    [(8, 6), (8, 6)]
    """
    if len(shape) != 3 or not of_experts(name):
        return None
    turned = _outputs_last(name, shape, siblings)
    sizes = (shape[2], shape[1]) if turned else (shape[1], shape[2])
    return tuple(Part(f":expert[{i}]", "linear", sizes, Chosen(i, turned)) for i in range(shape[0]))


def _outputs_last(name: str, shape: Shape, siblings: Mapping[str, Shape]) -> bool:
    """Whether each expert's matrix is stored as `(in, out)`."""
    leaf = re.split(r"[./]", name)[-1]
    bias = siblings.get(f"{leaf}_bias", siblings.get("bias" if leaf == "weight" else "", ()))
    if len(bias) == 2 and shape[1] != shape[2] and bias[1] in shape[1:]:
        return bias[1] == shape[2]
    into, out = siblings.get("gate_up_proj", ()), siblings.get("down_proj", ())
    if len(into) == len(out) == 3:
        if into[2] == out[1] and into[1] == 2 * out[2]:
            return False
        if into[1] == out[2] and into[2] == 2 * out[1]:
            return True
    return leaf != "weight"  # torch's modules store outputs first; bare tensors of experts mostly inputs first
