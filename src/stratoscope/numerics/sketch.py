"""A seeded random projection that keeps inner products right on average and needs no projection matrix."""

from __future__ import annotations

from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

BLOCK = {"cpu": 2**18}
"""Numbers that are shuffled at a time: on a CPU so many as its cache holds."""


def count_sketch(
    vectors: Float[Tensor, "n D"], width: int, *, seed: int, units: int | None = None
) -> Float[Tensor, "n width"]:
    """Shuffle the `D` coordinates, give each a random sign, and sum them in groups: `D` numbers become `width`.

    This is the count sketch (Charikar, Chen and Farach-Colton, doi:10.1016/S0304-3975(03)00400-6) with hash groups of
    equal size. With `m = ceil(D / width)` and any vectors `x`, `y`, over the seeds:

    * `E[sketch(x) . sketch(y)] = x . y`, hence squared distances are unbiased too;
    * `Var[sketch(x) . sketch(y)] = (m - 1) / (m width - 1) * (|x|^2 |y|^2 + (x . y)^2 - 2 sum_i x_i^2 y_i^2)`, under
      the plain count sketch's; for a squared norm at most `2 |x|^4 / width`.

    The same seed gives the same projection on every device and for every type, and each row depends on itself
    alone. Where `D <= width` nothing is lost and the vectors come back as they are. Memory beside the result: `O(D)`
    and a block of rows.

    Args:
        vectors: one vector a row.
        width: how many numbers to keep.
        seed: of the shuffle and the signs.
        units: coordinates lie unit by unit, so many units of `D / units` positions each, but are projected as if they lay
            position by position, as a feature map's do; without a copy in that order.

    Returns:
        The projected rows, in the type of `vectors` (summed in float32 at least).

    Raises:
        ValueError: if `width` is under 1.

    >>> count_sketch(torch.ones(2, 1000), 64, seed=0).shape[1]
    64
    """
    if width < 1:
        raise ValueError(f"A sketch keeps at least 1 number; width={width}.")
    n, size = vectors.shape
    if size <= width:
        return vectors if units is None else vectors.unflatten(1, (units, -1)).transpose(1, 2).flatten(1)
    order, signs = _shuffle(size, width, seed, units)
    order, signs = order.to(vectors.device), signs.to(vectors.device)
    result = vectors.new_empty(n, width)
    rows = max(1, BLOCK.get(vectors.device.type, 2**22) // order.numel())
    for start in range(0, n, rows):
        block = vectors[start : start + rows]
        wide = block.to(torch.promote_types(block.dtype, torch.float32))
        mixed = wide.index_select(1, order).mul_(signs.to(wide.dtype))
        result[start : start + rows] = mixed.view(len(block), -1, width).sum(1)
    return result


@lru_cache(maxsize=8)
def _shuffle(size: int, width: int, seed: int, units: int | None) -> tuple[Tensor, Tensor]:
    """Which coordinate goes to each of the `ceil(size / width) * width` places, and its sign: 0 where it is padding.

    Drawn on the CPU, so that every device sees the same projection; kept, since every batch of like layers has the same.
    """
    generator = torch.Generator().manual_seed(seed)
    places = -(-size // width) * width
    order = torch.randperm(places, generator=generator)
    signs = torch.randint(0, 2, (places,), generator=generator, dtype=torch.int8) * 2 - 1
    padding = order >= size
    order, signs = order.masked_fill(padding, 0), signs.masked_fill(padding, 0)
    return order if units is None else order % units * (size // units) + order // units, signs
