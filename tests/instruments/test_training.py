"""The instrument `training`: what every step does, against plain loops."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from stratoscope import watch
from stratoscope.capture.gradients import Optimizer, OptimizerState, StepStatistics, TrainingGradients, TrainingLoss
from stratoscope.capture.views import Capture, Seen
from stratoscope.findings import Outcome
from stratoscope.instruments.training import Training
from stratoscope.network.subject import Subject
from stratoscope.observe.settings import Settings
from stratoscope.record.quantity import quantity
from stratoscope.testing.subjects import seeded


def statistics(samples, **more):
    """What a recorder gives at the end of a window: `samples` are (window, params, numbers)."""
    window, params, _ = samples.shape
    values = {
        "params": tuple(f"p{i}" for i in range(params)),
        "norm": np.linalg.norm(samples[-1], axis=-1),
        "sum_norm": np.linalg.norm(samples.sum(0), axis=-1),
        "square_sum": (samples**2).sum((0, 2)),
        "window": window,
        "weight_norm": np.ones(params),
        "update_norm": np.full(params, 0.01),
        "full": np.ones(params, bool),
        **more,
    }
    return StepStatistics(**values)


def measure(step, window=32, **live):
    needs = {
        TrainingGradients(window): step,
        **{Optimizer() if k == "optimizer" else TrainingLoss(): v for k, v in live.items()},
    }
    training = Training(window=window)
    capture = Capture(Subject(nn.Linear(1, 1)), frozenset(training.requires | training.uses), live=needs)
    return {name: value.values for name, value in training.measure(Seen(None, capture)).items()}


def trained(tmp_path, optimizer, steps=40, make=None):
    """A watched training of a tiny network, and what a plain loop notes beside it."""
    with seeded(0) as generator:
        model = make() if make else nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 1))
        batches = [torch.randn(16, 5, generator=generator) for _ in range(steps)]
    opt, rows = optimizer(model.parameters()), []
    settings = {"instruments": [Training(window=8)], "to": tmp_path / "run", "budget": math.inf, "settings": Settings()}
    with watch(model, optimizer=opt, **settings) as w:
        for step, batch in enumerate(batches, start=1):
            loss = (model(batch) - batch[:, :1]).square().mean()
            opt.zero_grad()
            loss.backward()
            params = [p for p in model.parameters() if p.requires_grad]
            before = [p.detach().clone() for p in params]
            grads = [p.grad.detach().clone().double().flatten().numpy() for p in params]
            opt.step()
            ratio = [float((p.detach() - b).norm() / b.norm()) for p, b in zip(params, before, strict=True)]
            rows.append((float(loss.detach()), grads, ratio, [float(b.norm()) for b in before]))
            w.step(step, loss=loss)
    return w.record, rows, [name for name, _ in model.named_parameters()]


# -- numbers -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [2, 5, 32])
def test_signal_and_noise_are_those_of_the_samples(window):
    samples = np.random.default_rng(0).normal(size=(window, 3, 7)) + np.array([0.0, 1.0, 5.0])[:, None]
    found = measure(statistics(samples), window)
    covariance = samples.var(0, ddof=1).sum(-1)
    mean_square = (samples.mean(0) ** 2).sum(-1) - covariance / window
    np.testing.assert_allclose(found["gradient_deviation"], np.sqrt(covariance), rtol=1e-9)
    np.testing.assert_allclose(found["gradient_mean"], np.sqrt(mean_square.clip(0)), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found["gradient_snr"], found["gradient_mean"] / found["gradient_deviation"])


def test_pure_noise_has_no_signal_on_average():
    rng, window = np.random.default_rng(1), 32
    ratios = np.array(
        [measure(statistics(rng.normal(size=(window, 1, 50))), window)["gradient_snr"][0] for _ in range(200)]
    )
    # the biased estimate would be 1 / sqrt(32) = 0.18 each time
    assert (ratios == 0).mean() == pytest.approx(0.5, abs=0.12)
    assert np.median(ratios) < 0.05
    assert ratios.max() < 0.18


def test_a_known_signal_comes_out():
    rng, window = np.random.default_rng(2), 64
    found = [
        measure(statistics(rng.normal(0.5, 1.0, size=(window, 1, 100))), window)["gradient_snr"][0] for _ in range(40)
    ]
    assert np.mean(found) == pytest.approx(0.5, rel=0.03)


def test_equal_gradients_have_no_noise():
    found = measure(statistics(np.ones((8, 1, 4))), 8)
    assert found["gradient_mean"][0] == pytest.approx(2.0)
    assert found["gradient_deviation"][0] == 0
    assert found["gradient_snr"][0] == np.inf


def test_before_the_window_is_full_there_are_only_the_step_s_own_numbers():
    found = measure(statistics(np.ones((8, 1, 4)), window=0), 8, loss=0.3)
    assert found.keys() == {"gradient_norm", "update_ratio", "loss"}
    assert found["loss"] == 0.3


def test_the_rate_is_the_first_group_s():
    state = OptimizerState("SGD", (0.1, 0.2), (0.0, 0.0))
    assert measure(statistics(np.ones((8, 1, 4))), 8, optimizer=state)["learning_rate"] == 0.1


@pytest.mark.parametrize("name", ["sgd", "momentum", "adam"])
def test_a_watched_training_has_the_numbers_of_a_plain_loop(tmp_path, name):
    made = {
        "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
        "momentum": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.01),
        "adam": lambda p: torch.optim.Adam(p, lr=0.01),
    }
    record, rows, names = trained(tmp_path, made[name])
    group = record["training"]
    ratio, norm = group["update_ratio"], group["gradient_norm"]
    assert norm.coords["param"].values.tolist() == names
    assert norm.coords["step"].values.tolist() == list(range(1, 41))
    np.testing.assert_allclose(norm.values, [[np.linalg.norm(g) for g in row[1]] for row in rows], rtol=1e-4)
    np.testing.assert_allclose(ratio.values, [row[2] for row in rows], rtol=1e-3)
    np.testing.assert_allclose(group["loss"].values, [row[0] for row in rows], rtol=1e-6)
    if name == "sgd":  # one step of plain SGD moves the weights by the rate times the gradient
        expected = [[0.1 * np.linalg.norm(g) / w for g, w in zip(row[1], row[3], strict=True)] for row in rows]
        np.testing.assert_allclose(ratio.values, expected, rtol=1e-4)
    windows = [np.stack([row[1][0] for row in rows[i : i + 8]]) for i in range(0, 40, 8)]
    deviation = group["gradient_deviation"].sel(param=names[0]).dropna("step")
    assert deviation.coords["step"].values.tolist() == [8, 16, 24, 32, 40]
    np.testing.assert_allclose(deviation.values, [np.sqrt(w.var(0, ddof=1).sum()) for w in windows], rtol=1e-3)


def test_frozen_params_have_no_row(tmp_path):
    def make():
        model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 1))
        model[0].requires_grad_(False)
        return model

    record, _, _ = trained(tmp_path, lambda p: torch.optim.SGD([q for q in p if q.requires_grad], lr=0.1), 4, make)
    assert record["training"]["gradient_norm"].coords["param"].values.tolist() == ["2.weight", "2.bias"]


# -- judgement -----------------------------------------------------------------------------------------------------------


def curves(steps, **params):
    """One row a step for each variable; each value is a function of the step."""
    found = {}
    for step in range(1, steps + 1):
        row = {
            name: quantity(
                [f(step) for f in by_param.values()],
                units="1",
                long_name=name,
                dims="param",
                coords={"param": list(by_param)},
            )
            if isinstance(by_param, dict)
            else quantity(float(by_param(step)), units="1", long_name=name)
            for name, by_param in params.items()
        }
        found[step, ""] = row
    return found


def said(group, **thresholds):
    return {f.code: f for f in Training(**thresholds).judge(group) if f.outcome is not Outcome.PASSED}


def steady(value):
    return lambda step: value


def typical(**more):
    return {
        "gradient_norm": {"a.weight": steady(1.0), "a.bias": steady(0.1)},
        "update_ratio": {"a.weight": steady(1e-3), "a.bias": steady(50.0)},
        "loss": lambda step: 1 / step,
        **more,
    }


def test_a_healthy_training_is_passed(saved):
    group = saved("training", curves(120, **typical()))
    assert said(group) == {}
    assert {f.code for f in Training().judge(group)} == set(Training.codes)


@pytest.mark.parametrize(
    ("steps", "names", "codes"),
    [
        (120, ("loss",), {"TR001", "TR006"}),
        (99, ("loss",), {"TR001"}),
        (4, ("loss", "gradient_norm", "update_ratio"), {"TR001", "TR005"}),
        (5, ("gradient_norm", "update_ratio"), {"TR001", "TR002", "TR005"}),
        (50, ("gradient_norm", "update_ratio"), {"TR001", "TR002", "TR003", "TR005"}),
        (100, ("gradient_norm", "update_ratio"), {"TR001", "TR002", "TR003", "TR004", "TR005"}),
        (120, ("learning_rate",), set()),
    ],
)
def test_only_what_was_looked_at_is_passed(saved, steps, names, codes):
    all_of_them = typical(learning_rate=steady(0.1))
    group = saved("training", curves(steps, **{name: all_of_them[name] for name in names}))
    assert {f.code: f.outcome for f in Training().judge(group)} == dict.fromkeys(codes, Outcome.PASSED)


def test_steps_that_the_budget_left_out_are_not_counted_as_looked_at(saved):
    rows = curves(150, **typical())
    for step in range(61, 151):
        del rows[step, ""]["gradient_norm"], rows[step, ""]["update_ratio"]
    assert {f.code for f in Training().judge(saved("training", rows))} == set(Training.codes) - {"TR004"}


def test_where_biases_alone_are_trained_no_update_is_called_right(saved):
    rows = curves(60, gradient_norm={"a.bias": steady(1.0)}, update_ratio={"a.bias": steady(1e-3)})
    assert {f.code for f in Training().judge(saved("training", rows))} == {"TR001", "TR005"}


def test_a_loss_that_is_not_finite(saved):
    group = saved("training", curves(20, **typical(loss=lambda step: math.nan if step > 12 else 1.0)))
    finding = said(group)["TR001"]
    assert finding.evidence == {"first_step": 13, "steps": 8, "limit": 0}
    assert finding.step == 13


def test_a_gradient_that_is_not_finite_is_named(saved):
    norm = {"a.weight": steady(1.0), "a.bias": lambda step: math.inf if step == 7 else 1.0}
    finding = said(saved("training", curves(20, **typical(gradient_norm=norm))))["TR001"]
    assert "a.bias" in finding.says
    assert finding.evidence["first_step"] == 7


def test_what_was_not_measured_is_not_called_infinite(saved):
    rows = curves(20, **typical())
    del rows[10, ""]["loss"]
    del rows[10, ""]["gradient_norm"]
    assert "TR001" not in said(saved("training", rows))


def test_large_updates_but_not_those_of_biases(saved):
    ratio = {"a.weight": lambda step: 0.6 if 3 <= step < 9 else 1e-3, "a.bias": steady(9.0)}
    finding = said(saved("training", curves(60, **typical(update_ratio=ratio))))["TR002"]
    assert finding.layer == "a.weight"
    assert finding.evidence["update_ratio"] == pytest.approx(0.6)
    assert finding.evidence["limit"] == 0.2


def test_one_large_update_is_not_an_issue(saved):
    ratio = {"a.weight": lambda step: 0.9 if step == 5 else 1e-3, "a.bias": steady(1e-3)}
    assert said(saved("training", curves(60, **typical(update_ratio=ratio)))) == {}


def test_tiny_updates(saved):
    ratio = {"a.weight": steady(1e-8), "a.bias": steady(1e-8)}
    finding = said(saved("training", curves(60, **typical(update_ratio=ratio))))["TR003"]
    assert finding.outcome is Outcome.TIP
    assert finding.evidence["update_ratio"] == pytest.approx(1e-8)
    assert finding.evidence["limit"] == 1e-6


def test_gradients_that_grow(saved):
    norm = {"a.weight": lambda step: 10.0 ** (step / 20), "a.bias": steady(1.0)}
    finding = said(saved("training", curves(120, **typical(gradient_norm=norm))))["TR004"]
    assert finding.layer == "a.weight"
    assert finding.evidence["growth"] > finding.evidence["limit"] == 1e3


def test_a_param_without_any_gradient(saved):
    norm = {"a.weight": steady(0.0), "a.bias": steady(1.0)}
    finding = said(saved("training", curves(60, **typical(gradient_norm=norm))))["TR005"]
    assert "a.weight" in finding.says
    assert finding.evidence["limit"] == 0.0


@pytest.mark.parametrize(("slope", "speaks"), [(0.01, True), (0.0, False), (-0.01, False)])
def test_a_loss_that_rises_but_not_one_that_is_noisy(saved, slope, speaks):
    noise = np.random.default_rng(0).normal(size=200)
    group = saved("training", curves(200, **typical(loss=lambda step: 5 + slope * step + 0.3 * noise[step - 1])))
    assert ("TR006" in said(group)) is speaks


def test_a_flat_noisy_loss_is_not_called_rising(saved):
    spoken = 0
    for seed in range(30):
        noise = np.random.default_rng(seed).normal(size=100)
        rows = curves(100, loss=lambda step, noise=noise: 5 + noise[step - 1])
        spoken += "TR006" in said(saved("training", rows))
    assert spoken == 0  # four standard errors on one side: 3 in 100,000


def test_biases_of_recurrent_layers_are_biases(saved):
    ratio = {"rnn.weight_hh_l0": steady(1e-3), "rnn.bias_hh_l0": steady(9.0)}
    norm = dict.fromkeys(ratio, steady(1.0))
    assert said(saved("training", curves(60, gradient_norm=norm, update_ratio=ratio))) == {}
