"""Statistics within classes: the whole matrix of each class as a twin, closed forms under random classes."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stratoscope.numerics import class_statistics as module
from stratoscope.numerics.activation_statistics import activation_statistics
from stratoscope.numerics.class_statistics import class_statistics, random_classes

SEEDS = st.integers(0, 2**31)


def gaussian(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def flat(found):
    parts = dataclasses.asdict(found)
    ranks = {f"{kind}.{name}": value for kind in ("raw", "centred") for name, value in parts.pop(kind).items()}
    return parts | ranks


def naive(features, labels):
    """One class at a time, by the statistics of a whole matrix."""
    rows = [features[labels == c] for c in labels.unique()]
    each = [activation_statistics(one) for one in rows if len(one) > 1]
    found = {name: [getattr(one, name) for one in each] for name in ("correlation", "variance", "sparsity")}
    for kind in ("raw", "centred"):
        for name in ("numerical", "stable", "effective"):
            found[f"{kind}.{name}"] = [getattr(getattr(one, kind), name) for one in each]
    known = {name: [v for v in values if not math.isnan(v)] for name, values in found.items()}
    means = {name: np.mean(values) if values else math.nan for name, values in known.items()}
    return means | {"classes": len(each), "skipped": len(rows) - len(each), "n": sum(one.n for one in each)}


@given(seed=SEEDS, width=st.integers(1, 20), classes=st.integers(1, 6), single=st.booleans())
@settings(deadline=None, max_examples=25)
def test_equals_its_naive_twin(seed, width, classes, single):
    labels = torch.randint(0, classes, (50,), generator=torch.Generator().manual_seed(seed))
    labels[: 2 * classes] = torch.arange(2 * classes) % classes
    features = (gaussian(50, width, seed=seed) + labels[:, None] / 2).relu()
    features[:, 0] = labels.double()  # constant within every class
    if single:
        labels[-1] = 99
    for values, tolerance in ((features, 1e-9), (features.float(), 1e-4)):
        found = flat(class_statistics(values, labels))
        for name, value in naive(values, labels).items():
            assert found[name] == pytest.approx(value, rel=tolerance, abs=1e-6, nan_ok=True), name


def test_how_classes_are_batched_changes_nothing(monkeypatch):
    features, labels = gaussian(120, 6, dtype=torch.float32).relu(), torch.arange(120) % 11
    whole = flat(class_statistics(features, labels))
    monkeypatch.setattr("stratoscope.numerics.separation.TOGETHER", 1)
    monkeypatch.setattr(module, "TOGETHER", 1)
    assert flat(class_statistics(features, labels)) == pytest.approx(whole, rel=1e-6)


def test_the_order_of_examples_and_the_names_of_classes_change_nothing():
    features, labels = gaussian(60, 5).relu(), torch.arange(60) % 4
    order = torch.randperm(60, generator=torch.Generator().manual_seed(1))
    other = flat(class_statistics(features[order], 1000 - 7 * labels[order]))
    assert other == pytest.approx(flat(class_statistics(features, labels)), rel=1e-9)


def test_random_classes_have_their_closed_forms():
    """`S^2 (1 - mean 1/n_c)` and the sparsity of all, whatever the structure."""
    features = (gaussian(200, 5) + 3 * gaussian(1, 5, seed=1) * (torch.arange(200) > 80)[:, None]).relu()
    labels = torch.repeat_interleave(torch.arange(5), torch.tensor([10, 20, 40, 50, 80]))
    reads = [class_statistics(features, random_classes(labels, seed)) for seed in range(60)]
    whole = activation_statistics(features)
    expected = {
        "variance": whole.variance * 200 / 199 * reads[0].freedom,
        "sparsity": whole.sparsity,
    }
    assert reads[0].freedom == pytest.approx(1 - np.mean([1 / 10, 1 / 20, 1 / 40, 1 / 50, 1 / 80]))
    for name, value in expected.items():
        values = [getattr(one, name) for one in reads]
        assert np.mean(values) == pytest.approx(value, abs=5 * np.std(values) / math.sqrt(60)), name


def test_class_structure_reads_as_such_and_noise_does_not():
    labels = torch.arange(300) % 3
    noise = gaussian(300, 20)
    centres = 4 * gaussian(3, 20, seed=1)
    for features, structured in ((noise, False), (noise + centres[labels], True)):
        own = class_statistics(features, labels)
        null = class_statistics(features, random_classes(labels, 0))
        assert (own.variance < 0.5 * null.variance) == structured
        assert (own.correlation < 0.5 * null.correlation) == structured
        assert (own.centred.effective > 1.5 * null.centred.effective) == structured


def test_a_few_classes_of_all_sizes_stand_for_many():
    labels = torch.repeat_interleave(torch.arange(20), torch.arange(2, 22))
    found = class_statistics(gaussian(len(labels), 4), labels, most_classes=5)
    assert (found.classes, found.n) == (5, sum(2 + place for place in (2, 6, 10, 14, 18)))
    assert class_statistics(gaussian(len(labels), 4), labels, most_classes=50).classes == 20


def test_a_class_of_two_correlates_fully():
    found = class_statistics(gaussian(40, 6), torch.arange(40) // 2)
    assert found.correlation == pytest.approx(1.0, abs=1e-9)
    assert found.centred.numerical == 1


def test_collapsed_classes_have_no_rank_of_their_own():
    features = gaussian(3, 8)[torch.arange(30) % 3]
    found = class_statistics(features, torch.arange(30) % 3)
    assert (found.variance, found.raw.numerical, found.centred.numerical) == (0.0, 1, 0)
    assert math.isnan(found.correlation)
    assert math.isnan(found.centred.effective)


@pytest.mark.parametrize(
    ("features", "labels", "words"),
    [
        (torch.ones(4, 2), torch.arange(4), "4 classes have one each"),
        (torch.ones(0, 2), torch.arange(0), "0 classes"),
        (torch.ones(4, 2), torch.zeros(3, dtype=torch.int64), r"\(4, 2\) and \(3,\)"),
        (torch.ones(4, 0), torch.zeros(4, dtype=torch.int64), r"\(4, 0\)"),
        (torch.ones(4, 2), torch.zeros(4), "torch.float32"),
        (torch.full((4, 2), math.nan), torch.zeros(4, dtype=torch.int64), "8 of 8"),
    ],
)
def test_bad_input_is_refused_in_words(features, labels, words):
    with pytest.raises(ValueError, match=words):
        class_statistics(features, labels)
