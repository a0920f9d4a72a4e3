"""A rise and a fall: exact bends, what noise gives, and input that is none."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stratoscope.numerics.change_point import FEWEST, bend

X = np.linspace(0.0, 3.0, 40)


def curves(draw, seeds, kind):
    noise = draw.normal(size=(seeds, len(X)))
    return {
        "white": noise,
        "walk": noise.cumsum(1),
        "offsets": noise[:, :1] + 0.1 * noise,
        "plateau": 3 * np.minimum(X, 1) + 0.3 * noise,
        "rise": X + 0.3 * noise,
    }[kind]


def names(kind, seeds, sets, level=0.05):
    draw = np.random.default_rng([seeds, *kind.encode()])
    found = [bend(X, curves(draw, seeds, kind), level=level, resamples=1, generator=draw) for _ in range(sets)]
    return sum(each.second_phase for each in found) / sets


@pytest.mark.parametrize("kind", ["white", "walk", "offsets", "plateau", "rise"])
@pytest.mark.parametrize("seeds", [5, 8])
def test_noise_is_called_a_second_phase_in_at_most_one_case_of_twenty(kind, seeds):
    # 200 sets: a share of 0.05 shows as 0.1 or more in fewer than 1 of 500 such tests; the draws are fixed
    assert names(kind, seeds, 200) <= 0.1


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["white", "walk"])
def test_the_rate_of_false_alarms_is_the_level(kind):
    rate = names(kind, 7, 1500)
    assert rate <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 1500)
    assert rate >= 0.02


@settings(deadline=None, max_examples=20)
@given(st.integers(4, 35), st.floats(0.1, 5), st.floats(-5, -0.1), st.integers(0, 10**6))
def test_a_line_with_one_bend_is_found_exactly(place, up, down, seed):
    draw = np.random.default_rng(seed)
    exact = up * X + (down - up) * np.maximum(X - X[place], 0)
    found = bend(X, exact + draw.normal(size=(6, 1)), resamples=50, generator=draw)
    assert found.knot == pytest.approx(X[place])
    assert found.knot_interval == pytest.approx((X[place], X[place]))
    assert (found.slope_before, found.slope_after) == pytest.approx((up, down), rel=1e-9)
    fall = -down * (X[-1] - X[place])
    assert found.fall == pytest.approx(fall)
    assert found.falls == pytest.approx([fall] * 6)
    assert found.second_phase
    assert found.p_value <= 2 / 64 + 1e-12
    assert found.reason == ""


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10**6), st.floats(0.1, 10), st.floats(-20, 20))
def test_shift_and_scale_of_the_curves_change_nothing_but_their_units(seed, scale, shift):
    draw = np.random.default_rng(seed)
    values = curves(draw, 6, "walk")
    one, other = (bend(X, v, resamples=1, generator=np.random.default_rng(0)) for v in (values, scale * values + shift))
    assert (other.second_phase, other.knot) == (one.second_phase, pytest.approx(one.knot))
    assert other.p_value == pytest.approx(one.p_value)
    assert other.fall == pytest.approx(scale * one.fall, rel=1e-6, abs=1e-9)


def test_a_clear_fall_is_found_with_its_place():
    draw = np.random.default_rng(0)
    values = 3 * np.minimum(X, 1) - np.maximum(X - 1, 0) + 0.2 * draw.normal(size=(8, len(X)))
    found = bend(X, values, generator=draw)
    assert found.second_phase
    low, high = found.knot_interval
    assert low <= found.knot <= high
    assert found.knot == pytest.approx(1.0, abs=0.15)
    assert found.fall_interval[0] > 1.5
    assert found.fall == pytest.approx(np.mean(found.falls))


def test_many_seeds_draw_their_signs():
    draw = np.random.default_rng(1)
    assert names("white", 14, 40) <= 0.2
    values = 3 * np.minimum(X, 1) - np.maximum(X - 1, 0) + 0.2 * draw.normal(size=(14, len(X)))
    assert bend(X, values, generator=draw).p_value <= 2 / 4096 + 1e-12


def test_few_seeds_name_no_phase_and_say_so():
    exact = np.minimum(X, 1) - np.maximum(X - 1, 0)
    for seeds in (1, FEWEST - 1):
        found = bend(X, np.tile(exact, (seeds, 1)), generator=np.random.default_rng(0))
        assert not found.second_phase
        assert f"fewer than {FEWEST} seeds" in found.reason


def test_constants_and_rises_have_no_second_phase():
    for values in (np.zeros((6, len(X))), np.tile(X, (6, 1)), np.full((6, len(X)), 1e9)):
        found = bend(X, values, generator=np.random.default_rng(0))
        assert not found.second_phase
        assert "no second phase" in found.reason
        assert found.p_value > 0.05


@pytest.mark.parametrize(
    ("x", "values"),
    [
        (range(7), [range(7)]),
        (range(10), [range(9)]),
        (range(10), []),
        ([0, 1, 2, 3, 4, 4, 6, 7, 8], [range(9)]),
        (range(9), [[math.nan] * 9]),
        ([*range(8), math.inf], [range(9)]),
    ],
)
def test_what_has_no_bend_is_refused(x, values):
    with pytest.raises(ValueError, match="A bend needs"):
        bend(list(x), [list(v) for v in values], generator=np.random.default_rng(0))
