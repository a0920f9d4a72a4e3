r"""The spectrum of noise, and what stands out of it.

For a matrix `W` of `M <= N` sides and independent entries of mean zero and variance $\sigma^2$, the eigenvalues of
$W W^T / (N\sigma^2)$ follow the law of Marchenko and Pastur with the ratio $y = M/N$ as both sides grow
(doi:10.1070/SM1967v001n04ABEH001994). The largest of them fluctuates about the edge of that law as Tracy and Widom's
distribution says (Johnstone, doi:10.1214/aos/1009210544). A direction that was added on top leaves the bulk only above
a threshold (Baik, Ben Arous and Peche, arXiv:math/0403022), from where its strength can be read back.

Everything here takes eigenvalues of `W W^T` as they are, not divided by `N`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float64
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    Vector = Float64[np.ndarray, " n"]

_NODES = 40
"""Points of the quadrature for Tracy and Widom's distribution; they give thirteen digits."""
_REACH = 16.0
"""Where the kernel of that distribution is cut off: Ai(16) is below 1e-19."""


# -- the bulk ------------------------------------------------------------------------------------------------------------


def edges(ratio: float) -> tuple[float, float]:
    """Where the law begins and ends for entries of variance one: `(1 -+ sqrt(ratio))**2`.

    Args:
        ratio: `y = M / N`, in `(0, 1]`.

    >>> edges(0.25)
    (0.25, 2.25)
    """
    root = math.sqrt(_checked(ratio))
    return (1 - root) ** 2, (1 + root) ** 2


def density(x: ArrayLike, ratio: float, variance: float = 1.0) -> NDArray[np.float64]:
    """The density of the law at `x`; zero outside its edges. It integrates to one.

    Args:
        x: eigenvalues over `N`.
        ratio: `y = M / N`, in `(0, 1]`.
        variance: of the entries.

    >>> round(float(density(1.0, 1.0)), 6)
    0.275664
    """
    low, high = edges(ratio)
    scaled = np.asarray(x, dtype=np.float64) / variance
    inside = (scaled > low) & (scaled < high)
    at = np.where(inside, scaled, 1.0)
    height = np.sqrt(np.clip((high - at) * (at - low), 0, None)) / (2 * math.pi * ratio * at * variance)
    return np.where(inside, height, 0.0)


def distribution(x: ArrayLike, ratio: float, variance: float = 1.0) -> NDArray[np.float64]:
    r"""The share of the law at or below `x`, in `[0, 1]`, in closed form.

    With $x = 1 + y + 2\sqrt y\cos\theta$ the density is $\sin^2$ over a trigonometric polynomial, whose integral is
    elementary. Absolute error about `1e-15 / ratio`.

    Args:
        x: eigenvalues over `N`.
        ratio: `y = M / N`, in `(0, 1]`.
        variance: of the entries.

    >>> round(float(distribution(1.0, 1.0)), 6)
    0.608998
    """
    root = math.sqrt(_checked(ratio))
    cosine = (np.asarray(x, dtype=np.float64) / variance - 1 - ratio) / (2 * root)
    angle = np.arccos(np.clip(cosine, -1, 1))
    turned = np.arctan2((1 - root) * np.sin(angle / 2), (1 + root) * np.cos(angle / 2))
    above = (1 + ratio) * angle - 2 * root * np.sin(angle) - 2 * (1 - ratio) * turned
    return np.clip(1 - above / (2 * math.pi * ratio), 0.0, 1.0)


@lru_cache(maxsize=1024)
def median(ratio: float) -> float:
    """The median of the law for entries of variance one.

    Args:
        ratio: `y = M / N`, in `(0, 1]`.

    >>> round(median(1.0), 6)
    0.652776
    """
    low, high = edges(ratio)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if float(distribution(middle, ratio)) < 0.5 else (low, middle)
    return (low + high) / 2


# -- the largest eigenvalue of noise -------------------------------------------------------------------------------------


