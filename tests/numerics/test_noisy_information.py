"""Information through drawn noise: against closed forms, an integral, the kernel bounds, and a plain loop."""

import math

import numpy as np
import pytest
import torch

from stratoscope.numerics.kernel_information import kernel_information, noise_entropy
from stratoscope.numerics.noisy_information import gaussian_channel, noisy_information


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def gaussian(n, width, seed=0):
    return torch.randn(n, width, dtype=torch.float64, generator=generator(seed))


def test_a_gaussian_channel():
    """Within its error of the closed form, for noise that makes many points overlap."""
    variances = torch.tensor([0.1, 1.0, 10.0], dtype=torch.float64)
    for width in (1, 2):
        found = noisy_information(gaussian(3000, width), variances, draws=3000, generator=generator(1))
        for bits, error, variance in zip(found.x.tolist(), found.x_error.tolist(), variances.tolist(), strict=True):
            # 0.03 for what 3,000 points miss of a continuous input
            assert abs(bits - gaussian_channel(1.0, variance, width)) < 4 * error + 0.03 * width
            assert error < 0.05


def test_a_binary_channel():
    """Two points: the integral of one dimension, within the stated error."""
    from scipy.integrate import quad

    for seed, variance in enumerate((0.05, 0.3, 1.0, 4.0)):

        def density(t, v=variance):
            return sum(math.exp(-((t - c) ** 2) / (2 * v)) for c in (-1, 1)) / 2 / math.sqrt(2 * math.pi * v)

        whole, _ = quad(lambda t: -density(t) * math.log2(density(t) or 1.0), -14, 14, limit=200)
        points = torch.tensor([[-1.0], [1.0]])
        found = noisy_information(points, torch.tensor([variance]), draws=20_000, generator=generator(seed))
        assert abs(float(found.x[0]) - (whole - noise_entropy(variance, 1))) < 4 * float(found.x_error[0]) + 1e-5


def test_it_is_a_mean_over_densities():
    """The same noise in a plain loop over draws and centres, with whole densities."""
    points, labels = gaussian(12, 3), torch.arange(12) % 3
    variance = 0.4
    found = noisy_information(points, torch.tensor([variance]), labels, draws=24, generator=generator(5))
    twin = generator(5)
    torch.randperm(12, generator=twin)
    noise = torch.randn(24, 3, dtype=torch.float64, generator=twin)
    x, y = [], []
    for draw in range(24):
        own = draw % 12
        place = points[own] + math.sqrt(variance) * noise[draw]
        densities = [math.exp(-float((place - centre).square().sum()) / (2 * variance)) for centre in points]
        whole = sum(densities) / 12
        x.append(math.log2(densities[own] / whole))
        y.append(math.log2(sum(densities[j] for j in range(12) if labels[j] == labels[own]) / 4 / whole))
    assert float(found.x[0]) == pytest.approx(np.mean(x), abs=1e-5)
    assert float(found.y[0]) == pytest.approx(np.mean(y), abs=1e-5)
    assert float(found.x_error[0]) == pytest.approx(np.std(x, ddof=1) / math.sqrt(24), abs=1e-5)


@pytest.mark.parametrize("width", [1, 5, 40])
def test_it_lies_between_the_kernel_bounds(width):
    features, labels = gaussian(200, width, seed=width), torch.arange(200) % 4
    features[:, 0] += labels
    variances = torch.tensor([0.03, 0.3, 3.0, 30.0], dtype=torch.float64)
    found = noisy_information(features, variances, labels, draws=2000, generator=generator(2))
    squares = torch.cdist(features, features).square()
    kernels = torch.stack([torch.stack([(-squares / (2 * f * v)).exp() for v in variances]) for f in (1, 4)])
    own = (kernels * (labels[:, None] == labels)).sum(-1)
    bounds = kernel_information(variances.numpy(), kernels.sum(-1).numpy(), own.numpy(), labels.numpy())
    for value, error, low, high in (
        (found.x, found.x_error, bounds.x_low, bounds.x_high),
        (found.y, found.y_error, bounds.y_low, bounds.y_high),
    ):
        assert (value.numpy() > low - 4 * error.numpy() - 1e-5).all()
        assert (value.numpy() < high + 4 * error.numpy() + 1e-5).all()


def test_the_error_is_what_repeats_scatter_by():
    features, variances = gaussian(100, 2), torch.tensor([0.2])
    found = [noisy_information(features, variances, draws=100, generator=generator(seed)) for seed in range(60)]
    scatter = float(torch.stack([f.x[0] for f in found]).std())
    stated = float(torch.stack([f.x_error[0] for f in found]).mean())
    assert 0.6 * stated < scatter < 1.3 * stated


