"""The instrument `reconstruction`: closed forms, invariances, noise, trained decoders, data of another task, findings."""

import dataclasses
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from stratoscope.capture.activations import Activations, Sample
from stratoscope.capture.inputs import GivenSample, Inputs
from stratoscope.errors import NotApplicable, SettingError
from stratoscope.findings import Outcome
from stratoscope.instruments.reconstruction import EVERYTHING, Reconstruction
from stratoscope.network.subject import Subject
from stratoscope.numerics.linear_probe import Sought, class_probe, cross_fitted, reconstruction, stratified
from stratoscope.numerics.ridge import Basis, ridge
from stratoscope.numerics.sketch import count_sketch
from stratoscope.observe.examine import examine
from stratoscope.record.quantity import Quantity
from stratoscope.testing import SUBJECTS, check_instrument


def gaussian(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def given_sample(values, shape=()):
    return GivenSample(values, torch.arange(len(values)), values.shape[1], "input '0'", shape=shape)


class View:
    """One layer with its sample and the inputs, the same for every split."""

    def __init__(self, features, inputs=None, labels=None, *, ids=None, split="test", other=None, positions=()):
        ids = torch.arange(len(features)) if ids is None else ids
        self.layer, self.split = SimpleNamespace(name="fc"), split
        self._sample = Sample(features, labels, ids, features.shape[1], "as is", positions=positions)
        self._given = given_sample(inputs) if isinstance(inputs, torch.Tensor) else inputs
        self._other = other

    def __getitem__(self, need):
        if need.split is not None:
            if self._other is None:
                raise NotApplicable(f"the data have no split {need.split!r}")
            return self._other[need]
        if isinstance(need, Activations):
            return self._sample
        assert isinstance(need, Inputs)
        if self._given is None:
            raise NotApplicable("the inputs are no numbers to predict: 'input_ids' (int64)")
        return self._given

    def get(self, need, default=None):
        try:
            return self[need]
        except NotApplicable:
            return default


def measure(*given, decode=None, **more):
    return Reconstruction(**(decode or {})).measure_layer(View(*given, **more))


def value(measured, name):
    return float(measured[name].values)


def judged(saved, layers, split="test", **settings):
    found = {}
    for name in dict.fromkeys(name for measured in layers.values() for name in measured):
        there = {layer: measured[name] for layer, measured in layers.items() if name in measured}
        values = np.stack([np.asarray(q.values) for q in there.values()])
        found[name] = Quantity(values, ("layer",), {"layer": tuple(there)}, next(iter(there.values())).attrs)
    return list(Reconstruction(**settings).judge(saved("reconstruction", {(0, split): found})))


def spoken(findings):
    return [(f.code, f.layer) for f in findings if f.outcome is not Outcome.PASSED]


# -- closed forms -------------------------------------------------------------------------------------------------------


def test_an_invertible_layer_keeps_everything():
    inputs = gaussian(400, 8, seed=0)
    measured = measure(inputs @ (gaussian(8, 8, seed=1) + 3 * torch.eye(8)) + 5, inputs)
    assert value(measured, "r2") == pytest.approx(1, abs=1e-4)
    assert value(measured, "fitted_r2") == pytest.approx(1, abs=1e-4)
    assert value(measured, "error") == pytest.approx(0, abs=1e-4)
    assert value(measured, "uninformative") == 0
    assert value(measured, "degrees") == pytest.approx(9, abs=0.01)


def test_a_projection_keeps_its_share():
    """White inputs of D numbers, of which a layer gives k directions: R2 is k / D, whichever directions they are."""
    shares, errors = [], []
    for seed in range(20):
        inputs = gaussian(400, 12, seed=seed)
        directions = torch.linalg.qr(gaussian(12, 12, seed=100 + seed)).Q[:, :3]
        measured = measure(inputs @ directions, inputs)
        shares.append(value(measured, "r2"))
        errors.append(value(measured, "r2_se"))
    # a fold estimates 3 + 1 numbers from 200 examples
    assert np.mean(shares) == pytest.approx(3 / 12 - (1 - 3 / 12) * 4 / 200, abs=4 * np.std(shares) / math.sqrt(20))
    assert 0.5 < np.mean(errors) / np.std(shares) < 2


def test_noise_in_a_layer_takes_the_share_that_theory_says():
    """Each unit is one input plus noise of variance v: the best linear guess keeps 1 / (1 + v)."""
    inputs = gaussian(1000, 6, seed=2)
    for variance in (0.25, 1.0, 4.0):
        measured = measure(inputs + math.sqrt(variance) * gaussian(1000, 6, seed=3), inputs)
        assert value(measured, "r2") == pytest.approx(1 / (1 + variance), abs=4 * value(measured, "r2_se") + 0.01)


def test_noise_is_uninformative():
    """Of 200 layers of noise about one in forty may seem to know something; more than three times that would be wrong."""
    raised, shares = 0, []
    for seed in range(200):
        n, width = ((40, 10), (40, 80), (150, 10), (150, 200))[seed % 4]
        inputs = gaussian(n, 20, seed=seed).cumsum(1)
        measured = measure(gaussian(n, width, seed=1000 + seed), inputs)
        raised += int(value(measured, "uninformative") == 0)
        shares.append(value(measured, "r2"))
    assert raised <= 15
    assert np.mean(shares) < 0.01


def test_the_floor_is_the_mean_input_and_the_error_what_an_explicit_solution_misses():
    features, inputs, group = gaussian(100, 5, seed=4), gaussian(100, 7, seed=5), torch.arange(100)
    inputs += features @ gaussian(5, 7, seed=6)
    measured = measure(features, inputs)
    fold = stratified(torch.zeros(100, dtype=torch.int64), group, 2, seed=0)
    floor, error, fitted, known = 0.0, 0.0, 0.0, 0.0
    for k in range(2):
        x, y, new, truth = features[fold != k], inputs[fold != k], features[fold == k], inputs[fold == k]
        strength = float(ridge(Basis.of(x), y).strengths[0])
        z, z_new = ((part - x.mean(0)) / x.std(0, correction=0) for part in (x, new))
        weights = torch.linalg.solve(z.mT @ z + strength * len(x) * torch.eye(5), z.mT @ (y - y.mean(0)))
        error += float((truth - y.mean(0) - z_new @ weights).square().sum())
        floor += float((truth - y.mean(0)).square().sum())
        fitted += float((y - y.mean(0) - z @ weights).square().sum())
        known += float((y - y.mean(0)).square().sum())
    assert value(measured, "error") == pytest.approx(error / 700, rel=1e-4)
    assert value(measured, "error_floor") == pytest.approx(floor / 700, rel=1e-4)
    assert value(measured, "r2") == pytest.approx(1 - error / floor, rel=1e-4)
    assert value(measured, "fitted_r2") == pytest.approx(1 - fitted / known, rel=1e-4)


def test_variables_are_the_numbers_of_the_mathematics():
    features, labels, group = gaussian(90, 6, seed=7), torch.arange(90) % 3, torch.arange(90)
    features[:, 0] += labels
    inputs = features @ gaussian(6, 9, seed=8) + gaussian(90, 9, seed=9)
    measured = measure(features, inputs, labels)
    folds = cross_fitted(features, stratified(labels, group, 2, seed=0))
    decoded = reconstruction(folds, [Sought.of(inputs, f.train, f.test) for f in folds], group)
    read = class_probe(folds, labels, group, permutations=0).accuracy
    expected = {
        "r2": decoded.r2, "r2_se": decoded.standard_error, "error": decoded.error, "error_floor": decoded.floor,
        "fitted_r2": decoded.fitted_r2, "degrees": decoded.degrees, "strength": decoded.strength,
        "class_accuracy": read.share, "class_accuracy_low": read.low, "class_accuracy_high": read.high,
        "class_accuracy_floor": 1 / 3, "n": 90, "n_fitted": 45, "uninformative": 0,
    }  # fmt: skip
    assert set(measured) == set(expected)
    for name, number in expected.items():
        assert value(measured, name) == pytest.approx(number), name
        assert measured[name].attrs["units"] == "1"
    assert measured["r2"].attrs["note"] == "as is; 2 folds; input '0'; ridge regression"
    assert measured["r2"].attrs["decoder"] == "ridge"


# -- invariances --------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 2**31), wide=st.booleans())
def test_scale_shift_order_and_copies_of_units_change_nothing(seed, wide):
    n, width = (300, 320) if wide else (60, 8)
    inputs = gaussian(n, 10, seed=seed)
    features = inputs @ gaussian(10, width, seed=seed + 1) + gaussian(n, width, seed=seed + 2)
    scales, shift = gaussian(width, seed=seed + 3).exp(), gaussian(width, seed=seed + 4)
    order = torch.randperm(width, generator=torch.Generator().manual_seed(seed + 5))
    one = measure(features, inputs)
    for other in (features * scales + shift, features[:, order]):
        found = measure(other, inputs)
        for name in ("r2", "error", "fitted_r2", "degrees"):
            assert value(found, name) == pytest.approx(value(one, name), rel=2e-3, abs=2e-4), name
    # a copy of every unit is a strength of half as much for each
    twice = measure(torch.cat([features, features], 1), inputs, decode={"width": 2 * width})
    assert value(twice, "r2") == pytest.approx(value(one, "r2"), abs=0.02)


def test_copies_of_all_units_change_nothing_at_twice_the_strength():
    features, inputs = gaussian(50, 6, seed=10).double(), gaussian(50, 4, seed=11).double()
    one = ridge(Basis.of(features), inputs, strengths=[0.1]).predict(features)
    two = ridge(Basis.of(torch.cat([features, features], 1)), inputs, strengths=[0.2]).predict(features.repeat(1, 2))
    torch.testing.assert_close(one, two)


def test_many_examples_of_still_more_units_are_as_good_in_float32():
    inputs = gaussian(400, 30, seed=12).cumsum(1)
    features = torch.relu(inputs @ gaussian(30, 300, seed=13) + gaussian(400, 300, seed=14))
    one, other = measure(features, inputs), measure(features.double(), inputs)
    for name in ("r2", "error", "fitted_r2", "degrees", "strength"):
        assert value(one, name) == pytest.approx(value(other, name), rel=1e-3), name


def test_scale_counts_where_units_keep_theirs():
    inputs = gaussian(200, 6, seed=15)
    features = inputs @ gaussian(6, 40, seed=16) + gaussian(200, 40, seed=17)
    loud = features.clone()
    loud[:, :2] *= 1000
    plain, kept = ({"standardise": s} for s in (True, False))

    def moved(decode):
        return abs(
            value(measure(loud, inputs, decode=decode), "r2") - value(measure(features, inputs, decode=decode), "r2")
        )

    assert moved(plain) < 1e-5
    assert moved(kept) > 1e-3
    assert "keep their scales" in measure(features, inputs, decode=kept)["r2"].attrs["note"]


def test_half_precision_is_nearly_the_same():
    inputs = gaussian(100, 6, seed=18)
    features = inputs @ gaussian(6, 5, seed=19)
    rounded = features.to(torch.bfloat16).float()  # as the capture widens it
    assert value(measure(rounded, inputs), "r2") == pytest.approx(value(measure(features, inputs), "r2"), abs=0.01)


# -- what cannot be done ------------------------------------------------------------------------------------------------


def test_without_numbers_to_rebuild_there_are_still_classes():
    labels = torch.arange(60) % 2
    features = gaussian(60, 4, seed=20) + 3 * labels[:, None]
    for inputs, why in (
        (None, "the inputs are no numbers to predict"),
        (torch.ones(60, 3), "the inputs are all the same"),
    ):
        measured = measure(features, inputs, labels)
        assert set(measured) == {
            "class_accuracy", "class_accuracy_low", "class_accuracy_high", "class_accuracy_floor", "n", "n_fitted"
        }  # fmt: skip
        assert value(measured, "class_accuracy") > 0.9
        assert f"inputs not rebuilt: {why}" in measured["class_accuracy"].attrs["note"]


@pytest.mark.parametrize("labels", [None, torch.zeros(60, dtype=torch.int64), torch.arange(60)])
def test_without_classes_there_are_still_inputs(labels):
    inputs = gaussian(60, 4, seed=21)
    measured = measure(2 * inputs + 1, inputs, labels)
    assert value(measured, "r2") == pytest.approx(1, abs=1e-3)
    assert not any(name.startswith("class") for name in measured)


def test_constant_units_rebuild_nothing():
    measured = measure(torch.full((60, 5), 0.3), gaussian(60, 4, seed=22), torch.arange(60) % 2)
    assert value(measured, "r2") == pytest.approx(0, abs=1e-6)
    assert value(measured, "error") == pytest.approx(value(measured, "error_floor"))
    assert (value(measured, "uninformative"), value(measured, "degrees")) == (1, 1)
    assert value(measured, "class_accuracy") == 0.5


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((gaussian(40, 3, seed=0),), "no numbers to predict.*, and the data have no class labels"),
        (
            (gaussian(40, 3, seed=0), torch.ones(40, 2)),
            "the inputs are all the same, and the data have no class labels",
        ),
        ((gaussian(40, 3, seed=0), torch.ones(30, 2)), "the inputs of some of its examples were not kept"),
        ((gaussian(40, 3, seed=0), None, torch.zeros(40).long()), "1 classes in 40 examples"),
        ((gaussian(19, 3, seed=0), gaussian(19, 3, seed=1)), "19 examples are too few for a probe; 20 are needed"),
        (
            (torch.full((40, 3), math.nan), gaussian(40, 3, seed=1)),
            "120 of 120 numbers that it gives are NaN or infinite",
        ),
    ],
)
def test_what_cannot_be_decoded_says_why(given, words):
    with pytest.raises(NotApplicable, match=words):
        measure(*given)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"folds": 1}, "at least 2"),
        ({"decoder": "forest"}, r"decoder='forest'.*: choose one of ridge, linear, convolution"),
        ({"decoder": "convolution", "pooling": "gap"}, "a map is needed whole, with 'flatten'"),
        ({"epochs": 0}, "epochs and batch are at least 1"),
        ({"rate": 0.0}, "the rate lies above zero"),
    ],
)
def test_settings_are_checked(wrong, words):
    with pytest.raises(SettingError, match=words):
        Reconstruction(**wrong)


