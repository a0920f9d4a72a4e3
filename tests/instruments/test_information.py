"""The instrument `information`: its numbers, their ceilings and nulls, ranges of bins, findings."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from stratoscope.capture.activations import Activations, Sample
from stratoscope.capture.unit_counts import UnitCounts
from stratoscope.errors import NotApplicable, SettingError
from stratoscope.findings import Outcome
from stratoscope.instruments.information import Information
from stratoscope.numerics.binned_information import Examples, binned_information
from stratoscope.numerics.entropy import Edges, EqualWidth, shuffled
from stratoscope.numerics.noisy_information import gaussian_channel
from stratoscope.observe.examine import examine
from stratoscope.observe.judging import rejudge
from stratoscope.observe.settings import Settings
from stratoscope.record.record import Record


class View:
    """One layer with its sample."""

    def __init__(self, features, labels, ids=None, name="fc", activation=None, module=None):
        self.layer = SimpleNamespace(name=name, activation=activation, module=module)
        ids = torch.arange(len(features)) if ids is None else ids
        self.sample = Sample(features, labels, ids, features.shape[1], "as is")

    def __getitem__(self, need):
        if isinstance(need, Activations):
            return self.sample
        if isinstance(need, UnitCounts):
            raise NotApplicable("no nonlinearity")
        found = type(need).work_out([need], self.sample)[need]
        if isinstance(found, Exception):
            raise found
        return found

    def get(self, need, default=None):
        try:
            return self[need]
        except NotApplicable:
            return default


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def gaussian(n=300, width=2, seed=0):
    return torch.randn(n, width, generator=generator(seed))


def measure(features, labels, settings=None, **view):
    return Information(**(settings or {})).measure_layer(View(features, labels, **view))


def value(found, name):
    return float(found[name].values)


def recorded(steps, split="test"):
    """What rounds over layers look like when read back: a list of `{layer: numbers}`, one a step."""
    names = {name for layers in steps for found in layers.values() for name in found}
    arrays = {}
    for name in sorted(names):
        parts = [
            found[name].to_xarray().expand_dims(step=[step], split=[split], layer=[layer])
            for step, layers in enumerate(steps)
            for layer, found in layers.items()
            if name in found
        ]
        arrays[name] = xr.combine_by_coords(
            [part.rename(name).to_dataset() for part in parts], combine_attrs="drop_conflicts"
        )[name]
    return arrays


def spoken(findings):
    return [(f.code, f.layer, f.outcome) for f in findings if f.outcome is not Outcome.PASSED]


# -- numbers -------------------------------------------------------------------------------------------------------------


def test_variables_are_the_numbers_of_the_mathematics():
    features, labels = gaussian(), torch.arange(300) % 3 + 5
    found = measure(features, labels, {"permutations": 6, "seed": 3})
    table, classes = features.numpy(), labels.numpy() - 5
    examples = Examples(classes, shuffled(classes, 6, 3))
    one = binned_information(table, EqualWidth(float(table.min()), float(table.max()), 30), examples)
    assert value(found, "information_x") == one.x
    assert value(found, "information_y") == one.y.bits
    assert value(found, "information_y_debiased") == one.y.debiased
    assert value(found, "information_y_z") == one.y.z
    assert value(found, "singletons") == one.singletons
    assert value(found, "information_x_ceiling") == pytest.approx(math.log2(300))
    assert value(found, "information_y_ceiling") == pytest.approx(math.log2(3))
    equal = binned_information(table, Edges.equal_count(np.sort(table, axis=None), 30), examples)
    assert value(found, "quantile_x") == equal.x
    sweep = found["sweep_x"]
    assert sweep.dims == ("rule", "bins")
    assert sweep.coords["bins"] == (10, 16, 26, 30, 43, 70, 113, 185, 300)
    assert sweep.values[0, 3] == one.x
    assert sweep.values[1, 3] == equal.x
    assert value(found, "information_x_low") == sweep.values[0].min() <= one.x
    assert value(found, "information_x_high") == sweep.values[0].max() >= one.x


def test_drawn_noise_lies_between_the_kernel_bounds():
    labels = torch.arange(300) % 3
    found = measure(gaussian() + labels[:, None], labels, {"draws": 300})
    for name in ("noisy_x", "noisy_y"):
        drawn, error, low, high = (found[f"{name}{end}"].values for end in ("", "_error", "_low", "_high"))
        assert found[name].coords["noise"] == ("relative 0.01", "relative 0.1", "relative 1", "absolute 0.001")
        assert (drawn >= low - 4 * error - 1e-4).all()
        assert (drawn <= high + 4 * error + 1e-4).all()
    assert (found["noisy_x_high"].values <= math.log2(300) + 1e-9).all()


def test_a_gaussian_channel_is_within_the_stated_interval():
    """One unit, 1,000 examples: the closed form lies between the kernel bounds and near the drawn value."""
    found = measure(gaussian(1000, 1), None)
    for place, noise in enumerate((0.01, 0.1, 1.0)):
        truth = gaussian_channel(1.0, noise)
        assert found["noisy_x_low"].values[place] < truth < found["noisy_x_high"].values[place]
        assert abs(found["noisy_x"].values[place] - truth) < 4 * found["noisy_x_error"].values[place] + 0.1


def test_labels_that_mean_nothing():
    """Debiased information within the null on noise, in most of the draws; nearest neighbours scatter around 0."""
    found = [measure(gaussian(500, 1, s), torch.randint(0, 4, (500,), generator=generator(s + 50))) for s in range(12)]
    z = np.array([value(one, "information_y_z") for one in found])
    assert abs(z.mean()) < 4 / math.sqrt(12)
    assert abs(np.mean([value(one, "information_y_debiased") for one in found])) < 0.03
    assert abs(np.mean([value(one, "neighbour_y") for one in found])) < 0.05
    assert np.mean([value(one, "information_y") for one in found]) > 0.05


def test_labels_that_are_told():
    labels = torch.arange(400) % 4
    found = measure(labels[:, None].float() + 0.02 * gaussian(400, 1), labels, {"draws": 400})
    assert value(found, "information_y_debiased") > 1.5
    assert value(found, "information_y_z") > 20
    assert value(found, "neighbour_y") == pytest.approx(2.0, abs=0.05)
    assert value(found, "neighbour_status") == 0
    assert found["noisy_y"].values[0] == pytest.approx(2.0, abs=0.1)
    assert value(found, "between_distance") > 5 * value(found, "within_distance")


def test_noise_sees_labels_where_bins_are_at_their_ceiling():
    """A wide layer: every example has a cell of its own, and noise as wide as the units still tells the classes apart."""
    labels = torch.arange(400) % 2
    told = measure(gaussian(400, 20) + 1.5 * labels[:, None], labels)
    noise = measure(gaussian(400, 20), labels)
    for found in (told, noise):
        assert value(found, "uninformative") == 1
        assert found["noisy_uninformative"].values.tolist() == [1, 1, 0, 1]
    assert value(told, "label_z") > 5
    assert abs(value(noise, "label_z")) < 4
    assert value(noise, "label_z") == noise["noisy_y_z"].values[2]
    assert noise["noisy_y"].values[2] == pytest.approx(noise["noisy_y_null"].values[2], abs=0.1)
    findings = list(Information(noise_z=4.0).judge(recorded([{"a": told, "b": noise}])))
    assert [(c, layer) for c, layer, _ in spoken(findings)] == [("IN001", None), ("IN002", "b")]
    findings = list(Information(noise_z=4.0).judge(recorded([{"a": noise, "b": told}])))
    assert [c for c, _, _ in spoken(findings)] == ["IN001"]


def test_where_nearest_neighbours_are_not_valid_there_is_no_number():
    labels = torch.arange(300) % 2
    for features, status in ((gaussian(300, 4), "too_wide"), (gaussian(300, 1).relu(), "repeated")):
        found = measure(features, labels)
        assert math.isnan(value(found, "neighbour_y"))
        meanings = found["neighbour_status"].attrs["flag_meanings"].split()
        assert meanings[int(value(found, "neighbour_status"))] == status


def test_a_rectifier_with_half_zeros():
    found = measure(gaussian(1000, 1).relu(), torch.arange(1000) % 2)
    assert value(found, "information_x") < 4
    # zeros share the first bin with at most a bin's worth of others; equal counts fill the rest
    zeros = int((gaussian(1000, 1) <= 0).sum())
    for first in (zeros, zeros + 34):
        share = first / 1000
        mixed = -(share * math.log2(share) + (1 - share) * math.log2(1 - share))
        assert value(found, "quantile_x") == pytest.approx(mixed + (1 - share) * math.log2(30 * (1 - share)), abs=0.2)
    assert value(found, "uninformative") == 0


# -- ceilings ------------------------------------------------------------------------------------------------------------


def test_a_wide_layer_says_nothing():
    found = measure(gaussian(200, 30), torch.arange(200) % 2)
    assert value(found, "uninformative") == 1
    assert value(found, "information_x") == pytest.approx(math.log2(200))
    assert value(found, "information_y") == pytest.approx(1.0)
    assert value(found, "information_y_debiased") == 0.0
    assert math.isnan(value(found, "information_y_z"))
    # so a report does not put bins in front, but noise, which has an answer for any layer
    assert {name for name, quantity in found.items() if "headline" in quantity.attrs} == {"noisy_y"}


def test_places_of_one_image():
    """Rows of one input: the ceiling is that of inputs, labels are shuffled by image, and what is not valid is left out."""
    ids = torch.arange(400) // 8
    labels = (ids % 2).clone()
    found = measure(gaussian(400, 2), labels, ids=ids)
    assert value(found, "information_x_ceiling") == pytest.approx(math.log2(50))
    assert value(found, "information_x") < math.log2(50)
    assert np.isnan(found["noisy_x_low"].values).all()
    assert np.isfinite(found["noisy_x"].values).all()
    assert (found["noisy_x"].values < math.log2(50)).all()
    assert math.isnan(value(found, "neighbour_y"))
    same = measure(gaussian(50, 2)[ids], labels, ids=ids)
    alone = measure(gaussian(50, 2), labels[::8])
    assert value(same, "information_x") == pytest.approx(value(alone, "information_x"), abs=1e-9)
    assert abs(value(same, "information_y_z")) < 3.5


# -- input that is not as one would like it ---------------------------------------------------------------------------------


def test_without_labels_everything_about_inputs_is_there():
    found = measure(gaussian(), None)
    assert {"information_x", "noisy_x", "quantile_x", "sweep_x"} <= found.keys()
    assert not [name for name in found if "_y" in name or "distance" in name]
    assert value(found, "classes") == 0


def test_bins_alone():
    """Neither kernels nor distances are asked for; the bins' numbers are the same."""
    labels, made = torch.arange(300) % 2, Information(variances=(), distances=False)
    assert made.requires == {Activations()}
    assert made.uses == {UnitCounts()}
    found, whole = made.measure_layer(View(gaussian(), labels)), measure(gaussian(), labels)
    assert value(found, "information_y_debiased") == value(whole, "information_y_debiased")
    assert not [name for name in found if "nois" in name or "kernel" in name or "distance" in name]
    assert {name for name in whole if name not in found} == {
        "noisy_x", "noisy_x_low", "noisy_x_high", "noisy_x_error", "noisy_y", "noisy_y_low", "noisy_y_high",
        "noisy_y_error", "kernel_y_upper", "kernel_y_lower", "noise_variance", "within_distance", "between_distance",
        "noisy_x_ceiling", "noisy_y_null", "noisy_y_null_sd", "noisy_y_z", "noisy_uninformative",
    }  # fmt: skip


