"""The law of noise, its edge, and spikes: against integrals, tables, closed forms and random matrices."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.integrate import quad, simpson

from stratoscope.numerics.marchenko_pastur import (
    density,
    distribution,
    edges,
    fit_bulk,
    median,
    noise_edge,
    spike_strength,
    spike_threshold,
    tracy_widom,
    tracy_widom_quantile,
)

RATIOS = [1.0, 0.9, 0.375, 0.1, 0.01, 1e-4]


def gaussian(rows, columns, seed=0):
    return np.random.default_rng(seed).standard_normal((rows, columns))


def spectrum(matrix):
    return np.clip(np.linalg.eigvalsh(matrix @ matrix.T)[::-1], 0, None)


def planted(rows, columns, strengths, seed=0):
    """Noise of variance one, and directions of these strengths in units of the root of `columns`."""
    generator = np.random.default_rng(seed)
    count = len(strengths)
    left = np.linalg.qr(generator.standard_normal((rows, count)))[0]
    right = np.linalg.qr(generator.standard_normal((columns, count)))[0]
    return generator.standard_normal((rows, columns)) + math.sqrt(columns) * (left * strengths) @ right.T


# -- the law -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ratio", RATIOS)
def test_the_density_integrates_to_the_distribution_and_to_one(ratio):
    low, high = edges(ratio)
    # a substitution takes the square roots at the edges away
    middle, half = (low + high) / 2, (high - low) / 2

    def part(upper):
        return quad(lambda t: float(density(middle - half * math.cos(t), ratio)) * half * math.sin(t), 0, upper)[0]

    assert part(math.pi) == pytest.approx(1, abs=1e-7)
    for upper in (0.3, 1.0, 2.0, 3.0):
        assert float(distribution(middle - half * math.cos(upper), ratio)) == pytest.approx(part(upper), abs=1e-7)


@pytest.mark.parametrize("ratio", RATIOS)
def test_the_median_halves_the_law_and_the_ends_are_its_ends(ratio):
    assert float(distribution(median(ratio), ratio)) == pytest.approx(0.5, abs=1e-9)
    low, high = edges(ratio)
    assert distribution([low, high, low / 2, 2 * high], ratio) == pytest.approx([0, 1, 0, 1], abs=1e-11)
    assert density([low - 1e-9, high + 1e-9], ratio).tolist() == [0, 0]


@pytest.mark.parametrize("ratio", RATIOS)
def test_moments_of_the_law_are_one_and_one_plus_the_ratio(ratio):
    low, high = edges(ratio)
    x = np.linspace(low, high, 200_001)
    above = 1 - distribution(x, ratio)
    # E X = low + integral of the survival function; E X^2 = low^2 + 2 integral of x times it
    assert low + np.trapezoid(above, x) == pytest.approx(1, abs=1e-6)
    assert low**2 + 2 * np.trapezoid(x * above, x) == pytest.approx(1 + ratio, abs=1e-6)


@given(x=st.floats(0, 10), ratio=st.floats(0.01, 1), variance=st.floats(1e-6, 1e6))
@settings(deadline=None, max_examples=25)
def test_variance_scales_the_axis(x, ratio, variance):
    assert float(distribution(x * variance, ratio, variance)) == pytest.approx(float(distribution(x, ratio)), abs=1e-9)
    scaled = float(density(x * variance, ratio, variance)) * variance
    assert scaled == pytest.approx(float(density(x, ratio)), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize(("rows", "columns"), [(400, 400), (300, 1200)])
def test_a_gaussian_matrix_follows_the_law(rows, columns):
    bulk = fit_bulk(spectrum(3 * gaussian(rows, columns)), rows, columns)
    assert bulk.spikes == 0
    assert bulk.distance < 0.012
    assert bulk.variance == pytest.approx(9, rel=0.01)
    assert bulk.share == pytest.approx(1)
    assert bulk.edge == pytest.approx(columns * 9 * (1 + math.sqrt(rows / columns)) ** 2, rel=0.01)


@pytest.mark.parametrize("ratio", [0.0, -1.0, 1.0001, math.nan])
def test_a_ratio_that_is_none_is_refused(ratio):
    for function in (edges, median, spike_threshold, lambda y: distribution(1.0, y), lambda y: density(1.0, y)):
        with pytest.raises(ValueError, match="shorter over longer"):
            function(ratio)


# -- the edge ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("level", "value"), [(0.01, -3.8954), (0.05, -3.1804), (0.9, 0.4501), (0.95, 0.9793), (0.99, 2.0234)]
)
def test_quantiles_are_those_of_the_tables(level, value):
    assert tracy_widom_quantile(level) == pytest.approx(value, abs=6e-5)
    assert tracy_widom(tracy_widom_quantile(level)) == pytest.approx(level, abs=1e-11)


def test_mean_and_variance_are_those_of_the_tables():
    s = np.linspace(-10, 14, 193)
    above = 1 - np.array([tracy_widom(value) for value in s])
    mean = s[0] + np.trapezoid(above, s)
    square = s[0] ** 2 + 2 * simpson(s * above, x=s)
    assert mean == pytest.approx(-1.2065335745820, abs=1e-9)
    assert square - mean**2 == pytest.approx(1.607781034581, abs=1e-7)


def test_the_distribution_at_zero_is_the_published_one():
    assert tracy_widom(0.0) == pytest.approx(0.83190806620295, abs=1e-12)


def test_a_level_that_is_none_is_refused():
    for level in (0.0, 1.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="level"):
            tracy_widom_quantile(level)


def test_the_edge_of_several_matrices_is_that_of_the_largest_of_them():
    one, nine = (noise_edge(64, 128, 1.0, level=0.99, copies=copies) for copies in (1, 9))
    assert nine > one
    assert nine == noise_edge(64, 128, 1.0, level=0.99 ** (1 / 9))
    assert noise_edge(64, 128, 4.0) == pytest.approx(4 * noise_edge(64, 128, 1.0))


def test_the_largest_eigenvalue_of_noise_stays_under_the_edge_as_often_as_said():
    tops = [spectrum(gaussian(40, 80, seed))[0] for seed in range(1500)]
    for level in (0.5, 0.9, 0.99):
        share = np.mean(np.array(tops) < noise_edge(40, 80, 1.0, level=level))
        # three standard errors, and 0.02 for the finite sides
        assert share == pytest.approx(level, abs=0.02 + 3 * math.sqrt(level * (1 - level) / 1500))


# -- spikes --------------------------------------------------------------------------------------------------------------


@given(ratio=st.floats(1e-4, 1), over=st.floats(1.001, 100))
@settings(deadline=None, max_examples=25)
def test_the_strength_inverts_where_the_eigenvalue_goes(ratio, over):
    theta = over * spike_threshold(ratio)
    eigenvalue = (1 + theta**2) * (ratio + theta**2) / theta**2
    assert float(spike_strength(eigenvalue, ratio)) == pytest.approx(theta, rel=1e-5)


def test_at_the_threshold_the_eigenvalue_is_the_edge_and_below_nothing_is_read():
    for ratio in (0.25, 1.0):
        theta = spike_threshold(ratio)
        assert (1 + theta**2) * (ratio + theta**2) / theta**2 == pytest.approx(edges(ratio)[1])
        assert np.isnan(spike_strength([0.0, edges(ratio)[1]], ratio)).all()


def test_planted_strengths_are_read_back():
    found = []
    for seed in range(4):
        values = spectrum(planted(512, 1024, [2.5, 1.5], seed))
        bulk = fit_bulk(values, 512, 1024)
        assert bulk.spikes == 2
        found.append(spike_strength(values[:2] / (1024 * bulk.variance), 0.5))
    assert np.mean(found, axis=0) == pytest.approx([2.5, 1.5], rel=0.02)


def found_of_six(rows, columns, times):
    strength = times * spike_threshold(rows / columns)
    return sum(
        fit_bulk(spectrum(planted(rows, columns, [strength], seed)), rows, columns).spikes == 1 for seed in range(6)
    )


@pytest.mark.parametrize(("rows", "columns"), [(256, 512), (128, 256), (256, 256), (128, 512)])
def test_spikes_half_above_the_threshold_are_all_found(rows, columns):
    assert found_of_six(rows, columns, 1.5) == 6


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "columns"), [(1024, 1024), (1024, 2048)])
def test_spikes_a_quarter_above_the_threshold_are_all_found_in_large_matrices(rows, columns):
    # at 256 x 512 such an eigenvalue is above the 99 % edge in about three draws of four; no test of it does better
    assert found_of_six(rows, columns, 1.25) == 6


@pytest.mark.slow
def test_noise_has_a_spike_in_at_most_two_of_a_hundred_matrices():
    shapes = [(64, 64), (64, 256), (128, 128), (128, 256), (128, 512)]
    false = {
        shape: sum(fit_bulk(spectrum(gaussian(*shape, seed)), *shape).spikes > 0 for seed in range(200))
        for shape in shapes
    }
    assert sum(false.values()) <= 0.02 * 1000
    assert max(false.values()) <= 0.045 * 200


def test_a_few_noise_matrices_have_no_spikes():
    assert sum(fit_bulk(spectrum(gaussian(64, 64, seed)), 64, 64).spikes > 0 for seed in range(100)) <= 3


@given(seed=st.integers(0, 2**31), exponent=st.integers(-6, 6), count=st.integers(0, 5))
@settings(deadline=None, max_examples=20)
def test_scale_and_rotation_change_nothing_but_the_unit(seed, exponent, count):
    matrix = planted(40, 60, [2.5] * count, seed) if count else gaussian(40, 60, seed)
    turn = np.linalg.qr(gaussian(40, 40, seed + 1))[0]
    plain, other = fit_bulk(spectrum(matrix), 40, 60), fit_bulk(spectrum(10.0**exponent * turn @ matrix), 40, 60)
    assert other.spikes == plain.spikes
    assert other.variance == pytest.approx(100.0**exponent * plain.variance)
    assert (other.distance, other.share) == pytest.approx((plain.distance, plain.share))


def test_the_variance_is_the_mean_of_what_is_no_spike():
    values = spectrum(planted(100, 200, [3.0, 2.0, 2.5]))
    bulk = fit_bulk(values, 100, 200)
    assert bulk.spikes == 3
    assert bulk.variance == pytest.approx(values[3:].mean() / 200)
    assert values[2] > bulk.noise_edge > values[3]
    assert bulk.share == pytest.approx(100 * values[3:].mean() / values.sum())
    law = distribution(values[3:][::-1] / (200 * bulk.variance), 0.5)
    steps = np.arange(98) / 97
    assert bulk.distance == pytest.approx(max(np.abs(law - steps[1:]).max(), np.abs(law - steps[:-1]).max()))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("count", [0, 5, 20, 40])
def test_all_that_is_left_lies_under_the_edge_and_the_spikes_beyond_it(count, seed):
    values = spectrum(planted(100, 150, np.linspace(1.2, 4.0, count), seed))
    bulk = fit_bulk(values, 100, 150)
    assert values[bulk.spikes] <= bulk.noise_edge < (values[bulk.spikes - 1] if bulk.spikes else math.inf)
    assert bulk.noise_edge == pytest.approx(noise_edge(100, 150, bulk.variance))


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("power", [0.3, 1.0, 3.0])
def test_the_distance_is_that_of_kolmogorov_and_smirnov_on_either_side(power, turned):
    values = np.linspace(1.5, 0.5, 80) ** power
    values = (values.max() + values.min() - values)[::-1] if turned else values
    bulk = fit_bulk(values, 80, 160)
    assert bulk.spikes == 0
    law = stats.ks_1samp(values / (160 * bulk.variance), distribution, args=(0.5,))
    assert bulk.distance == pytest.approx(law.statistic, abs=1e-12)


def test_odd_spectra_are_decided():
    with pytest.raises(ValueError, match="at least one eigenvalue"):
        fit_bulk(np.empty(0), 3, 3)
    equal = fit_bulk(np.ones(100), 100, 100)
    assert (equal.spikes, equal.distance > 0.3) == (0, True)
    constant = fit_bulk(np.array([5.0] + 99 * [0.0]), 100, 100)
    assert (constant.spikes, constant.variance, constant.share) == (1, 0.0, 0.0)
    nothing = fit_bulk(np.zeros(100), 100, 100)
    assert (nothing.spikes, nothing.variance) == (0, 0.0)
    assert math.isnan(nothing.share)
    none_left = fit_bulk(np.array([7.0]), 1, 1, level=1e-6)  # an edge below everything
    assert (none_left.spikes, none_left.variance, none_left.distance) == (1, 0.0, 1.0)
    one = fit_bulk(np.array([7.0]), 1, 9)
    assert (one.spikes, one.variance) == (0, pytest.approx(7 / 9))
