"""Mean, variance and rate of the exponential law cut off at 1."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stratoscope.numerics.cut_exponential import (
    cut_exponential_mean,
    cut_exponential_rate,
    cut_exponential_variance,
)


@pytest.mark.parametrize("u", [-30.0, -1.0, -0.2500001, -0.2499999, -1e-6, 0.0, 1e-9, 0.24, 0.26, 3.0, 80.0])
def test_mean_and_variance_are_those_of_the_density(u):
    from scipy.integrate import quad

    mass = quad(lambda t: np.exp(-u * t), 0, 1, epsabs=0, epsrel=1e-13)[0]
    mean = quad(lambda t: t * np.exp(-u * t), 0, 1, epsabs=0, epsrel=1e-13)[0] / mass
    variance = quad(lambda t: (t - mean) ** 2 * np.exp(-u * t), 0, 1, epsabs=0, epsrel=1e-12)[0] / mass
    assert cut_exponential_mean(np.array([u]))[0] == pytest.approx(mean, rel=1e-12)
    assert cut_exponential_variance(np.array([u]))[0] == pytest.approx(variance, rel=1e-11)


@given(st.floats(-690, 1e6))
@settings(deadline=None, max_examples=25)
def test_the_rate_undoes_the_mean(u):
    mean = cut_exponential_mean(np.array([u]))
    back = cut_exponential_rate(mean)
    # a mean has 16 digits, and its distance from 1 fewer where u is far below 0
    assert back[0] == pytest.approx(u, rel=1e-12 * max(1, abs(u) if u < 0 else 1), abs=2e-12)


@given(st.floats(0, 300))
@settings(deadline=None, max_examples=25)
def test_turning_the_interval_round_turns_the_sign(u):
    both = cut_exponential_mean(np.array([u, -u]))
    assert both.sum() == pytest.approx(1, abs=1e-14)


def test_limits_stay_finite_and_nothing_warns():
    far = np.array([1e3, 1e40, 1e160, 1e300])
    np.testing.assert_allclose(cut_exponential_mean(far), 1 / far)
    assert (cut_exponential_variance(far) >= 0).all()
    np.testing.assert_allclose(cut_exponential_rate(np.array([1e-40, 1e-100])), [1e40, 1e100])


def test_a_rate_is_never_zero_and_never_steeper_than_a_power_that_can_be_held():
    rates = cut_exponential_rate(np.array([0.5, np.nan, 1 - 1e-4]))
    assert rates[0] == 1e-12
    assert np.isnan(rates[1:]).all()
