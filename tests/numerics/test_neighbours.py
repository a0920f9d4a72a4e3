"""Nearest neighbours: the full matrix, tight clusters far away, ties."""

import pytest
import torch
from torch.testing import assert_close

from stratoscope.numerics.neighbours import nearest_neighbours


def plain(features, k):
    squares = (features.double()[:, None] - features.double()).square().sum(2).fill_diagonal_(torch.inf)
    return squares.sqrt().sort(1).values[:, :k]


@pytest.mark.parametrize(("n", "k"), [(2, 1), (30, 5), (30, 29), (600, 20), (1100, 3)])
def test_they_are_those_of_the_full_matrix(n, k):
    features = torch.randn(n, 4, generator=torch.Generator().manual_seed(n))
    found = nearest_neighbours(features, k)
    assert_close(found.distances, plain(features, k), rtol=2e-5, atol=1e-6)
    assert found.distances.shape == found.index.shape == (n, k)
    there = (features.double()[found.index] - features.double()[:, None]).norm(dim=2)
    assert_close(there, found.distances, rtol=1e-5, atol=1e-6)
    assert not (found.index == torch.arange(n)[:, None]).any()
    assert all(len(set(row)) == k for row in found.index.tolist())


def test_a_tight_cluster_far_from_the_others_keeps_its_digits():
    generator = torch.Generator().manual_seed(0)
    cluster = 100 + 1e-2 * torch.rand(40, 3, generator=generator, dtype=torch.float64)
    features = torch.cat([cluster, torch.zeros(40, 3, dtype=torch.float64)])
    assert_close(nearest_neighbours(features, 3).distances[:40], plain(features, 3)[:40], rtol=1e-9, atol=0)


def test_copies_are_at_distance_zero():
    features = torch.randn(20, 3, generator=torch.Generator().manual_seed(0)).repeat(2, 1)
    assert nearest_neighbours(features, 1).distances.abs().max() == 0


@pytest.mark.parametrize("k", [0, 3])
def test_more_neighbours_than_others_are_refused(k):
    with pytest.raises(ValueError, match=f"has 2 others; k={k}"):
        nearest_neighbours(torch.zeros(3, 1), k)


@pytest.mark.parametrize("spread", [1e-2, 1e-4])
def test_tight_clusters_of_many_units_keep_their_neighbours_in_float32(spread):
    generator = torch.Generator().manual_seed(0)
    centres = 5 * torch.randn(4, 600, generator=generator)
    features = centres[torch.arange(200) % 4] + spread * torch.randn(200, 600, generator=generator)
    assert_close(nearest_neighbours(features, 5).distances, plain(features, 5), rtol=1e-4, atol=0)
