"""Moments within and between classes: the law of total covariance, merging, collapsed classes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from stratoscope.numerics.scatter import WIDE, Scatter


def drawn(n=60, width=5, classes=4, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (n,), generator=generator) * 3 - 2
    return torch.randn(n, width, generator=generator, dtype=dtype) + labels[:, None], labels


def scatter_of(rows, labels=None, size=None):
    scatter = Scatter()
    for start in range(0, len(rows), size or len(rows)):
        part = slice(start, start + (size or len(rows)))
        scatter.update(rows[part], None if labels is None else labels[part])
    return scatter


def same(one, other, tolerance=1e-9):
    assert (one.n, one.classes, one.counts.tolist()) == (other.n, other.classes, other.counts.tolist())
    for name in ("mean", "means", "within", "between", "covariance", "second", "spreads"):
        assert_close(getattr(one, name), getattr(other, name), rtol=tolerance, atol=tolerance)


def test_every_moment_is_what_its_definition_says():
    rows, labels = drawn()
    found = scatter_of(rows, labels).result()
    assert found.classes == tuple(labels.unique().tolist())
    assert found.width == 5
    within = torch.zeros(5, 5, dtype=torch.float64)
    for place, name in enumerate(found.classes):
        own = rows[labels == name]
        assert_close(found.means[place], own.mean(0))
        assert int(found.counts[place]) == len(own)
        assert_close(found.spreads[place], (own - own.mean(0)).square().sum(1).mean())
        within += (own - own.mean(0)).T @ (own - own.mean(0)) / len(rows)
    assert_close(found.within, within)
    assert_close(found.covariance, torch.cov(rows.T, correction=0))
    assert_close(found.second, rows.T @ rows / len(rows))
    assert_close(found.mean, rows.mean(0))


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 30), st.integers(1, 6), st.integers(1, 40), st.integers(0, 100))
def test_how_the_rows_are_cut_changes_nothing(n, classes, size, seed):
    rows, labels = drawn(n, 3, classes, seed)
    whole = scatter_of(rows, labels).result()
    same(scatter_of(rows, labels, size).result(), whole)
    first, second = scatter_of(rows[: n // 2], labels[: n // 2]) if n > 1 else Scatter(), Scatter()
    second.update(rows[n // 2 if n > 1 else 0 :], labels[n // 2 if n > 1 else 0 :])
    first.merge(second)
    same(first.result(), whole)


def test_collapsed_classes_far_from_zero_keep_their_digits_in_float32():
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(400) % 4
    centres = 10 * torch.randn(4, 8, generator=generator)
    noise = 1e-4 * torch.randn(400, 8, generator=generator)
    rows = centres[labels] + noise
    exact = scatter_of(rows.double(), labels).result()
    found = scatter_of(rows, labels, 64).result()
    assert_close(found.within, exact.within, rtol=1e-6, atol=1e-16)
    assert float(found.spreads.mean()) == pytest.approx(8e-8, rel=0.1)


def test_wide_float32_rows_are_multiplied_in_float32_and_summed_in_float64():
    generator = torch.Generator().manual_seed(2)
    rows = torch.randn(300, WIDE + 40, generator=generator) + 100
    found = scatter_of(rows, None, 50).result()
    assert found.within.dtype == torch.float64
    assert_close(found.covariance, torch.cov(rows.double().T, correction=0), rtol=1e-4, atol=1e-5)


def test_without_labels_there_is_one_covariance():
    rows, labels = drawn()
    scatter = scatter_of(rows)
    found = scatter.result()
    assert found.classes == ()
    assert_close(found.covariance, torch.cov(rows.T, correction=0))
    scatter.update(rows, labels)
    mixed = scatter.result()
    assert mixed.classes == ()
    assert mixed.n == 120
    assert_close(mixed.covariance, torch.cov(torch.cat([rows, rows]).T, correction=0))


def test_one_row_has_no_scatter():
    found = scatter_of(torch.tensor([[3.0, 4.0]]), torch.tensor([7])).result()
    assert found.within.tolist() == [[0.0, 0.0], [0.0, 0.0]]
    assert found.mean.tolist() == [3.0, 4.0]


def test_nan_spreads_to_what_it_is_part_of():
    rows, labels = drawn()
    rows[0, 0] = torch.nan
    found = scatter_of(rows, labels).result()
    assert found.covariance[0].isnan().all()
    assert found.covariance[1:, 1:].isfinite().all()


def test_half_precision_and_integers_are_summed_in_float64():
    for dtype in (torch.float16, torch.bfloat16, torch.int32):
        rows = torch.tensor([[1, 2], [3, 6]]).to(dtype)
        assert scatter_of(rows).result().covariance.tolist() == [[1.0, 2.0], [2.0, 4.0]]


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="no rows yet"):
        Scatter().result()
    with pytest.raises(ValueError, match="shape"):
        Scatter().update(torch.zeros(3))
    with pytest.raises(ValueError, match="as many labels"):
        Scatter().update(torch.zeros(3, 2), torch.zeros(2, dtype=torch.int64))
    scatter = scatter_of(torch.zeros(2, 2))
    with pytest.raises(ValueError, match="holds 2 columns; there came 3"):
        scatter.update(torch.zeros(2, 3))
    scatter.update(torch.zeros(0, 2))
    assert scatter.count == 2


def test_what_is_merged_in_is_not_added_to():
    """One batch's moments are shared by all sites that give the same tensor."""
    rows, labels = drawn()
    shared, first, second = scatter_of(rows, labels), Scatter(), Scatter()
    for whole in (first, second):
        whole.merge(shared)
        whole.merge(scatter_of(rows + 1, labels))
    assert shared.count == len(rows)
    assert first.count == second.count == 2 * len(rows)
    assert_close(shared.result().means, scatter_of(rows, labels).result().means)
    assert_close(first.result().means, second.result().means)
