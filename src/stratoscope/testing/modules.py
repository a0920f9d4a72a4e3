"""The modules of the tiny subjects: one for each thing that networks do and a chain of layers does not show."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - the usual name
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.utils.checkpoint import checkpoint

CLASSES = 4
"""Classes of the labels."""


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


class Unused(nn.Module):
    """Owns a layer that it never calls."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.never = nn.Linear(6, CLASSES), nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """The used one alone."""
        scores: Tensor = self.used(x)
        return scores


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