def tracy_widom(s: float) -> float:
    r"""Tracy and Widom's distribution for real matrices ($\beta = 1$), in `[0, 1]`; absolute error about `1e-14`.

    The determinant of Ferrari and Spohn (doi:10.1088/0305-4470/38/33/L02), $F_1(s) = \det(1 - A_s)$ on the positive
    half-line with the kernel $A_s(x, y) = \frac12\mathrm{Ai}((x + y)/2 + s)$, by Gauss-Legendre quadrature as Bornemann
    (arXiv:0804.2543) shows.

    >>> round(tracy_widom(0.9793), 4)
    0.95
    """
    from scipy.special import airy

    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    # with x -> 2x the kernel is Ai(x + y + s); beyond the reach nothing is left of it
    reach = max(_REACH - s, 1.0)
    at, roots = (nodes + 1) * reach / 2, np.sqrt(weights * reach / 2)
    kernel = roots[:, None] * airy(at[:, None] + at[None, :] + s)[0] * roots[None, :]
    return float(np.clip(np.linalg.det(np.eye(_NODES) - kernel), 0.0, 1.0))


@lru_cache(maxsize=256)
def tracy_widom_quantile(level: float) -> float:
    """The value that stays under with probability `level`; absolute error about `1e-12` for levels up to `1 - 1e-9`.

    Args:
        level: in `[1e-6, 1 - 1e-12]`.

    Raises:
        ValueError: if the level is outside.

    >>> round(tracy_widom_quantile(0.99), 4)
    2.0234
    """
    if not 1e-6 <= level <= 1 - 1e-12:
        raise ValueError(f"A quantile needs a level from 1e-6 to 1 - 1e-12, not {level!r}.")
    low, high = -8.0, 14.0
    while high - low > 0.1:
        middle = (low + high) / 2
        low, high = (middle, high) if tracy_widom(middle) < level else (low, middle)
    # from so near the secant ends in a few steps
    under, over = tracy_widom(low) - level, tracy_widom(high) - level
    for _ in range(8):
        if over == under or abs(high - low) < 1e-12:
            break
        low, high, under = high, high - over * (high - low) / (over - under), over
        over = tracy_widom(high) - level
    return high


def noise_edge(rows: int, columns: int, variance: float, *, level: float = 0.99, copies: int = 1) -> float:
    """The value that the largest eigenvalue of noise stays under with probability `level`.

    Johnstone's centre and scale for finite sides. Good to a few tenths of a percent in probability from sides of 10 on.

    Args:
        rows: `M`, the shorter side.
        columns: `N`, the longer side.
        variance: of the entries.
        level: probability.
        copies: number of independent matrices whose eigenvalues are pooled; the level holds for all of them together.

    >>> round(noise_edge(100, 400, 1.0) / 400, 3)
    2.327
    """
    tall, short = math.sqrt(max(columns - 1, 1)), math.sqrt(rows)
    centre = (tall + short) ** 2
    scale = (tall + short) * math.cbrt(1 / tall + 1 / short)
    return variance * (centre + tracy_widom_quantile(math.pow(level, 1 / copies)) * scale)


# -- spikes --------------------------------------------------------------------------------------------------------------


def spike_threshold(ratio: float) -> float:
    r"""Strength below which an added direction cannot be seen in the eigenvalues: `ratio ** (1/4)`.

    In units of $\sqrt{N\sigma^2}$.

    >>> round(spike_threshold(0.5), 4)
    0.8409
    """
    return math.pow(_checked(ratio), 0.25)


def spike_strength(eigenvalue: ArrayLike, ratio: float) -> NDArray[np.float64]:
    r"""The singular value $\theta$ of an added direction, from the eigenvalue that it pushed out of the bulk.

    It inverts $\ell = (1 + \theta^2)(y + \theta^2)/\theta^2$ (Benaych-Georges and Nadakuditi, arXiv:1103.2221).

    Args:
        eigenvalue: $\ell = \lambda / (N\sigma^2)$.
        ratio: `y = M / N`, in `(0, 1]`.

    Returns:
        $\theta$ in units of $\sqrt{N\sigma^2}$; NaN for an eigenvalue inside the bulk, where nothing can be read.

    >>> theta = 1.5
    >>> round(float(spike_strength((1 + theta**2) * (0.25 + theta**2) / theta**2, 0.25)), 12)
    1.5
    """
    ell = np.asarray(eigenvalue, dtype=np.float64)
    excess = ell - 1 - ratio
    beyond = ell > edges(ratio)[1]
    under = np.where(beyond, excess, 2 * math.sqrt(ratio))
    theta = np.sqrt((under + np.sqrt(np.clip(under**2 - 4 * ratio, 0, None))) / 2)
    return np.where(beyond, theta, np.nan)


