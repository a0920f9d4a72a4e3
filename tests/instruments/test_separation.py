"""The instrument `separation`: its numbers, its noise, its findings."""

import math

import numpy as np
import pytest
import torch
import xarray as xr

from stratoscope.capture.activations import Activations
from stratoscope.capture.pairs import ClassDistances
from stratoscope.errors import NotApplicable
from stratoscope.findings import Outcome
from stratoscope.instruments.separation import Separation
from stratoscope.numerics.separation import gdv
from stratoscope.testing.views import SampleView


def sample(separation, n=200, width=10, classes=4, seed=0, spread=1.0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    centres = torch.randn(classes, width, generator=torch.Generator().manual_seed(99))
    return separation * centres[labels] + spread * torch.randn(n, width, generator=generator), labels


def measure(features, labels, **settings):
    return Separation(**settings).measure_layer(SampleView(features, labels))


def recorded(layers, step=0, split="test"):
    """What one round over layers looks like when read back."""
    arrays = {}
    for name in next(iter(layers.values())):
        parts = [
            m[name].to_xarray().expand_dims(step=[step], split=[split], layer=[layer]) for layer, m in layers.items()
        ]
        arrays[name] = xr.concat(parts, "layer", join="outer", combine_attrs="drop_conflicts")
    return arrays


def judged(layers, **settings):
    return list(Separation(**settings).judge(recorded(layers)))


def spoken(findings):
    return [(f.code, f.layer) for f in findings if f.outcome is not Outcome.PASSED]


def test_variables_are_the_numbers_of_the_mathematics():
    features, labels = sample(1.0)
    labels = 3 * labels + 1
    measured, result = measure(features, labels, seed=5), gdv(features, labels, seed=5)
    for name, value in {
        "gdv": result.gdv,
        "gdv_floor": result.floor,
        "gdv_fraction": result.gdv / result.floor,
        "null_mean": result.null_mean,
        "null_sd": result.null_sd,
        "standard_error": result.standard_error,
        "z": result.z,
        "p_value": 1 / 21,
        "n": 200,
        "width": 10,
        "skipped_classes": 0,
        "uninformative": 0,
    }.items():
        assert measured[name].dims == ()
        assert float(measured[name].values) == pytest.approx(value, rel=1e-9), name
    assert measured["intra"].labels("class") == (1, 4, 7, 10)
    np.testing.assert_allclose(measured["intra"].values, result.intra, rtol=1e-9)
    assert all(quantity.attrs["units"] == "1" and quantity.attrs["long_name"] for quantity in measured.values())
    assert measured["gdv"].attrs["note"] == "as is"


def test_settings_reach_the_need():
    sample = Activations(n=1000, width=4096, pooling="gap")
    assert Separation().requires == {sample, ClassDistances(sample, permutations=20, seed=0)}
    sample = Activations(n=50, width=8, pooling="flatten")
    assert Separation(n=50, width=8, pooling="flatten").requires == {sample, ClassDistances(sample)}


def test_float32_and_float64_agree():
    features, labels = sample(1.0)
    one, other = measure(features, labels), measure(features.double(), labels)
    for name in ("gdv", "gdv_floor", "intra", "standard_error", "null_sd", "z"):
        np.testing.assert_allclose(one[name].values, other[name].values, rtol=1e-4)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (None, "no class labels"),
        (torch.zeros(40, dtype=torch.int64), "1 classes in 40 examples"),
        (torch.arange(40), "40 classes in 40 examples"),
    ],
)
def test_without_classes_it_is_not_applicable(labels, words):
    with pytest.raises(NotApplicable, match=words):
        measure(torch.ones(40, 3), labels)


def test_a_nan_is_a_reason_with_its_count():
    features, labels = sample(1.0)
    features[3, 3] = math.nan
    with pytest.raises(NotApplicable, match="1 of 2,000 numbers that it gives are NaN or infinite"):
        measure(features, labels)


def test_noise_reads_as_uninformative_and_gets_the_tip():
    layers = {f"l{seed}": measure(*sample(0.0, seed=seed)) for seed in range(30)}
    flags = [int(m["uninformative"].values) for m in layers.values()]
    assert sum(flags) >= 29
    findings = judged(layers)
    assert spoken(findings) == [("SP001", None)]
    evidence = findings[0].evidence
    assert (evidence["count"], evidence["of"]) == (sum(flags), 30)
    assert evidence["layers"].split(", ") == [name for name, flag in zip(layers, flags, strict=True) if flag]
    assert evidence["z"] == min(float(m["z"].values) for m, flag in zip(layers.values(), flags, strict=True) if flag)
    assert evidence["z"] > evidence["limit"] == -3
    assert (evidence["n"], findings[0].split, findings[0].step) == (200, "test", 0)
    assert findings[0].says.startswith(f"{sum(flags)} of 30 layers give distances that cannot tell the classes")


