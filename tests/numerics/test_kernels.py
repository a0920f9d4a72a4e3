"""Kernel sums: the plain double loop, blocks, classes."""

import pytest
import torch
from torch.testing import assert_close

from stratoscope.numerics import kernels
from stratoscope.numerics.distances import pair_pass
from stratoscope.numerics.kernels import KernelAccumulator
from stratoscope.numerics.neighbours import centred


def summed(features, variances, labels=None, classes=0):
    held = KernelAccumulator(torch.tensor(variances), len(features), labels, classes)
    pair_pass(centred(features), [held])
    return held


def plain(features, variances, labels=None):
    squares = torch.cdist(features.double(), features.double()).square()
    widths = torch.tensor([variances, [4 * v for v in variances]], dtype=torch.float64)
    found = (-squares / (2 * widths[..., None, None])).exp()
    return found.sum(3) if labels is None else (found * (labels[:, None] == labels)).sum(3)


@pytest.mark.parametrize("n", [1, 2, 511, 700])
@pytest.mark.parametrize("most", [256, 1])
def test_sums_are_those_of_the_double_loop(n, most, monkeypatch):
    monkeypatch.setattr(kernels, "PRODUCT_CLASSES", most)
    generator = torch.Generator().manual_seed(n)
    features = torch.randn(n, 3, generator=generator) + 5
    labels = torch.arange(n) % 4
    variances = [0.01, 1.0, 100.0]
    found = summed(features, variances, labels, 4)
    assert_close(found.sums, plain(features, variances), rtol=1e-4, atol=1e-5)
    assert_close(found.own, plain(features, variances, labels), rtol=1e-4, atol=1e-5)
    assert_close(summed(features, variances).sums, found.sums, rtol=1e-5, atol=1e-6)
    assert summed(features, variances).own is None


def test_float64_points_keep_the_digits_that_an_exponent_needs():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(300, 20, generator=generator, dtype=torch.float64) * 1e3
    found = summed(features, [1e6])
    assert_close(found.sums, plain(features, [1e6]), rtol=1e-5, atol=0)


def test_far_points_are_nothing_beside_the_point_itself():
    found = summed(torch.tensor([[0.0], [1e6]]), [1.0])
    assert_close(found.sums, torch.ones(2, 1, 2, dtype=torch.float64), rtol=0, atol=1e-9)


def test_identical_points_count_fully():
    found = summed(torch.ones(600, 2), [1e-6], torch.arange(600) % 2, 2)
    assert found.sums.unique().tolist() == [600.0]
    assert found.own.unique().tolist() == [300.0]


def test_a_variance_must_be_above_zero():
    with pytest.raises(ValueError, match=r"above 0; there was 0\.0"):
        KernelAccumulator(torch.tensor([1.0, 0.0]), 3)
