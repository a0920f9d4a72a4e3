"""GDV: theorems, a naive twin, floors, noise and precision."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from stratoscope.numerics import distances, separation
from stratoscope.numerics.separation import gdv, gdv_floor

SEEDS = st.integers(0, 2**31)


def gaussian(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def balanced(n, classes):
    return torch.arange(n) % classes


def clusters(n=60, width=5, classes=3, seed=0, spread=1.0):
    labels = balanced(n, classes)
    return gaussian(classes, width, seed=seed)[labels] + spread * gaussian(n, width, seed=seed + 1), labels


def naive(features, labels):
    """The definition, one class and one pair of classes at a time."""
    s, labels = features.double().numpy(), labels.numpy()
    deviation = s.std(axis=0)
    z = np.where(deviation > 0, 0.5 * (s - s.mean(axis=0)) / np.where(deviation > 0, deviation, 1), 0)
    names = np.unique(labels)
    intra = []
    for c in names:
        d = cdist(z[labels == c], z[labels == c])
        intra.append(d.sum() / (len(d) * (len(d) - 1)))
    inter = [cdist(z[labels == a], z[labels == b]).mean() for i, a in enumerate(names) for b in names[i + 1 :]]
    root = math.sqrt(s.shape[1])
    return (np.mean(intra) - np.mean(inter)) / root, np.array(intra) / root


@given(seed=SEEDS, classes=st.integers(2, 5), width=st.integers(1, 6))
@settings(deadline=None, max_examples=25)
def test_equals_its_naive_twin(seed, classes, width):
    labels = torch.randint(0, classes, (40,), generator=torch.Generator().manual_seed(seed))
    labels[: 2 * classes] = balanced(2 * classes, classes)
    features = gaussian(40, width, seed=seed) + labels[:, None]
    value, intra = naive(features, labels)
    result = gdv(features, labels)
    assert result.gdv == pytest.approx(value, rel=1e-9, abs=1e-12)
    np.testing.assert_allclose(result.intra, intra, rtol=1e-9)
    assert gdv(features.float(), labels).gdv == pytest.approx(value, rel=1e-4, abs=1e-6)


def test_blocks_do_not_change_it(monkeypatch):
    features, labels = clusters()
    whole = gdv(features, labels)
    monkeypatch.setattr(distances, "_BLOCK_ROWS", 7)
    cut = gdv(features, labels)
    for name in ("gdv", "standard_error", "null_mean", "null_sd", "z", "p_value", "intra"):
        np.testing.assert_allclose(getattr(cut, name), getattr(whole, name), rtol=1e-9)


@pytest.mark.parametrize("together", [1, 40, 2**20])
@pytest.mark.parametrize("sizes", [(2, 2, 2, 2, 30), (17, 9, 8, 5, 4, 2, 2), (3,) * 12])
def test_classes_laid_side_by_side_are_as_one_by_one(monkeypatch, sizes, together):
    monkeypatch.setattr(separation, "TOGETHER", together)
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
    features = gaussian(len(labels), 4)
    value, intra = naive(features, labels)
    result = gdv(features, labels)
    assert result.gdv == pytest.approx(value, rel=1e-9, abs=1e-12)
    np.testing.assert_allclose(result.intra, intra, rtol=1e-9)


@pytest.mark.parametrize("bags", [1, 7, 1024])
def test_the_null_is_that_of_the_shuffled_labels(monkeypatch, bags):
    monkeypatch.setattr(distances, "_BAGS", bags)
    features, labels = clusters(classes=4)
    values = [naive(features, table)[0] for table in separation._shuffles(labels, 6, 3)]
    result = gdv(features, labels, permutations=6, seed=3)
    assert result.null_mean == pytest.approx(np.mean(values), rel=1e-9)
    assert result.null_sd == pytest.approx(np.std(values, ddof=1), rel=1e-9)
    assert result.p_value == (1 + sum(value <= result.gdv for value in values)) / 7


@given(seed=SEEDS)
@settings(deadline=None, max_examples=25)
def test_shift_scale_order_and_duplication_of_units_change_nothing(seed):
    features, labels = clusters(seed=seed)
    value = gdv(features, labels).gdv
    scale = torch.exp(3 * gaussian(5, seed=seed))
    order = torch.randperm(5, generator=torch.Generator().manual_seed(seed))
    flip = torch.tensor([1, -1, 1, -1, 1])
    for other in (features * scale * flip + 10 * gaussian(5, seed=seed), features[:, order], features.repeat(1, 3)):
        assert gdv(other, labels).gdv == pytest.approx(value, rel=1e-9)


@given(seed=SEEDS)
@settings(deadline=None, max_examples=10)
def test_order_of_examples_and_names_of_classes_change_nothing(seed):
    features, labels = clusters(seed=seed)
    result = gdv(features, labels)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    assert gdv(features[order], labels[order]).gdv == pytest.approx(result.gdv, rel=1e-9)
    renamed = gdv(features, 7 - 5 * labels)
    assert renamed.gdv == pytest.approx(result.gdv, rel=1e-9)
    assert renamed.classes == (-3, 2, 7)
    np.testing.assert_allclose(renamed.intra[::-1], result.intra, rtol=1e-9)


def test_rotation_does_change_it():
    features, labels = clusters()
    features = features * torch.tensor([1.0, 1, 1, 1, 30])
    turn = torch.linalg.qr(gaussian(5, 5)).Q
    assert abs(gdv(features @ turn, labels).gdv - gdv(features, labels).gdv) > 0.01


@pytest.mark.parametrize(
    ("counts", "floor"),
    [((50, 50), -1.0), ((20,) * 3, -0.8660), ((9,) * 10, -0.7454), ((30, 70), -1.0911), ((10, 90), -1.6667)],
)
def test_collapsed_classes_reach_the_floor(counts, floor):
    counts = torch.tensor(counts)
    labels = torch.repeat_interleave(torch.arange(len(counts)), counts)
    # for equal sizes the classes' indicators are symmetric under every exchange; for two classes any direction will do
    result = gdv(torch.eye(len(counts))[labels], labels)
    assert result.floor == pytest.approx(floor, abs=1e-4)
    assert result.gdv == pytest.approx(result.floor, rel=1e-6)
    assert result.fraction == pytest.approx(1, rel=1e-6)
    assert result.intra == (0.0,) * len(counts)


@pytest.mark.parametrize("counts", [(4, 4), (2, 8), (3, 3, 3), (2, 3, 5), (2, 2, 2, 6)])
def test_an_adversary_does_not_get_below_the_floor(counts):
    counts = torch.tensor(counts)
    labels = torch.repeat_interleave(torch.arange(len(counts)), counts)
    same = labels[:, None] == labels
    size = counts[labels].double()
    within = torch.where(same, 1 / (size * (size - 1) * len(counts))[:, None], 0).fill_diagonal_(0)
    across = torch.where(same, 0, 1 / (size[:, None] * size * len(counts) * (len(counts) - 1)))
    floor, best = gdv_floor(counts, 3, 3), 0.0
    for seed in range(4):
        features = gaussian(len(labels), 3, seed=seed).requires_grad_()
        climber = torch.optim.Adam([features], lr=0.03)
        for _ in range(250):
            z = 0.5 * (features - features.mean(0)) / features.std(0, correction=0)
            apart = (z[:, None] - z).square().sum(-1).add(1e-16).sqrt()
            value = ((within - across) * apart).sum() / math.sqrt(3)
            climber.zero_grad()
            value.backward()
            climber.step()
            best = min(best, value.item())
    assert floor - 1e-6 <= best
    assert best < 0.85 * floor  # the search was a serious one


def test_constant_units_are_zero_but_count():
    features, labels = clusters(width=4)
    value = gdv(features, labels)
    padded = torch.cat([features, torch.full((60, 4), 123.456, dtype=torch.float64)], 1)
    result = gdv(padded, labels)
    assert (result.units, result.active_units) == (8, 4)
    assert result.gdv == pytest.approx(value.gdv / math.sqrt(2), rel=1e-9)
    assert result.fraction == pytest.approx(value.fraction, rel=1e-9)


def test_constant_means_up_to_rounding_relative_to_the_size():
    features, labels = clusters(width=2)
    noise = torch.tensor([1e3, 1e-9]) * (1 + 1e-7 * gaussian(60, 2, dtype=torch.float32))
    result = gdv(torch.cat([features.float(), noise], 1), labels)
    assert result.active_units == 2
    tiny = gdv(1e-20 * features.float(), labels)
    assert tiny.active_units == 2
    assert tiny.gdv == pytest.approx(gdv(features, labels).gdv, rel=1e-5)


def test_all_units_constant_says_nothing():
    result = gdv(torch.ones(10, 3), balanced(10, 2))
    assert result.gdv == 0
    assert math.isnan(result.fraction)
    assert math.isnan(result.z)


def test_a_class_of_one_is_left_out_and_named():
    features, labels = clusters()
    alone = torch.cat([features, torch.full((1, 5), 1e6, dtype=torch.float64)])
    result = gdv(alone, torch.cat([labels, torch.tensor([9])]))
    assert result.skipped == (9,)
    assert (result.n, result.n_classes, result.classes) == (60, 3, (0, 1, 2))
    assert result.gdv == pytest.approx(gdv(features, labels).gdv, rel=1e-12)


def test_neural_collapse_keeps_four_digits_in_float32():
    labels = balanced(400, 5)
    features = (3 * gaussian(5, 50)[labels] + 1e-5 * gaussian(400, 50, seed=1)).float()
    _, intra = naive(features, labels)
    result = gdv(features, labels)
    assert max(intra) < 1e-5
    np.testing.assert_allclose(result.intra, intra, rtol=1e-4)


def test_noise_reads_as_noise():
    """z is about standard, values lie within the null, and p is uniform enough."""
    runs = [gdv(gaussian(120, 30, seed=s, dtype=torch.float32), balanced(120, 4), seed=s) for s in range(150)]
    z = np.array([run.z for run in runs])
    assert abs(z.mean()) < 0.3
    assert 0.85 < z.std() < 1.25
    assert np.mean(np.abs(z) > 3) < 0.04
    assert max(abs(run.gdv) for run in runs) < 0.01
    assert np.mean([run.p_value <= 1 / 21 for run in runs]) < 0.1
    assert abs(np.mean([run.p_value for run in runs]) - 0.52) < 0.08


def test_standard_error_covers_the_spread_of_fresh_samples():
    centres, labels = gaussian(4, 20), balanced(160, 4)
    runs = [gdv(centres[labels] + gaussian(160, 20, seed=s), labels, permutations=0) for s in range(80)]
    spread = np.std([run.gdv for run in runs])
    assert 0.9 < np.mean([run.standard_error for run in runs]) / spread < 1.7


def test_shuffles_are_seeded_and_optional():
    features, labels = clusters()
    state = torch.get_rng_state()
    assert gdv(features, labels, seed=1) == gdv(features, labels, seed=1)
    assert gdv(features, labels, seed=1).null_sd != gdv(features, labels, seed=2).null_sd
    assert torch.equal(state, torch.get_rng_state())
    bare = gdv(features, labels, permutations=0)
    assert all(math.isnan(value) for value in (bare.null_mean, bare.null_sd, bare.z, bare.p_value))
    assert math.isnan(gdv(features, labels, permutations=1).z)
    with pytest.raises(ValueError, match="permutations=-1"):
        gdv(features, labels, permutations=-1)


def test_clear_classes_stand_far_from_the_null():
    features, labels = clusters(spread=0.1)
    result = gdv(features, labels)
    assert result.z < -20
    assert result.p_value == pytest.approx(1 / 21)
    assert 0.7 < result.fraction < 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_wider(dtype):
    features, labels = clusters()
    half = features.to(dtype)
    assert gdv(half, labels).gdv == pytest.approx(naive(half.double(), labels)[0], rel=1e-4)


@pytest.mark.parametrize(
    ("features", "labels", "words"),
    [
        (torch.ones(4, 2), torch.zeros(4, dtype=torch.int64), "two classes of at least two"),
        (torch.ones(3, 2), torch.arange(3), "two classes of at least two"),
        (torch.ones(4, 0), balanced(4, 2), "0 units"),
        (torch.tensor([[1.0], [math.nan], [math.inf], [0.0]]), balanced(4, 2), "2 of 4 are NaN or infinite"),
        (torch.ones(4, 2), balanced(3, 2), r"\(4, 2\) and \(3,\)"),
        (torch.ones(4, 2, 2), balanced(4, 2), r"\(4, 2, 2\)"),
        (torch.ones(4, 2), balanced(4, 2).float(), "float32"),
    ],
)
def test_errors_say_what_was_there(features, labels, words):
    with pytest.raises(ValueError, match=words):
        gdv(features, labels)


MEMORY = """
import resource, torch
from stratoscope.numerics.separation import gdv
generator = torch.Generator().manual_seed(0)
gdv(torch.randn(1200, 500, generator=generator), torch.arange(1200) % 10)
features = torch.empty(10000, 500).normal_(generator=generator)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
gdv(features, torch.arange(10000) % 10)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.slow
def test_ten_thousand_examples_need_little_memory():
    import subprocess
    import sys

    if not sys.platform.startswith("linux"):
        pytest.skip("peak memory is read in kilobytes on Linux only")
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 64
