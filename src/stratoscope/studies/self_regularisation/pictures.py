"""The pictures that the study trains on, and why they are not there where they are not."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stratoscope.errors import DataError, NotApplicable
from stratoscope.network import datasets
from stratoscope.network.readers import read_image

Pictures = tuple[Tensor, Tensor]
"""Float32 `(n, channels, 28, 28)`, each with mean 0 and deviation 1, and labels `(n,)`."""

SHEETS, ON_SHEETS = 4, 4000
"""A data folder may hold the first 4,000 training pictures of CIFAR-10 as four PNG sheets, a picture in each row."""


def pictures(source: str, n: int, *, download: bool = False) -> Pictures:
    """The first `n` training pictures of a set, in the middle 28 x 28 pixels, each picture standardised.

    Args:
        source: `"cifar10"`, `"mnist"`, or `"generated"`: ten blurred patterns with noise, which only show that the code
            runs.
        n: how many.
        download: whether a set that is not on this machine may be fetched.

    Raises:
        NotApplicable: if the set is not on this machine.
    """
    if source == "generated":
        images, labels = _generated(n)
    else:
        images, labels = (_sheets(n) if source == "cifar10" else None) or _public(source, n, download)
    middle = images[..., images.shape[-2] // 2 - 14 :, images.shape[-1] // 2 - 14 :][..., :28, :28]
    flat = middle.flatten(1)
    deviation = flat.std(1, keepdim=True).clamp_min(1e-6)
    return ((flat - flat.mean(1, keepdim=True)) / deviation).reshape(middle.shape), labels


def _public(source: str, n: int, download: bool) -> Pictures:
    try:
        images, labels = datasets.load(source, split="train", download=download)["train"]
    except DataError as error:
        raise NotApplicable(f"{source} is not on this machine: {error}") from error
    return images[:n], labels[:n]


def _sheets(n: int) -> Pictures | None:
    folder = Path(os.environ.get("STRATOSCOPE_DATA", "")) / "cifar10"
    if n > ON_SHEETS or not (folder / "sheet_labels.npz").is_file():
        return None
    rows = np.concatenate([_sheet(folder / f"sheet_{number}.png") for number in range(SHEETS)])
    with np.load(folder / "sheet_labels.npz", allow_pickle=False) as held:
        labels = torch.from_numpy(held["label"].astype(np.int64))
    return torch.from_numpy(rows[:n]).float() / 255, labels[:n]


def _sheet(path: Path) -> np.ndarray:
    """`(pictures, 3, 32, 32)`: each row of the sheet is a picture, pixel after pixel."""
    return np.moveaxis(read_image(path).reshape(-1, 32, 32, 3), -1, 1)


def _generated(n: int) -> Pictures:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(10, 3, 7, 7, generator=generator)
    patterns = torch.nn.functional.interpolate(coarse, size=28, mode="bilinear")
    labels = torch.randint(10, (n,), generator=generator)
    return patterns[labels] + torch.randn(n, 3, 28, 28, generator=generator), labels
