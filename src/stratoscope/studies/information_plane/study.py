"""Do layers first fit and then compress, and does compression explain why deep networks work?

Shwartz-Ziv and Tishby follow the layers of small tanh networks through the information plane: I(T;Y) rises first, and
then I(X;T) falls for most of the training, as the gradient turns from drift to diffusion; more layers need fewer epochs;
converged layers lie near the information-bottleneck bound. Saxe et al. answer that the fall comes from tanh and its bins
and is missing with ReLU; Goldfeld et al. that bins measure clustering. Here both sides are measured on the same runs, on
the authors' task generated from its rule.

| budget | plane (tanh and ReLU) | smoothed labels (tanh) | depths |
|---|---|---|---|
| smoke | 20 epochs | 10 epochs, one gamma | 1 and 2 hidden layers, 10 epochs |
| analogue | 4,000 epochs | 3,000 epochs, two gammas | 1 to 5 hidden layers, up to 1,500 epochs |
| full | 8,000 epochs | 8,000 epochs, two gammas | 1 to 5 hidden layers, up to 8,000 epochs |

The network is 12-10-7-5-4-3-2, trained by Adam at 4e-4 with batches of 512 on a random 80 % of the 4096 patterns, as the
authors' code does but for the split (theirs goes by the order of rows). All patterns are measured, so entropies have no
sampling error.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stratoscope.engine.task import Spec
from stratoscope.numerics.bottleneck import bottleneck_curve
from stratoscope.record.quantity import Quantity, quantity
from stratoscope.record.writer import RecordWriter
from stratoscope.studies import Budget, Study
from stratoscope.studies.information_plane.claims import CLAIMS
from stratoscope.studies.information_plane.networks import ACTIVATIONS, DEEPEST, PLANE, activations, build, layer_names
from stratoscope.studies.information_plane.plane import Plane, bound_numbers, entries, gradient_numbers
from stratoscope.studies.information_plane.task import PATTERNS, SMOOTH, draw_labels, p_y_given_x, patterns

TRAIN = 0.8
"""Share of the patterns that is trained on."""
BATCH = 512
RATE = 4e-4
GOAL = 0.9
"""Test accuracy at which depths are compared; counting inputs that are on gives 0.875."""

SIZES: dict[Budget, dict[str, Any]] = {
    "smoke": {"plane": 20, "smooth": 10, "gammas": SMOOTH[1:], "depth": 10, "depths": [1, 2], "checkpoints": 12},
    "analogue": {"plane": 4000, "smooth": 3000, "gammas": SMOOTH, "depth": 1500, "depths": [1, 2, 3, 4, 5], "checkpoints": 80},
    "full": {"plane": 8000, "smooth": 8000, "gammas": SMOOTH, "depth": 8000, "depths": [1, 2, 3, 4, 5], "checkpoints": 200},
}  # fmt: skip


def tasks(budget: Budget, seeds: int) -> list[dict[str, Any]]:
    """For each seed two planes, one training for each smoothing, and one for each depth."""
    sizes = SIZES[budget]
    some = {"checkpoints": sizes["checkpoints"]}
    return [
        one | {"seed": seed}
        for seed in range(seeds)
        for one in (
            *({"part": "plane", "net": net, "epochs": sizes["plane"], **some} for net in ACTIVATIONS),
            *(
                {"part": "smooth", "net": "tanh", "gamma": gamma, "epochs": sizes["smooth"], **some}
                for gamma in sizes["gammas"]
            ),
            *({"part": "depth", "net": "tanh", "depth": depth, "epochs": sizes["depth"]} for depth in sizes["depths"]),
        )
    ]


@dataclass
class Training:
    """A network, its data, and the epochs that it is trained for.

    Attributes:
        net: the network.
        inputs: all patterns, 0 and 1.
        labels: a label for each.
        train: which patterns are trained on.
        test: the others.
        order: of examples.
    """

    net: nn.Sequential
    inputs: Tensor
    labels: Tensor
    train: Tensor
    test: Tensor
    order: torch.Generator

    @classmethod
    def of(cls, spec: Spec) -> Training:
        """As a spec says."""
        seed, hidden = spec["seed"], DEEPEST[: spec["depth"]] if "depth" in spec else PLANE
        order = torch.Generator().manual_seed(1000 + seed)
        split = torch.randperm(PATTERNS, generator=order)
        count = int(TRAIN * PATTERNS)
        labels = torch.from_numpy(draw_labels(spec.get("gamma", math.inf), seed))
        net = build(hidden, spec["net"], seed)
        return cls(net, torch.from_numpy(patterns()).float(), labels, split[:count], split[count:], order)

    def epochs(self, count: int) -> Iterator[int]:
        """Train; gives the number of epochs that are done, from 0 on."""
        optimizer = torch.optim.Adam(self.net.parameters(), lr=RATE, fused=True)
        yield 0
        for epoch in range(1, count + 1):
            for batch in self.batches():
                loss = nn.functional.cross_entropy(self.net(self.inputs[batch]), self.labels[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            yield epoch

    def batches(self) -> tuple[Tensor, ...]:
        """The training examples in a new order, in mini-batches; the last one is smaller."""
        mixed = self.train[torch.randperm(len(self.train), generator=self.order)]
        return torch.split(mixed, BATCH)

    @torch.no_grad()
    def numbers(self) -> dict[str, Quantity]:
        """Loss and accuracy on both splits."""
        found = {}
        for name, some in (("train", self.train), ("test", self.test)):
            outputs, labels = self.net(self.inputs[some]), self.labels[some]
            accuracy = float((outputs.argmax(1) == labels).double().mean())
            loss = float(nn.functional.cross_entropy(outputs, labels))
            found[f"{name}_accuracy"] = quantity(accuracy, units="1", long_name=f"{name} accuracy", n=len(some))
            found[f"{name}_loss"] = quantity(loss, units="nat", long_name=f"{name} cross entropy", n=len(some))
        return found


def work(spec: Spec, folder: Path) -> None:
    """Train one network; measure it at checkpoints, or how long it takes to its goal."""
    with RecordWriter.create(folder, {"name": "information-plane", "spec": dict(spec)}) as writer:
        if spec["part"] == "depth":
            _until_goal(Training.of(spec), spec, writer)
        else:
            _plane(Training.of(spec), spec, writer)


def _until_goal(training: Training, spec: Spec, writer: RecordWriter) -> None:
    """To the first epoch at which the test accuracy reaches the goal."""
    for epoch in training.epochs(spec["epochs"]):
        found = training.numbers()
        reached = float(found["test_accuracy"].values) >= GOAL
        if reached or epoch == spec["epochs"]:
            found["epochs"] = quantity(epoch, units="1", long_name=f"epochs to a test accuracy of {GOAL}, or all")
            found["reached"] = quantity(int(reached), units="1", long_name="whether the goal was reached")
            writer.commit(epoch, entries(found), epoch=epoch)
            return


def checkpoints(epochs: int, count: int) -> list[int]:
    """Epochs at which the plane is measured: 0, and about so many spread evenly over their logarithm.

    >>> checkpoints(100, 6)
    [0, 1, 3, 6, 16, 40, 100]
    """
    return [0, *sorted({round(epoch) for epoch in np.geomspace(1, epochs, count)})]


def _plane(training: Training, spec: Spec, writer: RecordWriter) -> None:
    """Twice over the checkpoints: bins over the run's range can be cut only when the run is over."""
    layers, p_y = layer_names(PLANE), p_y_given_x(spec.get("gamma", math.inf))
    wanted, states = set(checkpoints(spec["epochs"], spec["checkpoints"])), {}
    beside: dict[int, dict[str, Quantity]] = {}
    for epoch in training.epochs(spec["epochs"]):
        if epoch in wanted:
            states[epoch] = copy.deepcopy(training.net.state_dict())
            full = [batch for batch in torch.split(training.train, BATCH) if len(batch) == BATCH]
            beside[epoch] = training.numbers() | gradient_numbers(training.net, training.inputs, training.labels, full)
    spans: dict[str, tuple[float, float]] = {}
    for state in states.values():
        for name, values in _values(training, state).items():
            low, high = spans.get(name, (math.inf, -math.inf))
            spans[name] = min(low, float(values.min())), max(high, float(values.max()))
    curve = bottleneck_curve(None, p_y)
    plane = Plane(spec["net"], layers, p_y, curve, spans, spec["seed"])
    writer.commit(0, entries(bound_numbers(curve)))
    for epoch, state in states.items():
        found = plane.measure(_values(training, state)) + entries(beside[epoch])
        writer.commit(epoch, found, epoch=epoch)


def _values(training: Training, state: dict[str, Any]) -> dict[str, Tensor]:
    training.net.load_state_dict(state)
    return dict(activations(training.net, training.inputs))


STUDY = Study(
    name="information-plane",
    title="The information plane of deep networks",
    paper="arXiv:1703.00810",
    question="Do layers first fit and then compress, and does compression explain why deep networks work?",
    tasks=tasks,
    work=work,
    claims=CLAIMS,
    seeds={"smoke": 1, "analogue": 6, "full": 10},
)
