"""Decoders that are trained by gradients: one linear layer, and transposed convolutions, on a budget that is stated.

Both minimise the mean squared error by Adam (arXiv:1412.6980) from a seeded start, over seeded batches; targets are
divided by their overall deviation first, so that a rate means the same for targets of any scale. What such a decoder
reaches depends on its budget as much as on the features: see `Trained.late_progress`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from stratoscope.numerics.linear_probe import Reconstruction, Sought, summed_up
from stratoscope.numerics.ridge import inverse_deviation

NARROWEST = 16
"""Channels that a hidden map of the convolution decoder has at least."""


@dataclass(frozen=True)
class Budget:
    """How long a decoder is trained, and how.

    Attributes:
        epochs: passes over the fitted examples.
        rate: learning rate of Adam.
        decay: weight decay, added to the gradient as Adam does.
        batch: examples a step.
    """

    epochs: int = 20
    rate: float = 3e-4
    decay: float = 1e-5
    batch: int = 128

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch < 1 or not self.rate > 0 or not self.decay >= 0:
            raise ValueError(f"{self}: epochs and batch are at least 1, the rate lies above zero, the decay not below.")


@dataclass(frozen=True)
class Trained:
    """What a trained decoder says of new examples, and how its training went.

    Attributes:
        predicted: the targets of the new examples.
        curve: mean squared error of a target on the fitted examples: before training, and after each epoch.
    """

    predicted: Float[Tensor, "m q"]
    curve: tuple[float, ...]

    @property
    def late_progress(self) -> float:
        """Share of all by which the error on the fitted examples fell that it fell in the later half of the epochs.

        About a half where the training goes on as at its start, and is far from its end, however little an epoch changes;
        near 0 where it has levelled off. 1 where the error never fell below that of the start.
        """
        start, half, end = self.curve[0], self.curve[(len(self.curve) - 1) // 2], self.curve[-1]
        return min(1.0, (half - end) / (start - end)) if start > end else float(start < end)


def linear_decoder(
    features: Float[Tensor, "n D"],
    targets: Float[Tensor, "n q"],
    new: Float[Tensor, "m D"],
    budget: Budget | None = None,
    *,
    seed: int = 0,
) -> Trained:
    """One linear layer from features to targets.

    It starts as `torch.nn.Linear` does, uniform up to `D^(-1/2)`. With enough epochs and without decay it reaches the
    least squares of the fitted examples.

    Args:
        features: of the fitted examples.
        targets: of the same, best centred.
        new: features of the examples to predict.
        budget: of the training; the default without one.
        seed: of the start and of the batches; no global generator is used.

    Raises:
        ValueError: if the rows do not fit or the training diverges.

    >>> x = torch.linspace(-1, 1, 32)[:, None]
    >>> found = linear_decoder(x, 2 * x, torch.tensor([[0.5]]), Budget(epochs=400, rate=0.05, decay=0.0))
    >>> round(found.predicted.item(), 2), found.late_progress < 0.01
    (1.0, True)
    """
    generator = torch.Generator().manual_seed(seed)
    width = features.shape[1]
    weights = [
        _uniform((width, targets.shape[1]), width, features, generator),
        _uniform((targets.shape[1],), width, features, generator),
    ]
    return _train(lambda x: torch.addmm(weights[1], x, weights[0]), weights, features, targets, new, budget, generator)


def convolution_decoder(
    maps: Float[Tensor, "n C h w"],
    targets: Float[Tensor, "n c H W"],
    new: Float[Tensor, "m C h w"],
    budget: Budget | None = None,
    *,
    seed: int = 0,
) -> Trained:
    """Transposed convolutions that double a feature map until it has the size of a picture.

    Each is of kernel 4 and stride 2, followed by a ReLU but for the last; channels are halved each time, but stay at
    least 16. A map that has the picture's size already goes through one convolution of kernel 3. After the decoders of
    ClaDec (Schneider and Vlachos, arXiv:2005.13630).

    Args:
        maps: feature maps of the fitted examples.
        targets: their pictures, best centred.
        new: feature maps of the examples to predict.
        budget: of the training; the default without one.
        seed: of the start and of the batches; no global generator is used.

    Raises:
        ValueError: if a map is not a picture halved a whole number of times, or the training diverges.

    >>> picture = torch.ones(20, 1, 4, 4) * torch.linspace(-1, 1, 20)[:, None, None, None]
    >>> found = convolution_decoder(picture[:, :, ::2, ::2], picture, picture[:2, :, ::2, ::2], Budget(20, 0.03))
    >>> found.predicted.shape[1], found.curve[-1] < 0.5 * found.curve[0]
    (16, True)
    """
    generator = torch.Generator().manual_seed(seed)
    doublings = times_doubled(maps.shape[2:], targets.shape[2:])
    channels = [maps.shape[1], *(max(NARROWEST, maps.shape[1] >> i) for i in range(1, doublings)), targets.shape[1]]
    weights: list[Tensor] = []
    for given, made in pairwise(channels):
        # each pixel of a doubled map is made from 2 x 2 of the 4 x 4 weights of each channel
        shape, reach = ((given, made, 4, 4), 4 * given) if doublings else ((made, given, 3, 3), 9 * given)
        weights += [_uniform(shape, reach, maps, generator), _uniform((made,), reach, maps, generator)]

    def decoded(x: Tensor) -> Tensor:
        if not doublings:
            return functional.conv2d(x, weights[0], weights[1], padding=1).flatten(1)
        for place in range(0, len(weights), 2):
            x = functional.relu(x) if place else x
            x = functional.conv_transpose2d(x, weights[place], weights[place + 1], stride=2, padding=1)
        return x.flatten(1)

    return _train(decoded, weights, maps, targets.flatten(1), new, budget, generator)


def trained_reconstruction(
    decode: Callable[[Tensor, Tensor, Tensor], Trained],
    features: Sequence[tuple[Tensor, Tensor]],
    tested: Sequence[Int[Tensor, " m"]],
    sought: Sequence[Sought],
    group: Int[Tensor, " n"],
    *,
    shape: tuple[int, ...] | None = None,
    numbers: int | None = None,
) -> Reconstruction:
    """How much of the inputs a trained decoder rebuilds on examples that it was not fitted to.

    Args:
        decode: trains on features and targets, and predicts those of further features.
        features: of the rows that each fold fits, and of those that it predicts.
        tested: the rows that each fold predicts.
        sought: the targets of the same folds.
        group: which rows belong together, counted from 0; one example for the standard error.
        shape: of a target, where it is not a row of numbers.
        numbers: how many numbers the targets stand for, where they are a projection.

    Raises:
        ValueError: as `decode` does.
    """
    missed, fitted, late = [], [], []
    for (train, new), targets in zip(features, sought, strict=True):
        known = targets.train.centred
        found = decode(train, known if shape is None else known.unflatten(1, shape), new)
        rest = targets.test - found.predicted.to(targets.test)
        missed.append(torch.linalg.vector_norm(rest, dim=1).double().square())
        fitted.append(found.curve[-1] * known.numel())
        late.append(found.late_progress)
    return replace(summed_up(tested, sought, missed, fitted, group, numbers=numbers), late_progress=max(late))


def standardised_maps(
    maps: Float[Tensor, "n C h w"], new: Float[Tensor, "m C h w"], *, divide: bool = True
) -> tuple[Float[Tensor, "n C h w"], Float[Tensor, "m C h w"]]:
    """Feature maps less the mean of each channel, and over its deviation over the fitted examples and positions.

    Args:
        maps: of the fitted examples.
        new: of the examples to predict, standardised by those fitted.
        divide: by the deviation; else channels keep their scales. Constant channels count for nothing either way.

    >>> one, other = standardised_maps(torch.tensor([-2.0, 2.0]).reshape(1, 1, 1, 2), torch.ones(1, 1, 1, 2))
    >>> other.flatten().tolist()
    [0.5, 0.5]
    """
    mean = maps.mean((0, 2, 3), keepdim=True)
    scale = inverse_deviation(maps.movedim(1, -1).flatten(0, 2), maps.dtype, divide)[:, None, None]
    return (maps - mean) * scale, (new - mean) * scale


def times_doubled(small: Sequence[int], large: Sequence[int]) -> int:
    """How often the sides of a map are doubled until they are those of a picture.

    Raises:
        ValueError: if they never are.

    >>> times_doubled((7, 7), (28, 28))
    2
    """
    ratio = large[0] // max(1, small[0])
    doublings = max(0, ratio.bit_length() - 1)
    if [side << doublings for side in small] != list(large):
        raise ValueError(
            f"a map of {' x '.join(map(str, small))} is no picture of {' x '.join(map(str, large))} halved a whole "
            "number of times"
        )
    return doublings


def _uniform(shape: tuple[int, ...], reach: int, like: Tensor, generator: torch.Generator) -> Tensor:
    """Uniform between plus and minus the root of one over `reach`; the same numbers for every type."""
    drawn = torch.rand(shape, generator=generator, dtype=torch.float64)
    return ((2 * drawn - 1) / math.sqrt(reach)).to(like.device, like.dtype)


def _train(
    decoder: Callable[[Tensor], Tensor],
    weights: list[Tensor],
    features: Tensor,
    targets: Tensor,
    new: Tensor,
    budget: Budget | None,
    generator: torch.Generator,
) -> Trained:
    budget = budget or Budget()
    if len(features) != len(targets) or len(features) == 0:
        raise ValueError(f"{len(features)} examples need as many rows of targets, and one; there were {len(targets)}.")
    with torch.inference_mode(mode=False), torch.enable_grad():
        scale = float(targets.square().mean().sqrt()) or 1.0
        sought = (targets / scale).to(features)
        weights[:] = [
            weight.clone().requires_grad_() for weight in weights
        ]  # those of inference mode take no gradients
        adam = torch.optim.Adam(weights, lr=budget.rate, weight_decay=budget.decay)
        curve = [_error(decoder, features, sought, budget.batch)]
        for _ in range(budget.epochs):
            for rows in torch.randperm(len(features), generator=generator).to(features.device).split(budget.batch):
                adam.zero_grad()
                functional.mse_loss(decoder(features[rows]), sought[rows]).backward()
                adam.step()
            curve.append(_error(decoder, features, sought, budget.batch))
        if not all(map(math.isfinite, curve)):
            raise ValueError(f"the decoder's training diverged at a rate of {budget.rate:g}; take a smaller one")
        with torch.no_grad():
            predicted = torch.cat([decoder(part) for part in new.split(budget.batch)]) * scale
    return Trained(predicted, tuple(error * scale**2 for error in curve))


@torch.no_grad()
def _error(decoder: Callable[[Tensor], Tensor], features: Tensor, sought: Tensor, batch: int) -> float:
    parts = zip(features.split(batch), sought.split(batch), strict=True)
    return sum(float((decoder(x) - y).square().sum(dtype=torch.float64)) for x, y in parts) / sought.numel()
