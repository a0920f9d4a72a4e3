"""Positions as rows of their own."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from stratoscope.capture.activations import Activations
from stratoscope.capture.views import Capture
from stratoscope.network.subject import Subject
from stratoscope.testing import SUBJECTS


def sample(subject, need, layer, **more):
    return Capture(subject, frozenset({need}), **more).value(need, subject.catalogue[layer], "data")


@pytest.mark.parametrize("size", [3, 40])
def test_pixels_become_rows_with_the_id_and_label_of_their_example(size):
    subject = replace(SUBJECTS["cnn"](), batch_size=size, _probes={})
    found = sample(subject, Activations(pooling="spatial", positions=100), "3")
    ids = subject.probe_set("data").ids
    with torch.no_grad():
        maps = subject.model.eval()[:4](subject.data[0])[ids]
    assert_close(found.features, maps.flatten(2).mT.flatten(0, 1))
    each = maps.flatten(2).shape[2]
    assert found.ids.tolist() == torch.arange(40).repeat_interleave(each).tolist()
    assert found.labels.tolist() == subject.data[1][ids].repeat_interleave(each).tolist()
    assert found.note == f"40 examples, {40 * each} rows: up to 100 positions of each"


def test_a_few_positions_are_the_same_of_every_example_and_chosen_by_seed():
    subject = SUBJECTS["cnn"]()
    all_of_them = sample(subject, Activations(pooling="spatial", positions=100), "3").features.unflatten(0, (40, -1))
    few = sample(subject, Activations(pooling="spatial", positions=5), "3").features.unflatten(0, (40, 5))
    places = [(all_of_them[0] == row).all(1).nonzero()[:, 0].tolist() for row in few[0]]
    assert all(places)
    same = [[i for i in range(all_of_them.shape[1]) if torch.equal(all_of_them[:, i], few[:, j])] for j in range(5)]
    assert all(same)
    other = sample(subject, Activations(pooling="spatial", positions=5, seed=1), "3").features.unflatten(0, (40, 5))
    assert not torch.equal(few, other)


def masked(batch_size):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(9, 6, 3, generator=generator)
    lengths = torch.tensor([6, 1, 4, 2, 6, 3, 5, 1, 2])
    mask = torch.arange(6) < lengths[:, None]
    labels = torch.arange(9) % 2
    parts = [slice(start, start + batch_size) for start in range(0, 9, batch_size)]
    batches = [{"inputs": inputs[part], "attention_mask": mask[part].long(), "labels": labels[part]} for part in parts]
    return inputs, mask, Subject(Tokens(), batches)


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.fc = nn.Linear(3, 4)

    def forward(self, inputs, attention_mask=None):
        return self.fc(inputs)


@pytest.mark.parametrize("size", [2, 9])
def test_real_tokens_alone_become_rows(size):
    inputs, mask, subject = masked(size)
    found = sample(subject, Activations(pooling="spatial", positions=10), "fc")
    order = subject.probe_set("data").ids
    with torch.no_grad():
        values = subject.model(inputs)[order]
    assert_close(found.features, values[mask[order]])
    assert found.ids.bincount().tolist() == mask[order].sum(1).tolist()
    few = sample(subject, Activations(pooling="spatial", positions=2), "fc")
    assert few.ids.bincount().tolist() == mask[order].sum(1).clamp(max=2).tolist()


def test_the_memory_budget_counts_every_row():
    subject = SUBJECTS["cnn"]()
    need = Activations(pooling="spatial", positions=16)
    whole = sample(subject, need, "3")
    cut = sample(subject, need, "3", memory=whole.features.nbytes // 2)
    assert len(cut.ids.unique()) < 40
    assert torch.equal(cut.features, whole.features[: len(cut.features)])
    assert torch.equal(cut.labels, whole.labels[: len(cut.labels)])