def test_one_class():
    found = measure(gaussian(), torch.zeros(300, dtype=torch.int64))
    assert value(found, "information_y") == value(found, "information_y_ceiling") == 0.0
    assert math.isnan(value(found, "information_y_z"))
    assert math.isnan(value(found, "within_distance"))
    findings = list(Information().judge(recorded([{"fc": found}])))
    assert "IN002" not in [f.code for f in findings]


def test_one_class_holds_nearly_all():
    labels = (torch.arange(400) < 4).long()
    found = measure(gaussian(400, 1), labels)
    assert value(found, "information_y_ceiling") == pytest.approx(-(0.01 * math.log2(0.01) + 0.99 * math.log2(0.99)))
    assert value(found, "information_y") <= value(found, "information_y_ceiling")
    assert abs(value(found, "information_y_z")) < 5


def test_a_constant_layer():
    found = measure(torch.full((100, 3), 2.0), torch.arange(100) % 2)
    for name in ("information_x", "information_y", "information_y_debiased", "quantile_x", "fixed_x", "uninformative"):
        assert value(found, name) == 0.0
    assert found["noisy_x"].values == pytest.approx([0.0] * 4, abs=1e-6)
    findings = list(Information().judge(recorded([{"fc": found}])))
    assert spoken(findings) == [("IN002", "fc", Outcome.TIP)]
    assert "one cell" in findings[0].says


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_numbers_that_are_none(bad):
    features = gaussian()
    features[3, 1] = bad
    with pytest.raises(NotApplicable, match="1 of 600"):
        measure(features, None)


