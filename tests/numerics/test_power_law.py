"""The exact fit against an exhaustive loop, its invariances, and what it makes of samples whose law is known."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stratoscope.numerics.power_law import fit_power_law, fit_rows, standard_error, tail_candidates

SEEDS = st.integers(0, 2**32 - 1)
KINDS = ("pareto", "noise", "lognormal", "ties", "uniform", "wide")


def sample(kind, n, seed):
    rng = np.random.default_rng(seed)
    match kind:
        case "pareto":
            return rng.pareto(rng.uniform(0.5, 4), n) + 1
        case "noise":
            return np.linalg.eigvalsh(np.cov(rng.normal(size=(n, 2 * n + 2))))
        case "lognormal":
            return rng.lognormal(sigma=rng.uniform(0.1, 2), size=n)
        case "ties":
            return np.append(rng.integers(1, max(3, n // 3), n - 1), n).astype(float)
        case "uniform":
            return rng.random(n)
        case _:
            return 10.0 ** rng.uniform(-150, 150, n)


def rate_of(mean, room):
    """Rate of the exponential law on `[0, room]` with this mean, by bisection on its closed form."""
    from scipy.optimize import brentq

    def excess(u):
        if abs(u) < 1e-4:
            return 0.5 - u / 12 - mean / room
        return 1 / u - (1 / math.expm1(u) if u < 700 else 0.0) - mean / room

    return brentq(excess, -690, 1e20, xtol=1e-14, rtol=1e-14, maxiter=500) / room


def exhaustive(values, xmax=None):
    """Every value but the largest as `xmin`, one by one, straight from the definition."""
    x = np.sort(values)
    found = []
    for i in range(len(x) - 1):
        tail, m = x[i:], len(x) - i
        if tail[0] == tail[-1]:
            continue
        logs = np.log(tail / tail[0])
        if xmax is None:
            rate, mass = 1 / logs.mean(), 1.0
        else:
            room = math.log(xmax / tail[0])
            rate = rate_of(logs.mean(), room)
            mass = 1 - math.exp(-rate * room)
        law = (1 - np.exp(-rate * logs)) / mass if abs(mass) > 1e-9 else logs / room
        found.append((np.abs(law - np.arange(m) / m).max(), tail[0], 1 + rate, m))
    return min(found, key=lambda fit: fit[0])


def assert_same(fit, expected, *, tolerance=1e-12):
    distance, xmin, alpha, n_tail = expected
    assert (fit.xmin, fit.n_tail) == (xmin, n_tail)
    assert fit.alpha == pytest.approx(alpha, rel=tolerance)
    assert pytest.approx(distance, abs=tolerance) == fit.D


@given(st.sampled_from(KINDS), st.integers(3, 80), SEEDS)
@settings(deadline=None, max_examples=25)
def test_the_search_equals_the_exhaustive_loop(kind, n, seed):
    values = sample(kind, n, seed)
    assert_same(fit_power_law(values), exhaustive(values))


@pytest.mark.parametrize("kind", KINDS)
def test_the_search_equals_the_exhaustive_loop_for_a_larger_sample(kind):
    values = sample(kind, 700, 5)
    fit = fit_power_law(values)
    assert_same(fit, exhaustive(values))
    assert fit.sigma == pytest.approx((fit.alpha - 1) / math.sqrt(fit.n_tail), rel=1e-12)


@given(st.sampled_from(["pareto", "lognormal", "uniform", "noise"]), st.integers(3, 60), SEEDS, st.floats(1, 5))
@settings(deadline=None, max_examples=25)
def test_with_an_upper_limit_the_search_equals_the_exhaustive_loop(kind, n, seed, beyond):
    values = sample(kind, n, seed)
    xmax = float(values.max()) * beyond
    # the twin's bisection leaves 1e-11 on the exponent of short tails
    assert_same(fit_power_law(values, xmax=xmax), exhaustive(values, xmax), tolerance=1e-9)


@given(st.sampled_from(KINDS[:5]), st.integers(3, 60), SEEDS, st.floats(-12, 12))
@settings(deadline=None, max_examples=25)
def test_the_unit_of_the_values_changes_nothing(kind, n, seed, digits):
    values = sample(kind, n, seed)
    plain, scaled = fit_power_law(values), fit_power_law(values * 10**digits)
    assert scaled.n_tail == plain.n_tail
    assert scaled.alpha == pytest.approx(plain.alpha, rel=1e-9)
    assert pytest.approx(plain.D, abs=1e-12) == scaled.D
    assert scaled.xmin == pytest.approx(plain.xmin * 10**digits, rel=1e-12)


@given(st.integers(10, 60), SEEDS, st.floats(0.3, 3))
@settings(deadline=None, max_examples=25)
def test_a_power_of_the_values_scales_the_exponent_and_keeps_the_rest(n, seed, power):
    values = sample("pareto", n, seed)
    plain, bent = fit_power_law(values), fit_power_law(values**power)
    assert bent.n_tail == plain.n_tail
    assert (bent.alpha - 1) * power == pytest.approx(plain.alpha - 1, rel=1e-9)


def test_rows_are_fitted_as_they_are_alone():
    logs = np.sort(np.log([sample(kind, 120, 3) for kind in ("pareto", "lognormal", "uniform", "wide")]), axis=1)
    rows = fit_rows(logs)
    for k, row in enumerate(logs):
        alone = fit_rows(row[None])
        assert (rows.start[k], rows.alpha[k], rows.D[k]) == (alone.start[0], alone.alpha[0], alone.D[0])


def test_a_row_of_equal_values_has_no_fit_and_disturbs_no_other():
    logs = np.stack([np.zeros(5), np.log([1.0, 2, 3, 5, 9])])
    rows = fit_rows(logs)
    assert rows.start[0] == -1
    assert np.isnan([rows.alpha[0], rows.D[0]]).all()
    assert rows.alpha[1] == fit_power_law([1.0, 2, 3, 5, 9]).alpha


def test_quantiles_of_a_law_give_it_back():
    u = (np.arange(4000) + 0.5) / 4000
    fit = fit_power_law(3 * u ** (-1 / 2))
    assert fit.alpha == pytest.approx(3, abs=0.01)
    assert fit.D < 1e-3


def test_the_tail_of_a_mixture_is_found():
    rng = np.random.default_rng(0)
    body, tail = rng.uniform(0.2, 1, 3000), 1 / rng.random(1000) ** (1 / 1.5)
    fit = fit_power_law(np.concatenate([body, tail]))
    assert fit.xmin == pytest.approx(1, rel=0.1)
    assert fit.alpha == pytest.approx(2.5, rel=0.1)


@pytest.mark.parametrize("alpha", [0.3, 1.0, 1.0001, 1.5, 3.0])
def test_an_upper_limit_recovers_the_exponent_of_cut_off_draws(alpha):
    room, n, a = math.log(200.0), 2000, alpha - 1
    estimates = []
    for seed in range(40):
        u = np.random.default_rng(seed).random(n)
        z = u * room if a == 0 else -np.log1p(u * math.expm1(-a * room)) / a
        fit = fit_power_law(2 * np.exp(z), xmax=400.0)
        estimates.append((fit.alpha - alpha) / fit.sigma)
        assert fit.xmax == 400.0
    # in units of the standard error for a known xmin: no bias that matters, and the search costs less than doubling it
    assert abs(np.mean(estimates)) < 0.7
    assert 0.8 < np.std(estimates) < 2


def test_a_far_upper_limit_is_no_limit():
    values = sample("pareto", 200, 1)
    plain, cut = fit_power_law(values), fit_power_law(values, xmax=1e200)
    assert cut.alpha == pytest.approx(plain.alpha, rel=1e-9)
    assert cut.sigma == pytest.approx(plain.sigma, rel=1e-9)
    assert (cut.xmin, cut.n_tail) == (plain.xmin, plain.n_tail)


def test_values_above_the_limit_are_left_out():
    values = sample("pareto", 200, 1)
    limit = float(np.median(values))
    assert fit_power_law(values, xmax=limit) == fit_power_law(values[values <= limit], xmax=limit)
    assert fit_power_law(values, xmax=limit).n == 100


def test_the_standard_error_is_that_of_the_likelihood():
    def log_likelihood(a):  # of 50 values with mean m, cut at 2
        return -50 * (a * 0.7 + math.log(-math.expm1(-2 * a) / a))

    from scipy.optimize import minimize_scalar

    a = minimize_scalar(lambda a: -log_likelihood(a), bounds=(0.01, 5), method="bounded", options={"xatol": 1e-10}).x
    h = 1e-4
    curvature = (log_likelihood(a + h) - 2 * log_likelihood(a) + log_likelihood(a - h)) / h**2
    assert standard_error(1 + a, 50, 2.0) == pytest.approx((-curvature) ** -0.5, rel=1e-5)


def test_what_is_not_positive_and_finite_is_left_out():
    values = np.array([3.0, np.nan, -1, 0, np.inf, 1, 2, 10, -np.inf])
    assert fit_power_law(values) == fit_power_law([1.0, 2, 3, 10])
    assert fit_power_law(values).n == 4


def test_two_values_are_the_least():
    fit = fit_power_law([1.0, math.e])
    assert (fit.alpha, fit.n_tail, fit.xmin) == (pytest.approx(3), 2, 1.0)
    assert pytest.approx(0.5 - math.exp(-2)) == fit.D


@pytest.mark.parametrize("values", [[], [1.0], [2.0, 2.0, 2.0], [0.0, -1, np.nan, 5]])
def test_fewer_than_two_distinct_values_are_refused(values):
    with pytest.raises(ValueError, match=r"at least 2 distinct positive finite values; there were [01]"):
        fit_power_law(values)


@pytest.mark.parametrize("xmax", [0.0, -1.0, math.nan, math.inf])
def test_an_impossible_limit_is_refused(xmax):
    with pytest.raises(ValueError, match="positive number or None"):
        fit_power_law([1.0, 2, 3], xmax=xmax)


def test_a_limit_below_the_values_is_refused():
    with pytest.raises(ValueError, match=r"up to xmax=0\.5; there were 0"):
        tail_candidates([1.0, 2.0], 0.5)


def test_no_candidate_ends_in_ties_or_extreme_ranges():
    tied = fit_power_law([1.0, 2, 5, 5, 5, 5])
    assert math.isfinite(tied.alpha)
    assert tied.xmin < 5
    tiny = fit_power_law(np.array([5e-324, 1e-310, 1e-300, 1.0, 1e300]))
    assert math.isfinite(tiny.alpha)
    close = fit_power_law(1 + np.arange(50) * 1e-12)
    assert close.alpha > 1e10


def test_any_shape_order_and_precision_is_taken():
    values = sample("pareto", 64, 2).astype(np.float32)
    assert fit_power_law(values.reshape(8, 8)[::-1]) == fit_power_law(values.astype(np.float64))
    assert math.isfinite(fit_power_law(values.astype(np.float16)).alpha)
