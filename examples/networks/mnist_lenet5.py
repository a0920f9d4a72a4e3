"""LeNet-5 for MNIST, the network that TensorSpace.js draws in its example."""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional

# Files in this folder are loaded by path, so the helper beside them is too.
_SPEC = spec_from_file_location("_networks_folder", Path(__file__).with_name("_folder.py"))
data_folder = module_from_spec(_SPEC)
_SPEC.loader.exec_module(data_folder)


class LeNet5(nn.Module):
    """Two convolutions, three linear layers, with functional ReLU and pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5, padding=2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(400, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores `(n, 10)` of digits `(n, 1, 28, 28)` in 0..1."""
        x = functional.max_pool2d(functional.relu(self.conv1(x)), 2)
        x = functional.max_pool2d(functional.relu(self.conv2(x)), 2)
        x = functional.relu(self.fc2(functional.relu(self.fc1(x.flatten(1)))))
        return self.fc3(x)


def build(folder: Path | str | None = None, weights: bool = True) -> nn.Module:
    """The network with its trained weights, or freshly drawn (`weights=False`)."""
    if not weights:
        return data_folder.untrained(LeNet5)
    return data_folder.trained(LeNet5, data_folder.path(folder, "mnist_lenet5", "model.safetensors"))


def data(folder: Path | str | None = None, n: int = 10000) -> dict[str, tuple[Tensor, Tensor]]:
    """The first `n` MNIST test digits in 0..1, and their labels."""
    images = data_folder.idx(data_folder.path(folder, "mnist", "t10k-images-idx3-ubyte.gz"), n)
    labels = data_folder.idx(data_folder.path(folder, "mnist", "t10k-labels-idx1-ubyte.gz"), n)
    return {"test": (images.unsqueeze(1) / 255, labels.long())}
