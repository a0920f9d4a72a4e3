r"""How far two tensors of the same shape are apart: the relative change and the cosine, in one pass in float64.

For $A$ (before) and $B$ (after), with the Frobenius inner product,

$$ r = \frac{\lVert B - A\rVert}{\lVert A\rVert}, \qquad
   c = \frac{\langle A, B\rangle}{\lVert A\rVert\,\lVert B\rVert}. $$

$B = tA$ with $t > 0$ has $c = 1$ and $r = |t - 1|$; independent centred entries have $c$ near 0, with a standard
deviation of one over the square root of the number of entries.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK = 1 << 22
"""Entries that are widened to float64 at a time."""


@dataclass(frozen=True)
class Change:
    """The change from one tensor to another.

    Attributes:
        relative: norm of the difference over the norm of the first; 0 if both are zero, infinite if only the first is,
            NaN if an entry is not finite.
        cosine: of the angle between both, in [-1, 1]; NaN if one of them is zero or an entry is not finite.
    """

    relative: float
    cosine: float


def change(before: Tensor, after: Tensor) -> Change:
    """The relative change and the cosine between two tensors of the same shape.

    Args:
        before: any shape and real type.
        after: the same shape.

    Raises:
        ValueError: if the shapes differ.

    >>> change(torch.tensor([3.0, 4.0]), torch.tensor([6.0, 8.0]))
    Change(relative=1.0, cosine=1.0)
    """
    if before.shape != after.shape:
        raise ValueError(f"Shapes {tuple(before.shape)} and {tuple(after.shape)} differ.")
    bounds = _largest(before), _largest(after)
    scale = max(bounds) if not any(map(math.isnan, bounds)) else math.nan
    if scale == 0 or not math.isfinite(scale):
        return Change(0.0 if scale == 0 else math.nan, math.nan)
    first = second = gap = inner = 0.0
    a, b = before.reshape(-1), after.reshape(-1)
    for start in range(0, a.numel(), BLOCK):
        # over the largest entry, so that no square overflows or vanishes
        one, two = (t[start : start + BLOCK].to("cpu", torch.float64) / scale for t in (a, b))
        first += float(one @ one)
        second += float(two @ two)
        gap += float((two - one).square().sum())
        inner += float(one @ two)
    both = math.sqrt(first) * math.sqrt(second)
    cosine = max(-1.0, min(1.0, inner / both)) if both > 0 else math.nan
    return Change(math.sqrt(gap / first) if first > 0 else math.inf, cosine)


def _largest(tensor: Tensor) -> float:
    """The largest absolute entry; NaN or infinite if one is."""
    if tensor.numel() == 0:
        return 0.0
    return float(torch.stack([bound.double().abs() for bound in torch.aminmax(tensor.reshape(-1))]).max())
