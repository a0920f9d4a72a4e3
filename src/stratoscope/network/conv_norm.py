"""The operator norm of a convolutional layer, with the stride, padding and groups that the layer has."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from stratoscope.errors import NotApplicable
from stratoscope.network.layers import Layer
from stratoscope.numerics.convolution import circular_operator_norm, operator_norm


def conv_operator_norm(
    layer: Layer, size: int | Sequence[int], *, weight: Tensor | None = None, seed: int = 0
) -> tuple[float, float]:
    """By how much a convolutional layer can stretch an input of a given size, without its bias.

    Exact by the Fourier transform where the padding is circular, keeps the size and the stride is 1 (Sedghi, Gupta and
    Long, arXiv:1805.10408); otherwise by Lanczos on the true forward map and its adjoint.

    Args:
        layer: a layer of the catalogue with its live module.
        size: of the input, one number a spatial axis, or one for all.
        weight: other weights than the module's own, of the same shape.
        seed: of the first vector of the iteration.

    Returns:
        The norm, and an estimate of its relative error (0 where it is exact).

    Raises:
        NotApplicable: if the layer is no convolution, or its module is not at hand: weights alone do not tell the
            stride and the padding.
    """
    module = layer.module
    if layer.kind != "conv" or not isinstance(module, _ConvNd):
        why = "only its weights are at hand" if module is None else f"it is a {type(module).__name__}"
        raise NotApplicable(f"{layer.name} has no operator norm of a convolution here: {why}")
    kernel = (module.weight if weight is None else weight).detach()
    if _is_circulant(module):
        return circular_operator_norm(kernel, size, dilation=module.dilation, groups=module.groups), 0.0
    transposed = isinstance(module, _ConvTransposeNd)
    padding = module.padding
    return operator_norm(
        kernel,
        size,
        generator=torch.Generator().manual_seed(seed),
        stride=module.stride,
        padding=padding if isinstance(padding, str) else tuple(int(p) for p in padding),
        dilation=module.dilation,
        groups=module.groups,
        transposed=transposed,
        output_padding=module.output_padding if transposed else 0,
        padding_mode=module.padding_mode,
    )


def _is_circulant(module: _ConvNd) -> bool:
    """Whether each output is a turned copy of the next: stride 1, and circular padding that keeps the size."""
    if module.padding_mode != "circular" or isinstance(module, _ConvTransposeNd) or set(module.stride) != {1}:
        return False
    keeps = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True)]
    return module.padding == "same" or [2 * p for p in module.padding] == keeps
