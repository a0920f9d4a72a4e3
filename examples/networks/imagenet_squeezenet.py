"""SqueezeNet 1.0 for ImageNet (arXiv:1602.07360), pruned and quantised by Deep Compression (arXiv:1510.00149)."""

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

SIZE = 227
MEAN = (104.0, 117.0, 123.0)  # blue, green, red, as Caffe counts them
# The photographs of the data folder whose class ImageNet has, in its usual order: Egyptian cat, espresso, tripod.
CLASSES = {"chelsea.png": 285, "coffee.png": 967, "camera.png": 872}


class Fire(nn.Module):
    """A 1x1 convolution that narrows, then a 1x1 and a 3x3 convolution side by side that widen."""

    def __init__(self, wide_in: int, narrow: int, wide: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(wide_in, narrow, 1)
        self.expand1x1 = nn.Conv2d(narrow, wide, 1)
        self.expand3x3 = nn.Conv2d(narrow, wide, 3, padding=1)
        self.relu_squeeze, self.relu_expand = nn.ReLU(), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map `(n, wide_in, h, w)` to `(n, 2 * wide, h, w)`."""
        x = self.relu_squeeze(self.squeeze(x))
        return self.relu_expand(torch.cat([self.expand1x1(x), self.expand3x3(x)], dim=1))


class SqueezeNet(nn.Module):
    """Two convolutions and eight fire modules; no linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 96, 7, stride=2)
        self.fire2, self.fire3, self.fire4 = Fire(96, 16, 64), Fire(128, 16, 64), Fire(128, 32, 128)
        self.fire5, self.fire6 = Fire(256, 32, 128), Fire(256, 48, 192)
        self.fire7, self.fire8 = Fire(384, 48, 192), Fire(384, 64, 256)
        self.fire9 = Fire(512, 64, 256)
        self.drop = nn.Dropout(0.5)
        self.conv10 = nn.Conv2d(512, 1000, 1)
        self.relu1, self.relu10 = nn.ReLU(), nn.ReLU()
        self.pool = nn.MaxPool2d(3, stride=2, ceil_mode=True)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores `(n, 1000)`, never negative, of pictures `(n, 3, 227, 227)` as `prepare` makes them."""
        x = self.pool(self.relu1(self.conv1(x)))
        x = self.pool(self.fire4(self.fire3(self.fire2(x))))
        x = self.pool(self.fire8(self.fire7(self.fire6(self.fire5(x)))))
        x = self.relu10(self.conv10(self.drop(self.fire9(x))))
        return x.mean(dim=(2, 3))


def build(folder: Path | str | None = None, weights: bool = True) -> nn.Module:
    """The network with its trained weights, or freshly drawn (`weights=False`)."""
    if not weights:
        return data_folder.untrained(SqueezeNet)
    return data_folder.trained(SqueezeNet, data_folder.path(folder, "imagenet_squeezenet_dc", "model.safetensors"))


def prepare(picture: Image.Image) -> Tensor:
    """The middle square of a picture as the network wants it: 227x227, blue first, 0..255 less the channel means."""
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    square = picture.convert("RGB").crop((left, top, left + side, top + side))
    small = square.resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    return data_folder.pixels(small).flip(0) - torch.tensor(MEAN).view(3, 1, 1)


def data(folder: Path | str | None = None) -> dict[str, tuple[Tensor, Tensor]]:
    """The three photographs that show a class of ImageNet, `(3, 3, 227, 227)`, and their classes."""
    files = [data_folder.path(folder, "photos", name) for name in CLASSES]
    return {"test": (torch.stack([prepare(Image.open(file)) for file in files]), torch.tensor([*CLASSES.values()]))}