def test_settings_reach_the_needs():
    assert Reconstruction().requires == {Activations(n=1000, width=1024, pooling="flatten")}
    assert Reconstruction().uses == {Inputs(n=1000, width=512)}
    own = Reconstruction(n=50, width=8, input_width=3, pooling="gap", fit_on="train")
    assert own.requires == {Activations(n=50, width=8)}
    assert own.uses == {
        Inputs(n=50, width=3), Inputs(n=50, width=3, split="train"), Activations(n=50, width=8, split="train")
    }  # fmt: skip
    whole = Reconstruction(decoder="convolution")
    assert (*whole.requires, *whole.uses) == (
        Activations(n=1000, width=EVERYTHING, pooling="flatten"), Inputs(n=1000, width=EVERYTHING)
    )  # fmt: skip


# -- folds and other splits ---------------------------------------------------------------------------------------------


def test_rows_of_one_picture_stay_together():
    """Each picture has a mark of its own in all its rows; a decoder that saw half of them would know the other half."""
    ids = torch.arange(60).repeat_interleave(8)
    features = gaussian(60, 40, seed=23)[ids] + 0.01 * gaussian(480, 40, seed=24)
    measured = measure(features, gaussian(60, 5, seed=25), (torch.arange(60) * 7 % 60 < 30).long()[ids], ids=ids)
    assert value(measured, "n") == 60
    assert value(measured, "r2") < 0.2
    assert value(measured, "class_accuracy") < 0.75


