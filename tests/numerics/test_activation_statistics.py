"""Statistics of activations: a naive twin, invariances, nulls by simulation, ranks that a Gram matrix would lose."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kurtosis

from stratoscope.numerics import activation_statistics as module
from stratoscope.numerics.activation_statistics import (
    activation_statistics,
    drawn_units,
    null_correlation,
    null_massive,
)

SEEDS = st.integers(0, 2**31)


def gaussian(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def orthogonal(size, seed):
    return torch.linalg.qr(gaussian(size, size, seed=seed)).Q


def numbers(found, *left_out):
    """All of it as plain numbers by name."""
    flat = {}
    for name, value in dataclasses.asdict(found).items():
        parts = {f"{name}.{part}": one for part, one in value.items()} if isinstance(value, dict) else {name: value}
        flat |= parts
    return {name: value for name, value in flat.items() if name.partition(".")[0] not in left_out}


def naive(features, near):
    """The definitions, with NumPy's own functions."""
    a = features.double().numpy()
    n, width = a.shape
    lively = a.std(0) > 1e-12 * np.abs(a).max()
    table = np.atleast_2d(np.corrcoef(a[:, lively], rowvar=False))
    pairs = np.abs(table[np.triu_indices(lively.sum(), 1)])
    found = {
        "correlation": pairs.mean() if len(pairs) else math.nan,
        "pairs": len(pairs),
        "variance": a.var(0).mean(),
        "largest_variance_share": a.var(0).max() / a.var(0).sum(),
        "sparsity": (a == 0).mean(),
        "near_zero": (np.abs(a) <= near * np.abs(a).max()).mean(),
        "kurtosis": kurtosis(a[:, lively], fisher=False).mean(),
        "dead": (a == 0).all(0).sum(),
        "constant": (~lively).sum(),
        "undead": (a != 0).all(0).sum() if (a >= 0).all() else math.nan,
    }
    for name, matrix in {"raw": a, "centred": a - a.mean(0)}.items():
        s = np.linalg.svd(matrix, compute_uv=False)
        share = s[s > 0] / s.sum()
        found |= {
            f"{name}.numerical": np.linalg.matrix_rank(
                matrix, tol=s[0] * max(a.shape) * torch.finfo(features.dtype).eps
            ),
            f"{name}.stable": (s**2).sum() / s[0] ** 2,
            f"{name}.effective": np.exp(-(share * np.log(share)).sum()),
        }
    return found


@given(seed=SEEDS, n=st.integers(3, 60), width=st.integers(2, 40), rectified=st.booleans())
@settings(deadline=None, max_examples=25)
def test_equals_its_naive_twin(seed, n, width, rectified):
    features = gaussian(n, width, seed=seed) + 0.5
    features = features.relu() if rectified else features
    features[:, 0] = 0.0
    features[:, 1] = 1.5
    features[:, -1] = gaussian(n, seed=seed + 1)  # at least one unit that varies
    twin = naive(features, 0.01)
    found = numbers(activation_statistics(features, near=0.01))
    for name, value in twin.items():
        assert found[name] == pytest.approx(value, rel=1e-9, abs=1e-12, nan_ok=True), name
    single = numbers(activation_statistics(features.float(), near=0.01))
    for name, value in naive(features.float(), 0.01).items():
        assert single[name] == pytest.approx(value, rel=1e-4, abs=1e-6, nan_ok=True), name


def test_blocks_do_not_change_it(monkeypatch):
    for shape in ((40, 12), (12, 40)):
        features = gaussian(*shape, dtype=torch.float32).relu()
        whole = numbers(activation_statistics(features))
        with monkeypatch.context() as patch:
            patch.setattr(module, "BLOCK", 50)
            assert numbers(activation_statistics(features)) == pytest.approx(whole, rel=1e-9)


