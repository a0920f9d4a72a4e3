"""Exact binomial bounds."""

import numpy as np
import pytest

from stratoscope.numerics.intervals import clopper_pearson, lower_bound, upper_bound


@pytest.mark.parametrize("n", [5, 30])
@pytest.mark.parametrize("share", [0.01, 0.2, 0.5, 0.97])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_exact_coverage_is_never_below_the_stated_one(n, share, confidence):
    from scipy.stats import binom

    k = np.arange(n + 1)
    weight = binom.pmf(k, n, share)
    low, high = clopper_pearson(k, n, confidence)
    assert weight[(low <= share) & (share <= high)].sum() >= confidence - 1e-12
    assert weight[share <= upper_bound(k, n, confidence)].sum() >= confidence - 1e-12
    assert weight[share >= lower_bound(k, n, confidence)].sum() >= confidence - 1e-12


def test_simulated_coverage_is_close_to_the_stated_one_for_many_trials():
    rng = np.random.default_rng(0)
    hits = rng.binomial(2000, 0.3, size=4000)
    low, high = clopper_pearson(hits, 2000)
    assert 0.945 <= np.mean((low <= 0.3) & (high >= 0.3)) <= 0.97


def test_bounds_solve_their_defining_equations():
    from scipy.stats import binom

    low, high = clopper_pearson(7, 40, 0.9)
    assert binom.cdf(7, 40, high) == pytest.approx(0.05)
    assert binom.sf(6, 40, low) == pytest.approx(0.05)


def test_rule_of_three_and_the_other_end():
    n = np.array([1, 10, 1000])
    np.testing.assert_allclose(upper_bound(0, n), 1 - 0.05 ** (1 / n), rtol=1e-9)
    np.testing.assert_allclose(lower_bound(n, n), 0.05 ** (1 / n), rtol=1e-9)
    assert upper_bound(0, 1000) == pytest.approx(3 / 1000, rel=2e-2)


def test_ends_broadcasting_and_nothing_known():
    low, high = clopper_pearson([0, 5, 10], 10)
    assert low[0] == 0
    assert high[2] == 1
    assert np.all(np.diff(low) > 0)
    np.testing.assert_allclose(low, 1 - high[::-1], rtol=1e-12)
    assert [float(end) for end in clopper_pearson(0, 0)] == [0.0, 1.0]


@pytest.mark.parametrize(("k", "n"), [(3, 2), (-1, 2), (float("nan"), 2)])
def test_impossible_counts_are_refused(k, n):
    with pytest.raises(ValueError, match="0 <= k <= n"):
        clopper_pearson(k, n)


def test_impossible_confidence_is_refused():
    with pytest.raises(ValueError, match="between 0 and 1"):
        upper_bound(0, 2, 1.0)
