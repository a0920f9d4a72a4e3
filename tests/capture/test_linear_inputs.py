"""What linear layers are given, and what comes after a layer."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from stratoscope.capture.linear_inputs import LinearInputs
from stratoscope.capture.views import Capture, LayerView
from stratoscope.errors import NotApplicable
from stratoscope.network.subject import Subject
from stratoscope.testing.subjects import SUBJECTS, seeded


def captured(subject, need):
    capture = Capture(subject, frozenset([need]))
    capture.run(next(iter(subject.splits)))
    return capture


def view_of(capture, name):
    layer = next(one for one in capture.layers() if one.name == name)
    return LayerView(layer, next(iter(capture.subject.splits)), capture)


class Rooted(nn.Module):
    """A head behind functions that no layer stands for."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 4, 3), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(torch.sqrt(self.conv(x).square().mean((2, 3)) + 1)).log_softmax(1)


def rooted():
    with seeded(0) as generator:
        model = Rooted()
        data = torch.randn(20, 1, 6, 6, generator=generator), torch.arange(20) % 3
    return Subject(model, data, name="rooted")


def test_the_head_is_given_what_its_weight_multiplies():
    subject = rooted()
    need = LinearInputs(n=12)
    sample = view_of(captured(subject, need), "head")[need]
    batches = subject.probe_set("data").batches
    inputs, labels = torch.cat([batch.args[0] for batch in batches]), torch.cat([batch.labels for batch in batches])
    with torch.no_grad():
        expected = torch.sqrt(subject.model.conv(inputs).square().mean((2, 3)) + 1)[:12]
    torch.testing.assert_close(sample.features, expected)
    assert sample.ids.tolist() == list(range(12))
    assert torch.equal(sample.labels, labels[:12])


@pytest.mark.parametrize("batch_size", [3, 20])
def test_batches_change_nothing(batch_size):
    need = LinearInputs()
    sample = view_of(captured(replace(rooted(), batch_size=batch_size, _probes={}), need), "head")[need]
    whole = view_of(captured(rooted(), need), "head")[need]
    torch.testing.assert_close(sample.features, whole.features)
    assert torch.equal(sample.ids, whole.ids)


def test_layers_over_positions_and_other_kinds_keep_nothing():
    need = LinearInputs()
    capture = captured(SUBJECTS["transformer"](), need)
    with pytest.raises(NotApplicable, match="positions of an example, not one vector"):
        view_of(capture, "encoder.layers.0.linear1")[need]
    with pytest.raises(NotApplicable, match="does not look at layers of kind"):
        view_of(capture, "encoder.layers.0.norm1")[need]
    assert view_of(capture, "head")[need].features.shape == (40, 8)


def test_the_memory_budget_cuts_it_like_any_sample():
    need = LinearInputs()
    subject = SUBJECTS["mlp"]()
    capture = Capture(subject, frozenset([need]), memory=2 * 10 * 4 * 24)
    capture.run("train")
    rows = {name: len(view_of(capture, name)[need].ids) for name in ("0", "2", "4")}
    assert set(rows.values()) == {10}


def test_what_comes_after_a_layer():
    subject = SUBJECTS["residual"]()
    capture = captured(subject, LinearInputs())
    names = [layer.name for layer in view_of(capture, "0").after]
    assert set(names) == {"1.conv1", "1.norm1", "1.conv2", "2.conv1", "2.norm1", "2.conv2", "3", "4"}
    assert view_of(capture, "4").after == []
    assert Capture(subject, frozenset([LinearInputs()])).after(subject.catalogue["0"], None) == []


def test_functions_without_a_layer_are_followed():
    view = view_of(captured(rooted(), LinearInputs()), "conv")
    assert [layer.name for layer in view.after] == ["head"]
