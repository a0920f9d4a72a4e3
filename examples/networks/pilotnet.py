"""A steering network after PilotNet (arXiv:1604.07316), trained in a driving simulator."""

from __future__ import annotations

import csv
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

# Files in this folder are loaded by path, so the helper beside them is too.
_SPEC = spec_from_file_location("_networks_folder", Path(__file__).with_name("_folder.py"))
data_folder = module_from_spec(_SPEC)
_SPEC.loader.exec_module(data_folder)


class PilotNet(nn.Module):
    """Five convolutions, four linear layers, ELU after all but the last."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 24, 5, stride=2)
        self.conv2 = nn.Conv2d(24, 36, 5, stride=2)
        self.conv3 = nn.Conv2d(36, 48, 5, stride=2)
        self.conv4 = nn.Conv2d(48, 64, 3)
        self.conv5 = nn.Conv2d(64, 64, 3)
        self.drop = nn.Dropout(0.5)
        self.fc1 = nn.Linear(1152, 100)
        self.fc2 = nn.Linear(100, 50)
        self.fc3 = nn.Linear(50, 10)
        self.fc4 = nn.Linear(10, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Steering angle `(n, 1)`, -1 (left) to 1 (right), of frames `(n, 3, 66, 200)` as `prepare` makes them."""
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4, self.conv5):
            x = functional.elu(conv(x))
        x = self.drop(x).flatten(1)
        for linear in (self.fc1, self.fc2, self.fc3):
            x = functional.elu(linear(x))
        return self.fc4(x)


def build(folder: Path | str | None = None, weights: bool = True) -> nn.Module:
    """The network with its trained weights, or freshly drawn (`weights=False`)."""
    if not weights:
        return data_folder.untrained(PilotNet)
    return data_folder.trained(PilotNet, data_folder.path(folder, "pilotnet", "model.safetensors"))


def yuv(rgb: Tensor) -> Tensor:
    """Luma and colour differences `(3, h, w)` in 0..255 as OpenCV rounds them: the luma first, then the differences."""
    red, green, blue = rgb.unbind(0)
    luma = (0.299 * red + 0.587 * green + 0.114 * blue).round()
    return torch.stack([luma, 0.492 * (blue - luma) + 128, 0.877 * (red - luma) + 128]).round().clamp(0, 255)


def prepare(frame: Image.Image) -> Tensor:
    """A frame of 320x160 as the network wants it: sky and bonnet cut off, 200x66, YUV in -1..1, `(3, 66, 200)`."""
    road = data_folder.pixels(frame)[:, 60:135]
    small = functional.interpolate(road.unsqueeze(0), (66, 200), mode="bilinear", align_corners=False)[0].round()
    return yuv(small) / 127.5 - 1


def data(folder: Path | str | None = None, n: int = 63) -> dict[str, tuple[Tensor, Tensor]]:
    """The first `n` (at most 63) frames, and the angles `(n, 1)` that another driver steered, by keyboard."""
    with data_folder.path(folder, "driving_frames", "frames.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))[:n]
    files = [data_folder.path(folder, "driving_frames", "frames", row["file"]) for row in rows]
    angles = torch.tensor([float(row["steering"]) for row in rows])
    return {"test": (torch.stack([prepare(Image.open(file)) for file in files]), angles.unsqueeze(1))}
