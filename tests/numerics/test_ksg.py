"""Nearest-neighbour information: Gaussian channels, a plain loop, and where there is no valid number."""

import math

import numpy as np
import pytest

from stratoscope.numerics.ksg import ksg, neighbour_label_information


def correlated(n, rho, width=1, seed=0):
    rng = np.random.default_rng(seed)
    first = rng.standard_normal((n, width))
    return first, rho * first + math.sqrt(1 - rho**2) * rng.standard_normal((n, width))


def digamma(value):
    """Of a whole number: a harmonic number less Euler's constant."""
    return sum(1 / i for i in range(1, value)) - 0.5772156649015329


def loop_ksg(first, second, k):
    """Kraskov's first estimator, one point and one count at a time, in bits."""
    first, second = (side / math.sqrt(((side - side.mean(0)) ** 2).mean()) for side in (first, second))
    n, total = len(first), 0.0
    for i in range(n):
        a = [max(abs(first[i] - first[j])) for j in range(n) if j != i]
        b = [max(abs(second[i] - second[j])) for j in range(n) if j != i]
        reach = sorted(max(p, q) for p, q in zip(a, b, strict=True))[k - 1]
        total += sum(digamma(sum(d < reach for d in one) + 1) for one in (a, b))
    return (digamma(k) + digamma(n) - total / n) / math.log(2)


def loop_ross(points, labels, k):
    """Ross's estimator, one point and one count at a time, in bits."""
    n, total = len(points), 0.0
    for i in range(n):
        away = [max(abs(points[i] - points[j])) for j in range(n)]
        mine = sorted(away[j] for j in range(n) if j != i and labels[j] == labels[i])
        near = min(k, len(mine))
        as_near = sum(away[j] <= mine[near - 1] for j in range(n) if j != i)
        total += digamma(near) - digamma(len(mine) + 1) - digamma(as_near)
    return (digamma(n) + total / n) / math.log(2)


@pytest.mark.parametrize("width", [1, 2, 3])
def test_it_is_the_plain_loop(width):
    first, second = correlated(40, 0.8, width)
    assert ksg(first, second).bits == pytest.approx(loop_ksg(first, second, 3), abs=1e-9)
    labels = np.arange(40) % 3
    labels[:2] = 3  # a class of fewer than k
    found = neighbour_label_information(first + labels[:, None], labels)
    assert found.bits == pytest.approx(loop_ross(first + labels[:, None], labels, 3), abs=1e-9)


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9, 0.99])
def test_gaussian_channels(rho):
    """Right within what ten samples of a thousand scatter by, and 0.05 bits."""
    truth = -0.5 * math.log2(1 - rho**2)
    found = [ksg(*correlated(1000, rho, seed=seed)).bits for seed in range(10)]
    assert abs(np.mean(found) - truth) < 0.05
    assert np.std(found) < 0.15


@pytest.mark.parametrize("apart", [0.0, 1.0, 3.0])
def test_two_gaussian_classes(apart):
    """Against the integral of the mixture."""
    from scipy.integrate import quad

    def density(t, centre):
        return math.exp(-((t - centre) ** 2) / 2) / math.sqrt(2 * math.pi)

    def mixture(t):
        return (density(t, 0.0) + density(t, apart)) / 2

    whole, _ = quad(lambda t: -mixture(t) * math.log2(mixture(t)), -10, 10 + apart)
    truth = whole - 0.5 * math.log2(2 * math.pi * math.e)
    labels = np.arange(1000) % 2
    found = [
        neighbour_label_information(
            apart * labels[:, None] + np.random.default_rng(s).standard_normal((1000, 1)), labels
        ).bits
        for s in range(8)
    ]
    assert abs(np.mean(found) - truth) < 0.04


def test_it_agrees_with_scikit_learn():
    from sklearn.feature_selection import mutual_info_classif

    labels = np.arange(600) % 3
    features = np.random.default_rng(0).standard_normal((600, 1)) + labels[:, None]
    theirs = mutual_info_classif(features, labels, n_neighbors=3, random_state=0)[0] / math.log(2)
    assert neighbour_label_information(features, labels).bits == pytest.approx(theirs, abs=1e-3)


def test_shifts_and_scales_do_not_matter():
    first, second = correlated(300, 0.7)
    plain = ksg(first, second).bits
    assert ksg(1e4 * first + 1e7, -1e-3 * second).bits == pytest.approx(plain, abs=1e-6)
    labels = (second[:, 0] > 0).astype(int)
    plain = neighbour_label_information(first, labels).bits
    assert neighbour_label_information(1e4 * first + 1e6, labels).bits == pytest.approx(plain, abs=1e-6)


def test_a_function_of_the_other_is_not_valid():
    """True information is infinite; the largest number that n points can show is no answer."""
    first = np.random.default_rng(0).standard_normal((500, 2))
    for second in (first, np.tanh(first), first + 1e-7 * np.random.default_rng(1).standard_normal((500, 2))):
        found = ksg(first, second)
        assert not found.valid
        assert math.isnan(found.bits)
        assert "function of the other" in found.reason


def test_where_nearest_neighbours_say_nothing():
    first, second = correlated(100, 0.5)
    labels = np.arange(100) % 2
    wide = np.random.default_rng(0).standard_normal((100, 4))
    assert "4 numbers" in ksg(wide, first).reason
    assert "4 numbers" in neighbour_label_information(wide, labels).reason
    assert "too few" in ksg(first[:12], second[:12]).reason
    half = np.maximum(first, 0.0)
    assert "repeat" in ksg(half, second).reason
    assert "repeat" in neighbour_label_information(half, labels).reason
    assert "repeat" in neighbour_label_information(np.ones((100, 1)), labels).reason
    assert "two classes" in neighbour_label_information(first, np.zeros(100, dtype=int)).reason
    assert "two classes" in neighbour_label_information(first, np.arange(100)).reason
    assert "0 numbers" in neighbour_label_information(np.ones((100, 0)), labels).reason


def test_classes_of_one_are_left_out():
    first, _ = correlated(101, 0.0)
    labels = np.append(np.arange(100) % 2, 7)
    found = neighbour_label_information(first, labels)
    assert found.n == 100
    assert found.ceiling == pytest.approx(1.0)
    assert found.bits == pytest.approx(neighbour_label_information(first[:100], labels[:100]).bits, abs=1e-6)


def test_bad_input():
    first, second = correlated(50, 0.5)
    with pytest.raises(ValueError, match="NaN"):
        ksg(np.where(first > 1, np.nan, first), second)
    with pytest.raises(ValueError, match="same examples"):
        ksg(first, second[:40])
    with pytest.raises(ValueError, match="k of at least 1"):
        ksg(first, second, k=0)
    with pytest.raises(ValueError, match="class for each"):
        neighbour_label_information(first, np.zeros(3, dtype=int))


def test_half_precision_and_a_seed():
    first, second = correlated(400, 0.8)
    found = ksg(first.astype(np.float16), second.astype(np.float16))
    assert found.bits == pytest.approx(ksg(first, second).bits, abs=0.05) or "repeat" in found.reason
    assert ksg(first, second, seed=3) == ksg(first, second, seed=3)
