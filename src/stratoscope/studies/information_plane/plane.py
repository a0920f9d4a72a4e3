"""What is measured of a training: where its layers lie in the plane, how large its gradients are beside their noise."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from stratoscope.numerics.binned_information import equal_count_rules
from stratoscope.numerics.bottleneck import BottleneckCurve
from stratoscope.numerics.bottleneck_deterministic import hard_information
from stratoscope.numerics.entropy import EqualWidth, Rule, cells_of
from stratoscope.numerics.noisy_information import noisy_information
from stratoscope.record.entry import Entry
from stratoscope.record.quantity import Quantity, quantity

Array = NDArray[np.float64]

KEY = "plane"
"""The group of the record that holds these numbers."""
BINS = 30
RANGES = {
    "information": "of one width over the whole run's range",
    "step": "of one width over this step's own range",
    "quantile": "of equal counts",
}
"""How variables begin, and how their bins are cut."""
WITHIN = 0.05
"""Bits from the ceiling within which bins say nothing."""
NOISE = 0.01
"""Variance of the Gaussian noise that is added to the last hidden layer, the same at all steps."""
DRAWS = 250
FLAT = 0.1
"""Slopes of tanh below this count as saturated."""
BOUNDS = {"tanh": (-1.0, 1.0), "softmax": (0.0, 1.0)}
"""Ranges that activations cannot leave; they are the whole run's, whatever the run."""


@dataclass(frozen=True)
class Plane:
    """How the layers of one run are measured.

    Attributes:
        activation: of the hidden layers.
        layers: names of the layers.
        p_y: p(y|x), one pattern a row; all patterns are equally likely, so that entropies have no sampling error.
        curve: the bound of this task.
        spans: lowest and highest activation of each layer over the whole run.
        seed: of the noise.
    """

    activation: str
    layers: tuple[str, ...]
    p_y: Array
    curve: BottleneckCurve
    spans: Mapping[str, tuple[float, float]]
    seed: int

    def measure(self, values: Mapping[str, Tensor]) -> list[Entry]:
        """One checkpoint.

        Args:
            values: activations of each layer for all patterns.
        """
        table = np.array([self._binned(name, values[name].numpy()) for name in self.layers])
        found: dict[str, Quantity] = {}
        for place, (prefix, how) in enumerate(RANGES.items()):
            shown = {"chart": "none"} if place else {}
            for letter, which, what in (("x", 0, "H(bin T) (clustering)"), ("y", 1, "I(bin T; Y)")):
                headline = {"headline": which + 1} if not place else {}
                found[f"{prefix}_{letter}"] = self._by_layer(
                    table[:, place, which], "bit", f"{what}, {BINS} bins {how}", n=len(self.p_y), **shown, **headline
                )
        rate, relevance = table[:, 0, 0], table[:, 0, 1]
        ceiling = math.log2(len(self.p_y))
        found |= {
            "information_x_ceiling": quantity(ceiling, units="bit", long_name="the most that so many patterns can read", chart="none"),
            "uninformative": self._by_layer(
                (rate >= ceiling - WITHIN).astype(np.float64), "1", "any layer would read the same", chart="none", flag_values=[0, 1],
                flag_meanings="informative uninformative",
            ),
            "missing": self._by_layer(self.curve.missing(rate, relevance), "bit", "I(T;Y) that the bound has more at that I(X;T)"),
            "surplus": self._by_layer(self.curve.surplus(rate, relevance), "bit", "I(X;T) beyond what that I(T;Y) needs"),
            "saturation": self._by_layer(
                [self._saturation(name, values[name]) for name in self.layers], "1",
                "share of activations with less than a tenth of the largest slope",
            ),
            "largest": self._by_layer([values[name].abs().max() for name in self.layers], "1", "largest absolute activation"),
        }  # fmt: skip
        return entries(found | self._noisy(values[self.layers[-2]]))

    def _by_layer(self, values: ArrayLike, units: str, what: str, **more: Any) -> Quantity:
        numbers = np.asarray(values, dtype=np.float64)
        return quantity(numbers, units=units, long_name=what, dims="layer", coords={"layer": self.layers}, **more)

    def _binned(self, name: str, features: NDArray[np.float32]) -> list[tuple[float, float]]:
        low, high = BOUNDS.get("softmax" if name == "softmax" else self.activation, self.spans[name])
        rules: list[Rule] = [
            EqualWidth(low, high, BINS),
            EqualWidth(float(features.min()), float(features.max()), BINS),
            *equal_count_rules(features, [BINS]),
        ]
        return [hard_information(cells_of(features, rule).index, None, self.p_y) for rule in rules]

    def _saturation(self, name: str, values: Tensor) -> float:
        if name == "softmax":
            return float((4 * values * (1 - values) < FLAT).double().mean())
        flat = 1 - values.square() < FLAT if self.activation == "tanh" else values <= 0
        return float(flat.double().mean())

    def _noisy(self, values: Tensor) -> dict[str, Quantity]:
        found = noisy_information(
            values, torch.tensor([NOISE]), draws=DRAWS, generator=torch.Generator().manual_seed(self.seed)
        )
        where = f"of the last hidden layer with Gaussian noise of variance {NOISE:g}"
        return {
            "noisy_x": quantity(float(found.x[0]), units="bit", long_name=f"I(X; T + N) {where}"),
            "noisy_x_se": quantity(float(found.x_error[0]), units="bit", long_name="standard error of the drawing"),
        }


