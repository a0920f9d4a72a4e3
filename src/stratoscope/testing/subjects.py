"""Tiny subjects of every kind, so that an instrument can be tried on what people really build.

Each is a function that returns a fresh `Subject` with seeded weights and 40 labelled examples, so that five batches of 8
can be compared with one of 40. All of them together take well under a second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the usual name
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.utils.checkpoint import checkpoint

from stratoscope.capture.loss import IGNORED_LABEL
from stratoscope.network.subject import Subject

N = 40
"""Examples in each split."""
CLASSES = 4
"""Classes of the labels."""


@contextmanager
def seeded(seed: int) -> Iterator[torch.Generator]:
    """Draw initial weights by seed and give a generator for the data; torch's own generator is put back afterwards."""
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield torch.Generator().manual_seed(seed)
    finally:
        torch.set_rng_state(state)


def blobs(*shape: int, generator: torch.Generator, n: int = N) -> tuple[Tensor, Tensor]:
    """Inputs of a shape whose mean depends on the class, and the classes.

    >>> inputs, labels = blobs(3, 5, generator=torch.Generator().manual_seed(0))
    >>> tuple(inputs.shape), int(labels.max())
    ((40, 3, 5), 3)
    """
    labels = torch.arange(n) % CLASSES
    centres = torch.randn(CLASSES, *shape, generator=generator)
    return centres[labels] + 0.5 * torch.randn(n, *shape, generator=generator), labels


def sentences(*, generator: torch.Generator, words: int = 12, longest: int = 6) -> dict[str, Tensor]:
    """Dict batches as tokenizers give them: `input_ids`, `attention_mask` (two in three are padded) and `labels`."""
    ids = torch.randint(1, words, (N, longest), generator=generator)
    lengths = torch.randint(2, longest + 1, (N,), generator=generator)
    lengths[::3] = longest
    mask = (torch.arange(longest)[None] < lengths[:, None]).long()
    return {"input_ids": ids * mask, "attention_mask": mask, "labels": ids[:, 0] % CLASSES}


# -- feed-forward --------------------------------------------------------------------------------------------------------


def mlp(seed: int = 0) -> Subject:
    """Two hidden layers with ReLU and tanh; two splits."""
    with seeded(seed) as generator:
        model = nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 8), nn.Tanh(), nn.Linear(8, CLASSES))
        inputs, labels = blobs(6, generator=generator, n=2 * N)
    splits = {"train": (inputs[:N], labels[:N]), "test": (inputs[N:], labels[N:])}
    return Subject(model, splits, name="mlp")


def cnn(seed: int = 0) -> Subject:
    """Convolutions with batch norm, max pooling and ReLU in place."""
    with seeded(seed) as generator:
        model = nn.Sequential(
            nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.MaxPool2d(2),
            nn.Conv2d(6, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, CLASSES),
        )  # fmt: skip
        data = blobs(2, 8, 8, generator=generator)
        _warm_up(model, data[0])
    return Subject(model, data, name="cnn")


class ResidualBlock(nn.Module):
    """Two convolutions beside a shortcut, with functional ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Add what the convolutions make of x to x."""
        hidden = F.relu(self.norm1(self.conv1(x)))
        return F.relu(x + self.conv2(hidden))


def residual(seed: int = 0) -> Subject:
    """Residual blocks in which `F.relu` is called twice."""
    with seeded(seed) as generator:
        model = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), ResidualBlock(4), ResidualBlock(4), nn.Flatten(), nn.Linear(4 * 36, CLASSES)
        )
        data = blobs(1, 6, 6, generator=generator)
        _warm_up(model, data[0])
    return Subject(model, data, name="residual")


def conv1d(seed: int = 0) -> Subject:
    """One-dimensional and transposed convolutions, GELU and SiLU."""
    with seeded(seed) as generator:
        model = nn.Sequential(
            nn.Conv1d(3, 6, 5, padding=2), nn.GELU(), nn.ConvTranspose1d(6, 4, 4, stride=2), nn.SiLU(),
            nn.AdaptiveAvgPool1d(2), nn.Flatten(), nn.Linear(8, CLASSES),
        )  # fmt: skip
        data = blobs(3, 12, generator=generator)
    return Subject(model, data, name="conv1d")


