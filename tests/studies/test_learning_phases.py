"""The study of learning phases: its networks and pictures, a single layer in closed form, and claims on known curves."""

import copy
from itertools import pairwise

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from stratoscope.errors import NotApplicable
from stratoscope.studies.claim import decide
from stratoscope.studies.learning_phases import claims, pictures
from stratoscope.studies.learning_phases.measuring import BATCH, DECODERS
from stratoscope.studies.learning_phases.model import DataModel, descend, doubling
from stratoscope.studies.learning_phases.networks import resnet, vgg, with_batch_statistics
from stratoscope.studies.learning_phases.study import MODELS, SIZES, STUDY, tasks, work
from stratoscope.studies.running import run_study
from stratoscope.studies.runs import Run, StudyRuns, has

models = st.builds(
    DataModel,
    classes=st.integers(2, 6), strong=st.floats(1, 3), strong_noise=st.floats(0.5, 1.5), weak=st.floats(0.2, 0.9),
    weak_noise=st.floats(0.02, 0.3), others=st.integers(0, 12), others_noise=st.floats(0.1, 1),
)  # fmt: skip


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


# -- the single layer --------------------------------------------------------------------------------------------------


def test_the_stated_covariances_are_those_of_the_examples():
    model = DataModel(classes=4, others=5)
    x, labels, strongest = model.draw(40000, draw())
    hot = torch.nn.functional.one_hot(labels, 4).double()
    assert torch.allclose(x.mT @ x / len(x), model.covariance, atol=0.05)
    assert torch.allclose(x.mean(0), torch.zeros(model.width, dtype=torch.float64), atol=0.03)
    assert torch.allclose((hot - 0.25).mT @ x / len(x), model.cross, atol=0.02)
    assert torch.equal(strongest, x[:, :4].argmax(1))


@settings(deadline=None, max_examples=25)
@given(model=models, seed=st.integers(0, 99), steps=st.integers(0, 30))
def test_the_closed_form_is_what_descent_on_the_linearised_loss_does(model, seed, steps):
    start, k = model.start(0.3, draw(seed)), model.classes
    centre = torch.eye(k, dtype=torch.float64) - 1 / k
    rate = 0.5 * k / float(torch.linalg.eigvalsh(model.covariance)[-1])
    weights = start.clone()
    for _ in range(steps):
        weights = weights + rate * (model.cross - centre @ weights @ model.covariance / k)
    assert torch.allclose(model.weights(start, steps, rate), weights, rtol=1e-8, atol=1e-9)


def test_the_linearised_loss_is_that_of_small_outputs():
    model = DataModel(classes=5, others=3)
    x, labels, _ = model.draw(500, draw())
    weights = (1e-5 * model.start(1.0, draw(1))).requires_grad_()
    torch.nn.functional.cross_entropy(x @ weights.mT, labels).backward()
    hot, covariance = torch.nn.functional.one_hot(labels, 5).double(), x.mT @ x / len(x)
    centre = torch.eye(5, dtype=torch.float64) - 0.2
    linear = centre @ weights.detach() @ covariance / 5 - (hot - 0.2).mT @ x / len(x)
    assert torch.allclose(weights.grad, linear, atol=1e-8)


@settings(deadline=None, max_examples=25)
@given(model=models)
def test_without_random_weights_the_error_never_falls(model):
    nothing = torch.zeros(model.classes, model.width, dtype=torch.float64)
    rate = model.classes / float(torch.linalg.eigvalsh(model.covariance)[-1])
    along = [model.error(model.weights(nothing, step, rate)) for step in doubling(4096)[1:]]
    assert min(b - a for a, b in pairwise(along)) >= -1e-9 * model.floor
    # its two ends, in closed form; the least eigenvalue may still be on its way
    first = model.error(model.weights(nothing, 1, 1e-9 * rate))
    assert first == pytest.approx(model.fallen, rel=1e-6)
    assert model.error(model.weights(nothing, 10**9, rate)) == pytest.approx(model.risen, rel=1e-6)
    assert model.fallen <= model.risen <= model.floor


