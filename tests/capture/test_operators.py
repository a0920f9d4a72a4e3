"""Hessian and Jacobian products against the dense matrices, edited passes, and the meter."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from torch import nn
from torch.func import functional_call, jacrev
from torch.testing import assert_close

from stratoscope.capture.needs import Operator
from stratoscope.capture.operators import Curvature, Jacobian, Replay
from stratoscope.capture.views import Capture, Seen
from stratoscope.errors import CaptureError, NotApplicable
from stratoscope.network.subject import Subject
from stratoscope.testing import SUBJECTS
from stratoscope.testing.strategies import subjects
from stratoscope.testing.subjects import seeded
from stratoscope.testing.trial import changed, state_of, unsettled


def handle(subject, need: Operator, split="data"):
    return Capture(subject, frozenset({need})).operator(need, split)


def tiny(batch_size=3, **more):
    with seeded(0) as generator:
        model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)).double()
        inputs, labels = torch.randn(7, 3, generator=generator).double(), torch.arange(7) % 3
    return Subject(model, (inputs, labels), batch_size=batch_size, **more)


def directions(params, seed):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(p.shape, generator=generator, dtype=p.dtype) for name, p in params.items()}


def inner(one, other):
    return sum(float((one[name].detach() * other[name].detach()).sum()) for name in one)


def flat(vector):
    return torch.cat([v.reshape(-1) for v in vector.values()])


def dense_hessian(model, params, inputs, labels):
    """Rows and columns in the order of the params."""

    def loss(p):
        return F.cross_entropy(functional_call(model, p, (inputs,)), labels)

    blocks = jacrev(jacrev(loss))(params)
    sizes = {name: p.numel() for name, p in params.items()}
    return torch.cat([torch.cat([blocks[a][b].reshape(sizes[a], sizes[b]) for b in params], 1) for a in params])


# -- curvature -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [3, 7])
def test_hessian_products_are_those_of_the_dense_hessian(batch_size):
    subject = tiny(batch_size)
    params = {name: p.detach() for name, p in subject.model.named_parameters()}
    matrix = dense_hessian(subject.model, params, *subject.data)
    curvature = handle(subject, Curvature())
    for seed in range(3):
        vector = directions(params, seed)
        assert_close(flat(curvature.hvp(vector)), matrix @ flat(vector))


@settings(deadline=None, max_examples=12)
@given(subjects())
def test_the_hessian_is_symmetric_and_linear(subject):
    subject.model.double()
    curvature = handle(subject, Curvature())
    u, v = (directions(dict(subject.model.named_parameters()), seed) for seed in (1, 2))
    hu, hv = curvature.hvp(u), curvature.hvp(v)
    size = 1 + abs(inner(u, hv))
    assert abs(inner(u, hv) - inner(v, hu)) < 1e-9 * size
    both = curvature.hvp({name: 2 * u[name] - v[name] for name in u})
    assert_close(flat(both), 2 * flat(hu) - flat(hv))


def test_tokens_weigh_the_same_in_whatever_batch_they_are():
    subject = SUBJECTS["tied"]()
    subject.model.double()
    vector = directions(dict(subject.model.named_parameters()), 0)
    found = [handle(replace(subject, batch_size=n, _probes={}), Curvature()) for n in (40, 7)]
    assert_close(flat(found[0].gradient()), flat(found[1].gradient()))
    assert_close(flat(found[0].hvp(vector)), flat(found[1].hvp(vector)))


def test_frozen_params_are_left_out():
    subject = SUBJECTS["frozen"]()
    curvature = handle(subject, Curvature())
    assert "0.weight" not in curvature.gradient()
    assert set(curvature.hvp(directions(curvature.bench.params, 0))) == set(curvature.gradient())


def test_attention_has_hessian_products():
    subject = SUBJECTS["transformer"]()
    subject.model.double()
    curvature = handle(subject, Curvature())
    u, v = (directions(curvature.bench.params, seed) for seed in (1, 2))
    assert inner(u, curvature.hvp(v)) == pytest.approx(inner(v, curvature.hvp(u)), rel=1e-6)


def test_a_linear_model_under_squared_error_has_the_hessian_of_the_book():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(9, 3, generator=generator, dtype=torch.float64)
    targets = torch.randn(9, 1, generator=generator, dtype=torch.float64)
    model = nn.Linear(3, 1, bias=False).double()
    curvature = handle(Subject(model, (inputs, targets), batch_size=4), Curvature())
    vector = torch.tensor([[1.0, -2.0, 0.5]], dtype=torch.float64)
    assert_close(curvature.hvp({"weight": vector})["weight"], 2 * vector @ inputs.T @ inputs / 9)


@pytest.mark.parametrize(("name", "there"), [("0.weight", "nothing"), ("0.bias", r"\(2,\)")])
def test_a_vector_that_does_not_fit_says_what_was_there(name, there):
    subject = tiny()
    vector = directions(dict(subject.model.named_parameters()), 0)
    del vector["0.weight"]
    if name == "0.bias":
        vector = {"0.weight": torch.zeros(4, 3), "0.bias": torch.zeros(2)}
    with pytest.raises(CaptureError, match=f"The vector has {there} for '{name}'"):
        handle(subject, Curvature()).hvp(vector)


def test_without_labels_there_is_no_curvature():
    subject = tiny()
    with pytest.raises(NotApplicable, match="no labels"):
        handle(replace(subject, data=subject.data[0], _probes={}), Curvature()).gradient()


# -- Jacobian ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrt", ["input", "params"])
def test_jacobian_products_are_those_of_the_dense_jacobian(wrt):
    subject = tiny()
    jacobian = handle(subject, Jacobian(wrt=wrt))
    model, batch = subject.model, subject.probe_set("data").batches[1].args[0]
    if wrt == "input":
        dense = {"input": jacrev(model)(batch)}
        point = {"input": batch}
    else:
        point = {name: p.detach() for name, p in model.named_parameters()}
        dense = jacrev(lambda p: functional_call(model, p, (batch,)))(point)
    tangent = directions(point, 0)
    cotangent = directions({"y": model(batch)}, 1)["y"]
    forward = sum(torch.einsum("...i,i->...", d.flatten(2), tangent[name].reshape(-1)) for name, d in dense.items())
    assert_close(jacobian.jvp(tangent, batch=1), forward)
    backward = jacobian.vjp(cotangent, batch=1)
    for name, d in dense.items():
        assert_close(backward[name], torch.einsum("ab,ab...->...", cotangent, d))


@pytest.mark.parametrize("wrt", ["input", "params"])
@pytest.mark.parametrize("name", ["mlp", "cnn", "residual", "lstm", "weight_normed", "nested"])
def test_the_two_products_are_adjoint(name, wrt):
    subject = SUBJECTS[name]()
    subject.model.double()
    jacobian = handle(subject, Jacobian(wrt=wrt), next(iter(subject.splits)))
    split = subject.probe_set(next(iter(subject.splits)))
    point = jacobian.bench.params if wrt == "params" else {"input": split.batches[0].args[0].double()}
    tangent = directions(point, 0)
    pushed = jacobian.jvp(tangent)
    cotangent = directions({"y": pushed}, 1)["y"]
    pulled = jacobian.vjp(cotangent)
    assert float((pushed * cotangent).sum()) == pytest.approx(inner(pulled, tangent), rel=1e-9)


def test_tokens_have_no_jacobian_with_respect_to_the_input():
    with pytest.raises(CaptureError, match="not a floating-point tensor"):
        handle(SUBJECTS["tied"](), Jacobian()).vjp(torch.zeros(1))


def test_jacobian_of_what_is_refused():
    with pytest.raises(CaptureError, match="choose 'input' or 'params'"):
        handle(tiny(), Jacobian(wrt="output"))
    with pytest.raises(CaptureError, match="There is no batch 3; the probe set has 3"):
        handle(tiny(), Jacobian()).vjp(torch.zeros(1), batch=3)


# -- replay --------------------------------------------------------------------------------------------------------------


def test_replay_without_edits_is_the_network():
    subject = tiny()
    with torch.no_grad():
        expected = subject.model(subject.data[0])[subject.probe_set("data").ids]
    assert_close(handle(subject, Replay()).outputs({}), expected)


def test_replay_edits_what_a_layer_says():
    subject = tiny()
    replay = handle(subject, Replay())
    silenced = replay.outputs({"1": torch.zeros_like})
    assert_close(silenced, subject.model[2].bias.detach().expand(7, 3))
    doubled = replay.outputs({"2": lambda y: 2 * y})
    assert_close(doubled, 2 * replay.outputs({}))
    assert not subject.model[2]._forward_hooks


def test_replay_edits_the_first_of_a_tuple():
    subject = SUBJECTS["lstm"]()
    found = handle(subject, Replay()).outputs({"cell": torch.zeros_like})
    assert_close(found, subject.model.head.bias.detach().expand(40, 4))


def test_replay_says_what_it_cannot_edit():
    with pytest.raises(CaptureError, match="There is no layer 'nine' to edit; there are"):
        handle(tiny(), Replay()).outputs({"nine": torch.zeros_like})
    subject = SUBJECTS["nested"]()
    with pytest.raises(CaptureError, match="An output of type Answer cannot be edited"):
        handle(subject, Replay()).outputs({"(root)": torch.zeros_like})
    assert not subject.model._forward_hooks


# -- meters, weights, traces ---------------------------------------------------------------------------------------------


def test_meters_count_and_stop():
    curvature = handle(tiny(), Curvature(max_passes=5))
    vector = directions(curvature.bench.params, 0)
    curvature.gradient()
    assert (curvature.meter.forward, curvature.meter.backward, curvature.meter.passes) == (3, 3, 2.0)
    curvature.hvp(vector)
    assert curvature.meter.passes == 5.0
    with pytest.raises(CaptureError, match="5 passes over the probe set have run and the limit is 5; raise max_passes"):
        curvature.gradient()
    jacobian = handle(tiny(), Jacobian(max_passes=1))
    jacobian.vjp(torch.zeros(3, 3, dtype=torch.float64))
    with pytest.raises(CaptureError, match="the limit is 1"):
        jacobian.jvp(directions({"input": torch.zeros(3, 3)}, 0))
    replay = handle(tiny(), Replay(max_passes=2))
    replay.outputs({})
    replay.outputs({})
    with pytest.raises(CaptureError, match="the limit is 2"):
        replay.outputs({})


def test_a_handle_is_opened_once_and_its_meter_is_shared():
    need, subject = Curvature(), tiny()
    capture = Capture(subject, frozenset({need}))
    seen = Seen("data", capture)
    assert seen[need] is seen[need]
    seen[need].gradient()
    assert seen[need].meter.forward == 3


def test_other_weights_are_the_ones_that_count():
    subject, other = tiny(), tiny()
    with torch.no_grad():
        for p in other.model.parameters():
            p.add_(0.3)
    given = replace(subject, weights=dict(other.model.state_dict()), _probes={})
    before = state_of(subject.model)
    for need in (Curvature(), Replay(), Jacobian(wrt="params")):
        one, two = handle(given, need), handle(other, need)
        if isinstance(need, Curvature):
            vector = directions(one.bench.params, 0)
            assert_close(flat(one.gradient()), flat(two.gradient()))
            assert_close(flat(one.hvp(vector)), flat(two.hvp(vector)))
        elif isinstance(need, Replay):
            assert_close(one.outputs({}), two.outputs({}))
        else:
            assert_close(one.jvp(directions(one.bench.params, 0)), two.jvp(directions(two.bench.params, 0)))
    assert changed(before, state_of(subject.model)) == []


@pytest.mark.parametrize("name", ["cnn", "transformer"])
def test_operators_leave_no_trace(name):
    subject = unsettled(SUBJECTS[name]())
    before = state_of(subject.module)
    curvature = handle(subject, Curvature())
    curvature.hvp(directions(curvature.bench.params, 0))
    jacobian = handle(subject, Jacobian(wrt="params"))
    jacobian.jvp(directions(jacobian.bench.params, 0))
    handle(subject, Replay()).outputs({})
    assert changed(before, state_of(subject.module)) == []


def test_weights_alone_have_no_operators():
    capture = Capture(Subject(weights=tiny().model.state_dict()), frozenset({Curvature()}))
    with pytest.raises(NotApplicable, match="there are weights alone"):
        capture.operator(Curvature(), None)
    capture = Capture(tiny(), frozenset({Curvature(split="test")}))
    with pytest.raises(NotApplicable, match="no split 'test'; they have data"):
        capture.operator(Curvature(split="test"), "data")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", ["mlp", "cnn", "lstm", "transformer"])
def test_a_gpu_gives_what_the_processor_gives(name):
    here, there = SUBJECTS[name](), SUBJECTS[name]()
    here.model.double()
    there.model.double().cuda()
    split = next(iter(here.splits))
    one, other = handle(here, Curvature(), split), handle(there, Curvature(), split)
    vector = directions({name: p.detach() for name, p in one.bench.params.items()}, 0)
    assert_close(flat(other.hvp(vector)).cpu(), flat(one.hvp(vector)), rtol=1e-6, atol=1e-9)