def test_one_example_and_none_of_units():
    with pytest.raises(NotApplicable, match="1 example"):
        measure(gaussian(1, 3), None)
    with pytest.raises(NotApplicable, match="0 numbers"):
        measure(gaussian(5, 0), None)
    two = measure(gaussian(2, 3), torch.tensor([0, 1]))
    assert value(two, "information_x") == pytest.approx(1.0)


@pytest.mark.parametrize("scale", [1e-20, 1e18])
def test_huge_and_tiny_numbers(scale):
    labels = torch.arange(300) % 3
    found, plain = measure(gaussian() * scale, labels), measure(gaussian(), labels)
    assert value(found, "information_x") == pytest.approx(value(plain, "information_x"), abs=0.05)
    assert found["noisy_x"].values[:3] == pytest.approx(plain["noisy_x"].values[:3], abs=1e-3)
    assert math.isnan(value(found, "fixed_x")) == (scale > 1)


def test_precision_changes_nothing():
    labels = torch.arange(300) % 3
    single, double = (measure(gaussian().to(dtype), labels) for dtype in (torch.float32, torch.float64))
    for name in single:
        assert np.allclose(single[name].values, double[name].values, atol=1e-4, equal_nan=True), name


def test_a_seed_gives_the_same_numbers_and_leaves_the_global_generators_alone():
    labels, before = torch.arange(300) % 3, (torch.get_rng_state(), np.random.get_state()[1].copy())
    first, second = (measure(gaussian(), labels) for _ in range(2))
    for name in first:
        assert np.array_equal(first[name].values, second[name].values, equal_nan=True)
    other = measure(gaussian(), labels, {"seed": 1})
    assert value(other, "information_x") == value(first, "information_x")
    assert value(other, "information_y_null") != value(first, "information_y_null")
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])