@settings(deadline=None, max_examples=10)
@given(model=models)
def test_where_classes_differ_along_one_variance_nothing_rises(model):
    model = DataModel(model.classes, model.strong, model.strong_noise, 0.0, model.weak_noise, model.others)
    assert model.risen == pytest.approx(model.fallen, rel=1e-9)


def test_the_error_is_that_of_least_squares_on_many_examples():
    model = DataModel(classes=3, others=4)
    weights, (x, _, _) = model.start(1.0, draw(3)), model.draw(20000, draw(4))
    z = x @ weights.mT
    rest = x - z @ torch.linalg.lstsq(z, x).solution
    assert model.error(weights) == pytest.approx(float(rest.square().mean()), rel=0.03)
    assert model.error(torch.eye(model.width, dtype=torch.float64)) == pytest.approx(0, abs=1e-9)  # all of x is there
    assert model.error(0 * weights) == pytest.approx(float(model.covariance.trace()) / model.width)
    assert model.error(weights) == pytest.approx(model.error(7 * weights))  # the scale of a layer is nothing to it


def test_descent_is_that_of_autograd_and_of_its_generator():
    model = DataModel(classes=3, others=2)
    x, labels, _ = model.draw(40, draw())
    start = model.start(0.1, draw(1))
    kept = descend(x, labels, start, [0, 1, 3], 0.5, 16, draw(2))
    assert list(kept) == [0, 1, 3]
    assert torch.equal(kept[0], start)
    weights, order = start.clone(), torch.randperm(40, generator=draw(2))
    for some in (order[:16], order[16:32], order[32:]):
        weights.requires_grad_()
        torch.nn.functional.cross_entropy(x[some] @ weights.mT, labels[some]).backward()
        weights = (weights - 0.5 * weights.grad).detach()
    assert torch.allclose(kept[3], weights)
    again = descend(x, labels, start, [0, 1, 3], 0.5, 16, draw(2))
    assert all(torch.equal(kept[step], again[step]) for step in kept)


def test_the_derived_error_has_three_phases():
    model = DataModel()
    start = model.start(MODELS["whole"]["start"], draw())
    along = {step: model.error(model.weights(start, step, 0.025)) for step in doubling(16384)}
    low = min(along.values())
    assert abs(along[4] - along[0]) < 0.1 * (along[0] - low)
    assert along[0] > 1.2 * low
    assert along[16384] > 1.2 * low
    assert 64 <= min(along, key=along.get) <= 1024


