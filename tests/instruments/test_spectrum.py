"""The instrument `spectrum`: what it records, what its rows say, its findings."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from stratoscope import inspect
from stratoscope.findings import Outcome
from stratoscope.instruments.spectrum import NOISE_NAMES, SHUFFLE_NAMES, SIZE_NAMES, TAIL_NAMES, EigenvalueSpectrum
from stratoscope.network.layers import Layer, Matrix, Param
from stratoscope.network.subject import Subject
from stratoscope.numerics.marchenko_pastur import spike_threshold
from stratoscope.numerics.spectral_phase import PHASES, TESTED, WHY
from stratoscope.observe.examine import examine
from stratoscope.report.rows import rows_of
from stratoscope.testing import check_instrument

QUICK = EigenvalueSpectrum(bootstrap=20)


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def planted(rows, columns, *times, seed=0):
    """Noise, and directions of so many times the strength at which they can be seen."""
    left = torch.linalg.qr(gaussian(rows, len(times), seed=seed + 1))[0]
    right = torch.linalg.qr(gaussian(columns, len(times), seed=seed + 2))[0]
    strengths = (
        torch.tensor(times) * spike_threshold(min(rows, columns) / max(rows, columns)) * max(rows, columns) ** 0.5
    )
    return gaussian(rows, columns, seed=seed) + (left * strengths) @ right.T


def heavy(alpha, rows=128, columns=256, seed=0):
    values = (1 - torch.rand(rows, generator=torch.Generator().manual_seed(seed))) ** (-1 / (alpha - 1))
    return values.sqrt()[:, None] * torch.linalg.qr(gaussian(columns, rows, seed=seed))[0].T


class View:
    """One layer with its tensors."""

    def __init__(self, layer, tensors):
        self.layer, self._tensors = layer, tensors

    def __getitem__(self, need):
        return need.derive(self.layer, self.__getitem__, self._tensors.__getitem__)


def measure(instrument=QUICK, **tensors):
    params = tuple(Param(name, "fc", tuple(t.shape)) for name, t in tensors.items())
    matrices = tuple(Matrix(p.name, "fc", (p.name,), "linear", p.shape, lambda w: w) for p in params)
    return instrument.measure_layer(View(Layer("fc", "linear", 0, params, matrices), tensors))


def recorded(*steps):
    group = {}
    for name in dict.fromkeys(name for measured in steps for name in measured):
        found = {i: m[name] for i, m in enumerate(steps) if name in m}
        if all(quantity.dims == ("matrix",) for quantity in found.values()):
            parts = [quantity.to_xarray().expand_dims(step=[i]) for i, quantity in found.items()]
            group[name] = xr.concat(parts, "step", join="outer")
    return group


def judged(*steps, instrument=QUICK):
    return {f.code: f for f in instrument.judge(recorded(*steps)) if f.outcome is not Outcome.PASSED}


def category(measured, name):
    quantity = measured[name]
    meanings = quantity.attrs["flag_meanings"].split()
    assert quantity.attrs["flag_values"] == list(range(len(meanings)))
    return [meanings[value] for value in quantity.values]


# -- what is recorded ----------------------------------------------------------------------------------------------------


def test_every_number_is_named_and_lies_along_the_matrices():
    measured = measure(noise=gaussian(128, 256, seed=3), spikes=planted(128, 256, 3.0, 2.5), small=gaussian(10, 20))
    numbers = {**TAIL_NAMES, **NOISE_NAMES, **SIZE_NAMES, **SHUFFLE_NAMES}
    for name in numbers:
        assert measured[name].dims == ("matrix",)
        assert measured[name].labels("matrix") == ("noise", "spikes", "small")
        assert measured[name].attrs["units"] == "1"
        assert measured[name].attrs["long_name"]
    assert category(measured, "phase") == ["random-like", "bulk+spikes", "too-small"]
    assert category(measured, "nonzero_phase") == category(measured, "phase")
    assert category(measured, "alpha_why") == ["cannot_be_told_from_noise", "given", "too_few_rows"]
    assert category(measured, "noise_why") == ["tested", "tested", "too_few_rows"]
    assert category(measured, "versus_exponential")[::2] == ["not_fitted", "not_fitted"]
    assert np.isnan(measured["alpha"].values).tolist() == [True, False, True]
    assert measured["num_spikes"].values[:2].tolist() == [0, 2]
    assert measured["spike_strength"].labels("matrix_eigen") == (("spikes", 0), ("spikes", 1))
    assert len(measured["eigenvalue"].values) == 128 + 128 + 10
    assert measured["eigenvalue"].labels("matrix_eigen")[-1] == ("small", 9)
    assert "eigenvalue_count" not in measured


def test_strengths_of_spikes_are_what_was_planted():
    strengths = measure(w=planted(256, 512, 4.0, 3.0))["spike_strength"].values
    assert strengths == pytest.approx(np.array([4.0, 3.0]) * spike_threshold(0.5), rel=0.05)


def test_a_long_spectrum_is_thinned_and_says_so():
    measured = measure(EigenvalueSpectrum(bootstrap=0, keep=64), long=gaussian(150, 200), short=gaussian(60, 200))
    counts = measured["eigenvalue_count"]
    assert {name for name, _ in counts.labels("matrix_eigen")} == {"long"}
    assert (len(counts.values), counts.values.sum()) == (64, 150)
    assert len(measured["eigenvalue"].values) == 64 + 60


def test_only_what_is_asked_for_is_measured():
    measured = measure(EigenvalueSpectrum(shuffles=0, bootstrap=0, alternatives=False), w=planted(128, 256, 3.0))
    for name in (*SHUFFLE_NAMES, "fit_p", "alpha_low", "lognormal_ratio"):
        assert math.isnan(measured[name].values[0])
    assert measured["alpha"].values[0] > 1


def test_the_same_seed_gives_the_same_bytes_and_another_one_another_shuffle():
    one, two, other = (
        measure(EigenvalueSpectrum(bootstrap=20, seed=seed), w=planted(128, 200, 3.0)) for seed in (1, 1, 2)
    )
    assert all(one[name].values.tobytes() == two[name].values.tobytes() for name in one)
    assert one["max_rand_eval"].values[0] != other["max_rand_eval"].values[0]


def test_nan_stays_in_its_own_matrix():
    broken = gaussian(128, 200)
    broken[1, 2] = math.nan
    measured = measure(bad=broken, good=gaussian(128, 200))
    assert category(measured, "phase") == ["no-test", "random-like"]
    assert category(measured, "alpha_why")[0] == category(measured, "noise_why")[0] == "not_finite"
    assert math.isnan(measured["lambda_max"].values[0])
    assert measured["M"].values.tolist() == [128, 128]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_stored_precision_changes_no_verdict(dtype):
    tensors = {
        "noise": gaussian(128, 200, seed=3),
        "spikes": planted(128, 256, 3.0, 2.5),
        "low": (gaussian(150, 40, seed=1) @ gaussian(40, 200, seed=2)) / 6,
        "collapsed": torch.cat([gaussian(130, 300, seed=5), torch.zeros(20, 300)]),
    }
    measured = measure(**{name: tensor.to(dtype) for name, tensor in tensors.items()})
    assert category(measured, "phase") == ["random-like", "bulk+spikes", "rank-collapse", "rank-collapse"]
    assert category(measured, "nonzero_phase")[2:] == ["too-small", "random-like"]
    assert measured["zero_mass"].values[2:] == pytest.approx([110 / 150, 20 / 150])


@pytest.mark.parametrize(
    ("matrix", "phase"),
    [
        (torch.eye(128), "flat"),
        (torch.zeros(128, 256), "rank-collapse"),
        (torch.ones(128, 256), "rank-collapse"),
        (gaussian(1, 300), "too-small"),
        (gaussian(300, 1), "too-small"),
        (gaussian(300, 128, seed=1), "random-like"),
    ],
)
def test_odd_matrices_are_decided(matrix, phase):
    measured = measure(w=matrix)
    assert category(measured, "phase") == [phase]
    assert math.isnan(measured["alpha"].values[0])


def test_an_embedding_is_measured():
    measured = measure(EigenvalueSpectrum(shuffles=0, bootstrap=0), w=gaussian(3000, 128))
    assert (measured["M"].values[0], measured["N"].values[0]) == (128, 3000)
    assert category(measured, "phase") == ["random-like"]


# -- rows ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def record():
    weights = {
        "noise.weight": gaussian(128, 256, seed=3),
        "spikes.weight": planted(128, 256, 3.0, 2.5),
        "small.weight": gaussian(10, 20),
        "depthwise.weight": gaussian(64, 1, 3, 3),
        "conv.weight": gaussian(128, 16, 3, 3, seed=5),
    }
    return inspect(weights, only=("spectrum", "weights"))


def test_rows_carry_plain_names_and_the_reason_for_no_exponent(record):
    rows = {row["name"]: row for row in rows_of(record)}
    assert rows["noise.weight"]["phase"] == rows["conv.weight"]["phase"] == "random-like"
    assert rows["noise.weight"]["alpha"] is None
    assert rows["noise.weight"]["alpha_reason"] == "cannot be told from noise"
    assert rows["small.weight"]["num_spikes_reason"] == "too few rows"
    assert rows["depthwise.weight"]["phase"] == "too-small"
    spikes = rows["spikes.weight"]
    assert (spikes["phase"], spikes["num_spikes"]) == ("bulk+spikes", 2)
    assert spikes["alpha_low"] < spikes["alpha"] < spikes["alpha_high"]
    assert "alpha_reason" not in spikes


def test_what_weights_says_too_is_one_column(record):
    for row in rows_of(record):
        if row["shape"]:
            assert {"stable_rank", "effective_rank", "numerical_rank", "sv_min", "spectral_norm", "sv_max"} <= set(row)
        assert not [name for name in row if name.startswith(("weights.", "spectrum."))]


def test_categories_are_in_the_record_by_name(record):
    phase = record["spectrum"]["phase"]
    assert phase.attrs["flag_meanings"].split() == list(PHASES)
    assert int(phase.sel(matrix="spikes.weight").item()) == PHASES.index("bulk+spikes")
    eigenvalues = record["spectrum"]["eigenvalue"].sel(matrix="spikes.weight").values.ravel()
    assert len(eigenvalues) == 128
    assert (WHY[0], TESTED[0]) == ("given", "tested")


# -- findings ------------------------------------------------------------------------------------------------------------


def test_an_untrained_network_is_told_once():
    found = judged(measure(a=gaussian(128, 200, seed=3), b=gaussian(128, 128, seed=4), c=gaussian(100, 300, seed=5)))
    assert set(found) == {"RM001"}
    noise = found["RM001"]
    assert (noise.outcome, noise.layer, noise.evidence["n_layers"]) == (Outcome.TIP, None, 3)
    assert noise.says.startswith("3 of 3 weight matrices cannot be told from noise")
    assert noise.evidence["tw_level"] == 0.99
    assert "(a, b, c)" in noise.says


def test_one_matrix_is_named():
    found = judged(measure(a=gaussian(128, 200, seed=3), b=planted(128, 256, 3.0, 2.5)))
    assert found["RM001"].layer == "a"
    assert found["RM001"].says.startswith("a cannot be told from noise")


def test_many_names_are_cut_short():
    found = judged(measure(QUICK, **{f"w{i}": gaussian(100, 120, seed=40 + i) for i in range(12)}))
    assert "and 8 more" in found["RM001"].says or found["RM001"].evidence["n_layers"] < 12


def test_a_collapsed_rank_is_an_issue():
    found = judged(measure(w=torch.cat([gaussian(130, 300), torch.zeros(20, 300)])))["RM002"]
    assert (found.outcome, found.layer) == (Outcome.ISSUE, "w")
    assert found.evidence["zero_mass"] == pytest.approx(20 / 150)
    assert found.evidence["limit"] == 0.05
    assert "RM002" not in judged(measure(w=gaussian(150, 300)))


@pytest.mark.parametrize("stored", [torch.float8_e5m2, torch.float8_e4m3fn, torch.bfloat16, torch.float16])
def test_coarse_rounding_is_no_collapse(stored):
    """Eight bits hide a tenth of a square matrix of noise, and a real collapse is still seen."""
    noise = measure(w=gaussian(128, 128, seed=9).to(stored))
    assert category(noise, "phase") == ["random-like"]
    low = gaussian(128, 60, seed=10) @ gaussian(60, 128, seed=11) / 60**0.5
    collapsed = measure(w=low.to(stored))
    assert category(collapsed, "phase") == ["rank-collapse"]
    assert collapsed["zero_mass"].values[0] == pytest.approx(68 / 128, abs=0.15)


def test_a_trap_is_a_tip():
    trapped = gaussian(128, 200)
    trapped[5, 7] = 80.0
    found = judged(measure(w=trapped))["RM003"]
    assert (found.outcome, found.evidence["num_traps"]) == (Outcome.TIP, 1)
    assert found.evidence["max_rand_eval"] > found.evidence["noise_edge"]


def test_a_trap_among_many_spikes_is_no_tip():
    """A common mean beside twenty planted directions: shuffling leaves one of twenty-one, or two."""
    left, right = gaussian(128, 20, seed=5), gaussian(20, 200, seed=6)
    weight = gaussian(128, 200) + 0.4 * left @ right + 0.3
    numbers = measure(w=weight)
    traps, spikes = numbers["num_traps"].values[0], numbers["num_spikes"].values[0]
    assert 0 < traps < 0.5 * spikes
    assert "RM003" not in judged(numbers)
    assert "RM003" in judged(numbers, instrument=replace(QUICK, trap_share=0.01))


def test_a_very_heavy_tail_is_no_reason_to_stop():
    found = judged(measure(w=heavy(1.5)))["RM004"]
    assert found.outcome is Outcome.TIP
    assert found.evidence["alpha"] < found.evidence["limit"] == 2
    assert "alone is no reason to stop" in found.says
    assert "diverged looks the same" in found.says
    assert "RM004" not in judged(measure(w=heavy(3.0)))


def test_a_very_heavy_tail_of_a_small_matrix_is_told_where_all_of_its_interval_is_low():
    measured = dict(measure(w=heavy(1.5, 64, 100)))
    assert measured["alpha_high"].values[0] < 2
    assert "RM004" in judged(measured)
    for high, told in ((1.9, True), (2.1, False), (np.nan, False)):
        measured["alpha_high"] = replace(measured["alpha_high"], values=np.array([high]))
        assert ("RM004" in judged(measured)) == told


def test_what_hardly_stands_out_may_be_under_trained():
    found = judged(measure(w=planted(200, 400, 1.5, 1.4)))["RM005"]
    assert found.outcome is Outcome.TIP
    assert found.evidence["alpha"] > found.evidence["limit"] or found.evidence["soft_rank"] >= 0.75


def test_a_thin_tail_is_told_only_where_all_of_its_interval_is_high():
    measured = dict(measure(w=planted(200, 400, 6.0, 5.0)))
    assert "RM005" not in judged(measured)
    measured["alpha"] = replace(measured["alpha"], values=np.array([7.2]))
    measured["alpha_low"] = replace(measured["alpha_low"], values=np.array([6.5]))
    assert measured["mp_softrank"].values[0] < 0.5  # and where what was learned stands far out of the noise, never
    assert "RM005" not in judged(measured)
    measured["mp_softrank"] = replace(measured["mp_softrank"], values=np.array([0.7]))
    for low, told in ((3.7, False), (6.1, True), (np.nan, True)):
        measured["alpha_low"] = replace(measured["alpha_low"], values=np.array([low]))
        assert ("RM005" in judged(measured)) == told


def test_a_tail_that_is_no_power_law_is_told():
    measured = dict(measure(w=heavy(3.0)))
    assert "RM006" not in judged(measured)
    measured["fit_p"] = replace(measured["fit_p"], values=np.array([0.03]))
    found = judged(measured)["RM006"]
    assert (found.outcome, found.layer) == (Outcome.TIP, "w")
    assert found.evidence["fit_p"] < found.evidence["limit"] == 0.1


def test_small_matrices_are_skipped_once():
    found = judged(measure(a=heavy(3.5, 64, 100), b=gaussian(10, 10)))
    assert set(found) == {"RM007"}
    assert (found["RM007"].outcome, found["RM007"].evidence["too_small"]) == (Outcome.SKIPPED, 2)
    assert "2 of 2 weight matrices get no phase: 2 with fewer than 100 rows (a, b)" in found["RM007"].says
    broken = gaussian(128, 200)
    broken[0, 0] = float("nan")
    says = judged(measure(a=gaussian(10, 10), b=broken))["RM007"].says
    assert "1 with fewer than 100 rows, 1 with entries that are not finite (a, b)" in says
    assert judged(measure(b=broken))["RM007"].says == "b gets no phase: with entries that are not finite"


def test_only_the_last_step_is_judged():
    bad, good = measure(w=gaussian(128, 256, seed=3)), measure(w=planted(128, 256, 3.0, 2.5))
    assert "RM001" in judged(good, bad)
    assert judged(good, bad)["RM001"].step == 1
    assert "RM001" not in judged(bad, good)


def test_what_was_looked_at_and_not_seen_has_passed():
    passed = {
        f.code for f in QUICK.judge(recorded(measure(w=planted(128, 256, 3.0, 2.5)))) if f.outcome is Outcome.PASSED
    }
    assert {"RM001", "RM002", "RM003", "RM004", "RM007"} <= passed
    assert not [f for f in QUICK.judge({})]


def test_thresholds_can_be_changed_afterwards():
    measured = measure(w=heavy(3.0))
    alpha = measured["alpha"].values[0]
    assert "RM004" in judged(measured, instrument=EigenvalueSpectrum(very_heavy=alpha + 0.1))


# -- in the house --------------------------------------------------------------------------------------------------------


def test_the_contract():
    class Wide(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3)
            self.fc = nn.Linear(8 * 36, 120)
            self.out = nn.Linear(120, 3)

        def forward(self, x):
            return self.out(torch.relu(self.fc(torch.relu(self.conv(x)).flatten(1))))

    torch.manual_seed(0)
    data = {"train": (gaussian(40, 3, 8, 8), torch.arange(40) % 3)}
    check_instrument(QUICK, (Subject(Wide(), data=data, loss=nn.CrossEntropyLoss(), name="wide"),))


def test_slices_of_a_convolution_are_pooled():
    record = examine(
        subject=Subject(weights={"conv.weight": gaussian(128, 160, 3, 3)}),
        instruments=[EigenvalueSpectrum(view="slices", shuffles=0, bootstrap=0)],
    )
    (row,) = [row for row in rows_of(record) if row["shape"]]
    assert (row["rf"], row["M"], row["N"], row["num_evals"]) == (9, 128, 160, 9 * 128)
    assert row["phase"] == "random-like"


def test_a_real_network_has_a_phase_for_each_matrix(data_folder):
    record = inspect(str(data_folder / "mnist_lenet5" / "model.safetensors"), only="spectrum")
    rows = [row for row in rows_of(record) if "phase" in row]
    assert len(rows) == 5
    assert {row["name"]: row["phase"] for row in rows}["fc1.weight"] == "bulk+spikes"
