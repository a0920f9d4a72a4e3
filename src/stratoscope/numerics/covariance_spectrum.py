r"""How many directions a cloud of points fills: numbers made of the eigenvalues of its covariance."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from stratoscope.numerics.matrices import effective_rank, rank_tolerance, singular_values

LEAST_RANGE = 6
"""A slope needs so many eigenvalues."""


@dataclass(frozen=True)
class CovarianceSpectrum:
    """A cloud of points in its own principal axes.

    Attributes:
        eigenvalues: of the covariance (mean of squares, over `n`), descending; those that rounding cannot tell from
            zero are left out, so their number is the numerical rank.
        scores: coordinates of each point along these axes, around the mean.
        raw: singular values of the points as they are, mean and all, descending.
        units: coordinates that a point has.
    """

    eigenvalues: Float[Tensor, " rank"]
    scores: Float[Tensor, "n rank"]
    raw: Float[Tensor, " k"]
    units: int

    @property
    def n(self) -> int:
        """Points."""
        return len(self.scores)

    @property
    def rank(self) -> int:
        """Directions in which the points differ by more than rounding: at most `min(n - 1, units)`."""
        return len(self.eigenvalues)


@dataclass(frozen=True)
class Measured:
    """A number and its standard error over samples of the same size."""

    value: float
    standard_error: float


@dataclass(frozen=True)
class Decay:
    """A power law through the eigenvalues, `lambda_k ~ k^-alpha`, over a range of `k`.

    Attributes:
        alpha: its exponent.
        standard_error: from the scatter over the points; it does not speak of how well a power law fits.
        r2: share of the scatter of the log eigenvalues that the line explains.
        first: the first `k` of the fit, counted from 1.
        last: the last one.
    """

    alpha: float
    standard_error: float
    r2: float
    first: int
    last: int


def covariance_spectrum(features: Float[Tensor, "n D"]) -> CovarianceSpectrum:
    """Principal axes of points, in float64, by one eigendecomposition of the shorter side's Gram matrix.

    Axes along which the points scatter less than `max(n, D) eps` times the largest singular value of the raw matrix
    are left out: numbers stored with that precision cannot hold less. Time `n D min(n, D)`.

    Raises:
        ValueError: if there are no two points or no coordinates, or an entry is not finite.

    >>> spectrum = covariance_spectrum(torch.tensor([[1.0, 5.0], [-1.0, 5.0], [3.0, 5.0], [-3.0, 5.0]]))
    >>> spectrum.eigenvalues.tolist(), spectrum.units
    ([5.0], 2)
    """
    if features.ndim != 2 or len(features) < 2 or features.shape[1] == 0:
        raise ValueError(
            f"A covariance takes at least 2 points of at least 1 coordinate; there was {tuple(features.shape)}."
        )
    raw = singular_values(features, exact_up_to=0)
    wide = features.double()
    scale = float(raw[0]) or 1.0
    centred = (wide - wide.mean(0)) / scale
    n, units = centred.shape
    if units <= n:
        squares, axes = torch.linalg.eigh(centred.mT @ centred)
        scores = centred @ axes
    else:
        squares, axes = torch.linalg.eigh(centred @ centred.mT)
        scores = axes * squares.clamp(min=0).sqrt()
    smallest = rank_tolerance(raw / scale, (n, units), features.dtype)
    # squares are rounded to their own precision as well
    held = int((squares > max(smallest**2, max(n, units) * 2**-52 * float(squares[-1]))).sum())
    squares, scores = squares.flip(0)[:held], scores.flip(1)[:, :held]
    return CovarianceSpectrum(squares * scale**2 / n, scores * scale, raw, units)


def participation_ratio(eigenvalues: Float[Tensor, " k"]) -> float:
    """`(sum lambda)^2 / sum lambda^2`: how many equal eigenvalues would be as spread out.

    Lies in `[1, rank]`; unchanged by scaling and rotation. From `n` points of white noise in `D` dimensions it reads
    about `1 / (1/D + 1/n)`. Without eigenvalues above zero: NaN.

    >>> participation_ratio(torch.tensor([2.0, 2.0, 0.0]))
    2.0
    """
    squares = float(eigenvalues.double().square().sum())
    return float(eigenvalues.double().sum()) ** 2 / squares if squares > 0 else math.nan


def unbiased_participation_ratio(spectrum: CovarianceSpectrum) -> Measured:
    r"""The participation ratio of the distribution that the points were drawn from, free of the sample's size.

    `(tr S)^2` and `tr S^2` are each replaced by their unbiased estimate over independent points of any distribution
    with four moments (Himeno and Yamada, Journal of Multivariate Analysis 130, 2014): with `S` the covariance over
    `n - 1` and `Q` the mean, over `n - 1`, of the points' fourth powers of the distance to their mean,

    * `c [(n - 1)(n - 2) tr S^2 + (tr S)^2 - n Q]` and
    * `c [2 tr S^2 + (n^2 - 3 n + 1) (tr S)^2 - n Q]`, where `c = (n - 1) / (n (n - 2) (n - 3))`.

    Their ratio has a bias of order `1/n` that does not grow with the number of units. It can exceed the number of
    units by chance. The standard error is that of the linearised ratio, from the scatter over the points.

    NaN with fewer than 4 points, or where the estimate of `tr S^2` is not above zero, as on few points of noise in
    very many dimensions.

    >>> points = torch.randn(100, 300, generator=torch.Generator().manual_seed(0))
    >>> spectrum = covariance_spectrum(points)
    >>> round(participation_ratio(spectrum.eigenvalues)), round(unbiased_participation_ratio(spectrum).value / 300, 1)
    (74, 1.0)
    """
    n, values = spectrum.n, spectrum.eigenvalues
    if n < 4 or spectrum.rank == 0:
        return Measured(math.nan, math.nan)
    scale = float(values[0])
    values, squares = values / scale, spectrum.scores.square() / scale
    norms = squares.sum(1)
    trace, trace_of_square = float(values.sum()) * n / (n - 1), float(values.square().sum()) * (n / (n - 1)) ** 2
    fourth = float(norms.square().sum()) / (n - 1)
    factor = (n - 1) / (n * (n - 2) * (n - 3))
    second = factor * ((n - 1) * (n - 2) * trace_of_square + trace**2 - n * fourth)
    first = factor * (2 * trace_of_square + (n * n - 3 * n + 1) * trace**2 - n * fourth)
    if not second > 0:
        return Measured(math.nan, math.nan)
    # the pull of each point on the ratio; its own share of the covariance is taken out
    along = (squares @ values - norms.square() / n) * n / (n - 1)
    pull = 2 * trace / second * norms - 2 * first / second**2 * along
    return Measured(first / second, float(pull.std()) / math.sqrt(n))


def directions_for(eigenvalues: Float[Tensor, " k"], share: float = 0.99) -> int:
    """The smallest number of principal axes that together hold a share of the variance.

    The axis at which the share is reached counts: `(0.97, 0.025, 0.005)` needs 2 for 99 %. Rounding of equal
    eigenvalues does not add an axis. Over the number of units this is the saturation of a layer (Richter et al.,
    arXiv:2006.08679). Without eigenvalues above zero: 0.

    Args:
        eigenvalues: descending, not negative.
        share: in `(0, 1]`.

    >>> directions_for(torch.tensor([0.97, 0.025, 0.005])), directions_for(torch.ones(4)), directions_for(torch.ones(1))
    (2, 4, 1)
    """
    if not 0 < share <= 1:
        raise ValueError(f"A share of the variance lies above 0 and up to 1; there was {share}.")
    held = eigenvalues.double().cumsum(0)
    if len(held) == 0 or not float(held[-1]) > 0:
        return 0
    return int((held < (share - 1e-12) * held[-1]).sum()) + 1


def rank_me(singular: Float[Tensor, " k"]) -> float:
    """RankMe: the exponential of the entropy of the singular values' shares (Garrido et al., arXiv:2210.02885).

    As published it is taken of the features as they are, not centred. Lies in `[1, min(n, D)]` and grows with `n`
    until `n` is far above `D`, so compare at one `n`. Without singular values above zero: NaN.

    >>> round(rank_me(torch.tensor([1.0, 1.0, 0.0])), 6)
    2.0
    """
    return float(effective_rank(singular.double())) if len(singular) and float(singular.max()) > 0 else math.nan


def power_law_decay(spectrum: CovarianceSpectrum, *, first: int = 3, share: float = 0.5) -> Decay:
    """The exponent with which eigenvalues fall along their index, known as alpha-ReQ (see arXiv:2202.05808).

    A line through `ln lambda_k` on `ln k` for `k` from `first` up to `share` of the rank, each `k` with the weight
    `1 / k`, so that equal stretches of the logarithmic axis count the same (Stringer et al.,
    doi:10.1038/s41586-019-1346-5). The first eigenvalues (the largest classes, the mean) and the last ones (bent by
    finite `n` and `D`) are left out. Flat spectra have 0. With fewer than 6 eigenvalues in the range: NaN.

    The standard error follows from how each point pulls on the eigenvalues, to first order.

    Args:
        spectrum: of the points.
        first: the first index of the fit, from 1.
        share: of the rank, up to which is fitted.

    >>> k = torch.arange(1, 101, dtype=torch.float64)
    >>> ends = torch.cat([torch.eye(100), -torch.eye(100)]).double() * k ** -0.6
    >>> round(power_law_decay(covariance_spectrum(ends)).alpha, 6)
    1.2
    """
    last = int(share * spectrum.rank)
    if last - first + 1 < LEAST_RANGE:
        return Decay(math.nan, math.nan, math.nan, first, last)
    values = spectrum.eigenvalues[first - 1 : last]
    k = torch.arange(first, last + 1, dtype=torch.float64, device=values.device)
    weights = 1 / k
    x, y = k.log(), values.log()
    x = x - (weights @ x) / weights.sum()
    y = y - (weights @ y) / weights.sum()
    pulls = -weights * x / float(weights @ x.square())
    alpha = float(pulls @ y)
    spread = float(weights @ y.square())
    r2 = 1 - float(weights @ (y + alpha * x).square()) / spread if spread > 0 else math.nan
    scatter = (spectrum.scores[:, first - 1 : last].square() / values) @ pulls
    return Decay(alpha, float(scatter.std()) / math.sqrt(spectrum.n), r2, first, last)
