"""Do statistics of a representation (correlation, variance, sparsity, rank) explain how well a network performs?

Choi and others put eight regularisers on the fifth layer of a perceptron on MNIST. Each moves its statistic as intended,
and performance follows none of them. The strongest argument needs no training: an invertible map of a layer, undone in the
next weight, gives a network with the same outputs and other statistics.

| budget | pictures | perceptron | regularisers |
|---|---|---|---|
| smoke | 200 generated ones | 5 hidden layers of 20 units, one epoch | the strongest of each |
| analogue | 10,000 of MNIST | 5 hidden layers of 100 units, 5 epochs | weak, middle and strong |
| full | 50,000 of MNIST | the same, 50 epochs | the same |

"Six layers" is read as five hidden ones and the outputs. The paper's coefficients, optimiser and number of epochs could not
be checked: ours are Adam at 1e-3, batches of 100, and coefficients chosen on another seed. Statistics are of 2,000 test
pictures (full: 10,000), accuracy of all 10,000; settings are chosen by 2,000 further training pictures (full: 10,000).
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stratoscope.engine.task import Spec
from stratoscope.instruments.separation import Separation
from stratoscope.instruments.statistics import Statistics
from stratoscope.observe.twins import Twin, identical_output
from stratoscope.observe.watch import watch
from stratoscope.regularizers import attach
from stratoscope.studies import Budget, Study
from stratoscope.studies.depth.pictures import Split, splits
from stratoscope.studies.representation_statistics.claims import CLAIMS
from stratoscope.studies.representation_statistics.networks import REGULARISERS, STRENGTHS, fifth, perceptron

NONE = "none"
BATCH = 100
RATE = 1e-3

SIZES: dict[Budget, dict[str, Any]] = {
    "smoke": {"data": "generated", "train": 200, "validation": 50, "test": 100, "width": 20, "epochs": 1, "sample": 100},
    "analogue": {"data": "mnist", "train": 10000, "validation": 2000, "test": 10000, "width": 100, "epochs": 5, "sample": 2000},
    "full": {"data": "mnist", "train": 50000, "validation": 10000, "test": 10000, "width": 100, "epochs": 50, "sample": 10000},
}  # fmt: skip

TWINS = (
    ("relu", "rescale"),
    ("linear", "whiten"),
    ("linear", "correlate"),
    ("linear", "rotate"),
    ("linear", "rescale"),
)
"""Kind of the fifth layer, and how its twin is made."""


def tasks(budget: Budget, seeds: int) -> list[dict[str, Any]]:
    """The plain network, one for each regulariser and strength, and the twins."""
    strengths = STRENGTHS[-1:] if budget == "smoke" else STRENGTHS
    grid = [(NONE, "strong", 0.0)] + [
        (name, strength, REGULARISERS[name].coefficients[STRENGTHS.index(strength)])
        for name in REGULARISERS
        for strength in strengths
    ]
    found: list[dict[str, Any]] = []
    for seed in range(seeds):
        base = {**SIZES[budget], "seed": seed}
        found += [
            {"part": "grid", "regulariser": name, "strength": strength, "coefficient": value, **base}
            for name, strength, value in grid
        ]
        found += [{"part": "twin", "layer": layer, "target": target, **base} for layer, target in TWINS]
    return found


def work(spec: Spec, folder: Path) -> None:
    """Train one network, with a regulariser or without; make its twin, if it is about one; measure it on test pictures."""
    data = splits(spec["data"], spec["train"] + spec["validation"], spec["test"])
    (images, labels), n = data["train"], spec["train"]
    linear = spec.get("layer") == "linear"
    net = perceptron(images[0].numel(), spec["width"], spec["seed"], linear=linear)
    _train(net, images[:n], labels[:n], spec)
    if spec["part"] == "twin":
        twin = identical_output(
            net, fifth(linear), data["test"], target=spec["target"], probe=spec["sample"], seed=spec["seed"]
        )
        _measure(twin.model, data["test"], (images[n:], labels[n:]), spec, folder, twin)
    else:
        _measure(net.eval(), data["test"], (images[n:], labels[n:]), spec, folder)


def _train(net: nn.Module, images: Tensor, labels: Tensor, spec: Spec) -> None:
    optimizer = torch.optim.Adam(net.parameters(), lr=RATE)
    order = torch.Generator().manual_seed(1000 + spec["seed"])
    chosen = REGULARISERS.get(spec.get("regulariser", NONE))
    with attach(net, {fifth(False): chosen.make()}, spec["coefficient"]) if chosen else nullcontext() as extra:
        for _ in range(spec["epochs"]):
            for batch in torch.randperm(len(images), generator=order).split(BATCH):
                loss = nn.functional.cross_entropy(net(images[batch]), labels[batch])
                if extra is not None:
                    loss = loss + extra(labels[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()


def _measure(
    net: nn.Module, test: Split, validation: Split, spec: Spec, folder: Path, twin: Twin | None = None
) -> None:
    n = spec["sample"]
    instruments = [Statistics(n=n), Separation(n=n, permutations=2)]
    with watch(
        net, {"test": test}, to=folder, instruments=instruments, probe=n, batch_size=500, snapshot=False, budget=1e3,
        name=spec["part"],
    ) as w:  # fmt: skip
        w.log("test_accuracy", _accuracy(net, *test))
        w.log("validation_accuracy", _accuracy(net, *validation))
        if twin is not None:
            w.log("relative_difference", twin.relative)
            for name, row in twin.table.items():
                w.log(f"{name}_before", row.before)
                w.log(f"{name}_after", row.after)
                w.log(f"{name}_stays", float(row.stays))


@torch.no_grad()
def _accuracy(net: nn.Module, images: Tensor, labels: Tensor) -> float:
    hits = sum(int((net(x).argmax(1) == y).sum()) for x, y in zip(images.split(500), labels.split(500), strict=True))
    return hits / len(images)


STUDY = Study(
    name="representation-statistics",
    title="Statistics of representations and performance",
    paper="arXiv:1811.03666",
    question="Do statistics of a representation, such as correlation and rank, explain how well a network performs?",
    tasks=tasks,
    work=work,
    claims=CLAIMS,
)
