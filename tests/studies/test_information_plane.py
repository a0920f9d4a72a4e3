"""The study of the information plane: its task is the authors', its numbers are exact, and its claims read what they say."""

import math

import numpy as np
import pytest
import torch

from stratoscope.numerics.bottleneck import bottleneck_curve
from stratoscope.numerics.bottleneck_deterministic import hard_information
from stratoscope.numerics.entropy import EqualWidth, cells_of, shared_information
from stratoscope.studies.claim import Verdict, decide
from stratoscope.studies.information_plane import claims, task
from stratoscope.studies.information_plane.networks import DEEPEST, PLANE, activations, build, layer_names
from stratoscope.studies.information_plane.plane import gradient_numbers
from stratoscope.studies.information_plane.study import Training, checkpoints, tasks, work
from stratoscope.studies.registry import study
from stratoscope.studies.running import run_study
from stratoscope.studies.runs import Run, StudyRuns

AUTHORS = (
    "0-1 0-3 0-5 0-10 0-11 1-2 1-3 1-4 1-11 2-3 2-4 2-8 2-9 3-8 3-10 4-6 4-9 4-11 5-6 5-7 5-10 5-11 6-7 6-9 6-11 7-8 7-9 "
    "7-10 8-9 8-10"
)
"""Edges between vertices by the authors' numbering."""


# -- task ----------------------------------------------------------------------------------------------------------------


def graph(edges):
    table = np.zeros((12, 12), int)
    for i, j in edges:
        table[i, j] = table[j, i] = 1
    return table


def test_the_labels_are_those_of_the_rule():
    labels = task.labels()
    assert labels.sum() == task.ONES == 2118
    assert labels.mean() == pytest.approx(0.5171, abs=5e-5)
    assert not labels[task.patterns().sum(1) <= 4].any()
    assert labels[task.patterns().sum(1) >= 8].all()
    curve = bottleneck_curve(None, task.p_y_given_x())
    assert curve.joint.entropy_y == pytest.approx(0.99916, abs=5e-6)
    assert "function of the input" in curve.degenerate
    assert len(curve.joint.p_x) == 2


def test_the_patterns_count_upwards_with_the_first_input_most_significant():
    patterns = task.patterns()
    assert patterns.shape == (4096, 12)
    assert (patterns @ 2 ** np.arange(11, -1, -1) == np.arange(4096)).all()


def test_the_vertices_are_an_icosahedron_as_the_authors_number_it_up_to_names():
    ours = graph(task.icosahedron()[0])
    theirs = graph(tuple(map(int, edge.split("-"))) for edge in AUTHORS.split())
    assert (ours.sum(0) == 5).all()
    # same graph: a numbering that carries one into the other, found by growing it vertex by vertex
    assert carried(ours, theirs, [])
    assert all(np.array_equal(ours[i] + ours[j] + np.eye(12, dtype=int)[i] + np.eye(12, dtype=int)[j], np.ones(12)) for i, j in task.icosahedron()[1])  # fmt: skip


def carried(ours, theirs, sofar):
    place = len(sofar)
    if place == 12:
        return True
    fits = (
        name
        for name in range(12)
        if name not in sofar and all(theirs[name, old] == ours[place, i] for i, old in enumerate(sofar))
    )
    return any(carried(ours, theirs, [*sofar, name]) for name in fits)


def test_the_smoothed_label_is_the_rule_where_it_is_sharp():
    strength = task.strength()
    assert ((strength > 0) == task.labels().astype(bool)).all()
    assert abs(strength).min() == pytest.approx(5 / 48)
    sharp = task.p_y_given_x(1e6)
    assert sharp == pytest.approx(task.p_y_given_x(math.inf))
    told = [bottleneck_curve(None, task.p_y_given_x(gamma), accuracy=0.1).joint.information for gamma in task.SMOOTH]
    assert told == pytest.approx([0.99, 0.86], abs=0.005)
    for gamma in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="gamma"):
            task.p_y_given_x(gamma)


def test_rotations_change_no_label():
    ours = graph(task.icosahedron()[0])
    found = turns(ours, [])
    assert len(found) == 120
    labels, powers = task.labels(), 2 ** np.arange(11, -1, -1)
    for turn in found[::17]:
        assert (labels[task.patterns()[:, turn] @ powers] == labels).all()


def turns(table, sofar):
    place = len(sofar)
    if place == 12:
        return [sofar]
    fits = [
        name
        for name in range(12)
        if name not in sofar and all(table[name, old] == table[place, i] for i, old in enumerate(sofar))
    ]
    return [turn for name in fits for turn in turns(table, [*sofar, name])]


def test_drawn_labels_are_seeded_and_have_their_probabilities():
    one, again, other = (task.draw_labels(1.0, seed) for seed in (0, 0, 1))
    assert (one == again).all()
    assert (one != other).any()
    expected = task.p_y_given_x(1.0)[:, 1]
    assert abs(one.sum() - expected.sum()) < 5 * math.sqrt((expected * (1 - expected)).sum())
    assert (task.draw_labels(math.inf, 3) == task.labels()).all()


