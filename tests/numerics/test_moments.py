"""Streaming mean and variance."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stratoscope.numerics.moments import Moments


def over(*batches):
    moments = Moments()
    for batch in batches:
        moments.update(batch)
    return moments


@given(cuts=st.lists(st.integers(0, 40), max_size=6), offset=st.floats(-1e6, 1e6), seed=st.integers(0, 2**31))
@settings(deadline=None, max_examples=25)
def test_any_cut_into_batches_and_processes_gives_the_same(cuts, offset, seed):
    rows = torch.randn(40, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + offset
    bounds = [0, *sorted(cuts), 40]
    parts = [rows[a:b] for a, b in itertools.pairwise(bounds)]
    merged = Moments()
    for part in parts:
        merged.merge(over(part))
    for moments in (over(*parts), merged):
        assert moments.count == 40
        torch.testing.assert_close(moments.mean, rows.mean(0), rtol=1e-13, atol=1e-12)
        torch.testing.assert_close(moments.variance(unbiased=True), rows.var(0), rtol=1e-9, atol=0)
        torch.testing.assert_close(moments.variance(), rows.var(0, correction=0), rtol=1e-9, atol=0)


def test_float32_far_from_zero_keeps_its_digits():
    rows = torch.randn(1000, 2, generator=torch.Generator().manual_seed(0)) + 1e4
    moments = over(*rows.split(37))
    torch.testing.assert_close(moments.variance(), rows.double().var(0, correction=0), rtol=1e-10, atol=0)


def test_wide_batches_are_cut_inside(monkeypatch):
    rows = torch.randn(5, 2**19, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(over(rows).variance(), rows.double().var(0, correction=0))


def test_constant_columns_have_exactly_no_variance_and_bad_values_stay_in_theirs():
    rows = torch.tensor([[0.1, 1.0, 2.0], [0.1, torch.nan, 4.0], [0.1, 2.0, 6.0]])
    variance = over(rows[:1], rows[1:]).variance(unbiased=True)
    assert variance[0] == 0
    assert torch.isnan(variance[1])
    assert variance[2] == 4


def test_merging_leaves_the_other_alone_and_an_empty_one_changes_nothing():
    first, second = over(torch.ones(2, 1)), over(torch.zeros(2, 1))
    empty = Moments()
    empty.merge(second)
    empty.merge(first)
    first.merge(Moments())
    assert second.mean.item() == 0
    assert empty.mean.item() == 0.5
    assert first.count == 2


def test_errors_say_what_was_there():
    with pytest.raises(ValueError, match="no rows yet"):
        _ = Moments().mean
    with pytest.raises(ValueError, match=r"\(3,\)"):
        over(torch.ones(3))
    with pytest.raises(ValueError, match="2 columns; there came 3"):
        over(torch.ones(1, 2), torch.ones(1, 3))
