"""The instrument `probe`: its numbers, what it says where there are no classes, noise, findings."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from stratoscope.capture.activations import Activations, Sample
from stratoscope.capture.pairs import Neighbours
from stratoscope.errors import NotApplicable, SettingError
from stratoscope.findings import Outcome
from stratoscope.instruments.probe import Probe
from stratoscope.numerics.linear_probe import class_probe, cross_fitted, stratified
from stratoscope.numerics.nearest_neighbour_probe import neighbour_probe
from stratoscope.numerics.neighbours import nearest_neighbours
from stratoscope.numerics.ridge import Basis, ridge
from stratoscope.observe.examine import examine
from stratoscope.record.quantity import Quantity
from stratoscope.testing import SUBJECTS


def gaussian(n, d, seed):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def blobs(n=200, width=8, classes=4, seed=0, apart=1.0):
    labels = torch.arange(n) % classes
    return apart * gaussian(classes, width, 99)[labels] + gaussian(n, width, seed), labels


class View:
    """One layer with its sample and its neighbours."""

    def __init__(self, features, labels=None, ids=None):
        ids = torch.arange(len(features)) if ids is None else ids
        self.layer = SimpleNamespace(name="fc")
        self._sample = Sample(features, labels, ids, features.shape[1], "as is")

    def __getitem__(self, need):
        if isinstance(need, Activations):
            return self._sample
        assert isinstance(need, Neighbours)
        return nearest_neighbours(self._sample.features, min(need.k, len(self._sample.features) - 1))


def measure(*given, settings=None, **more):
    return Probe(**(settings or {})).measure_layer(View(*given, **more))


def value(measured, name):
    return float(measured[name].values)


def judged(saved, layers, **settings):
    found = {}
    for name in dict.fromkeys(name for measured in layers.values() for name in measured):
        there = {layer: measured[name] for layer, measured in layers.items() if name in measured}
        one = next(iter(there.values()))
        values = np.stack([np.asarray(q.values) for q in there.values()])
        found[name] = Quantity(values, ("layer", *one.dims), {"layer": tuple(there), **dict(one.coords)}, one.attrs)
    return list(Probe(**settings).judge(saved("probe", {(0, "test"): found})))


def spoken(findings):
    return [(f.code, f.layer) for f in findings if f.outcome is not Outcome.PASSED]


def test_variables_are_the_numbers_of_the_mathematics():
    features, labels = blobs(apart=0.5)
    group = torch.arange(200)
    measured = measure(features, 3 * labels + 1)
    folds = cross_fitted(features, stratified(labels, group, 2, seed=0))
    linear = class_probe(folds, labels, group)
    index = nearest_neighbours(features, 20).index
    votes, nearest = neighbour_probe(index, labels), neighbour_probe(index, labels, k=1, permutations=0)
    expected = {
        "accuracy": linear.accuracy.share, "accuracy_low": linear.accuracy.low, "accuracy_high": linear.accuracy.high,
        "accuracy_floor": 0.25, "accuracy_null": linear.accuracy.null_mean,
        "accuracy_null_sd": linear.accuracy.null_sd, "balanced_accuracy": linear.accuracy.balanced,
        "balanced_accuracy_floor": 0.25, "r2": linear.r2, "degrees": linear.degrees, "strength": linear.strength,
        "n": 200, "n_train": 100, "skipped_classes": 0, "uninformative": 0,
        "knn_accuracy": votes.share, "knn_accuracy_null": votes.null_mean, "knn_accuracy_low": votes.low,
        "knn_balanced_accuracy": votes.balanced, "knn1_accuracy": nearest.share, "knn1_accuracy_high": nearest.high,
    }  # fmt: skip
    for name, number in expected.items():
        assert value(measured, name) == pytest.approx(number), name
    assert measured["class_accuracy"].labels("class") == (1, 4, 7, 10)
    np.testing.assert_allclose(measured["class_accuracy"].values, linear.accuracy.by_class)
    assert all(q.attrs["units"] == "1" and q.attrs["long_name"] for q in measured.values())
    assert measured["accuracy"].attrs["note"] == "as is; 2 folds"


def test_settings_reach_the_needs():
    plain = Activations(n=1000, width=4096, pooling="gap")
    assert Probe().requires == {plain}
    assert Probe().uses == {Neighbours(plain, k=20)}
    own = Activations(n=50, width=8, pooling="flatten")
    probe = Probe(n=50, width=8, pooling="flatten", k=5)
    assert (probe.requires, probe.uses) == ({own}, {Neighbours(own, k=5)})


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((gaussian(40, 3, 0),), "no class labels, one integer an example"),
        ((gaussian(40, 3, 0), torch.zeros(40).long()), "1 classes in 40 examples, and two of two are needed"),
        ((gaussian(40, 3, 0), torch.arange(40)), "40 classes in 40 examples, and two of two are needed"),
        ((gaussian(19, 3, 0), torch.arange(19) % 2), "19 examples are too few for a probe; 20 are needed"),
        ((torch.full((40, 3), math.inf), torch.arange(40) % 2), "120 of 120 numbers that it gives are NaN or infinite"),
    ],
)
def test_what_cannot_be_probed_says_why(given, words):
    with pytest.raises(NotApplicable, match=words):
        measure(*given)


def test_one_fold_is_no_setting():
    with pytest.raises(SettingError, match="at least 2"):
        Probe(folds=1)


def test_noise_reads_as_uninformative(saved):
    layers = {f"l{seed}": measure(gaussian(200, 10, seed), torch.arange(200) % 4) for seed in range(12)}
    flags = [value(m, "uninformative") for m in layers.values()]
    assert sum(flags) >= 11
    findings = judged(saved, layers)
    assert [f.code for f in findings if f.outcome is Outcome.TIP] == ["PB002"]
    evidence = next(f for f in findings if f.code == "PB002").evidence
    assert (evidence["count"], evidence["of"], evidence["limit"]) == (sum(flags), 12, 0.25)
    assert evidence["low"] <= evidence["limit"]
    says = next(f for f in findings if f.code == "PB002").says
    assert says.startswith(f"A linear probe of {sum(flags):.0f} of 12 layers (")
    assert "is not surely better than always saying the commonest class, 25.0%: the best, of " in says


def test_clear_classes_pass(saved):
    layers = {f"l{seed}": measure(*blobs(seed=seed, apart=4.0)) for seed in range(3)}
    findings = judged(saved, layers)
    assert {f.code: f.outcome for f in findings} == dict.fromkeys(("PB001", "PB002", "PB004"), Outcome.PASSED)


def test_constant_features_are_no_better_than_the_commonest_class(saved):
    measured = measure(torch.ones(60, 4), torch.arange(60) % 3)
    assert value(measured, "uninformative") == 1
    assert spoken(judged(saved, {"dead": measured})) == [("PB002", "dead")]


def test_pb001_worse_at_the_end(saved):
    layers = {"a": measure(*blobs(apart=0.2)), "b": measure(*blobs(apart=2.0)), "c": measure(*blobs(apart=0.5))}
    found = judged(saved, layers)
    assert ("PB001", "b") in spoken(found)
    evidence = next(f for f in found if f.code == "PB001").evidence
    assert (evidence["best_layer"], evidence["last_layer"], evidence["limit"]) == ("b", "c", 0.05)
    assert evidence["best_low"] > evidence["last_high"]
    assert "PB001" not in dict(spoken(judged(saved, {"a": layers["a"], "b": layers["b"]})))
    assert "PB001" not in dict(spoken(judged(saved, layers, worse=0.99)))


def test_pb001_wants_a_loss_that_chance_does_not_explain(saved):
    layers = {"a": measure(*blobs(n=60, apart=0.7, seed=1)), "b": measure(*blobs(n=60, apart=0.6, seed=2))}
    assert "PB001" not in dict(spoken(judged(saved, layers, worse=0.0)))


def test_pb003_a_class_of_one_example_is_left_out_and_said(saved):
    features, labels = blobs(apart=3.0)
    labels[7] = 50
    measured = measure(features, labels)
    assert (value(measured, "skipped_classes"), value(measured, "n")) == (1, 199)
    assert measured["class_accuracy"].labels("class") == (0, 1, 2, 3)
    found = judged(saved, {"fc": measured})
    assert spoken(found) == [("PB003", None)]
    assert found[0].outcome is Outcome.SKIPPED


def test_pb004_clusters_that_no_hyperplane_parts(saved):
    corners = torch.randint(0, 2, (400, 2), generator=torch.Generator().manual_seed(3))
    features = corners + 0.1 * gaussian(400, 2, 4)
    measured = measure(features, corners.sum(1) % 2)
    found = judged(saved, {"xor": measured, "fine": measure(*blobs(classes=2, apart=4.0))})
    assert ("PB004", "xor") in spoken(found)
    evidence = next(f for f in found if f.code == "PB004").evidence
    assert evidence["knn_low"] > evidence["high"]
    assert evidence["gain"] >= evidence["limit"] == 0.1


def test_rows_of_one_picture_stay_together():
    ids = torch.arange(60).repeat_interleave(8)
    labels = (torch.arange(60) * 7 % 60 < 30).long()[ids]
    features = gaussian(60, 40, 5)[ids] + 0.01 * gaussian(480, 40, 6)
    measured = measure(features, labels, ids=ids)
    assert value(measured, "n") == 60
    assert value(measured, "accuracy") < 0.75
    assert value(measured, "knn_accuracy") < 0.75


def test_what_it_works_out_is_shared_by_layers_that_share_a_sample():
    view = View(*blobs())
    probe = Probe()
    assert probe.measure_layer(view) is probe.measure_layer(view)


def test_float32_and_float64_agree():
    features, labels = blobs(apart=0.7)
    one, other = (measure(x, labels) for x in (features, features.double()))
    for name in ("accuracy", "knn_accuracy", "r2", "degrees"):
        assert value(one, name) == pytest.approx(value(other, name), rel=1e-3), name


def test_a_probe_of_one_split_is_fitted_to_another():
    subject = SUBJECTS["mlp"]()
    record = examine(subject=subject, instruments=[Probe(fit_on="train", permutations=3)])

    def features(split):
        batches = subject.probe_set(split).batches
        with torch.no_grad():
            return torch.cat([subject.model[:2](b.args[0]) for b in batches]), torch.cat([b.labels for b in batches])

    (x, y), (new, truth) = features("train"), features("test")
    hot = torch.nn.functional.one_hot(y, 4).double()
    said = ridge(Basis.of(x), hot).predict(new).argmax(1)
    found = record["probe"]
    at = {"layer": "1", "step": 0}
    assert float(found["accuracy"].sel(split="test", **at)) == pytest.approx(float((said == truth).double().mean()))
    assert float(found["n_train"].sel(split="test", **at)) == 40
    assert float(found["n_train"].sel(split="train", **at)) == 20  # its own folds
    assert [row for row in record.coverage() if row.status == "failed"] == []
    votes = examine(subject=subject, instruments=[Probe()])["probe"]["knn_accuracy"].sel(split="test", **at)
    assert float(found["knn_accuracy"].sel(split="test", **at)) == float(votes)


def test_a_split_to_fit_to_that_is_not_there_is_passed_over():
    subject = SUBJECTS["cnn"]()
    one, other = (examine(subject=subject, instruments=[Probe(**s)])["probe"] for s in ({}, {"fit_on": "train"}))
    np.testing.assert_array_equal(one["accuracy"].values, other["accuracy"].values)


@pytest.mark.slow
def test_a_trained_network_reads_classes_better_and_inputs_worse_with_depth(data_folder):
    """ResNet-20 on pictures that it was not trained on: the figures of the notes in sign and order."""
    from importlib.util import module_from_spec, spec_from_file_location
    from pathlib import Path

    from stratoscope.instruments.dimension import Dimension
    from stratoscope.instruments.reconstruction import Reconstruction
    from stratoscope.network.subject import Subject

    place = Path(__file__).parents[2] / "examples" / "networks" / "cifar10_resnet.py"
    spec = spec_from_file_location("cifar10_resnet", place)
    resnet = module_from_spec(spec)
    spec.loader.exec_module(resnet)
    inputs, labels = resnet.data_jpeg(data_folder)["test"]
    subject = Subject(resnet.build(data_folder), (inputs[:600], labels[:600]))
    record = examine(subject=subject, instruments=[Probe(), Dimension(), Reconstruction(pooling="gap")])
    depth = ["conv1", "layer1.2", "layer2.2", "layer3.1", "layer3.2"]

    def along(key, name):
        return [float(record[key][name].sel(layer=layer).values.ravel()[0]) for layer in depth]

    accuracy, decoded, dimension = (
        along("probe", "accuracy"), along("reconstruction", "r2"), along("dimension", "twonn")
    )  # fmt: skip
    assert accuracy == sorted(accuracy)
    assert accuracy[0] < 0.35
    assert accuracy[-1] > 0.75
    assert decoded[0] > 0.45
    assert decoded[-1] < 0.25
    # rises, then falls again
    assert max(dimension[1:4]) > 1.3 * max(dimension[0], dimension[-1])
    assert all(one < other for one, other in zip(dimension, along("dimension", "twonn_ceiling"), strict=True))
