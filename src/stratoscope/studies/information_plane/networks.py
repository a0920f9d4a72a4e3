"""The networks of the study: fully connected layers between 12 inputs and 2 outputs, started as the authors did."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

PLANE = (10, 7, 5, 4, 3)
"""Hidden layers of the network whose plane is drawn, 12-10-7-5-4-3-2."""
DEEPEST = (12, 10, 8, 6, 4)
"""Hidden layers of the deepest network where depths are compared; the others have the first of them."""
ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU}


def build(hidden: Sequence[int], activation: str, seed: int) -> nn.Sequential:
    """A network at its start: weights normal with deviation `1 / fan_in^(1/2)`, cut at two of them, biases 0.

    Args:
        hidden: widths.
        activation: `"tanh"` or `"relu"`.
        seed: of the weights.

    >>> [tuple(layer.weight.shape) for layer in build(PLANE, "tanh", 0) if isinstance(layer, nn.Linear)]
    [(10, 12), (7, 10), (5, 7), (4, 5), (3, 4), (2, 3)]
    """
    generator = torch.Generator().manual_seed(seed)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number, (inputs, outputs) in enumerate(zip((12, *hidden), (*hidden, 2), strict=True), start=1):
        linear = nn.Linear(inputs, outputs)
        deviation = 1 / math.sqrt(inputs)
        nn.init.trunc_normal_(linear.weight, std=deviation, a=-2 * deviation, b=2 * deviation, generator=generator)
        nn.init.zeros_(linear.bias)
        last = number > len(hidden)
        layers["output" if last else f"linear{number}"] = linear
        if not last:
            layers[f"hidden{number}"] = ACTIVATIONS[activation]()
    return nn.Sequential(layers)


def layer_names(hidden: Sequence[int]) -> tuple[str, ...]:
    """Names of what a plane shows: hidden layers after their activation, and the softmax of the outputs."""
    return (*(f"hidden{number}" for number in range(1, len(hidden) + 1)), "softmax")


@torch.no_grad()
def activations(net: nn.Sequential, inputs: Tensor) -> Iterator[tuple[str, Tensor]]:
    """What each layer of the plane gives, in order."""
    value = inputs
    for name, module in net.named_children():
        value = module(value)
        if name.startswith("hidden"):
            yield name, value
    yield "softmax", value.softmax(1)
