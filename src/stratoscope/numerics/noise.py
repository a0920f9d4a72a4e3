"""How much of a stochastic gradient is signal, from sums over a window of steps."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Shaped
from torch import Tensor


class GradientNoise(NamedTuple):
    """Signal and noise of a random gradient vector `g`, each the norm of a vector.

    Attributes:
        signal: estimate of `|E g|`; 0 where the estimate of its square is not positive.
        deviation: estimate of `sqrt(E |g - E g|^2)`.
        snr: `signal / deviation`; infinite where every gradient was the same.
        squared_signal: unbiased estimate of `|E g|^2`, which on pure noise is negative about half of the time.
    """

    signal: Float[Tensor, "*shape"]
    deviation: Float[Tensor, "*shape"]
    snr: Float[Tensor, "*shape"]
    squared_signal: Float[Tensor, "*shape"]


def gradient_noise(
    squared_norm_of_sum: Shaped[Tensor, "*shape"] | float,
    sum_of_squared_norms: Shaped[Tensor, "*shape"] | float,
    n: int,
) -> GradientNoise:
    """Signal, deviation and signal-to-noise ratio of `n` gradients of which only two sums were kept.

    With `S = |g_1 + ... + g_n|^2` and `Q = |g_1|^2 + ... + |g_n|^2`, and gradients that are independent within the
    window, `(S - Q) / (n (n - 1))` is unbiased for `|E g|^2` and `(Q - S/n) / (n - 1)` for the total variance. The
    squared norm of the mean itself, `S / n^2`, is not: on pure noise it gives a ratio of `n^(-1/2)`. The reported
    `signal` is the root of the unbiased estimate, cut at 0, so on pure noise it is 0 or small: at most of order
    `deviation * n^(-1/2) d^(-1/4)` for `d` independent coordinates.

    Args:
        squared_norm_of_sum: `S`, a number or one for each layer.
        sum_of_squared_norms: `Q`, of the same shape.
        n: how many gradients were summed; with less than 2 every result is NaN.

    >>> gradient_noise(100.0, 12.0, 10).signal.item()  # doctest: +ELLIPSIS
    0.988...
    """
    total = torch.as_tensor(squared_norm_of_sum, dtype=torch.float64)
    energy = torch.as_tensor(sum_of_squared_norms, dtype=torch.float64)
    if n < 2:
        unknown = torch.full_like(total + energy, torch.nan)
        return GradientNoise(unknown, unknown, unknown, unknown)
    squared_signal = (total - energy) / (n * (n - 1))
    # rounding can leave a variance just under zero when every gradient is the same
    variance = ((energy - total / n) / (n - 1)).clamp_min(0.0)
    signal, deviation = squared_signal.clamp_min(0.0).sqrt(), variance.sqrt()
    return GradientNoise(signal, deviation, signal / deviation, squared_signal)
