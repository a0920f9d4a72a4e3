"""Binned entropies: against a plain loop, closed forms, refinement, and what noise reads."""

import math
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stratoscope.numerics.entropy import (
    Cells,
    Edges,
    EqualWidth,
    FixedWidth,
    cells_of,
    entropy,
    shared_information,
    shuffled,
)


def loop_entropy(items):
    """Entropy in bits of whatever can be counted, one at a time."""
    counts = Counter(items)
    n = sum(counts.values())
    return -sum(c / n * math.log2(c / n) for c in counts.values())


def loop_cells(features, edges):
    """The cell of each example as a tuple, found edge by edge."""
    return [tuple(sum(1 for edge in edges if value >= edge) for value in row) for row in features.tolist()]


def gaussian(n, width, seed=0):
    return np.random.default_rng(seed).standard_normal((n, width))


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 40), st.integers(1, 20), st.integers(2, 9), st.integers(0, 2**16))
def test_cells_are_those_of_a_plain_loop(n, width, number, seed):
    features = np.random.default_rng(seed).integers(-3, 4, (n, width)) / 7  # many equal ones, none on an edge but 0
    labels = np.random.default_rng(seed + 1).integers(0, 3, n)
    edges = np.linspace(-0.51, 0.52, number + 1)
    cells = cells_of(features, EqualWidth(-0.51, 0.52, number))
    twin = loop_cells(features, edges[1:-1])
    assert cells.entropy == pytest.approx(loop_entropy(twin), abs=1e-12)
    assert len(set(zip(cells.index.tolist(), twin, strict=True))) == len(set(twin)) == len(cells.counts)
    together = loop_entropy(zip(twin, labels.tolist(), strict=True))
    expected = loop_entropy(twin) + loop_entropy(labels.tolist()) - together
    assert shared_information(cells, labels).bits == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("width", [3, 12, 13, 40, 500])
def test_wide_layers_do_not_overflow(width):
    """30 bins fit into an integer up to 12 units; beyond, cells are renumbered and stay exact."""
    base = np.random.default_rng(1).integers(0, 30, (300, width)).astype(float) + 0.5
    base[:150] = base[150:]  # each twice
    base[::3, -1] = 0.5  # told apart by the last unit alone, or not
    cells = cells_of(base, EqualWidth(0.0, 30.0, 30))
    twin = Counter(map(tuple, base.tolist()))
    assert sorted(cells.counts.tolist()) == sorted(twin.values())


def test_cells_that_differ_in_the_last_of_many_units():
    features = np.zeros((4, 1000))
    features[2:, -1] = 1.0
    assert cells_of(features, EqualWidth(0.0, 1.0, 30)).counts.tolist() == [2, 2]


def test_a_large_sample_is_counted_exactly():
    n = 200_000
    features = (np.arange(n * 2).reshape(2, n).T % 1000).astype(np.float32)
    cells = cells_of(features, EqualWidth(0.0, 1000.0, 1000))
    assert len(cells.counts) == 1000
    assert cells.entropy == pytest.approx(math.log2(1000), abs=1e-12)


def test_ends_of_the_range():
    """The upper end belongs to the last bin, and what is outside to the nearest: it does not wrap around."""
    codes = EqualWidth(-1.0, 1.0, 30).codes(np.array([[-5.0, -1.0, 0.0, 1.0, 5.0, 1e300]]))
    assert codes.tolist() == [[0, 0, 15, 29, 29, 29]]
    assert EqualWidth(2.0, 2.0, 30).bins == 1
    assert EqualWidth(-1.5e308, 1.5e308, 4).codes(np.array([[-1.5e308, -1e307, 1e307, 1.5e308]])).tolist() == [
        [0, 1, 2, 3]
    ]


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**16), st.integers(1, 5))
def test_finer_bins_never_say_less(seed, power):
    """Bins of half the width split cells and join none; both their entropy and what they tell of labels can only rise."""
    features, labels = gaussian(60, 3, seed), np.arange(60) % 3
    found = [cells_of(features, EqualWidth(-4.0, 4.0, 2**p)) for p in range(power, power + 3)]
    for coarse, fine in pairwise(found):
        assert fine.entropy >= coarse.entropy - 1e-12
        assert shared_information(fine, labels).bits >= shared_information(coarse, labels).bits - 1e-12


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**16))
def test_equal_counts_ignore_an_increasing_function(seed):
    """The fall that saturation and bins of one width show is not there: the cells before and after tanh are the same."""
    features = gaussian(200, 3, seed)
    before, after = (
        cells_of(f, Edges.equal_count(np.sort(f, axis=None), 12)) for f in (features, np.tanh(3 * features))
    )
    assert (before.index == after.index).all()


def test_equal_counts_are_equal():
    values = np.random.default_rng(0).permutation(3000).astype(float)
    rule = Edges.equal_count(np.sort(values), 30)
    assert np.bincount(rule.codes(values[:, None])[:, 0]).tolist() == [100] * 30


