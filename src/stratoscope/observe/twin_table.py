"""The statistics of a layer before and after a change of its units, beside what theory says of each."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from stratoscope.capture.activations import Activations, Sample
from stratoscope.capture.pairs import Kernels, KernelSums
from stratoscope.numerics.activation_statistics import activation_statistics
from stratoscope.numerics.binned_information import binned_information
from stratoscope.numerics.change_of_basis import ChangeOfBasis, stays
from stratoscope.numerics.class_statistics import class_statistics
from stratoscope.numerics.collapse import collapse
from stratoscope.numerics.entropy import EqualWidth
from stratoscope.numerics.kernel_information import kernel_information
from stratoscope.numerics.scatter import Scatter
from stratoscope.numerics.separation import gdv
from stratoscope.numerics.similarity import linear_cka

SAME = 1e-5
"""Relative difference up to which a statistic counts as unchanged: kernels are summed in float32."""

ROUNDING = 1e-10
"""Share of the norm of all activations below which a direction tells nothing."""

SPANNED = 1e-4
"""Extent of the class means along a direction, as a share of the largest, from which it counts as one."""

BINS = 30
NOISE = (("relative", 0.1),)
"""Variance of the kernels: a tenth of the mean variance of a unit."""


@dataclass(frozen=True)
class Compared:
    """One statistic of a layer and of its twin.

    Attributes:
        before: of the model.
        after: of the twin.
        stays: whether theory says that this map leaves it as it is; if not, almost every map of its kind changes it.
        changed: whether it is another number, beyond rounding.
    """

    before: float
    after: float
    stays: bool
    changed: bool


def compare(before: Sample, after: Sample, change: ChangeOfBasis) -> dict[str, Compared]:
    """Every statistic of `numerics.change_of_basis.INVARIANCES` that can be measured, by name.

    Args:
        before: of the model, in float64.
        after: the same examples of the twin.
        change: the map between them.
    """
    one, two = _statistics(before, before), _statistics(after, before)
    classes = min(_classes_that_span(sample) for sample in (before, after))
    return {
        name: Compared(one[name], two[name], stays(name, change, classes=classes), not _same(one[name], two[name]))
        for name in one
    }


def linear_readout(features: Float[Tensor, "n D"], labels: Int[Tensor, " n"]) -> float:
    """Share of the variance of one-hot classes that least squares with an intercept explain, in `[0, 1]`.

    In sample and without regularisation: 1 as soon as there are as many units as examples. The same for all activations
    that an invertible affine map turns into each other. Directions of less than 1e-10 of the activations' norm are taken
    for rounding.

    >>> linear_readout(torch.tensor([[0.0], [0.0], [3.0], [3.0]]), torch.tensor([1, 1, 0, 0]))
    1.0
    """
    classes = torch.nn.functional.one_hot(labels.unique(return_inverse=True)[1]).double()
    centred, sought = features.double() - features.double().mean(0), classes - classes.mean(0)
    directions, values, _ = torch.linalg.svd(centred, full_matrices=False)
    usable = values > ROUNDING * torch.linalg.vector_norm(features.double())
    total = float(sought.square().sum())
    return float((directions[:, usable].T @ sought).square().sum()) / total if total else math.nan


def _statistics(sample: Sample, reference: Sample) -> dict[str, float]:
    rows, labels = sample.features, sample.labels
    plain = activation_statistics(rows, most_units=rows.shape[1])
    found = {
        "correlation": plain.correlation,
        "variance": plain.variance,
        "sparsity": plain.sparsity,
        "rank": plain.raw.numerical,
        "rank_centred": plain.centred.numerical,
        "stable_rank": plain.raw.stable,
        "stable_rank_centred": plain.centred.stable,
        "effective_rank": plain.raw.effective,
        "effective_rank_centred": plain.centred.effective,
        "kernel_information": _kernel_information(sample),
        "binned_information": binned_information(
            rows.numpy(), EqualWidth(float(rows.min()), float(rows.max()), BINS)
        ).x,
    }
    if len(rows) > 3:
        found["cka"] = float(linear_cka(reference.features, rows, standard_error=False).debiased)
    if labels is None or len(_sizes(labels)) < 2:
        return found
    return found | _of_classes(rows, labels)


def _classes_that_span(sample: Sample) -> int:
    """Classes, if their means clearly extend along as many directions as there are units; else 0.

    Otherwise NC1 is made of what rounding or a tolerance leaves of a direction.
    """
    if sample.labels is None or len(_sizes(sample.labels)) < 2:
        return 0
    found = _scatter(sample.features, sample.labels).result()
    means = found.means[found.counts > 1]
    extents = torch.linalg.svdvals(means - means.mean(0))
    spanned = int((extents > SPANNED * extents[0]).sum())
    return len(means) if spanned == found.width else 0


def _scatter(rows: Tensor, labels: Tensor) -> Scatter:
    scatter = Scatter()
    scatter.update(rows, labels)
    return scatter


def _sizes(labels: Int[Tensor, " n"]) -> list[int]:
    """Sizes of the classes that count: those of two examples and more."""
    return [size for size in labels.unique(return_counts=True)[1].tolist() if size > 1]


def _of_classes(rows: Tensor, labels: Tensor) -> dict[str, float]:
    each = class_statistics(rows, labels, most_units=rows.shape[1])
    return {
        "class_correlation": each.correlation,
        "class_variance": each.variance,
        "class_sparsity": each.sparsity,
        "class_rank_centred": each.centred.numerical,
        "class_stable_rank_centred": each.centred.stable,
        "gdv": gdv(rows, labels, permutations=0).gdv,
        "nc1": collapse(_scatter(rows, labels).result()).nc1,
        "linear_readout": linear_readout(rows, labels),
    }


def _kernel_information(sample: Sample) -> float:
    """Upper bound of what a unit with added noise tells about the input."""
    need = KernelSums(Activations(n=len(sample.features)), NOISE)
    found = KernelSums.work_out([need], Sample(sample.features, None, sample.ids, sample.width_from, sample.note))[need]
    assert isinstance(found, Kernels)
    return float(kernel_information(found.variances.numpy(), found.sums.numpy()).x_high[0])


def _same(one: float, two: float) -> bool:
    return (math.isnan(one) and math.isnan(two)) or math.isclose(one, two, rel_tol=SAME, abs_tol=1e-9)
