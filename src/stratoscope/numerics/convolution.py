"""A convolution as a map on images: its norm, the most by which it can stretch one, and all its singular values."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Complex, Float
from torch import Tensor

from stratoscope.numerics.matrices import GRAM_RATIO, not_finite

Sizes = int | Sequence[int]

_CONV: tuple[Callable[..., Tensor], ...] = (F.conv1d, F.conv2d, F.conv3d)
_CONV_TRANSPOSE: tuple[Callable[..., Tensor], ...] = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)
_PAD_MODES = {"zeros": "constant", "circular": "circular", "reflect": "reflect", "replicate": "replicate"}
_BLOCK_BYTES = 2**25


def circular_operator_norm(
    kernel: Float[Tensor, "out in *offsets"], size: Sizes, *, dilation: Sizes = 1, groups: int = 1
) -> float:
    """Largest singular value of a convolution with circular padding and stride 1, as a map on images of one size.

    Exact: the discrete Fourier transform splits the convolution into one `out x in` matrix for each frequency
    (Sedghi, Gupta and Long, arXiv:1805.10408), and the largest of their norms is the norm. Half of the frequencies
    of a real kernel suffice. Cost: `prod(size) / 2` eigenvalue problems of the smaller of `out` and `in` (of one
    group); memory about 100 MB, whatever the size.

    Args:
        kernel: weights as torch stores them, with 1 to 3 offset axes; `in` counts the channels of one group.
        size: of the image, one number an axis, or one for all.
        dilation: distance between the kernel's taps; a kernel longer than the image wraps around it.
        groups: of channels.

    Raises:
        ValueError: if the kernel has no offset axes or more than 3, its output channels do not divide into groups, or
            an entry is not finite.

    >>> round(circular_operator_norm(torch.ones(1, 1, 3, 3), 8), 6)
    9.0
    """
    largest = max(_largest_square(transfer) for transfer, _ in _transfers(kernel, size, dilation, groups))
    return math.sqrt(max(largest, 0.0))


def circular_singular_values(
    kernel: Float[Tensor, "out in *offsets"], size: Sizes, *, dilation: Sizes = 1, groups: int = 1
) -> Float[Tensor, " all"]:
    """All singular values of a convolution with circular padding and stride 1, as a map on images of one size.

    Exact, by the discrete Fourier transform (Sedghi, Gupta and Long, arXiv:1805.10408): those of the `out x in` matrix
    of each frequency, `prod(size) * groups * min(out / groups, in)` in all, descending, in float64. Their squares sum
    to `prod(size)` times the kernel's, unless it is longer than the image.

    Args:
        kernel: as for `circular_operator_norm`, like all arguments.
        size: of the image.
        dilation: distance between the kernel's taps.
        groups: of channels.

    Raises:
        ValueError: as `circular_operator_norm`.

    >>> circular_singular_values(torch.ones(1, 1, 2), 4).square().round(decimals=6).tolist()
    [4.0, 2.0, 2.0, 0.0]
    """
    found = []
    for transfer, twice in _transfers(kernel, size, dilation, groups):
        values = _all_singular(transfer)
        found += [values.flatten(), values[twice].flatten()]
    return torch.cat(found).sort(descending=True).values


def kernel_slices(kernel: Float[Tensor, "out in *offsets"], groups: int = 1) -> Float[Tensor, "copies out_of_group in"]:
    """One matrix of outputs by inputs for each place of a convolution's kernel, and each group of channels.

    >>> kernel_slices(torch.zeros(8, 3, 5, 5)).shape
    torch.Size([25, 8, 3])
    """
    _check_shape(kernel, groups)
    grouped = kernel.reshape(groups, kernel.shape[0] // groups, kernel.shape[1], -1)
    return grouped.movedim(-1, 0).flatten(0, 1)


def _transfers(kernel: Tensor, size: Sizes, dilation: Sizes, groups: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The matrices `(frequencies, groups, out / groups, in)` of a circular convolution, in blocks of frequencies.

    Of each pair `f`, `-f`, whose matrices are conjugate, most blocks hold one; the second tensor says which ones.
    """
    rank = _checked_rank(kernel, groups)
    sizes, steps = _tuple(size, rank), _tuple(dilation, rank)
    # one column a tap: float64 taps x (groups x out/groups x in/groups)
    taps = kernel.detach().to(torch.float64).reshape(groups, kernel.shape[0] // groups, kernel.shape[1], -1)
    taps = taps.movedim(-1, 0)
    frequencies = _half_grid(sizes, kernel.device)
    twice = (frequencies[:, -1] > 0) & (frequencies[:, -1] < 0.5)
    offsets = torch.cartesian_prod(
        *(
            torch.arange(k, dtype=torch.float64, device=kernel.device) * d
            for k, d in zip(kernel.shape[2:], steps, strict=True)
        )
    ).reshape(-1, rank)
    rows = max(1, _BLOCK_BYTES // (16 * max(1, taps[0].numel())))
    for block, paired in zip(torch.split(frequencies, rows), torch.split(twice, rows), strict=True):
        phase = -2 * math.pi * block @ offsets.T
        turns = torch.polar(torch.ones_like(phase), phase)
        yield torch.einsum("ft,tgoi->fgoi", turns, taps.to(turns.dtype)), paired


def operator_norm(
    kernel: Float[Tensor, "channels others *offsets"],
    size: Sizes,
    *,
    generator: torch.Generator,
    stride: Sizes = 1,
    padding: Sizes | str = 0,
    dilation: Sizes = 1,
    groups: int = 1,
    transposed: bool = False,
    output_padding: Sizes = 0,
    padding_mode: str = "zeros",
    tolerance: float = 1e-6,
    max_passes: int = 300,
) -> tuple[float, float]:
    """Largest singular value of any convolution as a map on images of one size, and how far off it may be.

    Lanczos iteration on the true map followed by its true adjoint (one forward and one backward pass a step), from a
    random image: a power iteration that remembers, which needs the square root of its steps. The value never
    exceeds the norm by more than rounding. The error estimate is the residual bound: some singular value lies within
    that relative distance of the value; that it is the largest one fails only for a start that happens to be
    orthogonal to it.

    Args:
        kernel: weights as torch stores them: `(out, in / groups, *offsets)`, or `(in, out / groups, *offsets)` if
            transposed; 1 to 3 offset axes.
        size: of the input image.
        generator: on the CPU; draws the start.
        stride: as in torch.
        padding: as in torch; `"same"` and `"valid"` for forward convolutions.
        dilation: as in torch.
        groups: as in torch.
        transposed: whether it is a transposed convolution.
        output_padding: as in torch, for transposed convolutions.
        padding_mode: `"zeros"`, `"circular"`, `"reflect"` or `"replicate"`.
        tolerance: relative error at which to stop.
        max_passes: forward and backward passes at most.

    Returns:
        The norm, and the estimate of its relative error.

    Raises:
        ValueError: if the kernel has no offset axes or more than 3, its channels do not divide into groups, an entry
            is not finite, or the padding mode is unknown.

    >>> kernel = torch.tensor([[[1.0, 0.0]]])
    >>> value, error = operator_norm(kernel, 16, generator=torch.Generator().manual_seed(0))
    >>> round(value, 5)
    1.0
    """
    rank = _checked_rank(kernel, groups)
    if padding_mode not in _PAD_MODES:
        raise ValueError(f"Padding mode {padding_mode!r} is not one of {', '.join(_PAD_MODES)}.")
    weight = kernel.detach().to(torch.promote_types(kernel.dtype, torch.float32))
    scale = float(weight.abs().max())
    if scale == 0:
        return 0.0, 0.0
    weight = weight / scale
    if transposed:
        channels, forward = (
            weight.shape[0],
            _transposed(weight, rank, stride, padding, output_padding, groups, dilation),
        )
    else:
        channels = weight.shape[1] * groups
        forward = _padded(weight, rank, stride, padding, dilation, groups, padding_mode)
    start = torch.randn((1, channels, *_tuple(size, rank)), generator=generator).to(weight)
    square, error = _largest_eigenvalue(_normal_map(forward), start, tolerance, max_passes)
    return scale * math.sqrt(max(square, 0.0)), error


def _padded(
    weight: Tensor, rank: int, stride: Sizes, padding: Sizes | str, dilation: Sizes, groups: int, mode: str
) -> Callable[[Tensor], Tensor]:
    """The forward convolution, with every padding made explicit."""
    steps = _tuple(dilation, rank)
    if isinstance(padding, str):
        whole = [d * (k - 1) if padding == "same" else 0 for k, d in zip(weight.shape[2:], steps, strict=True)]
        sides = [(total // 2, total - total // 2) for total in whole]
    else:
        sides = [(p, p) for p in _tuple(padding, rank)]
    amounts = [amount for side in reversed(sides) for amount in side]
    convolve = _CONV[rank - 1]

    def forward(image: Tensor) -> Tensor:
        padded = F.pad(image, amounts, mode=_PAD_MODES[mode])
        return convolve(padded, weight, stride=_tuple(stride, rank), dilation=steps, groups=groups)

    return forward


def _transposed(
    weight: Tensor, rank: int, stride: Sizes, padding: Sizes | str, extra: Sizes, groups: int, dilation: Sizes
) -> Callable[[Tensor], Tensor]:
    if isinstance(padding, str):
        raise ValueError(f"A transposed convolution takes padding as numbers; there was {padding!r}.")
    settings = (_tuple(stride, rank), _tuple(padding, rank), _tuple(extra, rank), groups, _tuple(dilation, rank))
    convolve = _CONV_TRANSPOSE[rank - 1]
    return lambda image: convolve(image, weight, None, *settings)


def _normal_map(forward: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """A linear map followed by its adjoint: the gradient of half the squared norm of the output."""

    def apply(image: Tensor) -> Tensor:
        with torch.enable_grad():
            image = image.detach().requires_grad_()
            output = forward(image)
            (back,) = torch.autograd.grad(output, image, output.detach())
        return back

    return apply


def _largest_eigenvalue(
    apply: Callable[[Tensor], Tensor], start: Tensor, tolerance: float, max_passes: int
) -> tuple[float, float]:
    """Largest eigenvalue of a positive semidefinite map, and half its relative residual (the root's relative error).

    Without re-orthogonalisation: lost orthogonality only repeats converged eigenvalues and never moves the largest.
    """
    precision = torch.finfo(start.dtype).eps
    diagonal: list[float] = []
    beside: list[float] = []
    previous, current = torch.zeros_like(start), start / torch.linalg.vector_norm(start)
    value = error = 0.0
    for step in range(1, max_passes + 1):
        image = apply(current)
        diagonal.append(float((image * current).sum()))
        image = image - diagonal[-1] * current - (beside[-1] if beside else 0.0) * previous
        beside.append(float(torch.linalg.vector_norm(image)))
        done = beside[-1] <= precision * abs(diagonal[0]) or step == max_passes
        if done or step % 5 == 0:
            value, last = _top_of_tridiagonal(diagonal, beside[:-1])
            error = beside[-1] * last / (2 * value) if value > 0 else 0.0
            if done or error <= tolerance:
                break
        previous, current = current, image / beside[-1]
    return value, max(error, precision)


def _top_of_tridiagonal(diagonal: Sequence[float], beside: Sequence[float]) -> tuple[float, float]:
    """Largest eigenvalue, and the size of the last entry of its eigenvector."""
    from scipy.linalg import eigh_tridiagonal

    top = len(diagonal) - 1
    values, vectors = eigh_tridiagonal(diagonal, beside, select="i", select_range=(top, top))
    return float(values[0]), abs(float(vectors[-1, 0]))


def _largest_square(matrices: Complex[Tensor, "frequencies groups out in"]) -> float:
    """Largest squared singular value of a stack of matrices; the Gram matrix keeps all digits of the largest."""
    tall = matrices if matrices.shape[-1] <= matrices.shape[-2] else matrices.mH
    return float(torch.linalg.eigvalsh(tall.mH @ tall)[..., -1].max())


def _all_singular(matrices: Complex[Tensor, "frequencies groups out in"]) -> Float[Tensor, "frequencies groups k"]:
    """From the Gram matrices where they are well conditioned; a direct decomposition keeps the others' small end."""
    tall = matrices if matrices.shape[-1] <= matrices.shape[-2] else matrices.mH
    squares: Tensor = torch.linalg.eigvalsh(tall.mH @ tall)
    values = squares.clamp_min(0.0).sqrt()
    poor = squares[..., 0] < GRAM_RATIO * squares[..., -1]
    if bool(poor.any()):
        values[poor] = torch.linalg.svdvals(tall[poor])
    return values


def _half_grid(sizes: Sequence[int], device: torch.device) -> Float[Tensor, "frequencies rank"]:
    """Frequencies in cycles a pixel; of each pair `f`, `-f` along the last axis only one."""
    axes = [torch.arange(n, dtype=torch.float64, device=device) / n for n in sizes]
    axes[-1] = axes[-1][: sizes[-1] // 2 + 1]
    return torch.cartesian_prod(*axes).reshape(-1, len(sizes))


def _check_shape(kernel: Tensor, groups: int) -> None:
    shape = tuple(kernel.shape)
    if not 3 <= kernel.ndim <= 5 or kernel.numel() == 0:
        raise ValueError(f"A convolution kernel has 2 channel axes and 1 to 3 offset axes; this has shape {shape}.")
    if groups < 1 or kernel.shape[0] % groups:
        raise ValueError(
            f"The {shape[0]} leading channels of a kernel of shape {shape} do not divide into {groups} groups."
        )


def _checked_rank(kernel: Tensor, groups: int) -> int:
    _check_shape(kernel, groups)
    bad = not_finite(kernel)
    if bad:
        raise ValueError(
            f"An operator norm needs finite entries; {bad} of this kernel of shape {tuple(kernel.shape)} are not."
        )
    return kernel.ndim - 2


def _tuple(value: Sizes, rank: int) -> tuple[int, ...]:
    sizes = (value,) * rank if isinstance(value, int) else tuple(value)
    if len(sizes) != rank:
        raise ValueError(f"{rank} axes need {rank} numbers; there was {value}.")
    return sizes
