"""The instrument `statistics`: its numbers and nulls, projected widths, its findings."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from stratoscope.capture.activations import Activations, Sample
from stratoscope.errors import NotApplicable
from stratoscope.findings import Outcome
from stratoscope.instruments.statistics import Statistics
from stratoscope.numerics.activation_statistics import activation_statistics, null_correlation
from stratoscope.numerics.class_statistics import class_statistics
from stratoscope.numerics.sketch import count_sketch
from stratoscope.observe.examine import examine


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def measure(features, labels=None, width_from=None, **settings):
    sample = Sample(features, labels, torch.arange(len(features)), width_from or features.shape[1], "as is")
    instrument = Statistics(**settings)

    class View:
        layer = SimpleNamespace(name="fc")

        def __getitem__(self, need):
            assert need == Activations(n=instrument.n, width=instrument.width, pooling=instrument.pooling)
            return sample

    return instrument.measure_layer(View())


def value(measured, name):
    return float(measured[name].values)


def judged(layers, **settings):
    """What is said of one round over layers."""
    return list(Statistics(**settings).judge(recorded(layers)))


def recorded(layers, step=0, split="test"):
    arrays = {}
    for name in dict.fromkeys(name for measured in layers.values() for name in measured):
        parts = [
            measured[name].to_xarray().expand_dims(step=[step], split=[split], layer=[layer])
            for layer, measured in layers.items()
            if name in measured
        ]
        arrays[name] = xr.concat(parts, "layer", join="outer", combine_attrs="drop_conflicts")
    return arrays


def spoken(findings):
    return [(f.code, f.layer) for f in findings if f.outcome is not Outcome.PASSED]


def test_variables_are_the_numbers_of_the_mathematics():
    features, labels = gaussian(200, 12).relu(), torch.arange(200) % 4
    measured, whole = measure(features, labels), activation_statistics(features)
    own = class_statistics(features, labels)
    for name, number in {
        "correlation": whole.correlation,
        "correlation_null": null_correlation(200),
        "variance": whole.variance,
        "sparsity": whole.sparsity,
        "rank": 12,
        "rank_ceiling": 12,
        "rank_centred": 12,
        "rank_centred_ceiling": 12,
        "stable_rank": whole.raw.stable,
        "stable_rank_centred": whole.centred.stable,
        "effective_rank_centred": whole.centred.effective,
        "effective_rank_centred_null": whole.shuffled.effective,
        "class_correlation": own.correlation,
        "class_variance": own.variance,
        "class_variance_null": whole.variance * 200 / 199 * (1 - 4 / 200),
        "class_sparsity_null": whole.sparsity,
        "class_effective_rank": own.raw.effective,
        "classes": 4,
        "skipped_classes": 0,
        "n": 200,
        "uninformative": 0,
    }.items():
        assert value(measured, name) == pytest.approx(number), name
    assert all(one.attrs["units"] == "1" and one.attrs["long_name"] for one in measured.values())


def test_every_variable_with_a_null_or_ceiling_has_the_variable_itself():
    measured = measure(gaussian(50, 6), torch.arange(50) % 2)
    for name in measured:
        for ending in ("_null", "_ceiling"):
            if name.endswith(ending):
                assert name.removesuffix(ending) in measured, name


def test_without_labels_or_with_one_example_a_class_there_is_no_class_variable():
    for labels in (None, torch.arange(50)):
        measured = measure(gaussian(50, 6), labels)
        assert "correlation" in measured
        assert not [name for name in measured if name.startswith("class")]


def test_few_examples_bound_the_rank_and_it_says_so():
    measured = measure(gaussian(20, 50))
    assert value(measured, "uninformative") == 1
    assert value(measured, "rank_centred") == value(measured, "rank_centred_ceiling") == 19


def test_of_a_projection_nothing_is_said_of_units_and_the_rest_stays_right():
    wide = gaussian(300, 4000).relu() * torch.linspace(0, 2, 4000)
    exact = measure(wide, torch.arange(300) % 3, most_units=20)
    sketched = measure(count_sketch(wide, 1000, seed=0), torch.arange(300) % 3, width_from=4000)
    for name in (
        "correlation",
        "sparsity",
        "kurtosis",
        "massive",
        "always_zero_share",
        "class_correlation",
        "class_sparsity",
    ):
        assert math.isnan(value(sketched, name)), name
        assert "mixtures" in sketched[name].attrs["note"]
    for name in ("variance", "class_variance", "class_variance_null", "stable_rank"):
        assert value(sketched, name) == pytest.approx(value(exact, name), rel=0.1), name
    assert value(sketched, "rank_centred") == value(exact, "rank_centred") == 299
    assert set(sketched) == set(exact)


def test_nan_and_too_few_examples_are_reasons():
    features = gaussian(30, 4)
    features[1, 2] = math.nan
    with pytest.raises(NotApplicable, match="1 of 120 numbers that it gives are NaN or infinite"):
        measure(features)
    with pytest.raises(NotApplicable, match="two examples"):
        measure(gaussian(1, 4))


# -- findings ------------------------------------------------------------------------------------------------------------


def test_noise_is_silent_and_every_code_that_was_looked_at_passes():
    layers = {f"l{seed}": measure(gaussian(200, 20, seed=seed).relu(), torch.arange(200) % 4) for seed in range(5)}
    findings = judged(layers)
    assert spoken(findings) == []
    assert {f.code for f in findings} == {"AS001", "AS002", "AS003", "AS004"}


def test_constant_units_that_are_not_dead_get_a_tip():
    features = gaussian(100, 10)
    features[:, :3] = 0.7
    dead = features.clone()
    dead[:, :3] = 0.0
    findings = judged({"a": measure(features), "b": measure(dead)})
    assert spoken(findings) == [("AS001", "a")]
    tip = next(f for f in findings if f.code == "AS001")
    assert tip.evidence["share"] == pytest.approx(0.3)
    assert "30% of 10 units on 100 examples" in tip.says


def test_repeated_units_get_a_tip_with_their_null():
    features = gaussian(100, 1) + 0.3 * gaussian(100, 10, seed=1)
    findings = judged({"a": measure(features)})
    assert ("AS002", "a") in spoken(findings)
    tip = next(f for f in findings if f.code == "AS002")
    assert tip.evidence["correlation"] > 0.8
    assert tip.evidence["null"] == pytest.approx(null_correlation(100))


def test_of_a_few_units_neither_correlation_nor_rank_is_judged():
    features = gaussian(100, 1) + 0.01 * gaussian(100, 9, seed=1)
    findings = judged({"a": measure(features)})
    assert spoken(findings) == []
    assert {f.code for f in findings} == {"AS001", "AS004"}
    assert spoken(judged({"a": measure(features)}, min_units=9)) == [("AS002", "a")]


def test_few_examples_make_no_units_look_alike():
    """With four examples independent units have a mean |r| of 0.5."""
    found = measure(gaussian(4, 20))
    assert value(found, "correlation") == pytest.approx(0.5, abs=0.1)
    assert "AS002" not in {code for code, _ in spoken(judged({"a": found}, min_n=1, correlation_limit=0.4))}


def test_a_collapsed_layer_gets_a_tip_and_a_classifier_of_c_minus_1_directions_does_not():
    line = gaussian(200, 1) @ gaussian(1, 64, seed=1) + 1e-3 * gaussian(200, 64, seed=2)
    simplex = (torch.eye(64)[:3] - torch.eye(64)[:3].mean(0))[torch.arange(200) % 3]
    findings = judged(
        {"line": measure(line, torch.arange(200) % 3), "simplex": measure(simplex, torch.arange(200) % 3)},
        correlation_limit=2.0,
    )
    assert [(code, layer) for code, layer in spoken(findings) if code == "AS003"] == [("AS003", "line")]


def test_a_massive_activation_gets_a_tip_only_if_it_is_large():
    features = gaussian(100, 10)
    features[3, 3] = 2000.0
    findings = judged({"a": measure(features), "b": measure(features / 1000)})
    assert spoken(findings) == [("AS004", "a")]


def test_what_holds_of_many_layers_is_one_finding():
    layers = {f"l{seed}": measure(gaussian(100, 1, seed=seed) + 0.3 * gaussian(100, 12)) for seed in range(4)}
    findings = [f for f in judged(layers) if f.code == "AS002"]
    assert len(findings) == 1
    assert findings[0].layer is None
    assert findings[0].evidence["count"] == 4
    assert "4 of 4 layers" in findings[0].says


def test_too_few_examples_are_said_once_and_nothing_is_judged():
    findings = judged({"a": measure(torch.ones(10, 4)), "b": measure(torch.ones(10, 4))})
    assert spoken(findings) == [("AS005", None)]


def test_layers_that_give_the_same_are_worked_out_once(monkeypatch):
    calls = []

    def counted(features, **settings):
        calls.append(len(features))
        return activation_statistics(features, **settings)

    monkeypatch.setattr("stratoscope.instruments.statistics.activation_statistics", counted)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    record = examine(model, (gaussian(50, 4), torch.arange(50) % 3), instruments=[Statistics()])
    names = [str(name) for name in record["statistics"]["correlation"].coords["layer"].values]
    assert len(names) == 4
    assert len(calls) == 3  # the network gives what its last layer gives
    sparsity = record["statistics"]["sparsity"]
    np.testing.assert_array_equal(sparsity.sel(layer="2").values, sparsity.sel(layer="(root)").values)
