"""The multi-layer perceptrons of the study."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn


def perceptron(inputs: int, width: int, depth: int, seed: int, classes: int = 10) -> nn.Sequential:
    """`depth` hidden layers of one width with ReLU, and a linear one to the classes.

    Weights are drawn by He's rule and biases start at zero, so that the start of training does not depend on depth.
    The layers are `flat`, `fc1`, `relu1`, ..., `out`.

    >>> [name for name, _ in perceptron(4, 3, 2, seed=0).named_children()]
    ['flat', 'fc1', 'relu1', 'fc2', 'relu2', 'out']
    """
    draw = torch.Generator().manual_seed(seed)
    layers: OrderedDict[str, nn.Module] = OrderedDict(flat=nn.Flatten())
    for place in range(1, depth + 1):
        layers[f"fc{place}"] = _linear(inputs if place == 1 else width, width, draw)
        layers[f"relu{place}"] = nn.ReLU()
    layers["out"] = _linear(width, classes, draw)
    return nn.Sequential(layers)


def _linear(inputs: int, outputs: int, draw: torch.Generator) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=draw)
    nn.init.zeros_(layer.bias)
    return layer
