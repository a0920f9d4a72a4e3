"""Linear probes on held-out examples: a plain loop, no leak, known answers, and noise."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stratoscope.numerics import linear_probe
from stratoscope.numerics.linear_probe import Sought, class_probe, cross_fitted, reconstruction, stratified
from stratoscope.numerics.ridge import Basis, ridge


def gaussian(n, d, seed, dtype=torch.float64):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def blobs(n, width, classes, seed, apart=1.0):
    labels = torch.arange(n) % classes
    return apart * gaussian(classes, width, 99)[labels] + gaussian(n, width, seed), labels


def probe(features, labels, folds=2, **settings):
    group = torch.arange(len(labels))
    return class_probe(cross_fitted(features, stratified(labels, group, folds, seed=0)), labels, group, **settings)


def decode(features, targets, folds=2, group=None, **settings):
    group = torch.arange(len(targets)) if group is None else group
    parts = cross_fitted(features, stratified(torch.zeros_like(group), group, folds, seed=0))
    return reconstruction(parts, [Sought.of(targets, p.train, p.test) for p in parts], group, **settings)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**31), folds=st.integers(2, 5))
def test_folds_are_even_within_classes_and_keep_groups_together(seed, folds):
    generator = torch.Generator().manual_seed(seed)
    own = torch.randint(-1, 3, (40,), generator=generator)
    group = torch.cat([torch.arange(40), torch.randint(0, 40, (60,), generator=generator)])
    fold = stratified(own[group], group, folds, seed=seed)
    of_group = fold[:40]
    assert torch.equal(fold, of_group[group])
    assert bool(((own < 0) == (of_group < 0)).all())
    sizes = of_group[own >= 0].bincount(minlength=folds)
    assert int(sizes.max() - sizes.min()) <= 1
    for label in range(3):
        sizes = of_group[own == label].bincount(minlength=folds)
        assert int(sizes.max() - sizes.min()) <= 1


@pytest.mark.parametrize("folds", [1, 4])
def test_there_are_at_least_two_folds_and_an_example_in_each(folds):
    with pytest.raises(ValueError, match="cannot be dealt out"):
        stratified(torch.tensor([0, 0, -1, 0]), torch.arange(4), folds, seed=0)


def test_the_probe_is_the_plain_loop_over_folds():
    features, labels = blobs(60, 5, 3, 0)
    fold = stratified(labels, torch.arange(60), 3, seed=0)
    hits, error, total = 0, 0.0, 0.0
    for k in range(3):
        train, test = fold != k, fold == k
        hot = torch.nn.functional.one_hot(labels, 3).double()
        said = ridge(Basis.of(features[train]), hot[train]).predict(features[test])
        hits += int((said.argmax(1) == labels[test]).sum())
        error += float((hot[test] - said).square().sum())
        total += float((hot[test] - hot[train].mean(0)).square().sum())
    found = probe(features, labels, folds=3)
    assert found.accuracy.share == pytest.approx(hits / 60)
    assert found.r2 == pytest.approx(1 - error / total)
    assert found.n_train == 40


def test_what_is_predicted_has_no_part_in_what_it_is_predicted_by():
    """Absurd values in one test row change nothing for the others: neither scales nor weights saw it."""
    features, labels = blobs(40, 4, 2, 1)
    fold = stratified(labels, torch.arange(40), 2, seed=0)
    row = int((fold == 0).nonzero()[0, 0])
    spoilt = features.clone()
    spoilt[row] = 1e9
    for one, other in zip(cross_fitted(features, fold), cross_fitted(spoilt, fold), strict=True):
        if row in one.test.tolist():
            rest = one.test != row
            for mine, theirs in (
                (one.basis.mean, other.basis.mean),
                (one.basis.scale, other.basis.scale),
                (one.coordinates[rest], other.coordinates[rest]),
            ):
                torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 2**31))
def test_shift_and_scale_of_units_change_nothing(seed):
    features, labels = blobs(60, 4, 3, seed)
    moved = features * gaussian(1, 4, seed + 1).exp() + gaussian(1, 4, seed + 2)
    one, other = probe(features, labels), probe(moved, labels)
    assert other.accuracy.share == one.accuracy.share
    assert other.r2 == pytest.approx(one.r2, rel=1e-6, abs=1e-9)
    assert other.accuracy.null_mean == one.accuracy.null_mean


def test_clear_classes_are_read_and_noise_is_not():
    clear = probe(*blobs(200, 10, 4, 2, apart=5.0))
    assert clear.accuracy.share == 1.0
    assert clear.r2 > 0.8
    reads = [probe(gaussian(200, 10, seed), torch.arange(200) % 4, permutations=20) for seed in range(8)]
    assert sum(found.accuracy.low > found.accuracy.majority for found in reads) <= 1
    assert np.mean([found.accuracy.share for found in reads]) == pytest.approx(0.25, abs=0.04)
    assert all(found.r2 < 0.05 for found in reads)
    for found in reads:
        assert abs(found.accuracy.share - found.accuracy.null_mean) < 4 * found.accuracy.null_sd
        assert found.accuracy.null_mean == pytest.approx(0.25, abs=0.04)


def test_noise_reads_what_shuffled_labels_read():
    """Few examples, many units: where folds are not of equal classes, noise is read below chance."""
    reads = [
        probe(gaussian(90, 8, seed), torch.arange(90) % 3, folds=5, permutations=20).accuracy for seed in range(12)
    ]
    difference = torch.tensor([found.share - found.null_mean for found in reads])
    assert float(difference.mean().abs()) < 4 * float(difference.std()) / math.sqrt(len(reads))
    assert np.mean([found.null_mean for found in reads]) == pytest.approx(1 / 3, abs=0.02)


def test_unequal_classes_without_signal_read_the_majority_and_balanced_chance():
    labels = (torch.arange(300) % 10 == 0).long()
    found = probe(gaussian(300, 3, 3), labels)
    assert found.accuracy.share == pytest.approx(0.9, abs=0.01)
    assert found.accuracy.majority == 0.9
    assert found.accuracy.balanced == pytest.approx(0.5, abs=0.05)


def test_a_single_class_is_always_right_and_explains_nothing():
    found = probe(gaussian(20, 3, 4), torch.zeros(20, dtype=torch.int64))
    assert found.accuracy.share == found.accuracy.null_mean == 1.0
    assert math.isnan(found.r2)


def test_constant_features_say_the_commonest_class():
    labels = torch.tensor([0] * 30 + [1] * 20)
    found = probe(torch.full((50, 4), 0.3), labels)
    assert found.accuracy.share == found.accuracy.majority == 0.6
    assert found.degrees == 1
    assert found.r2 == pytest.approx(0, abs=1e-9)


def test_more_units_than_examples():
    found = probe(*blobs(60, 500, 3, 4))
    assert found.accuracy.share == 1.0
    assert found.degrees <= 30


def test_a_class_of_one_example_is_left_out():
    features, labels = blobs(41, 6, 4, 5, apart=4.0)
    labels = torch.where(torch.arange(41) == 40, -1, labels)
    assert probe(features, labels).accuracy.n == 40


def test_pictures_with_several_rows_are_not_on_both_sides():
    """Each picture has a random mark of its own in all its rows; a probe that saw half of them would know the other."""
    group = torch.arange(240) // 8
    labels = (group * 7 % 30 < 15).long()
    features = gaussian(30, 40, 6)[group] + 0.01 * gaussian(240, 40, 7)
    found = class_probe(cross_fitted(features, stratified(labels, group, 2, seed=0)), labels, group)
    assert found.accuracy.share < 0.75
    assert (found.accuracy.n, found.accuracy.examples) == (240, 30)
    assert probe(features, labels).accuracy.share > 0.95


def test_many_classes_are_shuffled_less_often(monkeypatch):
    features, labels = blobs(40, 4, 4, 8)
    monkeypatch.setattr(linear_probe, "MOST_COLUMNS", 12)
    assert math.isfinite(probe(features, labels).accuracy.null_sd)
    monkeypatch.setattr(linear_probe, "MOST_COLUMNS", 4)
    assert math.isnan(probe(features, labels).accuracy.null_mean)


def test_the_same_seed_gives_the_same_shuffles():
    features, labels = blobs(60, 3, 3, 9)
    one, same, other = (probe(features, labels, seed=s) for s in (1, 1, 2))
    assert one == same
    assert one.accuracy.share == other.accuracy.share
    assert one.accuracy.null_mean != other.accuracy.null_mean


def test_a_linear_map_of_the_features_is_decoded_and_noise_is_not():
    features = gaussian(200, 6, 10)
    exact = decode(features, features @ gaussian(6, 30, 11) + 5)
    assert exact.r2 == pytest.approx(1, abs=1e-6)
    noise = decode(features, gaussian(200, 30, 12))
    assert noise.r2 == pytest.approx(0, abs=0.02)
    assert noise.error == pytest.approx(noise.floor, rel=0.02)
    assert noise.floor == pytest.approx(1, rel=0.1)


def test_half_of_the_variance_is_half_and_its_error_is_the_scatter():
    values, errors = [], []
    for seed in range(60):
        features = gaussian(100, 3, seed)
        found = decode(features, features @ torch.eye(3, 8).double() + gaussian(100, 8, seed + 1000) * 0.6)
        values.append(found.r2)
        errors.append(found.standard_error)
    expected = 1 - 8 * 0.36 / (3 + 8 * 0.36)
    assert np.mean(values) == pytest.approx(expected, abs=0.03)
    assert 0.6 < np.mean(errors) / np.std(values) < 1.4


def test_the_decoder_is_the_plain_loop_and_a_rotation_of_targets_changes_nothing():
    features, targets = gaussian(50, 4, 13), gaussian(50, 6, 14)
    targets[:, 0] += features[:, 0]
    fold = stratified(torch.zeros(50, dtype=torch.int64), torch.arange(50), 2, seed=0)
    error = total = fitted = known = 0.0
    for k in range(2):
        train, test = fold != k, fold == k
        fit = ridge(Basis.of(features[train]), targets[train])
        error += float((targets[test] - fit.predict(features[test])).square().sum())
        total += float((targets[test] - targets[train].mean(0)).square().sum())
        fitted += float((targets[train] - fit.predict(features[train])).square().sum())
        known += float((targets[train] - targets[train].mean(0)).square().sum())
    found = decode(features, targets)
    assert found.r2 == pytest.approx(1 - error / total)
    assert found.fitted_r2 == pytest.approx(1 - fitted / known)
    assert (found.error, found.floor) == pytest.approx((error / 300, total / 300))
    turned = decode(features, targets @ torch.linalg.qr(gaussian(6, 6, 15)).Q)
    assert turned.r2 == pytest.approx(found.r2)
    assert decode(features, targets, numbers=60).error == pytest.approx(found.error / 10)


def test_constant_targets_have_no_share():
    found = decode(gaussian(20, 3, 16), torch.ones(20, 4))
    assert math.isnan(found.r2)
    assert math.isnan(found.fitted_r2)


def test_scales_of_units_are_kept_if_wanted():
    features = gaussian(60, 4, 19)
    fold = stratified(torch.zeros(60, dtype=torch.int64), torch.arange(60), 2, seed=0)
    for part in cross_fitted(features, fold, standardise=False):
        torch.testing.assert_close(part.basis.rows, features[part.train] - features[part.train].mean(0))


def test_float32_and_float64_agree():
    features, labels = blobs(200, 8, 4, 17, apart=0.5)
    one, other = probe(features.float(), labels), probe(features, labels)
    assert one.accuracy.share == pytest.approx(other.accuracy.share, abs=0.011)
    assert one.r2 == pytest.approx(other.r2, rel=1e-4)
    targets = gaussian(200, 5, 18) + features[:, :5]
    assert decode(features.float(), targets.float()).r2 == pytest.approx(decode(features, targets).r2, rel=1e-4)
