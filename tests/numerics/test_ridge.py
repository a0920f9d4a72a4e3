"""Ridge regression by generalised cross-validation: plain linear algebra, limits, invariances, closed-form leave-one-out."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stratoscope.numerics.ridge import MANY, STRENGTHS, Basis, Targets, inverse_deviation, ridge

SHAPES = [(30, 5), (12, 40), (20, 20), (2, 3), (15, 1)]


def gaussian(n, d, seed, dtype=torch.float64):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def naive(x, y, strength, standardise=True):
    """Coefficients and intercept by the normal equations, and the matrix that maps targets to fits."""
    x, y = x.double().numpy(), y.double().numpy()
    mean = x.mean(0)
    scale = x.std(0) if standardise else np.ones(x.shape[1])
    z = (x - mean) / scale
    inverse = np.linalg.inv(z.T @ z + strength * len(x) * np.eye(z.shape[1]))
    beta = (inverse @ z.T @ (y - y.mean(0))) / scale[:, None]
    return beta, y.mean(0) - mean @ beta, 1 / len(x) + z @ inverse @ z.T


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("standardise", [True, False])
@pytest.mark.parametrize("strength", [1e-3, 1.0])
def test_one_strength_is_the_normal_equations(shape, standardise, strength):
    x, y = 3 * gaussian(*shape, 0) + 7, gaussian(shape[0], 4, 1)
    basis = Basis.of(x, standardise=standardise)
    found = ridge(basis, y, strengths=[strength])
    beta, intercept, hat = naive(x, y, strength, standardise)
    np.testing.assert_allclose(found.coefficients(), beta, rtol=1e-6, atol=1e-9)
    new = gaussian(6, shape[1], 2)
    np.testing.assert_allclose(found.predict(new), new.numpy() @ beta + intercept, rtol=1e-6, atol=1e-8)
    assert float(found.degrees[0]) == pytest.approx(np.trace(hat), rel=1e-8)


@pytest.mark.parametrize("shape", SHAPES[:3])
def test_the_strength_chosen_is_the_least_of_the_plain_formula(shape):
    x = gaussian(*shape, 3)
    y = x @ gaussian(shape[1], 3, 4) + 2 * gaussian(shape[0], 3, 5)
    tried = STRENGTHS[12:]  # below, the plain formula itself has too few digits
    found = ridge(Basis.of(x), y, strengths=tried)
    scores = []
    for strength in tried:
        hat = naive(x, y, strength)[2]
        rest = y.numpy() - hat @ y.numpy()
        scores.append(np.sum(rest**2) / len(x) / (1 - np.trace(hat) / len(x)) ** 2)
    assert float(found.strengths[0]) == pytest.approx(tried[int(np.argmin(scores))])
    assert float(found.scores[0]) == pytest.approx(min(scores), rel=1e-6)


@pytest.mark.parametrize("shape", SHAPES[:3])
def test_left_out_is_the_loop_that_leaves_each_out(shape):
    x, y = gaussian(*shape, 6), gaussian(shape[0], 2, 7)
    strength, n = 0.3, shape[0]
    found = ridge(Basis.of(x, standardise=False), y, strengths=[strength]).left_out(y)
    for i in range(n):
        rest = torch.arange(n) != i
        alone = ridge(Basis.of(x[rest], standardise=False), y[rest], strengths=[strength * n / (n - 1)])
        torch.testing.assert_close(y[i] - alone.predict(x[i : i + 1])[0], found[i], rtol=1e-7, atol=1e-9)


def test_generalised_is_ordinary_cross_validation_where_all_leverages_are_equal():
    """On a full factorial design every example has the same leverage."""
    x = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 4).double()
    y = gaussian(16, 1, 8)
    found = ridge(Basis.of(x), y, strengths=[0.2])
    assert float(found.left_out(y).square().mean()) == pytest.approx(float(found.scores[0]), rel=1e-9)


def test_groups_are_fitted_as_if_alone():
    x = gaussian(40, 6, 9)
    strong, weak = x @ gaussian(6, 3, 10), gaussian(40, 2, 11)
    basis = Basis.of(x)
    both = ridge(basis, torch.cat([strong, weak], 1), group=torch.tensor([0, 0, 0, 1, 1]))
    for place, (targets, columns) in enumerate([(strong, slice(3)), (weak, slice(3, 5))]):
        alone = ridge(basis, targets)
        assert float(alone.strengths[0]) == float(both.strengths[place])
        assert float(alone.scores[0]) == pytest.approx(float(both.scores[place]), rel=1e-9, abs=1e-18)
        torch.testing.assert_close(alone.coefficients(), both.coefficients()[:, columns])
    assert float(both.strengths[0]) < float(both.strengths[1])


def test_a_great_strength_gives_the_mean_and_a_small_one_least_squares():
    x, y = gaussian(50, 4, 12), gaussian(50, 3, 13)
    great = ridge(Basis.of(x), y, strengths=[1e12])
    torch.testing.assert_close(great.predict(x), y.mean(0).expand(50, 3), rtol=1e-6, atol=1e-8)
    assert float(great.degrees[0]) == pytest.approx(1)
    small = ridge(Basis.of(x), y, strengths=[1e-14])
    design = np.hstack([x.numpy(), np.ones((50, 1))])
    plain = design @ np.linalg.lstsq(design, y.numpy(), rcond=None)[0]
    np.testing.assert_allclose(small.predict(x), plain, rtol=1e-6, atol=1e-8)
    assert float(small.degrees[0]) == pytest.approx(5)


def test_with_fewer_examples_than_units_a_small_strength_passes_through_all():
    x, y = gaussian(10, 50, 14), gaussian(10, 2, 15)
    torch.testing.assert_close(ridge(Basis.of(x), y, strengths=[1e-12]).predict(x), y, rtol=1e-6, atol=1e-6)
    assert bool(ridge(Basis.of(x), y).scores.isfinite().all())


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 2**31), tall=st.booleans())
def test_shift_and_scale_of_units_and_rotations_change_no_prediction(seed, tall):
    n, d = (40, 8) if tall else (12, 30)
    x, y, new = gaussian(n, d, seed), gaussian(n, 3, seed + 1), gaussian(5, d, seed + 2)
    scales, shift = gaussian(1, d, seed + 3).exp(), gaussian(1, d, seed + 4)
    turn = torch.linalg.qr(gaussian(d, d, seed + 5)).Q
    plain, moved = ridge(Basis.of(x), y), ridge(Basis.of(scales * x + shift), y)
    torch.testing.assert_close(plain.predict(new), moved.predict(scales * new + shift), rtol=1e-6, atol=1e-7)
    raw, turned = (ridge(Basis.of(z, standardise=False), y) for z in (x, x @ turn))
    torch.testing.assert_close(raw.predict(new), turned.predict(new @ turn), rtol=1e-6, atol=1e-7)
    aside = torch.linalg.qr(gaussian(3, 3, seed + 6)).Q
    torch.testing.assert_close(
        ridge(Basis.of(x), y @ aside).predict(new), plain.predict(new) @ aside, rtol=1e-6, atol=1e-7
    )


def test_an_affine_map_of_the_features_leaves_the_unregularised_fit():
    x, y, new = gaussian(60, 5, 16), gaussian(60, 2, 17), gaussian(4, 5, 18)
    matrix, shift = gaussian(5, 5, 19) + 2 * torch.eye(5), gaussian(1, 5, 20)
    one = ridge(Basis.of(x), y, strengths=[1e-13]).predict(new)
    other = ridge(Basis.of(x @ matrix + shift), y, strengths=[1e-13]).predict(new @ matrix + shift)
    torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


def test_a_strong_signal_wants_little_strength_and_noise_much():
    x = gaussian(200, 10, 21)
    signal = x @ gaussian(10, 1, 22)
    assert float(ridge(Basis.of(x), signal).strengths[0]) == pytest.approx(min(STRENGTHS))
    chosen = [float(ridge(Basis.of(x), gaussian(200, 20, seed)).strengths[0]) for seed in range(10)]
    assert np.median(chosen) > 1


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6])
def test_constant_features_give_the_mean_and_the_greatest_strength(value):
    y = gaussian(20, 2, 23)
    found = ridge(Basis.of(torch.full((20, 3), value)), y)
    torch.testing.assert_close(found.predict(gaussian(4, 3, 24)), y.mean(0).expand(4, 2))
    assert float(found.strengths[0]) == pytest.approx(max(STRENGTHS))
    assert float(found.degrees[0]) == 1


def test_a_constant_unit_counts_for_nothing_even_where_new_examples_move_it():
    x, y = gaussian(30, 3, 25, torch.float32), gaussian(30, 1, 26, torch.float32)
    x[:, 1] = 0.1
    found, without = ridge(Basis.of(x), y), ridge(Basis.of(x[:, [0, 2]]), y)
    new = gaussian(5, 3, 27, torch.float32)
    torch.testing.assert_close(found.predict(new), without.predict(new[:, [0, 2]]))


def test_targets_made_ready_once_are_the_same_targets():
    x, y = gaussian(30, 4, 28), gaussian(30, 6, 29)
    ready = Targets.of(y)
    for features in (x, x**2):
        torch.testing.assert_close(
            ridge(Basis.of(features), ready).predict(x), ridge(Basis.of(features), y).predict(x), rtol=0, atol=0
        )


def test_what_is_given_is_not_changed():
    x, y = gaussian(30, 4, 30), gaussian(30, 6, 31)
    before = x.clone(), y.clone()
    ridge(Basis.of(x), y)
    assert torch.equal(x, before[0])
    assert torch.equal(y, before[1])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_smaller_types_are_widened(dtype):
    x, y = gaussian(40, 6, 32).to(dtype), gaussian(40, 2, 33).to(dtype)
    wide = ridge(Basis.of(x.double()), y.double(), strengths=[0.1]).predict(x)
    torch.testing.assert_close(ridge(Basis.of(x), y, strengths=[0.1]).predict(x).double(), wide, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES[:3])
def test_residuals_are_the_squared_error_where_it_was_fitted(shape):
    x, y = gaussian(*shape, 34), gaussian(shape[0], 5, 35)
    group = torch.tensor([0, 0, 1, 1, 1])
    found = ridge(Basis.of(x), y, group=group, strengths=[0.01, 0.3])
    missed = (y - found.predict(x)).square().sum(0)
    expected = [float(missed[group == place].sum()) for place in range(2)]
    np.testing.assert_allclose(found.residuals, expected, rtol=1e-8)


def correlated(n, d, seed):
    """As layers of a network are: a few common directions, many weak ones, a large mean, a constant unit."""
    features = gaussian(n, 8, seed).cumsum(1) @ gaussian(8, d, seed + 1) + 0.1 * gaussian(n, d, seed + 2) + 10
    features[:, 1] = 0.3
    return features


def test_many_examples_of_still_more_units_are_decomposed_in_float32():
    x, y, new = correlated(MANY, 300, 36), gaussian(MANY, 3, 37).float(), correlated(20, 300, 36)
    quick, exact = Basis.of(x.float()), Basis.of(x.float().double())
    assert (quick.rows.dtype, exact.rows.dtype) == (torch.float32, torch.float64)
    assert Basis.of(x[1:].float()).rows.dtype == torch.float64
    assert Basis.of(x[:, :MANY].float()).rows.dtype == torch.float64
    for strength, away in ((1e-2, 0.03), (1.0, 1e-3)):
        one, other = (ridge(basis, y, strengths=[strength]) for basis in (quick, exact))
        said, truth = one.predict(new.float()), other.predict(new).float()
        assert float(torch.linalg.vector_norm(said - truth) / torch.linalg.vector_norm(truth)) < away
        assert float(one.degrees[0]) == pytest.approx(float(other.degrees[0]), rel=away)
        assert float(one.scores[0]) == pytest.approx(float(other.scores[0]), rel=away)


def test_what_float32_leaves_out_is_too_weak_to_matter():
    """Axes under a thousandth of the strongest have a millionth of its variance; none of the others is lost."""
    spread = torch.logspace(0, -4, 40, dtype=torch.float64)
    turn = torch.linalg.qr(gaussian(400, 40, 38)).Q.mT
    x = (gaussian(MANY, 40, 39) * spread) @ turn
    basis = Basis.of(x.float(), standardise=False)
    share = basis.singular / basis.singular.max()
    assert float(share.min()) > 2**-10
    assert len(share) == int((torch.linalg.svdvals(x - x.mean(0)) > 2**-10 * basis.singular.max()).sum())


def test_inverse_deviations_leave_constant_units_out():
    x = gaussian(50, 3, 40)
    x[:, 1] = 1e6 / 3
    found = inverse_deviation(x, x.dtype)
    torch.testing.assert_close(found[[0, 2]], 1 / x[:, [0, 2]].std(0, correction=0))
    assert float(found[1]) == 0
    assert inverse_deviation(x, x.dtype, divide=False).tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        (torch.ones(1, 3), torch.ones(1, 1), "at least 2 examples"),
        (torch.ones(3, 0), torch.ones(3, 1), "at least 1 unit"),
        (torch.tensor([[math.nan], [1.0]]), torch.ones(2, 1), "Features must be finite; 1 of 2"),
        (torch.ones(2, 1), torch.tensor([[math.inf], [1.0]]), "Targets must be finite; 1 of 2"),
        (torch.ones(2, 1), torch.ones(3, 1), "2 examples need as many rows of targets; there were 3"),
        (torch.ones(2, 1), torch.ones(2), "Targets are rows"),
        (torch.ones(2, 1), torch.ones(2, 0), "Targets are rows"),
    ],
)
def test_bad_input_is_refused_in_words(x, y, words):
    with pytest.raises(ValueError, match=words):
        ridge(Basis.of(x), y)


@pytest.mark.parametrize("strengths", [[], [0.0], [1.0, -1.0]])
def test_strengths_lie_above_zero(strengths):
    with pytest.raises(ValueError, match="above zero"):
        ridge(Basis.of(gaussian(5, 2, 0)), gaussian(5, 1, 1), strengths=strengths)
