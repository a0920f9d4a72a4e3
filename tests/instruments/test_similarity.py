"""The instrument `similarity`: its map, what is compared with what, and its findings."""

import copy
import math
import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from stratoscope.capture.activations import Activations, Sample
from stratoscope.capture.cross_moments import CrossMoments
from stratoscope.capture.needs import Initial, Other, Previous
from stratoscope.errors import NotApplicable
from stratoscope.findings import Outcome
from stratoscope.instruments.similarity import Similarity
from stratoscope.numerics.similarity import linear_cka, procrustes
from stratoscope.observe.examine import examine
from stratoscope.observe.watch import watch
from stratoscope.testing import check_instrument

SEED = 1000 * int(os.environ.get("STRATOSCOPE_TEST_SEED", "0"))


class See:
    """A network of given samples, as an instrument sees it."""

    def __init__(self, samples, weighty=(), **more):
        self._samples, self._more = samples, more
        self.layers = [
            SimpleNamespace(name=name, params=[SimpleNamespace(shape=(2, 2))] if name in weighty else [])
            for name in samples
        ]

    def __getitem__(self, need):
        if isinstance(need, Activations):
            return self._samples
        found = self._more.get(type(need).__name__)
        if found is None:
            raise NotApplicable("there is none")
        return found

    def get(self, need, default=None):
        try:
            return self[need]
        except NotApplicable:
            return default


def gaussian(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(SEED + seed))


def sample(features, ids=None):
    ids = torch.arange(len(features)) if ids is None else ids
    return Sample(features, None, ids, features.shape[1], f"{len(features)} examples, mean over positions")


def five(n=80):
    """A net that says the same twice, then something else; its root gives what its last layer gives."""
    x = gaussian(n, 6)
    layers = {
        "a": x,
        "b": x @ torch.linalg.qr(gaussian(6, 6, seed=1)).Q + 1,
        "c": gaussian(n, 4, seed=2),
        "d": torch.cat([x[:, :2], gaussian(n, 3, seed=3)], 1),
    }
    found = {name: sample(features) for name, features in layers.items()}
    return found | {"(root)": found["d"]}


def recorded(measured, step=0, split="test"):
    """What one round looks like when read back."""
    return {name: q.to_xarray().expand_dims(step=[step], split=[split]) for name, q in measured.items()}


def judged(measured, step=0, **settings):
    found = list(Similarity(**settings).judge(recorded(measured, step)))
    return {f.code: f for f in found if f.outcome is not Outcome.PASSED}, found


def test_the_map_holds_every_pair():
    samples = five()
    measured = Similarity().measure(See(samples))
    table = measured["cka"].to_xarray()
    assert list(table.coords["layer"].values) == list(table.coords["other"].values) == list(samples)
    for one in samples:
        for other in samples:
            pair = linear_cka(samples[one].features, samples[other].features)
            place = {"layer": one, "other": other}
            for name, value in (
                ("cka", pair.debiased), ("cka_biased", pair.biased), ("cka_se", pair.standard_error),
                ("cka_biased_null", pair.null_biased),
            ):  # fmt: skip
                assert float(measured[name].to_xarray().sel(place)) == pytest.approx(float(value), abs=1e-5)
            flag = int(measured["cka_uninformative"].to_xarray().sel(place))
            assert flag == int(float(pair.z) < 3)
    assert measured["cka"].attrs["null_sd"] == pytest.approx(math.sqrt(2 / (80 * 77)))
    assert int(measured["n"].values) == 80


def test_each_layer_with_the_one_before():
    samples = five()
    measured = Similarity().measure(See(samples))
    assert measured["cka_before"].labels("layer") == ("b", "c", "d", "(root)")
    pair, distance = (f(samples["c"].features, samples["d"].features) for f in (linear_cka, procrustes))
    for layer in ("d", "(root)"):  # the network gives what its last layer gives
        for name, value in (
            ("cka_before", pair.debiased), ("cka_before_se", pair.standard_error),
            ("procrustes_before", distance.distance), ("procrustes_before_null", distance.null),
        ):  # fmt: skip
            assert float(measured[name].to_xarray().sel(layer=layer)) == pytest.approx(float(value), abs=1e-5)