def test_inputs_are_made_ready_once_for_layers_with_the_same_examples(monkeypatch):
    features, given, made = gaussian(60, 4, seed=26), given_sample(gaussian(60, 5, seed=27)), []
    plain = Sought.of
    monkeypatch.setattr(Sought, "of", lambda *args: made.append(1) or plain(*args))
    for layer in (features, features**2):
        measure(layer, given)
    assert len(made) == 2  # folds
    measure(features, given, decode={"seed": 1})
    assert len(made) == 4


def test_what_it_works_out_is_shared_by_layers_that_share_a_sample():
    view = View(gaussian(60, 4, seed=28), gaussian(60, 5, seed=29))
    assert Reconstruction().measure_layer(view) is Reconstruction().measure_layer(view)
    assert Reconstruction().measure_layer(view) is not Reconstruction(seed=1).measure_layer(view)


def test_a_decoder_of_one_split_is_fitted_to_another():
    inputs = gaussian(260, 6, seed=30)
    labels, features = (inputs[:, 0] > 0).long(), inputs @ gaussian(6, 4, seed=31) + gaussian(260, 4, seed=32)
    other = View(features[60:], inputs[60:], labels[60:])
    wanted = Reconstruction(fit_on="train")

    class Both(View):
        def __getitem__(self, need):
            return super().__getitem__(need) if need.split is None else other[dataclasses.replace(need, split=None)]

    found = wanted.measure_layer(Both(features[:60], inputs[:60], labels[:60]))
    fit = ridge(Basis.of(features[60:]), inputs[60:])
    rest = inputs[:60] - fit.predict(features[:60])
    share = 1 - float(rest.square().sum() / (inputs[:60] - inputs[60:].mean(0)).square().sum())
    assert value(found, "r2") == pytest.approx(share, rel=1e-4)
    assert (value(found, "n"), value(found, "n_fitted")) == (60, 200)
    said = ridge(Basis.of(features[60:]), nn.functional.one_hot(labels[60:]).double()).predict(features[:60]).argmax(1)
    assert value(found, "class_accuracy") == pytest.approx(float((said == labels[:60]).double().mean()))
    # classes of another task are others, and the split itself is cut into folds
    for split in ("transfer", "train"):
        own = wanted.measure_layer(Both(features[:60], inputs[:60], labels[:60], split=split))
        assert value(own, "n_fitted") == 30


