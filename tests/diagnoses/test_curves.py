"""A measure along a path: what is left after each place, and where it is enough."""

import numpy as np
import pytest

from stratoscope.diagnoses.curves import Curve


def curve(*values, half=0.01, informative=None):
    value = np.array(values, dtype=float)
    known = np.ones(len(value), bool) if informative is None else np.array(informative, bool)
    return Curve(value, value - half, value + half, known)


def test_what_is_left_is_the_most_that_a_later_one_has_more():
    difference, low, high = curve(0.2, 0.5, 0.4, half=0.03).left()
    np.testing.assert_allclose(difference[:2], [0.3, -0.1])
    assert np.isnan(difference[2])
    assert np.isnan(low[2])
    # two equal intervals put together: sqrt(2) times as wide
    np.testing.assert_allclose(high[:2] - difference[:2], 0.03 * np.sqrt(2))
    np.testing.assert_allclose(difference[:2] - low[:2], 0.03 * np.sqrt(2))


def test_the_upper_end_is_that_of_any_later_place():
    value, half = np.array([0.5, 0.5, 0.4]), np.array([0.0, 0.0, 0.3])
    _, _, high = Curve(value, value - half, value + half, np.ones(3, bool)).left()
    np.testing.assert_allclose(high[0], 0.2)  # not the best later one, but the one of which least is known


def test_places_that_were_not_measured_are_passed_over():
    found = curve(0.2, np.nan, 0.5).left()[0]
    np.testing.assert_allclose(found, [0.3, np.nan, np.nan])
    assert curve(np.nan, np.nan).best() == -1
    assert curve(np.nan, np.nan).enough(0.1) == []


def test_enough_is_an_unbroken_run_from_the_end():
    assert curve(0.2, 0.6, 0.3, 0.6, 0.61).enough(0.05) == [4, 3]
    assert curve(0.2, 0.6, 0.6, 0.6).enough(0.05) == [3, 2, 1]
    assert curve(0.2, 0.4, 0.6, 0.8).enough(0.05) == [3]
    assert curve(0.9, 0.6, 0.3, 0.1).enough(0.05) == [3, 2, 1, 0]


def test_what_the_errors_hide_is_not_enough():
    assert curve(0.5, 0.5, half=0.1).enough(0.05) == [1]
    assert curve(0.5, 0.5, half=0.01).enough(0.05) == [1, 0]


def test_lost_is_from_where_it_stays_noise():
    assert curve(0.5, 0.6, 0.0, 0.0, informative=[1, 1, 0, 0]).lost(1, 0.05) == 2
    assert np.isnan(curve(0.5, 0.6, 0.0, 0.3, informative=[1, 1, 0, 1]).lost(1, 0.05))
    assert np.isnan(curve(0.5, 0.6, 0.55, informative=[1, 1, 1]).lost(1, 0.05))
    # not beyond the intervals
    assert np.isnan(curve(0.02, 0.0, half=0.05, informative=[1, 0]).lost(0, 0.05))
    # beyond the intervals, but by less than what counts
    assert np.isnan(curve(0.06, 0.0, half=0.01, informative=[1, 0]).lost(0, 0.05))
    assert curve(0.06, 0.0, half=0.01, informative=[1, 0]).lost(0, 0.03) == 1
    # the best is noise itself
    assert np.isnan(curve(0.6, 0.0, informative=[0, 0]).lost(0, 0.05))


def test_the_difference_of_two_curves_is_antisymmetric():
    one, other = curve(0.8, 0.9, half=0.02), curve(0.7, 0.6, half=0.05)
    difference, low, high = one.less(other)
    np.testing.assert_allclose(difference, [0.1, 0.3])
    np.testing.assert_allclose(-other.less(one)[2], low)
    np.testing.assert_allclose(-other.less(one)[1], high)


@pytest.mark.parametrize("margin", [0.03, 0.1])
def test_a_place_that_is_really_worse_is_called_enough_rarely(margin):
    """The truth lies at the margin, errors are normal: wrong in 2.5 of 100, and the walk needs no correction."""
    draw = np.random.default_rng(0)
    error, places, wrong = 0.01, 8, 0
    truth = np.array([0.5] * (places - 1) + [0.5 + margin])
    for _ in range(1000):
        value = truth + error * draw.standard_normal(places)
        half = 1.96 * error
        wrong += len(Curve(value, value - half, value + half, np.ones(places, bool)).enough(margin)) > 1
    assert wrong <= 40
