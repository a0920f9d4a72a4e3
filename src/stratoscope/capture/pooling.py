"""How the many positions of an example (pixels of a map, tokens of a sequence) become rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from stratoscope.errors import SettingError

if TYPE_CHECKING:
    from stratoscope.capture.batch import SiteBatch

POOLINGS = ("gap", "flatten", "spatial")
"""`"gap"`: the mean over an example's real positions, known as global average pooling; `"flatten"`: all positions in one
row, padding as zeros; `"spatial"`: positions are rows of their own, so that rows are no longer independent."""

IN_WORDS = {"gap": "mean over positions", "flatten": "all positions in one row"}


@dataclass(frozen=True)
class Rows:
    """Rows of one batch at one site.

    Attributes:
        values: float32, or float64 where the network computes in it.
        examples: which example of the batch each row belongs to; `None` where there is one row an example, in order.
    """

    values: Float[Tensor, "rows width"]
    examples: Int[Tensor, " rows"] | None = None


def check_pooling(asks: str, pooling: str, positions: int = 1) -> None:
    """Refuse what no pooling is called.

    Raises:
        SettingError: with the choices.
    """
    if pooling not in POOLINGS:
        raise SettingError(f"{asks}(pooling={pooling!r}): choose one of {', '.join(POOLINGS)}.")
    if positions < 1:
        raise SettingError(f"{asks}(positions={positions}): at least 1 position of each example is a row.")


def rows_of(batch: SiteBatch, pooling: str, positions: int, seed: int) -> Rows:
    """The rows of one batch.

    Args:
        batch: what a site was shown.
        pooling: one of `POOLINGS`.
        positions: with `"spatial"`, how many places of each example become rows at most.
        seed: of the choice among its places; the same places of every example, however it was batched.
    """
    if pooling == "gap":
        return Rows(batch.pooled)
    if pooling == "flatten":
        return Rows(batch.flat)
    return batch.of_value.once(("spatial", positions, seed), lambda: _spatial(batch, positions, seed))


def _spatial(batch: SiteBatch, positions: int, seed: int) -> Rows:
    blocks = batch.blocks
    n, places, _ = blocks.shape
    # NumPy draws one after the other: a longer batch begins with the numbers of a shorter one
    order = torch.from_numpy(np.random.default_rng(seed).random(places).argsort(kind="stable")).to(blocks.device)
    if batch.mask is None:
        chosen = order[:positions].sort().values
        examples = torch.arange(n, device=blocks.device).repeat_interleave(len(chosen))
        return Rows(blocks[:, chosen].flatten(0, 1), examples)
    real = batch.mask.to(blocks.device)[:, order]
    taken = torch.zeros_like(real)
    taken[:, order] = real & (real.cumsum(1) <= positions)
    return Rows(blocks[taken], taken.nonzero()[:, 0])


def pooled_in_words(pooling: str, positions: int, examples: int, rows: int) -> str:
    """What was pooled, for the note of a result."""
    if pooling == "spatial":
        return f"{examples} examples, {rows} rows: up to {positions} positions of each"
    return f"{examples} examples, {IN_WORDS[pooling]}"
