"""The study of separation along depth: its networks, its pictures, and claims that decide on curves of known shape."""

import math

import numpy as np
import pytest
import torch
import xarray as xr

from stratoscope.errors import NotApplicable
from stratoscope.studies.claim import decide
from stratoscope.studies.depth import claims, pictures
from stratoscope.studies.depth.networks import perceptron
from stratoscope.studies.depth.study import SIZES, STUDY, tasks, work
from stratoscope.studies.running import run_study
from stratoscope.studies.runs import Run


class Written:
    """A run whose curves are written down: one before training, one after it."""

    def __init__(self, spec, along, error=0.002, fresh=None):
        self.spec = spec
        self.along = {
            "gdv": (fresh if fresh is not None else 0 * along, along),
            "standard_error": (0 * along + error,) * 2,
        }

    def array(self, key, variable):
        assert key == "separation"
        dbn = self.spec["part"] == "belief"
        n = len(self.along[variable][0])
        names = (
            ["flatten", *(f"layers.{i}" for i in range(n - 1))] if dbn else ["flat", *(f"relu{i}" for i in range(1, n))]
        )
        values = np.stack(self.along[variable])[:, None]
        both = np.concatenate([values, values - 9], axis=1)  # on the training pictures it would be another
        dims = ("step", "split", "layer")
        return xr.DataArray(both, dims=dims, coords={"step": [0, 7], "split": ["test", "train"], "layer": names})

    def number(self, key, variable, step=None, **labels):
        return 0.5


def noise(seed, n, scale=0.001):
    return scale * torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).numpy()


def belief(shape, seeds=3, scale=0.001, **more):
    """Belief networks of 40 layers whose GDV follows a function of the layer."""
    layers = np.arange(41.0)
    made = [
        Written({"part": "belief", "layers": 40, "seed": seed}, shape(layers) + noise(seed, 41, scale), **more)
        for seed in range(seeds)
    ]
    return claims.StudyRuns(made)


def perceptrons(shape, seeds=3, scale=0.002):
    """Perceptrons of three depths whose GDV follows a function of the layer and the depth."""
    return claims.StudyRuns(
        [
            Written({"part": "perceptron", "set": "mnist", "depth": depth, "seed": seed},
                    shape(np.arange(depth + 1.0), depth) + noise(10 * seed + depth, depth + 1, scale))
            for depth in (3, 6, 9) for seed in range(seeds)
        ]
    )  # fmt: skip


def valley(at):
    return lambda layers: -0.1 - 0.3 * np.exp(-(((layers - at) / 15) ** 2))


def test_curves_are_of_held_out_pictures_in_order_of_depth():
    run = Written({"part": "belief", "layers": 40, "seed": 0}, np.arange(41.0))
    assert claims.curve(run).tolist() == list(range(41))
    assert claims.curve(run, step=0).tolist() == [0] * 41
    run = Written({"part": "perceptron", "depth": 3, "seed": 0}, np.arange(4.0))
    assert claims.curve(run).tolist() == [0, 1, 2, 3]


def test_a_curve_that_falls_layer_by_layer_holds_and_one_that_does_not_does_not():
    assert decide(claims.improves_layer_by_layer(belief(lambda layer: -0.01 * layer))).result == "held"
    assert decide(claims.improves_layer_by_layer(belief(lambda layer: 0.01 * layer))).result == "did not hold"
    stalls = belief(lambda layer: -0.01 * np.where(layer >= 5, layer - 2, layer))  # one step up among ten
    assert decide(claims.improves_layer_by_layer(stalls)).result == "did not hold"


def test_improvement_between_two_fixed_layers_has_its_sign():
    later = claims.improves_between(10, 20)
    assert decide(later(belief(valley(30)))).result == "held"
    assert decide(later(belief(valley(5)))).result == "did not hold"
    assert later(belief(valley(30))).numbers.keys() >= {"layer 0", "layer 20", "layer 40"}


def test_getting_worse_after_the_best_layer_takes_more_than_noise():
    assert decide(claims.gets_worse(belief(valley(20)))).result == "held"
    assert decide(claims.gets_worse(belief(lambda layer: -0.01 * layer))).result == "did not hold"
    flat = claims.gets_worse(belief(lambda layer: 0 * layer - 0.3, error=0.001))
    assert min(flat.effect.values()) > 0  # the best of 40 is below the last by chance alone
    assert decide(flat).result != "held"


def test_the_printed_layer_is_compared_with_one_beyond_it_and_the_best_is_reported_with_its_spread():
    near = claims.worse_beyond_the_printed(belief(valley(28), scale=0.004))
    layers = [near.numbers[f"best layer, seed {seed}"] for seed in range(3)]
    assert near.numbers["best layer"] == pytest.approx(np.mean(layers))
    assert near.numbers["spread of the best layer"] == pytest.approx(np.std(layers, ddof=1))
    assert len(set(layers)) > 1
    assert decide(near).result == "held"
    assert decide(claims.worse_beyond_the_printed(belief(valley(60)))).result == "did not hold"


def test_a_network_that_was_never_trained_gains_nothing_by_learning():
    learned = belief(valley(20), fresh=np.zeros(41))
    assert decide(claims.learning_and_not_depth(learned)).result == "held"
    same = belief(valley(20), fresh=valley(20)(np.arange(41.0)) - 0.01)
    assert decide(claims.learning_and_not_depth(same)).result == "did not hold"


