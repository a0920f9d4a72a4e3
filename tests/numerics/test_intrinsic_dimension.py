"""Dimensions from neighbours: closed forms, naive twins, invariances, errors that match the scatter, and noise."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stratoscope.numerics.intrinsic_dimension import LEAST, levina_bickel, two_nn
from stratoscope.numerics.neighbours import nearest_neighbours


def gaussian(n, d, seed, dtype=torch.float64):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def both(points, k=20):
    near = nearest_neighbours(points, k)
    return two_nn(near.distances[:, :2], near.index[:, :2]), levina_bickel(near.distances, near.index)


def estimates(points, k=20):
    near, local = both(points, k)
    return near.fit, near.likelihood, local


def pareto(n, d):
    """Ratios whose distribution function is exactly `1 - mu^-d` at the fit's own places."""
    share = torch.arange(1, n + 1, dtype=torch.float64) / n
    return torch.stack([torch.ones(n), (1 - share).clamp(min=0.5 / n) ** (-1 / d)], 1).double()


@pytest.mark.parametrize("d", [0.7, 1.0, 3.0, 17.0])
def test_the_fit_is_exact_where_the_ratios_are(d):
    assert two_nn(pareto(400, d)).fit.value == pytest.approx(d, rel=1e-12)


def test_both_estimators_agree_with_plain_loops():
    points = gaussian(60, 4, 1)
    near = nearest_neighbours(points, 7)
    logs = sorted(math.log(float(b / a)) for a, b in near.distances[:, :2])
    pairs = [(x, -math.log(1 - (i + 1) / 60)) for i, x in enumerate(logs[:54])]
    found = two_nn(near.distances[:, :2])
    assert found.fit.value == pytest.approx(sum(x * y for x, y in pairs) / sum(x * x for x, _ in pairs), rel=1e-12)
    assert found.likelihood.value == pytest.approx(59 / sum(logs), rel=1e-12)
    inverse = [sum(math.log(float(row[-1] / other)) for other in row[:-1]) / 6 for row in near.distances]
    assert levina_bickel(near.distances).value == pytest.approx(60 / sum(inverse), rel=1e-12)


def test_a_neighbourhood_that_is_cut_short_counts_with_what_it_has():
    distances = gaussian(50, 6, 2).abs().sort(1).values
    valid = torch.ones(50, 6, dtype=torch.bool)
    valid[::2, 4:] = False
    inverse = [
        sum(math.log(float(row[k - 1] / row[j])) for j in range(k - 1)) / (k - 1)
        for row, k in zip(distances, valid.sum(1).tolist(), strict=True)
    ]
    assert levina_bickel(distances, None, valid).value == pytest.approx(50 / sum(inverse), rel=1e-12)


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 2**31), scale=st.floats(1e-3, 1e3))
def test_scale_shift_and_rotation_change_nothing(seed, scale):
    points = gaussian(80, 5, seed)
    turn = torch.linalg.qr(gaussian(5, 5, seed + 1)).Q
    moved = scale * points @ turn + 3
    for one, other in zip(estimates(points, 8), estimates(moved, 8), strict=True):
        assert other.value == pytest.approx(one.value, rel=1e-6)
        assert other.standard_error == pytest.approx(one.standard_error, rel=1e-6)


@pytest.mark.parametrize(("d", "embedded"), [(1, 1), (1, 40), (2, 30), (4, 20)])
def test_flat_sets_have_their_own_dimension_in_any_space(d, embedded):
    points = torch.rand(1000, d, generator=torch.Generator().manual_seed(d), dtype=torch.float64)
    frame = torch.linalg.qr(gaussian(embedded, d, 5)).Q
    near, local = both(points @ frame.T)
    assert abs(near.fit.value - d) < 4 * near.fit.standard_error
    assert abs(near.likelihood.value - d) < 4 * near.likelihood.standard_error
    assert local.value == pytest.approx(d, rel=0.1)


def test_a_sphere_is_a_surface():
    points = gaussian(1000, 3, 0)
    near, local = both(points / points.norm(dim=1, keepdim=True))
    assert near.fit.value == pytest.approx(2, abs=4 * near.fit.standard_error)
    assert local.value == pytest.approx(2, rel=0.1)


def test_the_bias_on_noise_in_many_dimensions_is_what_the_documentation_says():
    found = [both(gaussian(1000, 20, seed)) for seed in range(8)]
    assert np.mean([near.fit.value for near, _ in found]) == pytest.approx(16.5, abs=0.8)
    assert np.mean([local.value for _, local in found]) == pytest.approx(14.6, abs=0.3)
    found = [both(gaussian(300, 30, seed)) for seed in range(30)]
    assert np.mean([near.fit.value for near, _ in found]) == pytest.approx(21, abs=1)
    assert np.mean([local.value for _, local in found]) == pytest.approx(16.8, abs=0.3)


@pytest.mark.parametrize("d", [2, 6])
def test_standard_errors_are_the_scatter_over_samples(d):
    found = [both(gaussian(300, d, seed)) for seed in range(80)]
    for pick in (lambda f: f[0].fit, lambda f: f[0].likelihood, lambda f: f[1]):
        scatter = np.std([pick(f).value for f in found], ddof=1)
        stated = np.mean([pick(f).standard_error for f in found])
        # the scatter of 80 is itself known to 8 %
        assert 0.7 < stated / scatter < 1.7


def test_float32_and_float64_agree():
    points = gaussian(200, 6, 3, torch.float32)
    for one, other in zip(estimates(points), estimates(points.double()), strict=True):
        assert one.value == pytest.approx(other.value, rel=1e-5)


def test_neighbours_that_are_all_equally_far_have_no_finite_dimension():
    found = two_nn(torch.ones(30, 2))
    assert found.fit.value == found.likelihood.value == math.inf
    assert levina_bickel(torch.ones(30, 5)).value == math.inf


def test_few_points_give_no_number():
    few = gaussian(LEAST - 1, 2, 0).abs().sort(1).values
    found = two_nn(few)
    assert math.isnan(found.fit.value)
    assert math.isnan(levina_bickel(few.repeat(1, 2).sort(1).values).value)
    assert found.fit.n == LEAST - 1


@pytest.mark.parametrize("bad", [0.0, math.nan, math.inf])
def test_duplicates_and_broken_numbers_are_refused(bad):
    distances = torch.tensor([[1.0, 2.0, 3.0]]).repeat(30, 1)
    distances[4, 1 if bad != 0 else 0] = bad
    with pytest.raises(ValueError, match="leave duplicate"):
        two_nn(distances[:, :2])
    with pytest.raises(ValueError, match="leave duplicates"):
        levina_bickel(distances)
    with pytest.raises(ValueError, match="ascending"):
        two_nn(torch.tensor([[2.0, 1.0]]).repeat(30, 1))
