"""Singular values and ranks."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stratoscope.numerics import matrices
from stratoscope.numerics.matrices import (
    effective_rank,
    not_finite,
    numerical_rank,
    singular_values,
    stable_rank,
    zero_share,
)

SEEDS = st.integers(0, 2**31)


def gaussian(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def orthogonal(n, seed):
    return torch.linalg.qr(gaussian(n, n, seed=seed)).Q


def with_spectrum(s, rows, columns, seed=0):
    k = len(s)
    return (
        orthogonal(rows, seed)[:, :k]
        @ torch.diag(torch.as_tensor(s, dtype=torch.float64))
        @ orthogonal(columns, seed + 1)[:k]
    )


@pytest.mark.parametrize("shape", [(1, 1), (7, 7), (5, 300), (300, 5), (64, 48)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_agrees_with_numpy(shape, dtype):
    matrix = gaussian(*shape).to(dtype)
    ours, theirs = singular_values(matrix), np.linalg.svd(matrix.double().numpy(), compute_uv=False)
    assert ours.dtype == torch.float64
    np.testing.assert_allclose(ours.numpy(), theirs, rtol=0, atol=2e-11 * theirs[0])


def test_integers_and_complex_matrices():
    np.testing.assert_allclose(singular_values(torch.tensor([[3, 4], [0, 0]])), [5, 0], atol=1e-14)
    matrix = torch.complex(gaussian(4, 6), gaussian(4, 6, seed=1))
    np.testing.assert_allclose(singular_values(matrix), np.linalg.svd(matrix.numpy(), compute_uv=False), rtol=1e-10)


@pytest.mark.parametrize("shape", [(20, 20), (20, 90), (90, 20)])
def test_the_small_end_of_an_ill_conditioned_matrix_is_right(shape):
    truth = [10.0**-i for i in range(15)]
    measured = singular_values(with_spectrum(truth, *shape))[:15]
    np.testing.assert_allclose(measured.numpy(), truth, rtol=0, atol=5e-15)


def test_a_dead_row_gives_an_exact_zero_end():
    matrix = gaussian(30, 40, dtype=torch.float32)
    matrix[3] = 0
    assert singular_values(matrix)[-1] < 1e-14


def test_above_the_size_limit_noise_is_cut_to_zero_and_the_rest_stays():
    truth = [1.0, 1e-3, 1e-6, 1e-12]
    measured = singular_values(with_spectrum(truth, 12, 9), exact_up_to=4)
    np.testing.assert_allclose(measured[:3].numpy(), truth[:3], atol=1e-9)
    assert measured[3:].count_nonzero() == 0


def test_blocks_of_rows_do_not_change_the_gram_matrix():
    tall = gaussian(50, 6)
    torch.testing.assert_close(matrices.lower_gram(matrices.widened_rows(tall, 1.0, rows=7)), tall.T @ tall)


@given(seed=SEEDS, exponent=st.integers(-300, 300))
@settings(deadline=None, max_examples=25)
def test_scales_exactly_with_powers_of_two_and_ignores_rotations(seed, exponent):
    matrix = gaussian(5, 7, seed=seed)
    s, factor = singular_values(matrix), 2.0**exponent
    torch.testing.assert_close(singular_values(matrix * factor), s * factor, rtol=1e-12, atol=0)
    turned = singular_values(orthogonal(5, seed + 1) @ matrix @ orthogonal(7, seed + 2))
    torch.testing.assert_close(turned, s, rtol=1e-9, atol=1e-9)
    for rank in (stable_rank, effective_rank):
        value = float(rank(s))
        assert 1 <= value <= 5
        assert float(rank(s * factor)) == pytest.approx(value, rel=1e-9)


@given(rank=st.integers(1, 6), seed=SEEDS)
@settings(deadline=None, max_examples=25)
def test_every_rank_of_a_projection_is_its_dimension(rank, seed):
    basis = orthogonal(6, seed)[:, :rank]
    s = singular_values(basis @ basis.T)
    assert float(stable_rank(s)) == pytest.approx(rank)
    assert float(effective_rank(s)) == pytest.approx(rank)
    assert numerical_rank(s, (6, 6), torch.float64) == rank


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_numerical_rank_is_numpys(dtype):
    product = (gaussian(40, 3) @ gaussian(3, 60)).to(dtype)
    assert numerical_rank(singular_values(product), (40, 60), dtype) == 3
    assert np.linalg.matrix_rank(product.numpy()) == 3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_numerical_rank_in_half_precision_sees_through_rounding_but_keeps_full_rank(dtype):
    product = (gaussian(400, 3) @ gaussian(3, 600)).to(dtype)
    full = gaussian(400, 600).to(dtype)
    assert numerical_rank(singular_values(product), (400, 600), dtype) == 3
    assert numerical_rank(singular_values(full), (400, 600), dtype) == 400


def test_a_zero_matrix_has_no_stable_or_effective_rank_and_numerical_rank_zero():
    s = singular_values(torch.zeros(3, 4))
    assert s.tolist() == [0.0, 0.0, 0.0]
    assert math.isnan(stable_rank(s))
    assert math.isnan(effective_rank(s))
    assert numerical_rank(s, (3, 4), torch.float32) == 0


def test_zero_share_and_not_finite():
    assert zero_share(torch.tensor([1e-45, 0.0])) == 0.5
    assert math.isnan(zero_share(torch.empty(0)))
    assert not_finite(torch.tensor([1, 2])) == 0
    assert not_finite(torch.tensor([-torch.inf, torch.nan, 1.0], dtype=torch.bfloat16)) == 2


@pytest.mark.parametrize(
    ("matrix", "words"),
    [
        (torch.zeros(3), r"shape \(3,\)"),
        (torch.zeros(0, 3), r"shape \(0, 3\)"),
        (torch.tensor([[torch.nan, 1.0], [-torch.inf, torch.inf]]), "1 NaN and 2 infinite"),
    ],
)
def test_errors_say_what_was_there(matrix, words):
    with pytest.raises(ValueError, match=words):
        singular_values(matrix)


def test_does_not_touch_its_input_or_its_gradient():
    matrix = gaussian(4, 4).requires_grad_()
    before = matrix.detach().clone()
    assert not singular_values(matrix).requires_grad
    assert torch.equal(matrix, before)
