"""The demo: a small convolutional network learns handwritten digits while it is watched."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812 - the usual name
from torch import Tensor, nn

from stratoscope.observe.watch import watch
from stratoscope.record.record import Record

EPOCHS = 40
BATCH = 64
RATE = 0.05
BROKEN_RATE = 0.3


@dataclass(frozen=True)
class Tick:
    """How the demo is going, for the live table."""

    epoch: int
    step: int
    loss: float
    test_accuracy: float
    seconds: float
    share: float


class Block(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Add what the two convolutions make of x to x."""
        out: Tensor = F.relu(x + self.conv2(self.relu(self.conv1(x))))
        return out


class DigitNet(nn.Module):
    """8 x 8 grey digits to 10 classes, about 105,000 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(32)
        self.relu1 = nn.ReLU()
        self.block = Block(32)
        self.pool = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(32, 64, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(64)
        self.relu2 = nn.ReLU()
        self.hidden = nn.Linear(1024, 64)
        self.relu3 = nn.ReLU()
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Scores of the ten classes."""
        x = self.block(self.relu1(self.norm1(self.conv1(x))))
        x = self.relu2(self.norm2(self.conv2(self.pool(x))))
        scores: Tensor = self.head(self.relu3(self.hidden(x.flatten(1))))
        return scores


def build(seed: int = 0) -> DigitNet:
    """The network with its first weights drawn by seed; the global generator is left alone."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return DigitNet()


def break_it(model: DigitNet) -> None:
    """Kill one layer: a bias so low that no unit behind it ever acts."""
    assert model.block.conv1.bias is not None
    with torch.no_grad():
        model.block.conv1.bias.fill_(-100.0)


def digits() -> tuple[dict[str, tuple[Tensor, Tensor]], str]:
    """Handwritten digits in two splits, and where they come from in words.

    scikit-learn ships them; where it is not installed, digits are drawn with a font, shifted and blurred by noise.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        images, labels = drawn_digits()
        where = "drawn digits (install 'stratoscope[demo]' for scikit-learn's handwritten ones)"
    else:
        found = load_digits()
        images = torch.tensor(found.images, dtype=torch.float32)[:, None] / 16
        labels = torch.tensor(found.target)
        where = "scikit-learn's 1,797 handwritten digits"
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    train, test = order[360:], order[:360]
    return {"train": (images[train], labels[train]), "test": (images[test], labels[test])}, where


def drawn_digits(n: int = 1800, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Digits drawn with Pillow's own font at random places, with noise: `(n, 1, 8, 8)` in [0, 1], and labels."""
    import numpy as np
    from PIL import Image, ImageDraw, ImageFont

    rng, images = np.random.default_rng(seed), []
    labels = np.arange(n) % 10
    for label in labels:
        picture = Image.new("L", (32, 32))
        at = (9 + float(rng.integers(-3, 4)), 1 + float(rng.integers(-2, 3)))
        font = ImageFont.load_default(size=int(rng.integers(22, 30)))
        ImageDraw.Draw(picture).text(at, str(label), fill=255, font=font)
        small = picture.rotate(float(rng.normal(0, 8))).resize((8, 8), Image.Resampling.BOX)
        images.append(np.asarray(small, dtype=np.float32) / 255 + rng.normal(0, 0.05, (8, 8)))
    stacked = torch.tensor(np.stack(images), dtype=torch.float32)[:, None].clamp(0, 1)
    return stacked, torch.tensor(labels)


def run(
    folder: Path, *, broken: bool = False, epochs: int = EPOCHS, tell: Callable[[Tick], None] | None = None
) -> Record:
    """Train the demo network under `watch`.

    Args:
        folder: a new folder for the record.
        broken: train the twin whose learning rate is too high and of which one layer is dead.
        epochs: passes over the training data.
        tell: told once an epoch how it goes.
    """
    with _one_thread():
        return _run(folder, broken, epochs, tell)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Several threads gain nothing on a network this small, and wait for each other on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _run(folder: Path, broken: bool, epochs: int, tell: Callable[[Tick], None] | None) -> Record:
    data, where = digits()
    model = build()
    if broken:
        break_it(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=BROKEN_RATE if broken else RATE, momentum=0.9)
    images, labels = data["train"]
    order = torch.Generator().manual_seed(1)
    name = f"digits{' (broken on purpose)' if broken else ''}: {where}"
    began, step = time.perf_counter(), 0
    with watch(model, data, optimizer=optimizer, to=folder, budget=1.0, probe=512, name=name) as w:
        for epoch in range(epochs):
            for place, batch in enumerate(torch.randperm(len(images), generator=order).split(BATCH)):
                loss = F.cross_entropy(model(images[batch]), labels[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                step += 1
                w.step(step, loss=loss, epoch=epoch + (place * BATCH + len(batch)) / len(images))
            if tell is not None:
                accuracy = accuracy_of(model, *data["test"])
                w.log("test_accuracy", accuracy)
                tell(Tick(epoch + 1, step, loss.item(), accuracy, time.perf_counter() - began, w.share))
    return Record.open(folder)


@torch.no_grad()
def accuracy_of(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Accuracy in evaluation mode."""
    model.eval()
    hits = float((model(images).argmax(1) == labels).float().mean())
    model.train()
    return hits
