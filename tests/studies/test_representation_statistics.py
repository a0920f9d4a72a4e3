"""The study of statistics of representations: its network and settings, and what its claims read."""

import math
import random

import pytest
import torch
from torch import nn

from stratoscope.studies.claim import decide
from stratoscope.studies.registry import study
from stratoscope.studies.representation_statistics import claims
from stratoscope.studies.representation_statistics.networks import REGULARISERS, STRENGTHS, fifth, perceptron
from stratoscope.studies.representation_statistics.study import TWINS, tasks
from stratoscope.studies.running import run_study
from stratoscope.studies.runs import StudyRuns, has


def test_the_perceptron_has_five_hidden_layers_of_a_hundred_units_and_ten_outputs():
    net = perceptron(784, 100, seed=0)
    shapes = [tuple(layer.weight.shape) for layer in net if isinstance(layer, nn.Linear)]
    assert shapes == [(100, 784), *[(100, 100)] * 4, (10, 100)]
    hidden = net.get_submodule(fifth(False))
    assert isinstance(hidden, nn.ReLU)
    linear = perceptron(784, 100, seed=0, linear=True)
    assert isinstance(linear.get_submodule(fifth(True)), nn.Linear)
    assert sum(isinstance(layer, nn.ReLU) for layer in linear) == 4
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), linear.parameters(), strict=True))
    assert not torch.equal(net.fc1.weight, perceptron(784, 100, seed=1).fc1.weight)
    bound = 784**-0.5
    assert 0.99 * bound < float(net.fc1.weight.detach().abs().max()) <= bound


def test_every_regulariser_has_three_strengths_and_those_that_raise_have_the_other_sign():
    for name, regulariser in REGULARISERS.items():
        sizes = [abs(value) for value in regulariser.coefficients]
        assert sizes == sorted(sizes)
        assert all((value < 0) == ("raised" in name) for value in regulariser.coefficients)
        assert regulariser.make().classwise == name.startswith("class-wise")
    assert len({REGULARISERS[name].make() for name in REGULARISERS if "raised" not in name}) == 10


@pytest.mark.parametrize("budget", ["smoke", "analogue", "full"])
def test_every_claim_has_tasks_in_every_budget_and_every_task_a_claim(budget):
    specs = tasks(budget, 2)
    for claim in claims.CLAIMS:
        assert [spec for spec in specs if has(spec, claim.of)], claim.says
    assert all(any(has(spec, claim.of) for claim in claims.CLAIMS) for spec in specs)
    strengths = 1 if budget == "smoke" else len(STRENGTHS)
    assert len(specs) == 2 * (1 + strengths * len(REGULARISERS) + len(TWINS))


class Written:
    """A run whose numbers are written down."""

    def __init__(self, seed=0, regulariser="none", strength="strong", **numbers):
        self.spec = {
            "part": "grid",
            "seed": seed,
            "regulariser": regulariser,
            "strength": strength,
            **numbers.pop("spec", {}),
        }
        self.numbers = numbers
        self.record = {"logged": numbers}

    def number(self, key, variable, step=None, **labels):
        if key == "statistics":
            assert labels == {"layer": "relu5", "split": "test"}
        return self.numbers[variable]


def noise(seed):
    return random.Random(seed).uniform(0.9, 1.1)


def pairs(plain, regularised, **more):
    return StudyRuns(
        [
            Written(seed, name, correlation=value * noise(seed + 10 * (name == "none")), test_accuracy=0.9, **more)
            for seed in range(3)
            for name, value in (("none", plain), ("covariance", regularised))
        ]
    )


def test_a_statistic_that_falls_far_holds_one_that_stays_does_not_and_the_sign_counts():
    check = claims.moves("correlation", "covariance", -1)
    assert decide(check(pairs(0.4, 0.05))).result == "held"
    assert decide(check(pairs(0.4, 0.4))).result == "did not hold"
    assert decide(check(pairs(0.05, 0.4))).result == "did not hold"
    assert decide(claims.moves("correlation", "covariance", 1)(pairs(0.05, 0.4))).result == "held"
    assert check(pairs(0.4, 0.05)).numbers["plain"] == pytest.approx(0.4, rel=0.1)


