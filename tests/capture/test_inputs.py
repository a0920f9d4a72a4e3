"""The network's inputs, at hand beside every layer."""

import pytest
import torch
from torch import nn

from stratoscope.capture.inputs import Inputs
from stratoscope.capture.views import Capture
from stratoscope.errors import NotApplicable, SettingError
from stratoscope.network.subject import Subject
from stratoscope.numerics.sketch import count_sketch
from stratoscope.testing.subjects import SUBJECTS


def captured(subject, need=None, **settings):
    need = need or Inputs()
    capture = Capture(subject, frozenset({need}), **settings)
    split = next(iter(subject.splits))
    capture.run(split)
    return capture, split, need


def values(subject, need=None, **settings):
    capture, split, need = captured(subject, need, **settings)
    return {layer.name: capture.value(need, layer, split) for layer in capture.layers()}


def given(subject):
    """The inputs in the order of the probe set."""
    return torch.cat([batch.args[0] for batch in subject.probe_set(next(iter(subject.splits))).batches])


def refusal(subject, need=None):
    capture, split, need = captured(subject, need)
    with pytest.raises(NotApplicable) as caught:
        capture.value(need, capture.layers()[0], split)
    return str(caught.value)


@pytest.mark.parametrize("name", ["mlp", "cnn", "residual", "conv3d", "lstm", "lstm_time_first", "repeated"])
def test_every_layer_has_the_same_inputs_in_the_order_of_the_probe_set(name):
    subject = SUBJECTS[name]()
    found = values(subject)
    assert len({id(one) for one in found.values()}) == 1
    one = next(iter(found.values()))
    torch.testing.assert_close(one.values, given(subject).flatten(1))
    assert one.ids.tolist() == list(range(40))
    assert one.numbers == one.values.shape[1]
    assert one.shape == tuple(given(subject).shape[1:])


def test_wide_inputs_are_projected_and_few_examples_kept():
    subject = SUBJECTS["cnn"]()
    one = values(subject, Inputs(n=10, width=16, seed=3))["0"]
    torch.testing.assert_close(one.values, count_sketch(given(subject)[:10].flatten(1), 16, seed=3))
    assert (one.numbers, one.ids.tolist()) == (128, list(range(10)))
    assert one.note == "input '0', projected from 128 to 16 numbers"


def test_how_the_data_are_cut_into_batches_changes_nothing():
    whole, parts = SUBJECTS["cnn"](), SUBJECTS["cnn"]()
    parts = Subject(parts.model, parts.data, batch_size=7)
    assert torch.equal(values(whole)["0"].values, values(parts)["0"].values)


def test_the_memory_budget_cuts_all_layers_alike():
    found = values(SUBJECTS["cnn"](), memory=10 * 128 * 4)
    assert {len(one.ids) for one in found.values()} == {10}
    assert len({id(one) for one in found.values()}) == 1


def test_they_are_counted_once_and_not_at_every_layer():
    found = values(SUBJECTS["cnn"](), memory=40 * 128 * 4)
    assert {len(one.ids) for one in found.values()} == {40}


def test_half_precision_is_widened_and_double_kept():
    assert values(SUBJECTS["float16"]())["0"].values.dtype == torch.float32
    subject = SUBJECTS["mlp"]()
    assert values(Subject(subject.model.double(), subject.data))["0"].values.dtype == torch.float64


def test_bytes_of_pictures_are_numbers():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(12, 2)

        def forward(self, x):
            return self.fc(x.flatten(1) / 255)

    pictures = torch.arange(40 * 12, dtype=torch.uint8).reshape(40, 1, 3, 4)
    one = values(Subject(Scaled(), (pictures, torch.arange(40) % 2)))["fc"]
    assert one.values.dtype == torch.float32
    assert one.values.max() == 255


def test_tokens_are_no_numbers_to_predict():
    assert "'input_ids' (int64)" in refusal(SUBJECTS["transformer"]())


def test_a_network_that_writes_to_its_inputs_is_refused():
    model = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(3, 2))
    subject = Subject(model, (torch.randn(30, 3, generator=torch.Generator().manual_seed(0)), torch.arange(30) % 2))
    assert refusal(subject) == "the network writes to its inputs while it computes"


def test_inputs_of_several_lengths_are_refused():
    class Pooled(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 2)

        def forward(self, x):
            return self.fc(x).mean(1)

    batches = [(torch.ones(4, length, 3), torch.arange(4) % 2) for length in (5, 6)]
    assert refusal(Subject(Pooled(), batches)) == "some inputs have 15 numbers and others 18"


@pytest.mark.parametrize("settings", [{"n": 0}, {"width": 0}])
def test_settings_are_checked(settings):
    with pytest.raises(SettingError, match="must be at least 1"):
        Inputs(**settings)
