r"""Neural collapse: how near the examples of a class are to one point, and the classes to a simplex.

With $\mu_c$ the class means, $\mu$ their mean (classes weigh the same), $\Sigma_W$ the pooled covariance within
classes and $\Sigma_B = \frac1C \sum_c (\mu_c - \mu)(\mu_c - \mu)^\top$ (Papyan, Han and Donoho, arXiv:2008.08186;
CDNV: Galanti, György and Hutter, arXiv:2112.15121). Each is 0 at collapse and has no upper end that does not depend
on the sample, so each comes with what the same activations would read under shuffled labels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from stratoscope.numerics.scatter import ClassScatter

DRAWS_OF_CLASSES = 1000
"""Class means that are drawn for the null altogether, in three draws at least: of many classes all draws are alike."""


@dataclass(frozen=True)
class Collapse:
    """How far the classes of a representation have collapsed.

    Attributes:
        nc1: `Tr(Sw Sb^+) / C`: scatter within classes in units of that between them; 0 at collapse.
        cdnv: class-distance normalised variance, `(V_a + V_b) / (2 |mu_a - mu_b|^2)`, mean over pairs of classes, with
            `V` the mean squared distance from the class's own mean; 0 at collapse.
        by_class: for each class, the mean of that over the pairs that it is part of.
        equinorm: standard deviation over mean of the class means' distances from their centre; 0 at collapse.
        equiangular: mean over pairs of classes of `|cos + 1/(C - 1)|`, the angle taken at the centre; 0 at collapse.
            Both are NaN for two classes, which always lie opposite each other.
        equiangular_floor: below this `equiangular` cannot be with so few units: `1/D - 1/(C - 1)`, or 0.
        directions: rank of `Sb` to within the tolerance; at most `C - 1`.
        classes: labels of the classes that counted.
        counts: their examples.
        skipped: labels of classes of one example, left out together with it.
        width: units.
    """

    nc1: float
    cdnv: float
    by_class: tuple[float, ...]
    equinorm: float
    equiangular: float
    equiangular_floor: float
    directions: int
    classes: tuple[int, ...]
    counts: tuple[int, ...]
    skipped: tuple[int, ...]
    width: int


@dataclass(frozen=True)
class CollapseNull:
    """What the same activations read under shuffled labels, draw by draw.

    Attributes:
        nc1: a value a draw.
        cdnv: a value a draw.
        equinorm: a value a draw.
        equiangular: a value a draw.
    """

    nc1: Float[Tensor, " draws"]
    cdnv: Float[Tensor, " draws"]
    equinorm: Float[Tensor, " draws"]
    equiangular: Float[Tensor, " draws"]


def collapse(scatter: ClassScatter) -> Collapse:
    """NC1, NC2 and CDNV from the class means and the scatter around them.

    Unchanged by shifting, scaling and rotating the activations. NC1 is unchanged by every invertible linear map too where
    the class means extend along all units, as they may where the units are fewer than the classes; else the
    pseudo-inverse looks along the class means alone, and it is not.

    The pseudo-inverse takes a direction of `Sb` as zero where the class means extend along it by less than
    `max(C, D) eps` of the largest extent, `eps` being that of float32, in which activations mostly come. The means
    themselves are decomposed, not their products, so directions down to that extent keep their digits; and nothing is a
    difference of large numbers, so classes that have collapsed keep theirs. Time `C D (C + D)`.

    Raises:
        ValueError: if there are not two classes of two examples.

    >>> from stratoscope.numerics.scatter import Scatter
    >>> corners = Scatter()
    >>> rows = torch.tensor([[1.0, 0.0], [1.0, 0.2], [0.0, 1.0], [0.0, 1.2]])
    >>> corners.update(rows, torch.tensor([0, 0, 1, 1]))
    >>> round(collapse(corners.result()).cdnv, 5)
    0.005
    """
    counted = _usable(scatter)
    means, counts = counted.means, counted.counts
    offsets = means - means.mean(0)
    gram = offsets @ offsets.T
    extents, axes = _directions(offsets)
    nc1, directions = _nc1(extents, ((axes @ counted.within) * axes).sum(-1), _tolerance(counted))
    norms, cosines = _shape(gram)
    pairs = _cdnv(gram, counted.spreads)
    return Collapse(
        nc1=float(nc1),
        cdnv=float(_mean_of_pairs(pairs)),
        by_class=tuple((pairs.fill_diagonal_(0.0).sum(1) / (len(counts) - 1)).tolist()),
        equinorm=float(norms),
        equiangular=float(cosines),
        equiangular_floor=equiangular_floor(len(counts), counted.width),
        directions=int(directions),
        classes=counted.classes,
        counts=tuple(counts.tolist()),
        skipped=tuple(c for c, n in zip(scatter.classes, scatter.counts.tolist(), strict=True) if n < 2),
        width=counted.width,
    )


def collapse_null(scatter: ClassScatter, *, draws: int = 20, seed: int = 0) -> CollapseNull:
    r"""What NC1, NC2 and CDNV read under shuffled labels, from the covariance of the activations alone.

    Under shuffled labels the means of classes of $n_c$ of the $n$ examples, around the mean of all, have the
    covariance $S (\delta_{cc'} / n_c - 1/n)$, with $S$ the unbiased covariance of all, and are Gaussian to the extent
    that many examples are averaged. So a draw needs no examples: with $Z$ standard normal of `C` rows, divided by
    $\sqrt{n_c}$ and centred, and $R^\top R = S$, the means are $M = Z R$. What lies within classes is what the means leave
    of the whole, $S (n - 1)/n - M^\top \operatorname{diag}(n_c / n) M$.

    For `C` classes of `m` examples and white activations, NC1 is about `m (C - 1) / (D - C)` where `D > C`, and, for
    any activations of full rank, `m D / (C - D - 2)` where `D < C - 2`; the CDNV is about `m / 2` where `D` is large.

    Args:
        scatter: of all examples.
        draws: how many, at most; down to three where `draws * C` exceeds a thousand.
        seed: of the draws.

    Raises:
        ValueError: if there are not two classes of two examples, or `draws` is below 1.

    >>> from stratoscope.numerics.scatter import Scatter
    >>> noise = Scatter()
    >>> g = torch.Generator().manual_seed(0)
    >>> noise.update(torch.randn(400, 40, generator=g), torch.arange(400) % 4)
    >>> round(float(collapse_null(noise.result()).cdnv.median()))
    50
    """
    if draws < 1:
        raise ValueError(f"A null takes 1 draw or more; draws={draws}.")
    counted = _usable(scatter)
    counts, classes, width = counted.counts, len(counted.counts), counted.width
    draws = min(draws, max(3, DRAWS_OF_CLASSES // classes))
    covariance = counted.covariance * (counted.n / (counted.n - 1))
    generator = torch.Generator().manual_seed(seed)
    means = torch.randn(draws, classes, width, generator=generator, dtype=torch.float64) @ _root(covariance)
    shares = counts.double() / counted.n
    means = means / counts.double().sqrt()[:, None]
    means = means - (shares @ means)[:, None]
    # from here on classes weigh the same
    offsets = means - means.mean(1, keepdim=True)
    extents, axes = _directions(offsets)
    taken = ((means @ axes.mT).square() * shares[:, None]).sum(-2)
    along = ((axes @ covariance) * axes).sum(-1) * ((counted.n - 1) / counted.n) - taken
    gram = offsets @ offsets.mT
    norms, cosines = _shape(gram)
    return CollapseNull(
        nc1=_nc1(extents, along.clamp(min=0), _tolerance(counted))[0],
        cdnv=_mean_of_pairs(_cdnv(gram, covariance.trace() * (1 - 1 / counts.double()))),
        equinorm=norms,
        equiangular=cosines,
    )


def equiangular_floor(classes: int, width: int) -> float:
    r"""The least that the mean of `|cos + 1/(C - 1)|` over pairs can be for `C` vectors in `D` dimensions.

    A simplex of `C` corners needs `C - 1` dimensions. Below, a Gram matrix of unit vectors of rank `D` has
    $\sum_{ab} \cos_{ab}^2 \ge C^2 / D$, hence $\sum_{a \ne b} (\cos_{ab} + \frac1{C-1})^2 \ge C^2 (\frac1D -
    \frac1{C-1})$, and no term is larger than $C / (C-1)$ in size. A bound; it may be out of reach.

    >>> equiangular_floor(10, 64), equiangular_floor(5, 2)
    (0.0, 0.25)
    """
    return max(0.0, 1 / width - 1 / (classes - 1)) if classes > 1 else math.nan


def self_duality(weight: Float[Tensor, "C D"], means: Float[Tensor, "C D"]) -> float:
    r"""NC3: $\| W^\top / \|W\|_F - M / \|M\|_F \|_F$, with `M` the class means around their mean.

    Between 0, where the classifier's rows point along the class means and are as long to each other, and 2; about
    $\sqrt2$ where the two have nothing to do with each other. Not squared. NaN where either is nothing but zero.

    Args:
        weight: of the classifier, a row a class.
        means: of the features that it is given, a row a class in the same order.

    Raises:
        ValueError: if the shapes differ.

    >>> simplex = torch.eye(3) - 1 / 3
    >>> round(self_duality(5 * simplex, simplex + 7), 6)
    0.0
    """
    if weight.shape != means.shape or weight.ndim != 2:
        raise ValueError(
            f"NC3 compares a weight and class means of one shape; there was {tuple(weight.shape)} and "
            f"{tuple(means.shape)}."
        )
    offsets = means.double() - means.double().mean(0)
    wide = weight.detach().double()
    lengths = wide.norm() * offsets.norm()
    return float((wide / wide.norm() - offsets / offsets.norm()).norm()) if float(lengths) > 0 else math.nan


def nearest_means(features: Float[Tensor, "n D"], means: Float[Tensor, "C D"]) -> Int[Tensor, " n"]:
    """For each row, which mean is the nearest; the first where several are equally near.

    Distances are compared around the means' own mean, in float64, so that a large common offset costs no digits.

    >>> nearest_means(torch.tensor([[0.9], [5.0]]), torch.tensor([[0.0], [4.0]])).tolist()
    [0, 1]
    """
    centre = means.double().mean(0)
    offsets = means.double() - centre
    half = offsets.square().sum(1) / 2
    return torch.cat([(half - (block.double() - centre) @ offsets.T).argmin(1) for block in features.split(4096)])


def _usable(scatter: ClassScatter) -> ClassScatter:
    """The classes of two examples and more, and the scatter of their examples alone."""
    usable = scatter.counts > 1 if scatter.classes else torch.zeros(0, dtype=torch.bool)
    if int(usable.sum()) < 2:
        raise ValueError(
            f"Collapse needs two classes of two examples; there were {len(scatter.classes)} classes with "
            f"{scatter.counts.tolist()[:10]} examples."
        )
    if bool(usable.all()):
        return scatter
    n = int(scatter.counts[usable].sum())
    names = tuple(c for c, kept in zip(scatter.classes, usable.tolist(), strict=True) if kept)
    # a class of one example adds nothing to the sum around its own mean
    within = scatter.within * (scatter.n / n)
    return ClassScatter(n, names, scatter.counts[usable], scatter.means[usable], within, scatter.spreads[usable])


def _root(covariance: Tensor) -> Tensor:
    """A matrix `R` with `R^T R` the covariance, without the directions that are rounding."""
    width, largest = len(covariance), float(covariance.diagonal().max())
    if not 0 < largest < math.inf:
        return torch.full_like(covariance, 0.0 if largest == 0 else math.nan)
    scaled, eye = covariance / largest, torch.eye(width, dtype=torch.float64)
    factor, failed = torch.linalg.cholesky_ex(scaled + 4 * width * torch.finfo(torch.float64).eps * eye)
    root: Tensor = factor.mT
    if int(failed):
        # how far rounding takes eigenvalues below zero says which of those above it are no more than that
        squares, axes = torch.linalg.eigh(scaled)
        root = squares.where(squares > -2 * squares[0], 0.0).sqrt()[:, None] * axes.mT
    return root * math.sqrt(largest)


def _tolerance(scatter: ClassScatter) -> float:
    return max(len(scatter.counts), scatter.width) * torch.finfo(torch.float32).eps


def _directions(offsets: Float[Tensor, "*draws C D"]) -> tuple[Float[Tensor, "*draws k"], Float[Tensor, "*draws k D"]]:
    """How far centred class means extend along their principal axes, and these axes, one a row."""
    found = torch.linalg.svd(offsets, full_matrices=False)
    return found.S, found.Vh


def _nc1(extents: Tensor, along: Tensor, tolerance: float) -> tuple[Tensor, Tensor]:
    r"""`Tr(Sw Sb^+) / C` from the class means' extents and the variance within classes along each; and the rank of `Sb`.

    With the means' singular value decomposition $M = U s V^\top$, $\Sigma_B = M^\top M / C$, so NC1 is
    $\sum_k v_k^\top \Sigma_W v_k / s_k^2$.
    """
    seen = extents > tolerance * extents[..., :1]
    terms = torch.where(seen, along / extents.where(seen, 1.0).square(), 0.0)
    directions = seen.sum(-1)
    return terms.sum(-1).where(directions > 0, math.nan), directions


def _cdnv(gram: Tensor, spreads: Tensor) -> Tensor:
    """For each pair of classes; on the diagonal stand numbers without a meaning."""
    squares = gram.diagonal(dim1=-2, dim2=-1)
    # of two means that lie together, rounding may leave less than nothing
    apart = (squares[..., :, None] + squares[..., None, :] - 2 * gram).clamp(min=0)
    return (spreads[:, None] + spreads) / (2 * apart)


def _mean_of_pairs(table: Tensor) -> Tensor:
    first, second = torch.triu_indices(table.shape[-1], table.shape[-1], 1)
    return table[..., first, second].mean(-1)


def _shape(gram: Tensor) -> tuple[Tensor, Tensor]:
    """How unequal the lengths of centred means are, and how far their angles are from a simplex's."""
    classes = gram.shape[-1]
    norms = gram.diagonal(dim1=-2, dim2=-1).clamp(min=0).sqrt()
    if classes == 2:
        nothing = norms.new_full(norms.shape[:-1], math.nan)
        return nothing, nothing
    cosines = gram / (norms[..., :, None] * norms[..., None, :])
    return norms.std(-1, correction=0) / norms.mean(-1), _mean_of_pairs((cosines + 1 / (classes - 1)).abs())
