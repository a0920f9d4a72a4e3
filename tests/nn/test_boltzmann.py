"""Restricted Boltzmann machines against their own definition: every state of a small machine, enumerated."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stratoscope.errors import DataError, SettingError
from stratoscope.nn import RestrictedBoltzmannMachine
from stratoscope.nn.boltzmann import START

NAMES = ("weight", "visible_bias", "hidden_bias")


def drawn(seed=0):
    return torch.Generator().manual_seed(seed)


def machine_of(visible=4, hidden=3, units="bernoulli", seed=0, scale=1.0):
    """A small machine in float64 whose parameters are far from zero."""
    machine = RestrictedBoltzmannMachine(visible, hidden, visible_units=units, dtype=torch.float64)
    draw = drawn(seed)
    with torch.no_grad():
        for param in machine.parameters():
            param.copy_(scale * torch.randn(param.shape, generator=draw, dtype=torch.float64))
    return machine


def number(tensor):
    return tensor.detach().item()


def states(n):
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=n)), dtype=torch.float64)


def joint(machine):
    """`p(v, h)` by the definition, for all states of both sides."""
    v, h = states(machine.in_features), states(machine.out_features)
    energy = -(v @ machine.visible_bias)[:, None] - h @ machine.hidden_bias - v @ machine.weight.T @ h.T
    return torch.softmax(-energy.detach().flatten(), 0).reshape(energy.shape)


def transition(machine):
    """How a step of Gibbs sampling goes from each visible state to each other one."""
    v, h = states(machine.in_features), states(machine.out_features)

    def likelihood(p, outcomes):
        return (outcomes * p[:, None] + (1 - outcomes) * (1 - p[:, None])).prod(2)

    with torch.no_grad():
        up = likelihood(machine.hidden_probabilities(v), h)
        down = likelihood(machine.visible_probabilities(h), v)
    return up @ down


def phase(machine, v, weights):
    """The expectation of the gradient of the negative free energy, as outer products."""
    with torch.no_grad():
        p = torch.sigmoid(v @ machine.weight.T + machine.hidden_bias)
    weights = weights[:, None]
    return {
        "weight": (weights * p).T @ v,
        "visible_bias": (weights * v).sum(0),
        "hidden_bias": (weights * p).sum(0),
    }


def gradient(machine, loss):
    found = torch.autograd.grad(loss, [getattr(machine, name) for name in NAMES])
    return dict(zip(NAMES, found, strict=True))


def distance(one, other):
    return math.sqrt(sum(number((one[name] - other[name]).square().sum()) for name in NAMES))


def bars(n, generator):
    """A planted distribution over 6 units: three patterns, each as often."""
    patterns = torch.tensor([[1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 1, 1]], dtype=torch.float64)
    return patterns[torch.randint(3, (n,), generator=generator)]


@pytest.mark.parametrize(("visible", "hidden"), [(4, 3), (3, 5), (1, 1)])
def test_probabilities_and_free_energy_follow_from_the_joint_distribution(visible, hidden):
    machine = machine_of(visible, hidden)
    p, v, h = joint(machine), states(visible), states(hidden)
    of_v = p.sum(1)
    assert torch.allclose(machine.log_likelihood(v).exp(), of_v, atol=1e-12)
    assert torch.allclose(machine(v), (p @ h) / of_v[:, None], atol=1e-12)
    assert torch.allclose(machine.visible_probabilities(h), (p.T @ v) / p.sum(0)[:, None], atol=1e-12)
    assert machine.log_likelihood(v).exp().sum().item() == pytest.approx(1, abs=1e-12)


def test_the_partition_function_is_the_same_from_either_side():
    wide, narrow = machine_of(4, 3), machine_of(3, 4)
    with torch.no_grad():
        narrow.weight.copy_(wide.weight.T)
        narrow.visible_bias.copy_(wide.hidden_bias)
        narrow.hidden_bias.copy_(wide.visible_bias)
    assert number(wide.log_partition()) == pytest.approx(number(narrow.log_partition()), abs=1e-12)


def test_many_states_are_enumerated_in_blocks():
    machine = machine_of(15, 16, scale=0.0)
    with torch.no_grad():
        machine.hidden_bias.fill_(0.5)
    expected = 15 * math.log(2) + 16 * math.log(1 + math.exp(0.5))
    assert number(machine.log_partition()) == pytest.approx(expected, rel=1e-12)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**32), hidden=st.integers(1, 5))
def test_the_likelihood_ignores_the_order_and_the_sign_of_hidden_units(seed, hidden):
    """Calling "on" what was "off", `h -> 1 - h`, moves the weights into the visible biases and changes no probability."""
    machine, other = (machine_of(4, hidden, seed=seed) for _ in range(2))
    with torch.no_grad():
        other.weight[0] *= -1
        other.hidden_bias[0] *= -1
        other.visible_bias += machine.weight[0]
        for param in (other.weight, other.hidden_bias):
            param.copy_(param.flip(0))
    assert torch.allclose(machine.log_likelihood(states(4)), other.log_likelihood(states(4)), atol=1e-10)


def test_a_large_machine_says_that_it_cannot_be_enumerated():
    with pytest.raises(SettingError, match="All states of 21 units are too many"):
        RestrictedBoltzmannMachine(30, 21).log_partition()


def test_the_density_of_gaussian_units_integrates_to_one():
    machine = machine_of(2, 3, "gaussian")
    line = torch.linspace(-12, 12, 401, dtype=torch.float64)
    grid = torch.cartesian_prod(line, line)
    mass = machine.log_likelihood(grid).exp().sum() * (24 / 400) ** 2
    assert number(mass) == pytest.approx(1, abs=1e-6)


def test_gaussian_units_are_drawn_around_their_means_with_deviation_one():
    machine = machine_of(3, 2, "gaussian")
    h = torch.ones(1, 2, dtype=torch.float64).expand(20000, 2)
    v = machine.sample_visible(h, drawn(1))
    assert torch.allclose(v.mean(0), machine.visible_probabilities(h[:1])[0], atol=0.05)
    assert torch.allclose(v.std(0), torch.ones(3, dtype=torch.float64), atol=0.05)
    assert torch.allclose(machine.visible_probabilities(h[:1])[0], machine.visible_bias + machine.weight.sum(0))


def test_draws_are_as_probable_as_they_say():
    machine = machine_of(4, 3)
    v = states(4)[5].expand(20000, 4)
    h = machine.sample_hidden(v, drawn(2))
    assert set(h.unique().tolist()) <= {0.0, 1.0}
    assert torch.allclose(h.mean(0), machine(v[:1])[0], atol=0.02)


@pytest.mark.parametrize("seed", range(3))
def test_gibbs_sampling_leaves_the_enumerated_distribution_as_it_is(seed):
    machine = machine_of(seed=seed)
    p = joint(machine).sum(1)
    assert torch.allclose(p @ transition(machine), p, atol=1e-12)


def test_gibbs_chains_end_in_the_enumerated_distribution():
    machine = machine_of(scale=0.7)
    p = joint(machine).sum(1)
    ends = machine.gibbs(torch.zeros(20000, 4), 40, drawn(3))
    place = (ends * 2.0 ** torch.arange(3, -1, -1)).sum(1).long()
    share = torch.bincount(place, minlength=16) / len(place)
    assert number((share - p).abs().sum()) / 2 < 0.03  # total variation; sampling noise alone gives about 0.01


@pytest.mark.parametrize("units", ["bernoulli", "gaussian"])
@pytest.mark.parametrize("k", [1, 3])
def test_the_loss_has_the_gradient_of_the_update_rule(units, k):
    machine, v = machine_of(units=units), torch.rand(7, 4, generator=drawn(1), dtype=torch.float64)
    found = gradient(machine, machine.contrastive_divergence(v, k, drawn(4)))
    model = v
    draw = drawn(4)
    for _ in range(k):
        model = machine.sample_visible(machine.sample_hidden(model, draw), draw).detach()
    data_side, model_side = (phase(machine, side, torch.full((7,), 1 / 7, dtype=torch.float64)) for side in (v, model))
    for name in ("weight", "hidden_bias"):
        assert torch.allclose(found[name], model_side[name] - data_side[name], atol=1e-12)
    # a Gaussian's free energy has the bias in a square, whose own part cancels between the sides
    assert torch.allclose(found["visible_bias"], model_side["visible_bias"] - data_side["visible_bias"], atol=1e-12)


def test_the_exact_gradient_is_the_difference_of_the_two_enumerated_sides():
    machine, v = machine_of(), bars(50, drawn(5))[:, :4]
    found = gradient(machine, -machine.log_likelihood(v).mean())
    data_side = phase(machine, v, torch.full((50,), 1 / 50, dtype=torch.float64))
    model_side = phase(machine, states(4), joint(machine).sum(1))
    for name in NAMES:
        assert torch.allclose(found[name], model_side[name] - data_side[name], atol=1e-12)


def test_contrastive_divergence_tends_to_the_exact_gradient():
    """Its expectation over draws is known: the data's distribution times a power of the transition."""
    machine, v = machine_of(), states(4)
    data = torch.zeros(16, dtype=torch.float64)
    data[[3, 12]] = 0.5
    repeated = v[[3, 12]].repeat(10000, 1)
    exact = gradient(machine, -machine.log_likelihood(v[[3, 12]]).mean())
    data_side, step, biases = phase(machine, v, data), transition(machine), []
    for k in (1, 3, 10, 40):
        model_side = phase(machine, v, data @ torch.linalg.matrix_power(step, k))
        expected = {name: model_side[name] - data_side[name] for name in NAMES}
        biases.append(distance(expected, exact))
        drawn_one = gradient(machine, machine.contrastive_divergence(repeated, k, drawn(k)))
        assert distance(drawn_one, expected) < 0.05
    assert biases == sorted(biases, reverse=True)
    assert biases[-1] < 0.01 * biases[0]


