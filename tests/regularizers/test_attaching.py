"""Attaching penalties: the model stays as it is, the gradients arrive, and statistics move as the sign says."""

import copy

import pytest
import torch
from torch import nn

from stratoscope.errors import SettingError
from stratoscope.regularizers import EIGHT, Correlation, Sparsity, StableRank, Variance, attach

CLASSES = 4


def mlp(seed=0, inplace=False):
    net = nn.Sequential(
        nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 10), nn.ReLU(inplace=inplace), nn.Linear(10, CLASSES)
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in net.parameters():
            tensor.copy_(torch.randn(tensor.shape, generator=generator) / tensor.shape[-1] ** 0.5)
    return net


def task(n=240, seed=1):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (n,), generator=generator)
    centres = 1.5 * torch.randn(CLASSES, 12, generator=generator)
    return centres[labels] + torch.randn(n, 12, generator=generator), labels


def train(net, extra=None, steps=50, lr=0.02):
    x, y = task()
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9)
    generator = torch.Generator().manual_seed(7)
    for _ in range(steps):
        batch = torch.randint(len(x), (40,), generator=generator)
        loss = nn.functional.cross_entropy(net(x[batch]), y[batch])
        if extra is not None:
            loss = loss + extra(y[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net


def statistic(net, penalty, seed=2):
    x, y = task(seed=seed)
    with torch.no_grad(), attach(net, {"3": penalty}) as extra:
        net(x)
        return extra(y).item()


def hooks(net):
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in net.modules())


def same(one, two):
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))


@pytest.mark.parametrize("name", EIGHT)
def test_a_coefficient_of_zero_is_the_baseline_bit_for_bit(name):
    baseline, net = train(mlp()), mlp()
    with attach(net, {"3": EIGHT[name]()}, coefficient=0.0) as extra:
        train(net, extra)
    assert same(net, baseline)
    assert not same(net, mlp())


def test_what_is_attached_and_not_asked_changes_no_bit_of_outputs_and_gradients():
    (x, y), plain, net = task(), mlp(inplace=True), mlp(inplace=True)
    nn.functional.cross_entropy(plain(x), y).backward()
    with attach(net, {"1": StableRank(), "2": Correlation(), "": Sparsity()}):
        out = net(x)
        nn.functional.cross_entropy(out, y).backward()
    assert torch.equal(out, plain(x))
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(net.parameters(), plain.parameters(), strict=True))


FLOOR = {"rank": 1.0, "class-wise rank": CLASSES}
"""The least value of a statistic, where that is not 0."""


@pytest.mark.parametrize("name", EIGHT)
def test_a_positive_coefficient_lowers_the_statistic_on_examples_not_trained_on(name):
    penalty, net = EIGHT[name](), mlp()
    with attach(net, {"3": penalty}, 1.0) as extra:
        train(net, extra)
    before, after = (statistic(one, penalty) - FLOOR.get(name, 0.0) for one in (train(mlp()), net))
    assert after < 0.85 * before, (before, after)


@pytest.mark.parametrize("name", ["rank", "class-wise rank"])
def test_a_negative_coefficient_raises_the_rank(name):
    penalty, net = EIGHT[name](), mlp()
    with attach(net, {"3": penalty}, -0.3) as extra:
        train(net, extra)
    before, after = (statistic(one, penalty) - FLOOR[name] for one in (train(mlp()), net))
    assert after > 1.5 * before, (before, after)


def test_the_gradient_is_the_coefficient_times_that_of_the_penalty():
    (x, _), net = task(), mlp()
    with attach(net, {"2": Variance()}, -2.5) as extra:
        net(x)
        extra().backward()
    found = net[0].weight.grad.clone()
    net.zero_grad()
    (-2.5 * Variance()(net[:3](x))).backward()
    assert torch.allclose(found, net[0].weight.grad, rtol=1e-5, atol=1e-8)


def test_what_an_in_place_function_does_later_does_not_change_what_the_layer_said():
    (x, _), net = task(), mlp(inplace=True)
    with attach(net, {"2": Sparsity()}) as extra:
        net(x)
        value = extra()
        value.backward()
    assert value.item() == pytest.approx(Sparsity()(net[:3](x)).item(), rel=1e-6)
    assert value.item() > 1.2 * Sparsity()(net[:4](x)).item()


