"""The perceptron of the study, and the regularisers of its fifth layer with their strengths."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from stratoscope.regularizers import Correlation, Penalty, Sparsity, StableRank, Variance

LAYER = 5
"""Whose activations are regularised and measured."""

STRENGTHS = ("weak", "middle", "strong")


@dataclass(frozen=True)
class Regulariser:
    """A penalty on the fifth layer.

    Attributes:
        make: makes it.
        coefficients: weak, middle and strong; negative ones raise the statistic.
    """

    make: Callable[[], Penalty]
    coefficients: tuple[float, float, float]


REGULARISERS: Mapping[str, Regulariser] = {
    "correlation": Regulariser(Correlation, (0.01, 0.1, 1.0)),
    "covariance": Regulariser(lambda: Correlation(of_covariance=True), (0.1, 1.0, 10.0)),
    "variance": Regulariser(Variance, (0.01, 0.1, 1.0)),
    "sparsity": Regulariser(Sparsity, (0.01, 0.1, 1.0)),
    "rank": Regulariser(StableRank, (0.01, 0.1, 1.0)),
    "rank raised": Regulariser(StableRank, (-0.01, -0.03, -0.1)),
    "class-wise correlation": Regulariser(lambda: Correlation(True), (0.003, 0.01, 0.03)),
    "class-wise covariance": Regulariser(lambda: Correlation(True, of_covariance=True), (0.1, 1.0, 10.0)),
    "class-wise variance": Regulariser(lambda: Variance(True), (0.01, 0.1, 1.0)),
    "class-wise sparsity": Regulariser(lambda: Sparsity(True), (0.001, 0.01, 0.1)),
    "class-wise rank": Regulariser(lambda: StableRank(True), (0.01, 0.03, 0.1)),
    "class-wise rank raised": Regulariser(lambda: StableRank(True), (-0.003, -0.01, -0.03)),
}
"""Strengths were chosen on a seed that the study does not use: the strongest with which the network still learns."""


def perceptron(inputs: int, width: int, seed: int, *, linear: bool = False) -> nn.Sequential:
    """Five hidden layers of rectified units and ten outputs, drawn as PyTorch does (uniform, Kaiming).

    Args:
        inputs: numbers in a picture.
        width: units in each hidden layer.
        seed: of the weights.
        linear: leave out the rectifier of the fifth layer, so that two linear maps follow each other.

    >>> list(perceptron(9, 4, seed=0, linear=True)._modules)[-3:]
    ['relu4', 'fc5', 'fc6']
    """
    net, generator = nn.Sequential(), torch.Generator().manual_seed(seed)
    net.add_module("flat", nn.Flatten())
    sizes = [inputs] + [width] * LAYER + [10]
    for number in range(1, LAYER + 2):
        layer = nn.Linear(sizes[number - 1], sizes[number])
        bound = layer.in_features**-0.5
        with torch.no_grad():
            for tensor in layer.parameters():
                tensor.uniform_(-bound, bound, generator=generator)
        net.add_module(f"fc{number}", layer)
        if number < LAYER or (number == LAYER and not linear):
            net.add_module(f"relu{number}", nn.ReLU())
    return net


def fifth(linear: bool) -> str:
    """The module that gives the fifth layer's activations.

    >>> fifth(False)
    'relu5'
    """
    return f"{'fc' if linear else 'relu'}{LAYER}"