# -- networks and numbers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_a_network_starts_as_the_authors_did(activation):
    net = build(PLANE, activation, 0)
    weight = build((2000,), activation, 1).get_submodule("linear1").weight.detach()
    assert float(weight.abs().max()) <= 2 / math.sqrt(12)
    assert float(weight.std()) == pytest.approx(0.8796 / math.sqrt(12), rel=0.02)
    assert all(float(p.abs().sum()) == 0 for name, p in net.state_dict().items() if name.endswith("bias"))
    values = dict(activations(net, torch.from_numpy(task.patterns()).float()))
    assert tuple(values) == layer_names(PLANE)
    assert [v.shape[1] for v in values.values()] == [*PLANE, 2]
    assert values["softmax"].sum(1).numpy() == pytest.approx(1, abs=1e-6)


def test_label_information_is_that_of_counted_labels_where_labels_are_certain():
    draw = np.random.default_rng(0)
    cells = cells_of(draw.normal(size=(4096, 2)), EqualWidth(-3, 3, 9))
    counted = shared_information(cells, task.labels()).bits
    assert hard_information(cells.index, None, task.p_y_given_x())[1] == pytest.approx(counted, abs=1e-9)
    smooth = [hard_information(cells.index, None, task.p_y_given_x(gamma))[1] for gamma in (1e4, 5.0, 1.0)]
    assert smooth == sorted(smooth, reverse=True)
    # data processing: never more than the patterns tell
    assert smooth[1] <= bottleneck_curve(None, task.p_y_given_x(5.0), accuracy=0.1).joint.information


def test_gradients_of_one_batch_repeated_have_no_spread_and_those_of_noise_read_as_noise():
    training = Training.of({"part": "plane", "net": "tanh", "seed": 0})
    batch = training.train[:512]
    same = gradient_numbers(training.net, training.inputs, training.labels, [batch] * 3)
    assert same["gradient_spread"].values == pytest.approx(0, abs=1e-6)
    labels = torch.from_numpy(np.random.default_rng(0).integers(0, 2, 4096))
    net = build(PLANE, "tanh", 0)
    torch.nn.init.zeros_(net.get_submodule("output").weight)
    read = gradient_numbers(net, training.inputs, labels, torch.split(training.train, 512)[:6])
    # with even odds the gradient of the outputs is labels alone, which are coins: mean over spread is about 6^-1/2
    assert 0.1 < float(read["gradient_snr"].values[-1]) < 1.2
    assert read["gradient_snr"].labels("layer") == layer_names(PLANE)


def test_training_is_seeded_splits_do_not_meet_and_depths_have_their_widths():
    spec = {"part": "smooth", "net": "tanh", "gamma": 5.0, "seed": 3}
    one, two = Training.of(spec), Training.of(spec)
    for each in (one, two):
        assert list(each.epochs(2)) == [0, 1, 2]
    assert all(torch.equal(a, b) for a, b in zip(one.net.parameters(), two.net.parameters(), strict=True))
    both = torch.cat([one.train, one.test]).sort().values
    assert torch.equal(both, torch.arange(4096))
    assert len(one.train) == 3276
    shallow = Training.of({"part": "depth", "net": "tanh", "depth": 2, "seed": 0})
    assert [m.out_features for m in shallow.net if isinstance(m, torch.nn.Linear)] == [*DEEPEST[:2], 2]


def test_checkpoints_and_tasks():
    assert checkpoints(4000, 80)[0] == 0
    assert checkpoints(4000, 80)[-1] == 4000
    assert sorted(set(checkpoints(4000, 80))) == checkpoints(4000, 80)
    found = tasks("analogue", 2)
    assert len(found) == 2 * (2 + 2 + 5)
    assert {spec["seed"] for spec in found} == {0, 1}


# -- claims --------------------------------------------------------------------------------------------------------------


class Made(Run):
    """A run of numbers that are made up, to see what a claim reads in them."""

    def __init__(self, seed, numbers, **spec):
        import xarray as xr

        self.spec, steps = {"seed": seed, **spec}, checkpoints(1000, 40)
        self._made = {
            name: xr.DataArray(
                np.stack([np.broadcast_to(f(np.maximum(np.array(steps), 1)), len(steps)) for f in along], 1)
                if isinstance(along, list) else along(np.maximum(np.array(steps), 1)),
                dims=("step", "layer") if isinstance(along, list) else "step",
                coords={"step": steps} | ({"layer": ["hidden1", "hidden2", "hidden3", "hidden4", "hidden5"]} if isinstance(along, list) else {}),
            )
            for name, along in numbers.items()
        }  # fmt: skip

    def array(self, key, variable):
        assert key == "plane"
        return self._made[variable]


def hill(seed, top=30.0, fall=1.0):
    shift = 0.05 * math.sin(seed)
    return lambda t: (
        5 + np.minimum(np.log10(t), np.log10(top)) + shift - (fall + shift) * np.maximum(np.log10(t / top), 0)
    )


