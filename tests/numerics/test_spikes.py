"""Spikes: known heights, invariances, silence on noise."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stratoscope.numerics.spikes import LEAST, MAD_TO_DEVIATION, spikes


def alternating(steps=60, middle=0.0, half=1.0):
    """Median and median absolute deviation of any even stretch are known."""
    return middle + half * (-1.0) ** np.arange(steps)


def test_the_height_is_counted_in_robust_deviations():
    curve = alternating()
    curve[-1] = 30.0
    seen = spikes(curve, window=40)
    assert seen.height[-1] == pytest.approx(30 / MAD_TO_DEVIATION)
    assert seen.expected[-1] == pytest.approx(0, abs=1e-12)


def test_a_positive_curve_is_compared_by_its_logarithm():
    curve = np.exp(alternating(half=0.5))
    curve[-1] = math.exp(4)
    assert spikes(curve, window=40).height[-1] == pytest.approx(4 / 0.5 / MAD_TO_DEVIATION)


def test_a_steep_fall_is_no_noise():
    """The median of the later half lies half of it behind the curve: 13 steps with a window of 50."""
    fall = -0.1 * np.arange(100.0)
    curve = np.exp(fall + 0.01 * alternating(100))
    curve[80] = math.exp(fall[80] + 3)
    seen = spikes(curve)
    assert seen.expected[80] == pytest.approx(math.exp(fall[80] + 1.3), rel=0.05)
    assert seen.height[80] == pytest.approx((3 - 1.3) / 0.01 / MAD_TO_DEVIATION, rel=0.1)


def test_a_fall_that_levels_off_has_no_spike():
    rng, steps = np.random.default_rng(0), np.arange(400)
    for _ in range(30):
        curve = (0.3 + 2 * np.exp(-steps / 25)) * np.exp(0.25 * rng.normal(size=400))
        assert np.nanmax(spikes(curve).height) < 8


def test_what_is_undone_is_a_share_of_what_had_been_gained():
    curve = np.concatenate([np.full(30, 2.0), np.full(70, 0.5)]) * (1 + 1e-4 * alternating(100))
    curve[90] = 1.25
    seen = spikes(curve)
    assert seen.undone[90] == pytest.approx(0.5, rel=1e-2)


def test_of_a_flat_curve_half_of_its_size_counts_as_gained():
    curve = 2.0 * (1 + 1e-5 * alternating(100))
    curve[90] = 2.1
    assert spikes(curve).undone[90] == pytest.approx(0.1, rel=1e-3)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 1000), scale=st.floats(1e-3, 1e3))
def test_scaling_a_positive_curve_changes_nothing(seed, scale):
    curve = np.random.default_rng(seed).exponential(size=80) + 0.01
    one, two = spikes(curve), spikes(scale * curve)
    np.testing.assert_allclose(one.height, two.height, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(one.undone, two.undone, rtol=1e-6, atol=1e-9)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 1000), scale=st.floats(1e-3, 1e3), shift=st.floats(-3, 3))
def test_shifting_and_scaling_a_curve_that_is_not_positive_changes_no_height(seed, scale, shift):
    curve = np.random.default_rng(seed).normal(size=80)
    curve[0] = -10.0  # negative wherever it is shifted
    np.testing.assert_allclose(
        spikes(curve).height, spikes(scale * (curve + shift)).height, rtol=1e-6, atol=1e-6, equal_nan=True
    )


NOISE = {
    "gaussian": lambda rng, n: rng.normal(size=n),
    "gaussian above zero": lambda rng, n: 5 + 0.3 * rng.normal(size=n),
    "exponential": lambda rng, n: rng.exponential(size=n),
    "log-normal": lambda rng, n: np.exp(1.5 * rng.normal(size=n)),
    "falling": lambda rng, n: np.exp(-np.arange(n) / 2000 + 0.3 * rng.normal(size=n)),
    "cyclic": lambda rng, n: np.exp(np.sin(np.arange(n) / 80) + 0.2 * rng.normal(size=n)),
}


@pytest.mark.parametrize("kind", NOISE)
def test_noise_has_no_spike(kind):
    assert np.nanmax(spikes(NOISE[kind](np.random.default_rng(0), 50_000)).height) < 8


def test_a_lasting_jump_is_a_spike_once():
    rng = np.random.default_rng(1)
    curve = np.exp(0.1 * rng.normal(size=300))
    curve[150:] *= 10
    high = np.flatnonzero(spikes(curve, window=50).height >= 8)
    assert high[0] == 150
    assert high[-1] < 150 + 50


@pytest.mark.parametrize("steps", [0, 1, LEAST])
def test_too_few_values_have_no_spike(steps):
    seen = spikes(np.ones(steps))
    assert np.isnan(seen.height).all()
    assert len(seen.height) == steps


def test_values_that_are_not_finite_are_left_out():
    curve = np.ones(100) + 0.01 * alternating(100)
    curve[40], curve[60] = np.nan, np.inf
    seen = spikes(curve)
    assert np.isnan(seen.height[[40, 60]]).all()
    assert np.isfinite(seen.height[61:]).all()
    assert np.isnan(spikes(np.full(50, np.nan)).height).all()


def test_a_constant_curve_has_no_spike_and_a_jump_of_it_has_one():
    curve = np.full(60, 3.0)
    assert np.nanmax(np.abs(spikes(curve).height)) == 0
    curve[-1] = 6.0
    assert spikes(curve).height[-1] > 100


def test_a_curve_of_zeros():
    assert np.nanmax(np.abs(np.nan_to_num(spikes(np.zeros(60)).height))) == 0


def test_half_precision():
    curve = (1 + 0.1 * alternating(60)).astype(np.float16)
    np.testing.assert_allclose(spikes(curve).height, spikes(curve.astype(float)).height, rtol=1e-6)