# -- a bulk and its spikes from eigenvalues ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bulk:
    r"""The noise within a spectrum.

    Attributes:
        variance: of its entries.
        spikes: how many eigenvalues lie above `noise_edge`.
        edge: $\lambda_+ = N\sigma^2 (1 + \sqrt y)^2$, where the law ends.
        noise_edge: what the largest eigenvalue of such noise stays under with the stated probability.
        distance: largest difference between the law and the distribution of the other eigenvalues, in `[0, 1]`.
        share: of the sum of all eigenvalues that the noise holds; 1 for pure noise, may exceed it slightly.
    """

    variance: float
    spikes: int
    edge: float
    noise_edge: float
    distance: float
    share: float


def fit_bulk(eigenvalues: Vector, rows: int, columns: int, *, level: float = 0.99, copies: int = 1) -> Bulk:
    """Tell the noise of a spectrum from its spikes.

    The variance that makes the medians agree screens the spikes; the mean of the others is then the variance, and the
    spikes are counted again until nothing changes (their number only ever grows or only ever falls, so it ends).
    A mean without the largest eigenvalue is too small if that one was noise after all, so last each spike, from the
    weakest on, is tried against the edge that holds if it is noise, and let go if it stays under. In pure noise this keeps
    the rate of false spikes at or under `1 - level`.

    Bias: each strong spike takes the noise along its own two directions away, so the variance is too small by about
    the share `spikes / N`.

    Args:
        eigenvalues: of `W W^T`, descending, finite and not negative.
        rows: `M`, the shorter side.
        columns: `N`, the longer side.
        level: probability with which the largest eigenvalue of noise stays under its edge.
        copies: number of matrices whose eigenvalues are pooled.

    Raises:
        ValueError: if there is no eigenvalue.

    >>> generator = np.random.default_rng(0)
    >>> noise = generator.standard_normal((200, 400))
    >>> bulk = fit_bulk(np.linalg.eigvalsh(noise @ noise.T)[::-1], 200, 400)
    >>> bulk.spikes, round(bulk.variance, 2)
    (0, 1.0)
    """
    if len(eigenvalues) == 0:
        raise ValueError("A bulk needs at least one eigenvalue; there is none.")
    unit, ratio = noise_edge(rows, columns, 1.0, level=level, copies=copies), rows / columns
    ascending, left = eigenvalues[::-1], _sums_from(eigenvalues)
    size, trace = len(ascending), float(left[0])

    def variance(spikes: int) -> float:
        return float(left[spikes]) / (columns * (size - spikes)) if spikes < size else 0.0

    def above(edge: float) -> int:
        return size - int(np.searchsorted(ascending, edge, side="right"))

    spikes = above(unit * float(np.median(eigenvalues)) / (columns * median(ratio)))
    while (again := above(unit * variance(spikes))) != spikes:
        spikes = again
    while spikes and eigenvalues[spikes - 1] <= unit * variance(spikes - 1):
        spikes -= 1
    scale = columns * variance(spikes)
    return Bulk(
        variance=variance(spikes),
        spikes=spikes,
        edge=scale * edges(ratio)[1],
        noise_edge=unit * variance(spikes),
        distance=_distance(ascending[: size - spikes], scale, ratio),
        share=scale * size / trace if trace > 0 else math.nan,
    )


def _sums_from(descending: Vector) -> Vector:
    """For each position the sum from there on, small values added first; one more zero at the end."""
    return np.concatenate([[0.0], np.cumsum(descending[::-1])])[::-1]


def _distance(ascending: Vector, scale: float, ratio: float) -> float:
    """Largest difference between the law and the distribution of some eigenvalues."""
    if len(ascending) == 0 or scale <= 0:
        return 1.0
    law = distribution(ascending / scale, ratio)
    steps = np.arange(len(ascending) + 1) / len(ascending)
    return float(max(np.max(steps[1:] - law), np.max(law - steps[:-1])))


def _checked(ratio: float) -> float:
    if not 0 < ratio <= 1:
        raise ValueError(f"The ratio of a matrix' sides, shorter over longer, is in (0, 1]; this is {ratio!r}.")
    return ratio
