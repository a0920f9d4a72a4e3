"""A small convolutional network for CIFAR-10, as Captum's tutorial trains it."""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from torch import Tensor, nn

# Files in this folder are loaded by path, so the helper beside them is too.
_SPEC = spec_from_file_location("_networks_folder", Path(__file__).with_name("_folder.py"))
data_folder = module_from_spec(_SPEC)
_SPEC.loader.exec_module(data_folder)

MEAN = STD = (0.5, 0.5, 0.5)


class Net(nn.Module):
    """Two convolutions, three linear layers; every nonlinearity is a module of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.relu1, self.pool1 = nn.Conv2d(3, 6, 5), nn.ReLU(), nn.MaxPool2d(2)
        self.conv2, self.relu2, self.pool2 = nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)
        self.fc1, self.relu3 = nn.Linear(400, 120), nn.ReLU()
        self.fc2, self.relu4 = nn.Linear(120, 84), nn.ReLU()
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores `(n, 10)` of normalised pictures `(n, 3, 32, 32)`."""
        x = self.pool1(self.relu1(self.conv1(x)))
        x = self.pool2(self.relu2(self.conv2(x)))
        x = self.relu4(self.fc2(self.relu3(self.fc1(x.flatten(1)))))
        return self.fc3(x)


def build(folder: Path | str | None = None, weights: bool = True) -> nn.Module:
    """The network with its trained weights, or freshly drawn (`weights=False`)."""
    if not weights:
        return data_folder.untrained(Net)
    return data_folder.trained(Net, data_folder.path(folder, "cifar10_lenet", "model.safetensors"))


def data(folder: Path | str | None = None, n: int = 4000) -> dict[str, tuple[Tensor, Tensor]]:
    """The first `n` (at most 4,000) lossless images, normalised. They are TRAINING images: no test accuracy."""
    images, labels = data_folder.sheets(folder, n)
    return {"train": (data_folder.normalise(images, MEAN, STD), labels)}


def data_jpeg(folder: Path | str | None = None, n: int = 2000) -> dict[str, tuple[Tensor, Tensor]]:
    """The first `n` (at most 10,000) test images, normalised. They went through JPEG, which costs accuracy."""
    images, labels = data_folder.jpegs(folder, n)
    return {"test": (data_folder.normalise(images, MEAN, STD), labels)}