# -- range of the bins ---------------------------------------------------------------------------------------------------


def test_ranges():
    features, meanings = gaussian().tanh(), ("step", "activation", "given", "run")
    low, high = float(features.min()), float(features.max())
    for settings, view, expected in (
        ({}, {}, (low, high, "step")),
        ({"bin_range": "activation"}, {"activation": "tanh"}, (-1.0, 1.0, "activation")),
        ({"bin_range": "activation"}, {"activation": "sigmoid"}, (0.0, 1.0, "activation")),
        ({"bin_range": "activation"}, {"module": nn.Hardtanh(-2.0, 3.0)}, (-2.0, 3.0, "activation")),
        ({"bin_range": "activation"}, {"activation": "relu"}, (low, high, "step")),
        ({"bin_range": (-3.0, 2.0)}, {}, (-3.0, 2.0, "given")),
        ({"bin_range": "-3:2"}, {"activation": "tanh"}, (-3.0, 2.0, "given")),
        ({"ranges": (("fc", -4.0, 4.0),)}, {"activation": "tanh"}, (-4.0, 4.0, "run")),
        (
            {"ranges": (("fc", -4.0, 4.0),), "bin_range": "activation"},
            {"activation": "tanh"},
            (-1.0, 1.0, "activation"),
        ),
        ({"ranges": (("fc", -4.0, 4.0),), "bin_range": "activation"}, {"activation": "relu"}, (-4.0, 4.0, "run")),
        ({"ranges": (("other", -4.0, 4.0),)}, {}, (low, high, "step")),
    ):
        found = measure(features, None, settings, **view)
        place = meanings.index(expected[2])
        assert (value(found, "bin_low"), value(found, "bin_high"), value(found, "bin_range")) == (*expected[:2], place)
        assert found["bin_range"].attrs["flag_meanings"].split()[place] == expected[2]
        words = {"step": "step's own", "run": "over the run", "activation": "bounds", "given": "-3 to 2"}
        assert words[expected[2]] in found["information_x"].attrs["note"]