def test_a_persistent_chain_goes_on_where_it_was():
    machine, v = machine_of(), states(4)
    chain = torch.zeros(5000, 4, dtype=torch.float64)
    for _ in range(40):
        loss = machine.contrastive_divergence(v, 1, drawn(int(chain.sum())), chain=chain)
    share = torch.bincount((chain * 2.0 ** torch.arange(3, -1, -1)).sum(1).long(), minlength=16) / 5000
    assert number((share - joint(machine).sum(1)).abs().sum()) / 2 < 0.05
    expected = machine.free_energy(v).mean() - machine.free_energy(chain).mean()
    assert number(loss) == pytest.approx(number(expected), abs=1e-12)


@pytest.mark.parametrize("persistent", [False, True])
def test_training_raises_the_exact_likelihood_of_a_planted_distribution(persistent):
    machine = RestrictedBoltzmannMachine(6, 4, generator=drawn(1), dtype=torch.float64)
    v, draw = bars(300, drawn(2)), drawn(3)
    chain = torch.rand(100, 6, generator=draw, dtype=torch.float64).round() if persistent else None
    optimizer = torch.optim.SGD(machine.parameters(), lr=0.1, momentum=0.5)
    before = number(machine.log_likelihood(v).mean())
    for _ in range(600):
        optimizer.zero_grad()
        machine.contrastive_divergence(v, 1, draw, chain=chain).backward()
        optimizer.step()
    after = number(machine.log_likelihood(v).mean())
    assert before == pytest.approx(-6 * math.log(2), abs=0.05)
    assert -3 < after < -math.log(3) + 0.05  # no model says more than the entropy of the three patterns


