"""The same need at another time, or of other weights."""

from dataclasses import dataclass, replace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.testing import assert_close

from stratoscope.capture.activations import Activations
from stratoscope.capture.gradients import Gradients, Optimizer, OptimizerState, TrainingGradients, TrainingLoss
from stratoscope.capture.needs import Derived, Initial, Other, Previous
from stratoscope.capture.views import Capture, LayerView, Seen
from stratoscope.errors import NotApplicable, SettingError
from stratoscope.network.subject import Subject
from stratoscope.network.weights import StateDict
from stratoscope.testing import SUBJECTS


@dataclass(frozen=True)
class Norm(Derived):
    """Sum of squares of a layer's first param; counts how often it is computed."""

    def derive(self, layer, ask, load):
        if not layer.params:
            raise NotApplicable("no params")
        computed.append(layer.name)
        return float(load(layer.params[0].name).double().square().sum())


@dataclass(frozen=True)
class Root(Derived):
    """Asks for another derived need."""

    def derive(self, layer, ask, load):
        return ask(Norm()) ** 0.5


computed = []


def moved(subject, by=1.0):
    """Another model of the same shape, and its weights."""
    other = SUBJECTS["mlp"](0)
    with torch.no_grad():
        for p in other.model.parameters():
            p.add_(by)
    return other


def test_derived_needs_are_computed_once_and_may_ask_for_each_other():
    subject = SUBJECTS["mlp"]()
    capture = Capture(subject, frozenset({Norm(), Root()}))
    layer = subject.catalogue["0"]
    computed.clear()
    assert capture.value(Root(), layer, None) == pytest.approx(float(subject.model[0].weight.detach().norm()), rel=1e-6)
    capture.value(Norm(), layer, None)
    assert computed == ["0"]
    capture.drop(layer)
    capture.value(Norm(), layer, None)
    assert computed == ["0", "0"]


def test_initial_is_the_snapshot():
    subject, other = SUBJECTS["mlp"](), moved(SUBJECTS["mlp"]())
    needs = frozenset({Norm(), Initial(Norm()), Activations(), Initial(Activations()), Initial(Gradients())})
    capture = Capture(subject, needs, initial=StateDict(dict(other.model.state_dict())))
    layer = subject.catalogue["2"]
    there = Capture(other, frozenset({Norm(), Activations(), Gradients()}))
    assert capture.value(Initial(Norm()), layer, "train") == there.value(Norm(), other.catalogue["2"], "train")
    assert capture.value(Initial(Norm()), layer, "train") != capture.value(Norm(), layer, "train")
    found = capture.value(Initial(Activations()), layer, "train")
    assert_close(found.features, there.value(Activations(), other.catalogue["2"], "train").features)
    gradients = capture.value(Initial(Gradients()), layer, "train")
    expected = there.value(Gradients(), other.catalogue["2"], "train")
    for name, value in expected.items():
        assert_close(gradients[name], value)
    own = Capture(subject, frozenset({Activations()})).value(Activations(), layer, "train")
    assert_close(capture.value(Activations(), layer, "train").features, own.features)


def test_without_a_snapshot_there_is_no_initial():
    subject = SUBJECTS["mlp"]()
    capture = Capture(subject, frozenset({Initial(Norm())}))
    with pytest.raises(NotApplicable, match="no snapshot of step 0; it is kept by a watched training"):
        capture.value(Initial(Norm()), subject.catalogue["0"], None)


def test_other_checkpoints_stand_side_by_side(tmp_path):
    subject = SUBJECTS["mlp"]()
    values = {}
    for by in (1.0, 2.0):
        other, path = moved(subject, by), tmp_path / f"{by}.safetensors"
        save_file(other.model.state_dict(), path)
        values[str(path)] = Capture(other, frozenset({Activations()})).value(
            Activations(), other.catalogue["3"], "test"
        )
    capture = Capture(subject, frozenset(Other(path, Activations()) for path in values))
    for path, expected in values.items():
        found = capture.value(Other(path, Activations()), subject.catalogue["3"], "test")
        assert_close(found.features, expected.features)


def test_a_subject_with_a_model_and_other_weights_runs_on_those():
    subject, other = SUBJECTS["mlp"](), moved(SUBJECTS["mlp"]())
    given = replace(subject, weights=dict(other.model.state_dict()), _probes={})
    needs = frozenset({Activations(), Gradients()})
    one, two = Capture(given, needs), Capture(other, needs)
    for name in ("0", "4"):
        found, expected = (c.value(Activations(), s.catalogue[name], "train") for c, s in ((one, given), (two, other)))
        assert_close(found.features, expected.features)
        found, expected = (c.value(Gradients(), s.catalogue[name], "train") for c, s in ((one, given), (two, other)))
        assert_close(found, expected)


