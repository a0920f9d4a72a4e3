"""Operator norms and whole spectra of convolutions against dense unrolled matrices."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stratoscope.numerics.convolution import (
    circular_operator_norm,
    circular_singular_values,
    kernel_slices,
    operator_norm,
)

CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
KERNELS = [
    (1, (4, 3, 3), (9,), 1),
    (1, (4, 3, 5), (3,), 1),  # longer than the image: wraps
    (2, (5, 3, 3, 3), (6, 7), 1),
    (2, (2, 6, 2, 3), (5, 4), 1),
    (2, (6, 2, 3, 3), (6, 5), 3),
    (3, (2, 2, 2, 3, 2), (4, 3, 5), 1),
]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def dense_matrix(forward, shape):
    """The map's matrix, one basis image a row."""
    basis = torch.eye(torch.Size(shape).numel(), dtype=torch.float64).reshape(-1, *shape)
    return forward(basis).flatten(1)


def dense_norm(forward, shape):
    return torch.linalg.matrix_norm(dense_matrix(forward, shape), 2).item()


def rolled_convolution(kernel, sizes, groups, dilation=1):
    """Circular convolution by rolling, one tap at a time: no padding involved."""

    def forward(images):
        out = 0
        for tap in torch.cartesian_prod(*(torch.arange(k) for k in kernel.shape[2:])).reshape(-1, kernel.ndim - 2):
            moved = torch.roll(images, tuple((-dilation * tap).tolist()), tuple(range(2, kernel.ndim)))
            one = kernel[(slice(None), slice(None), *tap.tolist())]
            out = out + CONV[kernel.ndim - 2](moved, one[(..., *[None] * (kernel.ndim - 2))], groups=groups)
        return out

    return forward


@pytest.mark.parametrize(("rank", "shape", "size", "groups"), KERNELS)
def test_fourier_norm_is_that_of_the_dense_circular_matrix(rank, shape, size, groups):
    kernel = gaussian(*shape)
    dense = dense_norm(rolled_convolution(kernel, size, groups), (shape[1] * groups, *size))
    assert circular_operator_norm(kernel, size, groups=groups) == pytest.approx(dense, rel=1e-12)


@pytest.mark.parametrize(("rank", "shape", "size", "groups"), KERNELS)
def test_fourier_gives_every_singular_value_of_the_dense_circular_matrix(rank, shape, size, groups):
    kernel = gaussian(*shape)
    dense = dense_matrix(rolled_convolution(kernel, size, groups), (shape[1] * groups, *size))
    values = circular_singular_values(kernel, size, groups=groups)
    torch.testing.assert_close(values, torch.linalg.svdvals(dense), rtol=1e-9, atol=1e-9)
    assert values[0].item() == pytest.approx(circular_operator_norm(kernel, size, groups=groups), rel=1e-12)


def test_a_kernel_of_low_rank_has_exact_zeros_in_its_spectrum():
    kernel = torch.einsum("o,ikl->oikl", gaussian(5), gaussian(4, 3, 3, seed=1))
    values = circular_singular_values(kernel, 6)
    assert len(values) == 36 * 4
    assert (values > 1e-13 * values[0]).sum() == 36


def test_slices_of_a_kernel():
    kernel = gaussian(6, 2, 3, 2)
    slices = kernel_slices(kernel, groups=3)
    assert slices.shape == (18, 2, 2)
    found = {tuple(matrix.flatten().tolist()) for matrix in slices}
    naive = {
        tuple(kernel[2 * g : 2 * g + 2, :, i, j].flatten().tolist())
        for g in range(3) for i in range(3) for j in range(2)
    }  # fmt: skip
    assert found == naive
    with pytest.raises(ValueError, match="do not divide into 4 groups"):
        kernel_slices(kernel, groups=4)


def test_fourier_norm_with_dilation():
    kernel = gaussian(3, 2, 3, 3)
    dense = dense_norm(rolled_convolution(kernel, (7, 6), 1, dilation=2), (2, 7, 6))
    assert circular_operator_norm(kernel, (7, 6), dilation=2) == pytest.approx(dense, rel=1e-12)


def test_many_blocks_of_frequencies_give_the_same(monkeypatch):
    kernel = gaussian(4, 3, 3, 3)
    whole = circular_operator_norm(kernel, 9)
    monkeypatch.setattr("stratoscope.numerics.convolution._BLOCK_BYTES", 16 * 12 * 7)
    assert circular_operator_norm(kernel, 9) == pytest.approx(whole, rel=1e-14)


