"""Tiny subjects of every kind, so that an instrument can be tried on what people really build.

Each is a function that returns a fresh `Subject` with seeded weights and 40 labelled examples, so that five batches of 8
can be compared with one of 40. All of them together take well under a second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from stratoscope.capture.loss import IGNORED_LABEL
from stratoscope.network.subject import Subject
from stratoscope.testing.modules import (
    CLASSES,
    Checkpointed,
    Encoder,
    Nested,
    Recurrent,
    Repeated,
    ResidualBlock,
    TiedLanguageModel,
    Unused,
)

N = 40
"""Examples in each split."""


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
        # no bias before a batch norm: its gradient is rounding alone, and no two precisions round alike
        model = nn.Sequential(
            nn.Conv2d(2, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.MaxPool2d(2),
            nn.Conv2d(6, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, CLASSES),
        )  # fmt: skip
        data = blobs(2, 8, 8, generator=generator)
        _warm_up(model, data[0])
    return Subject(model, data, name="cnn")


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


def transformer(seed: int = 0) -> Subject:
    """A transformer encoder with dropout, given dict batches with a padding mask."""
    with seeded(seed) as generator:
        model = Encoder()
        data = sentences(generator=generator)
    return Subject(model, data, name="transformer")


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


def repeated(seed: int = 0) -> Subject:
    """A module that is called three times in one forward pass."""
    with seeded(seed) as generator:
        model = Repeated()
        data = blobs(6, generator=generator)
    return Subject(model, data, name="repeated")


def nested(seed: int = 0) -> Subject:
    """Outputs within outputs."""
    with seeded(seed) as generator:
        model = Nested()
        data = blobs(6, generator=generator)
    return Subject(model, data, name="nested")


def unused(seed: int = 0) -> Subject:
    """A layer that no forward pass reaches."""
    with seeded(seed) as generator:
        model = Unused()
        data = blobs(6, generator=generator)
    return Subject(model, data, name="unused")


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
