"""Needs that are worked out together from one sample."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from stratoscope.capture import pairs
from stratoscope.capture.activations import Activations
from stratoscope.capture.needs import Initial, Previous, innermost
from stratoscope.capture.pairs import ClassDistances, KernelSums, Neighbours
from stratoscope.capture.views import Capture
from stratoscope.errors import CaptureError, NotApplicable, SettingError
from stratoscope.network.layers import ROOT
from stratoscope.network.subject import Subject
from stratoscope.numerics.neighbours import nearest_neighbours
from stratoscope.numerics.separation import gdv
from stratoscope.testing import SUBJECTS
from stratoscope.testing.views import SampleView

OF = Activations()


def test_one_pass_serves_all_of_them(monkeypatch):
    subject = SUBJECTS["cnn"]()
    passes = []
    monkeypatch.setattr(
        pairs, "pair_pass", lambda points, held, real=pairs.pair_pass: passes.append(real(points, held))
    )
    needs = {
        KernelSums(OF),
        KernelSums(OF, (("absolute", 2.0),)),
        Neighbours(OF, 3),
        Neighbours(OF, 7),
        ClassDistances(OF),
    }
    capture = Capture(subject, frozenset(needs | {OF}))
    last = list(subject.catalogue.layers)[-1]
    found = {need: capture.value(need, subject.catalogue[last], "data") for need in needs}
    assert len(passes) == 1
    assert capture.value(Neighbours(OF, 7), subject.catalogue[ROOT], "data") is found[Neighbours(OF, 7)]
    assert len(passes) == 1, "the network gives what its last layer gives"
    sample = capture.value(OF, subject.catalogue[last], "data")
    near = nearest_neighbours(sample.features, 7)
    assert_close(found[Neighbours(OF, 7)].distances, near.distances, rtol=1e-5, atol=1e-6, check_dtype=False)
    assert_close(found[Neighbours(OF, 3)].distances, near.distances[:, :3], rtol=1e-5, atol=1e-6, check_dtype=False)
    assert found[ClassDistances(OF)] == gdv(sample.features, sample.labels)
    assert found[KernelSums(OF)].sums.shape == (2, 4, 40)


def test_the_sample_is_gathered_without_anybody_else_asking_for_it():
    subject = SUBJECTS["cnn"]()
    capture = Capture(subject, frozenset({Neighbours(OF, 2)}))
    assert capture.streamed == [OF]
    assert capture.value(Neighbours(OF, 2), subject.catalogue["0"], "data").index.shape == (40, 2)
    with pytest.raises(CaptureError, match="was not captured"):
        capture.value(OF, subject.catalogue["0"], "data")


def test_variances_are_relative_to_the_mean_unit_or_absolute():
    features = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 2.0, 3.0])
    need = KernelSums(OF, (("relative", 0.5), ("absolute", 0.25)))
    found = SampleView(features, torch.arange(50) % 2)[need]
    unit = float(features.double().var(0, correction=0).mean())
    assert found.variances.tolist() == pytest.approx([0.5 * unit, 0.25])
    squares = torch.cdist(features.double(), features.double()).square()
    for place, factor in enumerate((1, 4)):
        plain = (-squares / (2 * factor * 0.5 * unit)).exp().sum(1)
        assert_close(found.sums[place, 0], plain, rtol=1e-5, atol=1e-6)
    assert (found.own <= found.sums).all()


def test_a_constant_layer_has_kernels_of_one():
    found = SampleView(torch.full((8, 3), 2.5))[KernelSums(OF)]
    assert found.sums.unique().tolist() == [8.0]
    assert found.own is None


@pytest.mark.parametrize("need", [KernelSums(OF), Neighbours(OF), ClassDistances(OF)])
def test_nan_is_a_reason_with_its_count(need):
    features = torch.ones(6, 2)
    features[0, 0] = torch.nan
    with pytest.raises(NotApplicable, match="1 of 12 numbers that it gives are NaN or infinite"):
        SampleView(features, torch.arange(6) % 2)[need]


def test_one_example_has_no_neighbours_and_one_kernel():
    view = SampleView(torch.ones(1, 2))
    with pytest.raises(NotApplicable, match="no neighbours"):
        view[Neighbours(OF)]
    assert view[KernelSums(OF)].sums.tolist() == [[[1.0]] * 4] * 2
    assert SampleView(torch.randn(4, 2, generator=torch.Generator().manual_seed(0)))[Neighbours(OF)].index.shape == (
        4,
        3,
    )


@pytest.mark.parametrize(
    ("labels", "why"), [(None, "no class labels"), (torch.zeros(6, dtype=torch.int64), "1 classes in 6 examples")]
)
def test_classes_must_be_there_for_their_distances(labels, why):
    with pytest.raises(NotApplicable, match=why):
        SampleView(torch.randn(6, 2, generator=torch.Generator().manual_seed(0)), labels)[ClassDistances(OF)]


def test_they_can_be_asked_for_at_another_time():
    subject = SUBJECTS["cnn"]()
    need = Neighbours(OF, 2)
    now = Capture(subject, frozenset({need, Previous(need)}))
    layer = subject.catalogue["0"]
    with pytest.raises(NotApplicable, match="no previous measurement"):
        now.value(Previous(need), layer, "data")
    now.run("data")
    later = Capture(subject, frozenset({need, Previous(need)}), previous=now.remember())
    assert_close(later.value(Previous(need), layer, "data").index, now.value(need, layer, "data").index)
    assert innermost([Initial(need), need, OF]) == [OF, OF, OF]


def test_layers_are_let_go_of():
    inputs = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    subject = Subject(nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)), inputs)
    capture = Capture(subject, frozenset({Neighbours(OF, 2)}))
    for layer in list(subject.catalogue.layers.values()):
        capture.value(Neighbours(OF, 2), layer, "data")
        capture.drop(layer)
    assert not capture._results
    assert not capture._memos


def test_settings_that_make_no_sense_are_refused():
    for bad in ((), (("relative", 0.0),), (("other", 1.0),)):
        with pytest.raises(SettingError, match="pairs of 'relative' or 'absolute'"):
            KernelSums(OF, bad)
    with pytest.raises(SettingError, match="at least 1"):
        Neighbours(OF, 0)
