"""Do networks learn in three phases, seen by how well their inputs can be rebuilt, and should pre-training stop early?

Schneider and Prabhushankar train a VGG and ResNets, and decode the pictures from a layer at doubling iterations: the error
first hardly moves, then falls, then rises. A probe for another task is best long before the classifier is. Here this is
measured on the same kinds of network, smaller, and what may feign such phases is varied: the statistics of the batch norms,
the scale of the activations, and how long the decoder is trained.

| budget | pictures | networks | iterations |
|---|---|---|---|
| smoke | 128 generated ones, 16 x 16 | VGG and ResNet of 4 to 16 channels | 64 |
| analogue | 8,000 of CIFAR-10 and of Fashion-MNIST, 16 x 16 | VGG of 8 to 64 channels, ResNet of 8 to 64 | 2,048 |
| full | all, 32 x 32 | VGG of 64 to 512 channels, ResNet of 64 to 512 | 65,536 |

SGD at 0.002 with momentum 0.9 and batches of 128, no augmentation, as in the paper's code. How many convolutions the paper's
networks have could not be checked: the VGG of the full budget has seven and one linear layer, its ResNet four blocks. The
decoder is a ridge regression whose strength cross-validation chooses, fitted to half of the held-out pictures for the other
half; the paper's, a linear layer trained for 20 epochs, stands beside it. `model.py` holds the single layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stratoscope.engine.task import Spec
from stratoscope.numerics.linear_probe import Sought, class_probe, cross_fitted, reconstruction, stratified
from stratoscope.record.entry import Entry
from stratoscope.record.quantity import quantity
from stratoscope.record.writer import RecordWriter
from stratoscope.studies import Budget, Study
from stratoscope.studies.learning_phases.claims import CLAIMS
from stratoscope.studies.learning_phases.measuring import measured, subject_of
from stratoscope.studies.learning_phases.model import DataModel, descend, doubling
from stratoscope.studies.learning_phases.networks import resnet, vgg
from stratoscope.studies.learning_phases.pictures import load

RATE, MOMENTUM, BATCH = 0.002, 0.9, 128

SIZES: dict[Budget, dict[str, Any]] = {
    "smoke": {
        "network": {"train": 128, "test": 64, "size": 16, "steps": 64, "batch": 32},
        "sets": {"cifar10": "generated", "fashion_mnist": "generated_grey"},
        "vgg": [[4], [8], [8, 8], [16, 16]],
        "resnet": [4, [4, 8, 16]],
        "model": {"train": 1000, "test": 200, "steps": 256},
    },
    "analogue": {
        "network": {"train": 8000, "test": 4000, "size": 16, "steps": 2048, "batch": BATCH},
        "sets": {"cifar10": "cifar10_jpeg", "fashion_mnist": "fashion_mnist"},
        "vgg": [[8], [16], [32, 32], [64, 64]],
        "resnet": [8, [16, 32, 64]],
        "model": {"train": 20000, "test": 4000, "steps": 16384},
    },
    "full": {
        "network": {"train": 60000, "test": 10000, "size": 32, "steps": 65536, "batch": BATCH},
        "sets": {"cifar10": "cifar10", "fashion_mnist": "fashion_mnist"},
        "vgg": [[64], [128], [256, 256], [512, 512], [512]],
        "resnet": [64, [64, 128, 256, 512]],
        "model": {"train": 100000, "test": 10000, "steps": 65536},
    },
}

MODELS: dict[str, dict[str, float]] = {
    "whole": {"weak": 0.8, "start": 0.02},
    "from zero": {"weak": 0.8, "start": 0.0},
    "strong only": {"weak": 0.0, "start": 0.02},
}
"""Variants of the data model: as it is, without random weights at the start, and without weak features."""
MODEL_RATE, MODEL_BATCH = 0.025, 250


def tasks(budget: Budget, seeds: int) -> list[dict[str, Any]]:
    """For each seed a VGG and a ResNet on each set, and the single layer on each variant of the data model."""
    sizes = SIZES[budget]
    networks = [
        {"part": "network", "set": name, "net": net, "data": data, **sizes["network"], "widths": sizes[net]}
        for name, data in sizes["sets"].items()
        for net in ("vgg", "resnet")
    ]
    models = [{"part": "model", "variant": name, **own, **sizes["model"]} for name, own in MODELS.items()]
    return [{**one, "seed": seed} for seed in range(seeds) for one in (*networks, *models)]


def work(spec: Spec, folder: Path) -> None:
    """Train one network, or one layer on the data model, and measure it at doubling iterations."""
    with RecordWriter.create(folder, {"name": "learning-phases", "spec": dict(spec)}) as writer:
        if spec["part"] == "model":
            _layer(spec, writer)
        else:
            _network(spec, writer)


def _network(spec: Spec, writer: RecordWriter) -> None:
    found = load(spec["data"], spec["train"], spec["test"], spec["size"])
    images, labels = found.train
    images = images.contiguous(memory_format=torch.channels_last)
    net = _build(spec, images.shape[1])
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # a third faster; missing in torch's stubs
    subject = subject_of(net, found, spec["seed"])
    varied = spec["set"] == "cifar10" and spec["net"] == "vgg"
    for step in _training(net, images, labels, spec):
        writer.commit(step, measured(subject, images, spec["batch"], decoders=varied))


def _build(spec: Spec, channels: int) -> nn.Sequential:
    if spec["net"] == "vgg":
        return vgg(channels, spec["widths"], spec["size"], spec["seed"])
    stem, widths = spec["widths"]
    return resnet(channels, stem, widths, spec["seed"])


def _training(net: nn.Module, images: Tensor, labels: Tensor, spec: Spec) -> Iterator[int]:
    """Train; gives the doubling iterations, from 0 on."""
    optimizer = torch.optim.SGD(net.parameters(), lr=RATE, momentum=MOMENTUM)
    order = torch.Generator().manual_seed(1000 + spec["seed"])
    wanted = doubling(spec["steps"])
    yield 0
    step = 0
    while step < spec["steps"]:
        for batch in torch.randperm(len(images), generator=order).split(spec["batch"]):
            loss = nn.functional.cross_entropy(net(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            if step in wanted:
                yield step
            if step == spec["steps"]:
                return


def _layer(spec: Spec, writer: RecordWriter) -> None:
    """The single layer: what descent does, and what was derived."""
    model = DataModel(weak=spec["weak"])
    draw = torch.Generator().manual_seed(2000 + spec["seed"])
    inputs, labels, _ = model.draw(spec["train"], draw)
    start = model.start(spec["start"], draw)
    test = model.draw(spec["test"], draw)
    steps = doubling(spec["steps"])
    kept = descend(inputs.float(), labels, start, steps, MODEL_RATE, MODEL_BATCH, draw)
    for step, weights in kept.items():
        derived = model.error(model.weights(start, step, MODEL_RATE))
        numbers = {"derived": derived, "error": model.floor, **_read(test, weights.double(), spec["seed"])}
        writer.commit(step, [_entry(name, value) for name, value in numbers.items()])


def _read(test: tuple[Tensor, Tensor, Tensor], weights: Tensor, seed: int) -> dict[str, float]:
    """What a decoder and a probe, fitted to half of the examples, read from the layer in the other half."""
    inputs, labels, strongest = test
    given = inputs @ weights.mT
    found = {"class_accuracy": float((given.argmax(1) == labels).double().mean())}
    if not bool(weights.any()):
        return found  # nothing but zeros: the mean is all that can be predicted
    group = torch.arange(len(inputs))
    folds = cross_fitted(given, stratified(labels, group, 2, seed=seed))
    sought = [Sought.of(inputs, fold.train, fold.test) for fold in folds]
    found["error"] = reconstruction(folds, sought, group).error
    found["transfer_accuracy"] = class_probe(folds, strongest, group, permutations=0).accuracy.share
    return found


_LONG = {
    "derived": "derived mean squared error of a rebuilt input number",
    "error": "mean squared error of a rebuilt input number",
    "class_accuracy": "held-out accuracy of the layer",
    "transfer_accuracy": "held-out accuracy of a linear probe for the strongest feature",
}


def _entry(name: str, value: float) -> Entry:
    return Entry("layer", name, quantity(value, units="1", long_name=_LONG[name]))


STUDY = Study(
    name="learning-phases",
    title="Learning phases of neural networks",
    paper="arXiv:2312.06887",
    question="Do networks learn in three phases, seen by how well their inputs can be rebuilt, and should pre-training stop early?",
    tasks=tasks,
    work=work,
    claims=CLAIMS,
    seeds={"smoke": 1, "analogue": 5, "full": 5},
)
