"""Each law's likelihood against an independent one, and the verdicts on samples whose law is known."""

import math
from itertools import pairwise

import numpy as np
import pytest

from stratoscope.numerics import tails
from stratoscope.numerics.cut_exponential import cut_exponential_rate
from stratoscope.numerics.power_law import PowerLaw, fit_power_law
from stratoscope.numerics.tails import TailTest, compare_tails

LAWS = ("lognormal", "exponential", "truncated_power_law")


def whole(values, xmax=None):
    """The fit whose tail is the whole sample, by maximum likelihood."""
    x = np.sort(values)
    alpha = 1 + 1 / np.log(x / x[0]).mean()
    if xmax is not None:
        room = math.log(xmax / x[0])
        alpha = 1 + float(cut_exponential_rate(np.array([1 / (alpha - 1) / room]))[0]) / room
    return PowerLaw(alpha, float(x[0]), xmax, 0.0, 0.0, len(x), len(x))


def draws(law, n, seed):
    """A sample from 1 upwards."""
    rng = np.random.default_rng(seed)
    match law:
        case "power_law":
            return np.exp(rng.exponential(size=n) / 1.5)
        case "exponential":
            return 1 + rng.exponential(size=n)
        case "lognormal":
            x = rng.lognormal(0.5, 0.8, size=6 * n)
            return x[x >= 1][:n]
        case _:
            x = np.exp(rng.exponential(size=40 * n) / 0.5)  # x^-1.5, kept with probability e^(-0.1 x)
            return x[rng.random(40 * n) < np.exp(-0.1 * (x - 1))][:n]


@pytest.mark.parametrize("room", [math.inf, 2.0])
@pytest.mark.parametrize("bend", ["square", "exponential"])
@pytest.mark.parametrize(
    ("a", "k"), [(1.5, 0.3), (1e-3, 1e-5), (-4.0, 0.5), (-40.0, 3.0), (30.0, 1e-6), (2.0, 200.0), (0.0, 1.0)]
)
def test_mass_and_moments_agree_with_adaptive_quadrature(a, k, bend, room):
    from scipy.integrate import quad

    law = tails._Law.of(a, k, bend, room)
    peak, low, high = tails._support(a, k, bend, room)
    points = np.unique(np.concatenate([np.linspace(low, peak, 25), np.linspace(peak, high, 25)]))

    def integral(function):
        def integrand(z):
            s = z * z if bend == "square" else math.expm1(z) - z
            return function(z, s) * math.exp(-a * z - k * s - law.log_mass)

        return sum(quad(integrand, x, y, epsabs=1e-13)[0] for x, y in pairwise(points))

    assert integral(lambda z, s: 1.0) == pytest.approx(1, abs=1e-10)
    mean = [integral(lambda z, s: z), integral(lambda z, s: s)]
    np.testing.assert_allclose(law.mean, mean, rtol=1e-9)
    covariance = integral(lambda z, s: (z - mean[0]) * (s - mean[1]))
    assert law.covariance[0, 1] == pytest.approx(covariance, rel=1e-6)


@pytest.mark.parametrize("law", ["lognormal", "exponential"])
def test_the_lognormal_is_the_best_truncated_normal_of_the_logarithms(law):
    from scipy.optimize import minimize
    from scipy.special import log_ndtr

    x = draws(law, 300, 1)
    z = np.log(np.sort(x) / x.min())

    def loss(theta):
        mean, sd = theta[0], math.exp(theta[1])
        return -np.sum(-0.5 * ((z - mean) / sd) ** 2 - math.log(sd * math.sqrt(2 * math.pi)) - log_ndtr(mean / sd))

    best = min(
        minimize(loss, [m, 0.0], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-10, "maxiter": 4000}).fun
        for m in (-1.0, 0.0, 1.0)
    )
    ours = tails._bent(z, whole(x).alpha - 1, "square", math.inf)
    assert -ours.sum() == pytest.approx(best, abs=1e-6)


@pytest.mark.parametrize("law", ["exponential", "truncated_power_law", "lognormal"])
def test_the_truncated_power_law_is_the_best_one(law):
    from scipy.integrate import quad
    from scipy.optimize import minimize

    x = np.sort(draws(law, 200, 2))
    x = x / x[0]

    def loss(theta):
        alpha, rate = theta[0], math.exp(theta[1])
        mass = quad(lambda t: t**-alpha * math.exp(-rate * t), 1, np.inf, epsabs=0, epsrel=1e-11, limit=300)[0]
        return np.sum(alpha * np.log(x) + rate * x) + len(x) * math.log(mass)

    best = min(
        minimize(loss, start, method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-9}).fun
        for start in ([1.5, -2.0], [0.0, 0.0])
    )
    z = np.log(x)
    ours = tails._bent(z, whole(x).alpha - 1, "exponential", math.inf) - z  # from a density of z to one of x
    assert -ours.sum() == pytest.approx(best, abs=1e-5)


def test_the_exponential_is_its_closed_form():
    from scipy.optimize import minimize_scalar
    from scipy.stats import expon, truncexpon

    x = np.sort(draws("exponential", 100, 0))
    x = x / x[0]
    z, end = np.log(x), 1.5 * x[-1]
    np.testing.assert_allclose(tails._exponential(z, math.inf) - z, expon(1, x.mean() - 1).logpdf(x), rtol=1e-9)
    best = minimize_scalar(
        lambda s: -truncexpon((end - 1) / s, 1, s).logpdf(x).sum(), bounds=(0.3, 3), method="bounded"
    )
    assert (tails._exponential(z, math.log(end)) - z).sum() == pytest.approx(-best.fun, abs=1e-6)


