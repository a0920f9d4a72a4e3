"""Deep belief networks: the greedy training against plain autograd, and its checkpoints."""

import json
import math

import pytest
import torch

from stratoscope.errors import DataError, OpenError, SettingError
from stratoscope.nn import DeepBeliefNetwork, RestrictedBoltzmannMachine, checkpoints

SIZES = [12, 8, 5, 3]


def drawn(seed=0):
    return torch.Generator().manual_seed(seed)


def network(seed=0, dtype=torch.float64, **options):
    return DeepBeliefNetwork(SIZES, generator=drawn(seed), dtype=dtype, **options)


def examples(n=40, seed=1):
    return torch.rand(n, 12, generator=drawn(seed), dtype=torch.float64)


def number(tensor):
    return tensor.detach().item()


def weights(net):
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


SETTINGS = {"epochs": 3, "batch_size": 15, "momentum_after": 1}


def test_each_layer_is_seen_on_its_own_and_passes_probabilities_upward():
    net, v = network(), examples()
    seen = {}
    for name, module in net.named_modules():
        module.register_forward_hook(lambda _, __, out, name=name: seen.__setitem__(name, out))
    top = net(v.reshape(40, 3, 4))
    assert list(seen) == ["flatten", "layers.0", "layers.1", "layers.2", ""]
    assert torch.equal(seen["flatten"], v)
    state = v
    for machine, told in zip(net.machines, net.upward(v), strict=True):
        state = torch.sigmoid(state @ machine.weight.T + machine.hidden_bias)
        assert torch.allclose(told, state, atol=1e-12)
    assert torch.allclose(top, state, atol=1e-12)
    assert net.sizes == tuple(SIZES)


@pytest.mark.parametrize("sample_visible", [False, True])
def test_the_training_is_that_of_the_loss_under_plain_gradient_descent(sample_visible):
    """A twin in autograd: the first momentum throughout, the visible bias from the data, the same draws."""
    v, settings = examples(), {"epochs": 3, "batch_size": 15, "k": 2, "weight_decay": 0.01}
    net = DeepBeliefNetwork([12, 8], generator=drawn(), dtype=torch.float64)
    net.fit(v, generator=drawn(5), lr=0.2, momentum=(0.5, 0.5), sample_visible=sample_visible, **settings)

    twin, draw = RestrictedBoltzmannMachine(12, 8, generator=drawn(), dtype=torch.float64), drawn(5)
    twin.visible_bias.data.copy_(torch.log((v.sum(0) + 0.5) / (40 - v.sum(0) + 0.5)))
    groups = [{"params": [twin.weight], "weight_decay": 0.01}, {"params": [twin.visible_bias, twin.hidden_bias]}]
    optimizer = torch.optim.SGD(groups, lr=0.2, momentum=0.5)
    for _ in range(3):
        for batch in torch.randperm(40, generator=draw).split(15):
            optimizer.zero_grad()
            twin.contrastive_divergence(v[batch], 2, draw, sample_visible=sample_visible).backward()
            optimizer.step()
    for name, param in twin.named_parameters():
        assert torch.allclose(param, getattr(net.machines[0], name), atol=1e-12), name


def test_the_second_momentum_comes_after_its_epochs():
    def fitted(momentum, after):
        net = network()
        net.fit(examples(), generator=drawn(1), epochs=3, batch_size=10, momentum=momentum, momentum_after=after)
        return weights(net)

    assert same(fitted((0.5, 0.9), 3), fitted((0.5, 0.5), 0))
    assert same(fitted((0.5, 0.9), 0), fitted((0.9, 0.9), 0))
    assert not same(fitted((0.5, 0.9), 1), fitted((0.5, 0.9), 2))


def test_visible_biases_start_at_the_log_odds_of_what_the_machine_is_shown():
    v = torch.zeros(8, 12, dtype=torch.float64)
    v[:6, 0], v[:, 1] = 1, 1
    net = network()
    net.fit(v, generator=drawn(), epochs=1, batch_size=8, lr=1e-9)
    bias = net.machines[0].visible_bias
    assert number(bias[0]) == pytest.approx(math.log(6.5 / 2.5), abs=1e-6)
    assert number(bias[1]) == pytest.approx(math.log(8.5 / 0.5), abs=1e-6)
    assert number(bias[2]) == pytest.approx(math.log(0.5 / 8.5), abs=1e-6)
    shown = net.machines[0](v).mean(0)
    odds = torch.log((8 * shown + 0.5) / (8 * (1 - shown) + 0.5))
    assert torch.allclose(net.machines[1].visible_bias, odds, atol=1e-6)


def test_gaussian_visible_units_start_at_the_mean_and_only_the_lowest_are():
    v = torch.randn(50, 12, generator=drawn(2), dtype=torch.float64) + 3
    net = network(visible_units="gaussian")
    net.fit(v, generator=drawn(), epochs=1, batch_size=50, lr=1e-9)
    assert torch.allclose(net.machines[0].visible_bias, v.mean(0), atol=1e-6)
    assert [machine.visible_units for machine in net.machines] == ["gaussian", "bernoulli", "bernoulli"]