def test_half_zeros_share_one_bin():
    """A rectifier's zeros stay together, and the other half fills the other half of the bins."""
    values = np.maximum(np.linspace(-1.0, 1.0, 4001), 0.0)
    rule = Edges.equal_count(np.sort(values), 30)
    counts = np.bincount(rule.codes(values[:, None])[:, 0])
    counts = counts[counts > 0]
    assert counts[0] == 2001
    assert 15 <= len(counts) <= 16
    assert counts[1:].max() <= 134


def test_a_fixed_width_is_that_of_floor():
    features = gaussian(500, 2)
    cells = cells_of(features, FixedWidth(0.07, features.min(), features.max()))
    twin = [tuple(math.floor(value / 0.07) for value in row) for row in features.tolist()]
    assert cells.entropy == pytest.approx(loop_entropy(twin), abs=1e-12)


@pytest.mark.parametrize(("width", "high"), [(0.0, 1.0), (-1.0, 1.0), (0.07, 1e30), (math.nan, 1.0)])
def test_a_width_that_cuts_nothing_is_refused(width, high):
    with pytest.raises(ValueError, match=r"width above 0|too narrow"):
        FixedWidth(width, 0.0, high)


def test_distinct_inputs_tell_all_of_the_cells():
    """I(X;T) is H(T) where all inputs differ: the loop over inputs computes zero."""
    cells = cells_of(gaussian(300, 2), EqualWidth(-3.0, 3.0, 10))
    assert shared_information(cells, np.arange(300)).bits == pytest.approx(cells.entropy, abs=1e-12)


def test_repeated_inputs():
    """Inputs that occur twice have H(X) as their ceiling; places of one image that differ are not known from the image."""
    inputs = np.arange(200) // 2
    same = gaussian(100, 2)[inputs]
    cells = cells_of(same, EqualWidth(-3.0, 3.0, 200))
    found = shared_information(cells, inputs)
    assert found.bits == pytest.approx(cells.entropy, abs=1e-12)
    assert found.ceiling == pytest.approx(math.log2(100), abs=1e-12)
    differing = cells_of(gaussian(200, 1), EqualWidth(-3.0, 3.0, 4))
    pairs = list(zip(differing.index.tolist(), inputs.tolist(), strict=True))
    loss = sum(2 / 200 * loop_entropy([cell for cell, i in pairs if i == one]) for one in range(100))
    assert shared_information(differing, inputs).bits == pytest.approx(differing.entropy - loss, abs=1e-12)


def test_miller_madow_is_nearer_to_the_truth():
    """On uniform cells the plug-in is too low by (K - 1) / 2n nats, and the correction takes that away."""
    draws = [np.random.default_rng(seed).integers(0, 64, 400) for seed in range(40)]
    cells = [Cells(d, np.bincount(d, minlength=64)) for d in draws]
    plain, corrected = (np.array([getattr(c, name) for c in cells]) for name in ("entropy", "miller_madow"))
    error = corrected.std() / math.sqrt(40)
    assert plain.mean() == pytest.approx(6.0 - 63 / 800 / math.log(2), abs=0.02)
    assert abs(corrected.mean() - 6.0) < 0.01 + 3 * error
    labels = np.arange(400) % 4
    found = shared_information(cells[0], labels)
    joint = Cells(*np.unique(cells[0].index * 4 + labels, return_inverse=True, return_counts=True)[1:])
    own = Cells(labels, np.bincount(labels))
    expected = cells[0].miller_madow + own.miller_madow - joint.miller_madow
    assert found.miller_madow == pytest.approx(expected, abs=1e-12)


def test_singletons():
    assert Cells(np.array([0, 0, 1, 2]), np.array([2, 1, 1])).singletons == pytest.approx(2 / 3)
    assert entropy(np.array([7])) == 0.0


def test_labels_that_mean_nothing_read_as_nothing():
    """On noise the plug-in reads 0.2 bits and more; what is left after the null is 0, within the null."""
    z, p, debiased, rng = [], [], [], np.random.default_rng(7)
    for seed in range(60):
        cells = cells_of(rng.standard_normal((300, 1)), EqualWidth(-3.0, 3.0, 20))
        labels = rng.integers(0, 5, 300)
        found = shared_information(cells, labels, shuffled(labels, 30, seed))
        assert found.bits > 0.1
        z.append(found.z)
        p.append(found.p_value)
        debiased.append(found.debiased)
    assert abs(np.mean(debiased)) < 4 * np.std(debiased) / math.sqrt(60)
    assert abs(np.mean(z)) < 4 / math.sqrt(60)
    assert 0.6 < np.std(z) < 1.5
    assert np.mean(np.array(z) > 3) < 0.1
    assert abs(np.mean(p) - 0.5) < 4 * 0.3 / math.sqrt(60)


def test_a_label_that_is_told_is_far_out_of_the_null():
    labels = np.arange(400) % 4
    cells = cells_of(labels[:, None] + 0.1 * gaussian(400, 1), EqualWidth(-0.5, 3.5, 4))
    found = shared_information(cells, labels, shuffled(labels, 20, 0))
    assert found.bits == pytest.approx(2.0, abs=0.01)
    assert found.debiased > 1.9
    assert found.z > 50
    assert found.p_value == pytest.approx(1 / 21)