def test_unrelated_layers_read_as_noise():
    unrelated = {str(place): sample(gaussian(60, 5, seed=20 + place)) for place in range(12)}
    measured = Similarity().measure(See(unrelated))
    off = ~np.eye(12, dtype=bool)
    assert measured["cka_uninformative"].values[off].mean() > 0.95
    assert abs(measured["cka"].values[off].mean()) < 0.02
    wide = {str(place): sample(gaussian(40, 600, seed=40 + place)) for place in range(4)}
    measured = Similarity().measure(See(wide))
    off = ~np.eye(4, dtype=bool)
    assert measured["cka_biased"].values[off].min() > 0.9
    np.testing.assert_allclose(measured["cka_biased"].values[off], measured["cka_biased_null"].values[off], atol=0.02)
    spoken, _ = judged(measured)
    assert set(spoken) == {"CK003"}
    assert spoken["CK003"].outcome is Outcome.SKIPPED
    assert spoken["CK003"].evidence["null"] == pytest.approx(
        float(measured["cka_biased_null"].values[off].max()), abs=0.1
    )
    assert (spoken["CK003"].evidence["count"], spoken["CK003"].evidence["limit"]) == (4, 5)


def test_few_examples_are_not_spoken_of_where_shuffled_ones_read_nothing():
    """Wide layers of one direction: a unit count says nothing about the bias then."""
    draws = gaussian(100, 1, seed=60)
    wide = {str(place): sample(draws @ gaussian(1, 60, seed=61 + place)) for place in range(3)}
    measured = Similarity().measure(See(wide))
    assert measured["cka_biased_null"].values.max() < 0.05
    spoken, _ = judged(measured)
    assert "CK003" not in spoken


def test_layers_that_cannot_be_compared_say_why():
    samples = five()
    broken = samples["a"].features.clone()
    broken[0, 0] = math.nan
    samples |= {
        "broken": sample(broken),
        "constant": sample(torch.full((80, 3), 0.3)),
        "elsewhere": sample(gaussian(80, 3), torch.arange(80) + 1),
    }
    measured = Similarity(max_layers=3).measure(See(samples))
    status = measured["status"].to_xarray()
    meanings = measured["status"].attrs["flag_meanings"]
    said = {name: meanings[int(status.sel(layer=name))] for name in samples}
    assert (said["broken"], said["constant"]) == ("not_finite", "constant")
    assert said["elsewhere"] == "other_examples"
    assert [name for name, text in said.items() if text == "beyond_max_layers"] == ["b"]
    assert list(measured["cka"].labels("layer")) == ["a", "c", "d", "(root)"]
    assert "1 layer left out" in measured["cka"].attrs["note"]
    assert not any(np.isnan(q.values).any() for q in measured.values())


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        ({"a": gaussian(3, 2), "b": gaussian(3, 4)}, "3 examples are too few"),
        ({"a": torch.ones(9, 2), "b": gaussian(9, 4)}, "too few different layers"),
    ],
)
def test_too_little_is_not_applicable(samples, words):
    with pytest.raises(NotApplicable, match=words):
        Similarity().measure(See({name: sample(features) for name, features in samples.items()}))


def test_rows_of_one_example_are_refused():
    ids = torch.arange(10).repeat_interleave(2)
    with pytest.raises(NotApplicable, match="depend on each other"):
        Similarity().measure(See({"a": sample(gaussian(20, 2), ids), "b": sample(gaussian(20, 3, seed=1), ids)}))


def test_settings_reach_the_needs():
    need = Activations(n=1000, width=4096, pooling="gap")
    assert Similarity().requires == {need}
    assert Similarity().uses == {Previous(need)}
    assert Similarity(previous=False, initial=True, other="x.pt").uses == {Initial(need), Other("x.pt", need)}
    streamed = Similarity(streamed=True, pairs=(("a", "b"),), pooling="flatten")
    assert streamed.requires == {CrossMoments(pairs=(("a", "b"),), pooling="flatten")}
    assert streamed.uses == set()


