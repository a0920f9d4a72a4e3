"""The exponential law cut off at 1: in logarithms, a power law with an upper limit."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_SERIES_BELOW = 0.25
_SERIES = np.array([-1 / 47900160, 1 / 1209600, -1 / 30240, 1 / 720, -1 / 12])
"""Of `mean(u) - 1/2`, over `u`, in falling powers of `u^2`."""
_ODD = np.array([9.0, 7.0, 5.0, 3.0, 1.0])
_STEEPEST = 700.0  # e^700 is about the largest power that float64 holds


def cut_exponential_mean(u: Array) -> Array:
    """Mean of the density proportional to `e^(-u t)` on `[0, 1]`: `1/u - 1/(e^u - 1)`.

    Falls from 1 over 1/2 at `u = 0` to 0, with `mean(-u) = 1 - mean(u)`: a Langevin function.

    >>> cut_exponential_mean(np.array([0.0, 1.0])).round(4)
    array([0.5  , 0.418])
    """
    small, near, v = _split(u)
    with np.errstate(over="ignore"):
        exact = 1 / v - 1 / np.expm1(v)
    return np.where(small, 0.5 + near * np.polyval(_SERIES, near * near), exact)


def cut_exponential_variance(u: Array) -> Array:
    """Variance of the density proportional to `e^(-u t)` on `[0, 1]`: minus the derivative of its mean.

    >>> cut_exponential_variance(np.array([0.0, 1.0])).round(4)
    array([0.0833, 0.0793])
    """
    small, near, v = _split(u)
    with np.errstate(over="ignore"):
        exact = (1 / v) ** 2 - (0.5 / np.sinh(v / 2)) ** 2
    return np.where(small, -np.polyval(_SERIES * _ODD, near * near), exact)


def cut_exponential_rate(mean: Array) -> Array:
    """The rate `u` of the density proportional to `e^(-u t)` on `[0, 1]` that has this mean.

    Only means up to 1/2 are solved for; the others follow by symmetry. There `1 / mean(u)` is convex and nearly a line,
    and `u = 1 / mean` is right of the root: from there Newton's method comes down without overshooting.

    Args:
        mean: in `(0, 1)`, or NaN.

    Returns:
        The rate; never exactly 0 (`1e-12` instead), so that it can be divided by. NaN where it is below -700: all mass
        within a thousandth of the upper end.

    >>> cut_exponential_rate(cut_exponential_mean(np.array([-3.0, 0.1, 50.0]))).round(9)
    array([-3. ,  0.1, 50. ])
    """
    low = np.minimum(mean, 1 - mean)
    u = 1 / low
    for _ in range(12):
        g = cut_exponential_mean(u)
        u = np.maximum(u - (1 / g - 1 / low) * g**2 / cut_exponential_variance(u), 0.0)
    u = np.maximum(u, 1e-12)
    u = np.where(mean > 0.5, -u, u)
    return np.where(u < -_STEEPEST, np.nan, u)


def _split(u: Array) -> tuple[NDArray[np.bool_], Array, Array]:
    """Where the closed form cancels and a series is used instead; arguments for the series, and for the closed form."""
    small = np.abs(u) < _SERIES_BELOW
    return small, np.where(small, u, 0.0), np.where(small, 1.0, u)
