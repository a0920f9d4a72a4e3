"""Singular values of a weight matrix, and what they say about its rank."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

GRAM_RATIO = 1e-10
"""Smallest over largest eigenvalue of the Gram matrix below which the slower, exact way is taken."""

BLOCK = 2**22
"""Entries that are widened to float64 at a time."""

IN_PLACE = 4096
"""Longest side of a Gram matrix that is copied before it is decomposed."""


def singular_values(matrix: Shaped[Tensor, "rows columns"], *, exact_up_to: int = 2048) -> Float[Tensor, " k"]:
    """All `k = min(rows, columns)` singular values, descending, computed and returned in float64.

    The Gram matrix of the shorter side is tried first: for a well-conditioned matrix it is 2 to 10 times as fast as
    a decomposition. Squaring buries small singular values, so where the smallest eigenvalue is under `1e-10` of the
    largest, the matrix is reduced by QR and decomposed directly. Absolute error, with `s` the largest singular value:

    * well conditioned: about `1e-11 s`, for every value;
    * otherwise: about `1e-15 s`, so that exact zeros are seen as zeros;
    * otherwise, and the shorter side is longer than `exact_up_to`: values below about `1e-8 k^(1/2) s` cannot be told
      from zero and are returned as zero.

    The entries are read in blocks of rows and widened block by block, so that beside the matrix as it is stored there
    is only `8 k^2` bytes, twice, and one block.

    Args:
        matrix: of any real or complex type.
        exact_up_to: longest shorter side for which the direct decomposition is paid for.

    Returns:
        The singular values, on the device of the matrix (on the CPU for a device without float64).

    Raises:
        ValueError: if the matrix is not two-dimensional, is empty, or has an entry that is not finite.

    >>> singular_values(torch.tensor([[3.0, 0.0], [4.0, 0.0]])).tolist()
    [5.0, 0.0]
    """
    _check(matrix)
    tall = _tall(matrix.detach())
    scale = power_of_two(largest_entry(tall))
    eigenvalues = _descending_eigenvalues(lower_gram(widened_rows(tall, scale)))
    largest, smallest = float(eigenvalues[0]), float(eigenvalues[-1])
    if smallest >= GRAM_RATIO * largest and largest > 0:
        return eigenvalues.sqrt() * scale
    if tall.shape[1] <= exact_up_to:
        return _decomposed(widened_rows(tall, scale)) * scale
    noise = eigenvalues.numel() * torch.finfo(torch.float64).eps * largest
    return eigenvalues.where(eigenvalues > noise, 0.0).sqrt() * scale


def singular_values_of_product(
    left: Shaped[Tensor, "rows inner"], right: Shaped[Tensor, "inner columns"]
) -> Float[Tensor, " k"]:
    """All `k = min(rows, columns)` singular values of a product of two matrices, descending, in float64.

    The product is not formed: each factor is reduced by QR to a triangle of its inner size first. Singular values
    that the inner size rules out are exact zeros at the end.

    Raises:
        ValueError: if the sizes do not fit, a factor is empty, or an entry is not finite.

    >>> singular_values_of_product(torch.tensor([[3.0], [4.0]]), torch.tensor([[2.0, 0.0]])).tolist()
    [10.0, 0.0]
    """
    if left.ndim != 2 or right.ndim != 2 or left.shape[1] != right.shape[0]:
        raise ValueError(f"A product of {tuple(left.shape)} and {tuple(right.shape)} matrices does not exist.")
    for factor in (left, right):
        _check(factor)
    scales = [power_of_two(largest_entry(factor)) for factor in (left, right)]
    first = _triangle(widened_rows(left.detach(), scales[0]))
    second = _triangle(widened_rows(right.detach().mH, scales[1]))
    values: Tensor = torch.linalg.svdvals(first @ second.mH) * (scales[0] * scales[1])
    k = min(left.shape[0], right.shape[1])
    return torch.cat([values, values.new_zeros(max(0, k - len(values)))])[:k]


def slice_singular_values(stack: Shaped[Tensor, "copies rows columns"]) -> Float[Tensor, " all"]:
    """The singular values of every matrix of a stack, pooled: descending, in float64.

    >>> slice_singular_values(torch.tensor([[[3.0]], [[-5.0]]])).tolist()
    [5.0, 3.0]
    """
    if stack.ndim != 3 or stack.numel() == 0:
        raise ValueError(f"A stack of matrices with entries is needed; this has shape {tuple(stack.shape)}.")
    if stack.shape[1] * stack.shape[2] > 4096:
        values = torch.cat([singular_values(matrix) for matrix in stack])
    else:  # many small ones, such as the filters of a depthwise convolution
        scale = power_of_two(largest_entry(stack))
        blocks = stack.split(max(1, BLOCK // (stack.shape[1] * stack.shape[2])))
        values = torch.cat([torch.linalg.svdvals(widened(block, scale)).flatten() for block in blocks]) * scale
    return values.sort(descending=True).values


def gram_eigenvalues(blocks: Iterable[Shaped[Tensor, "n k"]], scale: float = 1.0) -> Float[Tensor, " k"]:
    """All `k` eigenvalues of `A^T A`, descending, in float64, for a matrix that comes in blocks of rows.

    Fast, with an absolute error of about `1e-15` of the largest eigenvalue. So the small end of a rank-deficient
    matrix is rounding; `singular_values` keeps it.

    Args:
        blocks: rows `1..n`, then the next ones, at least `k` rows altogether, of any real or complex type.
        scale: a power of two near the largest entry, so that no square overflows or vanishes.

    >>> gram_eigenvalues([torch.tensor([[3.0, 0.0]]), torch.tensor([[4.0, 0.0]])]).tolist()
    [25.0, 0.0]
    """
    gram = lower_gram(widened(block, scale) for block in blocks)
    return _descending_eigenvalues(gram).clamp_min_(0.0) * scale * scale


def stable_rank(s: Float[Tensor, "*matrices k"]) -> Float[Tensor, "*matrices"]:
    """Squared Frobenius norm over squared spectral norm (Rudelson and Vershynin, arXiv:math/0503442).

    Lies in `[1, rank]`; unchanged by scaling and by rotation on either side. Of a zero matrix: NaN.

    Args:
        s: singular values, descending; of several matrices along the last axis.

    >>> stable_rank(torch.tensor([2.0, 1.0, 1.0])).item()
    1.5
    """
    return (s / s[..., :1]).square().sum(-1)


def effective_rank(s: Float[Tensor, "*matrices k"]) -> Float[Tensor, "*matrices"]:
    """Exponential of the entropy of the singular values' shares (Roy and Vetterli, EUSIPCO 2007).

    Lies in `[1, rank]`, and equals the rank exactly when all nonzero singular values are equal; unchanged by scaling
    and rotation. Of a zero matrix: NaN.

    Args:
        s: singular values, in any order; of several matrices along the last axis.

    >>> round(effective_rank(torch.tensor([2.0, 1.0, 1.0])).item(), 4)
    2.8284
    """
    share = s / s.sum(-1, keepdim=True)
    return torch.exp(-torch.xlogy(share, share).sum(-1))


def rank_tolerance(s: Float[Tensor, " k"], shape: tuple[int, int], dtype: torch.dtype) -> float:
    """The singular value up to which a matrix that is stored in `dtype` cannot be told from one of lower rank.

    For float32 and float64 this is numpy's rule, `max(shape) * eps * s_max`. Types of less precision (float16,
    bfloat16, float8) would make that rule exceed the largest singular value itself; for them it is float32's
    tolerance plus the most that rounding the entries can add to any singular value, `eps / 2` times the Frobenius
    norm. Integers count as float32.

    Args:
        s: singular values, descending.
        shape: of the matrix.
        dtype: type of the stored tensor.

    >>> round(rank_tolerance(torch.tensor([1.0, 0.0]), (2, 4), torch.float32) / 2**-23, 6)
    4.0
    """
    largest = float(s[0]) if s.numel() else 0.0
    single = torch.finfo(torch.float32).eps
    if not (dtype.is_floating_point or dtype.is_complex):
        return max(shape) * single * largest
    eps = torch.finfo(dtype).eps
    if eps <= single:
        return max(shape) * eps * largest
    return max(shape) * single * largest + eps / 2 * float(torch.linalg.vector_norm(s))


def numerical_rank(s: Float[Tensor, " k"], shape: tuple[int, int], dtype: torch.dtype) -> int:
    """How many singular values exceed `rank_tolerance`. Of a zero matrix: 0.

    Args:
        s: singular values, descending.
        shape: of the matrix.
        dtype: type of the stored tensor, whose precision sets the tolerance.

    >>> numerical_rank(torch.tensor([1.0, 0.5, 1e-12]), (3, 3), torch.float32)
    2
    """
    return int((s > rank_tolerance(s, shape, dtype)).sum())


def zero_share(values: Shaped[Tensor, "*shape"]) -> float:
    """Share of entries that are exactly zero, in `[0, 1]`; NaN where there are none.

    >>> zero_share(torch.tensor([0.0, 1.0, -0.0, 2.0]))
    0.5
    """
    if values.numel() == 0:
        return math.nan
    return 1.0 - sum(int(torch.count_nonzero(block)) for block in entry_blocks(values)) / values.numel()


def not_finite(values: Shaped[Tensor, "*shape"]) -> int:
    """How many entries are NaN or infinite.

    >>> not_finite(torch.tensor([0.0, float("nan"), float("inf")]))
    2
    """
    if not (values.is_floating_point() or values.is_complex()) or math.isfinite(largest_entry(values)):
        return 0
    return values.numel() - sum(int(torch.isfinite(block).sum()) for block in entry_blocks(values))


def largest_entry(values: Shaped[Tensor, "*shape"]) -> float:
    """The largest size of an entry; 0 where there are none, NaN where one is NaN.

    >>> largest_entry(torch.tensor([[1.0, -3.0]]))
    3.0
    """
    # as numbers at once: small tensors that are kept would hold on to the memory of the blocks around them
    sizes = [float(block.abs().max()) for block in entry_blocks(values)]
    return math.nan if any(map(math.isnan, sizes)) else max(sizes, default=0.0)


def squared_norm(values: Shaped[Tensor, "*shape"]) -> float:
    """The sum of the squared entries, in float64; infinite where it is beyond that type.

    >>> squared_norm(torch.tensor([3.0, 4.0], dtype=torch.float16))
    25.0
    """
    scale = power_of_two(largest_entry(values))
    return sum(float(widened(block, scale).abs().square().sum()) for block in entry_blocks(values)) * scale * scale


def entry_blocks(values: Shaped[Tensor, "*shape"], most: int = 2**20) -> Iterator[Shaped[Tensor, " n"]]:
    """All entries, once each and in the order in which they are stored, in flat blocks of float32 at least.

    Nothing is copied but the block, unless the tensor has gaps in memory.
    """
    for block in in_memory_order(values.detach()).split(most) if values.numel() else ():
        yield at_least_float32(block)


def in_memory_order(values: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, " n"]:
    """All entries in a row as they lie in memory, whatever the axes are called; copied only if there are gaps.

    >>> in_memory_order(torch.arange(4).reshape(2, 2).T).tolist()
    [0, 1, 2, 3]
    """
    steps: tuple[int, ...] = values.stride()
    axes = sorted(range(values.ndim), key=lambda axis: (-steps[axis], -values.shape[axis]))
    return values.permute(axes).reshape(-1)


def at_least_float32(values: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
    """The same numbers in float32, float64 or a complex type; half precision and small integers become float32.

    Every number is kept exactly, and a tensor that is wide enough is not copied. Integers of 32 and 64 bits become
    float64.

    >>> at_least_float32(torch.tensor([0.5], dtype=torch.bfloat16)).dtype.itemsize
    4
    """
    if values.dtype.is_floating_point or values.dtype.is_complex:
        wide = torch.promote_types(values.dtype, torch.float32) if values.dtype.itemsize > 1 else torch.float32
    else:
        wide = torch.float32 if values.dtype.itemsize < 4 else torch.float64
    return values.to(wide)


def power_of_two(largest: float) -> float:
    """A power of two near the largest entry, so that no square overflows or vanishes; dividing by it is exact.

    >>> power_of_two(5.0), power_of_two(0.0)
    (4.0, 1.0)
    """
    return math.ldexp(1.0, math.frexp(largest)[1] - 1) if 0 < largest < math.inf else 1.0


def widened(values: Shaped[Tensor, "*shape"], scale: float) -> Shaped[Tensor, "*shape"]:
    """A copy over `scale` in float64 or its complex type, on the CPU for a device without them."""
    here = values.cpu() if values.device.type == "mps" else values
    return here.to(torch.complex128 if values.is_complex() else torch.float64, copy=True).div_(scale)


def widened_rows(matrix: Shaped[Tensor, "rows columns"], scale: float, rows: int = 0) -> Iterator[Tensor]:
    """A matrix over `scale` in blocks of rows, in float64; of about 32 MB each unless `rows` are given."""
    most = rows or max(1, BLOCK // max(1, matrix.shape[1]))
    return (widened(block, scale) for block in torch.split(matrix, most))


def lower_gram(blocks: Iterable[Shaped[Tensor, "n k"]]) -> Shaped[Tensor, "k k"]:
    """The lower triangle of `A^H A` for a matrix in blocks of rows; above it stand numbers without a meaning.

    >>> lower_gram([torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 0.0]])])[1].tolist()
    [2.0, 4.0]
    """
    gram: Tensor | None = None
    for block in blocks:
        if gram is None:
            k = block.shape[1]
            gram = block.new_zeros(k, k).mT  # columns one after the other, as LAPACK has them
        if block.device.type == "cpu" and block.dtype == torch.float64:
            gram = _add_gram(gram, block)
        else:
            gram.addmm_(block.mH, block)
    if gram is None:
        raise ValueError("A Gram matrix needs at least one block of rows.")
    return gram


def _check(matrix: Tensor) -> None:
    if matrix.ndim != 2 or matrix.numel() == 0:
        raise ValueError(f"Singular values need a matrix with entries; this has shape {tuple(matrix.shape)}.")
    bad = not_finite(matrix)
    if bad:
        nan = sum(int(torch.isnan(block).sum()) for block in entry_blocks(matrix))
        raise ValueError(
            f"Singular values need finite entries; this {tuple(matrix.shape)} matrix holds {nan} NaN and "
            f"{bad - nan} infinite."
        )


def _tall(matrix: Tensor) -> Tensor:
    return matrix.mH if matrix.shape[0] < matrix.shape[1] else matrix


def _add_gram(gram: Tensor, block: Tensor) -> Tensor:
    """The sum of the lower triangles of a Gram matrix and of one more block's, in the memory of the first.

    SciPy's library does this in half the time of torch's on many processors, and takes half of the products.
    """
    from scipy.linalg.blas import dsyrk

    by_columns = block.mT.is_contiguous()
    entries = block.numpy() if by_columns else block.contiguous().numpy().T
    return torch.from_numpy(
        dsyrk(1.0, entries, beta=1.0, c=gram.numpy(), trans=by_columns, lower=True, overwrite_c=True)
    )


def _descending_eigenvalues(gram: Tensor) -> Tensor:
    """Of a Hermitian matrix whose lower triangle is given, and which is not needed afterwards."""
    if gram.device.type != "cpu" or gram.is_complex():
        values: Tensor = torch.linalg.eigvalsh(gram)
        return values.flip(0)
    if len(gram) <= IN_PLACE:  # torch's library takes twice as long on many processors
        return torch.from_numpy(np.linalg.eigvalsh(gram.numpy())).flip(0)
    from scipy.linalg import eigh

    # without a copy of the matrix, which for a giant is half a gigabyte
    found = eigh(gram.numpy(), lower=True, eigvals_only=True, overwrite_a=True, check_finite=False, driver="ev")
    return torch.from_numpy(found).flip(0)


def _decomposed(blocks: Iterable[Tensor]) -> Tensor:
    values: Tensor = torch.linalg.svdvals(_triangle(blocks))
    return values


def _triangle(blocks: Iterable[Tensor]) -> Tensor:
    """The triangular factor of the QR decomposition of a matrix in blocks of rows; the matrix itself if it is short."""
    held: list[Tensor] = []
    for block in blocks:
        held.append(block)
        # a few blocks at a time: each costs the triangle once more
        if sum(map(len, held)) >= 3 * block.shape[1]:
            held = [torch.linalg.qr(torch.cat(held), mode="r").R]
    whole = torch.cat(held)
    return torch.linalg.qr(whole, mode="r").R if len(whole) > whole.shape[1] else whole
