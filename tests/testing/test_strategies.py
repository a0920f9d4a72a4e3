"""What the strategies draw is what they promise."""

import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from stratoscope.capture.activations import Activations
from stratoscope.capture.views import Capture
from stratoscope.errors import StratoscopeError
from stratoscope.testing import strategies


@settings(deadline=None, max_examples=25)
@given(strategies.arrays((3, 2), bound=10.0, dtype=np.float32))
def test_arrays_are_finite_and_bounded(array):
    assert array.shape == (3, 2)
    assert array.dtype == np.float32
    assert np.abs(array).max() <= 10


@settings(deadline=None, max_examples=25)
@given(strategies.features(), strategies.labelled_features())
def test_features_and_labels(rows, labelled):
    assert rows.ndim == 2
    assert len(rows) >= 2
    assert rows.isfinite().all()
    features, labels = labelled
    assert len(features) == len(labels)
    counts = torch.bincount(labels)
    assert len(counts) >= 2
    assert counts.min() >= 2


@settings(deadline=None, max_examples=25)
@given(strategies.networks(inputs=5, outputs=2))
def test_networks_run(model):
    assert model(torch.zeros(3, 5)).shape == (3, 2)


@settings(deadline=None, max_examples=10)
@given(strategies.state_dicts())
def test_state_dicts_hold_one_floating_type(tensors):
    assert len({tensor.dtype for tensor in tensors.values()}) == 1


@settings(deadline=None, max_examples=10)
@given(strategies.subjects())
def test_subjects_can_be_looked_at(subject):
    need = Activations()
    found = Capture(subject, frozenset({need})).value(need, subject.catalogue["(root)"], "data")
    assert len(found.features) == subject.probe_set("data").n


def test_drawing_leaves_torch_s_random_state():
    state = torch.get_rng_state()

    @settings(deadline=None, max_examples=5, database=None)
    @given(strategies.networks())
    def draws(model):
        pass

    draws()
    assert torch.equal(torch.get_rng_state(), state)


def test_without_hypothesis_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "hypothesis.strategies", None)
    monkeypatch.delitem(sys.modules, "stratoscope.testing.strategies")
    with pytest.raises(
        StratoscopeError, match=r"needs hypothesis. Install it with: pip install 'stratoscope\[testing\]'"
    ):
        __import__("stratoscope.testing.strategies")
