r"""Linear probes in closed form: ridge regression with its strength set by generalised cross-validation.

One eigendecomposition of the standardised features serves any number of targets and of strengths. With `X` the
standardised, centred features, `X = U diag(s) V^T`, and `Y` the centred targets, the prediction on the training rows is
`mean + A Y` with `A = U diag(s^2 / (s^2 + lam)) U^T`, and

    GCV(lam) = (1/n) |Y - A Y|^2 / [(1/n) (n - 1 - tr A)]^2

(Golub, Heath and Wahba, doi:10.1080/00401706.1979.10489751; the 1 is the mean, which is fitted as well). Unchanged by
rotating the targets, and, with `standardise=False`, the features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from stratoscope.numerics.matrices import lower_gram, not_finite

CONSTANT = 8
"""A unit is constant if its standard deviation is at most so many roundings of its largest entry."""

MANY = 128
"""Examples from which float32 features of still more units are decomposed in float32."""

QUICK_AXES = 2.0**-20
"""Squared singular value over the largest one, under which an axis is then left out."""

STRENGTHS = tuple(10.0 ** (power / 4) for power in range(-24, 17))
"""Strengths that are tried, times the number of examples: from 1e-6 to 1e4, four a decade."""


@dataclass(frozen=True)
class Basis:
    """Features of training examples, standardised and decomposed once, for any number of targets.

    Attributes:
        mean: of each unit, over the training examples.
        scale: one over each unit's standard deviation there; 0 for constant units, so that they count for nothing.
        rows: the training examples, standardised.
        singular: `s`, one an axis, above zero.
        axes: those of the shorter side: `U` where there are fewer examples than units, `V` otherwise.
    """

    mean: Float[Tensor, " D"]
    scale: Float[Tensor, " D"]
    rows: Float[Tensor, "n D"]
    singular: Float[Tensor, " r"]
    axes: Float[Tensor, "side r"]

    @classmethod
    def of(cls, features: Float[Tensor, "n D"], *, standardise: bool = True) -> Basis:
        """Standardise by these examples alone and decompose, through the Gram matrix of the shorter side.

        In float64, where axes whose singular value is under about `1e-7` of the largest are left out: the Gram matrix does
        not know them. Of many examples (`MANY` and more) of float32 features with still more units, which are what
        layers of a network give, the decomposition takes most of the time of a probe; it is then done in float32, with
        axes under `1e-3` left out.

        Args:
            features: of the training examples.
            standardise: divide each unit by its standard deviation; else units keep their scales.

        Raises:
            ValueError: if there are no two examples or no units, or an entry is not finite.
        """
        _check(features)
        n, units = features.shape
        quick = MANY <= n < units and features.dtype != torch.float64
        given = features.to(torch.float32 if quick else torch.float64)
        mean, scale = given.mean(0), inverse_deviation(given, features.dtype, standardise)
        x = (given - mean) * scale
        squares, axes = torch.linalg.eigh(lower_gram([x if units <= n else x.mT]))
        kept = squares > (QUICK_AXES if quick else max(n, units) * 2**-52) * squares[-1]
        kept[: max(0, len(squares) - n + 1)] = False  # centred rows have one direction less than there are rows
        return cls(mean, scale, x, squares[kept].double().sqrt(), axes[:, kept])

    @property
    def n(self) -> int:
        """Training examples."""
        return len(self.rows)

    @property
    def _more_units(self) -> bool:
        return self.rows.shape[1] > len(self.rows)

    @cached_property
    def left(self) -> Float[Tensor, "n r"]:
        """`U`, one column an axis."""
        return self.axes if self._more_units else self.rows @ self.axes / self.singular.to(self.axes)

    @cached_property
    def right(self) -> Float[Tensor, "D r"]:
        """`V`, one column an axis."""
        return self.rows.mT @ self.axes / self.singular.to(self.axes) if self._more_units else self.axes

    def standardised(self, features: Float[Tensor, "m D"]) -> Float[Tensor, "m D"]:
        """New examples, less the mean and by the scale of the training examples."""
        return (features.to(self.mean) - self.mean) * self.scale

    def coordinates(self, features: Float[Tensor, "m D"]) -> Float[Tensor, "m r"]:
        """New examples along the axes, standardised as the training examples were."""
        new = self.standardised(features)
        # by way of the training examples: axes in the space of many units cost more than what is asked of them
        return new @ self.rows.mT @ (self.axes / self.singular.to(self.axes)) if self._more_units else new @ self.axes


@dataclass(frozen=True)
class Targets:
    """Targets of training examples, centred once for any number of bases.

    Attributes:
        centred: less their mean; float32 or float64, in which products are computed.
        mean: over the training examples.
        squares: sum of squares of each centred target.
    """

    centred: Float[Tensor, "n q"]
    mean: Float[Tensor, " q"]
    squares: Float[Tensor, " q"]

    @classmethod
    def of(cls, values: Float[Tensor, "n q"]) -> Targets:
        """Centre some targets.

        Raises:
            ValueError: if they form no matrix with entries, or one is not finite.
        """
        if values.ndim != 2 or values.numel() == 0:
            raise ValueError(f"Targets are rows of at least one number; there was {tuple(values.shape)}.")
        if bad := not_finite(values):
            raise ValueError(f"Targets must be finite; {bad} of {values.numel()} are NaN or infinite.")
        wide = values.to(torch.promote_types(values.dtype, torch.float32))
        mean = wide.mean(0)
        centred = wide - mean
        return cls(centred, mean, torch.linalg.vector_norm(centred, dim=0).double().square())


@dataclass(frozen=True)
class Ridge:
    """A ridge regression on the axes of a basis; several groups of targets, each with its own strength.

    Attributes:
        basis: of the features.
        weights: of each target along the axes.
        intercept: of each target: its mean over the training examples.
        strengths: `lam / n` of each group.
        degrees: effective degrees of freedom of each group, the mean's 1 included.
        scores: `GCV` of each group at its strength.
        group: of each target.
    """

    basis: Basis
    weights: Float[Tensor, "r q"]
    intercept: Float[Tensor, " q"]
    strengths: Float[Tensor, " groups"]
    degrees: Float[Tensor, " groups"]
    scores: Float[Tensor, " groups"]
    group: Int[Tensor, " q"]

    @property
    def residuals(self) -> Float[Tensor, " groups"]:
        """Squared error on the training examples, summed over each group's targets."""
        return self.scores * (self.basis.n - self.degrees).square() / self.basis.n

    def predict(self, features: Float[Tensor, "m D"]) -> Float[Tensor, "m q"]:
        """The targets of new examples."""
        return self.along(self.basis.coordinates(features))

    def along(self, coordinates: Float[Tensor, "m r"]) -> Float[Tensor, "m q"]:
        """The targets of examples whose coordinates in the basis are known."""
        return torch.addmm(self.intercept, coordinates.to(self.weights), self.weights)

    def coefficients(self) -> Float[Tensor, "D q"]:
        """Weights of the units as they came."""
        return (self.basis.right @ self.weights) * self.basis.scale[:, None]

    def left_out(self, targets: Float[Tensor, "n q"]) -> Float[Tensor, "n q"]:
        """Residual of each training example under the regression on all others, with features standardised once.

        `(y - fit) / (1 - 1/n - A_ii)`, which is exact for the given strength and scales.
        """
        basis = self.basis
        shrink = basis.singular.square()[:, None]
        shrink = shrink / (shrink + self.strengths * basis.n)
        own = 1 / basis.n + basis.left.square() @ shrink
        fit = self.along(basis.left * basis.singular)
        return (targets.double() - fit) / (1 - own[:, self.group])


