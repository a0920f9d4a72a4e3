"""The rule by which claims are decided: known answers, a naive twin, and its errors on noise."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from stratoscope.errors import SettingError
from stratoscope.studies.claim import Evidence, Verdict, decide

HELD, NOT, UNDECIDED = Verdict.HELD, Verdict.DID_NOT_HOLD, Verdict.UNDECIDED


def over(values, margin=0.0):
    return decide(Evidence(dict(enumerate(values)), "effect", margin=margin))


effects = st.lists(st.floats(-100, 100).map(lambda x: round(x, 3)), min_size=3, max_size=8, unique=True)


@given(values=effects, margin=st.floats(-10, 10))
@settings(deadline=None, max_examples=25)
def test_the_interval_is_students(values, margin):
    found = over(values, margin)
    low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
    assert found.low == pytest.approx(low, rel=1e-9, abs=1e-9)
    assert found.high == pytest.approx(high, rel=1e-9, abs=1e-9)
    assert found.mean == pytest.approx(np.mean(values), rel=1e-9, abs=1e-9)
    assert found.spread == pytest.approx(np.std(values, ddof=1), rel=1e-9)
    assert found.seeds == len(values)
    assert found.result == (HELD if low > margin else NOT if high < margin else UNDECIDED)


@given(values=effects, margin=st.floats(-10, 10), scale=st.sampled_from([1e-6, 0.5, 2.0, 1e6]))
@settings(deadline=None, max_examples=25)
def test_units_do_not_matter_and_the_opposite_claim_has_the_opposite_result(values, margin, scale):
    found = over(values, margin).result
    assert over([scale * value for value in values], scale * margin).result == found
    opposite = {HELD: NOT, NOT: HELD, UNDECIDED: UNDECIDED}
    assert over([-value for value in values], -margin).result == opposite[found]


@pytest.mark.parametrize("seeds", [3, 6])
def test_on_noise_each_side_is_decided_in_one_case_of_forty(seeds):
    draw = np.random.default_rng(0).normal(2.0, 5.0, size=(2000, seeds))
    results = [over(row, margin=2.0).result for row in draw]
    # 50 expected of 2000; four deviations are 28
    assert abs(results.count(HELD) - 50) < 28
    assert abs(results.count(NOT) - 50) < 28


@pytest.mark.parametrize(
    ("truths", "result"),
    [
        ([True] * 6, HELD),
        ([False] * 6, NOT),
        ([True] * 5, UNDECIDED),
        ([False] * 5, UNDECIDED),
        ([True] * 3, UNDECIDED),
        ([True, False] * 5, UNDECIDED),
        ([True] * 19 + [False] * 6, HELD),
        ([True] * 6 + [False] * 19, NOT),
    ],
)
def test_truth_values_are_counted(truths, result):
    found = over(truths)
    low, high = stats.binomtest(sum(truths), len(truths)).proportion_ci(0.95, "exact")
    assert found.result == result
    assert (found.low, found.high) == pytest.approx((low, high))
    assert (found.mean, found.margin) == (sum(truths) / len(truths), 0.5)
    assert f"true for {sum(truths)} of {len(truths)} seeds" in found.reason


def test_three_seeds_that_agree_to_the_last_digit_are_no_certainty():
    found = over([1.0, 1.0, 1.0])
    assert found.result == UNDECIDED
    assert "each gave exactly 1" in found.reason
    assert "6 seeds" in found.reason
    assert over([1.0] * 6).result == HELD
    assert over([0.1] * 6, margin=0.5).result == NOT
    assert over([0.0] * 6).result == NOT  # not above the margin for any seed
    rounded = over([0.3, 0.1 + 0.2, 0.3])  # one differs in its last digit
    assert (rounded.result, rounded.spread > 0) == (UNDECIDED, True)


@pytest.mark.parametrize("values", [[5.0], [5.0, 5.1], [True], [True, True], [1.0, 1.0]])
def test_one_or_two_seeds_decide_nothing(values):
    found = over(values)
    assert found.result == UNDECIDED
    assert "at least 3" in found.reason
    assert found.seeds == len(values)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_seed_without_a_finite_effect_leaves_the_claim_undecided(bad):
    found = over([1.0, bad, 1.1, 1.2])
    assert found.result == UNDECIDED
    assert "seed 1" in found.reason


def test_no_effect_decides_nothing():
    assert decide(Evidence({}, "effect")).result == UNDECIDED


def test_effects_too_large_to_square_do_not_decide():
    assert over([1e300, -1e300, 1e299]).result == UNDECIDED


def test_numbers_of_numpy_and_torch_are_numbers():
    assert over([np.float32(1.0), np.int64(2), torch.tensor(1.5)]).seeds == 3
    assert over([np.bool_(True), torch.tensor(True), True]).margin == 0.5


@pytest.mark.parametrize("values", [[True, 1.0, 2.0], ["yes", "no", "no"], [None, 1.0, 1.0], [1j, 1.0, 1.0]])
def test_other_effects_are_an_error(values):
    with pytest.raises(SettingError, match="a number or a truth value"):
        over(values)


@pytest.mark.parametrize(
    ("value", "interval", "result"),
    [(2.3, (2.1, 2.5), HELD), (2.3, (1.9, 2.5), UNDECIDED), (1.0, (0.9, 1.1), NOT), (2.3, None, HELD), (2.0, None, UNDECIDED)],
)  # fmt: skip
def test_a_fact_is_decided_by_the_interval_of_its_estimator(value, interval, result):
    found = decide(Evidence.fact(value, "alpha", interval=interval, margin=2.0))
    assert (found.result, found.seeds, found.mean) == (result, 0, value)
    assert math.isnan(found.spread)


def test_an_interval_that_is_none_is_refused():
    with pytest.raises(SettingError, match="with an interval"):
        decide(Evidence.fact(1.0, "alpha", interval=(2.0, 1.0)))
    with pytest.raises(SettingError, match="with an interval"):
        decide(Evidence.fact(1.0, "alpha", interval=(math.nan, 1.0)))
    assert decide(Evidence.fact(1.0, "alpha", interval=(0.5, math.inf))).result == UNDECIDED
    assert decide(Evidence.fact(math.nan, "alpha")).result == UNDECIDED
