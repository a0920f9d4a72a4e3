"""What theories share: places of steps, phases that are no wiggles, turns within their intervals."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stratoscope.diagnoses.theories.along import p_of, place_of, steady, step_of, turn_at, why
from stratoscope.diagnoses.theories.base import Answer, Told
from stratoscope.numerics.phases import phases

few_phases = st.lists(st.one_of(st.none(), st.integers(0, 4)), max_size=12)


@given(few_phases)
@settings(deadline=None, max_examples=25)
def test_what_holds_was_measured_before_or_now(measured):
    held = steady(measured)
    assert [place is None for place in held] == [place is None for place in measured]
    for place, phase in enumerate(held):
        assert phase is None or phase in measured[: place + 1]


@given(st.integers(0, 4), st.lists(st.integers(0, 4), min_size=1, max_size=10))
@settings(deadline=None, max_examples=25)
def test_lone_measurements_change_nothing(phase, others):
    """Between two measurements that agree, any one measurement is a wiggle."""
    measured = [phase]
    for other in others:
        measured += [other, phase, phase]
    assert set(steady(measured)) == {phase}


@given(st.lists(st.integers(0, 6), min_size=2, max_size=12))
@settings(deadline=None, max_examples=25)
def test_steady_progress_is_delayed_by_no_step(measured):
    ascending = sorted(measured)
    held = steady(ascending)
    assert held[:-1] == ascending[:-1]
    assert held[-1] == ascending[-2]  # the last one is not confirmed yet


def test_places_and_steps_are_inverse():
    steps = [0, 1, 5, 100, 10**6]
    assert [step_of(float(place)) for place in place_of(steps)] == pytest.approx(steps, rel=1e-12)


@pytest.mark.parametrize("at", [7, 64, 127])
def test_a_turn_lies_in_its_interval_which_is_no_point(at):
    x = place_of([0, 1, 2, 3, 7, 15, 31, 64, 127, 255, 512, 1023, 2047])
    curve = np.minimum(x, math.log2(1 + at)) - 0.5 * np.maximum(x - math.log2(1 + at), 0)
    found = phases(x, curve, generator=np.random.default_rng(0))
    turn = turn_at(found, 0, x)
    assert turn.low < turn.at < turn.high
    assert turn.low < at < turn.high
    assert p_of(found, 0.05, turned=True) <= 0.05


def test_reasons_speak_of_steps_and_not_of_places():
    x = place_of([0, 1, 2, 3, 7, 15, 31, 64, 127, 255, 512, 1023, 2047])
    curve = np.where(x < 5, 2 * x, 10 + 0.2 * (x - 5))
    found = phases(x, curve, generator=np.random.default_rng(0))
    said = why("it rises", found, "0.1")
    assert said == "it rises (its slope changes at step 31, but not its direction)"
    constant = phases(x, np.ones(13), generator=np.random.default_rng(0))
    assert why("it is not shown to move", constant, "0.1") == "it is not shown to move (the curve is constant)"


def test_a_phase_holds_until_the_next_look_and_not_beyond_the_last():
    told = Told((4, 8, 16), ("a", "", "b"), Answer.ONE_PHASE, "")
    assert told.at([0, 4, 5, 8, 15, 16, 17]) == ["", "a", "a", "", "", "b", ""]
    longer = Told((4, 8), ("a", "b"), Answer.ONE_PHASE, "", until=20)
    assert longer.at([20, 21]) == ["b", ""]
    assert longer.points == 2
