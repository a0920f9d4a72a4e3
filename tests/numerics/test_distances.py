"""The blocked distance pass against whole matrices."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stratoscope.numerics import distances
from stratoscope.numerics.distances import ClassSums, PairAccumulator, Points, RelabelledSums, pair_pass


class Whole(PairAccumulator):
    """Puts the blocks together again, in both orders."""

    def __init__(self, n):
        self.matrix = torch.full((n, n), torch.nan, dtype=torch.float64)
        self.seen = torch.zeros(n, n)

    def update(self, distances, rows, columns):
        self.matrix[rows, columns] = distances.double()
        self.matrix[columns, rows] = distances.double().T
        self.seen[rows, columns] += 1


def gaussian(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.fixture(params=[7, 64])
def small_blocks(request, monkeypatch):
    monkeypatch.setattr(distances, "_BLOCK_ROWS", request.param)


@pytest.mark.usefixtures("small_blocks")
@given(n=st.integers(1, 40), width=st.integers(1, 6), seed=st.integers(0, 2**31))
@settings(deadline=None, max_examples=25)
def test_every_pair_is_shown_once_at_its_distance(n, width, seed):
    values, whole = gaussian(n, width, seed=seed), Whole(n)
    pair_pass(Points(values), [whole])
    torch.testing.assert_close(whole.matrix, torch.cdist(values, values, compute_mode="donot_use_mm_for_euclid_dist"))
    assert torch.equal(whole.matrix.diagonal(), torch.zeros(n, dtype=torch.float64))
    off = ~torch.eye(n, dtype=torch.bool)
    shown = whole.seen.maximum(whole.seen.T)[off]
    assert n == 1 or (shown.min() == 1 and shown.max() == 1)


@pytest.mark.usefixtures("small_blocks")
def test_class_sums_and_relabelled_sums_agree_with_the_whole_matrix():
    values, labels = gaussian(50, 3), torch.arange(50) % 4
    tables = torch.stack(
        [labels, labels.flip(0), labels[torch.randperm(50, generator=torch.Generator().manual_seed(0))]]
    )
    counts = labels.bincount()
    sums, relabelled = ClassSums(labels, 4), RelabelledSums(tables, counts)
    pair_pass(Points(values), [sums, relabelled])
    matrix = torch.cdist(values, values)
    hot = torch.nn.functional.one_hot(labels).double()
    torch.testing.assert_close(sums.by_point, (matrix @ hot).T)
    torch.testing.assert_close(sums.by_pair, hot.T @ matrix @ hot)
    for place, table in enumerate(tables):
        hot = torch.nn.functional.one_hot(table).double()
        torch.testing.assert_close(relabelled.within[place], (hot.T @ matrix @ hot).diagonal())
        weight = hot @ (1 / counts.double())
        torch.testing.assert_close(relabelled.weighted[place], weight @ matrix @ weight)


def test_points_are_chosen_shifted_and_scaled_as_they_are_read():
    values, index = gaussian(20, 3, dtype=torch.float32), torch.tensor([4, 1, 19, 7])
    shift, scale = values.mean(0).double(), torch.tensor([1.0, 0.0, 2.0], dtype=torch.float64)
    points = Points(values, index, shift, scale)
    expected = ((values[index] - shift) * scale).float()
    assert len(points) == 4
    torch.testing.assert_close(points.block(slice(1, 3)), expected[1:3])
    whole = Whole(4)
    pair_pass(points, [whole])
    torch.testing.assert_close(whole.matrix.float(), torch.cdist(expected, expected))


def test_a_shift_saves_the_digits_of_a_tight_cluster():
    cluster = 1e-4 * gaussian(30, 50) + gaussian(50, seed=1)
    truth = torch.cdist(cluster, cluster, compute_mode="donot_use_mm_for_euclid_dist")
    whole = Whole(30)
    pair_pass(Points(cluster.float(), shift=cluster.mean(0)), [whole])
    off = ~torch.eye(30, dtype=torch.bool)
    torch.testing.assert_close(whole.matrix[off], truth[off], rtol=2e-3, atol=0)  # the rounding of the input itself


def test_types_and_blocks():
    assert Points(gaussian(2, 2)).dtype == torch.float64
    for dtype in (torch.float32, torch.bfloat16, torch.int64):
        assert Points(torch.ones(2, 2, dtype=dtype)).dtype == torch.float32
    wide = [s.stop - s.start for s in Points(torch.empty(1000, 4096, device="meta")).slices()]
    assert max(wide) == 256
    assert sum(wide) == 1000
