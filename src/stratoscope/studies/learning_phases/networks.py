"""The networks of the study: a VGG and a ResNet with batch norm, of any width, started as PyTorch starts layers."""

from __future__ import annotations

import copy
import math
from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

PROBED = "features"
"""The layer that is measured: it passes on what the convolutions give, before anything is averaged or classified."""

Stages = Sequence[Sequence[int]]


def vgg(channels: int, stages: Stages, size: int, seed: int, classes: int = 10) -> nn.Sequential:
    """Convolutions of 3 x 3 with batch norm and ReLU, the maximum over 2 x 2 after each stage, and one linear layer.

    Args:
        channels: of a picture.
        stages: for each stage the widths of its convolutions.
        size: pixels on a side of a picture.
        seed: of the weights.
        classes: how many.

    >>> [name for name, _ in vgg(3, ((8,), (16,)), 16, seed=0).named_children()][4:]
    ['conv2_1', 'norm2_1', 'relu2_1', 'pool2', 'features', 'flat', 'out']
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    width = channels
    for stage, widths in enumerate(stages, start=1):
        for place, out in enumerate(widths, start=1):
            layers[f"conv{stage}_{place}"] = nn.Conv2d(width, out, 3, padding=1, bias=False)
            layers[f"norm{stage}_{place}"] = nn.BatchNorm2d(out)
            layers[f"relu{stage}_{place}"] = nn.ReLU()
            width = out
        layers[f"pool{stage}"] = nn.MaxPool2d(2)
    side = size >> len(stages)
    return _with_head(layers, (("flat", nn.Flatten()), ("out", nn.Linear(width * side * side, classes))), seed)


class Block(nn.Module):
    """Two convolutions, the first of stride 2, beside a projection (He and others, arXiv:1512.03385)."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, out, 3, stride=2, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(out)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out)
        self.short = nn.Sequential(nn.Conv2d(width, out, 1, stride=2, bias=False), nn.BatchNorm2d(out))
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Half as many places on a side."""
        inner = self.norm2(self.conv2(self.relu1(self.norm1(self.conv1(x)))))
        found: Tensor = self.relu2(inner + self.short(x))
        return found


def resnet(channels: int, stem: int, widths: Sequence[int], seed: int, classes: int = 10) -> nn.Sequential:
    """A convolution, one block a width, the mean over places, and one linear layer.

    >>> [name for name, _ in resnet(1, 4, (8, 16), seed=0).named_children()]
    ['conv', 'norm', 'relu', 'block1', 'block2', 'features', 'mean', 'flat', 'out']
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv=nn.Conv2d(channels, stem, 3, padding=1, bias=False), norm=nn.BatchNorm2d(stem), relu=nn.ReLU()
    )
    for place, (before, width) in enumerate(zip((stem, *widths), widths, strict=False), start=1):
        layers[f"block{place}"] = Block(before, width)
    head = (("mean", nn.AdaptiveAvgPool2d(1)), ("flat", nn.Flatten()), ("out", nn.Linear(widths[-1], classes)))
    return _with_head(layers, head, seed)


def _with_head(layers: OrderedDict[str, nn.Module], head: Sequence[tuple[str, nn.Module]], seed: int) -> nn.Sequential:
    """Weights and biases uniform within `1 / fan_in^(1/2)`, as PyTorch draws them, but from a generator of their own."""
    net = nn.Sequential(OrderedDict([*layers.items(), (PROBED, nn.Identity()), *head]))
    generator = torch.Generator().manual_seed(seed)
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            bound = 1 / math.sqrt(layer.weight[0].numel())
            for param in layer.parameters(recurse=False):
                nn.init.uniform_(param, -bound, bound, generator=generator)
    return net


@torch.no_grad()
def with_batch_statistics(net: nn.Module, images: Tensor, batch: int) -> nn.Module:
    """A copy whose batch norms hold the mean statistics of some batches of its present weights, as training sees them.

    Running statistics are a moving average over the last tens of steps, and over their start at mean 0 and variance 1;
    early in training they are those of another network.
    """
    found = copy.deepcopy(net).train()
    for layer in found.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.reset_running_stats()
            layer.momentum = None  # the mean over all batches
    for some in images.split(batch):
        if len(some) == batch:
            found(some)
    return found.eval()