def conv3d(seed: int = 0) -> Subject:
    """Three-dimensional convolutions, group norm, sigmoid."""
    with seeded(seed) as generator:
        model = nn.Sequential(
            nn.Conv3d(1, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.Sigmoid(), nn.AvgPool3d(2), nn.Flatten(),
            nn.Linear(4 * 8, CLASSES),
        )  # fmt: skip
        data = blobs(1, 4, 4, 4, generator=generator)
    return Subject(model, data, name="conv3d")


def regression(seed: int = 0) -> Subject:
    """Two floating outputs, mean squared error, no classes."""
    with seeded(seed) as generator:
        model = nn.Sequential(nn.Linear(5, 8), nn.ELU(), nn.Linear(8, 2))
        inputs = torch.randn(N, 5, generator=generator)
        targets = inputs[:, :2].sin() + 0.1 * torch.randn(N, 2, generator=generator)
    return Subject(model, (inputs, targets), name="regression")


def segmentation(seed: int = 0) -> Subject:
    """One class for each pixel; some pixels have no label."""
    with seeded(seed) as generator:
        model = nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), nn.LeakyReLU(), nn.Conv2d(6, CLASSES, 1))
        inputs = torch.randn(N, 2, 5, 5, generator=generator)
        labels = (2 * (inputs[:, 0] > 0) + (inputs[:, 1] > 0)).long()
        labels[torch.rand(labels.shape, generator=generator) < 0.2] = IGNORED_LABEL
    return Subject(model, (inputs, labels), name="segmentation")


# -- sequences -----------------------------------------------------------------------------------------------------------


class Recurrent(nn.Module):
    """A recurrent layer and a readout of its last step.

    Args:
        cell: `nn.RNN`, `nn.GRU` or `nn.LSTM`, already made.
        batch_first: whether the cell wants examples first; the model always gets them first.
        packed: whether the cell is given packed sequences.
    """

    def __init__(self, cell: nn.RNNBase, batch_first: bool = True, packed: bool = False) -> None:
        super().__init__()
        self.cell, self.batch_first, self.packed = cell, batch_first, packed
        self.head = nn.Linear(cell.hidden_size * (2 if cell.bidirectional else 1), CLASSES)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Scores from the last real step."""
        if self.packed and lengths is not None:
            packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
            states, _ = pad_packed_sequence(self.cell(packed)[0], batch_first=True)
            scores: Tensor = self.head(states[torch.arange(len(x)), lengths - 1])
            return scores
        states = self.cell(x if self.batch_first else x.transpose(0, 1))[0]
        last: Tensor = self.head(states[:, -1] if self.batch_first else states[-1])
        return last


def rnn(seed: int = 0) -> Subject:
    """A plain recurrent network."""
    with seeded(seed) as generator:
        model = Recurrent(nn.RNN(3, 7, batch_first=True))
        data = blobs(5, 3, generator=generator)
    return Subject(model, data, name="rnn")


def lstm(seed: int = 0) -> Subject:
    """A bidirectional LSTM that wants examples first."""
    with seeded(seed) as generator:
        model = Recurrent(nn.LSTM(3, 5, batch_first=True, bidirectional=True))
        data = blobs(5, 3, generator=generator)
    return Subject(model, data, name="lstm")


def lstm_time_first(seed: int = 0) -> Subject:
    """An LSTM that wants time first, on sequences of 8 steps: as long as a batch of 8 is wide."""
    with seeded(seed) as generator:
        model = Recurrent(nn.LSTM(3, 5), batch_first=False)
        data = blobs(8, 3, generator=generator)
    return Subject(model, data, name="lstm_time_first")


def lstm_packed(seed: int = 0) -> Subject:
    """A GRU on packed sequences of different lengths."""
    with seeded(seed) as generator:
        model = Recurrent(nn.GRU(3, 5, batch_first=True), packed=True)
        inputs, labels = blobs(6, 3, generator=generator)
        lengths = torch.randint(2, 7, (N,), generator=generator)
    return Subject(model, {"x": inputs, "lengths": lengths, "labels": labels}, name="lstm_packed")


class Encoder(nn.Module):
    """A transformer encoder over tokens, with padding; the mean of the real tokens is read out."""

    def __init__(self, words: int = 12, width: int = 8, longest: int = 6) -> None:
        super().__init__()
        self.embed = nn.Embedding(words, width, padding_idx=0)
        self.position = nn.Parameter(0.1 * torch.randn(longest, width))
        layer = nn.TransformerEncoderLayer(width, 2, 16, dropout=0.1, batch_first=True, activation="gelu")
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Scores of the sentence."""
        hidden = self.embed(input_ids) + self.position[: input_ids.shape[1]]
        hidden = self.encoder(hidden, src_key_padding_mask=attention_mask == 0)
        weight = attention_mask[..., None].to(hidden.dtype)
        scores: Tensor = self.head((hidden * weight).sum(1) / weight.sum(1))
        return scores


def transformer(seed: int = 0) -> Subject:
    """A transformer encoder with dropout, given dict batches with a padding mask."""
    with seeded(seed) as generator:
        model = Encoder()
        data = sentences(generator=generator)
    return Subject(model, data, name="transformer")


