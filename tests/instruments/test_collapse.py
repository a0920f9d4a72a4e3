"""The instrument `collapse`: its numbers, where the head is, its findings."""

import math
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from stratoscope.capture.class_moments import ClassMoments, LayerMoments
from stratoscope.errors import NotApplicable
from stratoscope.findings import Outcome
from stratoscope.instruments.collapse import NeuralCollapse
from stratoscope.network.layers import Layer
from stratoscope.numerics.collapse import collapse, collapse_null, nearest_means, self_duality
from stratoscope.numerics.scatter import Scatter
from stratoscope.observe.examine import examine

CODES = ("NC001", "NC002", "NC003")


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def scatter_of(features, labels=None):
    scatter = Scatter()
    scatter.update(features, labels)
    return scatter.result()


def clusters(spread, n=400, width=20, classes=4, seed=0):
    """Classes around a simplex of edge 1, of which the mean squared distance from their mean is `spread^2`."""
    labels = torch.arange(n) % classes
    corners = torch.eye(classes, width) / math.sqrt(2)
    return corners[labels] + spread / math.sqrt(width) * gaussian(n, width, seed=seed), labels


def measure(features, labels=None, **settings):
    moments = LayerMoments(scatter_of(features, labels), len(features), features.shape[1], "as is")

    class View:
        layer = Layer("fc", "conv", 0)

        def __getitem__(self, need):
            assert isinstance(need, ClassMoments)
            return moments

    return NeuralCollapse(**settings).measure_layer(View())


def value(measured, name):
    return float(measured[name].values)


def judged(layers, **settings):
    """What is said of one round over layers."""
    arrays = {}
    for name in dict.fromkeys(name for measured in layers.values() for name in measured):
        parts = [
            measured[name].to_xarray().expand_dims(step=[0], split=["test"], layer=[layer])
            for layer, measured in layers.items()
            if name in measured
        ]
        arrays[name] = xr.concat(parts, "layer", join="outer", combine_attrs="drop_conflicts")
    return list(NeuralCollapse(**settings).judge(arrays))


def tips(findings):
    return [(f.code, f.layer) for f in findings if f.outcome is Outcome.TIP]


def network(*layers):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(*[layer() for layer in layers])


# -- numbers -------------------------------------------------------------------------------------------------------------


def test_variables_are_the_numbers_of_the_mathematics():
    features, labels = clusters(0.5)
    measured, scatter = measure(features, labels), scatter_of(features, labels)
    found, null = collapse(scatter), collapse_null(scatter)
    for name, number in {
        "nc1": found.nc1,
        "nc1_null": float(null.nc1.median()),
        "cdnv": found.cdnv,
        "cdnv_null": float(null.cdnv.median()),
        "nc2_equinorm": found.equinorm,
        "nc2_equiangular": found.equiangular,
        "nc2_equiangular_floor": 0.0,
        "directions": 3,
        "classes": 4,
        "fewest": 100,
        "n": 400,
        "width": 20,
        "null_draws": 20,
        "uninformative": 0,
    }.items():
        assert value(measured, name) == pytest.approx(number), name
    np.testing.assert_allclose(measured["class_cdnv"].values, found.by_class)
    assert measured["class_cdnv"].labels("class") == (0, 1, 2, 3)
    assert all(one.attrs["units"] == "1" and one.attrs["long_name"] for one in measured.values())
    assert not {"nc3", "nc4"} & set(measured)


def test_a_null_far_above_does_not_press_the_numbers_flat():
    measured = measure(*clusters(0.05))
    assert value(measured, "cdnv_null") > 30 * value(measured, "cdnv")
    assert [measured[name].attrs["scale"] for name in ("cdnv", "nc1")] == ["log", "log"]


def test_noise_reads_as_noise():
    flags = [value(measure(*clusters(0.5, seed=seed)), "uninformative") for seed in range(5)]
    assert sum(flags) == 0
    flags = [value(measure(gaussian(200, 10, seed=seed), torch.arange(200) % 4), "uninformative") for seed in range(40)]
    assert sum(flags) >= 36


def test_a_structure_that_one_of_the_two_sees_is_enough():
    """Classes apart along one direction, others without structure: NC1 sums over both and hardly moves."""
    labels = torch.arange(600) % 6
    measured = measure(torch.cat([2.0 * labels[:, None] + gaussian(600, 1), gaussian(600, 3, seed=1)], 1), labels)
    assert value(measured, "cdnv_z") < -3 < value(measured, "nc1_z")
    assert value(measured, "uninformative") == 0


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


def test_a_nan_is_a_reason():
    features, labels = clusters(0.5)
    features[3, 3] = math.nan
    with pytest.raises(NotApplicable, match="NaN or infinite"):
        measure(features, labels)


# -- the head ------------------------------------------------------------------------------------------------------------