def test_the_reconstruction_error_is_that_of_a_round_by_probabilities():
    machine, v = machine_of(), torch.rand(9, 4, generator=drawn(1), dtype=torch.float64)
    back = machine.visible_probabilities(machine(v))
    assert number(machine.reconstruction_error(v)) == pytest.approx(number((v - back).square().mean()), abs=1e-12)


def test_fresh_weights_are_as_the_guide_gives_them():
    machine = RestrictedBoltzmannMachine(200, 300, generator=drawn(7))
    assert number(machine.weight.std()) == pytest.approx(START, rel=0.02)
    assert number(machine.weight.mean().abs()) < 1e-4
    assert not machine.visible_bias.any()
    assert torch.equal(machine.weight, RestrictedBoltzmannMachine(200, 300, generator=drawn(7)).weight)
    assert not torch.equal(machine.weight, RestrictedBoltzmannMachine(200, 300).weight)


def test_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    machine = RestrictedBoltzmannMachine(4, 3)
    v = states(4)
    machine.contrastive_divergence(v, 2, drawn(1)).backward()
    machine.gibbs(v, 2, drawn(1))
    assert torch.equal(before, torch.get_rng_state())


def test_pictures_bytes_and_truth_values_are_examples_too():
    machine = machine_of(4, 3)
    bytes_of = torch.tensor([[[0, 255], [51, 102]]], dtype=torch.uint8)
    parts = torch.tensor([[0, 1, 0.2, 0.4]], dtype=torch.float64)
    assert torch.allclose(machine(bytes_of), machine(parts), atol=1e-12)
    assert torch.allclose(machine(states(4).bool()), machine(states(4)))