# -- networks and pictures ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "build", [lambda seed: vgg(3, ((4,), (8, 8)), 16, seed), lambda seed: resnet(3, 4, (4, 8), seed)]
)
def test_networks_are_those_of_their_seed(build):
    one, same, other = build(0), build(0), build(1)
    pairs = list(zip(one.parameters(), same.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(one[0].weight, other[0].weight)
    x = torch.randn(6, 3, 16, 16, generator=draw())
    assert one(x).shape == (6, 10)
    assert "features" in dict(one.named_children())
    bound = one[0].weight[0].numel() ** -0.5
    assert 0.9 * bound < float(one[0].weight.detach().abs().max()) <= bound


def test_batch_statistics_are_those_that_training_sees_and_the_network_stays():
    net = vgg(3, ((4,), (8,)), 16, 0)
    x = 2 + 3 * torch.randn(128, 3, 16, 16, generator=draw())
    before = copy.deepcopy(net.state_dict())
    found = with_batch_statistics(net, x, 128)
    assert net.training
    assert not found.training
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in before.items())
    with torch.no_grad():
        trained = copy.deepcopy(net).train()(x)
        assert torch.allclose(found(x), trained, rtol=0.02, atol=0.01)  # variances over n - 1 instead of n
        assert not torch.allclose(copy.deepcopy(net).eval()(x), trained, rtol=0.1, atol=0.1)


def test_generated_pictures_are_scaled_by_those_that_are_trained_on():
    for source, channels in (("generated", 3), ("generated_grey", 1)):
        found = pictures.load(source, 60, 40, 16)
        assert found.train[0].shape == (60, channels, 16, 16)
        assert found.test[0].shape == found.other[0].shape == (40, channels, 16, 16)
        assert torch.allclose(found.train[0].mean((0, 2, 3)), torch.zeros(channels), atol=1e-5)
        assert torch.allclose(found.train[0].std((0, 2, 3)), torch.ones(channels), atol=1e-5)
        assert torch.equal(found.test[0], found.other[0]) == (channels == 3)


def test_the_strongest_colour_is_that_of_the_picture_before_it_is_scaled():
    red = torch.zeros(2, 3, 4, 4)
    red[0, 0], red[1, 2] = 0.5, 0.1
    assert pictures.strongest_colour(red).tolist() == [0, 2]
    assert set(pictures.load("generated", 60, 40, 16).other[1].tolist()) == {0, 1, 2}


def test_sets_that_are_not_there_say_so(monkeypatch, tmp_path):
    monkeypatch.setenv("STRATOSCOPE_DATA", str(tmp_path))
    monkeypatch.setenv("STRATOSCOPE_CACHE", str(tmp_path))
    for name in ("cifar10", "cifar10_jpeg", "fashion_mnist"):
        with pytest.raises(NotApplicable, match=r"CIFAR-10|fashion_mnist|cifar10"):
            pictures.load(name, 30, 20, 16)


@pytest.mark.slow
def test_held_out_pictures_are_not_among_those_that_are_trained_on(monkeypatch, data_folder):
    monkeypatch.setenv("STRATOSCOPE_DATA", str(data_folder))
    for name, channels, classes in (("cifar10_jpeg", 3, 3), ("fashion_mnist", 1, 10)):
        found = pictures.load(name, 300, 200, 16)
        assert found.train[0].shape == (300, channels, 16, 16)
        assert torch.cdist(found.train[0].flatten(1), found.test[0].flatten(1)).min() > 0.1
        assert set(found.other[1].tolist()) == set(range(classes))


# -- claims ------------------------------------------------------------------------------------------------------------

STEPS = doubling(2048)
PLACES = np.log2(1 + np.array(STEPS, dtype=float))


class Written:
    """A run whose curves are written down by group and variable."""

    def __init__(self, spec, curves):
        self.spec, self.curves = spec, curves

    def array(self, key, variable):
        dims, coords = ["step"], {"step": STEPS}
        values = np.asarray(self.curves[key, variable], dtype=float)
        if key != "layer":
            dims, coords = ["step", "split"], coords | {"split": ["test", "transfer"]}
            # the other split would be another curve
            values = np.stack([values, 0 * values - 5], 1)
            values = values[:, ::-1] if variable == "class_accuracy" else values
        if key.startswith("reconstruction"):
            dims, coords, values = [*dims, "layer"], coords | {"layer": ["features"]}, values[..., None]
        return xr.DataArray(values, dims=dims, coords=coords)


def noisy(curve, seed, scale):
    noise = torch.randn(len(STEPS), generator=draw(seed), dtype=torch.float64).numpy()
    return curve + scale * noise


def valley(start=1.0, low=0.6, end=0.9, first=3.0, bottom=7.0):
    """Flat to `first`, down to `bottom`, up to the end, over `log2(1 + step)`."""
    return np.interp(PLACES, [0, first, bottom, PLACES[-1]], [start, start, low, end])


def hill(at, height=0.7, slope=0.02):
    return height - slope * np.abs(PLACES - at)


def networks(seeds=5, scale=0.002, **curves):
    given = {
        ("reconstruction", "error"): valley(), ("reconstruction", "class_accuracy"): hill(7.0),
        ("performance", "accuracy"): hill(9.5),
    }  # fmt: skip
    given |= {
        (key.replace("_", " ") if ":" in key else key, name): c for (key, name), c in curves.pop("given", {}).items()
    }
    return StudyRuns(
        [
            Written({"seed": seed}, {key: noisy(c, 100 * place + seed, scale) for place, (key, c) in enumerate(given.items())})
            for seed in range(seeds)
        ]
    )  # fmt: skip


def errors(curve, label="", **more):
    return networks(given={(f"reconstruction:{label}" if label else "reconstruction", "error"): curve}, **more)


def test_three_phases_are_found_where_they_are_and_not_elsewhere():
    check = claims.three_phases(claims.error)
    found = check(errors(valley()))
    assert decide(found).result == "held"
    assert found.numbers["step of change 1"] == pytest.approx(7, rel=0.5)
    assert found.numbers["step of change 2"] == pytest.approx(127, rel=0.5)
    slow = valley() - 0.01 * np.minimum(PLACES, 3)  # 7 % of the range, and with this little noise a sure slope
    assert decide(check(errors(slow, scale=1e-5))).result == "held"
    assert check(errors(slow, scale=1e-5)).numbers["strict direction 1"] == -1
    for other in (valley(start=0.6, first=1), valley(end=0.6), 0 * PLACES + 1, -valley(), 1 + 0.05 * PLACES):
        assert decide(check(errors(other))).result == "did not hold"


def test_an_interior_minimum_has_a_fall_before_and_a_rise_after():
    check = claims.interior_minimum(claims.error)
    found = check(errors(valley()))
    assert decide(found).result == "held"
    assert found.numbers["end over minimum"] == pytest.approx(1.5, abs=0.05)
    assert found.numbers["start over minimum"] == pytest.approx(1.67, abs=0.05)
    assert decide(check(errors(0.6 + 0.02 * PLACES))).result == "did not hold"
    assert decide(check(errors(valley(end=0.63)))).result == "did not hold"
    assert decide(check(errors(1 + 0 * PLACES))).result == "did not hold"


def test_noise_has_no_interior_minimum_since_others_choose_the_step():
    found = claims.interior_minimum(claims.error)(errors(1 + 0 * PLACES, scale=0.02, seeds=40))
    assert abs(found.numbers["start over minimum"] - 1) < 0.015  # by their own choice it would be 1.03
    assert decide(found).result == "did not hold"


def test_the_peak_of_transfer_comes_before_or_after_the_classifier():
    early = networks()
    late = networks(given={("reconstruction", "class_accuracy"): hill(10.5)})
    found = claims.peaks_before_the_classifier(early)
    assert decide(found).result == "held"
    assert float(np.mean(list(found.effect.values()))) == pytest.approx(2.5, abs=0.5)
    assert decide(claims.peaks_before_the_classifier(late)).result == "did not hold"


def test_gains_are_in_points_at_steps_that_other_seeds_choose():
    runs = networks()
    end = claims.gains_at_the_peak(claims.END)(runs)
    assert np.mean(list(end.effect.values())) == pytest.approx(100 * 0.02 * (PLACES[-1] - 7), abs=0.5)
    assert decide(end).result == "held"
    best = claims.gains_at_the_peak(claims.BEST)(runs)
    assert np.mean(list(best.effect.values())) == pytest.approx(100 * 0.02 * 2.5, abs=1.1)  # to the nearest doubling


def test_training_may_help_the_other_task_or_not():
    check = claims.gains_at_the_peak(claims.START)
    assert np.mean(list(check(networks()).effect.values())) == pytest.approx(100 * 0.02 * 7, abs=0.5)
    worse = networks(given={("reconstruction", "class_accuracy"): 0.7 - 0.02 * PLACES})
    assert decide(check(worse)).result == "did not hold"


def test_the_advised_step_lies_between_both_ends_and_does_not_see_the_probe():
    found = claims.advice_gains("")(networks())
    assert (
        found.numbers["step of least error"] < found.numbers["advised step"] < found.numbers["classifier's best step"]
    )
    low, high = (1 + found.numbers[name] for name in ("step of least error", "classifier's best step"))
    assert 1 + found.numbers["advised step"] == pytest.approx((low * high) ** 0.5, rel=0.1)
    assert decide(found).result == "held"
    worse = networks(given={("reconstruction", "class_accuracy"): 0.1 + 0.02 * PLACES})
    assert decide(claims.advice_gains("")(worse)).result == "did not hold"


def control(**curves):
    given = {("reconstruction" + (f":{label}" if label else ""), "error"): curve for label, curve in curves.items()}
    runs = networks()
    for run in runs:
        for place, (key, curve) in enumerate(given.items()):
            run.curves[key] = noisy(curve, 1000 * (1 + place) + run.spec["seed"], 0.002)
        run.curves["reconstruction", "error_floor"] = 1 + 0 * PLACES
    return runs


def test_a_fall_that_scale_makes_is_told_from_one_of_the_layer():
    raw, flat = valley(), valley(start=0.65)
    made = control(**{"trained 20, raw": raw, "trained 20": flat, "ridge, raw": raw})
    assert decide(claims.scale_makes_the_fall(made)).result == "held"
    own = control(**{"trained 20, raw": raw, "trained 20": raw})
    assert decide(claims.scale_makes_the_fall(own)).result == "did not hold"
    assert decide(claims.scale_leaves_ridge_alone(made)).result == "held"  # ridge is the same on both
    assert (
        decide(
            claims.scale_leaves_ridge_alone(control(**{"trained 20, raw": raw, "trained 20": raw, "ridge, raw": flat}))
        ).result
        == "did not hold"
    )


def test_statistics_may_hide_the_fall_and_leave_the_rise():
    hidden = control(**{BATCH: valley(), "": valley(start=0.6)})
    assert decide(claims.running_statistics_hide_the_fall(hidden)).result == "held"
    assert decide(claims.statistics_leave_the_rise_alone(hidden)).result == "held"
    other = control(**{BATCH: valley(start=0.6, end=0.7), "": valley()})
    assert decide(claims.running_statistics_hide_the_fall(other)).result == "did not hold"
    assert decide(claims.statistics_leave_the_rise_alone(other)).result == "did not hold"


def test_budgets_are_compared_with_the_mean_picture_and_with_ridge():
    bad = control(**{"trained 2, raw": valley(end=1.1), "trained 20, raw": valley(), "": valley()})
    assert decide(claims.short_training_is_worse_than_the_mean(bad)).result == "held"
    assert decide(claims.the_rise_is_not_of_budget(bad)).result == "held"
    over = control(**{"trained 20, raw": valley(), "ridge, raw": valley() - 0.05})
    assert decide(claims.training_falls_short_of_ridge(over)).result == "held"
    meets = control(**{"trained 20, raw": valley(), "ridge, raw": valley(start=0.8, low=0.65)})
    assert decide(claims.training_falls_short_of_ridge(meets)).result == "did not hold"
    good = control(**{"trained 2, raw": valley(), "trained 20, raw": valley(), "": valley(end=0.65)})
    assert decide(claims.short_training_is_worse_than_the_mean(good)).result == "did not hold"
    assert decide(claims.the_rise_is_not_of_budget(good)).result == "did not hold"


def layers(seeds=5, **variants):
    found = []
    for place, (name, curves) in enumerate(variants.items()):
        for seed in range(seeds):
            own = {("layer", key): noisy(c, 10 * place + seed + 77 * len(key), 0.001) for key, c in curves.items()}
            found.append(Written({"variant": name.replace("_", " "), "seed": seed}, own))
    return StudyRuns(found)


def test_what_was_derived_is_compared_until_its_minimum_only():
    derived = valley(low=0.5, end=1.0)
    good = layers(whole={"error": valley(low=0.5, end=0.7), "derived": derived})
    assert decide(claims.as_derived(good)).result == "held"
    assert decide(claims.minimum_as_derived(good)).result == "held"
    bad = layers(whole={"error": valley(low=0.7, bottom=4, end=0.9), "derived": derived})
    assert decide(claims.as_derived(bad)).result == "did not hold"
    assert decide(claims.minimum_as_derived(bad)).result == "did not hold"


def test_predictions_of_the_theorem_can_fail():
    whole = {"error": valley(), "derived": valley()}
    rising, falling = {"error": 0.6 + 0.02 * PLACES}, {"error": valley()}
    assert decide(claims.no_fall_from_zero(layers(whole=whole, from_zero=rising))).result == "held"
    assert decide(claims.no_fall_from_zero(layers(whole=whole, from_zero=falling))).result == "did not hold"
    stays = {"error": valley(end=0.605)}
    assert decide(claims.no_rise_without_weak(layers(whole=whole, strong_only=stays))).result == "held"
    assert decide(claims.no_rise_without_weak(layers(whole=whole, strong_only=falling))).result == "did not hold"
    peaks = layers(whole={"transfer_accuracy": hill(7), "class_accuracy": 0.05 * PLACES})
    assert decide(claims.layer_peaks_before_the_classifier(peaks)).result == "held"


# -- all of it ---------------------------------------------------------------------------------------------------------


def test_every_claim_reads_tasks_that_every_budget_has():
    for budget in ("smoke", "analogue", "full"):
        specs = tasks(budget, 2)
        assert len({repr(spec) for spec in specs}) == len(specs)
        for claim in claims.CLAIMS:
            own = [spec for spec in specs if has(spec, claim.of)]
            assert {spec["seed"] for spec in own} == {0, 1}, claim.says
            assert claim.of["part"] in ("network", "model")
    assert SIZES["full"]["network"]["steps"] == 65536
    assert STUDY.seeds["analogue"] >= 5  # fewer seeds name no phase


def test_no_variant_of_the_decoder_is_another():
    assert len({repr(sorted(settings.items())) for settings in DECODERS.values()}) == len(DECODERS)
    assert DECODERS["trained 20, raw"].get("epochs", 20) == 20


SMALL = {
    "part": "network",
    "data": "generated",
    "train": 80,
    "test": 48,
    "size": 16,
    "steps": 4,
    "batch": 40,
    "seed": 0,
}


@pytest.mark.parametrize(
    "spec",
    [
        {"set": "cifar10", "net": "vgg", "widths": [[2], [4]]},
        {"set": "fashion_mnist", "net": "resnet", "widths": [2, [2, 4]], "data": "generated_grey"},
    ],
)
def test_a_task_measures_both_statistics_at_doubling_iterations(tmp_path, spec):
    work({**SMALL, **spec}, tmp_path)
    run = Run({**SMALL, **spec}, tmp_path)
    found = {label: run.array(claims._group("reconstruction", label), "error") for label in ("", BATCH)}
    for curve in found.values():
        assert curve["step"].values.tolist() == [0, 1, 2, 4]
        assert np.isfinite(curve.sel(layer="features", split="test")).all()
        assert np.isfinite(curve.sel(layer="features", split="transfer")).all()
    assert not np.allclose(found[""].sel(split="test"), found[BATCH].sel(split="test"))
    accuracy = run.array("performance", "accuracy")
    assert set(accuracy["split"].values) == {"train", "test"}
    varied = [name for name in run.record if name.startswith("reconstruction:") and not name.endswith(BATCH)]
    assert len(varied) == (len(DECODERS) if spec["net"] == "vgg" else 0)
    run.record.close()


def test_a_task_of_the_single_layer_starts_where_it_was_derived_to(tmp_path):
    for name, own in MODELS.items():
        spec = {"part": "model", "variant": name, **own, "train": 1000, "test": 2000, "steps": 4, "seed": 0}
        folder = tmp_path / name
        folder.mkdir()
        work(spec, folder)
        run = Run(spec, folder)
        error, derived = (run.array("layer", name) for name in ("error", "derived"))
        assert float(error[0]) == pytest.approx(float(derived[0]), rel=0.03)
        assert error["step"].values.tolist() == [0, 1, 2, 4]
        run.record.close()


@pytest.mark.slow
def test_a_smoke_run_measures_every_claim_and_decides_none(tmp_path):
    outcome = run_study(STUDY, "smoke", to=tmp_path / "runs", engine="serial")
    assert outcome.failed == []
    assert {row.reason for row in outcome.rows} == {"a smoke run decides nothing; it proves that the code runs"}
    assert len(outcome.rows) == len(claims.CLAIMS)