def examined(model, inputs, labels, **settings):
    return examine(model, (inputs, labels), instruments=[NeuralCollapse(**settings)], probe=len(inputs))


def at_head(record):
    """The layers at which NC3 stands, and its values."""
    if "nc3" not in record["collapse"]:
        return {}
    nc3 = record["collapse"]["nc3"].isel(step=0, split=0)
    return {str(layer): float(v) for layer, v in zip(nc3.coords["layer"].values, nc3.values, strict=True) if v == v}


def test_nc3_and_nc4_stand_at_the_head_and_speak_of_what_it_is_given():
    model = network(lambda: nn.Linear(6, 8), nn.ReLU, nn.Dropout, lambda: nn.Linear(8, 4), lambda: nn.Softmax(1))
    inputs, labels = gaussian(200, 6), torch.arange(200) % 4
    record = examined(model, inputs, labels)
    with torch.no_grad():
        features = model[1](model[0](inputs))
        decided = model[3](features).argmax(1)
    means = torch.stack([features[labels == c].mean(0) for c in range(4)])
    found = at_head(record)
    assert list(found) == ["3"]
    assert found["3"] == pytest.approx(self_duality(model[3].weight, means), rel=1e-5)
    nc4 = record["collapse"]["nc4"].sel(layer="3").values.item()
    assert nc4 == pytest.approx(float((nearest_means(features, means) != decided).double().mean()), abs=1e-9)
    low, high = (record["collapse"][name].sel(layer="3").values.item() for name in ("nc4_low", "nc4_high"))
    assert low < nc4 < high


def test_a_simplex_with_its_own_weight_has_nc3_and_nc4_of_zero():
    labels = torch.arange(120) % 4
    centres = torch.eye(4, 6) - torch.eye(4, 6).mean(0)
    model = network(lambda: nn.Linear(6, 4))
    with torch.no_grad():
        model[0].weight.copy_(5 * centres)
        model[0].bias.zero_()
    record = examined(model, centres[labels] + 3e-5 * gaussian(120, 6), labels)
    assert at_head(record)["0"] == pytest.approx(0.0, abs=1e-4)
    assert record["collapse"]["nc4"].sel(layer="0").values.item() == 0.0


@pytest.mark.parametrize(
    ("model", "labels"),
    [
        (network(lambda: nn.Linear(6, 5)), torch.arange(100) % 4),  # one number too many
        (network(lambda: nn.Linear(6, 4)), 1 + torch.arange(100) % 4),  # whose row is whose?
        (
            network(lambda: nn.Linear(6, 4), lambda: nn.BatchNorm1d(4)),
            torch.arange(100) % 4,
        ),  # something learns after it
        (network(lambda: nn.Linear(6, 4), nn.ReLU, lambda: nn.Linear(4, 2)), torch.arange(100) % 4),  # not the last
    ],
)
def test_what_is_not_known_to_be_the_head_has_no_nc3(model, labels):
    record = examined(model, gaussian(100, 6), labels)
    assert at_head(record) == {}
    said = [f for f in record.findings if f.code == "NC004"]
    assert [f.outcome for f in said] == [Outcome.NOT_APPLICABLE]
    assert "counted from 0 (4 are in the data), from at most 1024 finite inputs" in said[0].says


def test_a_head_after_hidden_layers_of_its_width_is_the_last_of_them():
    model = network(lambda: nn.Linear(6, 4), nn.Tanh, lambda: nn.Linear(4, 4), nn.Tanh, lambda: nn.Linear(4, 4))
    assert list(at_head(examined(model, gaussian(100, 6), torch.arange(100) % 4))) == ["4"]


def test_a_class_without_a_kept_example_leaves_nc3_out():
    model = network(lambda: nn.Linear(6, 4))
    labels = torch.zeros(100, dtype=torch.int64)
    labels[:8] = torch.arange(8) % 4
    assert at_head(examined(model, gaussian(100, 6), labels, n=2)) == {}


# -- findings ------------------------------------------------------------------------------------------------------------


def layers_of(*spreads):
    return {f"l{place}": measure(*clusters(spread, seed=place)) for place, spread in enumerate(spreads)}


def test_classes_that_collapse_early_get_a_tip_with_the_layer():
    findings = judged(layers_of(1.0, 0.1, 0.1, 0.1, 0.1))
    assert tips(findings) == [("NC001", "l1")]
    tip = next(f for f in findings if f.code == "NC001")
    assert tip.evidence["layers_after"] == 3
    assert tip.evidence["cdnv"] == pytest.approx(0.01, rel=0.1)
    assert "with 3 of 5 layers after it" in tip.says


