"""A turn is called where there is one, and hardly ever in noise of any memory."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from stratoscope.numerics.phases import phases
from stratoscope.numerics.turn import LEAST, turn

SMOOTH = [
    0.481, 0.4735, 0.4604, 0.434, 0.4029, 0.3595, 0.3469, 0.3374, 0.3256, 0.3193, 0.3183, 0.3266, 0.3466, 0.3551, 0.3595,
    0.366, 0.3737, 0.3823, 0.3809, 0.3802, 0.3833, 0.3872, 0.3898, 0.3926, 0.3931, 0.3954, 0.3964, 0.3979, 0.3993, 0.4007,
]  # fmt: skip


def noise(rng, places, memory):
    if memory == 1:
        return np.cumsum(rng.normal(size=places))
    found = [rng.normal()]
    while len(found) < places:
        found.append(memory * found[-1] + np.sqrt(1 - memory**2) * rng.normal())
    return np.array(found)


def of(curve, seed=0, **settings):
    return turn(curve, generator=np.random.default_rng(seed), **settings)


def test_a_smooth_turn_is_found_at_its_place():
    found = of(SMOOTH)
    assert found.p_value < 0.02
    assert found.place == int(np.argmin(SMOOTH))
    assert found.low <= found.place <= found.high
    assert found.high - found.low < 12


@pytest.mark.parametrize("memory", [0.0, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("trend", [0.0, -8.0, 8.0])
@pytest.mark.parametrize("places", [12, 30])
def test_noise_does_not_turn(memory, trend, places):
    rng, count = np.random.default_rng([int(10 * memory), places]), 60
    curves = (noise(rng, places, memory) + trend * np.linspace(0, 1, places) for _ in range(count))
    called = sum(of(curve, seed, draws=199).p_value <= 0.05 for seed, curve in enumerate(curves))
    assert called <= binom.isf(1e-6, count, 0.05)


def test_a_rise_alone_or_a_fall_alone_is_no_turn():
    assert of(np.linspace(0, 1, 20)).p_value > 0.5
    assert of(np.linspace(1, 0, 20)).p_value > 0.5
    # up, and then down
    assert of(-np.array(SMOOTH)).p_value > 0.05


def test_power_on_a_turn_in_noise():
    rng, shape = np.random.default_rng(3), np.abs(np.linspace(-1, 1, 30))
    found = [of(10 * shape + 0.3 * noise(rng, 30, 0.3), seed, draws=199).p_value <= 0.05 for seed in range(40)]
    assert np.mean(found) > 0.9


def test_shift_and_scale_change_nothing():
    one, other = of(SMOOTH), of(3 + 1e-9 * np.array(SMOOTH))
    assert (one.p_value, one.place, one.low, one.high) == (other.p_value, other.place, other.low, other.high)


def test_what_has_no_turn_to_seek():
    assert of(np.ones(20)).p_value == 1.0
    for bad in ([1.0] * (2 * LEAST), [*SMOOTH[:5], np.nan, *SMOOTH[5:]], np.ones((3, 20))):
        with pytest.raises(ValueError, match="finite values"):
            of(bad)


def test_phases_cut_a_smooth_curve_at_its_turn():
    x = np.log2(1.0 + np.arange(len(SMOOTH)))
    found = phases(x, SMOOTH, least=0.01, generator=np.random.default_rng(0))
    mirrored = phases(x, -np.array(SMOOTH), least=0.01, generator=np.random.default_rng(0))
    assert found.directions == (-1, 1)
    assert mirrored.directions == (1, -1)
    assert found.knots == mirrored.knots == (x[10],)
    low, high = found.intervals[0]
    assert low <= x[10] <= high
    assert found.turned < 0.05
    assert found.reason == ""
    assert [stretch.change for stretch in found.stretches] == pytest.approx(
        [SMOOTH[10] - SMOOTH[0], SMOOTH[-1] - SMOOTH[10]]
    )


def test_a_turn_that_is_too_small_to_count_is_none():
    x = np.log2(1.0 + np.arange(len(SMOOTH)))
    found = phases(x, SMOOTH, least=0.1, generator=np.random.default_rng(0))
    assert 1 not in found.directions