def test_a_barrier_is_a_rise_above_the_input_in_the_first_third():
    def barrier(layer, depth):
        return np.where(layer == 2, -0.05, -0.1 - 0.02 * layer)

    assert decide(claims.has_a_barrier(perceptrons(barrier))).result == "held"
    assert decide(claims.has_a_barrier(perceptrons(lambda layer, depth: -0.1 - 0.02 * layer))).result == "did not hold"
    late = perceptrons(lambda layer, depth: np.where(layer == 5, 0.0, -0.1 - 0.02 * layer))
    assert decide(claims.has_a_barrier(late)).result == "did not hold"


def test_a_master_curve_is_one_over_layers_whatever_the_depth():
    master, stretched = (lambda layer, depth: -0.03 * layer), (lambda layer, depth: -0.3 * layer / depth)
    assert decide(claims.on_one_curve(perceptrons(master))).result == "held"
    assert decide(claims.on_one_curve(perceptrons(stretched))).result == "did not hold"
    assert decide(claims.by_number_rather_than_share(perceptrons(master))).result == "held"
    assert decide(claims.by_number_rather_than_share(perceptrons(stretched))).result == "did not hold"


def test_the_distance_of_curves_is_that_of_the_seeds_where_depth_says_nothing():
    numbers = claims.on_one_curve(perceptrons(lambda layer, depth: -0.03 * layer, seeds=12)).numbers
    assert numbers["distance between depths"] == pytest.approx(numbers["distance between seeds"], rel=0.2)
    assert numbers["distance between seeds"] == pytest.approx(0.002 * math.sqrt(2), rel=0.2)


def test_one_seed_decides_nothing():
    for check in (claims.on_one_curve, claims.by_number_rather_than_share):
        assert decide(check(perceptrons(lambda layer, depth: -0.03 * layer, seeds=1))).result == "undecided"


def test_every_claim_reads_tasks_that_every_budget_has():
    for budget in ("smoke", "analogue", "full"):
        specs = tasks(budget, 2)
        for claim in claims.CLAIMS:
            own = [spec for spec in specs if all(spec.get(name) == value for name, value in claim.of.items())]
            assert {spec["seed"] for spec in own} == {0, 1}, claim.says
        assert min(spec.get("layers", 60) for spec in specs) >= claims.BEYOND
    assert {spec["data"] for spec in tasks("full", 1)} == {"mnist", "cifar10"}
    assert SIZES["full"]["belief"]["train"] == 60000


def test_perceptrons_keep_the_scale_of_their_input_at_every_depth():
    x = torch.randn(500, 100, generator=torch.Generator().manual_seed(0))
    net = perceptron(100, 300, 12, seed=1)
    with torch.no_grad():
        scales = [float(net[: 1 + 2 * depth](x).square().mean()) for depth in (1, 12)]
    assert 0.25 < scales[1] / scales[0] < 4  # torch's own start leaves 0.4 % of it
    again = perceptron(100, 300, 12, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), again.parameters(), strict=True))
    assert not torch.equal(net.fc1.weight, perceptron(100, 300, 12, seed=2).fc1.weight)


def test_generated_pictures_fit_a_belief_network_and_missing_sets_say_so(monkeypatch, tmp_path):
    found = pictures.splits("generated", 30, 20)
    images = torch.cat([found["train"][0], found["test"][0]])
    assert images.shape == (50, 1, 28, 28)
    assert 0 <= images.min() < images.max() <= 1
    monkeypatch.setenv("STRATOSCOPE_DATA", str(tmp_path))
    monkeypatch.setenv("STRATOSCOPE_CACHE", str(tmp_path))
    for name in ("mnist", "cifar10"):
        with pytest.raises(NotApplicable, match=f"{name} is not on this machine"):
            pictures.splits(name, 30, 20)


def test_held_out_pictures_are_not_among_those_that_are_trained_on(monkeypatch, data_folder):
    monkeypatch.setenv("STRATOSCOPE_DATA", str(data_folder))
    for name, shape in (("mnist", (1, 28, 28)), ("cifar10", (3, 28, 28))):
        found = pictures.splits(name, 40, 30)
        train, test = found["train"][0], found["test"][0]
        assert train.shape == (40, *shape)
        assert test.shape == (30, *shape)
        assert torch.cdist(train.flatten(1), test.flatten(1)).min() > 0.1


SMALL = {"data": "generated", "train": 60, "test": 40, "width": 8, "epochs": 2, "batch": 20, "seed": 0}


@pytest.mark.parametrize("spec", [{"part": "belief", "layers": 3}, {"part": "perceptron", "depth": 2}])
def test_a_task_measures_every_layer_before_and_after_training(tmp_path, spec):
    work({**SMALL, **spec}, tmp_path)
    run = Run({**SMALL, **spec}, tmp_path)
    before, after = claims.curve(run, step=0), claims.curve(run)
    assert len(after) == spec.get("layers", spec.get("depth")) + 1
    assert np.isfinite(after).all()
    assert before[0] == after[0]  # the input stays
    assert not np.allclose(before[1:], after[1:])
    if spec["part"] == "belief":
        errors = run.array("logged", "reconstruction_error")
        assert errors.sizes["step"] == 6
        assert (errors > 0).all()
    else:
        assert 0 <= run.number("logged", "test_accuracy") <= 1


@pytest.mark.slow
def test_a_smoke_run_measures_every_claim_and_decides_none(tmp_path):
    outcome = run_study(STUDY, "smoke", to=tmp_path / "runs", engine="serial")
    assert {row.result for row in outcome.rows} == {"undecided"}
    assert outcome.failed == []
    assert {row.reason for row in outcome.rows} == {"a smoke run decides nothing; it proves that the code runs"}
    assert len(outcome.rows) == len(claims.CLAIMS)