def test_where_no_two_share_a_cell_labels_tell_nothing_and_all():
    """Every labelling reads H(Y): the deviation of the null is exactly 0, and there is no z."""
    labels = np.random.default_rng(0).integers(0, 3, 200)
    found = shared_information(Cells(np.arange(200), np.ones(200, dtype=np.int64)), labels, shuffled(labels, 20, 0))
    assert found.bits == pytest.approx(found.ceiling, abs=1e-12)
    assert found.debiased == 0.0
    assert found.null_sd == 0.0
    assert math.isnan(found.z)
    assert found.p_value == 1.0


def test_one_cell_and_one_class():
    one = Cells(np.zeros(50, dtype=np.int64), np.array([50]))
    labels = np.arange(50) % 2
    found = shared_information(one, labels, shuffled(labels, 5, 0))
    assert (found.bits, found.null_mean, found.null_sd) == (0.0, 0.0, 0.0)
    single = shared_information(cells_of(gaussian(50, 2), EqualWidth(-3.0, 3.0, 5)), np.zeros(50, dtype=np.int64))
    assert (single.bits, single.ceiling) == (0.0, 0.0)
    assert math.isnan(single.null_mean)


def test_many_classes_are_counted_the_other_way():
    """The table of pairs would be too large: rows are sorted instead, with the same result."""
    rng = np.random.default_rng(3)
    index, labels = rng.integers(0, 3000, 20_000), rng.integers(0, 1500, 20_000)
    cells = Cells(*np.unique(index, return_inverse=True, return_counts=True)[1:])
    expected = loop_entropy(index.tolist()) + loop_entropy(labels.tolist())
    expected -= loop_entropy(zip(index.tolist(), labels.tolist(), strict=True))
    assert shared_information(cells, labels, shuffled(labels, 2, 0)).bits == pytest.approx(expected, abs=1e-9)


def test_shuffles_keep_examples_of_one_image_together():
    blocks = np.repeat(np.arange(30), 4)
    labels = np.repeat(np.random.default_rng(0).integers(0, 3, 30), 4)
    rows = shuffled(labels, 7, seed=1, blocks=blocks)
    assert rows.shape == (7, 120)
    assert (rows.reshape(7, 30, 4) == rows.reshape(7, 30, 4)[..., :1]).all()
    assert all(sorted(row) == sorted(labels) for row in rows.tolist())
    assert (shuffled(labels, 7, seed=1, blocks=blocks) == rows).all()


def test_places_of_an_image_do_not_count_as_so_many_examples():
    """With rows shuffled singly, noise that is shared within an image looks like information about its label."""
    blocks = np.repeat(np.arange(60), 8)
    z = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        features = rng.standard_normal((60, 1))[blocks]
        labels = rng.integers(0, 2, 60)[blocks]
        cells = cells_of(features, EqualWidth(-2.0, 2.0, 10))
        z.append([shared_information(cells, labels, shuffled(labels, 20, 0, b)).z for b in (None, blocks)])
    singly, together = np.mean(z, axis=0)
    assert singly > 5
    assert abs(together) < 1.5


@pytest.mark.parametrize("shape", [(0, 3), (4,)])
def test_shapes_that_are_no_sample(shape):
    with pytest.raises(ValueError, match="n > 0"):
        cells_of(np.zeros(shape), EqualWidth(0.0, 1.0, 3))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_none(bad):
    features = gaussian(20, 2)
    features[3, 1] = bad
    with pytest.raises(ValueError, match="1 of 40"):
        cells_of(features, EqualWidth(-3.0, 3.0, 5))


def test_many_examples_of_many_units():
    """Where seeing whether all are told apart would cost, it waits until the digits are used up."""
    base = np.random.default_rng(0).integers(0, 40, (20_000, 25)).astype(float)
    base[10_000:] = base[:10_000]
    cells = cells_of(base, EqualWidth(-0.5, 39.5, 40))
    assert (cells.counts == 2).all()
    assert (cells.index[:10_000] == cells.index[10_000:]).all()


def test_units_and_examples_of_none_and_one():
    assert cells_of(np.zeros((5, 0)), EqualWidth(0.0, 1.0, 3)).entropy == 0.0
    assert cells_of(np.ones((1, 3)), EqualWidth(0.0, 1.0, 3)).entropy == 0.0
    with pytest.raises(ValueError, match="shape"):
        shared_information(cells_of(np.ones((3, 1)), EqualWidth(0.0, 1.0, 3)), np.zeros(2, dtype=np.int64))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_types(dtype):
    features = (gaussian(300, 2) * 4).round() / 4
    cells = cells_of(features.astype(dtype), EqualWidth(-3.1, 3.3, 16))
    assert cells.entropy == pytest.approx(cells_of(features, EqualWidth(-3.1, 3.3, 16)).entropy, abs=1e-12)
