"""A sketch of a large spectrum: its largest eigenvalues, and how the others are spread, from products with blocks alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from stratoscope.numerics.matrices import widened_rows

Apply = Callable[[Float[Tensor, "n b"]], Float[Tensor, "n b"]]
"""A symmetric positive semidefinite matrix, as what it does to `b` vectors at once."""

PROBES = 8
STEPS = 64
RESIDUAL = 1e-4
"""Residual over eigenvalue up to which an eigenvalue counts as converged."""

EXACT = 1e-7
"""Residual over the largest eigenvalue up to which a node is an eigenvalue, whose place is no matter of the rule."""


@dataclass(frozen=True, eq=False)
class SpectralSketch:
    """What is known of the spectrum of a symmetric positive semidefinite matrix of `n` rows.

    Attributes:
        top: the largest eigenvalues, descending, each within `RESIDUAL` of itself; the first one is always there, though
            of a spectrum that is crowded at its edge it may be short of the largest eigenvalue by a little more.
        nodes: where the other `n - len(top)` eigenvalues lie, ascending.
        weights: how many of them each node stands for.
        error: bound on the distance between the estimated and the true share of them below any point; see `sketch`.
        products: how many times a block of vectors was multiplied.
    """

    top: Float[Tensor, " k"]
    nodes: Float[Tensor, " m"]
    weights: Float[Tensor, " m"]
    error: float
    products: int


def gram_product(tall: Float[Tensor, "rows n"], scale: float) -> Apply:
    """Multiplication with `A^T A / scale^2` in float64, where `A` is read in blocks of rows of its stored type.

    The products are made where `A` lies; the vectors stay where they are.

    >>> gram_product(torch.tensor([[3.0, 4.0]]), 1.0)(torch.eye(2, dtype=torch.float64)).tolist()
    [[9.0, 12.0], [12.0, 16.0]]
    """

    def apply(vectors: Tensor) -> Tensor:
        result = torch.zeros_like(vectors)
        for block in widened_rows(tall, scale):
            here, result = vectors.to(block.device), result.to(block.device)
            result.addmm_(block.T, block @ here)
        return result.to(vectors.device)

    return apply


def sketch(
    apply: Apply, n: int, *, generator: torch.Generator, probes: int = PROBES, steps: int = STEPS
) -> SpectralSketch:
    """The largest eigenvalues, and Gauss quadrature for the others, by block Lanczos from random signs.

    One run of block Lanczos with full re-orthogonalisation (Golub and Underwood 1977) starts from `probes` seeded
    vectors of random signs. Its Ritz values serve twice:

    * from the largest downward, those whose residual is at most `1e-4` of themselves are eigenvalues to at least that
      relative precision (the error is of the order of the squared residual where the gap is wider than it);
    * all of them are the nodes of a Gauss rule for each probe `v`: `v^T f(A) v` is exact for polynomials of degree
      `2 steps - 1`, and its mean over probes is unbiased for the trace of `f(A)` (stochastic Lanczos quadrature: Bai,
      Fahey and Golub, doi:10.1016/0377-0427(96)00018-0; Ubaru, Chen and Saad, doi:10.1137/16M1104974). The known
      eigenvalues are taken out of the rule, so that their weight carries no sampling error.

    The error is the largest, over the nodes, of two parts. Twice the standard error of sampling, which for random signs
    and a share `F` below a point is at most `sqrt(2 F (1 - F) / (n probes))`. And the Christoffel number of degree
    `steps - 1`, which bounds how far two distributions with the same `2 steps - 2` moments can be apart (Chebyshev,
    Markov, Stieltjes); it is a worst case, about `2 / steps` for a smooth bulk, and the rule is usually several times
    as good. Eigenvalues that the block meets exactly, such as the zeros of a matrix of low rank, have no second part.
    Where `probes * steps` reaches `n`, everything is exact.

    Args:
        apply: multiplication with the matrix, in float64.
        n: its rows.
        generator: draws the signs, on the CPU.
        probes: vectors at a time, at least 2.
        steps: multiplications, at least 2.

    >>> eigenvalues = torch.linspace(0, 1, 1000, dtype=torch.float64)
    >>> found = sketch(lambda v: eigenvalues[:, None] * v, 1000, generator=torch.Generator().manual_seed(0))
    >>> round(found.top[0].item(), 6), round(found.weights.sum().item() + len(found.top), 6)
    (1.0, 1000.0)
    """
    if n < 1 or probes < 2 or steps < 2:
        raise ValueError(f"A sketch needs n >= 1, probes >= 2 and steps >= 2; there were {n}, {probes}, {steps}.")
    run = _block_lanczos(apply, n, min(probes, n), steps, generator)
    values, residuals, overlaps = _ritz(run)
    known, shares = _known(values, residuals, overlaps, len(run.start), n)
    rest = shares.sum(1) > 0
    nodes, shares, exact = _merged(values[rest].flip(0), shares[rest].flip(0), residuals[rest].flip(0), values[0])
    total = shares.sum(0)
    each = shares / total.where(total > 0, 1.0)  # how each probe's weight is spread
    mean = each.mean(1)
    error = _error(nodes, mean, exact, n - known, shares.shape[1], steps)
    weights = mean * (n - known)
    return SpectralSketch(values[:known].clamp_min(0.0), nodes.clamp_min(0.0), weights, error, run.products)


@dataclass(frozen=True, eq=False)
class _Run:
    """What block Lanczos leaves: `A Q = Q T + F E^T`, and the start as `Q[:, :b] start`."""

    projected: Tensor
    start: Tensor
    beyond: Tensor
    """`F^T F` over the last block of `Q`: what the next block would have been."""
    products: int


def _block_lanczos(apply: Apply, n: int, probes: int, steps: int, generator: torch.Generator) -> _Run:
    signs = torch.randint(0, 2, (n, probes), generator=generator, dtype=torch.int64) * 2 - 1
    block, start = _orthonormal(signs.to(torch.float64), 0.0)
    basis = torch.empty(n, min(n, probes * steps), dtype=torch.float64)
    projected = torch.zeros(basis.shape[1], basis.shape[1], dtype=torch.float64)
    width, products, size = 0, 0, 0.0
    beyond = torch.zeros(0, 0, dtype=torch.float64)
    while block.shape[1] and width < basis.shape[1]:
        block = block[:, : basis.shape[1] - width]
        first, width = width, width + block.shape[1]
        basis[:, first:width] = block
        image, products = apply(block), products + 1
        size = max(size, float(torch.linalg.vector_norm(image, dim=0).max()))
        held = basis[:, :width]
        for _ in range(2):  # once more against rounding
            part = held.T @ image
            projected[:width, first:width] += part
            image -= held @ part
        beyond = image.T @ image
        block, _ = _orthonormal(image, size)
    # a block's product is known against what came before it; what comes after is the transpose of that
    above = projected[:width, :width].triu()
    return _Run(above + above.triu(1).T, start, beyond, products)


def _orthonormal(block: Tensor, size: float) -> tuple[Tensor, Tensor]:
    """An orthonormal basis `Q` of the columns and `R` with `block = Q R`; directions below rounding of `size` go."""
    u, s, vh = torch.linalg.svd(block, full_matrices=False)
    limit = torch.finfo(torch.float64).eps * len(block) ** 0.5 * max(size, float(s[0]) if size == 0 else 0.0)
    kept = s > 10 * limit
    return u[:, kept], (s[:, None] * vh)[kept]


def _ritz(run: _Run) -> tuple[Tensor, Tensor, Tensor]:
    """Ritz values, descending; the residual of each; and each probe's weight on it."""
    values, vectors = torch.linalg.eigh(run.projected)
    values, vectors = values.flip(0), vectors.flip(1)
    last = vectors[len(vectors) - len(run.beyond) :]
    residuals = ((run.beyond @ last) * last).sum(0).clamp_min(0.0).sqrt()
    overlaps = (vectors[: len(run.start)].T @ run.start).square()
    return values, residuals, overlaps