def ridge(
    basis: Basis,
    targets: Targets | Float[Tensor, "n q"],
    *,
    strengths: Sequence[float] = STRENGTHS,
    group: Int[Tensor, " q"] | None = None,
) -> Ridge:
    """Fit targets on a basis, each group with the strength at which its generalised cross-validation is least.

    Time `n r q` beside the basis; of equal scores the largest strength is taken, so that constant features give the
    mean. Targets in float32 are multiplied in float32.

    Args:
        basis: of the training examples' features.
        targets: of the same examples, as they are or centred before.
        strengths: `lam / n` to choose from, above zero; one alone is taken as it is.
        group: which targets share a strength, counted from 0; all of them without it.

    Raises:
        ValueError: if the rows do not fit, an entry is not finite, or a strength is not above zero.

    >>> x = torch.linspace(-1, 1, 20, dtype=torch.float64)[:, None]
    >>> fit = ridge(Basis.of(x), 3 * x + 1)
    >>> round(fit.predict(torch.tensor([[2.0]])).item(), 3)
    7.0
    """
    if not strengths or min(strengths) <= 0:
        raise ValueError(f"Strengths lie above zero; there was {tuple(strengths)}.")
    known = targets if isinstance(targets, Targets) else Targets.of(targets)
    if len(known.centred) != basis.n:
        raise ValueError(f"{basis.n} examples need as many rows of targets; there were {len(known.centred)}.")
    if group is None:
        group = torch.zeros(len(known.mean), dtype=torch.int64, device=known.mean.device)
    along = basis.left.to(known.centred).mT @ known.centred
    lam = torch.tensor(sorted(strengths), dtype=torch.float64, device=along.device) * basis.n
    member = torch.nn.functional.one_hot(group).double()
    score, shrink = _scores(basis, lam, along.square().double() @ member, known.squares @ member)
    best = len(lam) - 1 - score.flip(0).argmin(0)
    gain = basis.singular[:, None] / (basis.singular.square()[:, None] + lam[best])
    return Ridge(
        basis,
        along * (gain @ member.T).to(along),
        known.mean,
        lam[best] / basis.n,
        1 + (1 - shrink[best]).sum(1),
        score.gather(0, best[None])[0],
        group,
    )