@given(seed=SEEDS, scale=st.sampled_from([1e-20, 1e-3, 7.0, 1e15]))
@settings(deadline=None, max_examples=15)
def test_order_and_scale(seed, scale):
    features = gaussian(30, 7, seed=seed).relu() + 0.1 * gaussian(30, 7, seed=seed + 1)
    found = numbers(activation_statistics(features), "shuffled")
    order = torch.randperm(7, generator=torch.Generator().manual_seed(seed))
    assert numbers(activation_statistics(features[:, order].flip(0)), "shuffled") == pytest.approx(
        found, rel=1e-9, nan_ok=True
    )
    scaled = numbers(activation_statistics(scale * features), "shuffled")
    for name, value in found.items():
        factor = {"variance": scale**2, "largest": scale}.get(name, 1.0)
        assert scaled[name] == pytest.approx(factor * value, rel=1e-8, nan_ok=True), name


@given(seed=SEEDS)
@settings(deadline=None, max_examples=10)
def test_rotation_leaves_ranks_and_the_mean_variance(seed):
    features = gaussian(40, 6, seed=seed) * torch.linspace(0.1, 2, 6, dtype=torch.float64) + 3
    one, other = activation_statistics(features), activation_statistics(features @ orthogonal(6, seed))
    assert numbers(one)["variance"] == pytest.approx(other.variance, rel=1e-9)
    for kind in ("raw", "centred"):
        mine, theirs = (dataclasses.asdict(getattr(found, kind)) for found in (one, other))
        assert mine == pytest.approx(theirs, rel=1e-9)


@given(seed=SEEDS)
@settings(deadline=None, max_examples=10)
def test_an_invertible_map_leaves_the_centred_rank_and_a_shift_changes_the_raw_one(seed):
    """What a twin with the same outputs can and cannot move; everything else does move."""
    features = gaussian(60, 3, seed=seed) @ gaussian(3, 8, seed=seed + 1)
    features = features - features.mean(0)
    change = orthogonal(8, seed) * torch.linspace(0.2, 3, 8, dtype=torch.float64) @ orthogonal(8, seed + 1)
    one, other = activation_statistics(features), activation_statistics(features @ change + gaussian(8, seed=seed + 2))
    assert one.centred.numerical == other.centred.numerical == 3
    assert (one.raw.numerical, other.raw.numerical) == (3, 4)
    assert abs(one.correlation - other.correlation) > 1e-6
    assert abs(one.centred.effective - other.centred.effective) > 1e-6


def test_duplicated_units_correlate_fully_and_share_one_direction():
    unit = gaussian(50, 1)
    found = activation_statistics(torch.cat([unit, -2 * unit, 3 * unit], 1))
    assert found.correlation == pytest.approx(1.0, abs=1e-12)
    assert found.centred.numerical == 1
    assert found.centred.stable == pytest.approx(1.0)
    assert found.centred.effective == pytest.approx(1.0, abs=1e-6)
    # shuffled apart they are three directions
    assert found.shuffled.numerical == 3


def test_the_mean_direction_moves_the_raw_stable_rank_alone():
    """Behind a ReLU the mean is the largest direction: the notes' case in which 1.93 becomes 3.73."""
    features = gaussian(500, 20, dtype=torch.float32).relu()
    found = activation_statistics(features)
    assert found.raw.stable < 4 < 12 < found.centred.stable
    shifted = activation_statistics(features + 100)
    assert shifted.raw.stable == pytest.approx(1.0, abs=1e-2)
    assert shifted.centred.stable == pytest.approx(found.centred.stable, rel=1e-3)


# -- numerical rank ------------------------------------------------------------------------------------------------------


