"""The bootstrap: what it draws, how often it rejects, how often its interval covers."""

import dataclasses
import math

import numpy as np
import pytest

from stratoscope.numerics import power_law_errors
from stratoscope.numerics.power_law import fit_power_law, log_ratios
from stratoscope.numerics.power_law_errors import alpha_interval, bootstrap_fits, goodness_of_fit


def law(n, seed, alpha=2.5):
    return np.exp(np.random.default_rng(seed).exponential(size=n) / (alpha - 1))


def cut_law(n, seed, alpha, end):
    """Draws from `x^-alpha` between 1 and `end`."""
    u, a = np.random.default_rng(seed).random(n), alpha - 1
    return np.exp(u * math.log(end) if a == 0 else -np.log1p(u * math.expm1(-a * math.log(end))) / a)


def mixture(n, seed):
    rng = np.random.default_rng(seed)
    return np.where(rng.random(n) < 0.5, rng.random(n), law(n, seed + 1))


@pytest.mark.parametrize("xmax", [None, 20.0])
def test_samples_are_drawn_from_the_law_above_and_the_values_below(xmax):
    from scipy.stats import kstest

    values = mixture(400, 0) if xmax is None else np.minimum(mixture(400, 0), 19.0)
    fit = fit_power_law(values, xmax=xmax)
    logs = log_ratios(np.sort(values), fit.xmin)
    limit = None if xmax is None else math.log(xmax / fit.xmin)
    drawn = power_law_errors._draw(logs, fit, limit, 50, np.random.default_rng(0))
    assert drawn.shape == (50, 400)
    assert (np.diff(drawn, axis=1) >= 0).all()
    tail = drawn[drawn >= 0]
    assert len(tail) / drawn.size == pytest.approx(fit.n_tail / 400, abs=4 * 0.5 / math.sqrt(drawn.size))
    assert np.isin(drawn[drawn < 0], logs[logs < 0]).all()
    a, mass = fit.alpha - 1, 1.0 if limit is None else -math.expm1(-(fit.alpha - 1) * limit)
    assert kstest(tail, lambda z: -np.expm1(-a * z) / mass).pvalue > 1e-3


def test_a_true_law_is_rejected_about_as_often_as_stated():
    p = [goodness_of_fit(x, fit_power_law(x), samples=60, seed=s).p for s in range(120) for x in [law(80, s)]]
    assert np.mean(np.array(p) < 0.1) == pytest.approx(0.08, abs=0.07)
    assert np.mean(p) == pytest.approx(0.5, abs=0.1)


def test_what_is_no_law_is_rejected():
    bent = np.linspace(1, 2, 1000)
    assert goodness_of_fit(bent, fit_power_law(bent), samples=50).p == pytest.approx(1 / 51)
    rounded = np.repeat(law(100, 0), 10)  # each value ten times: no continuous law
    assert goodness_of_fit(rounded, fit_power_law(rounded), samples=50).p < 0.1


def test_the_standard_error_of_p_is_that_of_repeated_bootstraps():
    values = law(60, 3)
    fit = fit_power_law(values)
    results = [goodness_of_fit(values, fit, samples=40, seed=s) for s in range(60)]
    spread = np.std([result.p for result in results])
    assert results[0].standard_error == pytest.approx(spread, rel=0.4)
    assert results[0].samples == 40


@pytest.mark.parametrize("method", [goodness_of_fit, alpha_interval])
def test_the_same_seed_gives_the_same_and_the_unit_does_not_matter(method):
    values = mixture(90, 1)
    first = method(values, fit_power_law(values), samples=50, seed=4)
    assert method(values, fit_power_law(values), samples=50, seed=4) == first
    assert method(values, fit_power_law(values), samples=50, seed=5) != first
    scaled = method(values * 2.0**-30, fit_power_law(values * 2.0**-30), samples=50, seed=4)
    assert dataclasses.astuple(scaled) == pytest.approx(dataclasses.astuple(first), rel=1e-9)


def test_blocks_of_draws_are_as_good_as_one(monkeypatch):
    values = mixture(90, 1)
    fit = fit_power_law(values)
    whole = bootstrap_fits(values, fit, samples=200, seed=0)
    monkeypatch.setattr(power_law_errors, "_BLOCK_NUMBERS", 1000)
    parts = bootstrap_fits(values, fit, samples=200, seed=0)
    assert len(parts.alpha) == 200
    assert np.median(parts.alpha) == pytest.approx(np.median(whole.alpha), rel=0.05)


