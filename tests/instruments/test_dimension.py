"""The instrument `dimension`: its numbers, known answers, noise, findings."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from stratoscope.capture.activations import Activations, Sample
from stratoscope.capture.pairs import Neighbours
from stratoscope.errors import NotApplicable
from stratoscope.findings import Outcome
from stratoscope.instruments.dimension import Dimension
from stratoscope.numerics.covariance_spectrum import (
    covariance_spectrum,
    participation_ratio,
    power_law_decay,
    rank_me,
    unbiased_participation_ratio,
)
from stratoscope.numerics.intrinsic_dimension import levina_bickel, two_nn
from stratoscope.numerics.neighbours import nearest_neighbours


def gaussian(n, d, seed, dtype=torch.float32):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=dtype)


class View:
    """One layer with its sample and the neighbours in it."""

    def __init__(self, features):
        self.layer = SimpleNamespace(name="fc")
        self._sample = Sample(features, None, torch.arange(len(features)), features.shape[1], "as is")

    def __getitem__(self, need):
        if isinstance(need, Activations):
            return self._sample
        assert isinstance(need, Neighbours)
        return nearest_neighbours(self._sample.features, min(need.k, len(self._sample.features) - 1))


def measure(features, **settings):
    return Dimension(**settings).measure_layer(View(features))


def value(measured, name):
    return float(measured[name].values)


def judged(saved, layers, steps=None, **settings):
    rows = {}
    for layer, measured in layers.items():
        for name, found in measured.items():
            rows.setdefault((steps or {}).get(layer, 0), {}).setdefault(name, {})[layer] = found
    return list(Dimension(**settings).judge(_group(saved, rows)))


def _group(saved, rows):
    from stratoscope.record.quantity import Quantity

    table = {}
    for step, by_name in rows.items():
        found = {}
        for name, by_layer in by_name.items():
            one = next(iter(by_layer.values()))
            values = np.stack([np.asarray(q.values) for q in by_layer.values()])
            coords = {"layer": tuple(by_layer), **dict(one.coords)}
            found[name] = Quantity(values, ("layer", *one.dims), coords, one.attrs)
        table[step, "test"] = found
    return saved("dimension", table)


def spoken(findings):
    return [(f.code, f.layer) for f in findings if f.outcome is not Outcome.PASSED]


def test_variables_are_the_numbers_of_the_mathematics():
    features = gaussian(300, 30, 0) * torch.arange(1, 31) ** -0.5 + 1
    measured, spectrum = measure(features), covariance_spectrum(features)
    near = nearest_neighbours(features, 20)
    fit = two_nn(near.distances[:, :2], near.index[:, :2])
    decay, unbiased = power_law_decay(spectrum), unbiased_participation_ratio(spectrum)
    expected = {
        "twonn": fit.fit.value, "twonn_se": fit.fit.standard_error, "twonn_mle": fit.likelihood.value,
        "lid": levina_bickel(near.distances, near.index).value,
        "participation_ratio": participation_ratio(spectrum.eigenvalues),
        "participation_ratio_unbiased": unbiased.value, "participation_ratio_unbiased_se": unbiased.standard_error,
        "rankme": rank_me(spectrum.raw), "rankme_centred": rank_me(spectrum.eigenvalues.sqrt()), "rankme_ceiling": 30,
        "alpha": decay.alpha, "alpha_se": decay.standard_error, "alpha_first": 3, "alpha_last": 15,
        "rank": 30, "twonn_ceiling": 30, "n": 300, "width": 30, "duplicates": 0,
    }  # fmt: skip
    for name, number in expected.items():
        assert value(measured, name) == pytest.approx(number, rel=1e-6), name
    assert value(measured, "saturation") == value(measured, "directions") / 30
    assert measured["twonn_by_cut"].labels("cut") == (1, 2, 4)
    assert measured["twonn_by_cut"].values[0] == value(measured, "twonn")
    ratio = measured["twonn_by_cut"].values[0] / measured["twonn_by_cut"].values[2]
    assert value(measured, "scale_ratio") == pytest.approx(ratio)
    assert all(q.attrs["units"] == "1" and q.attrs["long_name"] for q in measured.values())
    assert measured["twonn"].attrs["note"] == "as is"


def test_settings_reach_the_needs():
    plain = Activations(n=1000, width=4096, pooling="gap")
    assert Dimension().requires == {plain, Neighbours(plain, k=20)}
    own = Activations(n=50, width=8, pooling="flatten")
    assert Dimension(n=50, width=8, pooling="flatten", k=5).requires == {own, Neighbours(own, k=5)}


def test_noise_reads_as_its_null_at_every_width():
    flags = [value(measure(gaussian(400, d, seed)), "uninformative") for d in (1, 2, 10, 60) for seed in range(6)]
    assert sum(flags) >= len(flags) - 3


def test_a_folded_set_is_below_its_null_and_below_the_straight_directions():
    curve = torch.rand(500, 2, generator=torch.Generator().manual_seed(0))
    features = torch.cat([(6 * k * curve).sin() for k in range(1, 6)], 1)
    measured = measure(features)
    assert value(measured, "twonn") == pytest.approx(2, rel=0.2)
    assert value(measured, "twonn_null") > 2 * value(measured, "twonn")
    assert value(measured, "uninformative") == 0
    assert value(measured, "twonn") < value(measured, "participation_ratio") < value(measured, "twonn_ceiling") == 10


def test_bounds_hold():
    for seed in range(5):
        measured = measure(gaussian(60, 25, seed) @ gaussian(25, 40, seed + 1))
        rank = value(measured, "rank")
        assert rank == 25
        for name in ("participation_ratio", "rankme_centred", "directions"):
            assert 1 <= value(measured, name) <= rank
        assert value(measured, "rankme") <= value(measured, "rankme_ceiling") == 40
        assert 0 < value(measured, "saturation") <= 1


@pytest.mark.parametrize("n", [20, 30])
def test_one_unit_and_few_examples(n):
    measured = measure(gaussian(n, 1, 0))
    assert value(measured, "directions") == value(measured, "rank") == value(measured, "saturation") == 1
    assert value(measured, "participation_ratio") == pytest.approx(1)
    assert math.isnan(value(measured, "alpha"))
    assert value(measured, "twonn") > 0
    assert math.isnan(measured["twonn_by_cut"].values[2])


def test_more_units_than_examples():
    measured = measure(gaussian(50, 200, 1))
    assert value(measured, "rank") == 49
    assert value(measured, "participation_ratio_unbiased") == pytest.approx(200, rel=0.2)
    assert value(measured, "participation_ratio") < 45


def test_duplicates_are_counted_once():
    features = gaussian(200, 4, 2)
    alone, doubled = measure(features), measure(torch.cat([features, features[:50]]))
    assert value(doubled, "duplicates") == 50
    assert value(doubled, "twonn") == pytest.approx(value(alone, "twonn"), rel=1e-4)
    assert value(doubled, "lid") == pytest.approx(value(alone, "lid"), rel=0.1)


def test_a_few_places_only_have_no_local_dimension():
    measured = measure(torch.eye(3).repeat(40, 1))
    assert value(measured, "duplicates") == 117
    assert math.isnan(value(measured, "twonn"))
    assert math.isnan(value(measured, "lid"))
    assert value(measured, "uninformative") == 1
    assert value(measured, "rank") == 2


@pytest.mark.parametrize(
    ("features", "words"),
    [
        (torch.ones(40, 3), "the same for every example"),
        (torch.zeros(40, 3), "the same for every example"),
        (gaussian(19, 3, 0), "19 examples are too few"),
        (torch.full((40, 3), math.nan), "120 of 120 numbers that it gives are NaN or infinite"),
    ],
)
def test_what_has_no_dimension_says_why(features, words):
    with pytest.raises(NotApplicable, match=words):
        measure(features)


def test_float32_and_float64_agree():
    features = gaussian(150, 20, 3) + 1
    one, other = measure(features), measure(features.double())
    for name, found in one.items():
        np.testing.assert_allclose(found.values, other[name].values, rtol=1e-4, err_msg=name)


def test_a_ceiling_far_above_does_not_press_the_numbers_flat():
    found = measure(gaussian(150, 2, 3) @ gaussian(2, 100, 4))
    assert value(found, "rankme_ceiling") > 30 * value(found, "rankme")
    assert [found[name].attrs["scale"] for name in ("twonn", "rankme")] == ["log", "log"]


def test_seeds_move_only_what_is_drawn():
    features = gaussian(150, 6, 4)
    one, same, other = (measure(features, seed=s) for s in (0, 0, 1))
    assert value(one, "twonn") == value(other, "twonn")
    assert value(one, "twonn_null") == value(same, "twonn_null") != value(other, "twonn_null")


def test_dm001_few_directions_of_a_wide_layer(saved):
    narrow = measure(gaussian(200, 2, 5) @ gaussian(2, 60, 6))
    found = judged(saved, {"wide": narrow, "other": measure(gaussian(200, 60, 7))})
    assert spoken(found) == [("DM001", "wide")]
    evidence = next(f for f in found if f.code == "DM001").evidence
    assert (evidence["directions"], evidence["width"], evidence["limit"]) == (2, 60, 0.05)
    assert judged(saved, {"wide": narrow}, low=0.01)[0].outcome is Outcome.PASSED


def test_dm002_a_curve_under_noise(saved):
    angle = 6.28 * torch.rand(1000, generator=torch.Generator().manual_seed(8))
    curve = torch.stack([angle.cos(), angle.sin()], 1)
    noisy = torch.cat([curve, torch.zeros(1000, 6)], 1) + 0.01 * gaussian(1000, 8, 9)
    smooth = measure(curve)
    found = judged(saved, {"noisy": measure(noisy), "smooth": smooth})
    assert spoken(found) == [("DM002", "noisy")]
    evidence = next(f for f in found if f.code == "DM002").evidence
    assert evidence["ratio"] >= evidence["limit"] == 1.5
    assert evidence["ratio"] - 1 > 3 * evidence["standard_error"]


def test_dm003_fewer_examples_than_units(saved):
    found = judged(saved, {"wide": measure(gaussian(50, 80, 10)), "fc": measure(gaussian(50, 5, 11))})
    assert spoken(found) == [("DM003", None)]
    finding = next(f for f in found if f.code == "DM003")
    assert finding.outcome is Outcome.SKIPPED
    assert (finding.evidence["width"], finding.evidence["n"], finding.evidence["layers"]) == (80, 50, "wide")


def test_dm004_equal_outputs(saved):
    features = gaussian(100, 5, 12)
    features[60:] = features[:40]
    found = judged(saved, {"dead": measure(features), "fc": measure(gaussian(100, 5, 13))})
    assert spoken(found) == [("DM004", "dead")]
    assert next(f for f in found if f.code == "DM004").evidence["share"] == 0.4


def test_noise_gets_no_advice(saved):
    layers = {f"l{seed}": measure(gaussian(400, d, seed)) for seed, d in enumerate((2, 8, 30, 60, 120))}
    found = judged(saved, layers)
    assert spoken(found) == []
    assert {f.code for f in found} == set(Dimension.codes)


def test_the_network_is_not_said_again_where_it_gives_what_a_layer_gives(saved):
    last = measure(gaussian(200, 2, 5) @ gaussian(2, 60, 6))
    assert spoken(judged(saved, {"fc": last, "(root)": last})) == [("DM001", "fc")]
    other = measure(gaussian(200, 2, 6) @ gaussian(2, 60, 6))
    (both,) = [f for f in judged(saved, {"fc": last, "(root)": other}) if f.outcome is Outcome.TIP]
    assert (both.code, both.layer) == ("DM001", None)
    # one fact and not one a layer
    assert (both.evidence["count"], both.evidence["layers"]) == (2, "fc, (root)")
