"""The networks of the study, initialised as their authors' framework did."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

BIAS = 0.1
"""Start of every bias in the small AlexNet."""

TRUNCATED = 0.8796256610342398
"""Standard deviation of a standard normal that is cut at two deviations."""


class MiniAlexNet(nn.Sequential):
    """Two convolutions and three fully connected layers for pictures of 3 x 28 x 28; `fc1` is 384 x 4096."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 96, 5, padding=2)
        self.relu1 = nn.ReLU()
        self.pool1 = nn.MaxPool2d(3, 3, padding=1)  # 28 -> 10, as padding "same" does
        self.norm1 = nn.BatchNorm2d(96)
        self.conv2 = nn.Conv2d(96, 256, 5, padding=2)
        self.relu2 = nn.ReLU()
        self.pool2 = nn.MaxPool2d(3, 3, padding=1)  # 10 -> 4
        self.norm2 = nn.BatchNorm2d(256)
        self.flat = nn.Flatten()
        self.fc1 = nn.Linear(4096, 384)
        self.relu3 = nn.ReLU()
        self.fc2 = nn.Linear(384, 192)
        self.relu4 = nn.ReLU()
        self.fc3 = nn.Linear(192, 10)


class LeNet5(nn.Sequential):
    """Two convolutions and two fully connected layers for pictures of 1 x 28 x 28; `fc1` is 500 x 2450."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 20, 5, padding=2)
        self.relu1 = nn.ReLU()
        self.pool1 = nn.MaxPool2d(2, 2)
        self.conv2 = nn.Conv2d(20, 50, 5, padding=2)
        self.relu2 = nn.ReLU()
        self.pool2 = nn.MaxPool2d(2, 2)
        self.flat = nn.Flatten()
        self.fc1 = nn.Linear(2450, 500)
        self.relu3 = nn.ReLU()
        self.fc2 = nn.Linear(500, 10)


class MLP3(nn.Sequential):
    """Three hidden layers of 512 for pictures of 3 x 28 x 28."""

    def __init__(self) -> None:
        super().__init__()
        self.flat = nn.Flatten()
        self.fc1 = nn.Linear(2352, 512)
        self.relu1 = nn.ReLU()
        self.fc2 = nn.Linear(512, 512)
        self.relu2 = nn.ReLU()
        self.fc3 = nn.Linear(512, 512)
        self.relu3 = nn.ReLU()
        self.fc4 = nn.Linear(512, 10)


def glorot_normal(weight: Tensor, generator: torch.Generator) -> None:
    """Normal with deviation `s = (2 / (fan_in + fan_out))^(1/2)`, drawn again beyond `2 s`.

    What is left has the deviation `0.8796 s`. PyTorch's `xavier_normal_` cuts nothing; the bounds of `trunc_normal_`
    are absolute, so that its defaults of -2 and 2 cut nothing either.
    """
    s = math.sqrt(2 / _fans(weight))
    nn.init.trunc_normal_(weight, std=s, a=-2 * s, b=2 * s, generator=generator)


def glorot_uniform(weight: Tensor, generator: torch.Generator) -> None:
    """Uniform within `(6 / (fan_in + fan_out))^(1/2)` of zero."""
    nn.init.xavier_uniform_(weight, generator=generator)


def _fans(weight: Tensor) -> int:
    """Inputs and outputs of one unit together; for a convolution, those of its whole kernel."""
    return (weight.shape[0] + weight.shape[1]) * math.prod(weight.shape[2:])


START: dict[str, tuple[type[nn.Sequential], Callable[[Tensor, torch.Generator], None], float]] = {
    "MiniAlexNet": (MiniAlexNet, glorot_normal, BIAS),
    "LeNet5": (LeNet5, glorot_uniform, 0.0),
    "MLP3": (MLP3, glorot_normal, BIAS),
}
"""For each network its class, how weights are drawn, and where biases start."""


def build(name: str, seed: int) -> nn.Sequential:
    """A network at its start.

    >>> build("MiniAlexNet", seed=0)(torch.zeros(1, 3, 28, 28)).shape
    torch.Size([1, 10])
    """
    kind, draw, bias = START[name]
    net, generator = kind(), torch.Generator().manual_seed(seed)
    for layer in net:
        if isinstance(layer, nn.Linear | nn.Conv2d):
            draw(layer.weight, generator)
            assert layer.bias is not None
            nn.init.constant_(layer.bias, bias)
    return net


def start_sigma(name: str, layer: str) -> float:
    """Deviation of the entries of a fresh weight times the root of its longer side, as the authors print it.

    >>> round(start_sigma("MiniAlexNet", "fc1"), 3), round(start_sigma("LeNet5", "fc1"), 3)
    (1.189, 1.289)
    """
    kind, draw, _ = START[name]
    with torch.device("meta"):
        weight = kind().get_submodule(layer).weight
    assert isinstance(weight, Tensor)
    cut = TRUNCATED if draw is glorot_normal else 1.0
    return cut * math.sqrt(2 / (weight.shape[0] + weight.shape[1])) * math.sqrt(max(weight.shape))
