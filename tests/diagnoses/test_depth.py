"""Depth: known networks get the advice that is true of them, and noise gets none."""

import math

import numpy as np
import pytest

from stratoscope.diagnoses.depth import Depth
from stratoscope.errors import NotApplicable
from stratoscope.findings import Outcome
from stratoscope.network.layers import Catalogue, Layer, Matrix, Param
from stratoscope.observe.diagnosing import diagnose
from stratoscope.observe.settings import Settings
from stratoscope.record import Entry, Record, RecordWriter
from stratoscope.record.quantity import quantity
from stratoscope.testing import check_diagnosis

LAYERS = [f"{kind}{number}" for number in range(1, 5) for kind in ("fc", "relu")] + ["out"]
"""Four hidden layers with their activations, and the output layer."""

PLAIN = [outcome for outcome in Outcome if outcome not in (Outcome.PASSED, Outcome.MUTED)]


def catalogue():
    layers = {}
    for depth, name in enumerate(LAYERS):
        weight = f"{name}.weight"
        own = not name.startswith("relu")
        params = (Param(weight, name, (10, 10)),) if own else ()
        matrices = (Matrix(weight, name, (weight,), "linear", (10, 10), lambda w: w),) if own else ()
        layers[name] = Layer(name, "linear" if own else "activation", depth, params, matrices)
    return Catalogue(layers)


def along(values, name, **attrs):
    return quantity(values, units="1", long_name=name, dims="layer", coords={"layer": LAYERS}, **attrs)


def number(value, name):
    return quantity(value, units="1", long_name=name)


def separation(fraction, error=0.005, noise=None):
    floor = -0.75
    fraction = np.array(fraction, float)
    noise = [0] * len(fraction) if noise is None else noise
    found = {
        "gdv": along(np.nan_to_num(fraction * floor), "gdv"),
        "gdv_fraction": along(fraction, "fraction"),
        "gdv_floor": along([floor] * len(fraction), "floor"),
        "standard_error": along([error * -floor] * len(fraction), "error"),
        "uninformative": along(noise, "noise"),
    }
    return [("separation", name, value) for name, value in found.items()]


def probe(accuracy, half=0.01, noise=None):
    accuracy = np.array(accuracy, float)
    found = {
        "accuracy": along(accuracy, "accuracy"),
        "accuracy_low": along(accuracy - half, "low"),
        "accuracy_high": along(accuracy + half, "high"),
        "uninformative": along([0] * len(accuracy) if noise is None else noise, "noise"),
    }
    return [("probe", name, value) for name, value in found.items()]


def performance(accuracy, majority=0.1):
    found = {"accuracy": accuracy, "accuracy_low": accuracy - 0.01, "majority": majority}
    return [("performance", name, number(value, name)) for name, value in found.items()]


@pytest.fixture
def recorded():
    """A record of what was measured on each split, and perhaps at several steps."""
    writers = []

    def make(splits, steps=(0,), meta=None):
        writer = RecordWriter.create(None, meta)
        writers.append(writer)
        writer.write_layers(catalogue())
        for step in steps:
            entries = [
                Entry(key, name, value, split=split) for split, found in splits.items() for key, name, value in found
            ]
            writer.commit(step, entries)
        return Record.from_writer(writer)

    yield make
    for writer in writers:
        writer.close()


def spoken(record, **settings):
    found = diagnose(record, [Depth(**settings)], Settings()).findings
    return {finding.code: finding for finding in found if finding.outcome in PLAIN}


RISES = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
STAYS = [0.1, 0.2, 0.5, 0.6, 0.6, 0.6, 0.6, 0.6, 0.65]
"""Nothing is gained after relu2."""


def test_a_network_that_goes_on_improving_gets_no_advice(recorded):
    record = recorded({"test": [*separation(RISES), *performance(0.9)]})
    assert spoken(record) == {}
    found = diagnose(record, [Depth()])["depth"]
    assert found["beyond"].item() == 0
    assert found["enough"].item() == LAYERS.index("relu4")


def test_layers_that_add_nothing_are_said_to(recorded):
    record = recorded({"test": [*separation(STAYS), *performance(0.9)]})
    (finding,) = spoken(record).values()
    assert (finding.code, finding.outcome, finding.layer, finding.split) == ("DP001", Outcome.TIP, "relu2", "test")
    assert finding.evidence["beyond"] == 2
    assert math.isclose(finding.evidence["params_beyond"], 0.4)
    assert finding.evidence["left"] == 0
    # two standard errors of 0.005, put together
    assert math.isclose(finding.evidence["left_high"], 1.96 * 0.005 * math.sqrt(2), rel_tol=1e-3)
    assert "--at 'relu2'" in finding.do


def test_what_the_examples_are_too_few_to_see_is_no_advice(recorded):
    assert "DP001" not in spoken(recorded({"test": [*separation(STAYS, error=0.05), *performance(0.9)]}))


def test_the_margin_is_what_counts_as_nothing(recorded):
    record = recorded({"test": [*separation(RISES), *performance(0.9)]})
    assert spoken(record, margin=1.0)["DP001"].layer == "relu1"
    assert spoken(recorded({"test": [*separation(STAYS), *performance(0.9)]}), margin=0.01) == {}


def test_the_probe_decides_where_it_is_there_and_separation_is_told_beside_it(recorded):
    more = [0.1, 0.2, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7]
    record = recorded({"test": [*separation(more), *probe(STAYS), *performance(0.64)]})
    finding = spoken(record)["DP001"]
    assert (finding.layer, finding.evidence["measure"]) == ("relu2", "probe")
    assert "still grows after it, by 0.25" in finding.says
    record = recorded({"test": [*separation(STAYS), *probe(STAYS), *performance(0.64)]})
    assert "does not grow after it either" in spoken(record)["DP001"].says


