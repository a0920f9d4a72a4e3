import itertools

import numpy as np
import pytest
import torch
from torch import nn

from stratoscope.observe.recorder import StepRecorder
from stratoscope.observe.traces import DeviceTrace, HostTrace


def small(dtype=torch.float32, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).to(dtype)


def one_step(model, optimizer, x):
    optimizer.zero_grad()
    model(x).square().mean().backward()
    optimizer.step()


def batches(n, dtype=torch.float32, seed=1):
    rng = torch.Generator().manual_seed(seed)
    return [torch.randn(6, 5, generator=rng).to(dtype) for _ in range(n)]


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW])
def test_norms_are_those_of_a_plain_loop(optimizer):
    model = small()
    opt = optimizer(model.parameters(), lr=0.1)
    recorder = StepRecorder(model, opt, 4, lambda: True)
    sums, squares = None, np.zeros(4)
    for number, x in enumerate(batches(4), start=1):
        before = [p.detach().clone() for p in model.parameters()]
        one_step(model, opt, x)
        grads = [p.grad.clone() for p in model.parameters()]
        step = recorder.take()
        sums = grads if sums is None else [s + g for s, g in zip(sums, grads, strict=True)]
        squares += [float(g.square().sum()) for g in grads]
        assert step.params == tuple(name for name, _ in model.named_parameters())
        np.testing.assert_allclose(step.norm, [float(g.norm()) for g in grads], rtol=1e-5)
        np.testing.assert_allclose(step.weight_norm, [float(b.norm()) for b in before], rtol=1e-5)
        moved = [float((p.detach() - b).norm()) for p, b in zip(model.parameters(), before, strict=True)]
        np.testing.assert_allclose(step.update_norm, moved, rtol=1e-4)
        assert step.window == (4 if number == 4 else 0)
    np.testing.assert_allclose(step.sum_norm, [float(s.norm()) for s in sums], rtol=1e-5)
    np.testing.assert_allclose(step.square_sum, squares, rtol=1e-5)


def test_recording_changes_nothing_in_the_training():
    runs = []
    for record in (False, True):
        model = small()
        opt = torch.optim.Adam(model.parameters(), lr=0.01)
        recorder = StepRecorder(model, opt, 2, lambda: True) if record else None
        for x in batches(5):
            one_step(model, opt, x)
        runs.append([p.detach().clone() for p in model.parameters()])
        if recorder:
            recorder.remove()
            assert not opt._optimizer_step_pre_hooks
            assert not opt._optimizer_step_post_hooks
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


def test_what_others_do_to_the_weights_between_steps_is_not_the_optimizers_update():
    model = small()
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    recorder = StepRecorder(model, opt, 9, lambda: True)
    for x in batches(3):
        with torch.no_grad():
            for p in model.parameters():
                p.mul_(0.5)
        before = [p.detach().clone() for p in model.parameters()]
        one_step(model, opt, x)
        step = recorder.take()
        np.testing.assert_allclose(step.weight_norm, [float(b.norm()) for b in before], rtol=1e-5)
        moved = [float((p.detach() - b).norm()) for p, b in zip(model.parameters(), before, strict=True)]
        np.testing.assert_allclose(step.update_norm, moved, rtol=1e-4)


def test_a_window_starts_anew_when_it_is_full():
    model = small()
    opt = torch.optim.SGD(model.parameters(), lr=0.0)
    recorder = StepRecorder(model, opt, 2, lambda: True)
    full = []
    for x in batches(6):
        one_step(model, opt, x)
        full.append(recorder.take().window)
    assert full == [0, 2, 0, 2, 0, 2]


@pytest.mark.parametrize("scale", [1e-22, 1e22])
def test_gradients_whose_squares_leave_float32_keep_their_norm(scale):
    model = nn.Linear(3, 1, bias=False)
    opt = torch.optim.SGD(model.parameters(), lr=0.0)
    recorder = StepRecorder(model, opt, 2, lambda: True)
    model.weight.grad = torch.tensor([[3.0, 4.0, 0.0]]) * scale
    opt.step()
    assert recorder.take().norm[0] == pytest.approx(5 * scale, rel=1e-6)


def test_a_gradient_of_zero_has_norm_zero_and_nan_is_seen():
    model = nn.Linear(3, 2)
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    recorder = StepRecorder(model, opt, 2, lambda: True)
    model.weight.grad, model.bias.grad = torch.zeros(2, 3), torch.tensor([float("nan"), 0.0])
    opt.step()
    step = recorder.take()
    assert step.norm[0] == 0
    assert step.not_finite.tolist() == [False, True]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_precisions(dtype):
    model = small(dtype)
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    recorder = StepRecorder(model, opt, 2, lambda: True)
    for x in batches(2, dtype):
        one_step(model, opt, x)
    step = recorder.take()
    want = [float(p.grad.double().norm()) for p in model.parameters()]
    np.testing.assert_allclose(step.norm, want, rtol=1e-5)
    assert np.isfinite(step.sum_norm).all()


