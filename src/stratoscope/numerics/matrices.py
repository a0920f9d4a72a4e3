"""Singular values of a weight matrix, and what they say about its rank."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

GRAM_RATIO = 1e-10
"""Smallest over largest eigenvalue of the Gram matrix below which the slower, exact way is taken."""


def singular_values(matrix: Shaped[Tensor, "rows columns"], *, exact_up_to: int = 2048) -> Float[Tensor, " k"]:
    """All `k = min(rows, columns)` singular values, descending, computed and returned in float64.

    The Gram matrix of the shorter side is tried first: for a well-conditioned matrix it is 2 to 10 times as fast as
    a decomposition. Squaring buries small singular values, so where the smallest eigenvalue is under `1e-10` of the
    largest, the matrix is reduced by QR and decomposed directly. Absolute error, with `s` the largest singular value:

    * well conditioned: about `1e-11 s`, for every value;
    * otherwise: about `1e-15 s`, so that exact zeros are seen as zeros;
    * otherwise, and the shorter side is longer than `exact_up_to`: values below about `1e-8 k^(1/2) s` cannot be told
      from zero and are returned as zero.

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
    wide = at_least_float32(matrix.detach())
    wide = wide.cpu() if wide.device.type == "mps" else wide
    _check(wide)
    tall = wide.mH if wide.shape[0] < wide.shape[1] else wide
    scale = _power_of_two(float(tall.abs().max()))
    eigenvalues: Tensor = torch.linalg.eigvalsh(_gram(tall, scale)).flip(0)
    largest, smallest = float(eigenvalues[0]), float(eigenvalues[-1])
    if smallest >= GRAM_RATIO * largest and largest > 0:
        return eigenvalues.sqrt() * scale
    if tall.shape[1] <= exact_up_to:
        return _decomposed(tall, scale) * scale
    noise = eigenvalues.numel() * torch.finfo(torch.float64).eps * largest
    return eigenvalues.where(eigenvalues > noise, 0.0).sqrt() * scale


def gram_eigenvalues(matrix: Shaped[Tensor, "rows columns"]) -> Float[Tensor, " k"]:
    """All `k = min(rows, columns)` eigenvalues of a finite matrix times its adjoint, descending, in float64.

    From the Gram matrix of the shorter side alone: fast, with an absolute error of about `1e-15` of the largest
    eigenvalue. So the small end of a rank-deficient matrix is rounding; `singular_values` keeps it.

    >>> gram_eigenvalues(torch.tensor([[3.0, 0.0], [4.0, 0.0]])).tolist()
    [25.0, 0.0]
    """
    tall = matrix.mH if matrix.shape[0] < matrix.shape[1] else matrix
    scale = _power_of_two(float(tall.abs().max()))
    eigenvalues: Tensor = torch.linalg.eigvalsh(_gram(tall, scale)).flip(0).clamp_min(0.0)
    return eigenvalues * scale * scale


def stable_rank(s: Float[Tensor, " k"]) -> Float[Tensor, ""]:
    """Squared Frobenius norm over squared spectral norm (Rudelson and Vershynin, arXiv:math/0503442).

    Lies in `[1, rank]`; unchanged by scaling and by rotation on either side. Of a zero matrix: NaN.

    Args:
        s: singular values, descending.

    >>> stable_rank(torch.tensor([2.0, 1.0, 1.0])).item()
    1.5
    """
    return (s / s[0]).square().sum()


def effective_rank(s: Float[Tensor, " k"]) -> Float[Tensor, ""]:
    """Exponential of the entropy of the singular values' shares (Roy and Vetterli, EUSIPCO 2007).

    Lies in `[1, rank]`, and equals the rank exactly when all nonzero singular values are equal; unchanged by scaling
    and rotation. Of a zero matrix: NaN.

    Args:
        s: singular values, in any order.

    >>> round(effective_rank(torch.tensor([2.0, 1.0, 1.0])).item(), 4)
    2.8284
    """
    share = s / s.sum()
    return torch.exp(-torch.xlogy(share, share).sum())


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
    return 1.0 - int(torch.count_nonzero(values)) / values.numel()


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


def not_finite(values: Shaped[Tensor, "*shape"]) -> int:
    """How many entries are NaN or infinite.

    >>> not_finite(torch.tensor([0.0, float("nan"), float("inf")]))
    2
    """
    if not (values.is_floating_point() or values.is_complex()):
        return 0
    return values.numel() - int(torch.isfinite(values).sum())


def _check(matrix: Tensor) -> None:
    if matrix.ndim != 2 or matrix.numel() == 0:
        raise ValueError(f"Singular values need a matrix with entries; this has shape {tuple(matrix.shape)}.")
    bad = not_finite(matrix)
    if bad:
        nan = int(torch.isnan(matrix).sum())
        raise ValueError(
            f"Singular values need finite entries; this {tuple(matrix.shape)} matrix holds {nan} NaN and "
            f"{bad - nan} infinite."
        )


def _power_of_two(largest: float) -> float:
    """A power of two near the largest entry, so that no square overflows or vanishes; dividing by it is exact."""
    return math.ldexp(1.0, math.frexp(largest)[1] - 1) if largest > 0 else 1.0


def _widened(values: Tensor, scale: float) -> Tensor:
    return values.to(torch.complex128 if values.is_complex() else torch.float64) / scale


def _gram(tall: Tensor, scale: float, rows: int = 4096) -> Tensor:
    """The Gram matrix of the columns, in float64, widened in blocks of rows to keep memory small."""
    blocks = (_widened(block, scale) for block in torch.split(tall, rows))
    first = next(blocks)
    gram = first.mH @ first
    for block in blocks:
        gram += block.mH @ block
    return gram


def _decomposed(tall: Tensor, scale: float) -> Tensor:
    wide = _widened(tall, scale)
    if wide.shape[0] > wide.shape[1]:
        wide = torch.linalg.qr(wide, mode="r").R
    values: Tensor = torch.linalg.svdvals(wide)
    return values