def test_data_of_another_task_are_measured_as_a_split():
    subject = SUBJECTS["mlp"]()
    inputs = gaussian(50, *subject.probe_set("test").batches[0].args[0].shape[1:], seed=33)
    labels = (inputs[:, 0] > 0).long()
    record = examine(subject=dataclasses.replace(subject, transfer=(inputs, labels)), instruments=[Reconstruction()])
    found = record["reconstruction"]["class_accuracy"].sel(split="transfer", step=0)
    with torch.no_grad():
        features = subject.model[0](inputs)[record_order(subject, inputs, labels)]
    own = labels[record_order(subject, inputs, labels)]
    expected = measure(features, None, own)
    assert float(found.sel(layer="0")) == pytest.approx(value(expected, "class_accuracy"), abs=0.021)
    assert float(found.max()) > 0.7
    assert float(record["reconstruction"]["n"].sel(split="transfer", step=0, layer="0")) == 50


def record_order(subject, inputs, labels):
    return dataclasses.replace(subject, transfer=(inputs, labels), _probes={}).probe_set("transfer").ids


# -- decoders trained by gradients --------------------------------------------------------------------------------------


def test_a_trained_linear_decoder_comes_near_the_closed_form_and_says_whether_it_was_done():
    inputs = gaussian(200, 6, seed=34)
    features = inputs @ gaussian(6, 10, seed=35) + 0.5 * gaussian(200, 10, seed=36)
    closed = value(measure(features, inputs), "r2")
    short = measure(features, inputs, decode={"decoder": "linear"})
    long = measure(features, inputs, decode={"decoder": "linear", "epochs": 100, "rate": 0.03})
    assert value(short, "r2") < closed - 0.3
    assert value(long, "r2") == pytest.approx(closed, abs=0.02)
    assert (value(short, "unfinished"), value(long, "unfinished")) == (1, 0)
    assert "20 epochs of Adam, rate 0.0003, decay 1e-05, batches of 128" in short["r2"].attrs["note"]
    assert "strength" not in short
    assert "late_progress" not in measure(features, inputs)