def test_places_of_one_input():
    """With several rows of an input, what tells its rows apart is no information about it."""
    rows = gaussian(50, 2)[torch.arange(200) // 4]
    variances = torch.tensor([0.1])
    apart = noisy_information(rows, variances, inputs=torch.arange(200) // 4, draws=400, generator=generator(3))
    assert float(apart.x[0]) == pytest.approx(
        float(noisy_information(rows, variances, draws=400, generator=generator(3)).x[0]), abs=1e-4
    )
    mixed = gaussian(200, 2)
    of_rows = noisy_information(mixed, variances, draws=400, generator=generator(3))
    of_inputs = noisy_information(mixed, variances, inputs=torch.arange(200) // 4, draws=400, generator=generator(3))
    assert float(of_inputs.x[0]) < float(of_rows.x[0]) - 1


def test_many_classes_are_summed_the_other_way():
    features, labels = gaussian(300, 2), torch.arange(300) % 5
    table = torch.stack([labels.roll(shift) for shift in range(1, 120)])
    many = noisy_information(features, torch.tensor([0.2]), labels, shuffles=table, draws=300, generator=generator())
    few = noisy_information(features, torch.tensor([0.2]), labels, shuffles=table[:4], draws=300, generator=generator())
    assert float(few.x[0]) == pytest.approx(float(many.x[0]), abs=1e-5)
    assert float(few.y[0]) == pytest.approx(float(many.y[0]), abs=1e-5)
    fifth = noisy_information(features, torch.tensor([0.2]), labels.roll(1), draws=300, generator=generator())
    alone = noisy_information(
        features, torch.tensor([0.2]), labels, shuffles=table[:1], draws=300, generator=generator()
    )
    assert float(alone.y_null[0]) == pytest.approx(float(fifth.y[0]), abs=1e-5)
    assert math.isnan(float(alone.y_null_sd[0]))


def test_labels_that_mean_nothing_read_as_their_null():
    """Small noise makes any labelling seem to be told; shuffled labels read the same."""
    z, plain = [], []
    for seed in range(30):
        features, labels = gaussian(200, 2, seed), torch.randint(0, 4, (200,), generator=generator(seed + 500))
        table = torch.stack([labels[torch.randperm(200, generator=generator(900 + 20 * seed + p))] for p in range(20)])
        found = noisy_information(
            features, torch.tensor([0.02]), labels, shuffles=table, draws=100, generator=generator(seed)
        )
        plain.append(float(found.y[0]))
        z.append(float((found.y - found.y_null)[0] / found.y_null_sd[0] / math.sqrt(1 + 1 / 20)))
    assert np.mean(plain) > 0.2
    assert abs(np.mean(z)) < 4 / math.sqrt(30)
    assert 0.6 < np.std(z) < 1.6
    assert math.isnan(float(noisy_information(gaussian(9, 1), torch.tensor([1.0]), generator=generator()).y_null[0]))


def test_far_from_zero_and_in_single_precision():
    features = gaussian(200, 4)
    variances = torch.tensor([0.1, 1.0])
    plain = noisy_information(features, variances, draws=200, generator=generator())
    moved = noisy_information((features + 1000).float(), variances, draws=200, generator=generator())
    scaled = noisy_information(1e6 * features, 1e12 * variances, draws=200, generator=generator())
    assert moved.x.tolist() == pytest.approx(plain.x.tolist(), abs=2e-3)
    assert scaled.x.tolist() == pytest.approx(plain.x.tolist(), abs=1e-4)


def test_layers_that_are_constant_or_of_one_example():
    labels = torch.arange(20) % 2
    found = noisy_information(torch.ones(20, 3), torch.tensor([1.0, 0.0]), labels, draws=10, generator=generator())
    assert abs(float(found.x[0])) < 1e-6
    assert abs(float(found.y[0])) < 1e-6
    assert math.isnan(float(found.x[1]))
    alone = noisy_information(torch.ones(1, 3), torch.tensor([1.0]), draws=4, generator=generator())
    assert abs(float(alone.x[0])) < 1e-6
    assert math.isnan(float(alone.y[0]))


def test_wide_layers_have_fewer_draws():
    found = noisy_information(gaussian(300, 9000), torch.tensor([1.0]), draws=500, generator=generator())
    assert found.draws == 2**27 // (300 * 9000)
    with pytest.raises(ValueError, match="2 draws"):
        noisy_information(gaussian(3, 2), torch.tensor([1.0]), draws=1, generator=generator())
    with pytest.raises(ValueError, match="one example"):
        noisy_information(torch.ones(0, 2), torch.tensor([1.0]), generator=generator())


def test_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    noisy_information(gaussian(10, 2), torch.tensor([1.0]), draws=15, generator=generator())
    assert torch.equal(before, torch.get_rng_state())