def test_what_is_said_of_the_last_layer_is_not_said_of_the_network_again():
    last, other = measure(*sample(0.0, seed=1)), measure(*sample(0.0, seed=2))
    assert [f.layer for f in judged({"fc": last, "(root)": last}) if f.code == "SP001"] == ["fc"]
    (both,) = [f for f in judged({"fc": last, "(root)": other}) if f.code == "SP001"]
    assert (both.layer, both.evidence["layers"]) == (None, "fc, (root)")


def test_clear_classes_pass():
    layers = {f"l{depth}": measure(*sample(0.5 * depth)) for depth in range(1, 5)}
    assert all(int(m["uninformative"].values) == 0 for m in layers.values())
    assert {f.code: f.outcome for f in judged(layers)} == dict.fromkeys(("SP001", "SP002"), Outcome.PASSED)


def test_sp001_a_layer_of_constants_tells_nothing():
    measured = measure(torch.ones(40, 3), torch.arange(40) % 2)
    assert int(measured["uninformative"].values) == 1
    assert spoken(judged({"dead": measured})) == [("SP001", "dead")]
    noise = measure(*sample(0.0))
    found = judged({"dead": measured, "buried": measured, "noise": noise})
    assert spoken(found) == [("SP001", None), ("SP001", "noise")]
    assert found[0].says == "2 of 3 layers give the same output for every example: dead, buried"


def test_sp002_depth_that_undoes_separation():
    layers = {name: measure(*sample(size)) for name, size in (("a", 0.5), ("b", 3.0), ("c", 2.0), ("d", 0.7))}
    (finding,) = [f for f in judged(layers) if f.outcome is Outcome.TIP]
    assert (finding.code, finding.layer) == ("SP002", "b")
    assert (finding.evidence["best_layer"], finding.evidence["last_layer"]) == ("b", "d")
    assert finding.evidence["loss"] == pytest.approx(finding.evidence["best"] - finding.evidence["last"])
    assert finding.evidence["loss"] > finding.evidence["limit"] == 0.1
    assert spoken(judged(layers, worse=0.9)) == []


def test_sp002_needs_a_loss_beyond_the_sampling_error():
    layers = {name: measure(*sample(size, n=16)) for name, size in (("b", 2.2), ("d", 1.5))}
    fractions = [float(m["gdv_fraction"].values) for m in layers.values()]
    assert fractions[0] - fractions[1] > 0.05
    assert ("SP002", "b") not in spoken(judged(layers, worse=0.05))


def test_sp003_single_examples_are_left_out_with_a_note():
    features, labels = sample(1.0)
    labels[0], labels[1] = 77, 78
    measured = measure(features, labels)
    assert int(measured["skipped_classes"].values) == 2
    assert int(measured["n"].values) == 198
    (finding,) = [f for f in judged({"a": measured, "b": measured}) if f.outcome is Outcome.SKIPPED]
    assert finding.code == "SP003"
    assert finding.evidence["skipped_classes"] == 2


def test_without_a_null_nothing_is_called_passed_against_noise():
    findings = judged({"a": measure(*sample(1.0), permutations=0)})
    assert {f.code: f.outcome for f in findings} == {"SP001": Outcome.SKIPPED}
    two = judged({name: measure(*sample(1.0), permutations=0) for name in "ab"})
    assert {f.code: f.outcome for f in two} == {"SP001": Outcome.SKIPPED}


def test_depth_is_judged_between_two_layers_only():
    one = measure(*sample(1.0))
    assert {f.code for f in judged({"a": one})} == {"SP001"}
    assert {f.code for f in judged({"a": one, "(root)": one})} == {"SP001"}
    assert {f.code for f in judged({"a": one, "b": measure(*sample(1.0, seed=1))})} == {"SP001", "SP002"}


def test_each_split_is_judged_for_itself():
    train, test = {"a": measure(*sample(2.0))}, {"a": measure(*sample(0.0))}
    both = {
        name: xr.concat(
            [recorded(train, split="train")[name], recorded(test)[name]],
            "split",
            join="outer",
            combine_attrs="override",
        )
        for name in recorded(test)
    }
    findings = [f for f in Separation().judge(both) if f.outcome is not Outcome.PASSED]
    assert [(f.code, f.split) for f in findings] == [("SP001", "test")]