def test_float32_gives_what_float64_gives():
    double = machine_of(20, 10, seed=3)
    single = RestrictedBoltzmannMachine(20, 10)
    single.load_state_dict(double.state_dict())
    v = torch.rand(30, 20, generator=drawn(1), dtype=torch.float64)
    assert torch.allclose(single(v).double(), double(v), atol=1e-5)
    assert torch.allclose(single.log_likelihood(v).double(), double.log_likelihood(v), atol=1e-3)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (torch.tensor([[0.5, 2.0]]), r"The data reach from 0.5 to 2, and binary visible units take numbers from 0 to 1"),
        (torch.tensor([[0.5, -0.1]]), "reach from -0.1 to 0.5"),
        (torch.tensor([[0.5, math.nan]]), "1 of 2 numbers of the data are NaN or infinite"),
        (torch.tensor([[math.inf, math.nan]]), "2 of 2 numbers"),
        (torch.zeros(0, 2), "nothing to learn from"),
        (torch.zeros(2), r"needs \(n, 2\) or pictures of as many pixels, not \(2,\)"),
        (torch.zeros(3, 5), r"needs \(n, 2\) .* not \(3, 5\)"),
    ],
)  # fmt: skip
def test_what_cannot_be_learned_from_is_said_in_a_sentence(data, says):
    with pytest.raises(DataError, match=says):
        RestrictedBoltzmannMachine(2, 3).contrastive_divergence(data, 1, drawn())


def test_gaussian_units_take_any_finite_number():
    machine = RestrictedBoltzmannMachine(2, 3, visible_units="gaussian")
    assert torch.isfinite(machine.contrastive_divergence(torch.tensor([[-5.0, 7.0]]), 1, drawn()))
    with pytest.raises(DataError, match="NaN or infinite"):
        machine.contrastive_divergence(torch.tensor([[math.nan, 7.0]]), 1, drawn())


def test_settings_out_of_range_are_said_in_a_sentence():
    with pytest.raises(SettingError, match="visible=0 and hidden=3 must both be at least 1"):
        RestrictedBoltzmannMachine(0, 3)
    with pytest.raises(SettingError, match="visible_units='poisson' must be one of bernoulli, gaussian"):
        RestrictedBoltzmannMachine(2, 3, visible_units="poisson")
    with pytest.raises(SettingError, match="k=0 must be at least 1"):
        RestrictedBoltzmannMachine(2, 3).gibbs(torch.zeros(1, 2), 0, drawn())
    with pytest.raises(DataError, match=r"Hidden states have the shape \(n, 3\), not \(1, 2\)"):
        RestrictedBoltzmannMachine(2, 3).visible_probabilities(torch.zeros(1, 2))


def test_it_is_a_module_like_others(tmp_path):
    machine = RestrictedBoltzmannMachine(4, 3, generator=drawn(1))
    torch.save(machine.state_dict(), tmp_path / "machine.pt")
    other = RestrictedBoltzmannMachine(4, 3)
    other.load_state_dict(torch.load(tmp_path / "machine.pt"))
    assert torch.equal(other.weight, machine.weight)
    assert repr(machine) == "RestrictedBoltzmannMachine(visible=4, hidden=3, visible_units='bernoulli')"
    assert torch.nn.Sequential(machine, torch.nn.Linear(3, 2))(torch.zeros(5, 4)).shape == (5, 2)
