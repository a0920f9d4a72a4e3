"""The Tiny VGG that CNN Explainer shows, trained on ten classes of Tiny ImageNet."""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

# Files in this folder are loaded by path, so the helper beside them is too.
_SPEC = spec_from_file_location("_networks_folder", Path(__file__).with_name("_folder.py"))
data_folder = module_from_spec(_SPEC)
_SPEC.loader.exec_module(data_folder)

CLASSES = (
    "lifeboat",
    "ladybug",
    "pizza",
    "bell pepper",
    "school bus",
    "koala",
    "espresso",
    "red panda",
    "orange",
    "sport car",
)
# How the sample files name the classes.
SHORT = ("boat", "bug", "pizza", "pepper", "bus", "koala", "espresso", "panda", "orange", "car")


class TinyVGG(nn.Module):
    """Two pairs of unpadded 3x3 convolutions of width 10, one linear layer; one ReLU module serves all four places."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_1_1 = nn.Conv2d(3, 10, 3)
        self.conv_1_2 = nn.Conv2d(10, 10, 3)
        self.conv_2_1 = nn.Conv2d(10, 10, 3)
        self.conv_2_2 = nn.Conv2d(10, 10, 3)
        self.output = nn.Linear(1690, 10)
        self.relu = nn.ReLU()
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores `(n, 10)` of pictures `(n, 3, 64, 64)` in 0..1."""
        x = self.pool(self.relu(self.conv_1_2(self.relu(self.conv_1_1(x)))))
        x = self.pool(self.relu(self.conv_2_2(self.relu(self.conv_2_1(x)))))
        return self.output(x.flatten(1))


def build(folder: Path | str | None = None, weights: bool = True) -> nn.Module:
    """The network with its trained weights, or freshly drawn (`weights=False`)."""
    if not weights:
        return data_folder.untrained(TinyVGG)
    return data_folder.trained(TinyVGG, data_folder.path(folder, "tiny_vgg", "model.safetensors"))


def data(folder: Path | str | None = None, n: int = 20) -> dict[str, tuple[Tensor, Tensor]]:
    """The first `n` (at most 20) named sample pictures in alphabetical order, in 0..1, and their classes."""
    samples = sorted(data_folder.path(folder, "tiny_vgg", "samples").glob("*_*.jpeg"))[:n]
    images = torch.stack([data_folder.pixels(Image.open(file)) for file in samples])
    labels = torch.tensor([SHORT.index(file.stem.partition("_")[0]) for file in samples])
    return {"test": (images / 255, labels)}
