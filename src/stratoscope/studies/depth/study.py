"""How well does each layer of a deep network separate the classes, and how deep is deep enough?

Schilling and others train a deep belief network on MNIST without labels and follow the generalized discrimination value
(GDV) from layer to layer. Their first version reports that it improves up to about layer 30 and gets worse beyond; the
second one, that contrastive divergence raises separability over tens of layers. In perceptrons trained by
backpropagation they see a temporary loss of separability at the start, an "energy barrier", and one "master curve" GDV(L) for
networks of any depth. Here these are measured on pictures that no network was trained on.

| budget | deep belief network | perceptrons |
|---|---|---|
| smoke | 40 layers of 16 units, 100 generated pictures, one epoch | 2 and 4 hidden layers of 16, the same |
| analogue | 60 layers of 256 units, 10,000 of MNIST, 10 epochs each | 3, 6, 9 hidden layers of 256, 10,000 of MNIST and 3,000 of CIFAR-10 |
| full | 60 layers of 256 units, 60,000 of MNIST, 10 epochs each | 3, 6, 9, 12 hidden layers of 256, all of MNIST and CIFAR-10 |

How wide the paper's networks are and how they are trained could not be checked: widths, epochs and rates are ours (Hinton's
practical guide: CD-1, momentum 0.5 and then 0.9, rate 0.1, from the second machine on 0.05).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stratoscope.engine.task import Spec
from stratoscope.instruments.separation import Separation
from stratoscope.nn import DeepBeliefNetwork
from stratoscope.observe.live import Watch
from stratoscope.observe.watch import watch
from stratoscope.studies import Budget, Study
from stratoscope.studies.depth.claims import CLAIMS
from stratoscope.studies.depth.networks import perceptron
from stratoscope.studies.depth.pictures import Split, splits

PIXELS = 28 * 28
RATES = (0.1, 0.05)
"""Learning rate of the first machine, and of the others."""

SIZES: dict[Budget, dict[str, Any]] = {
    "smoke": {
        "belief": {"data": "generated", "train": 100, "test": 60, "layers": 40, "width": 16, "epochs": 1, "batch": 50},
        "perceptron": {"train": 100, "test": 60, "width": 16, "epochs": 1, "batch": 50},
        "depths": [2, 4],
        "sets": {"mnist": {"data": "generated"}, "cifar10": {"data": "generated"}},
    },
    "analogue": {
        "belief": {"data": "mnist", "train": 10000, "test": 2000, "layers": 60, "width": 256, "epochs": 10, "batch": 100},
        "perceptron": {"train": 10000, "test": 2000, "width": 256, "epochs": 15, "batch": 100},
        "depths": [3, 6, 9],
        "sets": {"mnist": {"data": "mnist"}, "cifar10": {"data": "cifar10", "train": 3000, "test": 1000}},
    },
    "full": {
        "belief": {"data": "mnist", "train": 60000, "test": 5000, "layers": 60, "width": 256, "epochs": 10, "batch": 100},
        "perceptron": {"train": 60000, "test": 5000, "width": 256, "epochs": 20, "batch": 100},
        "depths": [3, 6, 9, 12],
        "sets": {"mnist": {"data": "mnist"}, "cifar10": {"data": "cifar10", "train": 45000}},
    },
}  # fmt: skip


def tasks(budget: Budget, seeds: int) -> list[dict[str, Any]]:
    """A belief network for each seed, and a perceptron for each set, depth and seed."""
    sizes = SIZES[budget]
    found = [{"part": "belief", **sizes["belief"], "seed": seed} for seed in range(seeds)]
    return found + [
        {"part": "perceptron", "set": name, **sizes["perceptron"], **own, "depth": depth, "seed": seed}
        for seed in range(seeds)
        for name, own in sizes["sets"].items()
        for depth in sizes["depths"]
    ]


def work(spec: Spec, folder: Path) -> None:
    """Train one network; measure the separation of its layers before and after, on both splits."""
    data = splits(spec["data"], spec["train"], spec["test"])
    if spec["part"] == "belief":
        _belief(spec, data, folder)
    else:
        _perceptron(spec, data, folder)


def _watched(net: nn.Module, data: dict[str, Split], spec: Spec, steps: int, folder: Path) -> Watch:
    """Measures at step 0 and at the last one."""
    n = spec["test"]
    return watch(
        net, data, to=folder, instruments=[Separation(n=n)], probe=n, batch_size=500, every=steps, budget=1e3,
        snapshot=False, name=spec["part"],
    )  # fmt: skip


def _belief(spec: Spec, data: dict[str, Split], folder: Path) -> None:
    draw = torch.Generator().manual_seed(spec["seed"])
    net = DeepBeliefNetwork([PIXELS] + [spec["width"]] * spec["layers"], generator=draw)
    rates = [RATES[0]] + [RATES[1]] * (spec["layers"] - 1)
    with _watched(net, data, spec, spec["layers"] * spec["epochs"], folder) as w:
        history = net.fit(data["train"][0], generator=draw, epochs=spec["epochs"], batch_size=spec["batch"], lr=rates)
        for step, epoch in enumerate(history, start=1):
            w.step(step)
            w.log("reconstruction_error", epoch.reconstruction_error)


def _perceptron(spec: Spec, data: dict[str, Split], folder: Path) -> None:
    images, labels = data["train"]
    net = perceptron(images[0].numel(), spec["width"], spec["depth"], spec["seed"])
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    order = torch.Generator().manual_seed(1000 + spec["seed"])
    with _watched(net, data, spec, spec["epochs"], folder) as w:
        for epoch in range(1, spec["epochs"] + 1):
            for batch in torch.randperm(len(images), generator=order).split(spec["batch"]):
                loss = nn.functional.cross_entropy(net(images[batch]), labels[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            w.step(epoch, loss=loss.detach())
        for split, (x, y) in data.items():
            w.log(f"{split}_accuracy", _accuracy(net, x, y))


@torch.no_grad()
def _accuracy(net: nn.Module, images: Tensor, labels: Tensor) -> float:
    hits = sum(int((net(x).argmax(1) == y).sum()) for x, y in zip(images.split(500), labels.split(500), strict=True))
    return hits / len(images)


STUDY = Study(
    name="depth",
    title="Class separation along depth",
    paper="arXiv:1811.01753",
    question="How well does each layer of a deep network separate the classes, and how deep is deep enough?",
    tasks=tasks,
    work=work,
    claims=CLAIMS,
)
