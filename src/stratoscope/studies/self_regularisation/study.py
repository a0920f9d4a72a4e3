"""Does training regularise weight matrices by itself, and does the batch size drive them through the 5+1 phases?

Martin and Mahoney train a small AlexNet on CIFAR-10 with ever smaller batches and follow the spectrum of its first fully
connected layer: from a Marchenko-Pastur bulk over single spikes to a heavy tail. Around it stand a LeNet5 whose bulk stays
as it was drawn, an MLP whose ranks fall while it trains, a network that too strong a weight decay robs of its rank, and
the exponents of pre-trained networks.

| budget | small AlexNet | LeNet5 | MLP |
|---|---|---|---|
| smoke | 64 generated pictures, one epoch | the same | the same |
| analogue | the first 2,000 pictures of CIFAR-10, 12 epochs, batches of 4 to 250 | 6,000 of MNIST, 5 epochs | 2,000 of CIFAR-10, 12 epochs |
| full | 50,000 of CIFAR-10, 100 epochs, batches of 2 to 1000 | 60,000 of MNIST, 10 epochs | 50,000 of CIFAR-10, 44 epochs |

An analogue has a twenty-fifth of the pictures and an eighth of the epochs, so its absolute numbers are not the paper's.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stratoscope.engine.task import Spec
from stratoscope.errors import NotApplicable
from stratoscope.instruments.spectrum import EigenvalueSpectrum
from stratoscope.instruments.weights import WeightMatrices
from stratoscope.observe.inspecting import inspect
from stratoscope.observe.watch import watch
from stratoscope.studies import Budget, Study
from stratoscope.studies.self_regularisation.claims import CLAIMS
from stratoscope.studies.self_regularisation.networks import build
from stratoscope.studies.self_regularisation.pictures import pictures
from stratoscope.studies.self_regularisation.pretrained import PRINTED, weights_of

DECAY = 0.1
"""Weight decay that is too strong: chosen on a seed that the study does not use, as one that leaves hardly any rank."""

EVERY = 1 << 20
"""Eigenvalues to record one by one: all of them."""

SIZES: dict[Budget, dict[str, Any]] = {
    "smoke": {
        "MiniAlexNet": {"data": "generated", "images": 64, "epochs": 1, "batches": [32, 16, 8]},
        "LeNet5": {"data": "generated", "images": 64, "epochs": 1},
        "MLP3": {"data": "generated", "images": 64, "epochs": 1},
    },
    "analogue": {
        "MiniAlexNet": {"data": "cifar10", "images": 2000, "epochs": 12, "batches": [250, 64, 16, 4]},
        "LeNet5": {"data": "mnist", "images": 6000, "epochs": 5},
        "MLP3": {"data": "cifar10", "images": 2000, "epochs": 12},
    },
    "full": {
        "MiniAlexNet": {
            "data": "cifar10",
            "images": 50000,
            "epochs": 100,
            "batches": [1000, 500, 250, 150, 50, 32, 16, 8, 4, 2],
        },
        "LeNet5": {"data": "mnist", "images": 60000, "epochs": 10},
        "MLP3": {"data": "cifar10", "images": 50000, "epochs": 44},
    },
}


def tasks(budget: Budget, seeds: int) -> list[dict[str, Any]]:
    """Every training of a budget, and one task for each pre-trained network."""
    trainings = [{**one, "seed": seed} for seed in range(seeds) for one in _trainings(SIZES[budget])]
    return trainings + [{"part": "pretrained", "net": model} for model in PRINTED if budget != "smoke"]


def _trainings(sizes: dict[str, Any]) -> Iterator[dict[str, Any]]:
    alex, sizes = dict(sizes["MiniAlexNet"]), dict(sizes)
    batches = alex.pop("batches")
    base = {"net": "MiniAlexNet", **alex, "decay": 0.0, "most_steps": 0}
    for batch in batches:
        yield {"part": "batch size", **base, "batch": batch}
    # as many updates as the second largest batch gets in its epochs
    steps = -(-alex["images"] // batches[1]) * alex["epochs"]
    for batch in batches[2:]:
        yield {"part": "equal steps", **base, "batch": batch, "most_steps": steps}
    yield {"part": "weight decay", **base, "batch": 16, "decay": DECAY}
    yield {"part": "LeNet5", "net": "LeNet5", **sizes["LeNet5"], "decay": 0.0, "most_steps": 0, "batch": 128}
    yield {"part": "MLP3", "net": "MLP3", **sizes["MLP3"], "decay": 0.0, "most_steps": 0, "batch": 16}


def work(spec: Spec, folder: Path) -> None:
    """Train one network and measure it at its start and at its end, the MLP after each epoch; or open a trained one."""
    if spec["part"] == "pretrained":
        path = weights_of(spec["net"])
        if path is None:
            raise NotApplicable(f"the weights of {spec['net']} are not on this machine; torchvision downloads them")
        layers = [row.matrix.removesuffix(".weight") for row in PRINTED[spec["net"]]]
        inspect(
            path,
            to=folder,
            instruments=[EigenvalueSpectrum(bootstrap=0, shuffles=0, noise_gate=False, keep=EVERY)],
            layers=layers,
            name=spec["net"],
        )
        return
    images, labels = pictures(spec["data"], spec["images"])
    if spec["net"] == "LeNet5":
        images = images.mean(1, keepdim=True)
    net = build(spec["net"], spec["seed"])
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # a third faster; missing in torch's stubs
    _train(net, images.contiguous(memory_format=torch.channels_last), labels, spec, folder)


def _train(net: nn.Module, images: Tensor, labels: Tensor, spec: Spec, folder: Path) -> None:
    optimizer: torch.optim.Optimizer
    if spec["net"] == "LeNet5":
        optimizer = torch.optim.Adadelta(net.parameters(), lr=1.0, rho=0.95, eps=1e-7)  # Keras' defaults of that time
    else:
        optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=spec["decay"])
    an_epoch = -(-len(images) // spec["batch"])
    steps = min(spec["epochs"] * an_epoch, spec["most_steps"] or spec["epochs"] * an_epoch)
    every = an_epoch if spec["net"] == "MLP3" else steps
    instruments = [EigenvalueSpectrum(bootstrap=0, shuffles=0), WeightMatrices()]
    order = torch.Generator().manual_seed(1000 + spec["seed"])
    with watch(
        net, optimizer=optimizer, to=folder, instruments=instruments, every=every, budget=1e3, snapshot=False, name=spec["net"]
    ) as w:  # fmt: skip
        for step, batch in enumerate(_batches(len(images), spec["batch"], steps, order), start=1):
            loss = nn.functional.cross_entropy(net(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            w.step(step, loss=loss)
        w.log("train_accuracy", _accuracy(net, images, labels))


def _batches(n: int, size: int, steps: int, order: torch.Generator) -> Iterator[Tensor]:
    """Mini-batches of as many epochs as it takes; each epoch in an order of its own."""
    done = 0
    while done < steps:
        for batch in torch.randperm(n, generator=order).split(size):
            if done < steps:
                done += 1
                yield batch


@torch.no_grad()
def _accuracy(net: nn.Module, images: Tensor, labels: Tensor) -> float:
    net.eval()
    hits = sum(int((net(x).argmax(1) == y).sum()) for x, y in zip(images.split(250), labels.split(250), strict=True))
    net.train()
    return hits / len(images)


STUDY = Study(
    name="self-regularisation",
    title="Self-regularisation of weight matrices",
    paper="arXiv:1810.01075",
    question="Does training regularise weight matrices by itself, and does the batch size drive them through the phases?",
    tasks=tasks,
    work=work,
    claims=CLAIMS,
)