def test_held_out_data_decide_and_the_training_data_are_told_beside_them(recorded):
    splits = {
        "train": [*separation(RISES), *performance(0.9)],
        "test": [*separation(STAYS), *performance(0.9)],
    }
    finding = spoken(recorded(splits))["DP001"]
    assert finding.split == "test"
    assert "on train later layers still add 0.40" in finding.says


def test_an_untrained_network_gets_no_advice(recorded):
    record = recorded({"test": [*separation(STAYS), *performance(0.12)]})
    finding = spoken(record)["DP001"]
    assert finding.outcome is Outcome.SKIPPED
    assert finding.layer is None
    assert finding.evidence["skill"] < finding.evidence["limit"]


def test_without_performance_nobody_knows_whether_it_has_learned(recorded):
    finding = spoken(recorded({"test": separation(STAYS)}))["DP001"]
    assert finding.outcome is Outcome.SKIPPED
    assert "was not measured" in finding.says


def test_measures_that_are_noise_give_no_advice(recorded):
    flat = [0.001] * len(LAYERS)
    record = recorded({"test": [*separation(flat, noise=[1] * len(LAYERS)), *performance(0.9)]})
    assert spoken(record) == {}


def test_layers_that_lose_the_classes_are_told(recorded):
    lost = [0.1, 0.3, 0.4, 0.5, math.nan, math.nan, math.nan, math.nan, math.nan]
    noise = [0, 0, 0, 0, 1, 1, 1, 1, 1]
    finding = spoken(recorded({"test": [*separation(lost, noise=noise), *performance(0.1)]}))["DP002"]
    assert (finding.layer, finding.evidence["best_layer"], finding.evidence["lost"]) == ("fc3", "relu2", 0.0)
    assert "DP001" not in spoken(recorded({"test": [*separation(lost, noise=noise), *performance(0.1)]}))


def test_what_only_the_output_layer_does_not_use_is_not_lost(recorded):
    noise = [0] * (len(LAYERS) - 1) + [1]
    record = recorded({"test": [*separation([*STAYS[:-1], 0.0], noise=noise), *performance(0.1)]})
    assert "DP002" not in spoken(record)


def test_a_gap_that_opens_along_depth_is_told_with_the_layer(recorded):
    train = [0.1, 0.2, 0.3, 0.45, 0.55, 0.65, 0.75, 0.8, 0.9]
    test = [0.1, 0.2, 0.29, 0.4, 0.42, 0.44, 0.45, 0.46, 0.5]
    splits = {"train": [*separation(train), *performance(0.99)], "test": [*separation(test), *performance(0.6)]}
    finding = spoken(recorded(splits))["DP003"]
    assert (finding.layer, finding.split) == ("fc3", "test")
    assert math.isclose(finding.evidence["gap"], 0.13, abs_tol=1e-9)
    assert finding.evidence["first_gap"] == 0
    same = {"train": splits["train"], "test": splits["train"]}
    assert "DP003" not in spoken(recorded(same))


def test_collapse_alone_names_its_best_layer_and_advises_nothing(recorded):
    nc1 = [("collapse", "nc1", along([9.0, 8, 7, 6, 5, 4, 3, 2, 1], "NC1"))]
    found = diagnose(recorded({"test": [*nc1, *performance(0.9)]}), [Depth()])
    assert list(found["depth"]) == ["collapse_best"]
    assert found["depth"]["collapse_best"].item() == LAYERS.index("relu4")
    assert found.findings == []


def test_without_labels_it_is_not_applicable_and_says_so_in_the_coverage(recorded):
    found = diagnose(recorded({"test": performance(0.9)}), [Depth()])
    assert "depth" not in found
    (row,) = found.coverage()
    assert (row.status, row.reason) == (
        "not_applicable",
        "it needs collapse, probe or separation, none of which was measured",
    )
    assert found.findings == []


def test_measures_without_classes_are_no_measures_of_depth(recorded):
    counts = [("probe", "n", along([40.0] * len(LAYERS), "examples"))]
    found = diagnose(recorded({"test": [*counts, *performance(0.9)]}), [Depth()])
    (row,) = found.coverage()
    assert row.status == "not_applicable"
    assert "no labels of two classes" in row.reason


def test_one_layer_before_the_output_is_nothing_to_compare():
    with RecordWriter.create(None) as writer:
        layers = catalogue().layers
        writer.write_layers(Catalogue({name: layers[name] for name in ("fc1", "out")}))
        value = quantity([0.1, 0.2], units="1", long_name="fraction", dims="layer", coords={"layer": ["fc1", "out"]})
        writer.commit(0, [Entry("separation", "gdv_fraction", value, split="test")])
        with pytest.raises(NotApplicable, match="no two layers before the output"):
            Depth().derive(Record.from_writer(writer))


def test_it_is_derived_for_every_step_and_judged_at_the_last(recorded):
    record = recorded({"test": [*separation(STAYS), *performance(0.9)]}, steps=(0, 10, 20))
    found = diagnose(record, [Depth()])
    assert found["depth"]["separation_left"].dims == ("step", "split", "layer")
    assert found["depth"].steps == (0, 10, 20)
    assert {finding.step for finding in found.findings if finding.step is not None} == {20}


def test_variables_say_what_they_were_derived_from(recorded):
    found = diagnose(recorded({"test": [*separation(STAYS), *performance(0.9)]}), [Depth()])["depth"]
    assert sorted(found["beyond"].attrs["reads"].split(", ")) == ["performance", "separation"]


def test_contract():
    from stratoscope.instruments.performance import Performance
    from stratoscope.instruments.separation import Separation

    check_diagnosis(Depth, ["mlp"], [Separation(permutations=2), Performance()])
