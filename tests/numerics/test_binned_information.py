"""What bins tell: ceilings, repeated inputs, sweeps, and the share outside their range."""

import math

import numpy as np
import pytest

from stratoscope.numerics.binned_information import (
    ENOUGH,
    Examples,
    binned_information,
    equal_count_rules,
    equal_width_rules,
    outside,
)
from stratoscope.numerics.entropy import EqualWidth, cells_of, shared_information, shuffled


def gaussian(n, width, seed=0):
    return np.random.default_rng(seed).standard_normal((n, width))


def test_it_puts_the_parts_together():
    features, labels = gaussian(200, 2), np.arange(200) % 3
    rule, shuffles = EqualWidth(-3.0, 3.0, 8), shuffled(labels, 5, 0)
    found = binned_information(features, rule, Examples(labels, shuffles))
    cells = cells_of(features, rule)
    assert found.x == cells.entropy
    assert found.x_miller_madow == cells.miller_madow
    assert found.ceiling == math.log2(200)
    assert (found.cells, found.singletons) == (len(cells.counts), cells.singletons)
    assert found.y == shared_information(cells, labels, shuffles)
    assert binned_information(features, rule).y is None


def test_repeated_inputs_lower_the_ceiling():
    inputs = np.arange(200) // 4
    found = binned_information(gaussian(50, 3)[inputs], EqualWidth(-3.0, 3.0, 30), Examples(inputs=inputs))
    assert found.ceiling == pytest.approx(math.log2(50))
    assert found.x <= found.ceiling + 1e-12
    assert found.uninformative()
    mixed = binned_information(gaussian(200, 1), EqualWidth(-3.0, 3.0, 4), Examples(inputs=inputs))
    assert mixed.x < binned_information(gaussian(200, 1), EqualWidth(-3.0, 3.0, 4)).x


@pytest.mark.parametrize(("number", "expected"), [(2, False), (16, False), (2**14, True)])
def test_uninformative(number, expected):
    assert binned_information(gaussian(300, 1), EqualWidth(-4.0, 4.0, number)).uninformative() is expected


def test_a_layer_that_says_nothing_is_informative():
    """One cell: that a layer is constant is a result, and not a limit of the estimator."""
    for n in (1, 2, 100):
        found = binned_information(
            np.ones((n, 5)), EqualWidth(1.0, 1.0, 30), Examples(labels=np.zeros(n, dtype=np.int64))
        )
        assert (found.x, found.cells) == (0.0, 1)
        assert not found.uninformative()


def test_both_rules_agree_on_uniform_numbers():
    """Bins of one width hold equal counts there."""
    features = (np.random.default_rng(0).permutation(4000) / 4000)[:, None]
    for width, count in zip(
        equal_width_rules(0.0, 1.0, [10, 30, 100]), equal_count_rules(features, [10, 30, 100]), strict=True
    ):
        by_width, by_count = (binned_information(features, rule).x for rule in (width, count))
        assert by_width == pytest.approx(math.log2(width.number), abs=1e-3)
        assert by_count == pytest.approx(by_width, abs=1e-3)


def test_edges_of_large_samples_come_from_evenly_spread_examples():
    features = np.random.default_rng(0).random((ENOUGH // 32, 128)).astype(np.float32)
    rule = equal_count_rules(features, [30])[0]
    assert np.allclose(rule.edges, np.arange(1, 30) / 30, atol=0.01)


def test_outside():
    assert outside(np.array([[0.0, 1.0], [2.0, -1.0]]), 0.0, 1.0) == 0.5
    assert math.isnan(outside(np.zeros((3, 0)), 0.0, 1.0))


def test_saturation_looks_like_compression_to_bins_of_one_width_alone():
    """The same activations, driven into saturation: bins of one width fall, bins of equal counts stay."""
    drive = gaussian(1000, 3)
    mild, strong = np.tanh(0.8 * drive), np.tanh(8.0 * drive)
    by_width = [binned_information(f, EqualWidth(-1.0, 1.0, 10)).x for f in (mild, strong)]
    by_count = [binned_information(f, equal_count_rules(f, [10])[0]).x for f in (mild, strong)]
    assert by_width[1] < by_width[0] - 1
    assert by_count[1] == pytest.approx(by_count[0], abs=1e-12)


def test_growing_activations_look_like_compression_to_bins_that_widen():
    """One outlying example widens the step's own range; with the run's range nothing moves."""
    features = np.maximum(gaussian(1000, 3), 0.0)
    grown = np.vstack([features[:-1], 10 * np.ones((1, 3))])
    own = [binned_information(f, EqualWidth(0.0, f.max(), 30)).x for f in (features, grown)]
    run = [binned_information(f, EqualWidth(0.0, 10.0, 30)).x for f in (features, grown)]
    assert own[1] < own[0] - 1
    assert run[1] == pytest.approx(run[0], abs=0.05)
