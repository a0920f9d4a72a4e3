"""Decoders trained by gradients: the least squares they end at, what a budget leaves out, seeds, shapes, bad input."""

import itertools
import math

import pytest
import torch

from stratoscope.numerics.decoders import (
    Budget,
    Trained,
    convolution_decoder,
    linear_decoder,
    standardised_maps,
    times_doubled,
    trained_reconstruction,
)
from stratoscope.numerics.linear_probe import Sought, cross_fitted, reconstruction, stratified
from stratoscope.numerics.ridge import Basis, ridge


def gaussian(*shape, seed, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def distance(one, other):
    return float(torch.linalg.vector_norm(one - other) / torch.linalg.vector_norm(other))


def test_a_linear_decoder_approaches_least_squares_with_more_epochs():
    x, new = gaussian(200, 5, seed=0), gaussian(20, 5, seed=1)
    y = x @ gaussian(5, 7, seed=2) + 0.5 * gaussian(200, 7, seed=3)
    y = y - y.mean(0)
    solution = ridge(Basis.of(x, standardise=False), y, strengths=[1e-12]).predict(new)
    away = [
        distance(linear_decoder(x, y, new, Budget(epochs, rate=0.03, decay=0.0, batch=200)).predicted, solution)
        for epochs in (5, 50, 300)
    ]
    assert away == sorted(away, reverse=True)
    assert away[0] > 0.3
    assert away[-1] < 1e-3


def test_weight_decay_is_ridge_regression():
    """Adam adds the decay to the gradient; where that vanishes, so does that of a ridge regression (bias and all)."""
    x, new = gaussian(100, 3, seed=4), gaussian(10, 3, seed=5)
    y = x @ gaussian(3, 2, seed=6) + 0.3 * gaussian(100, 2, seed=7)
    decay = 0.2
    design = torch.cat([x, torch.ones(100, 1)], 1)
    # the error is a mean over examples and over targets
    normal = design.mT @ design / (100 * 2) * 2 + decay * torch.eye(4)
    weights = torch.linalg.solve(normal, design.mT @ y / (100 * 2) * 2)
    expected = torch.cat([new, torch.ones(10, 1)], 1) @ weights
    found = linear_decoder(x, y, new, Budget(400, rate=0.03, decay=decay, batch=100)).predicted
    assert distance(found, expected) < 1e-3


def test_the_curve_is_the_error_on_the_fitted_examples():
    x, y = gaussian(60, 4, seed=8), gaussian(60, 3, seed=9)
    found = linear_decoder(x, y, x, Budget(7, rate=0.01, batch=16))
    assert len(found.curve) == 8
    assert found.curve[-1] == pytest.approx(float((found.predicted - y).square().mean()))
    assert found.curve[0] == pytest.approx(float(y.square().mean()), rel=1)  # a random start of small weights
    assert found.curve[0] > found.curve[-1]


def test_late_progress_is_that_of_the_later_half():
    nothing = torch.empty(0)
    assert Trained(nothing, (9.0, 5.0, 4.0, 3.5, 3.0)).late_progress == pytest.approx(1 / 6)
    assert Trained(nothing, (9.0, 5.0, 4.0, 3.0)).late_progress == pytest.approx(2 / 6)
    assert Trained(nothing, (9.0, 8.0, 7.0, 6.0, 5.0)).late_progress == pytest.approx(0.5)
    assert Trained(nothing, (9.0, 3.0, 3.5)).late_progress < 0
    assert Trained(nothing, (9.0, 8.0)).late_progress == 1
    assert Trained(nothing, (9.0, 12.0, 10.0)).late_progress == 1
    assert Trained(nothing, (0.0, 0.0)).late_progress == 0


def test_a_short_training_has_not_levelled_off_and_a_long_one_has():
    """However little an epoch changes: of 20 steps at the usual rate each changes the error by a thousandth."""
    x = gaussian(100, 4, seed=10)
    y = x @ gaussian(4, 4, seed=11) + gaussian(100, 4, seed=12)
    y = y - y.mean(0)
    short = linear_decoder(x, y, x, Budget(20))
    assert short.curve[-2] / short.curve[-1] < 1.01
    assert short.late_progress == pytest.approx(0.5, abs=0.1)
    assert abs(linear_decoder(x, y, x, Budget(100, rate=0.1, batch=100)).late_progress) < 0.01


def test_smaller_features_learn_less_within_the_same_epochs():
    """The confounder for which features are standardised."""
    x = gaussian(200, 10, seed=13)
    y = x @ gaussian(10, 5, seed=14)
    trained = [linear_decoder(scale * x, y, x, Budget(20, rate=0.03)) for scale in (1.0, 0.1, 0.01)]
    errors = [found.curve[-1] for found in trained]
    assert errors == sorted(errors)
    assert errors[-1] > 20 * errors[0]


def test_targets_of_any_scale_learn_alike():
    x = gaussian(80, 6, seed=15)
    y = x @ gaussian(6, 5, seed=16)
    one, other = linear_decoder(x, y, x, Budget(5)), linear_decoder(x, 255 * y, x, Budget(5))
    torch.testing.assert_close(other.predicted, 255 * one.predicted)
    assert other.late_progress == pytest.approx(one.late_progress)


def test_a_map_of_a_picture_is_rebuilt_by_convolutions():
    """A map made by shrinking a smooth picture: to blow it up again is what the decoder has to find."""
    coarse = gaussian(60, 1, 4, 4, seed=17)
    pictures = torch.nn.functional.interpolate(coarse, scale_factor=4, mode="bilinear")
    maps = torch.nn.functional.avg_pool2d(pictures, 4)
    found = convolution_decoder(maps[:50], pictures[:50], maps[50:], Budget(150, rate=0.01, batch=10))
    missed = float((found.predicted - pictures[50:].flatten(1)).square().mean() / pictures.square().mean())
    assert missed < 0.1
    noise = convolution_decoder(gaussian(50, 1, 4, 4, seed=18), pictures[:50], maps[50:], Budget(20, rate=0.01))
    assert float((noise.predicted - pictures[50:].flatten(1)).square().mean() / pictures.square().mean()) > 0.8


def test_a_map_of_the_size_of_the_picture_is_rebuilt_by_one_convolution():
    maps = gaussian(40, 3, 6, 5, seed=19)
    kernel = gaussian(2, 3, 3, 3, seed=20)
    pictures = torch.nn.functional.conv2d(maps, kernel, padding=1)
    found = convolution_decoder(maps, pictures, maps, Budget(300, rate=0.03, decay=0.0, batch=40))
    assert found.curve[-1] < 1e-3 * float(pictures.square().mean())


@pytest.mark.parametrize("size", [(1, 1), (2, 4), (8, 16)])
def test_every_doubling_gives_the_size_of_the_picture(size):
    maps, pictures = gaussian(4, 40, *size, seed=21), gaussian(4, 3, 8, 16, seed=22)
    if size == (1, 1):
        with pytest.raises(ValueError, match="a map of 1 x 1 is no picture of 8 x 16 halved a whole number of times"):
            convolution_decoder(maps, pictures, maps, Budget(1))
        return
    assert convolution_decoder(maps, pictures, maps, Budget(1)).predicted.shape == (4, 3 * 8 * 16)


@pytest.mark.parametrize(
    ("small", "large", "times"), [((1, 1), (32, 32), 5), ((28, 28), (28, 28), 0), ((7, 14), (28, 56), 2)]
)
def test_doublings_are_counted(small, large, times):
    assert times_doubled(small, large) == times


@pytest.mark.parametrize(
    ("small", "large"),
    [((24, 24), (28, 28)), ((10, 10), (30, 30)), ((4, 8), (8, 8)), ((32, 32), (16, 16)), ((0, 0), (4, 4))],
)
def test_what_is_no_halved_picture_is_refused(small, large):
    with pytest.raises(ValueError, match="halved a whole"):
        times_doubled(small, large)


def test_maps_are_standardised_by_the_fitted_ones_channel_by_channel():
    maps, new = 5 * gaussian(30, 4, 3, 3, seed=23) + 2, gaussian(6, 4, 3, 3, seed=24)
    maps[:, 2] = 0.7
    for divide in (True, False):
        one, other = standardised_maps(maps, new, divide=divide)
        for channel in range(4):
            mean, deviation = maps[:, channel].mean(), maps[:, channel].std(correction=0)
            for given, found in ((maps, one), (new, other)):
                expected = torch.zeros_like(given[:, channel])
                if channel != 2:
                    expected = (given[:, channel] - mean) / (deviation if divide else 1)
                torch.testing.assert_close(found[:, channel], expected)


def test_the_reconstruction_of_folds_is_the_plain_loop():
    x, y, group = gaussian(60, 4, seed=25), gaussian(60, 6, seed=26), torch.arange(60)
    y = y + x @ gaussian(4, 6, seed=27)
    fold = stratified(torch.zeros(60, dtype=torch.int64), group, 2, seed=0)
    folds = cross_fitted(x, fold)
    sought = [Sought.of(y, f.train, f.test) for f in folds]
    budget = Budget(30, rate=0.03, batch=10)
    found = trained_reconstruction(
        lambda *one: linear_decoder(*one, budget, seed=5),
        [(f.basis.rows, f.basis.standardised(x[f.test])) for f in folds], [f.test for f in folds], sought, group, numbers=12,
    )  # fmt: skip
    error = floor = fitted = known = 0.0
    late = []
    for k in range(2):
        train, test = fold != k, fold == k
        mean, scale = x[train].mean(0), x[train].std(0, correction=0)
        middle = y[train].mean(0)
        told = linear_decoder((x[train] - mean) / scale, y[train] - middle, (x[test] - mean) / scale, budget, seed=5)
        error += float((told.predicted + middle - y[test]).square().sum())
        floor += float((middle - y[test]).square().sum())
        fitted += told.curve[-1] * 30 * 6
        known += float((middle - y[train]).square().sum())
        late.append(told.late_progress)
    assert found.r2 == pytest.approx(1 - error / floor)
    assert (found.error, found.floor) == pytest.approx((error / 60 / 12, floor / 60 / 12))
    assert found.fitted_r2 == pytest.approx(1 - fitted / known)
    assert found.late_progress == pytest.approx(max(late))
    assert math.isnan(found.degrees)
    assert math.isnan(found.strength)
    closed = reconstruction(folds, sought, group, numbers=12)
    assert found.r2 <= closed.r2 + 0.05
    assert math.isnan(closed.late_progress)


def test_the_same_seed_is_the_same_decoder_and_no_global_generator_moves():
    x, y = gaussian(50, 4, seed=28), gaussian(50, 3, seed=29)
    before = torch.get_rng_state()
    one, same, other = (linear_decoder(x, y, x, Budget(3, batch=8), seed=s).predicted for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    maps, pictures = gaussian(10, 2, 2, 2, seed=30), gaussian(10, 1, 4, 4, seed=31)
    one, same = (convolution_decoder(maps, pictures, maps, Budget(2, batch=4), seed=3).predicted for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one, same)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_it_trains_wherever_it_is_called_and_changes_nothing_given(mode):
    with mode():
        x, y = gaussian(40, 4, seed=32), gaussian(40, 3, seed=33)
        before = x.clone(), y.clone()
        found = linear_decoder(x, y, x, Budget(30, rate=0.01))
        assert not torch.is_grad_enabled()
    assert found.curve[-1] < found.curve[0]
    assert not found.predicted.requires_grad
    assert torch.equal(x, before[0])
    assert torch.equal(y, before[1])


def test_float32_and_float64_agree():
    x, y = gaussian(50, 4, seed=34), gaussian(50, 3, seed=35)
    one, other = (
        linear_decoder(x.to(t), y.to(t), x.to(t), Budget(5, batch=16)) for t in (torch.float32, torch.float64)
    )
    torch.testing.assert_close(one.predicted.double(), other.predicted, rtol=1e-4, atol=1e-5)
    assert one.curve == pytest.approx(other.curve, rel=1e-5)


def test_constant_targets_are_rebuilt_as_they_are():
    x = gaussian(30, 2, seed=36)
    found = linear_decoder(x, torch.zeros(30, 3), x, Budget(200, rate=0.02, decay=0.0))
    assert float(found.predicted.abs().max()) < 0.05


@pytest.mark.parametrize(
    "wrong", [{"epochs": 0}, {"batch": 0}, {"rate": 0.0}, {"rate": -1.0}, {"rate": math.nan}, {"decay": -0.1}]
)
def test_budgets_are_checked(wrong):
    with pytest.raises(ValueError, match="epochs and batch are at least 1"):
        Budget(**wrong)


def test_bad_input_is_refused_in_words():
    x, y = gaussian(10, 2, seed=37), gaussian(10, 2, seed=38)
    with pytest.raises(ValueError, match="10 examples need as many rows of targets, and one; there were 9"):
        linear_decoder(x, y[:9], x)
    with pytest.raises(ValueError, match="0 examples need"):
        linear_decoder(x[:0], y[:0], x)
    x[3, 0] = math.nan
    with pytest.raises(ValueError, match=r"diverged at a rate of 0\.0003; take a smaller one"):
        linear_decoder(x, y, x, Budget(1))


def test_epochs_see_every_example_once():
    """A step for each batch, the last one smaller: the number of steps shows in how far a constant pull moves a weight."""
    seen = []
    x = torch.arange(10, dtype=torch.float64)[:, None]
    plain = torch.nn.functional.mse_loss
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.functional, "mse_loss", lambda a, b: seen.append(b) or plain(a, b))
        linear_decoder(x, x, x, Budget(2, batch=4))
    assert [len(batch) for batch in seen] == [4, 4, 2, 4, 4, 2]
    for epoch in itertools.batched(seen, 3) if hasattr(itertools, "batched") else (seen[:3], seen[3:]):
        scale = float(x.square().mean().sqrt())
        torch.testing.assert_close(torch.cat(list(epoch)).sort(0).values * scale, x)
