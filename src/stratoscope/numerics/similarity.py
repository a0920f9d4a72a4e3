"""How alike two representations of the same examples are: centered kernel alignment (CKA) and Procrustes distance."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from stratoscope.numerics.hsic import Centred, KernelProducts, centred, kernel_products, slices

STRUCTURE = 64
"""An unbiased sum of a kernel with itself counts as zero at so many roundings of the biased one."""

NEAR = 1e-6
"""Squared Procrustes distance below which it is measured again as a length, which keeps its digits."""


@dataclass(frozen=True)
class Alignment:
    """Linear CKA of pairs of representations, and what bounds it. Every tensor has one entry a pair, in float64.

    Attributes:
        debiased: with the unbiased estimate of HSIC; -1 to 1, 0 on average where examples are shuffled.
        biased: the plain form; 0 to 1.
        standard_error: of `debiased`, for fresh examples; NaN where it was not asked for.
        null_biased: mean of `biased` over all orders of the examples of one of the two.
        null_sd: standard deviation of `debiased` over all orders of the examples of one of the two; the same for all.
        n: examples.
    """

    debiased: Float[Tensor, "*pairs"]
    biased: Float[Tensor, "*pairs"]
    standard_error: Float[Tensor, "*pairs"]
    null_biased: Float[Tensor, "*pairs"]
    null_sd: float
    n: int

    @property
    def z(self) -> Float[Tensor, "*pairs"]:
        """How many deviations `debiased` lies above shuffled examples."""
        return self.debiased / self.null_sd

    def at(self, first: int, second: int) -> Alignment:
        """One pair of a map."""
        tables = (self.debiased, self.biased, self.standard_error, self.null_biased)
        debiased, biased, standard_error, null_biased = (table[first, second] for table in tables)
        return Alignment(debiased, biased, standard_error, null_biased, self.null_sd, self.n)


def linear_cka(first: Float[Tensor, "n D"], second: Float[Tensor, "n E"], *, standard_error: bool = True) -> Alignment:
    """Linear centered kernel alignment of two representations of the same examples.

    With `K` and `L` the centred linear kernels, the biased form (Kornblith et al., arXiv:1905.00414) is
    `<K, L> / (|K| |L|)`. It is near 1 for any two representations with many more units than examples
    (Murphy, Zylberberg and Fyshe, arXiv:2405.01012). The debiased form puts the unbiased estimate of HSIC (Song et al.,
    doi:10.5555/2188385.2343691) in all three places, as Nguyen, Raghu and Kornblith (arXiv:2010.15327) do for each
    mini-batch; here it is taken once, over all examples. With the rows centred it needs norms of rows alone:

        n (n-3) HSIC = |X'Y|^2 - n/(n-2) sum_i |x_i|^2 |y_i|^2 + sum_i |x_i|^2 sum_i |y_i|^2 / ((n-1) (n-2))

    Both are 1 for a representation with itself, and unchanged by shifting, rotating, reflecting and scaling all of a
    representation, by the order of its units and by duplicating all of them; not by scaling single units.

    What shuffled examples read is known exactly, for any data: the mean of the biased form is
    `tr K tr L / ((n-1) |K| |L|)`, that of the debiased form 0, with variance `2 / (n (n-3))`. (Matrices with zero
    diagonal and zero row sums are an irreducible representation of the permutations, of that dimension.)
    The null is skewed where the units are few: with one unit each, 2 % of shuffles lie above 3 deviations.

    A representation that is constant has no kernel, and one whose examples all lie equally far from each other has
    none but its diagonal: their values are 0, also with themselves.

    Args:
        first: one example a row; float32 is computed in float32, float64 in float64.
        second: the same examples in the same order, of any width.
        standard_error: whether to compute it: from the influence of each example (at most 1,024 of them, evenly
            spaced), first order; too large by up to 1.4 times where there is nothing alike.

    Returns:
        An `Alignment` of tensors without dims.

    Raises:
        ValueError: if the shapes do not fit, there are less than 4 examples, or an entry is not finite.

    >>> x = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    >>> round(linear_cka(x, 3 * x[:, [2, 0, 1, 3]] + 1).debiased.item(), 4)
    1.0
    """
    return alignment(kernel_products(*([one] for one in centred([first, second])), influence=standard_error)).at(0, 0)


def cka_map(
    first: Sequence[Float[Tensor, "n D"]],
    second: Sequence[Float[Tensor, "n E"]] | None = None,
    *,
    standard_error: bool = True,
) -> Alignment:
    """Linear CKA of every representation of one set with every one of another, or of one set among itself.

    The same numbers as `linear_cka` gives pair by pair. For `p` and `q` representations of `D` units it takes the
    cheaper of `2 n D^2 p q` and `2 n^2 (D (p + q) + p q)` multiplications; at most about 64 MB beside the features.

    Args:
        first: representations of the same examples, of any widths.
        second: others of the same examples; `None` for `first` among itself, whose diagonal is 1 exactly.
        standard_error: whether to compute it.

    Returns:
        An `Alignment` of tensors `(p, q)`.

    Raises:
        ValueError: as `linear_cka`, or if there is none.
    """
    if not first or (second is not None and not second):
        raise ValueError("A map needs at least one representation on each side.")
    every = centred([*first, *(second or [])])
    sides = every[: len(first)], None if second is None else every[len(first) :]
    found = alignment(kernel_products(*sides, influence=standard_error))
    if second is None:  # exactly, and not but for rounding
        below = torch.tril_indices(len(first), len(first), -1)
        for table in (found.debiased, found.biased, found.standard_error, found.null_biased):
            table[below[0], below[1]] = table.T[below[0], below[1]]
        for table in (found.debiased, found.biased):
            table.diagonal()[table.diagonal() != 0] = 1.0
        found.standard_error.diagonal()[:] = 0.0 if standard_error else math.nan
    return found


def alignment(sums: KernelProducts) -> Alignment:
    """Linear CKA from the sums of products of centred kernels.

    >>> import stratoscope.numerics.hsic as hsic
    >>> corners = hsic.Centred(torch.tensor([[1.0], [1.0], [-1.0], [-1.0], [3.0]]))
    >>> alignment(hsic.kernel_products([corners])).biased.tolist()
    [[1.0]]
    """
    n = sums.n
    unbiased = _unbiased(sums.inner, sums.diagonal, sums.first_trace[:, None] * sums.second_trace, n)
    first = _own(sums.first, sums.first_diagonal, sums.first_trace, n)
    second = _own(sums.second, sums.second_diagonal, sums.second_trace, n)
    lengths = (sums.first[:, None] * sums.second).sqrt()
    weight = (first[:, None] * second).sqrt()
    debiased = _ratio(unbiased, weight)
    return Alignment(
        debiased=debiased.clamp(-1.0, 1.0),
        biased=_ratio(sums.inner, lengths).clamp(0.0, 1.0),
        standard_error=_standard_error(sums.influence, debiased, first, second, n),
        null_biased=_ratio(sums.first_trace[:, None] * sums.second_trace, lengths) / (n - 1),
        null_sd=math.sqrt(2 / (n * (n - 3))),
        n=n,
    )


def _unbiased(inner: Tensor, diagonal: Tensor, traces: Tensor, n: int) -> Tensor:
    """`n (n - 3)` times the unbiased estimate of HSIC."""
    return inner - diagonal * (n / (n - 2)) + traces / ((n - 1) * (n - 2))


def _own(inner: Tensor, diagonal: Tensor, trace: Tensor, n: int) -> Tensor:
    """The same of each kernel with itself, which is never negative; 0 where it is rounding."""
    found = _unbiased(inner, diagonal, trace.square(), n)
    return found.where(found > STRUCTURE * torch.finfo(torch.float32).eps * inner, 0.0)


def _ratio(above: Tensor, below: Tensor) -> Tensor:
    """0 where there is nothing to divide by."""
    return torch.where(below > 0, above / below.where(below > 0, 1.0), 0.0)


def _standard_error(influence: Tensor | None, cka: Tensor, first: Tensor, second: Tensor, n: int) -> Tensor:
    """From the sum over examples of the squared influence `2 g_KL / (|K| |L|) - cka (g_KK / |K|^2 + g_LL / |L|^2)`."""
    if influence is None:
        return torch.full_like(cka, math.nan)
    pair = _ratio(torch.full_like(cka, 2.0), (first[:, None] * second).sqrt())
    one, two = _ratio(cka, first[:, None].expand_as(cka)), _ratio(cka, second.expand_as(cka))
    a, b, c, d, e, f = influence
    square = pair.square() * a + one.square() * d + two.square() * f
    square += 2 * (one * two * e - pair * one * b - pair * two * c)
    variance: Tensor = square.clamp_min(0.0) * (n / (n - 1))
    return variance.sqrt()


@dataclass(frozen=True)
class Procrustes:
    """Procrustes distance of two representations, and what bounds it.

    Attributes:
        distance: 0 for the same shape, `2^(1/2)` for none in common.
        null: shuffling the examples of one of the two reads at least this much (root mean square over all orders).
        n: examples.
    """

    distance: float
    null: float
    n: int


def procrustes(first: Float[Tensor, "n D"], second: Float[Tensor, "n E"]) -> Procrustes:
    """Orthogonal Procrustes distance of two representations: what the best rotation leaves.

    Both are centred and divided by their length (Frobenius norm), giving `X` and `Y`; the narrower one is filled up with
    zeros. Then::

        distance = min over Q'Q = 1 of |X Q - Y| = (2 - 2 |X'Y|_*)^(1/2)

    with the nuclear norm, the sum of singular values. It is the chord of the angular distance of Williams, Kunz, Kornblith and
    Linderman (arXiv:2110.14739), and the root of that of Ding, Denain and Steinhardt (arXiv:2108.01661). A metric:
    symmetric, with the triangle inequality, and 0 only for the same up to shift, rotation, reflection and scale. Unlike
    CKA it counts directions of little variance, too. It falls where units are many and examples few: compare `null`,
    `(2 - 2 min(|X|_*, |Y|_*) / (n - 1)^(1/2))^(1/2)`, a lower bound by Jensen's inequality.

    Computed in float64. Time `n D E + D^3` for the smaller `D`, and no more than `n^3` of a decomposition.

    Args:
        first: one example a row.
        second: the same examples in the same order, of any width.

    Raises:
        ValueError: if the shapes do not fit, there are less than 4 examples, or an entry is not finite.

    >>> x = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    >>> round(procrustes(x, x[:, :1]).distance, 6)
    0.765367
    """
    one, two = centred([first, second])
    if len(one) != len(two):
        raise ValueError(f"Representations of the same examples are needed; there were {len(one)} and {len(two)} rows.")
    n = len(one)
    if one.constant or two.constant:
        return Procrustes(math.sqrt(2.0), math.sqrt(2.0), n)
    one, two = _within_examples(one), _within_examples(two)
    shared = _shared(one, two)
    squared = 2 - 2 * float(torch.linalg.svdvals(shared).sum())
    if squared < NEAR:
        squared = _left_over(one, two, shared)
    return procrustes_of(squared, [_shared(some, some) for some in (one, two)], n)


def procrustes_of(squared: float, scatters: Sequence[Float[Tensor, "D D"]], n: int) -> Procrustes:
    """The distance from its square, and its null from the scatter `X'X` of each of the two, of trace 1."""
    chance = min(float(torch.linalg.eigvalsh(scatter).clamp_min(0.0).sqrt().sum()) for scatter in scatters)
    return Procrustes(math.sqrt(max(0.0, squared)), math.sqrt(2 - 2 * min(1.0, chance / math.sqrt(n - 1))), n)


def _within_examples(one: Centred) -> Centred:
    """The same shape in no more dimensions than there are examples."""
    if one.width <= len(one):
        return one
    whole = one.block(slice(0, len(one))).double()
    return Centred(torch.linalg.qr(whole.T, mode="r").R.T)


def _blocks(*some: Centred) -> Iterator[list[Tensor]]:
    """The same rows of each, in float64, with a squared length of 1 over all examples."""
    lengths = [float(one.lengths.sum().sqrt()) for one in some]
    for rows in slices(len(some[0]), max(64, min(one.rows for one in some) // 8)):
        yield [one.block(rows).to(torch.float64, copy=True).div_(by) for one, by in zip(some, lengths, strict=True)]


def _shared(one: Centred, two: Centred) -> Float[Tensor, "D E"]:
    found = torch.zeros(one.width, two.width, dtype=torch.float64, device=one.device)
    for x, y in _blocks(one, two):
        found.addmm_(x.T, y)
    return found


def _left_over(one: Centred, two: Centred, shared: Tensor) -> float:
    """The squared length that is left after the best rotation, measured and not the difference of two ones."""
    u, _, vh = torch.linalg.svd(shared, full_matrices=False)
    total = 0.0
    for x, y in _blocks(one, two):
        turned, other = x @ u, y @ vh.T
        for rest in (turned - other, x - turned @ u.T, y - other @ vh):
            total += float(rest.square().sum())
    return total