def test_the_ratio_and_its_p_value_are_those_of_vuong():
    from scipy.stats import expon, norm, pareto

    x = draws("power_law", 200, 3)
    fit = whole(x)
    y = x / x.min()
    ratios = pareto(fit.alpha - 1).logpdf(y) - expon(1, y.mean() - 1).logpdf(y)
    normal = ratios.sum() / (math.sqrt(200) * ratios.std())
    test = compare_tails(x, fit)["exponential"]
    assert pytest.approx(normal, rel=1e-9) == test.R
    assert test.p == pytest.approx(2 * norm.sf(abs(normal)), rel=1e-9)


def test_a_nested_law_is_never_less_likely_and_has_a_chi_square_p_value():
    from scipy.stats import chi2

    x = draws("truncated_power_law", 100, 0)
    fit = whole(x)
    z = np.sort(np.log(x / x.min()))
    gain = (
        tails._bent(z, fit.alpha - 1, "exponential", math.inf) - (math.log(fit.alpha - 1) - (fit.alpha - 1) * z)
    ).sum()
    test = compare_tails(x, fit)["truncated_power_law"]
    assert gain > 0 > test.R
    assert test.p == pytest.approx(chi2.sf(2 * gain, 1), rel=1e-6)


@pytest.mark.parametrize("law", LAWS)
def test_the_law_that_was_drawn_is_preferred(law):
    x = draws(law, 2000, 5)
    test = compare_tails(x, whole(x))[law]
    assert (test.verdict, test.R < -2) == ("other", True)


def test_a_power_law_is_kept():
    for seed in range(5):
        x = draws("power_law", 2000, seed)
        tests = compare_tails(x, fit_power_law(x))
        assert tests["exponential"].verdict == "power_law"
        assert tests["truncated_power_law"].verdict != "power_law"


def test_a_true_power_law_is_seldom_given_up():
    verdicts = {law: [] for law in LAWS}
    for seed in range(150):
        x = draws("power_law", 120, 1000 + seed)
        for law, test in compare_tails(x, whole(x)).items():
            verdicts[law].append(test.verdict == "other")
    for law in LAWS:
        assert np.mean(verdicts[law]) <= 0.15, law


def test_a_tail_that_bends_up_gains_nothing_from_laws_that_bend_down():
    z = np.concatenate([np.full(90, 0.01), np.linspace(3, 6, 10)])  # steep first, then flat
    tests = compare_tails(np.exp(np.append(0.0, z)), whole(np.exp(np.append(0.0, z))))
    assert tests["lognormal"] == TailTest(0.0, 1.0, "undecided")
    steep = np.concatenate([np.full(200, 0.01), [0.4]])  # alpha far above 2, so that the power law has a mean
    assert compare_tails(np.exp(np.append(0.0, steep)), whole(np.exp(np.append(0.0, steep))))[
        "truncated_power_law"
    ] == TailTest(0.0, 1.0, "undecided")


@pytest.mark.parametrize("values", [[1.0, 3.0], [1.0, 1.0, 1.0, 4.0, 4.0]])
def test_two_values_cannot_tell(values):
    for test in compare_tails(values, PowerLaw(2.0, 4.0 / 3, None, 0.3, 0.5, 2, len(values))).values():
        assert math.isnan(test.R)
        assert math.isnan(test.p)
        assert test.verdict == "undecided"


@pytest.mark.parametrize(
    "values",
    [
        [1.0, 2, 3],
        [1.0, 1, 1, 2],
        [1.0, 1 + 1e-9, 1 + 3e-9, 1 + 4e-9],
        [1e-150, 1.0, 1e3, 1e150],
        [1.0, 1e300, 1e301, 1e305],
    ],
)
def test_extreme_tails_give_numbers_or_nan_and_never_raise(values):
    for test in compare_tails(values, whole(values)).values():
        assert math.isnan(test.R) == math.isnan(test.p)
        assert test.verdict in ("power_law", "other", "undecided")


@pytest.mark.parametrize("law", ["power_law", "lognormal"])
@pytest.mark.parametrize("xmax", [None, 500.0])
def test_the_unit_of_the_values_changes_nothing(law, xmax):
    x = draws(law, 150, 4)
    x = x[x <= (xmax or math.inf)]
    plain = compare_tails(x, whole(x, xmax))
    scaled = compare_tails(x * 1e-9, whole(x * 1e-9, None if xmax is None else xmax * 1e-9))
    for law in LAWS:
        assert pytest.approx(plain[law].R, abs=1e-6) == scaled[law].R
        assert scaled[law].verdict == plain[law].verdict


@pytest.mark.parametrize("law", LAWS)
def test_a_far_upper_limit_is_no_limit(law):
    x = draws("exponential", 150, 4)
    plain, cut = compare_tails(x, whole(x))[law], compare_tails(x, whole(x, 1e40))[law]
    assert pytest.approx(plain.R, abs=1e-5) == cut.R
    assert cut.p == pytest.approx(plain.p, abs=1e-5)


def test_a_cut_off_power_law_is_kept_when_the_cut_is_known():
    u = np.random.default_rng(0).random(3000)
    x = np.exp(-np.log1p(u * math.expm1(-0.5 * math.log(30))) / 0.5)  # x^-1.5 between 1 and 30
    known = compare_tails(x, whole(x, 30.0))
    unknown = compare_tails(x, whole(x))
    assert known["lognormal"].verdict != "other"
    assert known["truncated_power_law"].verdict != "other"
    assert unknown["truncated_power_law"].verdict == "other"


def test_the_level_of_a_verdict_can_be_set():
    x = draws("lognormal", 200, 8)
    test = compare_tails(x, whole(x))["lognormal"]
    assert compare_tails(x, whole(x), level=test.p / 2)["lognormal"].verdict == "undecided"
    assert compare_tails(x, whole(x), level=min(1.0, test.p * 2))["lognormal"].verdict == "other"
