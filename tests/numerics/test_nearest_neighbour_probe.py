"""Votes of neighbours: scikit-learn's leave-one-out, ties, pictures with several rows, and noise."""

import numpy as np
import pytest
import torch
from sklearn.model_selection import LeaveOneOut, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier

from stratoscope.numerics.nearest_neighbour_probe import neighbour_probe
from stratoscope.numerics.neighbours import nearest_neighbours


def blobs(n, width, classes, seed, apart=1.0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    centres = apart * torch.randn(classes, width, generator=generator)
    return centres[labels] + torch.randn(n, width, generator=generator), labels


@pytest.mark.parametrize("k", [1, 3, 15])
def test_two_classes_and_an_odd_number_of_votes_are_scikit_learns_leave_one_out(k):
    features, labels = blobs(90, 4, 2, k, apart=0.7)
    index = nearest_neighbours(features, 15).index
    guesses = cross_val_predict(KNeighborsClassifier(k), features.numpy(), labels.numpy(), cv=LeaveOneOut())
    assert neighbour_probe(index, labels, k=k).share == pytest.approx(float(np.mean(guesses == labels.numpy())))


def test_of_classes_with_as_many_votes_the_nearer_neighbours_win():
    labels = torch.tensor([0, 0, 1, 1, 1])
    others = [[1] * 4, [0] * 4, [3] * 4, [2] * 4]
    for last, right in (([2, 0, 1, 3], 1.0), ([0, 2, 3, 1], 0.8)):
        assert neighbour_probe(torch.tensor([*others, last]), labels, permutations=0).share == right


def test_rows_of_one_picture_do_not_vote_for_each_other():
    labels = torch.tensor([0, 0, 1, 1, 0, 0])
    group = torch.tensor([0, 0, 1, 1, 2, 2])
    index = torch.tensor([[1, 4], [0, 2], [3, 0], [2, 5], [5, 0], [4, 5]])
    found = neighbour_probe(index, labels, k=2, group=group, permutations=0)
    # the last row has no vote but that of its own picture: left out
    assert (found.n, found.examples) == (5, 3)
    assert found.share == pytest.approx(2 / 5)


def test_classes_that_are_left_out_neither_vote_nor_count():
    labels = torch.tensor([0, 0, 1, 1, -1])
    index = torch.tensor([[4, 1], [4, 0], [4, 3], [4, 2], [0, 1]])
    found = neighbour_probe(index, labels, permutations=3)
    assert (found.n, found.share, found.chance) == (4, 1.0, 0.5)


def test_noise_reads_what_shuffled_labels_read_and_a_little_less_than_chance():
    features, labels = blobs(400, 6, 4, 0, apart=0.0)
    index = nearest_neighbours(features, 20).index
    found = neighbour_probe(index, labels, permutations=40)
    assert abs(found.share - found.null_mean) < 4 * found.null_sd
    assert 0.2 < found.null_mean < found.chance
    assert found.low < found.chance


def test_clear_clusters_are_read():
    features, labels = blobs(200, 6, 4, 0, apart=20.0)
    found = neighbour_probe(nearest_neighbours(features, 20).index, labels)
    assert (found.share, found.balanced) == (1.0, 1.0)


def test_many_classes_and_shuffles_go_in_pieces(monkeypatch):
    features, labels = blobs(100, 3, 5, 1)
    index = nearest_neighbours(features, 7).index
    whole = neighbour_probe(index, labels, permutations=9)
    monkeypatch.setattr("stratoscope.numerics.nearest_neighbour_probe._NUMBERS", 1)
    assert neighbour_probe(index, labels, permutations=9) == whole


@pytest.mark.parametrize(("labels", "k"), [(4, None), (5, 3), (5, 0)])
def test_shapes_that_do_not_fit_are_refused(labels, k):
    with pytest.raises(ValueError, match="5 examples with 2 neighbours"):
        neighbour_probe(torch.zeros(5, 2, dtype=torch.int64), torch.zeros(labels, dtype=torch.int64), k=k)