def test_now_and_before():
    samples = five()
    then = {name: sample(one.features + 0.5 * gaussian(*one.features.shape, seed=9)) for name, one in samples.items()}
    then["c"] = sample(gaussian(80, 4), torch.arange(80) + 5)  # other examples
    measured = Similarity(initial=True).measure(See(samples, Previous=then, Initial=samples))
    assert measured["cka_previous"].labels("layer") == ("a", "b", "d", "(root)")
    expected = linear_cka(then["a"].features, samples["a"].features)
    assert float(measured["cka_previous"].to_xarray().sel(layer="a")) == pytest.approx(
        float(expected.debiased), abs=1e-5
    )
    np.testing.assert_allclose(measured["cka_initial"].values, 1.0)
    np.testing.assert_allclose(measured["procrustes_initial"].values, 0.0, atol=1e-7)
    assert "cka_previous" not in Similarity(previous=False).measure(See(samples, Previous=then))


# -- findings ------------------------------------------------------------------------------------------------------------


def test_ck001_a_block_that_says_the_same():
    x = gaussian(300, 6)
    turned = [x @ torch.linalg.qr(gaussian(6, 6, seed=s)).Q + 0.02 * gaussian(300, 6, seed=50 + s) for s in range(3)]
    samples = {
        "net.0": x, "net.1.conv": gaussian(300, 5, seed=7), "net.1": turned[0], "net.2": turned[1], "net.3": turned[2],
        "net.4": gaussian(300, 5, seed=8), "head": gaussian(300, 3, seed=9),
    }  # fmt: skip
    samples = {name: sample(features) for name, features in samples.items()}
    measured = Similarity(pooling="gap").measure(See(samples, weighty=["net.1.conv", "net.2", "net.4", "head"]))
    spoken, _ = judged(measured)
    found = spoken["CK001"]
    assert (found.layer, found.outcome, found.split) == ("net.3", Outcome.TIP, "test")
    assert (found.evidence["first"], found.evidence["last"], found.evidence["count"]) == ("net.0", "net.3", 4)
    assert found.evidence["cka"] >= found.evidence["limit"] == 0.98
    assert "net.0 to net.3" in found.says
    # without weights among the later ones there is nothing to leave out
    bare = Similarity().measure(See(samples, weighty=["net.0", "net.4", "head"]))
    assert "CK001" not in judged(bare)[0]
    assert "CK001" not in judged(measured, alike=0.9999)[0]


def test_ck001_does_not_advise_to_skip_the_last_layer():
    """A wide head keeps all that it is given, as any wide linear map does."""
    x = gaussian(300, 6)
    samples = {"1": sample(x), "2": sample(x @ torch.linalg.qr(gaussian(6, 6, seed=1)).Q)}
    after = {"3": sample(gaussian(300, 5, seed=2)), "4": sample(gaussian(300, 5, seed=3))}
    head = Similarity().measure(See(dict(reversed(after.items())) | samples, weighty=["2", "3", "4"]))
    assert "CK001" not in judged(head)[0]
    inside = Similarity().measure(See(samples | after, weighty=["2", "3", "4"]))
    assert judged(inside)[0]["CK001"].layer == "2"


def test_ck001_passes_where_layers_differ():
    _, found = judged(Similarity().measure(See(five(), weighty=["c", "d"])))
    assert [f.code for f in found if f.outcome is Outcome.PASSED and f.code == "CK001"] == ["CK001"]


def test_ck002_a_layer_that_did_not_move():
    samples = five()
    moved = {name: sample(one.features + 0.5 * gaussian(*one.features.shape, seed=9)) for name, one in samples.items()}
    then = samples | {"c": moved["c"], "d": moved["d"], "(root)": moved["d"]}
    measured = Similarity(initial=True).measure(See(samples, weighty=["b", "c", "d"], Initial=then))
    spoken, _ = judged(measured, step=30)
    assert spoken["CK002"].layer == "b"  # "a" did not move either, but holds no weights
    assert spoken["CK002"].evidence["cka"] == pytest.approx(1)
    assert "CK002" not in judged(measured, step=0)[0]


