"""Weights as TensorFlow, Keras and Flax store them: outputs in the last axes, and names that end in `kernel`."""

from __future__ import annotations

import re
from collections.abc import Mapping

from stratoscope.network.parts import Part, Shape, bare, conv_out_last, out_last, stacked, told
from stratoscope.network.weights import Use

_HEADED = re.compile(r"^(query|key|value|out|attention_output)(_dense)?$")


def has_head_axis(last: str, leaf: str, shape: Shape) -> bool:
    """Whether this is a projection of an attention layer with an axis that counts heads: `query/kernel`.

    >>> has_head_axis("query", "kernel", (768, 12, 64)), has_head_axis("conv", "kernel", (3, 16, 32))
    (True, False)
    """
    return leaf == "kernel" and len(shape) == 3 and _HEADED.match(last) is not None


def headed(last: str, shape: Shape) -> tuple[Part, ...]:
    """A projection `(in, heads, width)`, or that of the output, `(heads, width, out)`."""
    outputs = (2,) if last.startswith(("out", "attention_output")) else (1, 2)
    return told(last, shape, "attention", Use(outputs=outputs))


def kernel_conv(leaf: str, shape: Shape, transposed: bool = False) -> tuple[Part, ...]:
    """A convolution's kernel `(*kernel, in, out)`; a depthwise one is `(*kernel, in, multiplier)`.

    A transposed one of Keras is `(*kernel, out, in)`.
    """
    places = tuple(range(len(shape) - 2))
    if leaf == "depthwise_kernel":
        return told("", shape, "conv", Use(outputs=(len(shape) - 2, len(shape) - 1), kernel=places, groups=shape[-2]))
    return (
        told("", shape, "conv", Use(outputs=(len(shape) - 2,), kernel=places)) if transposed else conv_out_last(shape)
    )


def kernel_recurrent(path: str, leaf: str, shapes: Mapping[str, Shape]) -> tuple[Part, ...]:
    """A recurrent layer's kernel `(in, gates x hidden)`.

    Args:
        path: of the layer.
        leaf: the tensor's name within it.
        shapes: sizes of all of the layer's tensors.
    """
    shape = shapes[leaf]
    if not leaf.endswith("kernel") or len(shape) != 2:
        return bare(shape)
    whole = out_last(shape, "recurrent")
    names: tuple[str, ...] = ()
    if "recurrent_kernel" in shapes:  # Keras
        width = shapes["recurrent_kernel"][0]
        names = {
            4: ("input", "forget", "cell", "output"),
            3: ("update", "reset", "new"),
        }.get(shape[1] // width, ())
    elif path.endswith("gates"):
        names = ("reset", "update")
    elif "lstm_cell" in path:
        names = ("input", "cell", "forget", "output")
    if not names or shape[1] % len(names):
        return whole
    return stacked(whole[0], names, [shape[1] // len(names)] * len(names), "recurrent")
