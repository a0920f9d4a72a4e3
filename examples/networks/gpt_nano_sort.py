"""GPT-nano that sorts six letters: the network that bbycroft's LLM visualisation draws (layer names of minGPT)."""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from itertools import product
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

# Files in this folder are loaded by path, so the helper beside them is too.
_SPEC = spec_from_file_location("_networks_folder", Path(__file__).with_name("_folder.py"))
data_folder = module_from_spec(_SPEC)
_SPEC.loader.exec_module(data_folder)

LETTERS, LENGTH, HEADS, WIDTH = 3, 6, 3, 48
UNSCORED = -100  # the label that cross_entropy leaves out


class Attention(nn.Module):
    """Causal self-attention with one fused projection to queries, keys and values."""

    def __init__(self) -> None:
        super().__init__()
        self.c_attn = nn.Linear(WIDTH, 3 * WIDTH)
        self.c_proj = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(n, tokens, width)` to the same shape."""
        heads = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in self.c_attn(x).chunk(3, dim=-1))
        out = functional.scaled_dot_product_attention(*heads, is_causal=True)
        return self.c_proj(out.transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """Two linear layers around a GELU (its tanh form)."""

    def __init__(self) -> None:
        super().__init__()
        self.c_fc = nn.Linear(WIDTH, 4 * WIDTH)
        self.act = nn.GELU(approximate="tanh")
        self.c_proj = nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(n, tokens, width)` to the same shape."""
        return self.c_proj(self.act(self.c_fc(x)))


class Block(nn.Module):
    """Attention, then an MLP, each behind a norm and beside a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.ln_1, self.attn = nn.LayerNorm(WIDTH), Attention()
        self.ln_2, self.mlp = nn.LayerNorm(WIDTH), MLP()

    def forward(self, x: Tensor) -> Tensor:
        """Map `(n, tokens, width)` to the same shape."""
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class GPT(nn.Module):
    """Three blocks on 11 positions. The dropout of its training has no parameters and is left out."""

    def __init__(self) -> None:
        super().__init__()
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(LETTERS, WIDTH),
                "wpe": nn.Embedding(2 * LENGTH - 1, WIDTH),
                "h": nn.ModuleList(Block() for _ in range(3)),
                "ln_f": nn.LayerNorm(WIDTH),
            }
        )
        self.lm_head = nn.Linear(WIDTH, LETTERS, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Scores `(n, tokens, 3)` of the next letter, for at most 11 tokens `(n, tokens)` in 0..2."""
        places = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.transformer["wte"](tokens) + self.transformer["wpe"](places)
        for block in self.transformer["h"]:
            x = block(x)
        return self.lm_head(self.transformer["ln_f"](x))


def build(folder: Path | str | None = None, weights: bool = True) -> nn.Module:
    """The network with its trained weights, or freshly drawn (`weights=False`)."""
    if not weights:
        return data_folder.untrained(GPT)
    return data_folder.trained(GPT, data_folder.path(folder, "gpt_nano_sort", "model.safetensors"))


@torch.no_grad()
def sort(model: nn.Module, rows: Tensor) -> Tensor:
    """What the network puts out, letter by letter, for rows `(n, 6)`: `(n, 6)`."""
    tokens = rows
    for _ in range(LENGTH):
        tokens = torch.cat([tokens, model(tokens)[:, -1].argmax(-1, keepdim=True)], dim=1)
    return tokens[:, LENGTH:]


def data(folder: Path | str | None = None, n: int = LETTERS**LENGTH) -> dict[str, tuple[Tensor, Tensor]]:
    """The first `n` of all 729 rows in a fixed mixed order, as the network is trained on them.

    Inputs `(n, 11)` are the row and the first five letters of the answer; labels `(n, 11)` the next letter, -100 where
    nothing is asked yet. No file is read, so `folder` is not used.
    """
    rows = torch.tensor(list(product(range(LETTERS), repeat=LENGTH)))
    rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:n]]
    tokens = torch.cat([rows, rows.sort(dim=1).values], dim=1)
    labels = tokens[:, 1:].clone()
    labels[:, : LENGTH - 1] = UNSCORED
    return {"test": (tokens[:, :-1], labels)}