def planes(fall, net="tanh", seeds=6, crossing=30.0):
    def numbers(seed):
        wave = hill(seed, fall=fall)
        layers = [lambda t: 12.0, lambda t: 12.0, wave, wave, wave]
        snr = [lambda t: (crossing * (1 + 0.02 * seed) / t) ** 0.5] * 5
        return {
            "information_x": layers, "quantile_x": layers, "step_x": layers, "information_y": [lambda t: 0.9 + 0 * t] * 5,
            "noisy_x": wave, "noisy_x_se": lambda t: 0.01 + 0 * t, "gradient_snr": snr, "largest": [lambda t: t] * 5,
            "saturation": [lambda t: 0.1 + 0 * t] * 5, "test_accuracy": lambda t: 0.95 + 0 * t,
        }  # fmt: skip

    return StudyRuns([Made(seed, numbers(seed), part="plane", net=net) for seed in range(seeds)])


def verdict(evidence):
    return decide(evidence).result


def test_a_rise_and_a_fall_are_two_phases_and_a_rise_alone_is_none():
    found = claims.two_phases(planes(1.0))
    assert verdict(found) == Verdict.HELD
    assert found.numbers["second phase found"] == 1
    assert found.numbers["epoch of the bend"] == pytest.approx(30, rel=0.3)
    assert verdict(claims.two_phases(planes(-0.2))) == Verdict.DID_NOT_HOLD
    assert verdict(claims.noisy_falls(planes(1.0))) == Verdict.HELD
    few = claims.two_phases(planes(1.0, seeds=3))
    assert few.numbers["second phase found"] == 0


def test_relu_is_held_against_tanh_seed_by_seed():
    def both(fall):
        return StudyRuns([*planes(1.0), *planes(fall, net="relu")])

    assert verdict(claims.relu_falls_less(both(0.1))) == Verdict.HELD
    assert verdict(claims.relu_falls_less(both(1.0))) == Verdict.DID_NOT_HOLD


def test_bins_that_agree_add_nothing():
    assert verdict(claims.bins_widen(planes(1.0))) != Verdict.HELD
    assert verdict(claims.equal_counts_keep(planes(1.0))) == Verdict.DID_NOT_HOLD


def test_the_gradients_turn_is_compared_with_the_bend():
    assert verdict(claims.drift_then_diffusion(planes(1.0))) == Verdict.HELD
    assert verdict(claims.drift_then_diffusion(planes(1.0, crossing=1e6))) == Verdict.DID_NOT_HOLD
    assert verdict(claims.turns_with_the_gradient(planes(1.0))) == Verdict.HELD
    assert verdict(claims.turns_with_the_gradient(planes(1.0, crossing=900.0))) == Verdict.DID_NOT_HOLD


def test_layers_at_the_ceiling_are_counted():
    assert verdict(claims.first_layers_say_nothing(planes(1.0))) == Verdict.HELD


def test_epochs_are_compared_over_depths():
    def run(seed, depth, epochs):
        one = Made(
            seed, {"epochs": lambda t: epochs + 0 * t, "reached": lambda t: 1.0 + 0 * t}, part="depth", depth=depth
        )
        return one

    falling = [run(seed, d, 800 / 2**d + seed) for seed in range(6) for d in (1, 2, 3)]
    rising = [run(seed, d, 100 * 2**d + seed) for seed in range(6) for d in (1, 2, 3)]
    found = claims.more_layers_fewer_epochs(StudyRuns(falling))
    assert verdict(found) == Verdict.HELD
    assert found.effect[0] == pytest.approx(math.log10(2))
    assert verdict(claims.more_layers_fewer_epochs(StudyRuns(rising))) == Verdict.DID_NOT_HOLD


# -- a whole run ---------------------------------------------------------------------------------------------------------


def test_one_plane_holds_what_was_measured(tmp_path):
    spec = {"part": "smooth", "net": "relu", "gamma": 5.0, "epochs": 6, "checkpoints": 4, "seed": 0}
    work(spec, tmp_path / "run")
    run = Run(spec, tmp_path / "run")
    steps = run.array("plane", "information_x")["step"].values.tolist()
    assert steps == checkpoints(6, 4)
    assert run.number("plane", "information_x", layer="hidden1") <= 12
    for layer in layer_names(PLANE):
        rate, relevance = (run.number("plane", f"information_{end}", layer=layer) for end in "xy")
        assert 0 <= relevance <= 0.861
        assert run.number("plane", "missing", layer=layer) >= -1e-9
        assert run.number("plane", "surplus", layer=layer) <= rate + 1e-9
    bound = run.array("plane", "bound_y").isel(step=0).values
    assert np.all(np.diff(bound) >= -1e-12)
    run.record.close()


@pytest.mark.slow
def test_the_smoke_run_decides_nothing_and_fails_nowhere(tmp_path):
    outcome = run_study(study("information-plane"), "smoke", to=tmp_path)
    assert outcome.failed == []
    assert {row.result for row in outcome.rows} == {Verdict.UNDECIDED}