def test_the_scale_of_activations_confounds_only_where_they_are_not_standardised():
    inputs = gaussian(150, 6, seed=37)
    features = inputs @ gaussian(6, 10, seed=38)

    def rebuilt(scale, standardise):
        decode = {"decoder": "linear", "epochs": 30, "rate": 0.02, "standardise": standardise}
        return value(measure(scale * features, inputs, decode=decode), "r2")

    assert rebuilt(0.01, True) == pytest.approx(rebuilt(1.0, True), abs=1e-3)
    assert rebuilt(0.01, False) < rebuilt(1.0, False) - 0.3


def pictures_and_maps(n, seed):
    """Smooth pictures of two colours, and a map of 8 x 4 that holds them shrunk, in the order in which rows are kept."""
    coarse = gaussian(n, 2, 8, 4, seed=seed)
    pictures = nn.functional.interpolate(coarse, scale_factor=2, mode="bilinear")
    maps = nn.functional.avg_pool2d(pictures, 2) + 3
    return pictures, maps.movedim(1, -1).flatten(1)


def test_a_convolution_decoder_rebuilds_pictures_from_maps():
    pictures, rows = pictures_and_maps(60, 39)
    given = given_sample(pictures.flatten(1), shape=tuple(pictures.shape[1:]))
    decode = {"decoder": "convolution", "epochs": 60, "rate": 0.02, "batch": 10}
    measured = measure(rows, given, positions=(8, 4), decode=decode)
    assert value(measured, "r2") > 0.9
    shuffled = rows[torch.randperm(60, generator=torch.Generator().manual_seed(0))]
    assert value(measure(shuffled, given, positions=(8, 4), decode=decode), "r2") < 0.1


