"""Kernel bounds: against the formula as it is published, closed forms, and each other."""

import math

import numpy as np
import pytest

from stratoscope.numerics.kernel_information import kernel_information, noise_entropy


def kernel_sums(features, variances, labels=None):
    """Sums of kernels by the whole matrix of distances."""
    squares = ((features[:, None] - features[None]) ** 2).sum(-1)
    kernels = np.array([[np.exp(-squares / (2 * factor * v)) for v in variances] for factor in (1, 4)])
    if labels is None:
        return kernels.sum(-1), None
    return kernels.sum(-1), (kernels * (labels[:, None] == labels)).sum(-1)


def published(features, variance, upper):
    """Kolchinsky and Tracey's bound of h(T + N) in nats, with every term written out."""
    n, width = features.shape
    v = variance if upper else 4 * variance
    squares = ((features[:, None] - features[None]) ** 2).sum(-1)
    logs = np.log(np.exp(-squares / (2 * v)).mean(1))
    bound = width / 2 + width / 2 * math.log(2 * math.pi * v) - logs.mean()
    return bound if upper else bound + width / 2 * math.log(1 / 4)


def sample(n=60, width=3, seed=0):
    return np.random.default_rng(seed).standard_normal((n, width))


VARIANCES = np.array([0.01, 0.1, 1.0])


def test_bounds_are_the_published_ones():
    features, labels = sample(), np.arange(60) % 3
    found = kernel_information(VARIANCES, *kernel_sums(features, VARIANCES, labels), labels)
    for place, variance in enumerate(VARIANCES):
        noise = noise_entropy(variance, 3)
        for upper, x, y in ((True, found.x_high, found.y_upper), (False, found.x_low, found.y_lower)):
            whole = published(features, variance, upper) / math.log(2)
            assert x[place] == pytest.approx(whole - noise, abs=1e-9)
            parts = [published(features[labels == c], variance, upper) / math.log(2) for c in range(3)]
            assert y[place] == pytest.approx(whole - sum(parts) / 3, abs=1e-9)


def test_order_and_ceilings():
    features = sample(width=5)
    labels = np.random.default_rng(1).choice(4, 60, p=[0.7, 0.1, 0.1, 0.1])
    found = kernel_information(VARIANCES, *kernel_sums(features, VARIANCES, labels), labels)
    assert found.ceiling == pytest.approx(math.log2(60))
    assert (found.x_low <= found.x_high + 1e-12).all()
    assert (found.x_high <= found.ceiling + 1e-12).all()
    assert (found.y_low <= found.y_high + 1e-12).all()
    assert ((found.y_low >= 0) & (found.y_high <= found.y_ceiling)).all()
    for falling in (found.x_low, found.x_high):
        assert (np.diff(falling) < 0).all()


def test_a_binary_channel_lies_between_the_bounds():
    """Two points and Gaussian noise: the information has an integral of one dimension."""
    from scipy.integrate import quad

    for variance in (0.05, 0.2, 1.0, 4.0):
        sums, _ = kernel_sums(np.array([[-1.0], [1.0]]), [variance])
        found = kernel_information(np.array([variance]), sums)

        def density(t, v=variance):
            return sum(math.exp(-((t - c) ** 2) / (2 * v)) for c in (-1, 1)) / 2 / math.sqrt(2 * math.pi * v)

        whole, _ = quad(lambda t: -density(t) * math.log2(density(t) or 1.0), -14, 14, limit=200)
        truth = whole - noise_entropy(variance, 1)
        assert found.x_low[0] <= truth <= found.x_high[0]


def test_a_gaussian_channel_lies_between_the_bounds():
    features = np.random.default_rng(0).standard_normal((1500, 1))
    found = kernel_information(VARIANCES, kernel_sums(features, VARIANCES)[0])
    truth = 0.5 * np.log2(1 + 1 / VARIANCES)
    assert (found.x_low < truth).all()
    assert (truth < found.x_high).all()


def test_far_classes_of_one_point_each():
    """Classes collapsed to points far apart: all that is told is the class, and both bounds meet."""
    labels = np.repeat([0, 1, 1, 1], 10)
    features = 100.0 * labels[:, None]
    found = kernel_information(np.array([1.0]), *kernel_sums(features, [1.0], labels), labels)
    entropy = -0.25 * math.log2(0.25) - 0.75 * math.log2(0.75)
    for bits in (found.x_low, found.x_high, found.y_low, found.y_high, found.y_upper, found.y_lower):
        assert bits[0] == pytest.approx(entropy, abs=1e-9)
    assert found.y_ceiling == pytest.approx(entropy)


def test_a_constant_layer_tells_nothing():
    labels = np.arange(8) % 2
    found = kernel_information(np.array([1.0]), np.full((2, 1, 8), 8.0), np.full((2, 1, 8), 4.0), labels)
    assert [b[0] for b in (found.x_low, found.x_high, found.y_low, found.y_high, found.y_upper)] == [0.0] * 5


def test_small_noise_is_at_the_ceiling():
    """The value is set by the variance: noise that joins no two points reads log2 n and H(Y), whatever the layer does."""
    labels = np.arange(64) % 2
    found = kernel_information(np.array([1e-9]), *kernel_sums(sample(64), [1e-9], labels), labels)
    assert found.x_low[0] == pytest.approx(6.0, abs=1e-9)
    assert found.y_low[0] == pytest.approx(1.0, abs=1e-9)


def test_one_class_and_none():
    features = sample(20)
    alone = kernel_information(VARIANCES, *kernel_sums(features, VARIANCES, np.zeros(20, int)), np.zeros(20, int))
    assert alone.y_ceiling == 0.0
    assert (alone.y_high == 0).all()
    assert alone.y_upper == pytest.approx([0.0] * 3, abs=1e-12)
    none = kernel_information(VARIANCES, kernel_sums(features, VARIANCES)[0])
    assert np.isnan(none.y_high).all()
    assert np.isfinite(none.x_high).all()


def test_noise_of_no_variance_has_no_answer():
    sums, _ = kernel_sums(sample(20), [0.1, 0.1])
    found = kernel_information(np.array([0.0, 0.1]), sums)
    assert np.isnan(found.x_high[0])
    assert np.isfinite(found.x_high[1])


@pytest.mark.parametrize("shape", [(2, 2, 5), (1, 3, 5), (2, 3, 0)])
def test_shapes(shape):
    with pytest.raises(ValueError, match="shape"):
        kernel_information(VARIANCES, np.ones(shape))
    with pytest.raises(ValueError, match="labels"):
        kernel_information(VARIANCES, np.ones((2, 3, 5)), np.ones((2, 3, 5)))
