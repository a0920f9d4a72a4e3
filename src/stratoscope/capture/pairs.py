"""What follows from the distances between the examples of a sample: one blocked pass serves everybody who asks.

Kernel sums and neighbours are distances between activations as they are; the generalized discrimination value is made of
standardised ones, which is a pass of its own. The matrix of distances is never held.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from stratoscope.capture.activations import Activations, Sample
from stratoscope.capture.needs import Worked
from stratoscope.errors import NotApplicable, SettingError
from stratoscope.numerics.distances import PairAccumulator, pair_pass
from stratoscope.numerics.kernels import KernelAccumulator
from stratoscope.numerics.matrices import not_finite
from stratoscope.numerics.moments import Moments
from stratoscope.numerics.neighbours import NeighbourAccumulator, centred
from stratoscope.numerics.separation import ClassSeparation, gdv

if TYPE_CHECKING:
    from typing import Self

VARIANCES = (("relative", 0.01), ("relative", 0.1), ("relative", 1.0), ("absolute", 1e-3))


@dataclass(frozen=True)
class Kernels:
    """Gaussian kernel sums of a sample.

    Attributes:
        variances: of the noise; a relative one times the mean variance of a unit.
        sums: `sum_j exp(-d_ij^2 / 2v)` over all examples, each itself included: at `v` (first) and at `4 v`.
        own: the same over each example's own class; `None` where there are no labels.
    """

    variances: Float[Tensor, " V"]
    sums: Float[Tensor, "2 V n"]
    own: Float[Tensor, "2 V n"] | None


class PairNeed(Worked):
    """A need that is worked out from the distances within a sample."""

    of: Activations

    @classmethod
    def family(cls) -> type[Worked]:
        """All of them together."""
        return PairNeed

    @classmethod
    def work_out(cls, needs: Sequence[Self], value: Sample) -> dict[Any, Any]:
        """One pass over the distances for all but the standardised ones."""
        bad = not_finite(value.features)
        if bad:
            refusal = NotApplicable(f"{bad:,} of {value.features.numel():,} numbers that it gives are NaN or infinite")
            return dict.fromkeys(needs, refusal)
        found: dict[Any, Any] = {need: _separation(need, value) for need in needs if isinstance(need, ClassDistances)}
        return found | _plain(value, [need for need in needs if not isinstance(need, ClassDistances)])


@dataclass(frozen=True)
class KernelSums(PairNeed):
    """Sums of Gaussian kernels, from which bounds of mixture entropies follow; the value is a `Kernels`.

    Attributes:
        of: the sample.
        variances: pairs of `"relative"` (times the mean variance of a unit) or `"absolute"`, and a number above 0.
    """

    of: Activations
    variances: tuple[tuple[str, float], ...] = VARIANCES

    def __post_init__(self) -> None:
        if not self.variances or any(kind not in ("relative", "absolute") or not v > 0 for kind, v in self.variances):
            raise SettingError(
                f"KernelSums(variances={self.variances}): give pairs of 'relative' or 'absolute' and a number above 0."
            )

    def of_sample(self, features: Float[Tensor, "n D"]) -> Float[Tensor, " V"]:
        """The variances for one sample; a relative one of a constant layer is 1, so that kernels are all 1."""
        moments = Moments()
        moments.update(features)
        unit = float(moments.variance().mean())
        return torch.tensor(
            [value * (unit or 1.0 / value) if kind == "relative" else value for kind, value in self.variances],
            dtype=torch.float64,
        )


@dataclass(frozen=True)
class Neighbours(PairNeed):
    """The nearest neighbours of each example; the value is a `NearestNeighbours`.

    Attributes:
        of: the sample.
        k: how many; fewer where the sample has fewer other examples.
    """

    of: Activations
    k: int = 20

    def __post_init__(self) -> None:
        if self.k < 1:
            raise SettingError(f"Neighbours(k={self.k}): ask for at least 1.")


@dataclass(frozen=True)
class ClassDistances(PairNeed):
    """Distances within and between classes; the value is a `ClassSeparation`.

    Attributes:
        of: the sample.
        permutations: shuffles of the labels for the null.
        seed: of the shuffles.
    """

    of: Activations
    permutations: int = 20
    seed: int = 0


def _separation(need: ClassDistances, sample: Sample) -> ClassSeparation | NotApplicable:
    if sample.labels is None:
        return NotApplicable("the data have no class labels, one integer an example")
    sizes = torch.unique(sample.labels, return_counts=True)[1]
    if int((sizes > 1).sum()) < 2:
        return NotApplicable(f"{len(sizes)} classes in {len(sample.labels)} examples, and two of two are needed")
    return gdv(sample.features, sample.labels, permutations=need.permutations, seed=need.seed)


def _plain(sample: Sample, needs: Sequence[Any]) -> dict[Any, Any]:
    """Kernels and neighbours, from one pass over the distances between activations as they are."""
    n = len(sample.features)
    kernels = {need: _kernels(need, sample) for need in needs if isinstance(need, KernelSums)}
    near = max((need.k for need in needs if isinstance(need, Neighbours)), default=0)
    nearest = NeighbourAccumulator(n, min(near, n - 1)) if near and n > 1 else None
    accumulators: list[PairAccumulator] = [accumulator for _, accumulator in kernels.values()]
    accumulators += [nearest] if nearest else []
    if not accumulators:
        return {need: NotApplicable(f"{n} example has no neighbours") for need in needs}
    # in float32 the neighbours within tight clusters would be lost among the rounding of a product
    points = centred(sample.features, precise=True)
    pair_pass(points, accumulators)
    found: dict[Any, Any] = {
        need: Kernels(variances, kernel.sums, kernel.own) for need, (variances, kernel) in kernels.items()
    }
    known = nearest.refined(points) if nearest else None
    for need in needs:
        if isinstance(need, Neighbours):
            found[need] = known.nearest(need.k) if known else NotApplicable(f"{n} example has no neighbours")
    return found


def _kernels(need: KernelSums, sample: Sample) -> tuple[Tensor, KernelAccumulator]:
    variances = need.of_sample(sample.features)
    if sample.labels is None:
        return variances, KernelAccumulator(variances, len(sample.features))
    names, place = sample.labels.unique(return_inverse=True)
    return variances, KernelAccumulator(variances, len(place), place, len(names))