def gradient_numbers(
    net: nn.Sequential, inputs: Tensor, labels: Tensor, batches: Sequence[Tensor]
) -> dict[str, Quantity]:
    """Mean and spread of the gradient over mini-batches, for the weights of each layer, at fixed weights.

    Args:
        net: the network.
        inputs: examples.
        labels: their labels.
        batches: indices of examples, each of one size.
    """
    names = [name for name, module in net.named_children() if isinstance(module, nn.Linear)]
    weights = [net.get_submodule(name).get_parameter("weight") for name in names]
    each = [
        torch.autograd.grad(nn.functional.cross_entropy(net(inputs[batch]), labels[batch]), weights)
        for batch in batches
    ]
    mean, spread, snr = [], [], []
    for place, weight in enumerate(weights):
        stack = torch.stack([gradients[place].detach().double() for gradients in each])
        size = float(weight.detach().double().norm()) or math.nan
        signal, noise = float(stack.mean(0).norm()), float(stack.std(0).norm())
        mean.append(signal / size)
        spread.append(noise / size)
        snr.append(signal / noise if noise > 0 else math.nan)
    over = f"over {len(batches)} mini-batches of {len(batches[0])}"
    # under the names of what these weights make
    layers = [name.replace("linear", "hidden").replace("output", "softmax") for name in names]
    by_layer: dict[str, Any] = {"units": "1", "dims": "layer", "coords": {"layer": layers}}
    return {
        "gradient_mean": quantity(
            mean, long_name=f"norm of the mean gradient {over}, over that of the weights", **by_layer
        ),
        "gradient_spread": quantity(spread, long_name=f"norm of the gradient's deviation {over}, likewise", **by_layer),
        "gradient_snr": quantity(
            snr, long_name=f"norm of the mean gradient over that of its deviation, {over}", **by_layer
        ),
    }


def bound_numbers(curve: BottleneckCurve, points: int = 101) -> dict[str, Quantity]:
    """The bound as it is drawn."""
    rates = np.linspace(0.0, max(curve.joint.entropy_x, 1.0), points)
    note = curve.degenerate or f"exact to {curve.accuracy:.1g} bits"
    along: dict[str, Any] = {
        "units": "bit",
        "dims": "point",
        "coords": {"point": range(points)},
        "chart": "none",
        "note": note,
    }
    return {
        "bound_x": quantity(rates, long_name="I(X;T) of the bound", **along),
        "bound_y": quantity(curve.relevance_at(rates), long_name="the most I(T;Y) at that I(X;T)", **along),
    }


def entries(found: Mapping[str, Quantity]) -> list[Entry]:
    """As the writer of a record takes them."""
    return [Entry(KEY, name, value) for name, value in found.items()]
