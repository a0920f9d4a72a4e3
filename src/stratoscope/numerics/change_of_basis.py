r"""Invertible affine maps of a representation, and which statistics they leave alone.

A layer's activations $z$ that are read by a linear map $W z + c$ may be replaced by $z' = A z + b$ if the map becomes
$W A^{-1} z' + c - W A^{-1} b$: nothing that follows can tell. So a statistic that such a map changes cannot by itself
explain what the network does (Choi et al., arXiv:1811.03666). Which change depends on the map: `stays` says it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from types import MappingProxyType

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

ORTHOGONAL = 1e-9
"""How far the product of a matrix with its transpose may be from one, entry by entry, for it to be a rotation."""


class Group(IntEnum):
    """Linear maps that a statistic is unchanged by. `ROTATION` and `SCALING` overlap in `PERMUTATION`."""

    PERMUTATION = 0
    SCALING = 1
    """Positive diagonal times permutation: all that passes a rectifier."""
    ROTATION = 2
    """Orthogonal: reflections and permutations among them."""
    INVERTIBLE = 3


@dataclass(frozen=True, eq=False)
class ChangeOfBasis:
    """An invertible affine map `z -> A z + b` and its inverse, in float64.

    Attributes:
        matrix: `A`.
        inverse: `A^-1`.
        shift: `b`.
    """

    matrix: Float[Tensor, "D D"]
    inverse: Float[Tensor, "D D"]
    shift: Float[Tensor, " D"]

    def __call__(self, rows: Shaped[Tensor, "n D"]) -> Float[Tensor, "n D"]:
        """Apply it to every row.

        >>> permuting(2, seed=0)(torch.tensor([[1.0, 2.0]])).tolist()
        [[2.0, 1.0]]
        """
        return rows.double() @ self.matrix.T + self.shift

    @property
    def units(self) -> int:
        """How many units it maps."""
        return len(self.shift)

    @property
    def without_shift(self) -> ChangeOfBasis:
        """Its linear part."""
        return ChangeOfBasis(self.matrix, self.inverse, torch.zeros_like(self.shift))

    @cached_property
    def shifts(self) -> bool:
        """Whether `b` is not zero."""
        return bool(self.shift.any())

    @cached_property
    def condition(self) -> float:
        """Largest over smallest singular value of `A`: by how much rounding may grow."""
        return float(torch.linalg.matrix_norm(self.matrix, 2) * torch.linalg.matrix_norm(self.inverse, 2))

    @cached_property
    def groups(self) -> frozenset[Group]:
        """The groups that `A` belongs to."""
        found = {Group.INVERTIBLE}
        single = (self.matrix != 0).sum(0).eq(1).all() and (self.matrix != 0).sum(1).eq(1).all()
        scaling = bool(single and (self.matrix >= 0).all())
        one = torch.eye(self.units, dtype=torch.float64)
        rotation = bool(((self.matrix @ self.matrix.T - one).abs() <= ORTHOGONAL).all())
        found |= {Group.SCALING} if scaling else set()
        found |= {Group.ROTATION} if rotation else set()
        return frozenset(found | ({Group.PERMUTATION} if scaling and rotation else set()))


def permuting(units: int, *, seed: int = 0) -> ChangeOfBasis:
    """A random cycle: every unit takes another one's place, where there are two.

    Raises:
        ValueError: if there is no unit.
    """
    _check(units)
    order = torch.randperm(units, generator=torch.Generator().manual_seed(seed))
    matrix = torch.zeros(units, units, dtype=torch.float64)
    matrix[order, order.roll(1)] = 1.0
    return _linear(matrix, matrix.T.contiguous())


def rescaling(units: int, *, spread: float = 10.0, seed: int = 0) -> ChangeOfBasis:
    """A factor for each unit, log-uniform between `1 / spread` and `spread`.

    Raises:
        ValueError: if there is no unit, or `spread` is below 1.

    >>> change = rescaling(4, spread=2.0)
    >>> 0.5 <= change.matrix.diagonal().min() <= change.matrix.diagonal().max() <= 2.0
    tensor(True)
    """
    _check(units)
    if not 1.0 <= spread < math.inf:
        raise ValueError(f"Factors between 1/spread and spread need a spread of at least 1; it is {spread}.")
    draws = torch.rand(units, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    factors = spread ** (2 * draws - 1)
    return _linear(factors.diag(), (1 / factors).diag())


def rotating(units: int, *, seed: int = 0) -> ChangeOfBasis:
    """An orthogonal matrix, uniform over all (Haar measure; Mezzadri, arXiv:math-ph/0609050).

    Raises:
        ValueError: if there is no unit.
    """
    _check(units)
    draws = torch.randn(units, units, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    q, r = torch.linalg.qr(draws)
    matrix = q * r.diagonal().sign()
    return _linear(matrix, matrix.T.contiguous())


def whitening(mean: Float[Tensor, " D"], covariance: Float[Tensor, "D D"], *, condition: float = 1e3) -> ChangeOfBasis:
    """Decorrelates: the map nearest to the identity after which units have mean 0, variance 1 and no correlation.

    `A = V max(lam, floor)^(-1/2) V'` with the eigenvalues `lam` of the covariance. The floor is the largest one over
    `condition^2`, so that rounding grows by `condition` at most; directions of less variance than that keep less than
    variance 1, and units are decorrelated exactly only where there are none.

    Args:
        mean: of the activations.
        covariance: of the activations.
        condition: limit of the condition number of `A`.

    Raises:
        ValueError: if nothing varies, an entry is not finite, the shapes do not fit, or `condition` is below 1.

    >>> whitening(torch.tensor([3.0]), torch.tensor([[4.0]]))(torch.tensor([[5.0]])).item()
    1.0
    """
    _check(len(mean))
    if covariance.shape != (len(mean), len(mean)) or not 1.0 <= condition < math.inf:
        raise ValueError(
            f"Whitening takes a mean, its covariance and a condition of at least 1; there was {tuple(mean.shape)}, "
            f"{tuple(covariance.shape)} and {condition}."
        )
    if not (bool(torch.isfinite(mean).all()) and bool(torch.isfinite(covariance).all())):
        raise ValueError("Whitening needs finite activations; their mean or covariance is not.")
    wide = covariance.double()
    lam, directions = torch.linalg.eigh((wide + wide.T) / 2)
    if not float(lam[-1]) > 0:
        raise ValueError("No unit varies, so there is nothing to decorrelate.")
    roots = lam.clamp_min(float(lam[-1]) / condition**2).sqrt()
    matrix = (directions / roots) @ directions.T
    return ChangeOfBasis(matrix, (directions * roots) @ directions.T, -matrix @ mean.double())


def correlating(
    mean: Float[Tensor, " D"], covariance: Float[Tensor, "D D"], *, correlation: float = 0.9, condition: float = 1e3
) -> ChangeOfBasis:
    """Correlates every pair of units alike: whitening, and then the root of the matrix of these correlations.

    `C^(1/2)` for `C = (1 - r) I + r 1 1'`, whose condition number is `((1 + (D - 1) r) / (1 - r))^(1/2)`; `whitening`
    is left what remains of `condition`. There is no shift.

    Raises:
        ValueError: as `whitening`; or if the correlation is not between 0 and 1, or needs a larger condition by itself.

    >>> change = correlating(torch.zeros(2), torch.eye(2), correlation=0.5)
    >>> round((change.matrix @ change.matrix.T)[0, 1].item(), 6)
    0.5
    """
    units = len(mean)
    if not 0.0 < correlation < 1.0:
        raise ValueError(f"A correlation between 0 and 1 can be given to all units; {correlation} cannot.")
    low, high = math.sqrt(1 - correlation), math.sqrt(1 + (units - 1) * correlation)
    if high / low > condition:
        raise ValueError(
            f"A correlation of {correlation} between {units} units needs a map of condition {high / low:.3g}, and "
            f"{condition:.3g} is the limit; ask for less."
        )
    white = whitening(mean, covariance, condition=condition * low / high)
    common = torch.full((units, units), 1.0 / units, dtype=torch.float64)
    apart = torch.eye(units, dtype=torch.float64) - common
    root, inverse = low * apart + high * common, apart / low + common / high
    return _linear(root @ white.matrix, white.inverse @ inverse)


@dataclass(frozen=True)
class Invariance:
    """What a statistic is unchanged by.

    Attributes:
        group: linear maps.
        shift: whether adding a vector leaves it, too.
    """

    group: Group
    shift: bool


_UNITS = Invariance(Group.SCALING, True)
_ZEROS = Invariance(Group.SCALING, False)
_LENGTHS = Invariance(Group.ROTATION, True)
_RAW_LENGTHS = Invariance(Group.ROTATION, False)

INVARIANCES: Mapping[str, Invariance] = MappingProxyType(
    {
        "correlation": _UNITS,
        "variance": _LENGTHS,
        "sparsity": _ZEROS,
        "rank": Invariance(Group.INVERTIBLE, False),
        "rank_centred": Invariance(Group.INVERTIBLE, True),
        "stable_rank": _RAW_LENGTHS,
        "stable_rank_centred": _LENGTHS,
        "effective_rank": _RAW_LENGTHS,
        "effective_rank_centred": _LENGTHS,
        "class_correlation": _UNITS,
        "class_variance": _LENGTHS,
        "class_sparsity": _ZEROS,
        "class_rank_centred": Invariance(Group.INVERTIBLE, True),
        "class_stable_rank_centred": _LENGTHS,
        "cka": _LENGTHS,
        "kernel_information": _LENGTHS,
        "binned_information": Invariance(Group.PERMUTATION, False),
        "gdv": _UNITS,
        "nc1": _LENGTHS,
        "linear_readout": Invariance(Group.INVERTIBLE, True),
    }
)
"""By the name of the statistic. What is not invariant changes for almost every map of the larger group."""


def stays(statistic: str, change: ChangeOfBasis, *, classes: int | None = None) -> bool:
    """Whether theory says that a map leaves a statistic as it is, up to rounding.

    Statistics: `correlation` (mean absolute, over pairs of units), `variance` (mean), `sparsity` (exact zeros), ranks of
    the activations and of the centred ones, the same within classes, `cka` (linear, with any fixed representation),
    `kernel_information` (bounds by Gaussian kernels whose variance is a share of the mean variance), `binned_information`
    (bins over the range of all units), `gdv`, `nc1`, `linear_readout` (the optimum of least squares with an intercept).

    Args:
        statistic: its name.
        change: the map.
        classes: how many; with at most one unit less than classes, NC1 is left by every invertible map.

    Raises:
        KeyError: if there is no such statistic.

    >>> stays("gdv", rescaling(5)), stays("gdv", rotating(5)), stays("nc1", rotating(5))
    (True, False, True)
    """
    known = INVARIANCES[statistic]
    groups = set(change.groups)
    if statistic == "nc1" and classes is not None and change.units <= classes - 1:
        return True
    return known.group in groups and (known.shift or not change.shifts)


def _linear(matrix: Tensor, inverse: Tensor) -> ChangeOfBasis:
    return ChangeOfBasis(matrix, inverse, torch.zeros(len(matrix), dtype=torch.float64))


def _check(units: int) -> None:
    if units < 1:
        raise ValueError(f"A representation has at least one unit; there were {units}.")
