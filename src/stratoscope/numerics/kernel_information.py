r"""Bounds on what a layer tells through Gaussian noise, from sums of kernels between its points.

Noise `N` of variance `v` on each unit makes of a sample of `n` activations an even mixture of `n` Gaussians. Its entropy
has no closed form; Kolchinsky and Tracey (arXiv:1706.02419) bound it from both sides by distances between the centres:

    h(T + N)  <=  D/2 + D/2 ln(2 pi v) - mean_i ln[ (1/n) sum_j exp(-d_ij^2 / 2v) ]
    h(T + N)  >=  D/2 + D/2 ln(2 pi v) - mean_i ln[ (1/n) sum_j exp(-d_ij^2 / 8v) ]

each with the own term, `j = i`, kept. The second is the first with `4v` for `v` in both places and `(D/2) ln(1/4)`. The
part before the mean is the entropy of the noise, `h(T + N | X)`, so `I(X; T + N)` lies between the two means.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class KernelInformation:
    """What activations with noise of some variances tell, in bits; one number for each variance.

    NaN where the variance is not above 0, as a share of that of a constant layer is.

    Attributes:
        x_low: lower bound of `I(X; T + N)`, `X` being which point it is.
        x_high: upper bound. Both are at most `log2 n`.
        y_low: lower bound of `I(T + N; Y)`: lower bound of the whole less upper bounds of the classes, at least 0.
        y_high: upper bound: upper bound of the whole less lower bounds of the classes, at most `H(Y)` and `x_high`.
        y_upper: upper bound of the whole less upper bounds of the classes, as Saxe et al. took it. A difference of
            bounds is no bound: it may lie on either side of `I(T + N; Y)`.
        y_lower: lower bound of the whole less lower bounds of the classes. No bound either.
        ceiling: `log2 n`.
        y_ceiling: `H(Y)`; NaN without labels, as everything about `Y` is.
    """

    x_low: Array
    x_high: Array
    y_low: Array
    y_high: Array
    y_upper: Array
    y_lower: Array
    ceiling: float
    y_ceiling: float


def kernel_information(
    variances: Float[np.ndarray, " V"],
    sums: Float[np.ndarray, "2 V n"],
    own: Float[np.ndarray, "2 V n"] | None = None,
    labels: Int[np.ndarray, " n"] | None = None,
) -> KernelInformation:
    """Bounds of `I(X; T + N)` and `I(T + N; Y)` from sums of kernels.

    Unchanged by shifting and rotating the activations; with variances that are shares of the activations' own, by
    scaling all of them, too. Falls with the variance.

    Args:
        variances: of the noise on each unit.
        sums: for each point, `sum_j exp(-d_ij^2 / 2v)` over all points, itself among them; at `v`, then at `4v`.
        own: the same over the points of the point's own class.
        labels: class of each point, from 0; with `own`.

    Raises:
        ValueError: if the shapes do not fit.

    Two points far apart are told apart by any small noise, which is one bit:

    >>> far = np.array([[[1.0, 1.0]], [[1.0, 1.0]]])
    >>> kernel_information(np.array([0.1]), far).x_low.tolist()
    [1.0]
    """
    n = sums.shape[-1]
    if (
        sums.shape != (2, len(variances), n)
        or n == 0
        or (own is not None and (own.shape != sums.shape or labels is None))
    ):
        raise ValueError(
            f"Sums have shape (2, {len(variances)}, n) with n > 0, and with sums over classes there are labels; "
            f"there was {sums.shape} and {None if own is None else own.shape}."
        )
    usable = np.where(variances > 0, 0.0, math.nan)
    high, low = usable - np.log2(sums / n).mean(2) + 0.0
    nothing = np.full(len(variances), math.nan)
    if own is None or labels is None:
        return KernelInformation(low, high, nothing, nothing, nothing, nothing, math.log2(n), math.nan)
    sizes = np.bincount(labels)
    shares = sizes[sizes > 0] / n
    y_ceiling = float(-(shares @ np.log2(shares))) + 0.0
    class_high, class_low = usable - np.log2(own / sizes[labels]).mean(2)
    return KernelInformation(
        x_low=low,
        x_high=high,
        y_low=np.maximum(0.0, low - class_high),
        y_high=np.minimum(np.minimum(y_ceiling, high), high - class_low),
        y_upper=high - class_high,
        y_lower=low - class_low,
        ceiling=math.log2(n),
        y_ceiling=y_ceiling,
    )


def noise_entropy(variance: float, width: int) -> float:
    """Differential entropy of Gaussian noise, in bits: `D/2 log2(2 pi e v)`; that of the activations given the input.

    >>> noise_entropy(1 / (2 * math.pi * math.e), 5)
    0.0
    """
    return width / 2 * math.log2(2 * math.pi * math.e * variance)
