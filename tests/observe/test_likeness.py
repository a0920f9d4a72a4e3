"""`likeness`: two networks side by side on the same examples."""

import copy
import itertools
import os

import numpy as np
import pytest
import torch
from torch import nn

from stratoscope.errors import StratoscopeError
from stratoscope.instruments.similarity import Similarity
from stratoscope.network.subject import Subject
from stratoscope.numerics.similarity import linear_cka, procrustes
from stratoscope.observe.judging import rejudge
from stratoscope.observe.likeness import likeness
from stratoscope.observe.settings import Settings
from stratoscope.record.record import Record

SEED = 1000 * int(os.environ.get("STRATOSCOPE_TEST_SEED", "0"))


def generator(seed=0):
    return torch.Generator().manual_seed(SEED + seed)


def net(*widths, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(SEED + seed)
        parts = [part for a, b in itertools.pairwise(widths) for part in (nn.Linear(a, b), nn.Tanh())]
        return nn.Sequential(*parts[:-1])


def images(n=90):
    return torch.randn(n, 6, generator=generator(9))


def outputs(model, x):
    found = {}
    with torch.no_grad():
        for name, module in model.named_children():
            x = found[name] = module(x)
    return found


def test_every_layer_with_every_layer_of_another_architecture():
    one, two, data = net(6, 16, 8, 3), net(6, 12, 4, seed=1), images()
    record = likeness(one, two, data)
    table = record["similarity"]["cka_other"].squeeze()
    first, second = outputs(one, data), outputs(two, data)
    assert set(table.coords["layer"].values) == {*first, "(root)"}
    assert set(table.coords["other"].values) == {*second, "(root)"}
    for a in first:
        for b in second:
            expected = float(linear_cka(first[a], second[b]).debiased)
            assert float(table.sel(layer=a, other=b)) == pytest.approx(expected, abs=1e-5)
    distance = record["similarity"]["procrustes_same"].squeeze()
    assert float(distance.sel(layer="1")) == pytest.approx(procrustes(first["1"], second["1"]).distance, abs=1e-5)
    best = record["similarity"]["cka_best"].squeeze()
    np.testing.assert_allclose(best.values, table.max("other").sel(layer=best.coords["layer"]).values, atol=1e-6)
    assert record.meta["likeness"]["second_layers"][0] == "0"


def test_a_copy_is_the_same_and_a_changed_layer_parts_ways(tmp_path):
    model = net(6, 16, 8, 8, 3)
    other = copy.deepcopy(model)
    with torch.no_grad():
        other[4].weight += torch.randn(8, 8, generator=generator(3))
    record = likeness(model, other, images(), to=tmp_path / "record")
    found = {f.code: f for f in record.findings}
    assert (found["CK004"].layer, found["CK004"].evidence["before"]) == ("4", 4)
    assert found["CK005"].evidence["layers"] == "0, 1, 2, 3"
    record.close()
    with Record.open(tmp_path / "record") as again:
        assert {f.code: f.outcome for f in again.findings} == {code: f.outcome for code, f in found.items()}
        said = {f.code: f.says for f in rejudge(again, Settings())}
        assert said == {code: f.says for code, f in found.items()}
        assert {row.status for row in again.coverage() if row.param.endswith("weight")} == {"measured"}
        assert next(layer.name for layer in again.layers) == "0"
    same = likeness(model, copy.deepcopy(model), images())
    assert "CK004" not in {f.code for f in same.findings if f.outcome == "tip"}
    np.testing.assert_allclose(same["similarity"]["cka_same"].values, 1.0, atol=1e-6)


def test_independent_noise_reads_as_noise():
    """Two networks that see nothing of their input but their own random features of unrelated columns."""

    class Column(nn.Module):
        def __init__(self, start):
            super().__init__()
            self.start, self.fc = start, nn.Linear(3, 5)

        def forward(self, x):
            return self.fc(x[:, self.start : self.start + 3])

    record = likeness(Column(0), Column(3), images(400))
    group = record["similarity"]
    assert abs(float(group["cka_same"].squeeze().sel(layer="fc"))) < 6 * group["cka_other"].attrs["null_sd"]


def test_each_network_may_have_its_own_form_of_the_data():
    data = images()
    one = Subject(net(6, 8, 3), {"train": data, "test": data[:50]})
    two = Subject(net(12, 8, 3, seed=1), {"test": torch.cat([data, data], 1)[:50]})
    record = likeness(one, two)
    assert list(record["similarity"]["cka_other"].coords["split"].values) == ["test"]


def test_settings_and_a_part_of_the_layers():
    model = net(6, 16, 8, 3)
    record = likeness(model, model, images(), layers=["2", "3"], similarity=Similarity(n=40, alike=0.5))
    assert set(record["similarity"]["cka_other"].coords["layer"].values) == {"2", "3", "(root)"}
    assert int(record["similarity"]["n"].squeeze()) == 40
    assert next(f for f in record.findings if f.code == "CK005").evidence["limit"] == 0.5


def test_the_models_leave_as_they_came():
    one, two = net(6, 8, 3).train(), net(6, 8, 3, seed=1)
    before = copy.deepcopy(one.state_dict())
    likeness(one, two, images())
    assert one.training
    assert all(torch.equal(value, before[name]) for name, value in one.state_dict().items())
    assert not any(module._forward_hooks for module in one.modules())


@pytest.mark.parametrize(
    ("first", "second", "data", "words"),
    [
        (lambda: net(6, 3), lambda: net(6, 3), lambda: None, "there is no data of Sequential"),
        (lambda: Subject(weights=net(6, 3).state_dict()), lambda: net(6, 3), images, "there is no model of weights"),
        (lambda: net(6, 3), lambda: net(5, 3), images, "Sequential: The model failed"),
        (lambda: net(6, 3), lambda: net(6, 3), lambda: images(3), "3 examples are too few"),
        (lambda: Subject(net(6, 3), images()), lambda: Subject(net(6, 3), images(50)), lambda: None, "other examples"),
        (
            lambda: Subject(net(6, 3), {"a": images(), "b": images()}),
            lambda: Subject(net(6, 3), {"train": images(), "b2": images()}),
            lambda: None,
            "no split in common",
        ),
    ],
)
def test_what_cannot_be_compared_is_said_in_a_sentence(first, second, data, words):
    with pytest.raises(StratoscopeError, match=words):
        likeness(first(), second(), data())


def test_odd_settings_are_refused():
    with pytest.raises(StratoscopeError, match="streamed"):
        likeness(net(6, 3), net(6, 3), images(), similarity=Similarity(streamed=True))
    with pytest.raises(StratoscopeError, match="No layer of Sequential"):
        likeness(net(6, 3), net(6, 3), images(), layers="nowhere")