def _scores(basis: Basis, lam: Tensor, energy: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
    """Generalised cross-validation of each strength and group, and what each strength leaves of each axis.

    Args:
        basis: of the features.
        lam: strengths.
        energy: of each group's targets along each axis.
        total: of each group's targets.
    """
    shrink = lam[:, None] / (basis.singular.square() + lam[:, None])
    spare = basis.n - 1 - len(basis.singular)
    # what no axis reaches; where there is no room for it the difference is rounding
    beyond = (total - energy.sum(0)).clamp(min=0) if spare > 0 else torch.zeros_like(total)
    free = (spare + shrink.sum(1)) / basis.n
    return (beyond + shrink.square() @ energy) / basis.n / free.square()[:, None], shrink


def _check(features: Tensor) -> None:
    if features.ndim != 2 or len(features) < 2 or features.shape[1] == 0:
        raise ValueError(
            f"A regression takes at least 2 examples of at least 1 unit; there was {tuple(features.shape)}."
        )
    if bad := not_finite(features):
        raise ValueError(f"Features must be finite; {bad} of {features.numel()} are NaN or infinite.")


def inverse_deviation(features: Float[Tensor, "n D"], stored: torch.dtype, divide: bool = True) -> Float[Tensor, " D"]:
    """What each unit is multiplied by to be of unit variance; 0 for units that are constant up to rounding.

    Args:
        features: one example a row.
        stored: the type in which the network gave them, whose rounding counts.
        divide: if not, 1 for every unit that is not constant.
    """
    deviation = (features - features.mean(0)).square().mean(0).sqrt()
    rounding = torch.finfo(stored if stored == torch.float64 else torch.float32).eps
    constant = deviation <= CONSTANT * rounding * features.abs().amax(0)
    inverse = 1 / deviation.where(~constant, 1.0) if divide else torch.ones_like(deviation)
    return inverse.masked_fill(constant, 0.0)
