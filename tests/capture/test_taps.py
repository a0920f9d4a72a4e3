"""What the hooks see: every call of every layer, and functional activations under a name of their own."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stratoscope.capture.needs import Site
from stratoscope.capture.taps import MAX_CALLS, Taps
from stratoscope.capture.unit_counts import UnitCounts
from stratoscope.capture.views import Capture
from stratoscope.errors import NotApplicable
from stratoscope.network.catalogue import catalogue_of
from stratoscope.network.layers import ROOT
from stratoscope.network.subject import Subject


def watched(model, *inputs, listen=None):
    """Names of the sites that gave an output, in order."""
    seen = []

    def note(site: Site, where, what):
        if where == "output":
            seen.append(site.name)
        if listen is not None:
            listen(site, where, what)

    taps = Taps(model, catalogue_of(model), note)
    with taps(), torch.no_grad():
        model(*inputs)
    return seen, taps


class Calls(nn.Module):
    """Calls one linear layer some times, and whatever function it is given after each."""

    def __init__(self, times=1, function=F.relu):
        super().__init__()
        self.linear, self.times, self.function = nn.Linear(3, 3), times, function

    def forward(self, x):
        for _ in range(self.times):
            x = self.function(self.linear(x))
        return x


def test_every_call_of_a_module_is_told_apart():
    assert watched(Calls(3), torch.zeros(2, 3))[0] == [
        "linear", ":relu", "linear@2", ":relu@2", "linear@3", ":relu@3", "(root)",
    ]  # fmt: skip


def test_calls_are_counted_anew_in_each_pass():
    model = Calls(2)
    seen = []
    taps = Taps(
        model, catalogue_of(model), lambda site, where, _: seen.append(site.name) if where == "output" else None
    )
    with taps(), torch.no_grad():
        model(torch.zeros(2, 3))
        model(torch.zeros(2, 3))
    assert seen[: len(seen) // 2] == seen[len(seen) // 2 :]


def test_an_endless_loop_goes_on_without_being_looked_at():
    seen, taps = watched(Calls(MAX_CALLS + 4), torch.zeros(2, 3))
    assert f"linear@{MAX_CALLS}" in seen
    assert f"linear@{MAX_CALLS + 1}" not in seen
    assert taps.skipped == {"linear": 4, ":relu": 4}


def inplace(x):
    return F.relu(x, inplace=True)


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (F.relu, "relu"), (torch.relu, "relu"), (torch.Tensor.relu, "relu"), (torch.relu_, "relu"), (inplace, "relu"),
        (F.gelu, "gelu"), (F.silu, "silu"), (F.elu, "elu"), (F.leaky_relu, "leaky_relu"), (F.softplus, "softplus"),
        (torch.tanh, "tanh"), (torch.Tensor.tanh_, "tanh"), (torch.sigmoid, "sigmoid"), (F.hardtanh, "hardtanh"),
        (F.relu6, "relu6"), (F.selu, "selu"), (F.hardswish, "hardswish"), (F.mish, "mish"),
    ],
)  # fmt: skip
def test_functional_activations_are_sites(function, name):
    seen, _ = watched(Calls(1, function), torch.zeros(2, 3))
    assert seen == ["linear", f":{name}", "(root)"]


@pytest.mark.parametrize("module", [nn.ReLU(), nn.GELU(), nn.Tanh(), nn.SiLU(), nn.Hardtanh(), nn.ReLU6(), nn.PReLU()])
def test_a_module_is_not_counted_a_second_time_for_the_function_inside(module):
    assert watched(nn.Sequential(nn.Linear(3, 3), module), torch.zeros(2, 3))[0] == ["0", "1", "(root)"]


@pytest.mark.parametrize(
    "clip",
    [
        lambda x: F.hardtanh(x, 0, 20),
        lambda x: F.hardtanh(x, max_val=20, min_val=0),
        lambda x: F.hardtanh(x, 0, max_val=20, inplace=True),
        lambda x: F.hardtanh_(x, 0.0, 20.0),
    ],
)
def test_a_functional_hardtanh_says_where_this_call_clips(clip):
    modules = []
    watched(
        Calls(2, lambda x: F.hardtanh(clip(x))),
        torch.zeros(2, 3),
        listen=lambda site, *_: modules.append((site.name, site.layer.module)) if ":" in site.name else None,
    )
    assert [(name, module.min_val, module.max_val) for name, module in modules] == [
        (":hardtanh", 0, 20), (":hardtanh@2", -1, 1), (":hardtanh@3", 0, 20), (":hardtanh@4", -1, 1),
    ]  # fmt: skip


def test_a_functional_hardtanh_of_two_equal_bounds_does_not_break_the_model():
    assert ":hardtanh" in watched(Calls(1, lambda x: F.hardtanh(x, 1, 1)), torch.zeros(2, 3))[0]


def test_a_function_belongs_to_the_innermost_module():
    model = nn.Sequential(nn.Linear(3, 3), Calls(1))
    assert watched(model, torch.zeros(2, 3))[0] == ["0", "1.linear", "1:relu", "1", "(root)"]


def test_recurrent_layers_keep_their_own_functions_to_themselves():
    seen, _ = watched(nn.Sequential(nn.RNN(3, 3, nonlinearity="relu")), torch.zeros(2, 4, 3))
    assert seen == ["0", "(root)"]


def test_what_the_listener_computes_is_not_seen():
    seen, _ = watched(Calls(1), torch.zeros(2, 3), listen=lambda _, __, what: torch.relu(what[0]))
    assert seen == ["linear", ":relu", "(root)"]


def test_inputs_are_told_before_outputs_and_by_name_too():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.part = nn.Linear(3, 3)

        def forward(self, x):
            return self.part(input=x)

    order = []
    watched(Named(), torch.ones(2, 3), listen=lambda site, where, what: order.append((site.name, where, type(what))))
    assert order[1] == ("part", "input", tuple)
    assert order[2] == ("part", "output", torch.Tensor)


def test_hooks_are_gone_afterwards_and_after_an_error():
    def fails(_, __, ___):
        raise RuntimeError("no")

    model = Calls(2)
    watched(model, torch.zeros(2, 3))
    with pytest.raises(RuntimeError, match="no"):
        watched(model, torch.zeros(2, 3), listen=fails)
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert not module._forward_hooks_always_called
    assert torch.overrides._len_torch_function_stack() == 0


def test_hooks_of_the_users_own_stay():
    model = Calls(1)
    calls = []
    handle = model.linear.register_forward_hook(lambda *_: calls.append(1))
    watched(model, torch.zeros(2, 3))
    assert calls == [1]
    assert len(model.linear._forward_hooks) == 1
    handle.remove()


class ManyRectifiers(nn.Module):
    def __init__(self):
        super().__init__()
        self.slope = nn.Parameter(torch.tensor([0.2]))

    def forward(self, x):
        F.threshold(x, 0.5, -1.0)
        F.threshold(x, 0.0, 20.0)
        F.prelu(x, self.slope)
        F.rrelu(x)
        F.threshold_(x.clone(), 0.0, 0.0)
        return torch.prelu(x, self.slope)


def test_rectifiers_that_are_called_as_functions_are_sites_with_the_settings_of_their_call():
    x = torch.tensor([[-1.0, 0.2], [0.3, 0.7], [2.0, 3.0]])
    capture = Capture(Subject(ManyRectifiers(), x), frozenset({UnitCounts()}))
    capture.run("data")
    found = {}
    for layer in capture.layers():
        try:
            found[layer.name] = capture.value(UnitCounts(), layer, "data").active.tolist()
        except NotApplicable:
            found[layer.name] = None
    assert found == {
        ":threshold": [1, 2], ":threshold@2": None, ":threshold@3": [2, 3], ":prelu": [2, 3], ":prelu@2": [2, 3],
        ":rrelu": [2, 3], ROOT: None,
    }  # fmt: skip
