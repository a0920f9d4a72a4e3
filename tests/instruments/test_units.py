"""The instrument `units`: dead, always-on and saturated units that are known to be so."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from stratoscope import examine
from stratoscope.capture.batch import SiteBatch
from stratoscope.capture.needs import Site
from stratoscope.capture.unit_counts import UnitCounts, UnitTally
from stratoscope.findings import Outcome
from stratoscope.instruments.units import Units, census
from stratoscope.network.layers import Layer
from stratoscope.network.sources import Batch
from stratoscope.network.subject import Subject
from stratoscope.numerics.intervals import upper_bound
from stratoscope.record.assemble import assemble
from stratoscope.testing.subjects import seeded


def tally(active, n=100, positions=None, anywhere=None, **more):
    active = torch.tensor(active)
    anywhere = active if anywhere is None else torch.tensor(anywhere)
    spread = torch.ones(len(active))
    values = {
        "lowest": -spread, "highest": spread, "not_finite": torch.zeros_like(active), "rule": "output > 0",
        "has_bounds": False, "one_sided": True, **more,
    }  # fmt: skip
    return UnitTally(n, positions or n, anywhere, active, **values)


def measured(model, inputs, **options):
    """The census of each nonlinearity of a network."""
    record = examine(model, inputs, instruments=[Units()], **options)
    return {name: record["units"][name].isel(step=0, split=0) for name in record["units"]}, record


def said(group, outcome=None, **thresholds):
    found = list(Units(**thresholds).judge(group))
    return {f.code: f for f in found if f.outcome is not Outcome.PASSED and outcome in (None, f.outcome)}


def judged(saved, *tallies, **thresholds):
    layers = {f"layer{i}": census(t) for i, t in enumerate(tallies)}
    return said(saved("units", {(3, "test"): assemble(layers)}), **thresholds)


# -- numbers -------------------------------------------------------------------------------------------------------------


@st.composite
def tallies(draw):
    n, per, units = (draw(st.integers(1, 6)) for _ in range(3))
    on = np.random.default_rng(draw(st.integers(0, 999))).random((n, per, units)) < draw(
        st.sampled_from((0.0, 0.3, 1.0))
    )
    made = tally(on.sum((0, 1)).tolist(), n, n * per, on.any(1).sum(0).tolist())
    return on, made


@settings(deadline=None, max_examples=25)
@given(tallies())
def test_shares_are_those_of_counting_one_by_one(data):
    on, made = data
    found = {name: value.values for name, value in census(made).items()}
    n, per, units = on.shape
    dead = always = working = 0
    for unit in range(units):
        hits = [on[i, j, unit] for i in range(n) for j in range(per)]
        dead, always = dead + (not any(hits)), always + all(hits)
        working += any(hits) and not all(hits)
        assert found["active_share"][unit] == pytest.approx(sum(on[i, :, unit].any() for i in range(n)) / n)
    assert found["dead_share"] == pytest.approx(dead / units)
    assert found["on_share"] == pytest.approx(always / units)
    assert found["working_share"] == pytest.approx(working / units)
    assert found["dead_share"] + found["on_share"] + found["working_share"] == pytest.approx(1)
    assert found["sparsity"] == pytest.approx(1 - on.mean())
    assert found["dead_bound"] == pytest.approx(float(upper_bound(0, n)))


def test_units_that_are_built_dead_on_and_working():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(4, 3))
        model[0].weight[1:] = 0
        model[0].bias.copy_(torch.tensor([0.0, -1.0, 1.0, -2.0]))
    inputs = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    found, _ = measured(model, inputs)
    assert found["dead_share"].item() == 0.5
    assert found["on_share"].item() == 0.25
    assert found["working_share"].item() == 0.25
    assert found["constant_share"].item() == 0.75
    share = float((inputs[:, 0] > 0).double().mean())
    assert found["active_share"].values.tolist() == pytest.approx([share, 0, 1, 0])
    assert found["sparsity"].item() == pytest.approx(1 - (share + 1) / 4)
    assert found["unit_count"].item() == 4
    assert found["examples"].item() == 50


@pytest.mark.parametrize("activation", [nn.Tanh, nn.Sigmoid, nn.Softsign, nn.Hardtanh, nn.ReLU6])
def test_units_that_are_built_saturated(activation):
    model = nn.Sequential(nn.Linear(2, 3), activation())
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].bias.copy_(torch.tensor([100.0, -100.0, 0.3]))
    found, record = measured(model, torch.zeros(40, 2))
    assert found["active_share"].values.tolist() == [0, 0, 1]
    assert found["bounded"].item() == 1
    finding = said(record["units"])["UN001"]
    assert "67% of the units are saturated on all 40 examples" in finding.says
    assert "scale the weights" in finding.do


def test_maps_count_an_example_once_and_sequences_count_every_token():
    maps = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU())
    with torch.no_grad():
        maps[0].weight.fill_(1)
        maps[0].bias.copy_(torch.tensor([0.0, -0.75]))
    inputs = torch.zeros(4, 1, 2, 2)
    inputs[:2, 0, 0, 0] = 1
    inputs[0] = 0.5
    found, _ = measured(maps, inputs)
    assert found["examples"].item() == 4
    assert found["active_share"].values.tolist() == [0.5, 0.25]
    assert found["sparsity"].item() == pytest.approx(1 - (4 + 1 + 1) / 32)
    words = nn.Sequential(nn.Linear(1, 1), nn.ReLU())
    with torch.no_grad():
        words[0].weight.fill_(1)
        words[0].bias.zero_()
    found, _ = measured(words, inputs.reshape(4, 4, 1))
    assert found["examples"].item() == 16
    assert found["active_share"].item() == pytest.approx(5 / 16)


def test_one_example_and_constant_units():
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    found, record = measured(model, torch.ones(1, 2))
    assert found["constant_share"].item() == 1
    assert found["dead_bound"].item() == pytest.approx(0.95)
    assert said(record["units"]).keys() == {"UN005"}
    assert said(record["units"])["UN005"].outcome is Outcome.SKIPPED


def test_nan_is_counted_and_is_an_issue():
    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.relu = nn.ReLU()

        def forward(self, x):
            return self.relu(torch.where(x > 1, torch.nan, x))

    inputs = torch.zeros(40, 2)
    inputs[:3, 0] = 2
    found, record = measured(Broken(), inputs)
    assert found["outputs_not_finite"].item() == 3
    finding = said(record["units"])["UN004"]
    assert finding.outcome is Outcome.ISSUE
    assert finding.evidence == {"not_finite": 3, "limit": 0}
    assert found["dead_share"].item() == 1


def test_units_that_give_nothing_finite_are_not_called_dead():
    inputs = torch.ones(40, 4)
    inputs[:, 0], inputs[:, 1], inputs[:, 2] = torch.nan, torch.inf, -1
    made = census(counted(inputs))
    found = {name: value.values for name, value in made.items()}
    assert (found["dead_share"], found["on_share"], found["working_share"], found["unknown_share"]) == (
        0.25,
        0.25,
        0,
        0.5,
    )
    np.testing.assert_array_equal(found["active_share"], [np.nan, np.nan, 0, 1])
    inputs[0] = 1  # once finite, it was active on all examples on which something can be said
    assert census(counted(inputs))["unknown_share"].values == 0


def counted(value):
    layer = Layer("at", "activation", 0, activation="relu")
    counter = UnitCounts().reducer(Site(layer))
    counter.update(SiteBatch(Site(layer), value, value, Batch(n=len(value), ids=torch.arange(len(value)))))
    return counter.result()


def test_a_network_without_a_nonlinearity_has_no_units():
    record = examine(nn.Sequential(nn.Linear(3, 3)), torch.zeros(40, 3), instruments=[Units()])
    assert "units" not in record
    assert {row.status for row in record.coverage()} == {"not_applicable"}


# -- calibration and noise -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.01, 0.03])
def test_the_bound_holds_as_often_as_it_says(rate):
    """A unit that is active with this rate, seen dead: the bound lies below the rate in at most 5 % of all runs."""
    rng, n, runs = np.random.default_rng(0), 100, 4000
    dead = (rng.random((runs, n)) < rate).sum(1) == 0
    bound = float(census(tally([0], n))["dead_bound"].values)
    missed = dead.mean() if bound < rate else 0.0
    assert missed <= 0.05 + 3 * (0.05 * 0.95 / runs) ** 0.5
    # it is no looser than it must be: a rate just above the bound is missed with almost 5 %
    edge = bound * 1.001
    assert (1 - edge) ** n == pytest.approx(0.05, rel=0.02)


def test_on_noise_half_of_the_units_act_and_nothing_is_said():
    with seeded(0) as generator:
        model = nn.Sequential(nn.Linear(64, 128, bias=False), nn.ReLU())
        inputs = torch.randn(2000, 64, generator=generator)
    found, record = measured(model, inputs)
    assert found["dead_share"].item() == found["on_share"].item() == 0
    shares = found["active_share"].values
    assert np.abs(shares - 0.5).max() < 5 * (0.25 / 2000) ** 0.5
    assert {f.outcome for f in record.findings} == {Outcome.PASSED}
    assert {f.code for f in record.findings} == {"UN001", "UN002", "UN003", "UN004"}


# -- judgement -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dead", "code"), [(0, None), (1, "UN002"), (4, "UN002"), (5, "UN001"), (10, "UN001")])
def test_dead_units(saved, dead, code):
    found = judged(saved, tally([0] * dead + [50] * (10 - dead)))
    assert set(found) == ({code} if code else set())
    if code:
        finding = found[code]
        assert finding.outcome is (Outcome.ISSUE if code == "UN001" else Outcome.TIP)
        assert finding.says == f"layer0: {dead / 10:.0%} of the units are dead on all 100 examples"
        assert finding.evidence["dead_share"] == dead / 10
        assert finding.evidence["limit"] == (0.5 if code == "UN001" else 0.1)
        assert (finding.layer, finding.step, finding.split) == ("layer0", 3, "test")


def test_leaky_units_below_zero_are_not_called_dead(saved):
    for dead, code in ((2, "UN002"), (10, "UN001")):
        found = judged(saved, tally([0] * dead + [50] * (10 - dead), leaky=True))[code]
        assert found.outcome is Outcome.TIP
        assert "below zero on all 100 examples" in found.says
        assert "use a leaky" not in found.do


@pytest.mark.parametrize(
    ("activation", "leaky"),
    [
        (nn.ReLU(), 0),
        (nn.LeakyReLU(), 1),
        (nn.ELU(), 1),
        (nn.SELU(), 1),
        (nn.CELU(), 1),
        (nn.PReLU(), 1),
        (nn.GELU(), 0),
    ],
)
def test_which_rectifiers_are_leaky(activation, leaky):
    found, _ = measured(nn.Sequential(nn.Linear(3, 4), activation), torch.randn(40, 3))
    assert found["leaky"].item() == leaky


def test_rectifiers_that_are_always_on(saved):
    on = tally([100] * 9 + [50])
    assert judged(saved, on)["UN003"].evidence == {"on_share": 0.9, "limit": 0.9, "n": 100}
    for more in ({"has_bounds": True, "one_sided": False}, {"one_sided": False}):
        assert "UN003" not in judged(saved, dataclasses.replace(on, **more))


def test_thresholds_are_settings_and_apply_to_saved_numbers(saved):
    made = tally([0, 50, 50, 50])
    assert set(judged(saved, made)) == {"UN002"}
    assert set(judged(saved, made, dead_limit=0.2)) == {"UN001"}
    assert set(judged(saved, made, some_dead=0.3)) == set()
    assert set(judged(saved, made, min_n=101)) == {"UN005"}


def test_only_what_was_looked_at_is_passed(saved):
    def passed(*tallies):
        group = saved("units", {(0, "test"): assemble({f"layer{i}": census(t) for i, t in enumerate(tallies)})})
        return {f.code for f in Units().judge(group) if f.outcome is Outcome.PASSED}

    few, enough = tally([5, 5], n=10), tally([50, 50])
    assert passed(few) == set()
    assert passed(few, enough) == passed(enough) == {"UN001", "UN002", "UN003", "UN004"}
    assert passed(dataclasses.replace(enough, one_sided=False)) == {"UN001", "UN002", "UN004"}
    assert passed(dataclasses.replace(enough, one_sided=False), few) == {"UN001", "UN002", "UN004"}


def test_the_last_measurement_of_each_layer_counts(saved):
    good, bad = (assemble({"fc": census(tally(active))}) for active in ([50, 50], [0, 0]))
    assert said(saved("units", {(0, "test"): bad, (9, "test"): good})) == {}
    assert said(saved("units", {(0, "test"): good, (9, "test"): bad}))["UN001"].step == 9


def test_every_split_is_judged(saved):
    good, bad = (assemble({"fc": census(tally(active))}) for active in ([50, 50], [0, 0]))
    findings = list(Units().judge(saved("units", {(0, "train"): good, (0, "test"): bad})))
    assert [f.split for f in findings if f.code == "UN001"] == ["test"]


def test_a_subject_with_layers_of_every_width_is_one_stacked_axis():
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 5), nn.Tanh())
    record = examine(subject=Subject(model, torch.zeros(40, 2)), instruments=[Units()])
    shares = record["units"]["active_share"]
    assert shares.sizes["layer_unit"] == 8
    assert shares.sel(layer="3").sizes["unit"] == 5