def test_training_raises_the_exact_likelihood_and_lowers_the_reconstruction_error():
    patterns = torch.eye(4).repeat_interleave(3, 1)
    v = patterns[torch.randint(4, (200,), generator=drawn(3))]
    net = DeepBeliefNetwork([12, 8], generator=drawn())
    before = number(net.machines[0].log_likelihood(v).mean())
    epochs = net.fit(v, generator=drawn(1), epochs=60, batch_size=20, sample_visible=True)
    after = number(net.machines[0].log_likelihood(v).mean())
    assert before == pytest.approx(-12 * math.log(2), abs=0.1)
    assert after > -4  # the entropy of the patterns is log 4 = 1.4
    assert epochs[-1].reconstruction_error < 0.3 * epochs[0].reconstruction_error
    assert number(net.reconstruction_error(v)) < 0.05


def test_samples_of_one_machine_are_those_of_its_chain_and_a_stack_draws_downward():
    net = DeepBeliefNetwork([6, 4], generator=drawn(), dtype=torch.float64)
    with torch.no_grad():
        net.machines[0].weight.normal_(generator=drawn(1))
    draw = drawn(2)
    start = torch.rand(30, 6, generator=draw, dtype=torch.float64).round()
    assert torch.equal(net.sample(30, 3, drawn(2)), net.machines[0].gibbs(start, 3, draw))
    deep = network().sample(7, 2, drawn(3))
    assert deep.shape == (7, 12)
    assert set(deep.unique().tolist()) <= {0.0, 1.0}


def test_bytes_are_parts_of_255_in_training_too():
    pictures = torch.randint(256, (30, 3, 4), generator=drawn(1), dtype=torch.uint8)
    one, other = network(), network()
    one.fit(pictures, generator=drawn(2), **SETTINGS)
    other.fit(pictures.flatten(1).double() / 255, generator=drawn(2), **SETTINGS)
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert torch.allclose(one(pictures), one(pictures.double() / 255), atol=1e-12)


def test_a_seed_gives_the_same_network_and_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    found = []
    for seed in (1, 1, 2):
        net = network()
        net.fit(examples(), generator=drawn(seed), **SETTINGS)
        found.append(weights(net))
    assert same(found[0], found[1])
    assert not same(found[0], found[2])
    assert torch.equal(before, torch.get_rng_state())


def test_progress_is_told_after_each_epoch():
    told = []
    epochs = network().fit(examples(), generator=drawn(), progress=lambda *what: told.append(what), **SETTINGS)
    assert told[0] == ("training layer 1 of 3", 1, 9)
    assert [(done, total) for _, done, total in told] == [(done, 9) for done in range(1, 10)]
    assert [(one.layer, one.epoch) for one in epochs] == [(layer, epoch) for layer in range(3) for epoch in (1, 2, 3)]


def stopping_after(epochs):
    def progress(what, done, total):
        if done == epochs:
            raise KeyboardInterrupt

    return progress


@pytest.mark.parametrize("stopped", [1, 3, 4, 8, 9])
def test_a_stopped_training_goes_on_to_the_same_network_bit_for_bit(tmp_path, stopped):
    whole, v = network(dtype=torch.float32), examples()
    expected = whole.fit(v, generator=drawn(4), **SETTINGS)
    with pytest.raises(KeyboardInterrupt):
        network(dtype=torch.float32).fit(
            v, generator=drawn(4), checkpoints=tmp_path / "kept", progress=stopping_after(stopped), **SETTINGS
        )
    again, told = network(seed=9, dtype=torch.float32), []
    history = again.fit(
        v, generator=drawn(77), checkpoints=tmp_path / "kept", resume=True, progress=lambda *what: told.append(what), **SETTINGS
    )  # fmt: skip
    assert same(weights(whole), weights(again))
    assert history == expected
    assert len(told) == 9 - stopped
    kept = sorted(path.name for path in (tmp_path / "kept").iterdir())
    assert kept == ["fit.json", *(f"layer-{layer}-epoch-3.safetensors" for layer in range(3)), "start.safetensors"]