@pytest.mark.parametrize(
    "settings",
    [
        {"bin_range": "run"}, {"bin_range": (1.0, -1.0)}, {"bin_range": "1:b"}, {"bin_range": (0.0, math.nan)}, {"bin_range": (0.0, math.inf)}, {"bins": 1}, {"sweep": (10, 0)}, {"bin_width": 0.0},
        {"permutations": -1}, {"draws": 1},
    ],
)  # fmt: skip
def test_settings_that_make_no_sense(settings):
    with pytest.raises(SettingError, match="Information"):
        Information(**settings)


def test_a_record_is_judged_again_with_the_settings_it_was_made_with(tmp_path):
    made = Information(bin_range=(-1.0, 1.5), ranges=(("0", -2.0, 2.0),), permutations=4, draws=8)
    examine(nn.Linear(4, 2), (gaussian(60, 4), torch.arange(60) % 2), instruments=[made], to=tmp_path / "run").close()
    with Record.open(tmp_path / "run") as record:
        again = rejudge(record, Settings())
        assert [(f.code, f.says) for f in again] == [(f.code, f.says) for f in record.findings]
        strict = rejudge(record, Settings(instruments={"information": {"spill": 0.0}}))
    assert "IN004" in [f.code for f in strict if f.outcome is Outcome.TIP]


def test_layers_that_share_a_sample_share_what_follows_from_it():
    view = View(gaussian(), None)
    made = Information()
    first = made.measure_layer(view)["sweep_x"]
    view.layer = SimpleNamespace(name="block", activation=None, module=None)
    assert made.measure_layer(view)["sweep_x"] is first
    moved = Information(ranges=(("block", -9.0, 9.0),)).measure_layer(view)
    assert value(moved, "bin_high") == 9.0


