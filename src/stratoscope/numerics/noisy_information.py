r"""What a layer tells through Gaussian noise that is really added, by drawing it.

A deterministic layer tells all of a discrete input (`I(X; T) = H(X)`), or infinitely much of a continuous one. With noise
on its units the question has an answer (Goldfeld et al., arXiv:1810.05728): `T + N` is an even mixture of Gaussians
around the activations, so densities are known exactly and only their expectation is drawn,

    I(X; T + N) = E ln[ p(t | x) / p(t) ],    p(t) = (1/n) sum_j N(t; t_j, v),    t = t_i + N.

Each draw is at most `ln n`. Drawing the ratio instead of `-ln p(t)` takes the noise's own entropy out term by term, which
leaves a much smaller spread.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - the usual name
from jaxtyping import Float, Int
from torch import Tensor

BLOCK = 2**18
"""Distances that are held at a time."""
LEAST = -80.0
"""Logarithm of the least weight beside one of 1: smaller ones change nothing, and numbers that are almost 0 are slow."""
FEW = 512
"""Groups, of all groupings together, up to which sums are one product."""
WORK = 2**27
"""Most multiplications for the distances; wide layers have fewer draws instead."""


@dataclass(frozen=True)
class NoisyInformation:
    """Drawn estimates in bits, one for each variance.

    Attributes:
        x: estimate of `I(X; T + N)`, between the bounds of `kernel_information` but for its error.
        x_error: its standard error, of the drawing: the points are taken as all there are.
        y: estimate of `I(T + N; Y)`; NaN without labels.
        y_error: its standard error.
        y_null: mean of `y` under shuffled labels, with the same draws; NaN without shuffles. Above 0: a class's points lie
            nearer to their own places than to those of other classes, whatever the class.
        y_null_sd: its standard deviation over the shuffles; NaN with less than 2.
        draws: how many places with noise were drawn.
    """

    x: Float[Tensor, " V"]
    x_error: Float[Tensor, " V"]
    y: Float[Tensor, " V"]
    y_error: Float[Tensor, " V"]
    y_null: Float[Tensor, " V"]
    y_null_sd: Float[Tensor, " V"]
    draws: int


def noisy_information(
    features: Float[Tensor, "n D"],
    variances: Float[Tensor, " V"],
    labels: Int[Tensor, " n"] | None = None,
    inputs: Int[Tensor, " n"] | None = None,
    *,
    shuffles: Int[Tensor, "P n"] | None = None,
    draws: int = 500,
    generator: torch.Generator,
) -> NoisyInformation:
    """Mutual information of points and their places after Gaussian noise, by Monte Carlo over the mixture.

    The same noise, scaled, serves all variances, so that differences between them are surer than their errors say. What
    is estimated is that of the sample; of the population, with a continuous input, it is a lower bound on average, the
    closer the more the noise makes points overlap. Distances are computed in float64, their exponentials in float32: right to
    about 1e-5 bits.

    Args:
        features: one example a row, finite.
        variances: of the noise on each unit; NaN is given where one is not above 0.
        labels: class of each example.
        inputs: which input each row came from, where several came from one, such as the places of an image.
        shuffles: the labels in other orders, one a row, for the null.
        draws: places to draw: each point as often as any other where they are at least `n`, else a random choice of
            points. Fewer if `draws n D` is above 2^27.
        generator: of the noise.

    Raises:
        ValueError: if there is no example, or fewer than 2 draws.

    Two points that the noise hardly mixes are one bit, and noise of 10,000 times their distance leaves none:

    >>> two = torch.tensor([[0.0], [100.0]])
    >>> found = noisy_information(two, torch.tensor([1.0, 1e12]), draws=8, generator=torch.Generator().manual_seed(0))
    >>> [round(bits, 3) for bits in found.x.abs().tolist()]
    [1.0, 0.0]
    """
    n, width = features.shape
    if n == 0 or draws < 2:
        raise ValueError(f"At least one example and 2 draws are needed; there were {n} and {draws}.")
    count = max(2, min(draws, WORK // (n * max(1, width))))
    points = features.double()
    points = points - points.mean(0)
    chosen = _chosen(n, count, generator).to(points.device)
    of_inputs = None if inputs is None else _Groupings(inputs[None].to(points.device))
    of_labels = None if labels is None else _Groupings(_table(labels, shuffles).to(points.device))
    deviations = variances.double().clamp(min=0).sqrt().tolist()
    rows = 2 if of_labels is None else 1 + of_labels.number
    found = points.new_full((len(deviations), rows, count), math.nan)
    for start in range(0, count, max(1, BLOCK // n)):
        some = slice(start, start + max(1, BLOCK // n))
        noise = torch.randn(len(chosen[some]), width, dtype=torch.float64, generator=generator).to(points.device)
        _draw(points, chosen[some], noise, (of_inputs, of_labels), deviations, found[:, :, some])
    found = found.cpu() / math.log(2)
    bits, error, null = found.mean(2), found[:, :2].std(2) / math.sqrt(count), found[:, 2:].mean(2)
    nothing = torch.full((len(deviations),), math.nan, dtype=torch.float64)
    mean = null.mean(1) if null.shape[1] else nothing
    spread = null.std(1) if null.shape[1] > 1 else nothing
    return NoisyInformation(bits[:, 0], error[:, 0], bits[:, 1], error[:, 1], mean, spread, count)


def _table(labels: Tensor, shuffles: Tensor | None) -> Int[Tensor, "L n"]:
    """The labels in the first row, shuffled ones in the others."""
    return labels[None] if shuffles is None else torch.cat([labels[None], shuffles])


def gaussian_channel(signal: float, noise: float, width: int = 1) -> float:
    """Information that passes a channel of Gaussian input and Gaussian noise, in bits: `D/2 log2(1 + signal / noise)`.

    Args:
        signal: variance of the input on each of the units, which are independent.
        noise: variance of the noise.
        width: units.

    >>> gaussian_channel(3.0, 1.0, 2)
    2.0
    """
    return width / 2 * math.log2(1 + signal / noise)


def _chosen(n: int, draws: int, generator: torch.Generator) -> Int[Tensor, " draws"]:
    """Which points are drawn around: all of them in turn, and a random choice for what is left."""
    rest = torch.randperm(n, generator=generator)[: draws % n]
    return torch.cat([torch.arange(n).repeat(draws // n), rest])


def _draw(
    points: Tensor,
    chosen: Tensor,
    noise: Tensor,
    own: tuple[_Groupings | None, _Groupings | None],
    deviations: list[float],
    into: Float[Tensor, "V rows draws"],
) -> None:
    """Log ratios of densities at some drawn places, for inputs and each labelling, at each deviation."""
    centres = points[chosen]
    squares = points.square().sum(1)
    apart = (centres.square().sum(1)[:, None] + squares).addmm_(centres, points.T, alpha=-2).clamp_(min=0)
    here = torch.arange(len(chosen)), chosen
    # along the noise: how much further from t_j the noise carries t_i
    along = (noise * centres).sum(1, keepdim=True) - noise @ points.T
    apart[here], along[here] = 0.0, 0.0
    # what matters of these is small and keeps its digits in float32, which is four times as fast
    apart, along = apart.float(), along.float()
    inputs, labels = own
    for place, deviation in enumerate(deviations):
        if not deviation > 0:
            continue
        # ln N(t; t_j, v) less that of the own centre: exactly 0 there
        logs = torch.add(apart / (-2 * deviation**2), along, alpha=-1 / deviation)
        peak = logs.amax(1, keepdim=True)
        weights = logs.sub_(peak).clamp_(min=LEAST).exp_()
        whole = weights.mean(1).double().log()
        given = -peak[:, 0].double() if inputs is None else inputs.means(weights, chosen)[0].log()
        into[place, 0] = given - whole
        if labels is not None:
            into[place, 1:] = labels.means(weights, chosen).log() - whole


class _Groupings:
    """Means of weights over the points of one's own group, for several groupings of the same points."""

    def __init__(self, table: Int[Tensor, "L n"]) -> None:
        names, self._places = torch.unique(table, return_inverse=True)
        self.number, self._groups = len(table), len(names)
        self._sizes = torch.stack([torch.bincount(row, minlength=len(names)) for row in self._places])
        few = self.number * self._groups <= FEW
        self._tables = F.one_hot(self._places, self._groups).float().movedim(0, 1).flatten(1) if few else None

    def means(self, weights: Float[Tensor, "draws n"], chosen: Int[Tensor, " draws"]) -> Float[Tensor, "L draws"]:
        """The mean over the group of each draw's own centre, in each grouping."""
        mine = self._places[:, chosen]
        if self._tables is not None:
            sums = (weights @ self._tables).unflatten(1, (self.number, -1)).gather(2, mine.T[..., None])[..., 0].T
        else:
            sums = torch.stack(
                [(weights * (m[:, None] == row)).sum(1) for m, row in zip(mine, self._places, strict=True)]
            )
        found: Tensor = sums.double() / self._sizes.gather(1, mine)
        return found