def test_statistics_are_read_as_they_are_called():
    run = Written(sparsity=0.25, class_sparsity=0.5, stable_rank=1.5, class_stable_rank=1.1, variance=3.0, gdv=-0.2)
    read = {name: claims.statistic(run, name) for name in ("active", "class_active", "stable_rank_excess", "class_stable_rank_excess", "variance")}  # fmt: skip
    assert read == pytest.approx({"active": 0.75, "class_active": 0.5, "stable_rank_excess": 0.5, "class_stable_rank_excess": 0.1, "variance": 3.0})  # fmt: skip


def grid(accuracy, settings=30):
    """Settings of three seeds."""
    runs = []
    for seed in range(3):
        draw = random.Random(seed)
        for place in range(settings):
            runs.append(Written(seed, f"r{place}" if place else "none", correlation=float(place), test_accuracy=accuracy(place, draw), validation_accuracy=accuracy(place, draw)))  # fmt: skip
    return StudyRuns(runs)


def test_accuracy_that_follows_a_statistic_does_not_hold_and_one_that_is_noise_holds():
    check = claims.does_not_follow("correlation")
    assert decide(check(grid(lambda place, draw: 0.9 + 0.001 * place + 0.01 * draw.random()))).result == "did not hold"
    assert decide(check(grid(lambda place, draw: 0.9 - 0.001 * place + 0.01 * draw.random()))).result == "did not hold"
    assert decide(check(grid(lambda place, draw: 0.9 + 0.01 * draw.random(), settings=400))).result == "held"
    assert decide(check(grid(lambda place, draw: 0.9))).result == "undecided"


def test_spread_and_the_best_setting_are_taken_against_the_plain_network():
    close = grid(lambda place, draw: 0.9 + 0.004 * draw.random() * bool(place))
    far = grid(lambda place, draw: 0.9 - 0.05 * bool(place) - 0.01 * draw.random())
    assert decide(claims.within_two_points(close)).result == "held"
    assert decide(claims.within_two_points(far)).result == "did not hold"
    better = grid(lambda place, draw: 0.9 + 0.01 * bool(place) + 0.001 * draw.random())
    assert decide(claims.best_beats_plain(better)).result == "held"


def test_spearman_is_pearsons_of_ranks():
    first, second = [3.0, 1.0, 2.0, 2.0], [10.0, 7.0, 8.0, 20.0]
    ranks = torch.tensor([[4.0, 1.0, 2.5, 2.5], [3.0, 1.0, 2.0, 4.0]])
    assert claims.spearman(first, second) == pytest.approx(float(torch.corrcoef(ranks)[0, 1]))
    assert math.isnan(claims.spearman([1.0, 1.0], [1.0, 2.0]))


def twins(difference=1e-7, **rows):
    return StudyRuns(
        [
            Written(
                seed,
                spec={"part": "twin", "layer": "linear", "target": "whiten"},
                relative_difference=difference * noise(seed),
                **{f"{name}_{when}": value for name, row in rows.items() for when, value in zip(("before", "after", "stays"), (row[0], row[1] * noise(seed) if row[0] != row[1] else row[1], row[2]), strict=True)},
            )
            for seed in range(3)
        ]
    )  # fmt: skip


def test_twins_are_judged_by_their_outputs_and_by_what_theory_says():
    assert decide(claims.outputs_agree(twins())).result == "held"
    assert decide(claims.outputs_agree(twins(1e-2))).result == "did not hold"
    assert decide(claims.must_stay(twins(gdv=(0.5, 0.9, 1.0)))).result == "did not hold"
    left = claims.must_stay(twins(gdv=(0.5, 0.5, 1.0), correlation=(0.3, 0.01, 0.0)))
    assert set(left.effect.values()) == {claims.STAYS}
    assert left.numbers["statistics that stay"] == 1
    check = claims.twin_changes("correlation", margin=math.log(10))
    assert decide(check(twins(correlation=(0.3, 0.001, 0.0)))).result == "held"
    assert decide(check(twins(correlation=(0.3, 0.2, 0.0)))).result == "did not hold"


@pytest.mark.slow
def test_a_smoke_run_measures_every_claim_and_decides_none(monkeypatch, tmp_path):
    monkeypatch.setenv("STRATOSCOPE_LEDGER", str(tmp_path / "ledger.json"))
    outcome = run_study(study("representation-statistics"), "smoke", to=tmp_path / "runs", engine="serial")
    assert outcome.failed == []
    assert {row.result for row in outcome.rows} == {"undecided"}
    assert len(outcome.rows) == len(claims.CLAIMS)
    agree = next(row for row in outcome.rows if "outputs agree" in row.claim)
    assert agree.numbers["mean"] > 0