def test_saturation_is_counted_over_all_examples():
    """The weights of a tanh layer decide how many of its activations have a slope of less than a tenth."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3), nn.ReLU())
    data = (gaussian(80, 5), torch.arange(80) % 3)
    shares = []
    for scale in (0.1, 100.0):
        with torch.no_grad():
            model[0].weight.normal_(generator=generator(1)).mul_(scale)
        group = examine(model, data, instruments=[Information(permutations=2, draws=0)])["information"]
        found = group["saturation"].isel(step=0, split=0)
        shares.append(float(found.sel(layer="1")))
        assert math.isnan(float(found.sel(layer="0")))
        assert 0 < float(found.sel(layer="3")) < 1
        assert bool(np.isnan(group["noisy_x"].isel(step=0, split=0)).all())
    assert shares[0] == 0.0
    assert shares[1] > 0.95


# -- findings ------------------------------------------------------------------------------------------------------------


def test_wide_layers_are_one_statement():
    wide = measure(gaussian(200, 30), torch.arange(200) % 2, {"variances": ()})
    findings = list(Information().judge(recorded([{"a": wide, "b": wide, "c": wide}])))
    assert spoken(findings) == [("IN001", None, Outcome.NOT_APPLICABLE)]
    assert findings[0].evidence["count"] == 3
    assert not findings[0].wants_action


def test_labels_within_the_null_are_told_and_others_pass():
    labels = torch.arange(400) % 2
    noise = measure(gaussian(400, 1), labels)
    told = measure(gaussian(400, 1) + 3 * labels[:, None], labels)
    findings = list(Information(noise_z=5.0).judge(recorded([{"atold": told, "noise": noise}])))
    assert spoken(findings) == [("IN002", "noise", Outcome.TIP)]
    assert findings[0].evidence["limit"] == 5.0
    passed = list(Information().judge(recorded([{"told": told}])))
    assert [(f.code, f.outcome) for f in passed] == [(c, Outcome.PASSED) for c in ("IN001", "IN002", "IN004")]
    without = measure(gaussian(400, 1), labels, {"permutations": 0})
    assert spoken(Information().judge(recorded([{"noise": without}]))) == [("IN002", None, Outcome.SKIPPED)]


def test_activations_outside_the_bins():
    found = measure(3 * gaussian(300, 2), None, {"bin_range": (-1.0, 1.0)})
    assert 0.5 < value(found, "outside") < 1
    findings = [f for f in Information().judge(recorded([{"fc": found}])) if f.code == "IN004"]
    assert [f.outcome for f in findings] == [Outcome.TIP]
    assert findings[0].evidence["outside"] == value(found, "outside")


def test_estimators_that_disagree():
    """Units driven into saturation while their values become more: bins of one width fall, those of equal counts rise."""
    drive, settings = gaussian(1000, 2), {"bin_range": "activation", "bins": 10}
    coarse, fine = (
        torch.tanh(0.5 * drive.round()),
        torch.tanh(8.0 * drive),
    )  # 7 values a unit, then 1,000 near the bounds
    steps = [{"tanh": measure(f, None, settings, activation="tanh")} for f in (coarse, coarse, fine)]
    findings = [f for f in Information(**settings).judge(recorded(steps)) if f.code == "IN003"]
    assert [(f.layer, f.step, f.outcome) for f in findings] == [("tanh", 2, Outcome.TIP)]
    told = findings[0].evidence
    assert told["change"] < -told["limit"]
    assert told["other_change"] > 1
    assert told["other"] == "bins of equal counts"
    assert "fell by" in findings[0].says
    assert "IN003" not in [f.code for f in Information(**settings).judge(recorded(steps[:2]))]


def test_estimators_that_agree_are_not_told_of():
    """Real clustering: all of them fall."""
    labels = torch.arange(600) % 3
    steps = [
        {"fc": measure(3.0 * labels[:, None] + spread * gaussian(600, 1), labels, {"bin_range": (-5.0, 11.0)})}
        for spread in (1.0, 0.3, 0.01)
    ]
    x = [value(layers["fc"], "information_x") for layers in steps]
    assert x[2] < x[0] - 1
    codes = {f.code: f.outcome for f in Information().judge(recorded(steps))}
    assert codes["IN003"] is Outcome.PASSED