@pytest.mark.parametrize("draw", [law, mixture])
def test_the_interval_covers_where_the_standard_error_does_not(draw):
    hits, naive, widths = [], [], []
    for seed in range(80):
        values = draw(128, 10_000 + 7 * seed)
        fit = fit_power_law(values)
        interval = alpha_interval(values, fit, samples=150, seed=seed)
        hits.append(interval.low <= 2.5 <= interval.high)
        naive.append(abs(fit.alpha - 2.5) <= 1.96 * fit.sigma)
        widths.append((interval.high - interval.low) / (2 * 1.96 * fit.sigma))
    assert np.mean(hits) >= 0.89
    assert np.median(widths) < 2  # covers, and not by being vague
    assert np.mean(naive) < np.mean(hits)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_the_interval_covers_under_an_upper_limit(alpha):
    hits = []
    for seed in range(40):
        values = cut_law(100, seed, alpha, 50.0)
        interval = alpha_interval(values, fit_power_law(values, xmax=50.0), samples=100, seed=seed)
        hits.append(interval.low <= alpha <= interval.high)
    assert np.mean(hits) >= 0.85


def test_the_corrected_exponent_has_less_bias():
    plain, corrected = [], []
    for seed in range(300):
        values = law(100, seed, alpha=4)
        fit = fit_power_law(values)
        plain.append(fit.alpha)
        corrected.append(alpha_interval(values, fit, samples=40, seed=seed).corrected)
    assert np.mean(plain) / 4 - 1 > 0.02
    assert abs(np.mean(corrected) / 4 - 1) < 0.02


def test_a_higher_level_gives_a_wider_interval_around_the_other():
    values = law(150, 0)
    fit = fit_power_law(values)
    half, most = (alpha_interval(values, fit, level=level) for level in (0.5, 0.95))
    assert most.low < half.low < half.high < most.high
    assert (most.level, most.samples) == (0.95, 400)


@pytest.mark.parametrize("values", [[1.0, 2.0], [1.0, 2, 2, 2], [1.0, 1, 1, 5, 9]])
def test_tiny_and_tied_samples_give_numbers(values):
    fit = fit_power_law(values)
    assert 0 < goodness_of_fit(values, fit, samples=20).p <= 1
    interval = alpha_interval(values, fit, samples=50)
    assert 1 <= interval.low <= interval.high


def test_draws_without_two_distinct_values_are_left_out(monkeypatch):
    values = [1.0, 2, 3]
    fit = fit_power_law(values)
    monkeypatch.setattr(power_law_errors, "_draw", lambda logs, fit, limit, samples, rng: np.zeros((samples, 3)))
    interval = alpha_interval(values, fit, samples=5)
    assert np.isnan([interval.low, interval.high, interval.corrected]).all()
    assert goodness_of_fit(values, fit, samples=9).p == pytest.approx(0.1)


def test_what_is_left_out_changes_nothing_for_the_other_draws(monkeypatch):
    values = 1 / np.random.default_rng(0).random(200)
    fit = fit_power_law(values)
    wanted = alpha_interval(values, fit, samples=40)
    draw = power_law_errors._draw
    monkeypatch.setattr(power_law_errors, "_draw", lambda *given: np.vstack([draw(*given), np.zeros((5, 200))]))
    found = alpha_interval(values, fit, samples=40)
    assert (found.low, found.high, found.corrected) == (wanted.low, wanted.high, wanted.corrected)


def test_a_law_that_is_uniform_in_the_logarithm_can_be_drawn():
    values = np.exp(np.linspace(0, 3, 100))
    fit = dataclasses.replace(fit_power_law(values, xmax=math.exp(3)), alpha=1.0, xmin=1.0, n_tail=100)
    drawn = bootstrap_fits(values, fit, samples=50)
    assert np.isfinite(drawn.alpha).all()
    assert abs(np.median(drawn.alpha) - 1) < 0.3


def test_impossible_settings_are_refused():
    values = law(20, 0)
    fit = fit_power_law(values)
    with pytest.raises(ValueError, match="samples=0"):
        goodness_of_fit(values, fit, samples=0)
    with pytest.raises(ValueError, match=r"level=1\.0"):
        alpha_interval(values, fit, level=1.0)


@pytest.mark.slow
def test_planted_laws_are_covered_in_every_cell():
    """A frugal version of benchmarks/power_law_calibration.py."""
    shares = []
    for n in (100, 512, 1024):
        for alpha in (2.0, 3.0, 4.0):
            hits, corrected = [], []
            for seed in range(40):
                values = law(n, [seed, n, int(alpha)], alpha)
                fit = fit_power_law(values)
                interval = alpha_interval(values, fit, samples=200, seed=seed)
                hits.append(interval.low <= alpha <= interval.high)
                corrected.append(interval.corrected)
            standard_error = np.std(corrected) / math.sqrt(40)
            assert abs(np.mean(corrected) - alpha) < 0.02 * alpha + 2 * standard_error
            assert np.mean(hits) >= 0.85
            shares.append(np.mean(hits))
    assert 0.92 <= np.mean(shares) <= 0.98
