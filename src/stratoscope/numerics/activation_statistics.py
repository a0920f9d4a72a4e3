"""Statistics of a layer's activations: correlation, variance, sparsity, ranks and tails, and their nulls."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from stratoscope.numerics.matrices import (
    at_least_float32,
    effective_rank,
    gram_eigenvalues,
    largest_entry,
    lower_gram,
    not_finite,
    power_of_two,
    singular_values,
    stable_rank,
    widened,
)
from stratoscope.numerics.separation import CONSTANT

BLOCK = 2**20
"""Entries that are widened to float64 at a time."""

SHUFFLES = 16
"""Orders of the examples that units which are to have nothing in common are spread over."""


@dataclass(frozen=True)
class Ranks:
    """How many directions a matrix of activations uses, counted in three ways; NaN where there is nothing but zero.

    Attributes:
        numerical: singular values above the tolerance.
        stable: squared Frobenius norm over squared spectral norm.
        effective: exponential of the entropy of the singular values' shares.
    """

    numerical: float
    stable: float
    effective: float


@dataclass(frozen=True)
class ActivationStatistics:
    """Statistics of `n` examples of `units` units.

    Attributes:
        n: examples.
        units: units, constant ones among them.
        constant: units with the same output for every example, to within rounding; dead ones among them.
        dead: units that are exactly zero for every example.
        undead: units that are zero for no example; NaN where some output is below zero, so that zero is no threshold.
        correlation: mean absolute Pearson correlation over pairs of units that are not constant; NaN without a pair.
        correlation_null: what independent units read on average, `null_correlation(n)`.
        pairs: pairs of units that were compared.
        variance: population variance, mean over all units.
        largest_variance_share: the largest variance over the sum of all.
        sparsity: share of outputs that are exactly zero.
        near_zero: share of outputs of at most `near` times the largest in size, exact zeros among them.
        kurtosis: fourth moment over the squared variance, mean over the units that are not constant.
        kurtosis_null: what Gaussian units read on average, `3 (n - 1) / (n + 1)`.
        largest: the largest output in size.
        massive: largest output over the median one, in size, of those that are not zero.
        massive_null: the median of that for as many independent Gaussian outputs.
        raw: ranks of the activations as they are.
        centred: ranks after each unit's mean is taken off.
        shuffled: ranks of the centred activations if each unit's examples are shuffled on their own: the same units
            without anything in common.
    """

    n: int
    units: int
    constant: int
    dead: int
    undead: float
    correlation: float
    correlation_null: float
    pairs: int
    variance: float
    largest_variance_share: float
    sparsity: float
    near_zero: float
    kurtosis: float
    kurtosis_null: float
    largest: float
    massive: float
    massive_null: float
    raw: Ranks
    centred: Ranks
    shuffled: Ranks


def activation_statistics(
    features: Shaped[Tensor, "n D"], *, near: float = 1e-3, most_units: int = 256, seed: int = 0
) -> ActivationStatistics:
    """Statistics of a layer's activations (Choi et al., arXiv:1811.03666), each beside what no structure would read.

    Sums are taken in float64. **Ranks**: for float32 and less the eigenvalues of the Gram matrix of the shorter side,
    in float64, are enough: they carry singular values down to about `1e-8 k^(1/2)` of the largest, far below the
    tolerance of numbers with 7 digits. For float64 that would lose the numerical rank, whose tolerance is about
    `1e-13`, so `singular_values` decomposes the matrix itself where it has to. The **numerical rank** counts singular
    values above `s_max max(n, D) eps` of the stored type; after centring also above `eps / 2` times the Frobenius norm
    before it, since the mean may have been large and its rounding is no rank.

    Unchanged by the order of units and examples (but for which units are drawn where there are more than
    `most_units`); scaling all by one number leaves everything but the variance. Rotation leaves the ranks and the mean
    variance.

    Time `n D min(n, D)`, three times; memory beside the input: the Gram matrix and a few blocks.

    Args:
        features: one example a row, of any real floating type.
        near: what counts as nearly zero, as a share of the largest output.
        most_units: units among which correlations are taken at most, drawn by seed.
        seed: of that draw and of the shuffles.

    Raises:
        ValueError: if there are not at least two examples and one unit, or an entry is not finite.

    >>> found = activation_statistics(torch.tensor([[1.0, 2.0], [0.0, 0.0], [3.0, 6.0]]))
    >>> round(found.correlation, 6), found.raw.numerical, round(found.sparsity, 4)
    (1.0, 1.0, 0.3333)
    """
    _check(features)
    table = _Table.of(features.detach())
    n, width = features.shape
    lively = ~table.constant
    zeros, nearly = table.zeros, table.count_up_to(near * table.largest)
    total = float(table.variance.sum())
    correlation, pairs = _mean_correlation(table, lively, most_units, seed)
    massive, outputs = _massive(features, table.largest)
    return ActivationStatistics(
        n=n,
        units=width,
        constant=int(table.constant.sum()),
        dead=int((zeros == n).sum()),
        undead=int((zeros == 0).sum()) if table.lowest >= 0 else math.nan,
        correlation=correlation,
        correlation_null=null_correlation(n),
        pairs=pairs,
        variance=total / width * table.scale * table.scale,
        largest_variance_share=float(table.variance.max()) / total if total > 0 else math.nan,
        sparsity=float(zeros.sum()) / (n * width),
        near_zero=nearly / (n * width),
        kurtosis=table.kurtosis(lively),
        kurtosis_null=3 * (n - 1) / (n + 1),
        largest=table.largest,
        massive=massive,
        massive_null=null_massive(outputs),
        raw=table.raw_ranks(),
        centred=table.centred_ranks(),
        shuffled=table.shuffled_ranks(seed),
    )


def null_correlation(n: int) -> float:
    r"""Mean absolute Pearson correlation of two independent Gaussian samples of size `n`.

    Since $r^2 \sim \mathrm{Beta}(1/2, (n-2)/2)$ it is $\Gamma(\frac{n-1}2) / (\sqrt\pi\,\Gamma(\frac n2))$, about
    $\sqrt{2/(\pi n)}$; 1 for two examples. It is enough that one of the two is Gaussian.

    >>> round(null_correlation(1000), 5)
    0.02525
    """
    return math.exp(math.lgamma((n - 1) / 2) - math.lgamma(n / 2)) / math.sqrt(math.pi) if n > 1 else math.nan


def null_massive(outputs: int) -> float:
    """Median of the largest over the median size of so many independent Gaussian numbers; NaN for none.

    >>> round(null_massive(64_000), 2)
    6.52
    """
    if outputs < 1:
        return math.nan
    from scipy.special import ndtri

    half = 0.5 ** (1 / outputs)
    return float(ndtri((1 + half) / 2) / ndtri(0.75))


def gram_singular_values(blocks: Iterator[Float[Tensor, "rows k"]]) -> Float[Tensor, " k"]:
    """Singular values of a matrix that comes in blocks of rows, by its Gram matrix; those lost in rounding are zero.

    Absolute error about `1e-8 k^(1/2)` of the largest: enough for numbers stored in float32, not in float64.
    """
    eigenvalues = gram_eigenvalues(blocks)
    rounding = len(eigenvalues) * torch.finfo(torch.float64).eps * eigenvalues[0]
    return eigenvalues.where(eigenvalues > rounding, 0.0).sqrt()


def ranks_of(
    s: Float[Tensor, "B k"], n: Int[Tensor, " B"], width: int, norm: Float[Tensor, " B"], dtype: torch.dtype
) -> list[Ranks]:
    """The three ranks of several matrices from their singular values.

    Args:
        s: singular values, descending, one matrix a row.
        n: rows of each matrix.
        width: their columns.
        norm: the Frobenius norm of each matrix as it is stored, before a mean was taken off.
        dtype: type of the stored numbers.

    >>> ranks_of(torch.tensor([[1.0, 1.0, 0.0]]), torch.tensor([3]), 3, torch.tensor([2.0]), torch.float32)
    [Ranks(numerical=2.0, stable=2.0, effective=2.0)]
    """
    eps = torch.finfo(dtype).eps
    longest = n.clamp(min=width).double()
    # types of less precision would make the first tolerance exceed the largest singular value itself
    tolerance = torch.maximum(longest * min(eps, torch.finfo(torch.float32).eps) * s[:, 0], eps / 2 * norm)
    numerical = (s > tolerance[:, None]).sum(1)
    shapes = zip(stable_rank(s).tolist(), effective_rank(s).tolist(), strict=True)
    # where nothing exceeds the tolerance, what is left is rounding, which has no shape worth a number
    return [
        Ranks(float(count), stable, effective) if count else Ranks(0.0, math.nan, math.nan)
        for count, (stable, effective) in zip(numerical.tolist(), shapes, strict=True)
    ]


def constant_units(
    deviation: Float[Tensor, "*D"], largest: Float[Tensor, "*D"], dtype: torch.dtype
) -> Bool[Tensor, "*D"]:
    """Which units do not vary beyond rounding.

    Args:
        deviation: standard deviation of each unit.
        largest: its largest output in size.
        dtype: type of the stored numbers.

    >>> constant_units(torch.tensor([0.0, 1.0]), torch.tensor([1e9, 1.0]), torch.float32).tolist()
    [True, False]
    """
    return deviation <= CONSTANT * torch.finfo(dtype).eps * largest


@dataclass(frozen=True)
class _Table:
    """The activations over a power of two, and what one look at every unit gave; read in blocks of float64.

    Attributes:
        values: the activations as they are.
        stored: their type.
        scale: by which they are divided as they are read.
        mean: of each unit.
        variance: of each unit, population.
        zeros: of each unit.
        largest: the largest entry in size, unscaled.
        lowest: the least entry, unscaled.
        constant: units that do not vary.
    """

    values: Float[Tensor, "n D"]
    stored: torch.dtype
    scale: float
    mean: Float[Tensor, " D"]
    variance: Float[Tensor, " D"]
    zeros: Int[Tensor, " D"]
    largest: float
    lowest: float
    constant: Bool[Tensor, " D"]

    @classmethod
    def of(cls, features: Tensor) -> _Table:
        values = at_least_float32(features)
        largest = largest_entry(values)
        scale = power_of_two(largest)
        blocks = values.split(_rows(values))
        mean = sum((widened(block, scale).sum(0) for block in blocks), torch.zeros(())) / len(values)
        squares = sum(((widened(block, scale) - mean).square_().sum(0) for block in blocks), torch.zeros(()))
        zeros = len(values) - sum(
            (torch.count_nonzero(block, 0) for block in blocks), torch.zeros((), dtype=torch.int64)
        )
        low, high = (end.double().cpu() / scale for end in torch.aminmax(values, dim=0))
        variance = squares / len(values)
        constant = constant_units(variance.sqrt(), torch.maximum(-low, high), features.dtype)
        return cls(
            values, features.dtype, scale, mean, variance.where(~constant, 0.0), zeros.cpu(), largest,
            float(low.min()) * scale, constant,
        )  # fmt: skip

    def centred(self) -> Iterator[Tensor]:
        """Rows less their mean."""
        return (widened(block, self.scale) - self.mean for block in self.values.split(_rows(self.values)))

    def count_up_to(self, size: float) -> int:
        """How many entries are of at most this size."""
        return sum(int((block.abs() <= size).sum()) for block in self.values.split(_rows(self.values)))

    def kurtosis(self, lively: Tensor) -> float:
        """Mean over the units that vary."""
        if not bool(lively.any()):
            return math.nan
        fourth = sum((block.square_().square_().mean(0) * len(block) for block in self.centred()), torch.zeros(()))
        each = fourth / len(self.values) / self.variance.square()
        return float(each[lively].mean())

    def raw_ranks(self) -> Ranks:
        """Of the activations as they are."""
        if self.stored == torch.float64:
            return self._ranks(singular_values(self.values).cpu() / self.scale)
        return self._ranks(gram_singular_values(self._along_the_longer(torch.zeros_like(self.mean), None)))

    def centred_ranks(self, places: Tensor | None = None) -> Ranks:
        """Of the activations around their means, each unit's examples in the order of its column of `places`."""
        if self.stored == torch.float64:
            chosen = self.values if places is None else self.values.gather(0, places)
            return self._ranks(singular_values(widened(chosen, self.scale) - self.mean).cpu())
        return self._ranks(gram_singular_values(self._along_the_longer(self.mean, places)))

    def shuffled_ranks(self, seed: int) -> Ranks:
        """Each unit's examples in an order of their own.

        A few shuffles of all rows, each with as many different shifts as there are units to it: hardly less independent
        than a shuffle of each unit, at a fraction of the time.
        """
        generator = torch.Generator().manual_seed(seed)
        n, width = self.values.shape
        shuffles = max(SHUFFLES, -(-width // n))
        orders = torch.stack([torch.randperm(n, generator=generator) for _ in range(shuffles)])
        shifts = torch.randperm(n, generator=generator)
        unit = torch.arange(width)
        rows = (torch.arange(n)[:, None] + shifts[unit // shuffles]) % n
        return self.centred_ranks(orders[unit % shuffles, rows].to(self.values.device))

    def _ranks(self, s: Tensor) -> Ranks:
        n, width = self.values.shape
        norm = math.sqrt(n * float(self.variance.sum() + self.mean.square().sum()))
        return ranks_of(s[None], torch.tensor([n]), width, torch.tensor([norm]), self.stored)[0]

    def _along_the_longer(self, shift: Tensor, places: Tensor | None) -> Iterator[Tensor]:
        """Blocks of the matrix or its transpose, whichever is taller."""
        n, width = self.values.shape
        if n >= width:
            for rows in torch.arange(n).split(_rows(self.values)):
                inside = slice(int(rows[0]), int(rows[-1]) + 1)
                chosen = self.values[inside] if places is None else self.values.gather(0, places[inside])
                yield widened(chosen, self.scale) - shift
            return
        for columns in torch.arange(width).split(max(1, BLOCK // n)):
            inside = slice(int(columns[0]), int(columns[-1]) + 1)
            chosen = self.values[:, inside]
            chosen = chosen if places is None else chosen.gather(0, places[:, inside])
            yield (widened(chosen, self.scale) - shift[inside]).T


def _rows(values: Tensor) -> int:
    return max(1, BLOCK // max(1, values.shape[1]))


def _check(features: Tensor) -> None:
    if features.ndim != 2 or features.shape[0] < 2 or features.shape[1] < 1 or not features.is_floating_point():
        raise ValueError(
            f"Statistics of activations take a floating matrix of two examples and one unit at least; there was "
            f"{tuple(features.shape)} of {features.dtype}."
        )
    if bad := not_finite(features):
        raise ValueError(f"Statistics need finite activations; {bad} of {features.numel()} are NaN or infinite.")


def drawn_units(lively: Bool[Tensor, " D"], most: int, seed: int) -> Int[Tensor, " drawn"]:
    """At most so many of the units that vary, ascending, drawn by seed.

    >>> drawn_units(torch.tensor([True, False, True]), 5, seed=0).tolist()
    [0, 2]
    """
    places = lively.nonzero()[:, 0].cpu()
    if len(places) <= most:
        return places
    order = torch.randperm(len(places), generator=torch.Generator().manual_seed(seed))
    return places[order[:most]].sort().values


def _mean_correlation(table: _Table, lively: Tensor, most: int, seed: int) -> tuple[float, int]:
    units = drawn_units(lively, most, seed)
    if len(units) < 2:
        return math.nan, 0
    scale = (table.variance[units] * len(table.values)).rsqrt()
    products = lower_gram(block[:, units] * scale for block in table.centred())
    pairs = len(units) * (len(units) - 1) // 2
    return float(products.tril(-1).abs().clamp(max=1).sum()) / pairs, pairs


def _massive(features: Tensor, largest: float) -> tuple[float, int]:
    """Largest over median size of what is not zero, and how many such outputs there are."""
    sizes = features.detach().abs().flatten()
    sizes = sizes[sizes > 0]
    if len(sizes) == 0:
        return math.nan, 0
    return largest / float(sizes.median()), len(sizes)
