"""Streamed moments of a layer: the sample's own moments, however the data are batched."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from stratoscope.capture.activations import Activations
from stratoscope.capture.class_moments import ClassMoments
from stratoscope.capture.views import Capture
from stratoscope.errors import NotApplicable, SettingError
from stratoscope.network.layers import ROOT
from stratoscope.network.subject import Subject
from stratoscope.testing import SUBJECTS


def moments(subject, need, layer):
    return Capture(subject, frozenset({need})).value(need, subject.catalogue[layer], "data")


@pytest.mark.parametrize("pooling", ["gap", "flatten", "spatial"])
def test_they_are_those_of_the_rows_that_a_sample_keeps(pooling):
    subject = SUBJECTS["cnn"]()
    both = {ClassMoments(pooling=pooling), Activations(pooling=pooling)}
    capture = Capture(subject, frozenset(both))
    found, sample = (capture.value(need, subject.catalogue["3"], "data") for need in both)
    found, sample = (found, sample) if hasattr(found, "scatter") else (sample, found)
    rows = sample.features.double()
    assert found.scatter.n == len(rows)
    assert found.examples == 40
    assert_close(found.scatter.covariance, torch.cov(rows.T, correction=0), rtol=1e-6, atol=1e-9)
    assert found.scatter.classes == tuple(sample.labels.unique().tolist())
    for place, name in enumerate(found.scatter.classes):
        assert_close(found.scatter.means[place], rows[sample.labels == name].mean(0), rtol=1e-6, atol=1e-8)
    assert "40 examples" in found.note or "640 rows" in found.note


@pytest.mark.parametrize("size", [1, 7, 40])
def test_how_the_data_are_batched_changes_nothing(size):
    subject = SUBJECTS["mlp"]()
    layer = next(name for name in subject.catalogue.layers if name != ROOT)
    subject = replace(subject, data=subject.data["train"], batch_size=40, _probes={})
    other = replace(subject, batch_size=size, _probes={})
    one, two = moments(subject, ClassMoments(), layer), moments(other, ClassMoments(), layer)
    assert_close(one.scatter.within, two.scatter.within, rtol=1e-5, atol=1e-7)
    assert one.scatter.counts.tolist() == two.scatter.counts.tolist()


def test_wide_layers_are_projected_and_say_so():
    subject = SUBJECTS["cnn"]()
    found = moments(subject, ClassMoments(width=4), "3")
    assert found.projected
    assert found.scatter.width == 4
    assert found.width_from == 6
    assert found.note.endswith("projected from 6 to 4 numbers")


def test_layers_that_give_the_same_share_the_result():
    subject = SUBJECTS["cnn"]()
    need = ClassMoments()
    capture = Capture(subject, frozenset({need}))
    last = list(subject.catalogue.layers)[-1]
    found = [capture.value(need, subject.catalogue[name], "data") for name in (ROOT, last, "3")]
    assert found[0].worked_out is found[1].worked_out
    assert found[0].worked_out is not found[2].worked_out


def test_without_class_labels_there_are_no_classes():
    inputs = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))
    for data in ((inputs,), (inputs, torch.zeros(12, 2)), (inputs, torch.zeros(12))):
        subject = Subject(nn.Sequential(nn.Linear(3, 2)), data if len(data) > 1 else inputs)
        assert moments(subject, ClassMoments(), "0").scatter.classes == ()


@pytest.mark.parametrize("pooling", ["gap", "spatial"])
def test_examples_with_the_ignored_label_are_left_out(pooling):
    inputs = torch.randn(40, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(40) % 4
    ignored = labels == 3
    model, need = nn.Sequential(nn.Conv2d(3, 2, 3)), ClassMoments(pooling=pooling)
    found = moments(Subject(model, (inputs, labels.masked_fill(ignored, -100))), need, "0")
    alone = moments(Subject(model, (inputs[~ignored], labels[~ignored])), need, "0")
    assert found.scatter.classes == (0, 1, 2)
    assert found.examples == alone.examples == 30
    if pooling == "gap":  # spatial positions are drawn by place in the batch
        assert_close(found.scatter.within, alone.scatter.within)
    with pytest.raises(NotApplicable, match="has a label"):
        moments(Subject(model, (inputs, torch.full((40,), -100))), need, "0")


def test_what_makes_no_sense_is_refused():
    with pytest.raises(SettingError, match="choose one of gap, flatten, spatial"):
        ClassMoments(pooling="mean")
    with pytest.raises(SettingError, match="at least 1"):
        ClassMoments(width=0)
    with pytest.raises(SettingError, match="at least 1 position"):
        ClassMoments(pooling="spatial", positions=0)
    batches = [(torch.zeros(4, steps, 3), torch.zeros(4, dtype=torch.int64)) for steps in (5, 6)]
    subject = Subject(nn.Sequential(nn.Linear(3, 2)), batches)
    with pytest.raises(NotApplicable, match="ask for pooling='gap'"):
        moments(subject, ClassMoments(pooling="flatten"), "0")


def test_what_a_later_layer_changes_in_place_was_taken_before():
    generator = torch.Generator().manual_seed(0)
    inputs, labels = torch.randn(20, 3, generator=generator), torch.arange(20) % 2
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace=True))
    found = moments(Subject(model, (inputs, labels)), ClassMoments(), "0").scatter
    with torch.no_grad():
        rows = model[0](inputs).double()
    assert (rows < 0).any()
    assert_close(found.covariance, torch.cov(rows.T, correction=0), rtol=1e-6, atol=1e-9)
