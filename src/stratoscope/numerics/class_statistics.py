"""Statistics of a layer's activations, taken within each class and averaged over the classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from stratoscope.numerics.activation_statistics import Ranks, constant_units, drawn_units, ranks_of
from stratoscope.numerics.matrices import at_least_float32, largest_entry, not_finite, power_of_two, widened
from stratoscope.numerics.separation import alike_batches

TOGETHER = 2**21
"""Correlations that are held at a time."""


@dataclass(frozen=True)
class ClassStatistics:
    """Means over the classes of what each class reads on its own.

    Attributes:
        classes: classes that were looked at, of two examples and more.
        skipped: classes of one example, left out together with it.
        n: examples that were looked at.
        freedom: mean of `1 - 1/n_c`, to which the variance within random classes is reduced.
        correlation: mean absolute Pearson correlation over pairs of units that vary within the class. For a class of
            two it is 1, whatever the units do.
        variance: population variance around the class's own mean, mean over all units.
        sparsity: share of outputs that are exactly zero.
        raw: ranks of the class's activations as they are.
        centred: ranks after the class's own mean is taken off.
    """

    classes: int
    skipped: int
    n: int
    freedom: float
    correlation: float
    variance: float
    sparsity: float
    raw: Ranks
    centred: Ranks


def class_statistics(
    features: Shaped[Tensor, "n D"],
    labels: Int[Tensor, " n"],
    *,
    most_units: int = 256,
    most_classes: int | None = None,
    seed: int = 0,
) -> ClassStatistics:
    """Correlation, variance, sparsity and ranks within classes (Choi et al., arXiv:1811.03666).

    Classes weigh the same, whatever their sizes; one that has no value (no two units that vary, nothing but zero)
    is left out of that mean. What these numbers are without any class structure depends on the sizes of the
    classes: compare with `random_classes` of the same labels. There variance and sparsity have closed forms: the
    mean variance is `S^2 (1 - mean_c 1/n_c)` with `S^2` the unbiased variance of all, the sparsity that of all.

    Ranks are computed as by `activation_statistics`, for many classes at once: by Gram matrices in float64 unless the
    activations themselves are float64. Time `n D min(n_c, D)`.

    Args:
        features: one example a row.
        labels: class of each example; any integers.
        most_units: units among which correlations are taken at most, drawn by seed.
        most_classes: classes that are looked at, from the smallest to the largest in even steps; all if not given.
        seed: of the draw of units.

    Raises:
        ValueError: if the shapes do not fit, an entry is not finite, or no class has two examples.

    >>> rows = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 5.0], [0.0, 7.0]])
    >>> found = class_statistics(rows, torch.tensor([4, 4, 9, 9]))
    >>> found.variance, found.sparsity, found.centred.numerical
    (0.5, 0.5, 1.0)
    """
    _check(features, labels)
    values = at_least_float32(features.detach())
    names, places, counts = torch.unique(labels.to(values.device), return_inverse=True, return_counts=True)
    usable = (counts > 1).nonzero()[:, 0].tolist()
    if not usable:
        raise ValueError(f"Statistics within classes need a class of two examples; {len(names)} classes have one each.")
    by_class = torch.split(places.argsort(stable=True), counts.tolist())
    members = _spread([by_class[c] for c in usable], most_classes)
    scale = power_of_two(largest_entry(values))
    units = drawn_units(values.amax(0) > values.amin(0), most_units, seed)
    found = [
        one
        for batch in alike_batches([len(rows) for rows in members], values.shape[1])
        for one in _Side.of(values, [members[place] for place in batch], scale, features.dtype).each(units)
    ]
    return ClassStatistics(
        classes=len(members),
        skipped=len(names) - len(usable),
        n=sum(map(len, members)),
        freedom=_mean([1 - 1 / len(rows) for rows in members]),
        correlation=_mean([one.correlation for one in found]),
        variance=_mean([one.variance for one in found]) * scale * scale,
        sparsity=_mean([one.sparsity for one in found]),
        raw=_mean_ranks([one.raw for one in found]),
        centred=_mean_ranks([one.centred for one in found]),
    )


def random_classes(labels: Int[Tensor, " n"], seed: int) -> Int[Tensor, " n"]:
    """The same labels in an order drawn by seed: classes of the same sizes that say nothing.

    >>> random_classes(torch.tensor([0, 0, 1]), seed=0).sort().values.tolist()
    [0, 0, 1]
    """
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    return labels[order.to(labels.device)]


@dataclass(frozen=True)
class _Side:
    """Classes side by side, padded with rows of zeros to the length of the largest.

    Attributes:
        values: the activations over `scale`.
        centred: the same around each class's own mean.
        real: which rows are examples.
        counts: examples of each class.
        stored: type of the activations as they came.
    """

    values: Float[Tensor, "B m D"]
    centred: Float[Tensor, "B m D"]
    real: Bool[Tensor, "B m"]
    counts: Int[Tensor, " B"]
    stored: torch.dtype

    @classmethod
    def of(cls, values: Tensor, members: Sequence[Tensor], scale: float, stored: torch.dtype) -> _Side:
        places = pad_sequence(list(members), batch_first=True, padding_value=-1)
        real = places >= 0
        block = widened(values[places.clamp(min=0)], scale)
        real = real.to(block.device)
        block.masked_fill_(~real[..., None], 0.0)
        counts = real.sum(1)
        centred = block - block.sum(1, keepdim=True) / counts[:, None, None]
        return cls(block, centred.masked_fill_(~real[..., None], 0.0), real, counts, stored)

    def each(self, units: Tensor) -> list[_Class]:
        """What each class reads."""
        variance = self.centred.square().sum(1) / self.counts[:, None]
        constant = constant_units(variance.sqrt(), self.values.abs().amax(1), self.stored)
        variance = variance.where(~constant, 0.0)
        zeros = self.values.shape[1] * self.values.shape[2] - torch.count_nonzero(self.values, (1, 2))
        padding = (self.values.shape[1] - self.counts) * self.values.shape[2]
        sparsity = (zeros - padding) / (self.counts * self.values.shape[2])
        norms = self.values.square().sum((1, 2)).sqrt().cpu()
        about = (self.counts.cpu(), self.values.shape[2], norms, self.stored)
        columns = (
            self._correlations(units, variance), variance.mean(1).tolist(), sparsity.tolist(),
            ranks_of(self._singular_values(self.values), *about), ranks_of(self._singular_values(self.centred), *about),
        )  # fmt: skip
        return [_Class(*row) for row in zip(*columns, strict=True)]

    def _singular_values(self, matrices: Tensor) -> Tensor:
        if self.stored == torch.float64:
            direct: Tensor = torch.linalg.svdvals(matrices).cpu()
            return direct
        wide = matrices.shape[1] < matrices.shape[2]
        grams = matrices @ matrices.mT if wide else matrices.mT @ matrices
        # torch's library takes twice as long on many processors
        eigenvalues = torch.from_numpy(np.linalg.eigvalsh(grams.cpu().numpy())).flip(1)
        rounding = eigenvalues.shape[1] * torch.finfo(torch.float64).eps * eigenvalues[:, :1]
        return eigenvalues.where(eigenvalues > rounding, 0.0).sqrt()

    def _correlations(self, units: Tensor, variance: Tensor) -> list[float]:
        chosen = variance[:, units]
        scale = (chosen * self.counts[:, None]).rsqrt().where(chosen > 0, 0.0)
        standard = (self.centred[:, :, units] * scale[:, None]).to(torch.promote_types(self.stored, torch.float32))
        sums = [
            # the lower triangle twice, and the diagonal once
            (part.mT @ part).abs_().clamp_(max=1).sum((1, 2), dtype=torch.float64)
            for part in standard.split(max(1, TOGETHER // max(1, len(units)) ** 2))
        ]
        lively = (chosen > 0).sum(1)
        pairs = lively * (lively - 1)
        # a unit's product with itself is 1 to within rounding
        means = (torch.cat(sums) - lively) / pairs
        return [float(mean) if count else math.nan for mean, count in zip(means, pairs.tolist(), strict=True)]


@dataclass(frozen=True)
class _Class:
    """What one class reads."""

    correlation: float
    variance: float
    sparsity: float
    raw: Ranks
    centred: Ranks


def _spread(members: list[Tensor], most: int | None) -> list[Tensor]:
    """At most so many classes, of all sizes."""
    if most is None or len(members) <= most:
        return members
    by_size = sorted(members, key=len)
    return [by_size[(2 * place + 1) * len(members) // (2 * most)] for place in range(most)]


def _check(features: Tensor, labels: Tensor) -> None:
    if features.ndim != 2 or labels.shape != features.shape[:1] or features.shape[1] == 0:
        raise ValueError(
            f"Statistics within classes take features of shape (n, D) and n labels; there was {tuple(features.shape)} "
            f"and {tuple(labels.shape)}."
        )
    if not features.is_floating_point() or labels.is_floating_point():
        raise ValueError(f"Features are numbers and labels integers; they were {features.dtype} and {labels.dtype}.")
    if bad := not_finite(features):
        raise ValueError(f"Statistics need finite activations; {bad} of {features.numel()} are NaN or infinite.")


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def _mean_ranks(ranks: Sequence[Ranks]) -> Ranks:
    return Ranks(
        _mean([one.numerical for one in ranks]),
        _mean([one.stable for one in ranks]),
        _mean([one.effective for one in ranks]),
    )