def test_a_checkpoint_is_whole_whenever_the_machine_stops(tmp_path, monkeypatch):
    """The table of contents comes last: without it the epoch before is what counts."""
    whole, v = network(), examples()
    whole.fit(v, generator=drawn(4), **SETTINGS)
    write, calls = checkpoints._replace, []

    def dies(path, content):
        calls.append(path.name)
        if len(calls) == 9:  # the fourth epoch's table, after the start
            raise OSError("the disk is gone")
        write(path, content)

    monkeypatch.setattr(checkpoints, "_replace", dies)
    with pytest.raises(OSError, match="the disk is gone"):
        network().fit(v, generator=drawn(4), checkpoints=tmp_path, **SETTINGS)
    assert calls[-2:] == ["layer-1-epoch-1.safetensors", "fit.json"]
    monkeypatch.setattr(checkpoints, "_replace", write)
    again = network(seed=3)
    again.fit(v, generator=drawn(), checkpoints=tmp_path, resume=True, **SETTINGS)
    assert same(weights(whole), weights(again))
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_folder_of_another_training_is_refused(tmp_path):
    v = examples()
    network().fit(v, generator=drawn(), checkpoints=tmp_path, **SETTINGS)
    with pytest.raises(SettingError, match="holds a training; pass resume=True"):
        network().fit(v, generator=drawn(), checkpoints=tmp_path, **SETTINGS)
    for change, says in (
        ({"epochs": 4}, "epochs was 3 and is 4"),
        ({"lr": [0.1, 0.1, 0.2]}, r"lr was \[0.1, 0.1, 0.1\] and is \[0.1, 0.1, 0.2\]"),
    ):
        with pytest.raises(SettingError, match=f"holds another training: {says}"):
            network().fit(v, generator=drawn(), checkpoints=tmp_path, resume=True, **{**SETTINGS, **change})
    with pytest.raises(SettingError, match="holds another training: data was"):
        network().fit(1 - v, generator=drawn(), checkpoints=tmp_path, resume=True, **SETTINGS)
    with pytest.raises(SettingError, match="resume=True needs a folder"):
        network().fit(v, generator=drawn(), resume=True, **SETTINGS)


def test_damaged_checkpoints_are_said_to_be_damaged(tmp_path):
    v = examples()
    network().fit(v, generator=drawn(), checkpoints=tmp_path, **SETTINGS)
    held = json.loads((tmp_path / "fit.json").read_text())
    assert held["about"]["sizes"] == SIZES
    (tmp_path / "layer-1-epoch-3.safetensors").write_bytes(b"half of it")
    with pytest.raises(OpenError, match=r"layer-1-epoch-3.safetensors cannot be read"):
        network().fit(v, generator=drawn(), checkpoints=tmp_path, resume=True, **SETTINGS)
    (tmp_path / "fit.json").write_text("{")
    with pytest.raises(OpenError, match=r"fit.json cannot be read"):
        network().fit(v, generator=drawn(), checkpoints=tmp_path, resume=True, **SETTINGS)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (torch.rand(40, 12) + 1, "binary visible units take numbers from 0 to 1"),
        (torch.full((40, 12), math.nan), "480 of 480 numbers of the data are NaN"),
        (torch.zeros(0, 12), "nothing to learn from"),
        (torch.zeros(1, 12), "One example has no distribution to learn"),
        (torch.zeros(40, 13), r"needs \(n, 12\) .* not \(1, 13\)"),
        (torch.zeros(40), r"needs \(n, 12\)"),
        (torch.tensor(0.5), r"needs \(n, 12\) .* not \(\)"),
    ],
)
def test_data_that_cannot_be_learned_from_are_refused_in_a_sentence(data, says):
    with pytest.raises(DataError, match=says):
        network().fit(data, generator=drawn(), **SETTINGS)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"batch_size": 41}, "batch_size=41 is more than the 40 examples"),
        ({"batch_size": 0}, "batch_size=0 must be at least 1"),
        ({"epochs": 0}, "epochs=0 must be at least 1"),
        ({"lr": [0.1]}, "1 learning rates were given for 3 machines"),
        ({"lr": -1.0}, "must be above 0 and finite"),
        ({"momentum": (0.5, 1.0)}, "must be two numbers from 0 to below 1"),
        ({"k": 0}, "k=0 must be at least 1 step"),
        ({"weight_decay": -1.0}, "weight_decay=-1.0 must be at least 0"),
        ({"lr": 1e308, "epochs": 9}, r"The weights of layer 1 left the finite numbers in epoch \d; lower lr=1e\+308"),
    ],
)
def test_settings_out_of_range_are_refused_in_a_sentence(settings, says):
    with pytest.raises(SettingError, match=says):
        network().fit(examples(), generator=drawn(), **{**SETTINGS, **settings})


def test_half_precision_and_a_single_side_are_refused():
    with pytest.raises(SettingError, match=r"Updates vanish in torch.bfloat16; train in float32"):
        network(dtype=torch.bfloat16).fit(examples(), generator=drawn())
    with pytest.raises(SettingError, match=r"sizes=\[784\] must name two sides"):
        DeepBeliefNetwork([784])


def test_instruments_see_every_layer():
    from stratoscope import examine
    from stratoscope.instruments.separation import Separation

    v = examples(60).float()
    labels = (v[:, 0] > 0.5).long()
    record = examine(network(dtype=torch.float32), (v.reshape(60, 1, 3, 4), labels), instruments=[Separation()])
    measured = record["separation"]["gdv"]
    assert {"flatten", "layers.0", "layers.1", "layers.2"} <= set(measured["layer"].values)
    assert not measured.isnull().any()