def _known(values: Tensor, residuals: Tensor, overlaps: Tensor, block: int, n: int) -> tuple[int, Tensor]:
    """How many of the largest are converged, and the probes' weights on all others.

    A block of `b` independent vectors shows at most `b` copies of an eigenvalue. Where it shows as many, further ones
    may be hidden: the weight that exceeds the copies stays with the node, and the list of the largest ends there.
    """
    shares = overlaps.clone()
    good = residuals <= (RESIDUAL * values).clamp_min(_floor(values, n))
    converged = max(1, int(good.long().cumprod(0).sum()))
    known = 0
    while known < converged:
        near = values[known] - values[known:converged] <= 1e-6 * values[0].abs()
        first, known = known, known + int(near.sum())
        copies, cluster = known - first, overlaps[first:known].sum(0)
        shares[first:known] = 0.0
        if copies >= block:
            shares[known - 1] = cluster * (1 - copies / cluster.mean()).clamp_min(0.0)
            break
    return known, shares


def _floor(values: Tensor, n: int) -> float:
    """What rounding leaves of a residual."""
    return torch.finfo(torch.float64).eps * n * float(values[0].abs())


def _merged(nodes: Tensor, shares: Tensor, residuals: Tensor, largest: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Ascending nodes that differ by rounding alone as one, with its weights, and whether it is an eigenvalue itself."""
    if not len(nodes):
        return nodes, shares, residuals > 0
    apart = nodes.diff() > 1e-11 * largest.abs()
    first = torch.cat([apart.new_ones(1), apart]).nonzero().flatten().numpy()
    sums = torch.from_numpy(np.add.reduceat(shares.numpy(), first, axis=0))
    worst = torch.from_numpy(np.maximum.reduceat(residuals.numpy(), first))
    return nodes[torch.from_numpy(first)], sums, worst <= EXACT * largest.abs()


def _error(nodes: Tensor, shares: Tensor, exact: Tensor, n: int, probes: int, steps: int) -> float:
    """How far the distribution may be off: sampling of the probes plus the Gauss rule's own bound."""
    if len(nodes) < 2:
        return 0.0
    below = shares.cumsum(0).clamp(0.0, 1.0)
    sampling = 2 * (2 * below * (1 - below) / (n * probes)).sqrt()
    rule = torch.zeros_like(sampling)
    if bool((~exact).any()):
        rule[~exact] = _christoffel(nodes[~exact], shares[~exact], steps)
    return min(1.0, float((sampling + rule).max()))


def _christoffel(nodes: Tensor, weights: Tensor, steps: int) -> Tensor:
    """`1 / sum_k p_k(x)^2` at each node, with the orthonormal polynomials of degree below `steps` of the measure."""
    start = weights.sqrt()
    norm = torch.linalg.vector_norm(start)
    held = [start / norm]
    for _ in range(min(steps, len(nodes)) - 1):
        image = nodes * held[-1]
        for _ in range(2):
            basis = torch.stack(held)
            image = image - basis.T @ (basis @ image)
        length = torch.linalg.vector_norm(image)
        if length <= 1e-12 * nodes.abs().max():
            break
        held.append(image / length)
    # a row holds p_k(x_i) sqrt(w_i), so the sum of its squares is w_i over the Christoffel number
    sums = torch.stack(held).square().sum(0)
    return torch.where(sums > 0, weights / sums.clamp_min(torch.finfo(torch.float64).tiny), 0.0)
