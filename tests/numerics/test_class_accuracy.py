"""Hits, their interval, and shuffled labels."""

import math

import pytest
import torch
from sklearn.metrics import balanced_accuracy_score

from stratoscope.numerics.class_accuracy import class_accuracy, shuffled_labels
from stratoscope.numerics.intervals import clopper_pearson


def test_shares_are_those_of_scikit_learn():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 4, (200,), generator=generator) ** 2 // 3
    guesses = torch.where(torch.rand(200, generator=generator) < 0.6, labels, torch.zeros_like(labels))
    found = class_accuracy(guesses == labels, labels, 4)
    assert found.share == pytest.approx(float((guesses == labels).double().mean()))
    assert found.balanced == pytest.approx(balanced_accuracy_score(labels, guesses))
    assert found.majority == float(labels.bincount().max()) / 200
    assert (found.chance, found.n, found.examples) == (0.25, 200, 200)
    low, high = clopper_pearson(int((guesses == labels).sum()), 200)
    assert (found.low, found.high) == pytest.approx((float(low), float(high)))
    assert math.isnan(found.by_class[2])  # no square over 3 gives 2
    assert math.isnan(found.null_mean)


def test_rows_of_one_example_count_once_in_the_interval():
    right, labels = torch.tensor([1, 0]).repeat(160), torch.zeros(320, dtype=torch.int64)
    many, few = class_accuracy(right, labels, 2), class_accuracy(right, labels, 2, examples=20)
    assert many.share == few.share == 0.5
    assert few.high - few.low > 3 * (many.high - many.low)


def test_the_null_is_summed_up():
    found = class_accuracy(torch.ones(4), torch.tensor([0, 1, 0, 1]), 2, null=torch.tensor([0.25, 0.75]))
    assert (found.null_mean, found.null_sd) == pytest.approx((0.5, math.sqrt(0.125)))
    one = class_accuracy(torch.ones(4), torch.tensor([0, 1, 0, 1]), 2, null=torch.tensor([0.25]))
    assert one.null_mean == 0.25
    assert math.isnan(one.null_sd)


def test_nothing_guessed_is_no_number():
    found = class_accuracy(torch.empty(0), torch.empty(0, dtype=torch.int64), 3)
    assert all(map(math.isnan, (found.share, found.low, found.high, found.balanced, found.majority)))


def test_shuffles_keep_the_sizes_the_groups_and_what_is_left_out():
    labels = torch.tensor([0, 0, 1, 1, 1, 2, -1, -1, 3, 0])
    group = torch.tensor([0, 0, 1, 2, 2, 3, 4, 4, 5, 6])
    first = torch.tensor([0, 2, 3, 5, 6, 8, 9])
    table = shuffled_labels(labels, group, 50, seed=1)
    assert table.shape == (50, 10)
    for row in table:
        assert sorted(row[first].tolist()) == sorted(labels[first].tolist())
        assert bool((row == row[first][group]).all())
        assert row[6:8].tolist() == [-1, -1]
    assert len({tuple(row.tolist()) for row in table}) > 20
    assert torch.equal(table, shuffled_labels(labels, group, 50, seed=1))
    assert shuffled_labels(labels, group, 0, seed=1).shape == (0, 10)


def test_shuffles_within_parts_leave_each_part_its_labels():
    generator = torch.Generator().manual_seed(3)
    group = torch.arange(60) // 2
    labels = torch.randint(-1, 4, (30,), generator=generator)[group]
    within = torch.randint(0, 3, (30,), generator=generator)[group]
    table = shuffled_labels(labels, group, 30, seed=1, within=within)
    for row in table:
        assert bool((row[::2] == row[1::2]).all())
        assert torch.equal(row < 0, labels < 0)
        for part in range(3):
            assert row[within == part].sort().values.tolist() == labels[within == part].sort().values.tolist()
    assert len({tuple(row.tolist()) for row in table}) == 30
    one = torch.zeros_like(within)
    assert torch.equal(shuffled_labels(labels, group, 5, seed=1, within=one), shuffled_labels(labels, group, 5, seed=1))