def test_hooks_go_when_the_with_ends_also_after_an_error_and_when_one_is_taken_away_by_hand():
    net = mlp()
    with attach(net, {"1": Sparsity()}):
        assert hooks(net) == 2
    assert hooks(net) == 0
    with pytest.raises(ZeroDivisionError), attach(net, {"1": Sparsity()}):
        raise ZeroDivisionError
    assert hooks(net) == 0
    extra = attach(net, {"1": Sparsity()})
    extra.remove()
    extra.remove()
    assert hooks(net) == 0
    with pytest.raises(SettingError, match="no layer"):
        attach(net, {"1": Sparsity(), "9": Sparsity()})
    assert hooks(net) == 0


def test_a_model_with_a_penalty_can_be_copied_and_stays_picklable_afterwards():
    net = mlp()
    with attach(net, {"1": Sparsity()}):
        pass
    assert same(copy.deepcopy(net), net)


def test_several_can_be_attached_at_once_also_to_one_layer():
    (x, y), net = task(), mlp()
    with attach(net, {"1": Sparsity(), "3": StableRank()}, 0.5) as one, attach(net, {"3": Variance(True)}, 2.0) as two:
        net(x)
        first, second = net[:2](x), net[:4](x)
        net(x)
        assert one().item() == pytest.approx(0.5 * (Sparsity()(first) + StableRank()(second)).item(), rel=1e-6)
        assert two(y).item() == pytest.approx(2 * Variance(True)(second, y).item(), rel=1e-6)
        assert one.last["1"].item() == pytest.approx(Sparsity()(first).item(), rel=1e-6)
    assert hooks(net) == 0


def test_each_forward_pass_begins_anew_and_repeated_layers_pay_each_time():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.relu = nn.ReLU()

        def forward(self, x):
            return self.relu(2 * self.relu(x))

    with attach(Twice(), {"relu": Sparsity()}) as extra:
        net = Twice()
    with attach(net, {"relu": Sparsity()}) as extra:
        for value in (1.0, 2.0):
            net(torch.full((3, 2), value))
            assert extra().item() == extra().item() == pytest.approx(3 * value)


def test_parts_that_are_called_by_themselves_begin_anew_after_each_penalty():
    net = mlp()
    with attach(net, {"3": Sparsity()}) as extra:
        for seed in (1, 2):
            hidden = net[:4](task(seed=seed)[0])
            assert extra().item() == pytest.approx(Sparsity()(hidden).item(), rel=1e-6)


def test_channels_of_one_dimensional_maps_are_units():
    net, x = nn.Sequential(nn.Conv1d(2, 5, 3)), torch.randn(4, 2, 9, generator=torch.Generator().manual_seed(0))
    sizes = []
    with attach(net, {"0": lambda rows, labels: sizes.append(rows.shape) or rows.sum()}) as extra:
        net(x)
        extra()
    assert sizes == [(4, 5)]


def test_outputs_that_are_several_things_give_their_first_tensor():
    net, x = nn.LSTM(3, 4, batch_first=True), torch.ones(2, 5, 3)
    with attach(net, {"": Variance()}) as extra:
        out = net(x)[0]
        assert extra().item() == pytest.approx(Variance()(out).item(), rel=1e-6)


def test_the_coefficient_may_change_during_training():
    net = nn.Sequential(nn.Identity())
    with attach(net, {"0": Sparsity()}, 1.0) as extra:
        net(torch.ones(2, 2))
        extra.coefficient = 0.25
        assert extra().item() == 0.25
        extra.coefficient = 0.0
        assert extra().item() == 0.0
        extra.coefficient = float("nan")
        with pytest.raises(SettingError, match="not finite"):
            extra()


def test_wrong_use_says_what_to_do():
    net = mlp()
    with pytest.raises(SettingError, match=r"no layer 'fc'; there are 0, 1, 2"):
        attach(net, {"fc": Sparsity()})
    with pytest.raises(SettingError, match=r"The penalty of 3 is <class .*Sparsity'>, which is none; give one"):
        attach(net, {"3": Sparsity})
    with pytest.raises(SettingError, match="no penalty to attach"):
        attach(net, {})
    with attach(net, {"3": Sparsity()}) as extra, pytest.raises(SettingError, match="run the model before"):
        extra()
    with attach(net, {"3": Variance(classwise=True)}) as extra, pytest.raises(SettingError, match="extra\\(labels\\)"):
        net(task()[0])
        extra()
    words = nn.Sequential(nn.Identity())
    with attach(words, {"0": Sparsity()}), pytest.raises(SettingError, match="gives str"):
        words("a")
