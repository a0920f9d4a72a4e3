"""The dimension at several scales: neighbours within parts are exact, and noise reads as its own null."""

import math

import pytest
import torch

from stratoscope.numerics.dimension_by_scale import _nearest_within, distinct, gaussian_two_nn, two_nn_by_scale
from stratoscope.numerics.intrinsic_dimension import two_nn
from stratoscope.numerics.neighbours import nearest_neighbours


def gaussian(n, d, seed, dtype=torch.float64):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def everything(points):
    return torch.ones(len(points), dtype=torch.bool)


@pytest.mark.parametrize("k", [1, 2, 20])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_neighbours_within_parts_are_those_of_the_part_alone(k, dtype):
    points = gaussian(120, 3, 0, dtype)
    near = nearest_neighbours(points, k)
    part = torch.arange(120) % 4
    part[::7] = -1
    distances, index = _nearest_within(points, near.distances, near.index, part)
    for name in range(4):
        own = (part == name).nonzero()[:, 0]
        alone = nearest_neighbours(points[own], 2)
        torch.testing.assert_close(
            distances[own], alone.distances, rtol=1e-5 if dtype == torch.float32 else 1e-8, atol=0
        )
        assert torch.equal(index[own], own[alone.index])
    assert bool(distances[part < 0].isinf().all())
    assert bool((index[part < 0] == -1).all())


def test_points_that_equal_each_other_are_passed_over():
    points = torch.cat([gaussian(40, 2, 1), gaussian(40, 2, 1)])
    near = nearest_neighbours(points, 5)
    known = distinct(points, near.distances[:, 0])
    assert known.tolist() == [True] * 40 + [False] * 40
    found = two_nn_by_scale(points, near, known, (1,), seed=0)[1]
    alone = nearest_neighbours(points[:40], 2)
    assert found.fit.value == pytest.approx(two_nn(alone.distances).fit.value, rel=1e-7)
    assert found.fit.n == 40


def test_the_first_of_equal_points_stays():
    points = torch.tensor([[0.0, 1.0], [2.0, 2.0], [0.0, 1.0], [3.0, 0.0], [2.0, 2.0], [0.0, 1.0]])
    near = nearest_neighbours(points, 1)
    assert distinct(points, near.distances[:, 0]).tolist() == [True, True, False, True, False, False]
    assert distinct(torch.ones(3, 2), torch.zeros(3)).tolist() == [True, False, False]


def test_a_part_without_three_points_gives_no_number():
    points = gaussian(30, 2, 2)
    found = two_nn_by_scale(points, nearest_neighbours(points, 5), everything(points), (1, 4, 30), seed=0)
    assert math.isfinite(found[1].fit.value)
    assert math.isnan(found[4].fit.value)
    assert math.isnan(found[30].fit.value)


def test_a_smooth_set_has_one_dimension_and_a_noisy_curve_two():
    generator = torch.Generator().manual_seed(3)
    angle = 2 * math.pi * torch.rand(1000, generator=generator, dtype=torch.float64)
    circle = torch.stack([angle.cos(), angle.sin()], 1)
    noisy = circle + 0.004 * torch.randn(1000, 2, generator=generator, dtype=torch.float64)
    values = {}
    for name, points in (("circle", circle), ("noisy", noisy)):
        found = two_nn_by_scale(points, nearest_neighbours(points, 20), everything(points), (1, 4), seed=0)
        values[name] = [found[cut].fit.value for cut in (1, 4)]
    assert values["circle"] == pytest.approx([1, 1], rel=0.15)
    assert values["noisy"][0] > 1.3 * values["noisy"][1]


def test_standard_errors_of_the_parts_are_the_scatter_over_samples():
    found = []
    for seed in range(60):
        points = gaussian(200, 4, seed)
        found.append(two_nn_by_scale(points, nearest_neighbours(points, 20), everything(points), (4,), seed=0)[4].fit)
    values = torch.tensor([f.value for f in found])
    assert 0.7 < sum(f.standard_error for f in found) / 60 / float(values.std()) < 1.5


def test_the_cut_is_seeded():
    points = gaussian(200, 4, 4)
    near = nearest_neighbours(points, 20)
    one, same, other = (two_nn_by_scale(points, near, everything(points), (4,), seed=s)[4].fit for s in (1, 1, 2))
    assert one == same
    assert one.value != other.value


def test_noise_reads_what_its_null_reads():
    """Over many samples of correlated noise the reading is on average that of normal draws with its covariance."""
    scales = torch.arange(1, 16, dtype=torch.float64) ** -0.5
    ratios = []
    for seed in range(12):
        points = gaussian(400, 15, seed) * scales
        near = nearest_neighbours(points, 20)
        read = two_nn_by_scale(points, near, everything(points), (1,), seed=0)[1].fit
        values = torch.linalg.eigvalsh(torch.cov(points.T))
        null = gaussian_two_nn(values, 400, points=400, seed=seed)
        ratios.append(read.value / null.value)
        assert abs(read.value - null.value) < 4 * math.hypot(read.standard_error, null.standard_error)
    assert sum(ratios) / 12 == pytest.approx(1, abs=0.07)


def test_the_null_of_a_curved_set_is_above_it():
    angle = 2 * math.pi * torch.rand(500, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    circle = torch.stack([angle.cos(), angle.sin()], 1)
    null = gaussian_two_nn(torch.linalg.eigvalsh(torch.cov(circle.T)), 500, seed=0)
    assert null.value == pytest.approx(2, rel=0.2)


def test_the_null_is_seeded_and_needs_points():
    one, same, other = (gaussian_two_nn(torch.ones(3), 100, seed=s) for s in (5, 5, 6))
    assert one == same
    assert one != other
    assert math.isnan(gaussian_two_nn(torch.ones(3), 2, seed=0).value)
