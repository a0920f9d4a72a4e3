"""Two classifiers on the same examples."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stratoscope.numerics.paired import paired_difference, wilson

counts = st.integers(0, 60)


def test_wilson_solves_its_equation():
    """The ends are the shares at which the count is just `z` deviations away."""
    for k, n in ((3, 40), (20, 40), (39, 40)):
        for end in wilson(k, n):
            assert abs(k / n - end) == pytest.approx(1.959963985 * np.sqrt(end * (1 - end) / n), rel=1e-6)


def test_wilson_at_the_ends_and_of_nothing():
    assert wilson(0, 10)[0] == 0.0
    assert wilson(10, 10)[1] == 1.0
    assert wilson(0, 10)[1] == pytest.approx(3.8414588 / (10 + 3.8414588))
    assert wilson(0, 0) == (0.0, 1.0)


@settings(deadline=None, max_examples=25)
@given(a=counts, b=counts, c=counts, d=counts)
def test_swapping_changes_the_sign_alone(a, b, c, d):
    if a + b + c + d == 0:
        return
    one, other = paired_difference(a, b, c, d), paired_difference(a, c, b, d)
    assert one.difference == pytest.approx(-other.difference)
    assert one.low == pytest.approx(-other.high, abs=1e-12)
    assert one.p_value == pytest.approx(other.p_value)
    assert -1 - 1e-12 <= one.low <= one.difference <= one.high <= 1 + 1e-12


def test_mcnemar_counts_the_discordant_alone():
    # 2 of 10 heads: 2 (1 + 10 + 45) / 1024
    assert paired_difference(50, 2, 8, 5).p_value == pytest.approx(112 / 1024)
    assert paired_difference(500, 2, 8, 70).p_value == pytest.approx(112 / 1024)
    assert paired_difference(50, 0, 0, 5).p_value == 1.0


def test_what_agrees_everywhere_differs_by_little():
    found = paired_difference(900, 0, 0, 100)
    assert found.difference == 0
    assert max(abs(found.low), abs(found.high)) < 0.005


def test_the_interval_covers_as_often_as_it_says():
    draw = np.random.default_rng(0)
    cells = np.array([0.85, 0.03, 0.06, 0.06])
    hits = 0
    for row in draw.multinomial(200, cells, size=1500):
        found = paired_difference(*map(int, row))
        hits += found.low <= cells[1] - cells[2] <= found.high
    assert 0.93 <= hits / 1500 <= 0.98


@pytest.mark.parametrize("bad", [(-1, 1, 1, 1), (0, 0, 0, 0)])
def test_counts_that_are_none_are_refused(bad):
    with pytest.raises(ValueError, match="Counts are 0 or more"):
        paired_difference(*bad)


def test_bad_arguments_of_wilson():
    with pytest.raises(ValueError, match="0 <= k <= n"):
        wilson(5, 4)
    with pytest.raises(ValueError, match="between 0 and 1"):
        wilson(1, 4, 1.0)
