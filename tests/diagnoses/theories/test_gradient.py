"""Drift and diffusion: windows that go together are not taken for many, and blocks grow with the step."""

from itertools import pairwise

import numpy as np
import pytest

from stratoscope.diagnoses.theories.along import place_of
from stratoscope.diagnoses.theories.base import Answer
from stratoscope.diagnoses.theories.gradient import Gradient, Windows, _correlation


def windows(count, seed, correlation=0.0, deviation=0.5, slope=0.0, crossing=1.0):
    """Full windows of 32 steps, whose log ratio crosses 0 at a step."""
    draw = np.random.default_rng(seed)
    end = 32.0 * np.arange(1, count + 1)
    fresh, noise = draw.normal(size=count), np.zeros(count)
    noise[0] = fresh[0]
    for place in range(1, count):
        noise[place] = correlation * noise[place - 1] + np.sqrt(1 - correlation**2) * fresh[place]
    ratio = -slope * (place_of(end - 16) - place_of([crossing])[0]) + deviation * noise
    return Windows(end - 32, end, np.tanh(ratio))


@pytest.mark.parametrize("correlation", [0.0, 0.3, 0.6])
def test_a_ratio_that_stays_around_one_turns_in_hardly_any_case(correlation):
    """At most 1.5 % of 400; of 60, 4 are three deviations above."""
    told = [Gradient()._told(windows(120, seed, correlation), 0.05) for seed in range(60)]
    assert sum(one.answer is Answer.TURNS for one in told) <= 4


@pytest.mark.parametrize("correlation", [0.0, 0.3])
def test_crossings_are_found_and_lie_in_their_interval(correlation):
    told = [Gradient()._told(windows(200, seed, correlation, 0.5, 0.7, 1600.0), 0.05) for seed in range(40)]
    turns = [one.turn for one in told if one.answer is Answer.TURNS]
    assert len(turns) >= 38
    assert sum(turn.low <= 1600 <= turn.high for turn in turns) >= 0.9 * len(turns)
    assert abs(np.median([np.log2(turn.at / 1600) for turn in turns])) < 0.35


def test_the_correlation_of_windows_is_seen_whatever_the_trend():
    for slope in (0.0, 0.3):
        found = [_correlation(windows(300, seed, 0.6, 0.1, slope, 3000.0)) for seed in range(10)]
        assert 0.45 < np.mean(found) < 0.75
    assert _correlation(Windows(np.arange(9.0), np.arange(1.0, 10.0), np.full(9, -1.0))) == pytest.approx(
        0.0, abs=1 / 3
    )


def test_blocks_hold_all_windows_in_order_and_grow():
    blocks = Gradient()._blocks(windows(500, 0), 0.05)
    assert blocks[0].begin == 0
    assert blocks[-1].end == 32 * 500
    assert all(one.end == other.begin for one, other in pairwise(blocks))
    assert all(block.end - block.begin >= 4 * 32 for block in blocks)
    assert all(1 + block.end >= 1.25 * (1 + block.begin) for block in blocks[:-1])
    assert len(blocks) < 30


def test_equal_windows_are_sure():
    told = Gradient()._told(Windows(np.arange(0, 320, 32.0), np.arange(32, 352, 32.0), np.full(10, -0.5)), 0.05)
    assert set(told.phases) == {"diffusion"}
    assert told.until == 352