class TiedLanguageModel(nn.Module):
    """Embedding and readout share one matrix."""

    def __init__(self, words: int = 12, width: int = 8) -> None:
        super().__init__()
        self.embed = nn.Embedding(words, width)
        self.mix = nn.Linear(width, width)
        self.head = nn.Linear(width, words, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> dict[str, Tensor]:
        """Scores of the next token, in a dict."""
        hidden = torch.tanh(self.mix(self.embed(input_ids)))
        return {"logits": self.head(hidden), "hidden": hidden}


def tied(seed: int = 0) -> Subject:
    """A language model with tied weights, token labels, and padding that has no label."""
    with seeded(seed) as generator:
        model = TiedLanguageModel()
        data = sentences(generator=generator)
    labels = data["input_ids"].roll(-1, 1).masked_fill(data["attention_mask"] == 0, IGNORED_LABEL)
    return Subject(model, {**data, "labels": labels}, name="tied")


# -- what is not usual ---------------------------------------------------------------------------------------------------


def frozen(seed: int = 0) -> Subject:
    """The first layer does not learn."""
    subject = mlp(seed)
    assert isinstance(subject.model, nn.Sequential)
    subject.model[0].requires_grad_(False)
    return Subject(subject.model, subject.data["train"], name="frozen")


def float16(seed: int = 0) -> Subject:
    """Weights in half precision."""
    return _in(torch.float16, seed)


def bfloat16(seed: int = 0) -> Subject:
    """Weights in bfloat16."""
    return _in(torch.bfloat16, seed)


class Repeated(nn.Module):
    """One module that is called three times, and one function twice."""

    def __init__(self) -> None:
        super().__init__()
        self.step = nn.Linear(6, 6)
        self.relu = nn.ReLU()
        self.head = nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Three times the same step."""
        for _ in range(3):
            x = x + self.relu(self.step(x))
        scores: Tensor = self.head(torch.tanh(x))
        return scores


def repeated(seed: int = 0) -> Subject:
    """A module that is called three times in one forward pass."""
    with seeded(seed) as generator:
        model = Repeated()
        data = blobs(6, generator=generator)
    return Subject(model, data, name="repeated")


@dataclass
class Answer:
    """An output that is a dataclass."""

    logits: Tensor
    parts: tuple[Tensor, dict[str, Tensor]]


class Splits(nn.Module):
    """Gives a tuple of a tensor and a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(6, 5), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Both halves."""
        return self.left(x).relu(), {"right": self.right(x)}


class Nested(nn.Module):
    """Outputs in a tuple, a dict and a dataclass."""

    def __init__(self) -> None:
        super().__init__()
        self.splits = Splits()
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Answer:
        """Scores and what they came from."""
        parts = self.splits(x)
        return Answer(self.head(torch.cat([parts[0], parts[1]["right"]], 1)), parts)


def nested(seed: int = 0) -> Subject:
    """Outputs within outputs."""
    with seeded(seed) as generator:
        model = Nested()
        data = blobs(6, generator=generator)
    return Subject(model, data, name="nested")


class Unused(nn.Module):
    """Owns a layer that it never calls."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.never = nn.Linear(6, CLASSES), nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """The used one alone."""
        scores: Tensor = self.used(x)
        return scores


def unused(seed: int = 0) -> Subject:
    """A layer that no forward pass reaches."""
    with seeded(seed) as generator:
        model = Unused()
        data = blobs(6, generator=generator)
    return Subject(model, data, name="unused")


class Checkpointed(nn.Module):
    """Runs its body again in the backward pass to save memory."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU())
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Scores; the body is checkpointed."""
        scores: Tensor = self.head(checkpoint(self.body, x, use_reentrant=False))
        return scores


def checkpointed(seed: int = 0) -> Subject:
    """A block under activation checkpointing."""
    with seeded(seed) as generator:
        model = Checkpointed()
        data = blobs(6, generator=generator)
    return Subject(model, data, name="checkpointed")


def weight_normed(seed: int = 0) -> Subject:
    """Weights that are parametrized by length and direction."""
    with seeded(seed) as generator:
        model = nn.Sequential(weight_norm(nn.Linear(6, 8)), nn.ReLU(), weight_norm(nn.Linear(8, CLASSES)))
        data = blobs(6, generator=generator)
    return Subject(model, data, name="weight_normed")


SUBJECTS: dict[str, Callable[[], Subject]] = {
    make.__name__: make
    for make in (
        mlp, cnn, residual, conv1d, conv3d, regression, segmentation, rnn, lstm, lstm_time_first, lstm_packed,
        transformer, tied, frozen, float16, bfloat16, repeated, nested, unused, checkpointed, weight_normed,
    )
}  # fmt: skip
"""Every kind by its name."""


def _in(dtype: torch.dtype, seed: int) -> Subject:
    """A network whose weights are stored in a smaller type."""
    with seeded(seed) as generator:
        model = nn.Sequential(nn.Linear(6, 16), nn.LayerNorm(16), nn.ReLU(), nn.Linear(16, CLASSES)).to(dtype)
        data: Any = blobs(6, generator=generator)
    return Subject(model, data, name=str(dtype).removeprefix("torch."))


def _warm_up(model: nn.Module, inputs: Tensor) -> None:
    """Give batch norms statistics of the data, and gains and biases that are not all the same."""
    model.train()
    with torch.no_grad():
        for _ in range(20):
            model(inputs)
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.weight.uniform_(0.5, 1.5)
                module.bias.uniform_(-0.5, 0.5)
