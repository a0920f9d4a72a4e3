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
    singular_values_of_product,
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
    torch.testing.assert_close(matrices.lower_gram(matrices.widened_rows(tall, 1.0, rows=7)), (tall.T @ tall).tril())


def test_one_triangle_of_the_gram_matrix():
    tall = gaussian(50, 11)
    for blocks in (tall.split(20), tall.T.contiguous().T.split(20), tall[:, 0:11:1].split(7), [tall]):
        torch.testing.assert_close(matrices.lower_gram(blocks).tril(), (tall.T @ tall).tril())
    cut = gaussian(50, 22)[:, ::2]
    torch.testing.assert_close(matrices.lower_gram([cut]).tril(), (cut.T @ cut).tril())
    torch.testing.assert_close(matrices.lower_gram([cut.float()]).tril(), (cut.float().T @ cut.float()).tril())
    wide = torch.complex(gaussian(9, 6), gaussian(9, 6, seed=1))
    torch.testing.assert_close(matrices.lower_gram([wide]).tril(), (wide.mH @ wide).tril())
    with pytest.raises(ValueError, match="at least one block"):
        matrices.lower_gram([])


@pytest.mark.parametrize("shape", [(60, 17), (17, 60), (20, 20), (19, 18)])
def test_small_blocks_and_lapack_in_place_give_the_same(shape, monkeypatch):
    """Of a well-conditioned matrix and of one that is decomposed by QR block by block."""
    poor = with_spectrum([10.0**-i for i in range(15)], *shape)
    good = gaussian(*shape)
    truth = [np.linalg.svd(matrix.numpy(), compute_uv=False) for matrix in (good, poor)]
    monkeypatch.setattr(matrices, "BLOCK", 40)
    monkeypatch.setattr(matrices, "IN_PLACE", 3)
    for matrix, values in zip((good, poor), truth, strict=True):
        np.testing.assert_allclose(singular_values(matrix), values, rtol=0, atol=1e-14 * 2 * values[0])


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.int8, torch.bool, torch.int64])
def test_types_without_arithmetic_of_their_own(dtype):
    matrix = gaussian(12, 5).mul(3).to(dtype)
    truth = np.linalg.svd(matrix.double().numpy(), compute_uv=False)
    np.testing.assert_allclose(singular_values(matrix), truth, rtol=1e-9, atol=1e-9)
    assert not_finite(matrix) == 0
    assert zero_share(matrix) == pytest.approx(float((matrix.double() == 0).double().mean()))


@given(seed=SEEDS, inner=st.integers(1, 9))
@settings(deadline=None, max_examples=25)
def test_a_product_is_decomposed_without_forming_it(seed, inner):
    left, right = gaussian(6, inner, seed=seed), gaussian(inner, 7, seed=seed + 1)
    values = singular_values_of_product(left, right)
    truth = np.linalg.svd((left @ right).numpy(), compute_uv=False)
    np.testing.assert_allclose(values, truth, atol=1e-12 * truth[0])
    assert values[inner:].count_nonzero() == 0
    turned = singular_values_of_product(right.T, left.T)
    np.testing.assert_allclose(turned, values, atol=1e-12 * truth[0])


def test_a_product_of_extreme_factors_does_not_overflow():
    left, right = (torch.full(size, x, dtype=torch.float64) for size, x in (((3, 1), 1e200), ((1, 2), 1e-200)))
    np.testing.assert_allclose(singular_values_of_product(left, right), [6**0.5, 0], atol=1e-12)
    half = gaussian(30, 4, dtype=torch.float16)
    np.testing.assert_allclose(
        singular_values_of_product(half, half.T), singular_values(half.double() @ half.double().T), atol=1e-12 * 60
    )


@pytest.mark.parametrize(
    ("left", "right", "words"),
    [
        (torch.ones(2, 3), torch.ones(2, 3), "does not exist"),
        (torch.ones(2, 0), torch.ones(0, 3), "with entries"),
        (torch.full((2, 1), torch.inf), torch.ones(1, 3), "1 NaN and 2|0 NaN and 2 infinite"),
    ],
)
def test_products_that_cannot_be_decomposed(left, right, words):
    with pytest.raises(ValueError, match=words):
        singular_values_of_product(left, right)


@given(seed=SEEDS)
@settings(deadline=None, max_examples=10)
def test_gram_eigenvalues_of_blocks(seed):
    tall = gaussian(20, 6, seed=seed)
    found = matrices.gram_eigenvalues(tall.split(7), 2.0**-5)
    np.testing.assert_allclose(found, singular_values(tall).square(), rtol=1e-10)


@pytest.mark.parametrize("shape", [(5,), (3, 4), (2, 3, 4), ()])
def test_entries_come_once_whatever_the_axes(shape):
    tensor = torch.arange(math.prod(shape), dtype=torch.float16).reshape(shape)
    for seen in (tensor, tensor.permute(tuple(reversed(range(tensor.ndim)))), tensor[..., None][..., 0]):
        blocks = list(matrices.entry_blocks(seen, 5))
        assert max(map(len, blocks)) <= 5
        assert torch.equal(torch.cat(blocks).sort().values, tensor.flatten().float())
    gap = torch.arange(24.0).reshape(4, 6)[:, 1:4]
    assert torch.equal(torch.cat(list(matrices.entry_blocks(gap, 5))).sort().values, gap.flatten())
    assert list(matrices.entry_blocks(torch.empty(0, 3))) == []


def test_squared_norm_and_largest_entry():
    tensor = gaussian(7, 9, dtype=torch.float16)
    assert matrices.squared_norm(tensor) == pytest.approx(float(tensor.double().square().sum()), rel=1e-12)
    assert matrices.squared_norm(torch.full((4,), 6e4, dtype=torch.float16)) == pytest.approx(4 * 59999**2, rel=1e-3)
    assert matrices.squared_norm(torch.empty(0)) == 0.0
    assert matrices.largest_entry(tensor) == float(tensor.abs().max())
    assert math.isnan(matrices.largest_entry(torch.tensor([1.0, math.nan])))


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