def test_previous_is_what_the_measurement_before_gave_also_after_layers_are_dropped():
    subject = SUBJECTS["mlp"]()
    needs = frozenset({Activations(), Previous(Activations()), Previous(Norm())})
    first = Capture(subject, needs)
    for split in ("train", "test"):
        first.run(split)
    before = first.value(Activations(), subject.catalogue["2"], "test").features.clone()
    norm = float(subject.model[2].weight.detach().double().square().sum())
    with pytest.raises(NotApplicable, match="no previous measurement yet"):
        first.value(Previous(Activations()), subject.catalogue["2"], "test")
    for layer in first.layers():
        first.drop(layer)
    remembered = first.remember()
    with torch.no_grad():
        for p in subject.model.parameters():
            p.mul_(2)
    second = Capture(subject, needs, previous=remembered)
    view = LayerView(subject.catalogue["2"], "test", second)
    assert_close(view[Previous(Activations())].features, before)
    assert view[Previous(Norm())] == pytest.approx(norm, rel=1e-6)
    assert not torch.equal(view[Activations()].features, before)
    assert view.get(Previous(Norm()), "nothing") != "nothing"


def test_previous_of_a_need_that_names_its_split():
    subject, need = SUBJECTS["mlp"](), Activations(split="train")
    first = Capture(subject, frozenset({need, Previous(need)}))
    first.run("train")
    second = Capture(subject, first.needs, previous=first.remember())
    layer = subject.catalogue["2"]
    for asked_for in (None, "train", "test"):
        found = second.value(Previous(need), layer, asked_for)
        assert_close(found.features, first.value(need, layer, None).features)


def test_what_is_remembered_is_a_copy():
    @dataclass(frozen=True)
    class Live(Derived):
        def derive(self, layer, ask, load):
            return {"w": load(layer.params[0].name)}

    subject = SUBJECTS["mlp"]()
    capture = Capture(subject, frozenset({Previous(Live())}))
    before = subject.model[0].weight.detach().clone()
    remembered = capture.remember()
    with torch.no_grad():
        subject.model[0].weight.zero_()
    assert_close(remembered[Live(), "0", None]["w"], before)


def test_live_needs_are_what_the_training_hands_over():
    subject = SUBJECTS["mlp"]()
    state = OptimizerState("SGD", (0.1,), (0.0,))
    capture = Capture(subject, frozenset({Optimizer(), TrainingLoss()}), live={Optimizer(): state})
    seen = Seen(None, capture)
    assert seen[Optimizer()] is state
    assert seen.get(TrainingLoss(), 7) == 7
    with pytest.raises(NotApplicable, match="TrainingLoss is there only in a watched training"):
        seen[TrainingLoss()]
    with pytest.raises(SettingError, match="noise shows from 2 mini-batches on"):
        TrainingGradients(1)


def test_seen_maps_layers_to_values_in_the_order_in_which_they_run():
    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.last, self.first, self.never = nn.Linear(3, 2), nn.Linear(3, 3), nn.Linear(1, 1)

        def forward(self, x):
            return self.last(self.first(x))

    subject = Subject(Backwards(), torch.zeros(4, 3))
    capture = Capture(subject, frozenset({Activations()}))
    capture.run("data")
    seen = Seen("data", capture)
    assert list(seen[Activations()]) == ["first", "last", "(root)"]
    assert [layer.name for layer in seen.layers] == ["first", "last", "(root)", "never"]
    assert [view.layer.name for view in seen.views()] == ["first", "last", "(root)", "never"]


def test_a_second_call_is_a_layer_without_params():
    subject = SUBJECTS["repeated"]()
    capture = Capture(subject, frozenset({Activations()}))
    capture.run("data")
    layers = {layer.name: layer for layer in capture.layers()}
    assert layers["step"].params
    assert layers["step@2"].params == () == layers["step@2"].matrices
    assert layers["step@2"].kind == "linear"


def test_nothing_anywhere_is_a_reason():
    subject = SUBJECTS["unused"]()
    capture = Capture(subject, frozenset({Norm(), Initial(Norm())}))
    with pytest.raises(NotApplicable, match="no snapshot"):
        Seen("data", capture)[Initial(Norm())]


def test_nothing_is_kept_where_no_further_measurement_comes():
    subject = SUBJECTS["mlp"]()
    needs = frozenset({Activations(), Previous(Activations())})
    for remembers, kept in ((True, True), (False, False)):
        capture = Capture(subject, needs, remembers=remembers)
        capture.run("test")
        sample = capture.value(Activations(), subject.catalogue.layers["2"], "test")
        sample.worked_out.once("answer", lambda: 42)
        for layer in capture.layers():
            capture.drop(layer)
        assert bool(capture._kept) is kept
        for then in capture._kept.values():  # a copy, without what was worked out of it
            assert then.worked_out.once("answer", lambda: 0) == 0
