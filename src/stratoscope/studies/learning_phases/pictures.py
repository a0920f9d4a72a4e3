"""The pictures that the study trains on, those it measures with, and the other task that frozen layers are probed for.

* CIFAR-10: the other task is the paper's: which colour is the strongest, by the sums over pixels, on the same pictures.
* Fashion-MNIST has no colours. Its other task is another data set of the same form: the digits of MNIST.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from stratoscope.errors import DataError, NotApplicable
from stratoscope.network import datasets
from stratoscope.network.loading import read_data
from stratoscope.studies.self_regularisation.pictures import pictures as standardised

Split = tuple[Tensor, Tensor]
"""Float32 pictures `(n, channels, size, size)` and labels `(n,)`."""

FULL = 32
"""Pixels on a side before pictures are made smaller; those of 28 get a margin."""
PARTS = {"train": "train8k_jpeg.npz", "test": "test_jpeg.npz"}
"""A data folder may hold 8,000 training pictures of CIFAR-10 and all test pictures, as JPEG: lossy, so never to be mixed
with, or compared to, the original ones."""


@dataclass(frozen=True)
class Pictures:
    """What one training needs.

    Attributes:
        train: pictures that are trained on, each channel with mean 0 and deviation 1.
        test: others, on the same scale.
        other: the other task: pictures that are not trained on, and its labels.
    """

    train: Split
    test: Split
    other: Split


def load(source: str, train: int, test: int, size: int) -> Pictures:
    """Pictures of a set.

    Args:
        source: `"cifar10"`, `"cifar10_jpeg"`, `"fashion_mnist"`, or `"generated"` and `"generated_grey"`, which only show
            that the code runs.
        train: how many to train on, the first ones.
        test: how many to measure with.
        size: pixels on a side; a power of two up to 32, blocks of pixels are averaged.

    Raises:
        NotApplicable: if the set is not on this machine.

    >>> found = load("generated", 30, 20, 16)
    >>> found.train[0].shape, found.other[1].shape
    (torch.Size([30, 3, 16, 16]), torch.Size([20]))
    """
    splits = _splits(source, train, test)
    images = {name: _smaller(x, size) for name, (x, _) in splits.items()}
    mean, deviation = (f(images["train"], (0, 2, 3), keepdim=True) for f in (torch.mean, torch.std))
    scaled = {name: ((x - mean) / deviation, splits[name][1]) for name, x in images.items()}
    other = scaled.get("other", (scaled["test"][0], strongest_colour(images["test"])))
    return Pictures(scaled["train"], scaled["test"], other)


def strongest_colour(images: Tensor) -> Tensor:
    """Which channel has the largest sum; the first of equal ones.

    >>> strongest_colour(torch.tensor([[[[0.2]], [[0.9]], [[0.1]]]]))
    tensor([1])
    """
    return images.sum((2, 3)).argmax(1)


def _splits(source: str, train: int, test: int) -> dict[str, Split]:
    if source.startswith("generated"):
        images, labels = standardised("generated", train + 2 * test)
        if source == "generated_grey":
            images = images.mean(1, keepdim=True)
        ends = {"train": (0, train), "test": (train, train + test), "other": (train + test, train + 2 * test)}
        found = {name: (images[a:b], labels[a:b]) for name, (a, b) in ends.items()}
        return found if source == "generated_grey" else {name: found[name] for name in ("train", "test")}
    sizes = {"train": train, "test": test}
    parts = _jpegs() if source == "cifar10_jpeg" else _public(source)
    found = {name: (x[: sizes[name]], y[: sizes[name]]) for name, (x, y) in parts.items()}
    if source == "fashion_mnist":
        digits, labels = _public("mnist", "test")["test"]
        found["other"] = (digits[:test], labels[:test])
    return found


def _jpegs() -> dict[str, Split]:
    folder = Path(os.environ.get("STRATOSCOPE_DATA", "")) / "cifar10"
    missing = [name for name in PARTS.values() if not (folder / name).is_file()]
    if missing:
        raise NotApplicable(f"{' and '.join(missing)} of CIFAR-10 are not in the folder STRATOSCOPE_DATA names")
    return {split: read_data(str(folder / name)) for split, name in PARTS.items()}


def _public(source: str, split: str | None = None) -> dict[str, Split]:
    try:
        return datasets.load(source, split=split, download=False)
    except DataError as error:
        raise NotApplicable(f"{source} is not on this machine: {error}") from error


def _smaller(images: Tensor, size: int) -> Tensor:
    margin = (FULL - images.shape[-1]) // 2
    return functional.avg_pool2d(functional.pad(images, (margin,) * 4), FULL // size)
