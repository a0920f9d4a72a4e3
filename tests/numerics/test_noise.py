"""Signal and noise of a gradient."""

import math

import pytest
import torch

from stratoscope.numerics.noise import gradient_noise


def window(gradients):
    return gradient_noise(gradients.sum(-2).square().sum(-1), gradients.square().sum((-2, -1)), gradients.shape[-2])


def draws(windows, n, size, seed=0):
    return torch.randn(windows, n, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_pure_noise_reads_as_no_signal():
    noise = window(draws(2000, 20, 100))
    assert abs(noise.squared_signal.mean()) < 4 * noise.squared_signal.std() / 2000**0.5
    assert (noise.squared_signal < 0).double().mean() > 0.45
    # the plain estimate, the norm of the mean gradient, would read 1 / sqrt(20) = 0.22 on every window
    assert noise.snr.median() < 0.06
    assert noise.snr.max() <= 3 * 20**-0.5 * 100**-0.25


@pytest.mark.parametrize(("n", "size"), [(2, 5), (10, 50), (100, 3)])
def test_a_known_signal_and_its_deviation_are_recovered_without_bias(n, size):
    signal = torch.linspace(-1, 1, size, dtype=torch.float64)
    noise = window(signal + 0.7 * draws(4000, n, size))
    for measured, truth in (
        (noise.squared_signal, signal.square().sum().item()),
        (noise.deviation.square(), 0.49 * size),
    ):
        assert abs(measured.mean() - truth) < 4 * measured.std() / 4000**0.5


def test_signal_to_noise_converges():
    noise = window(3 + draws(1, 20000, 4))
    assert noise.snr.item() == pytest.approx(6 / 2, rel=0.02)
    assert noise.signal.item() == pytest.approx(6, rel=0.01)


def test_scale_and_naive_twin():
    gradients = draws(3, 7, 11) + 0.3
    noise = window(gradients)
    deviation = gradients.var(-2).sum(-1).sqrt()
    torch.testing.assert_close(noise.deviation, deviation)
    mean = gradients.mean(-2)
    torch.testing.assert_close(
        noise.squared_signal, (7 * mean.square().sum(-1) - gradients.square().sum((-2, -1)) / 7) / 6
    )
    torch.testing.assert_close(window(gradients * 1e-8).snr, noise.snr)


def test_ends():
    assert all(math.isnan(value) for value in gradient_noise(4.0, 4.0, 1))
    same = gradient_noise(36.0, 12.0, 3)
    assert (same.signal.item(), same.deviation.item(), same.snr.item()) == (2.0, 0.0, math.inf)
    still = gradient_noise(0.0, 0.0, 3)
    assert still.signal == 0
    assert math.isnan(still.snr)
