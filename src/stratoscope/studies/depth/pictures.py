"""The pictures that the study trains on and measures with, and why they are not there where they are not."""

from __future__ import annotations

import torch
from torch import Tensor

from stratoscope.errors import DataError, NotApplicable
from stratoscope.network import datasets
from stratoscope.studies.self_regularisation.pictures import pictures as standardised

Split = tuple[Tensor, Tensor]
"""Float32 pictures `(n, channels, 28, 28)` and labels `(n,)`."""


def splits(source: str, train: int, test: int) -> dict[str, Split]:
    """The first training pictures of a set, and pictures that are held out.

    Args:
        source: `"mnist"` (in [0, 1]), `"cifar10"` (the middle 28 x 28 pixels, each picture standardised) or
            `"generated"` (ten blurred patterns with noise, in [0, 1], which only show that the code runs).
        train: how many to train on.
        test: how many to hold out; the first of the test set, or of CIFAR-10 the training pictures that follow those that are
            trained on.

    Raises:
        NotApplicable: if the set is not on this machine.

    >>> held = splits("generated", 30, 20)
    >>> held["train"][0].shape, held["test"][1].shape
    (torch.Size([30, 1, 28, 28]), torch.Size([20]))
    """
    if source == "mnist":
        found = _public(source)
        return {name: (found[name][0][:n], found[name][1][:n]) for name, n in (("train", train), ("test", test))}
    images, labels = standardised(source, train + test)
    if source == "generated":
        images = torch.sigmoid(2 * images.mean(1, keepdim=True))
    return {"train": (images[:train], labels[:train]), "test": (images[train:], labels[train:])}


def _public(source: str) -> dict[str, Split]:
    try:
        return datasets.load(source, download=False)
    except DataError as error:
        raise NotApplicable(f"{source} is not on this machine: {error}") from error