def test_params_without_a_gradient_are_left_out_and_a_change_begins_a_new_window():
    model = small()
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    recorder = StepRecorder(model, opt, 3, lambda: True)
    one_step(model, opt, batches(1)[0])
    assert len(recorder.take().params) == 4
    model[0].requires_grad_(False)
    model[0].weight.grad = model[0].bias.grad = None
    windows = []
    for x in batches(3):
        one_step(model, opt, x)
        taken = recorder.take()
        windows.append(taken.window)
        assert taken.params == ("2.weight", "2.bias")
    assert windows == [0, 0, 3]


def test_channels_last_and_sparse_gradients():
    model = nn.Sequential(nn.Conv2d(2, 3, 3)).to(memory_format=torch.channels_last)
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    recorder = StepRecorder(model, opt, 2, lambda: True)
    model(torch.randn(2, 2, 5, 5, generator=torch.Generator().manual_seed(0))).sum().backward()
    opt.step()
    assert recorder.take().norm[0] == pytest.approx(float(model[0].weight.grad.norm()), rel=1e-5)

    table = nn.Embedding(6, 3, sparse=True)
    opt = torch.optim.SparseAdam(list(table.parameters()), lr=0.1)
    recorder = StepRecorder(table, opt, 2, lambda: True)
    table(torch.tensor([1, 1, 4])).sum().backward()
    opt.step()
    assert recorder.take().norm[0] == pytest.approx(np.sqrt(3 * 4 + 3 * 1), rel=1e-5)


def test_steps_that_are_not_wanted_cost_nothing_and_say_nothing():
    model = small()
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    recorder = StepRecorder(model, opt, 2, lambda: False)
    one_step(model, opt, batches(1)[0])
    assert recorder.take() is None
    assert recorder.seconds == 0


class ByData(torch.optim.Optimizer):
    """Plain descent as many custom optimizers write it: torch's version counters do not see it."""

    def __init__(self, params, put):
        super().__init__(params, {"lr": 0.05})
        self.put = put

    def step(self, closure=None):
        for p in self.param_groups[0]["params"]:
            if self.put:
                p.data = p.data - 0.05 * p.grad
            else:
                p.data.sub_(0.05 * p.grad)


@pytest.mark.parametrize("put", [False, True])
@pytest.mark.parametrize("every", [1, 3])
def test_an_optimizer_that_writes_through_data(put, every):
    model, count, taken = small(), itertools.count(), 0
    opt = ByData(model.parameters(), put)
    recorder = StepRecorder(model, opt, 9, lambda: next(count) % every == 0)
    for x in batches(7):
        one_step(model, opt, x)
        step = recorder.take()
        if step is not None:
            taken += 1
            np.testing.assert_allclose(step.update_norm, 0.05 * step.norm, rtol=1e-4)
    assert taken == len(range(0, 7, every))


@pytest.mark.parametrize("replace", [False, True])
def test_weights_that_are_changed_through_data_between_steps(replace):
    model = small()
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    recorder = StepRecorder(model, opt, 9, lambda: True)
    for x in batches(3):
        for p in model.parameters():
            if replace:
                p.data = p.data * 0.5
            else:
                p.data.mul_(0.5)
        before = [float(p.detach().norm()) for p in model.parameters()]
        one_step(model, opt, x)
        step = recorder.take()
        np.testing.assert_allclose(step.weight_norm, before, rtol=1e-5)
        np.testing.assert_allclose(step.update_norm, 0.1 * step.norm, rtol=1e-4)


def test_a_scale_that_is_left_to_a_fused_optimizer_is_taken_out_and_a_skipped_step_is_not_recorded():
    model = small()
    opt = torch.optim.SGD(model.parameters(), lr=0.1, fused=True)
    recorder = StepRecorder(model, opt, 9, lambda: True)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    first, second = batches(2)
    opt.zero_grad()
    scaler.scale(model(first).square().mean()).backward()
    want = [float(p.grad.norm()) / 1024 for p in model.parameters()]
    scaler.step(opt)
    scaler.update()
    np.testing.assert_allclose(recorder.take().norm, want, rtol=1e-5)
    opt.zero_grad()
    scaler.scale(model(second).square().mean() * float("inf")).backward()
    scaler.step(opt)
    assert recorder.take() is None


def test_params_that_are_not_the_models_are_left_out_and_new_layers_are_followed():
    model, other = small(), torch.nn.Parameter(torch.ones(2))
    opt = torch.optim.SGD([*model.parameters(), other], lr=0.1)
    recorder = StepRecorder(model, opt, 9, lambda: True)
    other.grad = torch.ones(2)
    model[0].bias.grad = torch.ones(4)
    opt.step()
    assert recorder.take().params == ("0.bias",)
    model.append(nn.Linear(3, 2))
    opt.add_param_group({"params": list(model[3].parameters())})
    one_step(model, opt, batches(1)[0])
    assert recorder.take().params[-2:] == ("3.weight", "3.bias")


