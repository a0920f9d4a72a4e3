"""Numbers of a covariance's eigenvalues: brute force, closed forms, known answers, and errors that match the scatter."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stratoscope.numerics.covariance_spectrum import (
    covariance_spectrum,
    directions_for,
    participation_ratio,
    power_law_decay,
    rank_me,
    unbiased_participation_ratio,
)


def gaussian(n, d, seed, dtype=torch.float64):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def distances(points):
    return torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")


@pytest.mark.parametrize("shape", [(50, 8), (8, 50), (9, 9), (2, 3), (30, 1)])
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_eigenvalues_and_scores_are_those_of_the_covariance(shape, offset):
    points = gaussian(*shape, 0) + offset
    spectrum = covariance_spectrum(points)
    expected = np.linalg.eigvalsh(np.cov(points.numpy().T, bias=True).reshape(shape[1], shape[1]))[::-1]
    rank = min(shape[0] - 1, shape[1])
    assert (spectrum.rank, spectrum.n, spectrum.units) == (rank, *shape)
    np.testing.assert_allclose(spectrum.eigenvalues, expected[:rank], rtol=1e-7, atol=1e-10)
    scores = spectrum.scores
    torch.testing.assert_close(scores.T @ scores / shape[0], spectrum.eigenvalues.diag(), rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(distances(scores), distances(points), rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(spectrum.raw, np.linalg.svd(points.numpy(), compute_uv=False), rtol=1e-6, atol=1e-5)


def test_what_rounding_leaves_is_no_direction():
    points = gaussian(100, 3, 1, torch.float32) @ gaussian(3, 20, 2, torch.float32) + 5
    for given_points in (points, points.double()):
        assert covariance_spectrum(given_points.float()).rank == 3
    exact = gaussian(100, 3, 1) @ gaussian(3, 20, 2)
    assert covariance_spectrum(exact).rank == 3
    assert covariance_spectrum(torch.full((10, 4), 0.1)).rank == 0


@pytest.mark.parametrize("bad", [torch.ones(1, 3), torch.ones(3, 0), torch.ones(4)])
def test_a_covariance_needs_two_points(bad):
    with pytest.raises(ValueError, match="at least 2 points"):
        covariance_spectrum(bad)


def test_a_covariance_needs_finite_numbers():
    with pytest.raises(ValueError, match="1 NaN"):
        covariance_spectrum(torch.tensor([[1.0, math.nan], [2.0, 3.0]]))


def test_the_participation_ratio_counts_equal_directions():
    assert participation_ratio(torch.full((7,), 3.0)) == pytest.approx(7)
    assert participation_ratio(torch.tensor([5.0, 0.0])) == pytest.approx(1)
    assert math.isnan(participation_ratio(torch.zeros(3)))
    assert math.isnan(participation_ratio(torch.empty(0)))


@pytest.mark.parametrize("shape", [(6, 3), (5, 9), (7, 1)])
def test_the_unbiased_sums_are_averages_over_all_quadruples(shape):
    points = gaussian(*shape, 3).exp()
    crossed = squared = 0.0
    for i, j, k, m in itertools.permutations(range(shape[0]), 4):
        one, other = points[i] - points[j], points[k] - points[m]
        crossed += float(one @ other) ** 2
        squared += float(one @ one) * float(other @ other)
    found = unbiased_participation_ratio(covariance_spectrum(points))
    assert found.value == pytest.approx(squared / crossed, rel=1e-9)


@pytest.mark.parametrize(("n", "d", "power"), [(100, 300, 0.0), (60, 20, 0.0), (200, 50, 1.0)])
def test_the_participation_ratio_of_the_population_comes_out_at_any_size(n, d, power):
    variances = torch.arange(1, d + 1, dtype=torch.float64) ** -power
    truth = participation_ratio(variances)
    found = [
        unbiased_participation_ratio(covariance_spectrum(gaussian(n, d, seed) * variances.sqrt())) for seed in range(60)
    ]
    values = np.array([f.value for f in found])
    assert values.mean() == pytest.approx(truth, abs=4 * values.std() / math.sqrt(60) + 0.02 * truth)
    assert 0.7 < np.mean([f.standard_error for f in found]) / values.std() < 1.6
    plain = participation_ratio(covariance_spectrum(gaussian(n, d, 0) * variances.sqrt()).eigenvalues)
    if power == 0:
        assert plain == pytest.approx(1 / (1 / d + 1 / n), rel=0.05)


def test_too_few_points_have_no_unbiased_ratio():
    assert math.isnan(unbiased_participation_ratio(covariance_spectrum(gaussian(3, 5, 0))).value)
    assert math.isnan(unbiased_participation_ratio(covariance_spectrum(torch.ones(9, 5))).value)


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ([1.0, 0.0, 0.0], 0.99, 1),
        ([1.0, 1.0, 1.0, 1.0], 0.99, 4),
        ([0.97, 0.025, 0.005], 0.99, 2),
        ([0.97, 0.025, 0.005], 1.0, 3),
        ([0.99, 0.01], 0.99, 1),
        ([0.0, 0.0], 0.99, 0),
        ([], 0.99, 0),
    ],
)
def test_saturation_counts_the_direction_that_reaches_the_share(values, share, expected):
    assert directions_for(torch.tensor(values, dtype=torch.float64), share) == expected


@pytest.mark.parametrize("count", [100, 300, 1000, 700])
def test_rounding_of_equal_eigenvalues_adds_no_direction(count):
    assert directions_for(torch.full((count,), 0.1, dtype=torch.float64)) == round(0.99 * count)


@pytest.mark.parametrize("share", [0.0, 1.1, -1.0])
def test_a_share_lies_above_zero(share):
    with pytest.raises(ValueError, match="share"):
        directions_for(torch.ones(3), share)


def test_rankme_is_the_entropy_of_the_shares_of_singular_values():
    singular = covariance_spectrum(gaussian(40, 6, 5) + 1).raw
    shares = singular / singular.sum()
    assert rank_me(singular) == pytest.approx(math.exp(-sum(float(p) * math.log(p) for p in shares)), rel=1e-12)
    assert rank_me(torch.ones(5)) == pytest.approx(5)
    assert math.isnan(rank_me(torch.zeros(5)))
    assert math.isnan(rank_me(torch.empty(0)))


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 2**31), scale=st.floats(1e-4, 1e4), tall=st.booleans())
def test_scale_and_rotation_change_nothing_and_a_shift_only_the_raw_rank(seed, scale, tall):
    points = gaussian(60, 20, seed) if tall else gaussian(20, 60, seed)
    turn = torch.linalg.qr(gaussian(points.shape[1], points.shape[1], seed + 1)).Q
    one, turned, moved = (covariance_spectrum(x) for x in (points, scale * points @ turn, points + 2))
    for other in (turned, moved):
        assert participation_ratio(other.eigenvalues) == pytest.approx(participation_ratio(one.eigenvalues), rel=1e-9)
        for make in (unbiased_participation_ratio, power_law_decay):
            for field in ("value", "alpha", "standard_error"):
                if hasattr(make(one), field):
                    assert getattr(make(other), field) == pytest.approx(getattr(make(one), field), rel=1e-6)
        assert rank_me(other.eigenvalues.sqrt()) == pytest.approx(rank_me(one.eigenvalues.sqrt()), rel=1e-9)
    assert rank_me(turned.raw) == pytest.approx(rank_me(one.raw), rel=1e-9)
    assert rank_me(moved.raw) < rank_me(one.raw)


def test_the_exponent_is_a_weighted_fit():
    spectrum = covariance_spectrum(gaussian(200, 30, 6) * torch.arange(1, 31) ** -0.5)
    found = power_law_decay(spectrum, first=2, share=0.8)
    k = np.arange(2, 25)
    logs = spectrum.eigenvalues[1:24].log().numpy()
    slope, intercept = np.polyfit(np.log(k), logs, 1, w=np.sqrt(1 / k))
    assert (found.first, found.last) == (2, 24)
    assert found.alpha == pytest.approx(-slope, rel=1e-9)
    rest = logs - slope * np.log(k) - intercept
    centred = logs - np.average(logs, weights=1 / k)
    assert found.r2 == pytest.approx(1 - np.sum(rest**2 / k) / np.sum(centred**2 / k), rel=1e-9)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_the_exponent_of_normal_draws_and_its_error(alpha):
    scales = torch.arange(1, 41, dtype=torch.float64) ** (-alpha / 2)
    found = [power_law_decay(covariance_spectrum(gaussian(1000, 40, seed) * scales)) for seed in range(50)]
    values = np.array([f.alpha for f in found])
    assert values.mean() == pytest.approx(alpha, abs=0.06)
    assert 0.7 < np.mean([f.standard_error for f in found]) / values.std() < 1.6
    assert min(f.r2 for f in found) > 0.9


def test_a_short_spectrum_has_no_exponent():
    found = power_law_decay(covariance_spectrum(gaussian(50, 10, 0)))
    assert math.isnan(found.alpha)
    assert (found.first, found.last) == (3, 5)


def test_float32_and_float64_agree():
    points = gaussian(300, 40, 7, torch.float32) * torch.arange(1, 41) ** -1.0 + 1
    one, other = covariance_spectrum(points), covariance_spectrum(points.double())
    assert one.rank == other.rank == 40
    assert unbiased_participation_ratio(one).value == pytest.approx(unbiased_participation_ratio(other).value, rel=1e-6)