def with_tail(n, width, tail, seed=0):
    """Singular values 1 and, for half of them, `tail`."""
    s = torch.ones(width, dtype=torch.float64)
    s[width // 2 :] = tail
    left = torch.linalg.qr(gaussian(n, width, seed=seed)).Q
    return left * s @ orthogonal(width, seed + 1), s


@pytest.mark.parametrize("shape", [(60, 10), (11, 10)])
def test_float64_keeps_a_tail_that_a_gram_matrix_loses(shape):
    n, width = shape
    features, s = with_tail(n, width, 1e-10)
    found = activation_statistics(features)
    # squared, the tail is 1e-20 of the largest: no float64 eigenvalue would show it
    squares = torch.linalg.eigvalsh(features.T @ features)
    assert float((squares[: width // 2] / 1e-20 - 1).abs().max()) > 10
    assert found.raw.numerical == width
    assert found.raw.effective == pytest.approx(math.exp(-(s / s.sum() * (s / s.sum()).log()).sum()), rel=1e-9)
    features, _ = with_tail(n, width, 1e-15)
    assert activation_statistics(features).raw.numerical == width // 2


@pytest.mark.parametrize("tail", [1e-3, 2e-5])
def test_float32_tails_above_its_tolerance_are_counted_and_right(tail):
    """The Gram matrix in float64 carries 1e-6 of the largest; float32's own tolerance for 60 rows is 7e-6."""
    features, s = with_tail(60, 10, tail)
    found = activation_statistics(features.float())
    assert found.raw.numerical == 10
    assert found.raw.effective == pytest.approx(math.exp(-(s / s.sum() * (s / s.sum()).log()).sum()), rel=1e-4)
    exact = module.gram_singular_values(iter([features]))
    torch.testing.assert_close(exact, s, rtol=1e-6, atol=0)


def test_a_tail_of_1e_6_is_carried_by_the_gram_matrix_to_three_digits():
    features, s = with_tail(60, 10, 1e-6)
    torch.testing.assert_close(module.gram_singular_values(iter([features])), s, rtol=1e-3, atol=0)


def test_float32_rounding_is_no_rank():
    features, _ = with_tail(60, 10, 0.0)
    found = activation_statistics(features.float())
    assert (found.raw.numerical, found.centred.numerical) == (5, 5)


def test_the_rounding_of_a_large_mean_is_no_centred_rank():
    low = gaussian(200, 2) @ gaussian(2, 12, seed=1)
    features = (1e-2 * low + 1000).float()  # a float32 near 1000 is rounded by 3e-5
    found = activation_statistics(features)
    assert found.centred.numerical == 2
    assert activation_statistics((1e-2 * low).float()).centred.numerical == 2


def test_half_precision_is_widened_and_its_rounding_is_no_rank():
    low = gaussian(100, 3) @ gaussian(3, 10, seed=1)
    for dtype in (torch.float16, torch.bfloat16):
        found = activation_statistics(low.to(dtype))
        assert found.raw.numerical == 3
        assert found.variance == pytest.approx(float(low.var(0, correction=0).mean()), rel=1e-2)


# -- nulls ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 3, 10, 200])
def test_the_null_correlation_is_what_independent_units_read(n):
    reads = [activation_statistics(gaussian(n, 60, seed=seed)).correlation for seed in range(20)]
    error = np.std(reads) / math.sqrt(len(reads))
    assert np.mean(reads) == pytest.approx(null_correlation(n), abs=5 * error + 1e-9)


def test_the_null_correlation_has_its_limit_and_its_ends():
    assert null_correlation(2) == pytest.approx(1.0)
    assert null_correlation(3) == pytest.approx(2 / math.pi)
    assert null_correlation(10**6) == pytest.approx(math.sqrt(2 / (math.pi * 10**6)), rel=1e-5)
    assert math.isnan(null_correlation(1))


def test_the_nulls_of_kurtosis_and_largest_output_are_what_gaussian_units_read():
    reads = [activation_statistics(gaussian(50, 30, seed=seed)) for seed in range(40)]
    kurtoses, largest = [r.kurtosis for r in reads], [r.massive for r in reads]
    assert np.mean(kurtoses) == pytest.approx(reads[0].kurtosis_null, abs=5 * np.std(kurtoses) / math.sqrt(40))
    above = sum(one > reads[0].massive_null for one in largest)
    assert 8 <= above <= 32  # half of 40, give or take four deviations
    assert math.isnan(null_massive(0))
    assert null_massive(1) == pytest.approx(1.0)


def test_independent_units_read_as_their_own_shuffle():
    reads = [activation_statistics(gaussian(100, 20, seed=seed).relu()) for seed in range(10)]
    gaps = [r.centred.effective - r.shuffled.effective for r in reads]
    assert abs(np.mean(gaps)) < 4 * np.std(gaps) / math.sqrt(10) + 1e-3
    assert abs(np.mean(gaps)) < 0.1


def test_examples_in_the_order_of_their_classes_do_not_spoil_the_shuffle():
    """A shift alone would lay the same classes over each other."""
    centres = 5 * gaussian(2, 30)
    features = centres[torch.arange(400) // 200] + gaussian(400, 30, seed=1)
    found = activation_statistics(features)
    generator = torch.Generator().manual_seed(2)
    apart = torch.stack([unit[torch.randperm(400, generator=generator)] for unit in features.T], 1)
    assert found.shuffled.effective == pytest.approx(activation_statistics(apart).centred.effective, rel=0.02)
    assert found.centred.effective < 0.75 * found.shuffled.effective


# -- tails, ends, input --------------------------------------------------------------------------------------------------


def test_one_massive_output_is_told_by_its_ratio():
    features = gaussian(100, 10)
    features[0, 0] = 1e5
    found = activation_statistics(features)
    assert found.massive == pytest.approx(1e5 / float(features[features != 0].abs().median()), rel=1e-9)
    assert found.largest == 1e5
    # zeros do not make the median zero
    assert activation_statistics(features.relu()).massive < 1e7


def test_undead_units_are_told_only_where_zero_is_the_threshold():
    features = torch.tensor([[1.0, 0.0, 0.0], [2.0, 0.0, 1.0]])
    found = activation_statistics(features)
    assert (found.undead, found.dead, found.constant) == (1, 1, 1)
    assert math.isnan(activation_statistics(features - 0.5).undead)


def test_a_layer_of_constants_has_no_correlation_and_no_rank_around_its_mean():
    found = activation_statistics(torch.full((20, 4), 0.1))
    assert (found.constant, found.pairs, found.variance) == (4, 0, 0.0)
    assert found.raw.numerical == 1
    assert found.centred.numerical == 0
    for value in (found.correlation, found.kurtosis, found.centred.stable, found.centred.effective):
        assert math.isnan(value)
    nothing = activation_statistics(torch.zeros(5, 3))
    assert (nothing.dead, nothing.sparsity, nothing.raw.numerical) == (3, 1.0, 0)
    assert math.isnan(nothing.massive)


def test_one_unit_and_two_examples_are_enough():
    found = activation_statistics(torch.tensor([[1.0], [3.0]]))
    assert (found.variance, found.pairs, found.raw.numerical, found.centred.numerical) == (1.0, 0, 1, 1)


def test_huge_and_tiny_numbers_do_not_overflow():
    features = gaussian(30, 5)
    for scale in (1e200, 1e-200):
        found = activation_statistics(scale * features)
        assert found.correlation == pytest.approx(activation_statistics(features).correlation, rel=1e-9)
        assert found.centred.numerical == 5


def test_many_units_are_drawn_by_seed():
    features = gaussian(50, 40)
    found = activation_statistics(features, most_units=10, seed=3)
    assert found.pairs == 45
    units = drawn_units(torch.ones(40, dtype=torch.bool), 10, 3)
    assert found.correlation == pytest.approx(activation_statistics(features[:, units]).correlation, rel=1e-9)
    assert found == activation_statistics(features, most_units=10, seed=3)
    assert found.correlation != activation_statistics(features, most_units=10, seed=4).correlation


@pytest.mark.parametrize(
    ("features", "words"),
    [
        (torch.ones(1, 3), r"\(1, 3\)"),
        (torch.ones(3, 0), r"\(3, 0\)"),
        (torch.ones(3), r"\(3,\)"),
        (torch.ones(3, 3, dtype=torch.int64), "int64"),
        (torch.tensor([[1.0, math.nan], [math.inf, 0.0]]), "2 of 4 are NaN or infinite"),
    ],
)
def test_bad_input_is_refused_in_words(features, words):
    with pytest.raises(ValueError, match=words):
        activation_statistics(features)
