"""A Llama of 260,032 parameters that tells stories: rotary positions, grouped queries, SwiGLU, tied output."""

from __future__ import annotations

import gzip
import json
from importlib.util import module_from_spec, spec_from_file_location
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

# Files in this folder are loaded by path, so the helper beside them is too.
_SPEC = spec_from_file_location("_networks_folder", Path(__file__).with_name("_folder.py"))
data_folder = module_from_spec(_SPEC)
_SPEC.loader.exec_module(data_folder)

WIDTH, HIDDEN, LAYERS, HEADS, KV_HEADS, VOCABULARY, CONTEXT = 64, 172, 5, 8, 4, 512, 512
HEAD_WIDTH = WIDTH // HEADS
BEGIN, BYTES = 1, 3  # the token that opens a text, the token of byte 0


def rotate(x: Tensor) -> Tensor:
    """Rotary positions (arXiv:2104.09864) on neighbouring pairs: `(n, tokens, heads, 8)` to the same shape."""
    speed = 10000.0 ** (-torch.arange(0, HEAD_WIDTH, 2, device=x.device, dtype=x.dtype) / HEAD_WIDTH)
    angle = torch.arange(x.shape[1], device=x.device, dtype=x.dtype).view(-1, 1, 1) * speed
    even, odd = x[..., ::2], x[..., 1::2]
    turned = (even * angle.cos() - odd * angle.sin(), even * angle.sin() + odd * angle.cos())
    return torch.stack(turned, dim=-1).flatten(-2)


class Attention(nn.Module):
    """Causal attention of 8 query heads, two of which share each of 4 key and value heads."""

    def __init__(self) -> None:
        super().__init__()
        self.wq = nn.Linear(WIDTH, HEADS * HEAD_WIDTH, bias=False)
        self.wk = nn.Linear(WIDTH, KV_HEADS * HEAD_WIDTH, bias=False)
        self.wv = nn.Linear(WIDTH, KV_HEADS * HEAD_WIDTH, bias=False)
        self.wo = nn.Linear(HEADS * HEAD_WIDTH, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(n, tokens, width)` to the same shape."""
        q, k, v = (project(x).unflatten(-1, (-1, HEAD_WIDTH)) for project in (self.wq, self.wk, self.wv))
        k, v = (part.repeat_interleave(HEADS // KV_HEADS, dim=2) for part in (rotate(k), v))
        heads = (part.transpose(1, 2) for part in (rotate(q), k, v))
        out = functional.scaled_dot_product_attention(*heads, is_causal=True)
        return self.wo(out.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """SwiGLU (arXiv:2002.05202)."""

    def __init__(self) -> None:
        super().__init__()
        self.w1 = nn.Linear(WIDTH, HIDDEN, bias=False)
        self.w2 = nn.Linear(HIDDEN, WIDTH, bias=False)
        self.w3 = nn.Linear(WIDTH, HIDDEN, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(n, tokens, width)` to the same shape."""
        return self.w2(functional.silu(self.w1(x)) * self.w3(x))


class Block(nn.Module):
    """Attention, then the feed-forward part, each behind a norm and beside a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.attention_norm, self.attention = nn.RMSNorm(WIDTH, eps=1e-5), Attention()
        self.ffn_norm, self.feed_forward = nn.RMSNorm(WIDTH, eps=1e-5), FeedForward()

    def forward(self, x: Tensor) -> Tensor:
        """Map `(n, tokens, width)` to the same shape."""
        x = x + self.attention(self.attention_norm(x))
        return x + self.feed_forward(self.ffn_norm(x))


class Llama(nn.Module):
    """Five blocks; the embedding also serves as the output matrix, so it is stored once and no layer owns it twice."""

    def __init__(self) -> None:
        super().__init__()
        self.tok_embeddings = nn.Embedding(VOCABULARY, WIDTH)
        self.layers = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm = nn.RMSNorm(WIDTH, eps=1e-5)

    def forward(self, tokens: Tensor) -> Tensor:
        """Scores `(n, tokens, 512)` of the next token, for tokens `(n, tokens)` (trained on at most 512)."""
        x = self.tok_embeddings(tokens)
        for block in self.layers:
            x = block(x)
        return functional.linear(self.norm(x), self.tok_embeddings.weight)


def build(folder: Path | str | None = None, weights: bool = True) -> nn.Module:
    """The network with its trained weights, or freshly drawn (`weights=False`)."""
    if not weights:
        return data_folder.untrained(Llama)
    return data_folder.trained(Llama, data_folder.path(folder, "llama_stories260k", "model.safetensors"))


def vocabulary(folder: Path | str | None = None) -> list[tuple[bytes, float]]:
    """The 512 pieces and their scores; a higher score is merged first. The file stores one character per byte."""
    stored = json.loads(data_folder.path(folder, "llama_stories260k", "vocab.json").read_text(encoding="utf-8"))
    pieces = [(piece.encode("latin-1"), score) for piece, score in stored]
    pieces[BYTES : BYTES + 256] = [(bytes([value]), 0.0) for value in range(256)]
    return pieces


def encode(text: str, pieces: list[tuple[bytes, float]]) -> list[int]:
    """Tokens of a text: the opening token, a space, then pairs merged by score until none is left.

    Quadratic in the length: cut long texts into lines first.
    """
    known = {piece: token for token, (piece, _) in enumerate(pieces) if token >= BYTES + 256}
    tokens: list[int] = []
    for character in f" {text}":
        code = character.encode()
        tokens += [known[code]] if code in known else [BYTES + value for value in code]
    while True:
        pairs = [known.get(pieces[a][0] + pieces[b][0], -1) for a, b in pairwise(tokens)]
        if not pairs or max(pairs) < 0:
            return [BEGIN, *tokens]
        place = max((i for i, token in enumerate(pairs) if token >= 0), key=lambda i: (pieces[pairs[i]][1], -i))
        tokens[place : place + 2] = [pairs[place]]


def decode(tokens: list[int], pieces: list[tuple[bytes, float]]) -> str:
    """The text of tokens, without the opening token and the space that follows it."""
    return b"".join(pieces[token][0] for token in tokens if token > BEGIN).decode(errors="replace").removeprefix(" ")


@torch.no_grad()
def continue_greedily(model: nn.Module, tokens: list[int], length: int) -> list[int]:
    """The tokens, continued by the likeliest one each time until there are `length` of them."""
    story = torch.tensor([tokens])
    while story.shape[1] < length:
        story = torch.cat([story, model(story)[:, -1].argmax(-1, keepdim=True)], dim=1)
    return story[0].tolist()


def data(folder: Path | str | None = None, n: int = 64, length: int = 64) -> dict[str, tuple[Tensor, Tensor]]:
    """The start of tiny Shakespeare: `n` rows of `length` tokens, and the token that follows each token.

    Not what the network was trained on (TinyStories): its loss here is high, and that is no fault of the network.
    """
    pieces = vocabulary(folder)
    file = data_folder.path(folder, "text_chars", "tiny_shakespeare.txt.gz")
    with gzip.open(file, "rt", encoding="utf-8") as stream:
        passages = stream.read().split("\n\n")
    tokens: list[int] = []
    for passage in passages:
        if len(tokens) >= n * (length + 1):
            break
        tokens += encode(passage, pieces)
    rows = torch.tensor(tokens[: n * (length + 1)]).view(-1, length + 1)
    return {"test": (rows[:, :-1], rows[:, 1:])}
