"""The model leaves as it came, also after an error."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from stratoscope.capture.activations import Activations
from stratoscope.capture.restore import differentiable, random_state_kept, untouched
from stratoscope.capture.views import Capture
from stratoscope.errors import CaptureError
from stratoscope.network.subject import Subject
from stratoscope.testing import SUBJECTS
from stratoscope.testing.trial import changed, state_of, unsettled


def draw():
    return random.random(), float(np.random.rand()), torch.rand(2).tolist()


def test_random_states_come_back_after_success_and_after_an_error():
    before = draw_twice = None
    with random_state_kept():
        before = draw()
    with pytest.raises(ZeroDivisionError), random_state_kept():
        draw_twice = draw()
        _ = 1 / 0
    assert before == draw_twice == draw()


@pytest.mark.parametrize("error", [False, True])
@pytest.mark.parametrize("name", ["cnn", "transformer", "weight_normed"])
def test_modes_buffers_and_gradients_come_back(name, error):
    model = unsettled(SUBJECTS[name]()).module
    before = state_of(model)
    try:
        with untouched(model, training=True):
            assert all(module.training for module in model.modules())
            assert not torch.backends.mha.get_fastpath_enabled()
            with torch.no_grad():
                for buffer in model.buffers():
                    buffer.add_(1)
            draw()
            if error:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert changed(before, state_of(model)) == []


def test_a_buffer_that_the_forward_pass_replaces_comes_back():
    class Cache(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("last", torch.zeros(3))
            self.register_buffer("count", torch.tensor(float("nan")))

        def forward(self, x):
            self.last = self.last + x.mean(0)
            return x

    model = Cache()
    kept = model.last
    with untouched(model):
        model(torch.ones(4, 3))
    assert model.last is kept
    assert model.last.tolist() == [0, 0, 0]
    assert model.count.isnan()


@pytest.mark.parametrize("name", sorted(SUBJECTS))
def test_capturing_leaves_every_kind_of_subject_as_it_was(name):
    subject = unsettled(SUBJECTS[name]())
    before = state_of(subject.module)
    capture = Capture(subject, frozenset({Activations(), Activations(site="input")}))
    assert capture.run(next(iter(subject.splits))).n == 40
    assert changed(before, state_of(subject.module)) == []


def test_a_lazy_model_is_refused_and_stays_lazy():
    model = nn.Sequential(nn.LazyLinear(3))
    with pytest.raises(CaptureError, match=r"lazy parameters .* run it on one batch first"):
        Capture(Subject(model, torch.zeros(4, 2)), frozenset({Activations()})).run("data")
    assert model[0].has_uninitialized_params()


def test_a_model_without_numbers_is_refused():
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(2, 3))
    with pytest.raises(CaptureError, match="on the meta device: it has shapes but no numbers"):
        Capture(Subject(model, torch.zeros(4, 2)), frozenset({Activations()})).run("data")


@pytest.mark.parametrize("whole", [True, False])
def test_compiled_models_are_looked_through(whole):
    made = SUBJECTS["residual"]()
    plain, data = made.model, made.data
    need = Activations()

    def features(model):
        subject = Subject(model, data)
        capture = Capture(subject, frozenset({need}))
        capture.run("data")
        return {at.name: capture.value(need, at, "data").features for at in capture.layers()}

    expected = features(plain)
    if whole:
        found = features(torch.compile(plain, backend="eager"))
    else:
        plain[1] = torch.compile(plain[1], backend="eager")
        found = features(plain)
    assert list(found) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)


def test_a_model_compiled_in_place_is_looked_through():
    made = SUBJECTS["mlp"]()
    made.model.compile(backend="eager")
    capture = Capture(made, frozenset({Activations()}))
    assert list(capture.run("train").sites) == ["0", "1", "2", "3", "4", "(root)"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_random_states_of_devices_come_back():
    torch.cuda.init()
    with random_state_kept():
        inside = torch.rand(3, device="cuda")
    assert torch.equal(inside, torch.rand(3, device="cuda"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_recurrent_layer_has_gradients_in_evaluation_mode_on_a_gpu():
    model = nn.LSTM(3, 4).cuda().eval()
    with differentiable(model):
        output = model(torch.randn(5, 2, 3, device="cuda"))[0]
        (gradient,) = torch.autograd.grad(output.sum(), [model.weight_ih_l0])
    assert gradient.isfinite().all()
