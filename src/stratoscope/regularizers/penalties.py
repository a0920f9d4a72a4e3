"""The penalties: correlation, variance, sparsity and rank of a batch of activations, plain or class by class.

Each is a frozen value that is called as `penalty(z, labels=None)` and gives one differentiable number. It averages over
units and examples, so that a coefficient means the same for layers of any width and for batches of any size; the
authors sum instead, so theirs are not these coefficients.

What is decided about odd batches: an empty one costs 0; constant units have no correlation; an all-zero batch has rank
0 and no gradient; NaN gives NaN. Gradients are finite for every finite batch. Half precision is computed in float32.

Source: Choi et al., arXiv:1811.03666; the covariance form of the correlation penalty is DeCov (Cogswell et al.,
arXiv:1511.06068), class-wise forms are due to Choi and Rhee (arXiv:1809.09307).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from stratoscope.errors import SettingError

CONSTANT = 8
"""A unit is constant if its deviation is at most so many roundings of its largest entry."""


@dataclass(frozen=True)
class Penalty(ABC):
    """A number to be added to the loss.

    Attributes:
        classwise: whether it is taken within each class of the batch, and summed over the classes that are there.
    """

    classwise: bool = False

    def __call__(self, z: Shaped[Tensor, "*shape"], labels: Int[Tensor, " n"] | None = None) -> Float[Tensor, ""]:
        """The penalty of one batch.

        Args:
            z: activations `(n, units)`; maps `(n, channels, height, width)` (of two or three spatial axes) are averaged
                over their positions, sequences `(n, tokens, units)` over all their tokens.
            labels: class of each example, for class-wise penalties.

        Raises:
            SettingError: if `z` holds no activations, or labels are needed and missing or do not fit.
        """
        rows = unit_rows(z)
        with torch.autocast(rows.device.type, enabled=False):
            if not self.classwise:
                return self.of(rows)
            parts = [self.of(rows[members]) for members in _classes(rows, labels)]
            return torch.stack(parts).sum() if parts else rows.sum()

    @abstractmethod
    def of(self, rows: Float[Tensor, "n D"]) -> Float[Tensor, ""]:
        """The penalty of some examples, whatever their classes."""


@dataclass(frozen=True)
class Correlation(Penalty):
    """How strongly units go together: the mean square of Pearson's r over pairs of units, in `[0, 1]`.

    Unchanged by shifting and scaling units, so shrinking all activations does not satisfy it. Units that are constant
    in the batch take no part. Two examples are always correlated perfectly: no gradient comes of them.

    Attributes:
        of_covariance: penalise the mean square of the covariances instead, as DeCov does; that is lowered by smaller
            activations, too.

    >>> z = torch.tensor([[1.0, 2.0], [2.0, 4.0], [4.0, 8.0]])
    >>> round(Correlation()(z).item(), 4)
    1.0
    """

    of_covariance: bool = False

    def of(self, rows: Float[Tensor, "n D"]) -> Float[Tensor, ""]:
        """Mean square of the correlations, or of the covariances, of different units."""
        if rows.numel() == 0:
            return rows.sum()
        centred, units = (rows - rows.mean(0), rows.shape[1]) if self.of_covariance else _standardised(rows)
        products = centred.mT @ centred / len(rows)
        apart = products.square().sum() - products.diagonal().square().sum()
        return apart / max(1, units * (units - 1))


@dataclass(frozen=True)
class Variance(Penalty):
    """How much units vary: the mean over units of their population variance.

    Class-wise, it draws the members of each class together.

    >>> Variance()(torch.tensor([[0.0], [2.0]])).item()
    1.0
    """

    def of(self, rows: Float[Tensor, "n D"]) -> Float[Tensor, ""]:
        """Mean variance."""
        return (rows - rows.mean(0)).square().mean() if rows.numel() else rows.sum()


@dataclass(frozen=True)
class Sparsity(Penalty):
    """How much units say: the mean absolute activation (L1), which draws activations to zero.

    Class-wise, every class weighs the same whatever its size; in a batch of `C` classes of one size it is `C` times the
    plain one.

    >>> Sparsity()(torch.tensor([[-1.0, 0.0], [2.0, 1.0]])).item()
    1.0
    """

    def of(self, rows: Float[Tensor, "n D"]) -> Float[Tensor, ""]:
        """Mean absolute value."""
        return rows.abs().mean() if rows.numel() else rows.sum()


@dataclass(frozen=True)
class StableRank(Penalty):
    """In how many directions a batch lies: its squared Frobenius over its squared spectral norm.

    Lies in `[1, rank]`; unchanged by scaling and rotation. The mean activation is a direction like any other, and of
    rectified units the strongest one: centred, it is the directions of the scatter that are counted. A negative
    coefficient raises the rank.

    Attributes:
        centred: subtract the mean of the batch first.
        iterations: find the spectral norm by so many power iterations rather than by a decomposition. They start at the
            longest row and give a norm that is never too large, so a rank that is never too small; the gradient is
            that of the direction found.

    >>> StableRank()(torch.diag(torch.tensor([2.0, 1.0, 1.0]))).item()
    1.5
    """

    centred: bool = False
    iterations: int | None = None

    def __post_init__(self) -> None:
        if self.iterations is not None and self.iterations < 1:
            raise SettingError(
                f"StableRank(iterations={self.iterations}): take at least 1, or None for the exact norm."
            )

    def of(self, rows: Float[Tensor, "n D"]) -> Float[Tensor, ""]:
        """Squared Frobenius norm over squared spectral norm."""
        if rows.numel() == 0:
            return rows.sum()
        largest = float(rows.detach().abs().max())
        if not largest < torch.inf:  # a decomposition would raise, where the loss is what ought to say it
            return rows.sum() * torch.nan
        if self.centred:
            rows = rows - rows.mean(0)
            smallest = CONSTANT * torch.finfo(rows.dtype).eps * largest
            largest = float(rows.detach().abs().max())
            if largest <= smallest:  # the examples are the same but for rounding
                return rows.sum() * 0.0
        if largest == 0.0:
            return rows.sum() * 0.0
        rows = rows / largest  # changes nothing but keeps squares within range
        return rows.square().sum() / self._squared_norm(rows)

    def _squared_norm(self, rows: Tensor) -> Tensor:
        if self.iterations is None:
            # the differential of the largest singular value needs no gaps between the others
            top: Tensor = torch.linalg.svdvals(rows)[0]
            return top.square()
        with torch.no_grad():
            direction = rows[rows.square().sum(1).argmax()]
            for _ in range(self.iterations):
                direction = rows.mT @ (rows @ (direction / torch.linalg.vector_norm(direction)))
            direction = direction / torch.linalg.vector_norm(direction)
        # at the top the norm is stationary in the direction, so its differential leaves the direction alone
        along: Tensor = (rows @ direction).square().sum()
        return along


EIGHT: Mapping[str, Callable[[], Penalty]] = MappingProxyType(
    {
        "correlation": Correlation,
        "variance": Variance,
        "sparsity": Sparsity,
        "rank": StableRank,
        "class-wise correlation": lambda: Correlation(classwise=True),
        "class-wise variance": lambda: Variance(classwise=True),
        "class-wise sparsity": lambda: Sparsity(classwise=True),
        "class-wise rank": lambda: StableRank(classwise=True),
    }
)
"""The eight of the paper by name; each is made by calling it."""


def unit_rows(z: Shaped[Tensor, "*shape"]) -> Float[Tensor, "n D"]:
    """Activations as examples x units, in the graph; float32 at least.

    Maps of two or three spatial axes have their channels in axis 1 and are averaged over positions; sequences
    `(n, tokens, units)` are averaged over all tokens, padding included.

    Raises:
        SettingError: if it is no floating tensor with an axis of examples.

    >>> unit_rows(torch.ones(2, 3, 4, 4)).shape
    torch.Size([2, 3])
    """
    if not z.is_floating_point() or z.ndim == 0:
        raise SettingError(
            f"A penalty takes real activations, one row an example; there was {z.dtype} {tuple(z.shape)}."
        )
    wide = z.float() if z.dtype.itemsize < 4 else z
    if wide.ndim < 3:
        return wide[:, None] if wide.ndim == 1 else wide
    return wide.mean(1) if wide.ndim == 3 else wide.flatten(2).mean(2)


def _standardised(rows: Tensor) -> tuple[Tensor, int]:
    """Each unit with mean 0 and variance 1, constant ones 0; and how many are not constant."""
    largest = rows.detach().abs().amax(0)
    rows = rows / largest.masked_fill(largest == 0, 1.0)  # changes nothing but keeps squares within range
    centred = rows - rows.mean(0)
    variance = centred.square().mean(0)
    constant = variance.detach() <= (CONSTANT * torch.finfo(rows.dtype).eps) ** 2
    return centred / variance.masked_fill(constant, 1.0).sqrt() * ~constant, int((~constant).sum())


def _classes(rows: Tensor, labels: Tensor | None) -> list[Tensor]:
    """The members of each class of the batch."""
    if labels is None:
        raise SettingError("A class-wise penalty needs the labels of the batch; pass them, as in extra(labels).")
    if labels.shape != rows.shape[:1] or labels.is_floating_point() or labels.is_complex():
        raise SettingError(
            f"A class-wise penalty takes one integer label an example; for {len(rows)} examples there were labels of "
            f"{labels.dtype} {tuple(labels.shape)}."
        )
    order = labels.argsort(stable=True).to(rows.device)
    sizes = torch.unique(labels, return_counts=True)[1]
    return list(order.split(sizes.tolist()))