@pytest.mark.filterwarnings("ignore:Using padding='same'")  # torch's own layer on an even kernel
@pytest.mark.parametrize("mode", ["zeros", "circular", "reflect", "replicate"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"padding": 1},
        {"padding": (2, 1), "stride": (2, 1)},
        {"padding": 1, "dilation": 2},
        {"padding": "same", "dilation": (1, 3)},
        {"stride": 3, "groups": 2},
    ],
    ids=str,
)
def test_lanczos_norm_is_that_of_the_dense_matrix_of_the_torch_layer(mode, settings):
    layer = nn.Conv2d(4, 6, (2, 3), bias=False, padding_mode=mode, dtype=torch.float64, **settings)
    layer.weight.data = gaussian(*layer.weight.shape, seed=3)
    with torch.no_grad():
        dense = dense_norm(layer, (4, 8, 9))
    value, error = operator_norm(
        layer.weight, (8, 9), padding_mode=mode, generator=seeded(), tolerance=1e-9, **settings
    )
    assert value == pytest.approx(dense, rel=1e-8)
    assert error <= 1e-9


@pytest.mark.parametrize(
    ("kind", "size", "settings"),
    [
        (nn.ConvTranspose1d, (7,), {"stride": 2, "padding": 1, "output_padding": 1}),
        (nn.ConvTranspose2d, (4, 5), {"stride": (2, 3), "groups": 2}),
        (nn.ConvTranspose2d, (4, 5), {"dilation": 3, "output_padding": 2}),
        (nn.ConvTranspose3d, (3, 2, 3), {"padding": 1}),
    ],
)
def test_transposed_norm_is_that_of_the_dense_matrix(kind, size, settings):
    layer = kind(4, 6, 3, bias=False, dtype=torch.float64, **settings)
    layer.weight.data = gaussian(*layer.weight.shape, seed=4)
    with torch.no_grad():
        dense = dense_norm(layer, (4, *size))
    value, _ = operator_norm(layer.weight, size, transposed=True, generator=seeded(), tolerance=1e-9, **settings)
    assert value == pytest.approx(dense, rel=1e-8)


@pytest.mark.parametrize("rank", [1, 3])
def test_lanczos_norm_in_other_ranks(rank):
    kernel, size = gaussian(3, 2, *[3] * rank, seed=5), tuple(range(4, 4 + rank))
    dense = dense_norm(lambda image: CONV[rank](image, kernel, padding=1), (2, *size))
    value, _ = operator_norm(kernel, size, padding=1, generator=seeded(), tolerance=1e-9)
    assert value == pytest.approx(dense, rel=1e-8)


def test_both_ways_agree_on_circular_padding_and_the_error_covers_the_truth():
    kernel = gaussian(8, 8, 3, 3).float()
    exact = circular_operator_norm(kernel, 32)
    for passes in (5, 20, 300):
        value, error = operator_norm(
            kernel, 32, padding=1, padding_mode="circular", generator=seeded(1), max_passes=passes
        )
        assert value <= exact * (1 + 1e-6)
        if passes > 5:  # the residual speaks of the nearest singular value, which early on need not be the largest
            assert exact - value <= 2 * error * exact
    assert value == pytest.approx(exact, rel=1e-5)


def test_scales_with_the_kernel_at_any_size():
    kernel = gaussian(3, 3, 3, 3)
    value, _ = operator_norm(kernel, 6, generator=seeded())
    for factor in (1e-30, 1e30):
        scaled, _ = operator_norm(kernel * factor, 6, generator=seeded())
        assert scaled == pytest.approx(factor * value, rel=1e-9)


def test_zero_kernel_half_precision_and_other_peoples_random_numbers():
    assert operator_norm(torch.zeros(2, 2, 3), 5, generator=seeded()) == (0.0, 0.0)
    assert circular_operator_norm(torch.zeros(2, 2, 3), 5) == 0.0
    state = torch.get_rng_state()
    kernel = gaussian(2, 2, 3).half()
    value, _ = operator_norm(kernel, 5, padding=1, padding_mode="circular", generator=seeded())
    assert value == pytest.approx(circular_operator_norm(kernel, 5), rel=1e-5)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: circular_operator_norm(torch.ones(2, 2), 4), "1 to 3 offset axes"),
        (lambda: circular_operator_norm(torch.ones(3, 2, 3), 4, groups=2), "2 groups"),
        (lambda: circular_operator_norm(torch.full((1, 1, 3), torch.nan), 4), "3 of this kernel"),
        (lambda: circular_operator_norm(torch.ones(1, 1, 3), (4, 4)), "1 axes"),
        (lambda: operator_norm(torch.ones(1, 1, 3), 4, padding_mode="odd", generator=seeded()), "odd"),
        (
            lambda: operator_norm(torch.ones(1, 1, 3), 4, padding="same", transposed=True, generator=seeded()),
            "same",
        ),
    ],
)
def test_errors_say_what_was_there(call, words):
    with pytest.raises(ValueError, match=words):
        call()
