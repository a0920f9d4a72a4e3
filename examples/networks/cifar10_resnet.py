"""ResNet-20 and ResNet-32 for CIFAR-10 with parameter-free shortcuts (option A of arXiv:1512.03385, section 4.2)."""

from __future__ import annotations

from functools import partial
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional

# Files in this folder are loaded by path, so the helper beside them is too.
_SPEC = spec_from_file_location("_networks_folder", Path(__file__).with_name("_folder.py"))
data_folder = module_from_spec(_SPEC)
_SPEC.loader.exec_module(data_folder)

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut without parameters."""

    def __init__(self, wide_in: int, wide: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(wide_in, wide, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(wide)
        self.conv2 = nn.Conv2d(wide, wide, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(wide)

    def shortcut(self, x: Tensor) -> Tensor:
        """The input itself, or every second pixel of it with zero channels added evenly on both sides."""
        missing = self.conv1.out_channels - self.conv1.in_channels
        if not missing:
            return x
        return functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, missing // 2, missing // 2))

    def forward(self, x: Tensor) -> Tensor:
        """Map `(n, wide_in, h, w)` to `(n, wide, h / stride, w / stride)`."""
        out = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


def stage(wide_in: int, wide: int, blocks: int) -> nn.Sequential:
    """Blocks of one width; the first one halves the picture where the width grows."""
    first = Block(wide_in, wide, stride=1 if wide == wide_in else 2)
    return nn.Sequential(first, *(Block(wide, wide, stride=1) for _ in range(blocks - 1)))


class ResNet(nn.Module):
    """A residual network of `6 * blocks + 2` layers for pictures of 32x32 pixels."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = stage(16, 16, blocks)
        self.layer2 = stage(16, 32, blocks)
        self.layer3 = stage(32, 64, blocks)
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores `(n, 10)` of normalised pictures `(n, 3, 32, 32)`."""
        out = functional.relu(self.bn1(self.conv1(x)))
        out = self.layer3(self.layer2(self.layer1(out)))
        return self.linear(out.mean(dim=(2, 3)))


def build(folder: Path | str | None = None, depth: int = 20, weights: bool = True) -> nn.Module:
    """The network of `depth` 20 or 32 with its trained weights, or freshly drawn (`weights=False`)."""
    make = partial(ResNet, (depth - 2) // 6)
    if not weights:
        return data_folder.untrained(make)
    return data_folder.trained(make, data_folder.path(folder, "cifar10_resnet_a", f"resnet{depth}.safetensors"))


def build32(folder: Path | str | None = None, weights: bool = True) -> nn.Module:
    """ResNet-32, as `build` with `depth=32`."""
    return build(folder, depth=32, weights=weights)


def data(folder: Path | str | None = None, n: int = 2000) -> dict[str, tuple[Tensor, Tensor]]:
    """The first `n` (at most 4,000) lossless images, normalised. They are TRAINING images: no test accuracy."""
    images, labels = data_folder.sheets(folder, n)
    return {"train": (data_folder.normalise(images, MEAN, STD), labels)}


def data_jpeg(folder: Path | str | None = None, n: int = 2000) -> dict[str, tuple[Tensor, Tensor]]:
    """The first `n` (at most 10,000) test images, normalised. They went through JPEG: that costs 9 to 11 points."""
    images, labels = data_folder.jpegs(folder, n)
    return {"test": (data_folder.normalise(images, MEAN, STD), labels)}
