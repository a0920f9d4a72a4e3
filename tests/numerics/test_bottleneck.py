"""The information-bottleneck bound: closed forms, certificates, invariances, a naive twin, and the deterministic limit."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq, minimize
from scipy.special import rel_entr, softmax

from stratoscope.numerics.bottleneck import bottleneck_curve
from stratoscope.numerics.bottleneck_codes import bottleneck, merge_equal
from stratoscope.numerics.bottleneck_deterministic import (
    deterministic_bottleneck,
    deterministic_curve,
    hard_information,
)


def h(p):
    return 0.0 if p in (0, 1) else -(p * math.log2(p) + (1 - p) * math.log2(1 - p))


def mrs_gerber(rate, p):
    """F(R) = 1 - h(p * h^-1(1 - R)) for the binary symmetric channel with uniform input."""
    q = brentq(lambda q: h(q) - (1 - rate), 0, 0.5, xtol=1e-15) if 0 < rate < 1 else (0.5 if rate <= 0 else 0.0)
    return 1 - h(p * (1 - q) + q * (1 - p))


def drawn(seed, inputs, classes, concentration=0.5):
    draw = np.random.default_rng(seed)
    return draw.dirichlet(np.ones(inputs)), draw.dirichlet(np.full(classes, concentration), inputs)


def information(both):
    return float(rel_entr(both, both.sum(1, keepdims=True) * both.sum(0)).sum()) / math.log(2)


# -- closed forms --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [0.01, 0.1, 0.3, 0.45])
def test_the_binary_symmetric_channel_is_that_of_mrs_gerber(p):
    curve = bottleneck_curve(None, [[1 - p, p], [p, 1 - p]], accuracy=1e-4)
    assert curve.accuracy <= 1e-4
    codes = [mrs_gerber(rate, p) for rate in curve.rate]
    assert curve.relevance == pytest.approx(codes, abs=1e-5)
    rates = np.linspace(0, 1.2, 41)
    above = curve.relevance_at(rates) - [mrs_gerber(rate, p) for rate in rates]
    assert above.min() >= -1e-9
    assert above.max() <= 1e-4


@pytest.mark.parametrize("erased", [0.1, 0.3, 0.8])
def test_an_erasure_channel_gives_a_straight_line(erased):
    curve = bottleneck_curve(None, [[1 - erased, 0, erased], [0, 1 - erased, erased]])
    rates = np.linspace(0, 1, 11)
    assert curve.relevance_at(rates) == pytest.approx((1 - erased) * rates, abs=1e-6)
    assert curve.rate_at((1 - erased) * rates) == pytest.approx(rates, abs=1e-5)


@pytest.mark.parametrize("p", [0.1, 0.3])
def test_nothing_is_worth_knowing_below_the_critical_beta(p):
    joint = merge_equal(None, [[1 - p, p], [p, 1 - p]])
    critical = (1 - 2 * p) ** -2
    assert bottleneck(joint, 0.98 * critical).rate < 1e-3
    assert bottleneck(joint, 1.05 * critical).rate > 0.05


def test_labels_that_are_a_function_of_the_input_are_degenerate():
    curve = bottleneck_curve([0.1, 0.2, 0.3, 0.4], [[1, 0], [0, 1], [1, 0], [0, 1]])
    assert "function of the input" in curve.degenerate
    entropy = h(0.4)
    rates = np.linspace(0, 2, 9)
    assert curve.relevance_at(rates) == pytest.approx(np.minimum(rates, entropy), abs=1e-12)
    assert curve.joint.entropy_x == pytest.approx(entropy)
    assert float(curve.surplus(1.5, entropy)) == pytest.approx(1.5 - entropy)
    assert float(curve.missing(0.5, 0.2)) == pytest.approx(0.3)


@pytest.mark.parametrize("rows", [[[0.3, 0.7]] * 4, [[1.0]] * 3, [[1.0, 0.0]] * 2])
def test_labels_that_do_not_depend_on_the_input_leave_nothing(rows):
    curve = bottleneck_curve(None, rows)
    assert "do not depend" in curve.degenerate
    assert curve.relevance_at([0.0, 1.0, 5.0]).tolist() == [0.0, 0.0, 0.0]
    assert curve.joint.entropy_x == 0.0


# -- the curve -----------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10**6), st.integers(2, 7), st.integers(2, 4))
def test_the_curve_is_concave_rises_and_ends_at_all_there_is(seed, inputs, classes):
    curve = bottleneck_curve(*drawn(seed, inputs, classes), accuracy=0.005)
    rates = np.linspace(0, curve.joint.entropy_x, 60)
    bound = curve.relevance_at(rates)
    assert np.all(np.diff(bound) >= -1e-12)
    assert np.all(np.diff(bound, 2) <= 1e-9)
    assert bound[0] == 0.0
    assert bound[-1] == pytest.approx(curve.joint.information, abs=1e-9)
    assert np.all(bound <= np.minimum(rates, curve.joint.information) + 1e-12)
    # codes lie on it within the accuracy, and none above: data processing
    assert np.all(curve.missing(curve.rate, curve.relevance) >= -1e-9)
    assert np.all(curve.missing(curve.rate, curve.relevance) <= curve.accuracy + 1e-9)
    assert curve.accuracy <= 0.005


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10**6), st.integers(2, 8), st.integers(2, 3))
def test_no_code_lies_above_the_bound(seed, inputs, classes):
    p_x, rows = drawn(seed, inputs, classes)
    curve = bottleneck_curve(p_x, rows, accuracy=0.01)
    draw = np.random.default_rng(seed + 1)
    for sharpness in (0.05, 0.3, 3.0):
        code = draw.dirichlet(np.full(draw.integers(1, 6), sharpness), inputs)
        rate, relevance = information(p_x[:, None] * code), information((p_x[:, None] * code).T @ rows)
        assert float(curve.missing(rate, relevance)) >= -1e-9
        assert float(curve.surplus(rate, relevance)) >= -1e-9


def test_the_slope_is_one_over_beta():
    p_x, rows = drawn(3, 12, 2)
    joint = merge_equal(p_x, rows)
    for beta in (4.0, 9.0, 30.0):
        low, high = bottleneck(joint, beta * 0.99, tolerance=1e-9), bottleneck(joint, beta * 1.01, tolerance=1e-9)
        assert (high.relevance - low.relevance) / (high.rate - low.rate) == pytest.approx(1 / beta, rel=0.01)


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 10**6))
def test_order_and_splitting_of_inputs_change_nothing(seed):
    p_x, rows = drawn(seed, 5, 3)
    curve = bottleneck_curve(p_x, rows, accuracy=0.01)
    order = np.random.default_rng(seed).permutation(5)
    others = [
        bottleneck_curve(p_x[order], rows[order], accuracy=0.01),
        bottleneck_curve(p_x, rows[:, ::-1], accuracy=0.01),
        bottleneck_curve(np.repeat(p_x / 3, 3), np.repeat(rows, 3, axis=0), accuracy=0.01),
        bottleneck_curve(np.append(p_x, 0.0), np.append(rows, [[0.2, 0.3, 0.5]], axis=0), accuracy=0.01),
    ]
    rates = np.linspace(0, curve.joint.entropy_x, 20)
    for other in others:
        assert other.relevance_at(rates) == pytest.approx(curve.relevance_at(rates), abs=0.011)
        assert other.joint.information == pytest.approx(curve.joint.information, abs=1e-12)


@settings(deadline=None, max_examples=5)
@given(st.integers(0, 10**6), st.floats(1.5, 20))
def test_a_naive_search_over_codes_finds_nothing_better(seed, beta):
    p_x, rows = drawn(seed, 3, 3)
    joint = merge_equal(p_x, rows)

    def lagrangian(logits):
        both = p_x[:, None] * softmax(logits.reshape(3, 3), axis=1)
        return information(both) + beta * (joint.information - information(both.T @ rows))

    found = bottleneck(joint, beta, tolerance=1e-7)
    ours = found.rate + beta * (joint.information - found.relevance)
    draw = np.random.default_rng(seed)
    naive = min(minimize(lagrangian, draw.normal(size=9) * 2, method="BFGS").fun for _ in range(2))
    assert ours <= naive + 1e-5 * beta
    assert ours - found.excess <= naive + 1e-9


def test_a_code_is_made_of_distributions_and_is_a_fixed_point():
    p_x, rows = drawn(5, 9, 3)
    joint = merge_equal(p_x, rows)
    code = bottleneck(joint, 6.0, tolerance=1e-9)
    assert code.assignment.sum(1) == pytest.approx(1)
    assert code.decoder.sum(1) == pytest.approx(1)
    assert code.mass.sum() == pytest.approx(1)
    both = joint.p_x[:, None] * code.assignment
    assert information(both) == pytest.approx(code.rate, abs=1e-9)
    assert information(both.T @ joint.p_y_given_x) == pytest.approx(code.relevance, abs=1e-9)
    distance = rel_entr(joint.p_y_given_x[:, None], code.decoder).sum(-1)
    again = code.mass * np.exp(-6.0 * distance)
    assert again / again.sum(1, keepdims=True) == pytest.approx(code.assignment, abs=1e-4)


def test_relevance_and_rate_are_inverse_and_out_of_reach_is_infinite():
    p_x, rows = drawn(1, 6, 2)
    curve = bottleneck_curve(p_x, rows, accuracy=1e-4)
    rates = np.linspace(0.1, 0.7, 7) * curve.joint.entropy_x
    assert curve.relevance_at(curve.rate_at(curve.relevance_at(rates))) == pytest.approx(
        curve.relevance_at(rates), abs=1e-9
    )
    assert float(curve.rate_at(curve.joint.information + 0.01)) == math.inf
    assert float(curve.surplus(1.0, curve.joint.information + 0.01)) == -math.inf
    assert float(curve.missing(1.0, curve.joint.information + 0.01)) < 0
    assert float(curve.relevance_at(-1.0)) == 0.0


# -- input ---------------------------------------------------------------------------------------------------------------


def test_merging_keeps_what_is_known_and_float32_is_taken():
    joint = merge_equal([0.2, 0.3, 0.5], np.array([[0.1, 0.9], [0.1, 0.9], [0.6, 0.4]], np.float32))
    assert sorted(joint.p_x.tolist()) == pytest.approx([0.5, 0.5])
    assert joint.p_y.sum() == pytest.approx(1, abs=1e-12)
    assert joint.entropy_y >= joint.information


@pytest.mark.parametrize(
    ("p_x", "rows"),
    [
        (None, []),
        (None, [[0.5, 0.6]]),
        (None, [[math.nan, 1.0]]),
        (None, [[-0.1, 1.1]]),
        ([0.5, 0.4], [[1, 0], [0, 1]]),
        ([1.0], [[1, 0], [0, 1]]),
        ([math.inf, 0.0], [[1, 0], [0, 1]]),
    ],
)
def test_what_is_no_distribution_is_refused(p_x, rows):
    with pytest.raises(ValueError, match=r"p\(x\)|p\(y"):
        bottleneck_curve(p_x, rows)


def test_settings_out_of_range_are_refused():
    joint = merge_equal(None, [[0.9, 0.1], [0.1, 0.9]])
    for beta in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="beta"):
            bottleneck(joint, beta)
        with pytest.raises(ValueError, match="beta"):
            deterministic_bottleneck(joint, beta)
    with pytest.raises(ValueError, match="accuracy"):
        bottleneck_curve(None, [[0.9, 0.1], [0.1, 0.9]], accuracy=0.0)


# -- deterministic codes -------------------------------------------------------------------------------------------------


def partitions(n):
    """Every function of n inputs up to names: labels that grow by at most one."""
    return [
        labels
        for labels in itertools.product(range(n), repeat=n)
        if all(label <= max(labels[:place], default=-1) + 1 for place, label in enumerate(labels))
    ]


def cost_of(p_x, rows, labels, beta):
    both = np.eye(max(labels) + 1)[list(labels)].T @ (p_x[:, None] * rows)
    mass = both.sum(1)
    return -float(mass @ np.log2(mass)) - beta * information(both)


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10**6), st.integers(1, 5), st.floats(0, 30))
def test_two_classes_are_solved_exactly(seed, inputs, beta):
    p_x, rows = drawn(seed, inputs, 2)
    found = deterministic_bottleneck(merge_equal(p_x, rows), beta)
    best = min(cost_of(p_x, rows, labels, beta) for labels in partitions(inputs))
    assert found.rate - beta * found.relevance == pytest.approx(best, abs=1e-9)


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 10**6), st.integers(2, 5), st.floats(0, 30))
def test_more_classes_are_never_better_than_the_best_and_no_worse_than_the_ends(seed, inputs, beta):
    p_x, rows = drawn(seed, inputs, 3)
    found = deterministic_bottleneck(merge_equal(p_x, rows), beta)
    cost = found.rate - beta * found.relevance
    assert cost >= min(cost_of(p_x, rows, labels, beta) for labels in partitions(inputs)) - 1e-9
    assert cost <= cost_of(p_x, rows, tuple(range(inputs)), beta) + 1e-9
    assert found.excess == math.inf


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 10**6), st.integers(2, 9), st.integers(2, 3))
def test_deterministic_codes_lie_below_the_bound(seed, inputs, classes):
    p_x, rows = drawn(seed, inputs, classes)
    curve = bottleneck_curve(p_x, rows, accuracy=0.01)
    codes = deterministic_curve(curve.joint)
    for code in codes:
        assert set(np.unique(code.assignment)) <= {0.0, 1.0}
        both = curve.joint.p_x[:, None] * code.assignment
        assert information(both) == pytest.approx(code.rate, abs=1e-9)
        assert float(curve.missing(code.rate, code.relevance)) >= -1e-9
    rates, relevance = [code.rate for code in codes], [code.relevance for code in codes]
    assert rates == sorted(rates)
    assert relevance == sorted(relevance)
    assert rates[-1] == pytest.approx(curve.joint.entropy_x)
    slopes = np.diff(relevance) / np.diff(rates)
    if classes == 2:
        assert np.all(np.diff(slopes) <= 1e-6)


def test_a_single_input_has_one_deterministic_code():
    assert [code.rate for code in deterministic_curve(merge_equal(None, [[0.5, 0.5]]))] == [0.0]


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(1, 4))
def test_what_a_clustering_knows_is_its_mutual_information(seed, inputs, classes):
    p_x, rows = drawn(seed, inputs, classes)
    index = np.random.default_rng(seed).integers(0, 4, inputs)
    both = np.eye(4)[index].T @ (p_x[:, None] * rows)
    rate, relevance = hard_information(index, p_x, rows)
    assert relevance == pytest.approx(information(both), abs=1e-9)
    assert rate == pytest.approx(information(p_x[:, None] * np.eye(4)[index]), abs=1e-9)
    with pytest.raises(ValueError, match="clusters"):
        hard_information(index[1:], p_x, rows)