@pytest.mark.parametrize(
    ("positions", "shape", "words"),
    [
        ((), (2, 16, 8), r"the layer's positions are \(\), and an input is of shape \(2, 16, 8\)"),
        ((32,), (2, 16, 8), r"positions are \(32,\)"),
        ((8, 4), (256,), r"an input is of shape \(256,\)"),
        ((4, 8), (2, 16, 8), "a map of 4 x 8 is no picture of 16 x 8 halved a whole number of times"),
    ],
)
def test_where_convolutions_do_not_fit_there_are_still_classes(positions, shape, words):
    pictures, rows = pictures_and_maps(40, 40)
    given, labels = given_sample(pictures.flatten(1), shape=shape), torch.arange(40) % 2
    decode = {"decoder": "convolution", "epochs": 1}
    with pytest.raises(NotApplicable, match=words):
        measure(rows, given, positions=positions, decode=decode)
    assert "class_accuracy" in measure(rows, given, labels, positions=positions, decode=decode)


def test_classes_are_read_from_the_same_numbers_whichever_decoder_rebuilds():
    pictures, rows = pictures_and_maps(60, 41)
    labels = (rows[:, 0] > 3).long()
    given = given_sample(pictures.flatten(1), shape=tuple(pictures.shape[1:]))
    whole = measure(rows, given, labels, positions=(8, 4), decode={"decoder": "convolution", "epochs": 1, "width": 16})
    plain = measure(count_sketch(rows, 16, seed=0), given, labels, decode={"width": 16})
    assert value(whole, "class_accuracy") == value(plain, "class_accuracy")


def test_a_diverged_training_is_no_result():
    inputs, labels = gaussian(40, 3, seed=42), torch.arange(40) % 2
    measured = measure(inputs, inputs, labels, decode={"decoder": "linear", "rate": 1e25, "epochs": 3})
    assert "inputs not rebuilt: the decoder's training diverged" in measured["class_accuracy"].attrs["note"]


@pytest.mark.slow
@pytest.mark.parametrize("decoder", ["linear", "convolution"])
def test_trained_decoders_keep_the_rules(decoder):
    check_instrument(Reconstruction(decoder=decoder, epochs=2), ["cnn"])


def test_in_a_network_maps_reach_the_decoder_as_they_are():
    subject = SUBJECTS["cnn"]()
    plain = examine(subject=subject, instruments=[Reconstruction(decoder="convolution", epochs=1, rate=1e-3)])
    row = plain["reconstruction"]["r2"].sel(step=0).squeeze()
    assert bool(np.isfinite(row.sel(layer="0")))
    reasons = {entry.reason for entry in plain.coverage() if entry.status == "failed"}
    assert reasons == set()


# -- findings -----------------------------------------------------------------------------------------------------------


def test_layers_that_rebuild_something_pass(saved):
    inputs = gaussian(100, 5, seed=43)
    layers = {"a": measure(inputs * 2, inputs), "noise": measure(gaussian(100, 5, seed=44), inputs)}
    findings = judged(saved, layers)
    assert {f.code: f.outcome for f in findings} == {"RC001": Outcome.PASSED}
    assert spoken(judged(saved, layers, least=1.0)) == [("RC001", None)]