def test_classes_that_collapse_at_the_end_or_not_at_all_are_told_so():
    for spreads, words in (((1, 1, 1, 1, 0.1), "towards the end, from l4 on"), ((1, 0.5, 1), "have not collapsed")):
        findings = judged(layers_of(*spreads))
        assert tips(findings) == []
        said = next(f for f in findings if f.code == "NC001")
        assert said.outcome is Outcome.PASSED
        assert words in said.says


def test_a_collapse_that_is_undone_is_none():
    findings = judged(layers_of(0.1, 0.1, 0.1, 1.0))
    assert tips(findings) == []
    assert "not collapsed at the end" in next(f for f in findings if f.code == "NC001").says


def test_unequal_angles_of_collapsed_classes_get_a_tip():
    labels = torch.arange(400) % 4
    corners = torch.eye(4, 20)
    corners[1] = corners[0] + 0.1 * corners[1]  # two classes that resemble each other
    findings = judged({"a": measure(10 * corners[labels] + 0.05 * gaussian(400, 20), labels)})
    assert tips(findings) == [("NC002", "a")]
    assert next(f for f in findings if f.code == "NC002").evidence["equiangular"] > 0.2
    equal = judged(layers_of(0.1))
    assert "about equiangular" in next(f for f in equal if f.code == "NC002").says


def test_a_head_that_does_not_follow_collapsed_classes_gets_a_tip():
    labels = torch.arange(200) % 4
    centres = torch.eye(4, 4)
    inputs = centres[labels] + 0.01 * gaussian(200, 4)
    model = network(lambda: nn.Linear(4, 4))
    for order, code in ((torch.arange(4), []), (torch.tensor([1, 0, 3, 2]), [("NC003", "0")])):
        with torch.no_grad():
            model[0].weight.copy_(centres[order])
            model[0].bias.zero_()
        findings = list(examined(model, inputs, labels).findings)
        assert tips(findings) == code
        assert "NC004" not in {f.code for f in findings}


def test_noise_collapses_nowhere():
    layers = {f"l{seed}": measure(gaussian(200, 10, seed=seed), torch.arange(200) % 4) for seed in range(3)}
    findings = judged(layers, collapsed=1e9)
    assert tips(findings) == []


def test_single_examples_are_said():
    features, labels = clusters(0.5)
    labels[0] = 99
    found = [f for f in judged({"a": measure(features, labels)}) if f.code == "NC005"]
    assert [f.outcome for f in found] == [Outcome.SKIPPED]
    assert found[0].evidence["skipped_classes"] == 1


def test_the_network_is_not_told_beside_the_layer_that_gives_the_same():
    model = network(lambda: nn.Linear(6, 8), nn.ReLU, lambda: nn.Linear(8, 4))
    record = examined(model, gaussian(100, 6), torch.arange(100) % 4, collapsed=1e9, noise_z=-1e9)
    said = next(f for f in record.findings if f.code == "NC001")
    assert said.evidence["of"] == 3


@pytest.mark.slow
def test_a_trained_residual_network_nears_collapse_with_depth(data_folder):
    """ResNet-20 on its training images: what Papyan et al. and Galanti et al. show, in sign and order."""
    path = Path(__file__).resolve().parents[2] / "examples" / "networks" / "cifar10_resnet.py"
    spec = spec_from_file_location("cifar10_resnet", path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    images, labels = module.data()["train"]
    record = examined(module.build(), images[:600], labels[:600])
    cdnv, nc1 = (record["collapse"][name].isel(step=0, split=0).sel for name in ("cdnv", "nc1"))
    ends = [f"layer{stage}.2" for stage in (1, 2, 3)]
    for read in (cdnv, nc1):
        falling = [float(read(layer=name)) for name in ends]
        assert falling == sorted(falling, reverse=True)
        assert falling[-1] < 0.2 * falling[0]
    assert at_head(record)["linear"] < 0.6 < math.sqrt(2)
    assert float(record["collapse"]["nc4"].sel(layer="linear").values.item()) < 0.03


@pytest.mark.slow
def test_training_to_the_end_collapses_the_classes_and_aligns_the_head():
    """Four Gaussian classes, cross-entropy with weight decay: every measure falls from where it began."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(400) % 4
    inputs = gaussian(4, 20, seed=1)[labels] + 0.7 * gaussian(400, 20)
    model = network(lambda: nn.Linear(20, 32), nn.ReLU, lambda: nn.Linear(32, 32), nn.ReLU, lambda: nn.Linear(32, 4))
    before = examined(model, inputs, labels)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    for _ in range(600):
        batch = torch.randint(400, (64,), generator=generator)
        loss = nn.functional.cross_entropy(model(inputs[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    after = examined(model, inputs, labels)
    for name, layer, share in (("nc1", "3", 0.5), ("cdnv", "3", 0.2), ("nc3", "4", 0.7), ("nc4", "4", 0.1)):
        first, last = (float(record["collapse"][name].sel(layer=layer).values.item()) for record in (before, after))
        assert last < share * first, name