class Child(torch.optim.SGD):
    def step(self, closure=None):
        return super().step(closure)


def test_a_step_that_calls_its_parents_is_one_step():
    torch.optim.SGD(small().parameters(), lr=0.1)  # from now on torch calls hooks for the parent's step too
    found = []
    for kind in (torch.optim.SGD, Child):
        model = small()
        optimizer = kind(model.parameters(), lr=0.1, momentum=0.9)
        recorder = StepRecorder(model, optimizer, 2, lambda: True)
        steps = []
        for x in batches(4):
            one_step(model, optimizer, x)
            steps.append(recorder.take())
        found.append(steps)
    for plain, child in zip(*found, strict=True):
        assert plain.window == child.window
        for name in ("norm", "weight_norm", "update_norm", "sum_norm", "square_sum"):
            np.testing.assert_array_equal(getattr(plain, name), getattr(child, name))


def test_a_step_that_fails_does_not_end_the_recording():
    model = small()
    optimizer = torch.optim.LBFGS(model.parameters())
    recorder = StepRecorder(model, optimizer, 2, lambda: True)
    one_step(model, torch.optim.SGD(model.parameters(), lr=0.1), batches(1)[0])

    def fails():
        raise MemoryError

    with pytest.raises(MemoryError):
        optimizer.step(fails)
    for x in batches(2):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        before = model[0].weight.detach().clone()
        optimizer.step(lambda: model(batches(1)[0]).square().mean())
        taken = recorder.take()
        place = taken.params.index("0.weight")
        assert taken.update_norm[place] == pytest.approx(float((model[0].weight - before).detach().norm()), rel=1e-4)


def test_nothing_is_kept_after_the_end():
    model = small()
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    recorder = StepRecorder(model, opt, 9, lambda: True)
    one_step(model, opt, batches(1)[0])
    recorder.remove()
    assert not [
        value for value in vars(recorder).values() if isinstance(value, list) and value and torch.is_tensor(value[0])
    ]


def test_gradients_of_a_closure_are_those_of_its_last_evaluation():
    model = small(torch.float64)
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=3)
    recorder = StepRecorder(model, optimizer, 2, lambda: True)
    seen = []

    def closure():
        optimizer.zero_grad()
        loss = model(batches(1, torch.float64)[0]).square().mean()
        loss.backward()
        seen.append([float(p.grad.norm()) for p in model.parameters()])
        return loss

    for number in range(2):
        before = [p.detach().clone() for p in model.parameters()]
        optimizer.step(closure)
        taken = recorder.take()
        np.testing.assert_allclose(taken.norm, seen[-1], rtol=1e-12)
        moved = [float((p.detach() - b).norm()) for p, b in zip(model.parameters(), before, strict=True)]
        np.testing.assert_allclose(taken.update_norm, moved, rtol=1e-12)
        np.testing.assert_allclose(taken.weight_norm, [float(b.norm()) for b in before], rtol=1e-12)
        assert taken.window == (2 if number else 0)
    assert len(seen) > 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_the_trace_of_an_accelerator_gives_what_that_of_the_processor_gives(dtype):
    params = [p.detach() for p in small(dtype).parameters()]
    here, there = HostTrace(params), DeviceTrace(params)
    for number, x in enumerate(batches(5, dtype)):
        gradients = [x.mean() * p.cos() for p in params]
        found = []
        for trace in (here, there):
            trace.before(params)
            trace.add(gradients, first=number % 4 == 0)
        for p, g in zip(params, gradients, strict=True):
            p.sub_(0.1 * g)
        found = [np.asarray(trace.after(params, full=number % 4 == 3)) for trace in (here, there)]
        assert len(found[0]) == (5 if number % 4 == 3 else 3)
        np.testing.assert_allclose(*found, rtol=1e-5, atol=1e-12)
        if number == 1:  # somebody else writes, and steps go by unseen
            params[0].data.mul_(2)
        if number == 2:
            here.interrupted()
            there.interrupted()
            params[1].add_(1)


def test_params_that_do_not_lie_densely_in_memory_are_read_at_every_step():
    weight = torch.nn.Parameter(torch.ones(4, 6)[:, ::2])
    optimizer = torch.optim.SGD([weight], lr=0.5)
    model = torch.nn.Module()
    model.weight = weight
    recorder = StepRecorder(model, optimizer, 9, lambda: True)
    for value in (1.0, 0.5):
        weight.grad = torch.ones(4, 3)
        optimizer.step()
        taken = recorder.take()
        assert taken.weight_norm[0] == pytest.approx(value * 12**0.5)
        assert taken.update_norm[0] == pytest.approx(0.5 * 12**0.5)
