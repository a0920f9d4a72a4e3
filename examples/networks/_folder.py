"""Where the data folder is, and how its files are read: what the network files beside this one share."""

from __future__ import annotations

import gzip
import io
import os
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

Folder = Path | str | None


def path(folder: Folder, *parts: str) -> Path:
    """A file of the data folder.

    Args:
        folder: the data folder; `None` means `STRATOSCOPE_DATA`, else `shared/data` beside the checkout.
        parts: the way to the file from there.

    Raises:
        FileNotFoundError: if there is no such file.
    """
    beside = Path(__file__).resolve().parents[3] / "shared" / "data"
    found = Path(folder or os.environ.get("STRATOSCOPE_DATA") or beside).joinpath(*parts)
    if not found.exists():
        message = (
            f"{found} does not exist. Set STRATOSCOPE_DATA to the folder that holds the data sets, or pass folder=."
        )
        raise FileNotFoundError(message)
    return found


def untrained(make: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """A freshly drawn network in evaluation mode; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return make().eval()


def trained(make: Callable[[], nn.Module], file: Path) -> nn.Module:
    """The network with the stored weights, in evaluation mode; every name and shape must match."""
    module = untrained(make)
    module.load_state_dict(load_file(file), strict=True)
    return module


def pixels(picture: Image.Image) -> Tensor:
    """A picture as red, green, blue `(3, height, width)`, float32 in 0..255."""
    return torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1).float()


def idx(file: Path, n: int | None = None) -> Tensor:
    """The first `n` entries of a gzipped IDX file of bytes (the format of MNIST), uint8."""
    with gzip.open(file) as stream:
        dims = stream.read(4)[3]
        sizes = [int.from_bytes(stream.read(4), "big") for _ in range(dims)]
        sizes[0] = min(sizes[0], n or sizes[0])
        data = stream.read(int(np.prod(sizes)))
    return torch.frombuffer(bytearray(data), dtype=torch.uint8).reshape(sizes)


def sheets(folder: Folder, n: int = 2000) -> tuple[Tensor, Tensor]:
    """The first `n` (at most 4,000) lossless CIFAR-10 training images `(n, 3, 32, 32)` in 0..1, and their labels."""
    files = (path(folder, "cifar10", f"sheet_{part}.png") for part in range((min(n, 4000) + 999) // 1000))
    rows = np.concatenate([np.array(Image.open(file)) for file in files])[:n]
    images = torch.from_numpy(rows).reshape(-1, 32, 32, 3).permute(0, 3, 1, 2)
    with np.load(path(folder, "cifar10", "sheet_labels.npz")) as stored:
        labels = torch.from_numpy(stored["label"][:n]).long()
    return images / 255, labels


def jpegs(folder: Folder, n: int = 2000) -> tuple[Tensor, Tensor]:
    """The first `n` (at most 10,000) CIFAR-10 test images `(n, 3, 32, 32)` in 0..1, LOSSY JPEG, and their labels."""
    with np.load(path(folder, "cifar10", "test_jpeg.npz")) as stored:
        data, ends, labels = stored["jpeg"], stored["offset"], stored["label"][:n]
    pieces = (data[start:end].tobytes() for start, end in pairwise(ends[: len(labels) + 1]))
    images = torch.stack([pixels(Image.open(io.BytesIO(piece))) for piece in pieces])
    return images / 255, torch.from_numpy(labels).long()


def normalise(images: Tensor, mean: Iterable[float], std: Iterable[float]) -> Tensor:
    """Subtract a mean and divide by a deviation, channel by channel."""
    shift, scale = (torch.tensor(tuple(values)).view(-1, 1, 1) for values in (mean, std))
    return (images - shift) / scale