def test_another_network_that_parts_ways():
    samples = five()
    theirs = samples | {"d": sample(gaussian(80, 9, seed=30)), "e": samples["a"]}
    measured = Similarity(other="x.pt").measure(See(samples, weighty=["a"], Other=theirs))
    assert measured["cka_other"].labels("other") == ("a", "b", "c", "d", "(root)", "e")
    best = measured["best_match"].to_xarray()
    names = measured["best_match"].attrs["flag_meanings"]
    assert names[int(best.sel(layer="c"))] == "c"
    assert float(measured["cka_best"].to_xarray().sel(layer="a")) == pytest.approx(1, abs=1e-5)
    spoken, _ = judged(measured)
    assert spoken["CK004"].layer == "d"
    assert spoken["CK004"].evidence["before"] == 3
    assert spoken["CK005"].evidence["layers"] == "a, b, c"


# -- on real subjects ----------------------------------------------------------------------------------------------------


def test_contract_of_the_streamed_form():
    check_instrument(Similarity(streamed=True), subjects=["mlp"])


@pytest.mark.slow
def test_contract_with_step_0():
    check_instrument(Similarity(initial=True), subjects=["mlp"])


def mlp():
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 3))


def blobs(n=120):
    labels = torch.arange(n) % 3
    return gaussian(n, 6) + 2 * gaussian(3, 6, seed=1)[labels], labels


def test_streamed_pairs_are_the_map_over_all_examples(tmp_path):
    model, data = mlp(), blobs()
    whole = examine(model, data, instruments=[Similarity()])["similarity"]["cka"]
    pairs = examine(model, data, instruments=[Similarity(streamed=True, pairs=(("4", "0"), ("1", "3")))])["similarity"]
    assert list(pairs["cka_pair"].coords["pair"].values) == ["1 ~ 3", "0 ~ 4"]
    for pair in ("1 ~ 3", "0 ~ 4"):
        one, other = pair.split(" ~ ")
        expected = float(whole.sel(layer=one, other=other).squeeze())
        assert float(pairs["cka_pair"].sel(pair=pair).squeeze()) == pytest.approx(expected, abs=1e-5)
    assert set(pairs["n_pair"].values.ravel()) == {120}


def test_a_checkpoint_to_compare_with(tmp_path):
    model, other = mlp(), copy.deepcopy(mlp())
    with torch.no_grad():
        other[2].weight += gaussian(8, 16, seed=5)
    torch.save(other.state_dict(), tmp_path / "other.pt")
    record = examine(model, blobs(), instruments=[Similarity(other=str(tmp_path / "other.pt"))])
    same = record["similarity"]["cka_same"].squeeze()
    assert float(same.sel(layer="1")) == pytest.approx(1)
    assert float(same.sel(layer="2")) < 0.97
    assert [f.layer for f in record.findings if f.code == "CK004"] == ["2"]


def test_a_training_in_which_one_layer_is_frozen(tmp_path):
    model, (inputs, labels) = mlp(), blobs()
    model[0].requires_grad_(False)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
    with watch(
        model, (inputs, labels), optimizer=optimizer, to=tmp_path / "run", every=6, budget=math.inf,
        instruments=[Similarity(initial=True)], snapshot=True,
    ) as w:  # fmt: skip
        for step in range(1, 20):
            loss = nn.functional.cross_entropy(model(inputs), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            w.step(step, loss=loss)
    group = w.record["similarity"]
    moved = group["cka_initial"].squeeze()
    assert moved.sizes["step"] > 2
    np.testing.assert_allclose(moved.sel(layer="0").values, 1.0, atol=1e-6)
    assert float(moved.sel(layer="4").isel(step=-1)) < 0.99
    previous = group["cka_previous"].squeeze().sel(layer="0").values
    assert len(previous) == moved.sizes["step"] - 1
    np.testing.assert_allclose(previous, 1.0, atol=1e-6)
    assert [f.layer for f in w.record.findings if f.code == "CK002"] == ["0"]
    assert isinstance(group["cka"], xr.DataArray)
