"""What Keras calls the weights of its layers, in the order in which it stores them, and how each is laid out."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from stratoscope.network.weights import NOT_TOLD, Use

Shape = tuple[int, ...]

_CELLS = {
    "lstm_cell": ("input", "forget", "cell", "output"),
    "gru_cell": ("update", "reset", "new"),
    "simple_rnn_cell": (),
}
"""Recurrent cells and their gates in the order in which they are stored."""

_LEAVES: dict[str, tuple[str, ...]] = {
    "dense": ("kernel", "bias"),
    "einsum_dense": ("kernel", "bias"),
    "embedding": ("embeddings",),
    "p_re_lu": ("alpha",),
    "rms_normalization": ("scale",),
    **{f"conv{axes}d{kind}": ("kernel", "bias") for axes in "123" for kind in ("", "_transpose")},
    **{f"depthwise_conv{axes}d": ("depthwise_kernel", "bias") for axes in "12"},
    **{f"separable_conv{axes}d": ("depthwise_kernel", "pointwise_kernel", "bias") for axes in "12"},
    **{cell: ("kernel", "recurrent_kernel", "bias") for cell in _CELLS},
}
_NORMS = {
    "batch_normalization": ("moving_mean", "moving_variance"),
    "layer_normalization": (),
    "group_normalization": (),
}
_ATTENTION = {"query": (1, 2), "key": (1, 2), "value": (1, 2), "attention_output": (2,), "output": (2,)}
"""Projections of an attention layer, with an axis that counts heads: the axes that count outputs."""


def layer_class(name: str) -> str:
    """The name under which Keras stores layers of a class.

    >>> layer_class("Conv2DTranspose"), layer_class("Custom>LSTM"), layer_class("dense_12")
    ('conv2d_transpose', 'lstm', 'dense')
    """
    name = re.sub(r"_\d+$", "", re.sub(r"\W", "", name.rpartition(">")[2]))
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def layers_in(config: object) -> dict[str, tuple[str, Mapping[str, Any]]]:
    """Class and settings of every layer in a model's config, by the layer's name, in the order of the config."""
    found: dict[str, tuple[str, Mapping[str, Any]]] = {}
    todo = [config]
    while todo:
        item = todo.pop()
        if isinstance(item, list):
            todo += reversed(item)
        elif isinstance(item, dict):
            name, settings = item.get("class_name"), item.get("config")
            if isinstance(name, str) and isinstance(settings, dict) and isinstance(settings.get("name"), str):
                found.setdefault(settings["name"], (layer_class(name), settings))
            todo += reversed(item.values())
    return found


def leaves(kind: str, settings: Mapping[str, Any], shapes: Sequence[Shape]) -> list[str]:
    """Names of a layer's weights, which Keras 3 stores by number alone.

    Args:
        kind: class of the layer, as `layer_class` gives it.
        settings: of the layer; empty where they are not known.
        shapes: sizes of its weights in order.

    >>> leaves("batch_normalization", {"scale": False}, [(4,), (4,), (4,)])
    ['beta', 'moving_mean', 'moving_variance']
    """
    names: Sequence[str] = _LEAVES.get(kind, ())
    if kind in _NORMS:
        names = _norm(kind, settings, len(shapes))
    elif not names:
        names = _guessed(shapes)
    return [names[at] if at < len(names) else f"var{at}" for at in range(len(shapes))]


def _norm(kind: str, settings: Mapping[str, Any], count: int) -> list[str]:
    moving = list(_NORMS[kind])
    own = [leaf for leaf, name in (("gamma", "scale"), ("beta", "center")) if settings.get(name, True)]
    if len(own) + len(moving) != count:  # no settings, or not those that were stored
        own = {2: ["gamma", "beta"], 1: ["scale_or_shift"]}.get(count - len(moving), [])
    return own + moving


def _guessed(shapes: Sequence[Shape]) -> Sequence[str]:
    """Names by sizes alone, of layers of other people's classes."""
    axes = [len(shape) for shape in shapes]
    if axes[:2] == [2, 2] and shapes[0][1] == shapes[1][1] and shapes[1][1] in (n * shapes[1][0] for n in (1, 3, 4)):
        return ("kernel", "recurrent_kernel", "bias")
    if axes and axes[0] > 1 and len(axes) < 3 and all(shape == shapes[0][-len(shape) :] for shape in shapes[1:]):
        return ("kernel", "bias")
    return ("gamma", "beta") if axes == [1, 1] and shapes[0] == shapes[1] else ()


def use_of(kind: str, settings: Mapping[str, Any], path: str, leaf: str, shape: Shape) -> Use:
    """How a layer of a known class uses one of its weights.

    >>> use_of("depthwise_conv2d", {}, "mix", "depthwise_kernel", (3, 3, 16, 2)).outputs
    (2, 3)
    """
    axes = len(shape)
    if leaf == "bias":
        return Use(role="bias")
    if leaf == "embeddings" and axes == 2:
        return Use("embedding", "embedding", (0,))
    if kind in _CELLS and leaf in ("kernel", "recurrent_kernel") and axes == 2:
        return Use("recurrent", "weight", (1,), parts=_CELLS[kind])
    if leaf.endswith("kernel") and "conv" in kind and axes > 2:
        return _conv(kind, settings, leaf, shape)
    if leaf == "kernel" and axes == 3 and (outputs := _ATTENTION.get(_role_in_attention(path))):
        return Use("attention", "weight", outputs)
    if leaf == "kernel" and kind == "einsum_dense":
        return Use("linear", "weight", tuple(_einsum_outputs(settings, axes)))
    if leaf == "kernel" and kind == "dense" and axes == 2:
        return Use("linear", "weight", (1,))
    return NOT_TOLD


def _conv(kind: str, settings: Mapping[str, Any], leaf: str, shape: Shape) -> Use:
    axes = len(shape)
    places = tuple(range(axes - 2))
    if leaf == "depthwise_kernel" or kind.startswith("depthwise"):
        return Use("conv", "weight", (axes - 2, axes - 1), places, max(shape[-2], 1))
    if kind.endswith("transpose"):
        return Use("conv", "weight", (axes - 2,), places)
    groups = settings.get("groups", 1)
    sound = isinstance(groups, int) and groups > 0 and shape[-1] % groups == 0
    return Use("conv", "weight", (axes - 1,), places, groups if sound else 1)


def _role_in_attention(path: str) -> str:
    return path.rpartition(".")[2].removesuffix("_dense")


def _einsum_outputs(settings: Mapping[str, Any], axes: int) -> Iterator[int]:
    """The axes of a kernel that its inputs do not have, such as `d` of `abc,cd->abd`."""
    equation = settings.get("equation")
    match = re.fullmatch(r"([A-Za-z.]*),([A-Za-z]*)->[A-Za-z.]*", equation) if isinstance(equation, str) else None
    if match is not None and len(match[2]) == axes:
        yield from (axis for axis, letter in enumerate(match[2]) if letter not in match[1])