def test_rc001_nothing_is_rebuilt(saved):
    """One finding for the network, with the level shared among its layers."""
    inputs = gaussian(80, 12, seed=45).cumsum(1)
    layers = {f"l{seed}": measure(gaussian(80, 30, seed=46 + seed), inputs) for seed in range(12)}
    findings = judged(saved, layers)
    assert spoken(findings) == [("RC001", None)]
    (found,) = findings
    assert found.outcome is Outcome.TIP
    assert found.evidence["low"] <= found.evidence["limit"] == 0.01
    assert (found.evidence["of"], found.evidence["n"]) == (12, 80)
    assert found.says.startswith("From none of 12 layers can the inputs be rebuilt surely better than by their mean")


def test_rc001_is_said_of_noise_and_not_of_a_network():
    """40 networks of 5 noise layers each: nearly all are named; none is where one layer knows a tenth of the inputs."""
    named = 0
    for seed in range(40):
        inputs = gaussian(60, 10, seed=seed)
        layers = [measure(gaussian(60, 12, seed=1000 + 7 * seed + k), inputs) for k in range(5)]
        z = 2.576  # of 2.5 % shared among five
        named += all(value(m, "r2") - z * value(m, "r2_se") <= 0.01 for m in layers)
    assert named >= 37


def test_rc002_the_other_task_cannot_be_read(saved):
    labels = torch.arange(80) % 4
    noise, clear = (measure(gaussian(80, 6, seed=60) + apart * labels[:, None], None, labels) for apart in (0, 5))
    assert spoken(judged(saved, {"a": noise}, split="transfer")) == [("RC002", None)]
    (found,) = judged(saved, {"a": noise}, split="transfer")
    assert found.evidence["low"] <= found.evidence["limit"] == 0.25
    assert [f.outcome for f in judged(saved, {"a": noise, "b": clear}, split="transfer")] == [Outcome.PASSED]
    assert judged(saved, {"a": noise}, split="test") == []  # that is what the probes say


def test_rc003_an_unfinished_decoder(saved):
    inputs = gaussian(100, 5, seed=61)
    short = measure(inputs * 2, inputs, decode={"decoder": "linear"})
    long = measure(inputs * 2, inputs, decode={"decoder": "linear", "epochs": 100, "rate": 0.03})
    findings = judged(saved, {"a": short, "b": long})
    assert spoken(findings) == [("RC003", "a")]
    assert findings[0].evidence["late_progress"] > findings[0].evidence["limit"] == 0.05
    assert findings[0].layer == "a"
    assert "RC001" not in {f.code for f in findings}  # it may all be there
    assert {f.code: f.outcome for f in judged(saved, {"b": long})} == dict.fromkeys(("RC001", "RC003"), Outcome.PASSED)


# -- networks -----------------------------------------------------------------------------------------------------------


def test_a_network_of_linear_layers_loses_what_its_narrowest_layer_loses():
    """White inputs of 8 numbers through 8, 3 and 8 units: R2 is 1, then 3/8, and stays there."""
    first, last = gaussian(8, 8, seed=62) + 3 * torch.eye(8), gaussian(8, 3, seed=63)
    narrow = torch.linalg.qr(gaussian(8, 3, seed=64)).Q.mT @ torch.linalg.inv(first)  # of the inputs as they came
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 3), nn.Linear(3, 8))
    with torch.no_grad():
        for layer, weight in zip(model, (first, narrow, last), strict=True):
            layer.weight.copy_(weight)
            layer.bias.fill_(1)
    subject = Subject(model, (gaussian(800, 8, seed=65), torch.arange(800) % 2))
    found = examine(subject=subject, instruments=[Reconstruction()])["reconstruction"]
    shares, errors = ([float(found[name].sel(layer=at).values.ravel()[0]) for at in "012"] for name in ("r2", "r2_se"))
    assert shares[0] == pytest.approx(1, abs=1e-3)
    assert shares[1] == pytest.approx(3 / 8, abs=4 * errors[1] + 0.01)
    assert shares[2] == pytest.approx(shares[1], abs=0.005)
