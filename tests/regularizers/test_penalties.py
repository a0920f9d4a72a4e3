"""Penalties: closed forms, gradients, and what becomes of odd batches."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stratoscope.errors import SettingError
from stratoscope.regularizers import EIGHT, Correlation, Sparsity, StableRank, Variance
from stratoscope.regularizers.penalties import unit_rows

NAMES = tuple(EIGHT)
seeds = st.integers(0, 2**20)


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def gradient(penalty, z, labels=None):
    z = z.clone().requires_grad_()
    penalty(z, labels).backward()
    return z.grad


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_those_of_finite_differences(name):
    z, labels = draw(12, 4, seed=3).requires_grad_(), torch.arange(12) % 3
    assert torch.autograd.gradcheck(lambda z: EIGHT[name]()(z, labels), (z,))


@pytest.mark.parametrize("penalty", [Correlation(of_covariance=True), StableRank(centred=True), StableRank(iterations=200)])  # fmt: skip
def test_gradients_of_the_variants_are_those_of_finite_differences(penalty):
    z = draw(9, 4, seed=5)
    z[:, 0] += 3.0  # a gap below the top, so that the iteration has converged
    assert torch.autograd.gradcheck(penalty, (z.requires_grad_(), None))


def test_eight_are_there_and_frozen():
    assert len(EIGHT) == 8
    assert len({make() for make in EIGHT.values()}) == 8
    with pytest.raises(AttributeError):
        EIGHT["rank"]().classwise = True


@given(seed=seeds)
@settings(deadline=None, max_examples=20)
def test_correlation_ignores_shift_and_scale_and_the_others_do_not(seed):
    z = draw(10, 5, seed=seed)
    scale, shift = draw(5, seed=seed + 1).exp(), 10 * draw(5, seed=seed + 2)
    assert torch.allclose(Correlation()(z * scale + shift), Correlation()(z), rtol=1e-9)
    assert torch.allclose(Variance()(3 * z + shift), 9 * Variance()(z), rtol=1e-9)
    assert torch.allclose(Sparsity()(-3 * z), 3 * Sparsity()(z), rtol=1e-12)
    assert torch.allclose(Correlation(of_covariance=True)(2 * z + shift), 16 * Correlation(of_covariance=True)(z))


def test_correlation_is_the_mean_square_of_numpys():
    import numpy as np

    z = draw(30, 6, seed=1)
    r = np.corrcoef(z.numpy().T)
    expected = float((r**2)[~np.eye(6, dtype=bool)].mean())
    assert Correlation()(z).item() == pytest.approx(expected, rel=1e-10)
    c = np.cov(z.numpy().T, bias=True)
    assert Correlation(of_covariance=True)(z).item() == pytest.approx(float((c**2)[~np.eye(6, dtype=bool)].mean()))


def test_correlation_of_independent_units_is_that_of_noise():
    # E r^2 = 1 / (n - 1) for independent normal units
    values = [Correlation()(draw(50, 40, seed=seed)).item() for seed in range(8)]
    assert sum(values) / 8 == pytest.approx(1 / 49, rel=0.1)


@given(seed=seeds, scale=st.floats(1e-12, 1e12))
@settings(deadline=None, max_examples=20)
def test_stable_rank_ignores_scale_and_rotation_and_lies_in_its_range(seed, scale):
    z = draw(9, 5, seed=seed)
    turn = torch.linalg.qr(draw(5, 5, seed=seed + 1))[0]
    value = StableRank()(z)
    assert torch.allclose(StableRank()(scale * z @ turn), value, rtol=1e-9)
    assert 1.0 - 1e-9 <= value.item() <= 5.0


def test_stable_rank_has_its_closed_forms():
    assert StableRank()(torch.eye(7)).item() == pytest.approx(7.0)
    line = torch.outer(draw(6, seed=1), draw(4, seed=2))
    assert StableRank()(line).item() == pytest.approx(1.0)
    values = torch.tensor([3.0, 2.0, 1.0, 1.0], dtype=torch.float64)
    left, right = torch.linalg.qr(draw(8, 4, seed=3))[0], torch.linalg.qr(draw(4, 4, seed=4))[0]
    assert StableRank()(left * values @ right).item() == pytest.approx(15 / 9, rel=1e-10)


def test_centring_takes_away_the_direction_of_the_mean():
    z = draw(200, 5, seed=2) + 100.0
    assert StableRank()(z).item() == pytest.approx(1.0, abs=1e-2)
    assert StableRank(centred=True)(z).item() > 3.0


def test_power_iterations_come_from_above_and_converge():
    z = draw(40, 10, seed=6)
    exact = StableRank()(z).item()
    found = [StableRank(iterations=k)(z).item() for k in (1, 3, 10, 300)]
    assert found == sorted(found, reverse=True)
    assert all(value >= exact * (1 - 1e-12) for value in found)
    assert found[-1] == pytest.approx(exact, rel=1e-9)
    assert torch.allclose(gradient(StableRank(iterations=300), z), gradient(StableRank(), z), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("plain", [Correlation(), Variance(), Sparsity(), StableRank()])
def test_class_wise_is_the_sum_over_classes(plain):
    z, labels = draw(14, 3, seed=8), torch.tensor([5, 5, 9, 9, 9, -1, -1, 5, 9, 5, -1, -1, 9, 5])
    classwise = type(plain)(classwise=True)
    expected = sum(plain(z[labels == c]) for c in (-1, 5, 9))
    assert torch.allclose(classwise(z, labels), expected, rtol=1e-12)
    assert torch.allclose(classwise(z, torch.zeros(14, dtype=torch.int64)), plain(z), rtol=1e-12)


ODD = {
    "one example": draw(1, 4),
    "two examples": draw(2, 4),
    "one unit": draw(6, 1),
    "one number": draw(1, 1),
    "zeros": torch.zeros(6, 4, dtype=torch.float64),
    "constant units": draw(1, 4).expand(6, 4) * torch.tensor([1.0, 1e6, 1e-6, 0.0], dtype=torch.float64),
    "a constant unit far away": torch.cat([draw(6, 3), torch.full((6, 1), 1e8, dtype=torch.float64)], 1),
    "equal examples": draw(3, 4).repeat(2, 1),
    "a dead unit": draw(6, 4) * torch.tensor([1.0, 0.0, 1.0, 1.0], dtype=torch.float64),
    "huge": 1e30 * draw(6, 4),
    "tiny": 1e-30 * draw(6, 4),
    "none": draw(0, 4),
    "wide": draw(3, 200),
    "orthogonal with ties": torch.eye(5, dtype=torch.float64),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", ODD)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_odd_batches_give_finite_numbers_and_gradients(name, case, dtype):
    z = ODD[case].to(dtype)
    if case == "huge" and dtype == torch.float32 and "variance" in name:
        z = z * 1e-13  # its square is out of float32's range, and so is the statistic
    for labels in (torch.arange(len(z)) % 2, torch.zeros(len(z), dtype=torch.int64), torch.arange(len(z))):
        value = EIGHT[name]()(z, labels)
        assert value.shape == ()
        assert torch.isfinite(value), value
        found = gradient(EIGHT[name](), z, labels)
        assert torch.isfinite(found).all()


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_numbers_whose_squares_are_out_of_range_are_no_trouble_to_what_ignores_scale(scale):
    z = draw(12, 4).float()
    for penalty in (Correlation(), StableRank(), StableRank(centred=True), StableRank(iterations=20)):
        assert torch.allclose(penalty(scale * z), penalty(z), rtol=1e-4)


def test_odd_batches_have_the_values_that_are_said():
    zeros, same = torch.zeros(5, 3), torch.full((5, 3), 0.1)
    assert Correlation()(zeros).item() == Correlation()(same).item() == 0.0
    assert StableRank()(zeros).item() == StableRank(centred=True)(same).item() == 0.0
    assert StableRank()(same).item() == pytest.approx(1.0)
    for make in EIGHT.values():
        assert make()(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64)).item() == 0.0
    apart = torch.cat([draw(9, 3), torch.full((9, 2), 7.0, dtype=torch.float64)], 1)
    assert Correlation()(apart).item() == pytest.approx(Correlation()(apart[:, :3]).item(), rel=1e-12)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_not_finite_stays_so(name, bad):
    z = draw(6, 4)
    z[1, 2] = bad
    assert not torch.isfinite(EIGHT[name]()(z, torch.zeros(6, dtype=torch.int64)))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(name, half):
    z, labels = draw(16, 5).to(half), torch.arange(16) % 2
    with torch.autocast("cpu", torch.bfloat16):
        value = EIGHT[name]()(z, labels)
    assert value.dtype == torch.float32
    assert torch.allclose(value, EIGHT[name]()(z.float(), labels), rtol=1e-6)
    assert gradient(EIGHT[name](), z, labels).dtype == half


def test_maps_are_averaged_over_positions_and_sequences_over_tokens():
    maps = draw(4, 3, 5, 6)
    assert torch.allclose(unit_rows(maps), maps.mean((2, 3)))
    assert torch.allclose(unit_rows(maps[:, :, None]), maps.mean((2, 3)))
    assert torch.allclose(unit_rows(maps[:, 0]), maps[:, 0].mean(1))
    assert unit_rows(maps[:, 0, 0, 0]).shape == (4, 1)
    assert unit_rows(maps[:, :, 0, 0]).shape == (4, 3)


@pytest.mark.parametrize("z", [torch.zeros(3, 2, dtype=torch.int64), torch.tensor(1.0), torch.zeros(2, 2, dtype=torch.cfloat)])  # fmt: skip
def test_what_is_no_activation_is_refused(z):
    with pytest.raises(SettingError, match="real activations"):
        Variance()(z)


@pytest.mark.parametrize("labels", [torch.zeros(3), torch.zeros(4, dtype=torch.int64), torch.zeros(3, 1, dtype=torch.int64)])  # fmt: skip
def test_labels_that_do_not_fit_are_refused(labels):
    with pytest.raises(SettingError, match="one integer label an example"):
        Variance(classwise=True)(torch.ones(3, 2), labels)
    with pytest.raises(SettingError, match="needs the labels"):
        Variance(classwise=True)(torch.ones(3, 2))


def test_iterations_must_be_some():
    with pytest.raises(SettingError, match="at least 1"):
        StableRank(iterations=0)
