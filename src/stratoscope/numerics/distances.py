"""All distances between the points of a sample, block by block, shown to whatever wants to sum or compare them.

The matrix of distances is never held: `pair_pass` goes through its upper triangle in blocks and shows each block to a
list of accumulators. A new statistic of distances is a new `PairAccumulator`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - the usual name
from jaxtyping import Float, Int
from torch import Tensor

_BLOCK_NUMBERS = 2**20
_BLOCK_ROWS = 512
_PRODUCT_CLASSES = 64
_BAGS = 1024


@dataclass(frozen=True)
class Points:
    """Rows of a matrix, chosen, shifted and scaled only as they are read, so that no second matrix is held.

    Attributes:
        values: the matrix.
        index: which rows, in which order; `None` for all.
        shift: taken off each row. A common shift leaves distances as they are and saves their digits.
        scale: by which each column is multiplied after the shift.
        precise: whether distances are computed in float64 whatever the type of the values, block by block.
    """

    values: Float[Tensor, "rows D"]
    index: Int[Tensor, " n"] | None = None
    shift: Float[Tensor, " D"] | None = None
    scale: Float[Tensor, " D"] | None = None
    precise: bool = False

    def __len__(self) -> int:
        return len(self.values) if self.index is None else len(self.index)

    @property
    def dtype(self) -> torch.dtype:
        """Type in which distances are computed: float64 for float64 input, if asked for, and on accelerators, else float32.

        On an accelerator float32 products may be rounded to fewer digits than distances need (TF32).
        """
        double = self.values.dtype == torch.float64 or self.values.device.type not in ("cpu", "mps")
        double |= self.precise and self.values.device.type != "mps"
        return torch.float64 if double else torch.float32

    def block(self, rows: slice) -> Float[Tensor, "block D"]:
        """Some of the points."""
        picked = self.values[rows] if self.index is None else self.values[self.index[rows]]
        block = picked.to(self.dtype)
        if self.shift is not None:
            block = block - self.shift.to(block)
        return block if self.scale is None else block * self.scale.to(block)

    def slices(self) -> Iterator[slice]:
        """Cuts the points into blocks of at most 512 points and about a million numbers."""
        rows = min(_BLOCK_ROWS, max(16, _BLOCK_NUMBERS // max(1, self.values.shape[1])))
        return (slice(start, min(start + rows, len(self))) for start in range(0, len(self), rows))


class PairAccumulator(ABC):
    """Takes in distances, block by block."""

    @abstractmethod
    def update(self, distances: Float[Tensor, "a b"], rows: slice, columns: slice) -> None:
        """Take in one block.

        Args:
            distances: between the points of `rows` and those of `columns`. Must not be written to.
            rows: which points lie along the first axis.
            columns: which along the second. Where `rows == columns` the block holds each pair in both orders and an
                exact zero for each point with itself; every other pair is shown once, in one order only.
        """


def pair_pass(points: Points, accumulators: Sequence[PairAccumulator]) -> None:
    """Show the Euclidean distances between all pairs of points to each accumulator, in one pass.

    A block is one matrix product, `|x|^2 + |y|^2 - 2 x.y`, so a distance carries an absolute error of about
    `eps^(1/2)` times the norms of its two points: centre the points, and look at tight clusters one by one with their
    own centre as `shift`. Time `n^2 D` multiplications; memory, whatever `n`, under 64 MB for `D` up to 65,000.

    >>> sums = ClassSums(torch.tensor([0, 0, 1]), 2)
    >>> pair_pass(Points(torch.tensor([[0.0], [3.0], [7.0]])), [sums])
    >>> sums.by_point.tolist()
    [[3.0, 3.0, 11.0], [7.0, 4.0, 0.0]]
    """
    slices = list(points.slices())
    for place, rows in enumerate(slices):
        block = points.block(rows)
        squares = block.square().sum(1)
        for columns in slices[place:]:
            if columns is rows:
                squared = (squares[:, None] + squares).addmm_(block, block.T, alpha=-2)
                squared.fill_diagonal_(0.0)
            else:
                other = points.block(columns)
                squared = (squares[:, None] + other.square().sum(1)).addmm_(block, other.T, alpha=-2)
            distances = squared.clamp_min_(0.0).sqrt_()
            for accumulator in accumulators:
                accumulator.update(distances, rows, columns)


class ClassSums(PairAccumulator):
    """For each point, the sum of its distances to the members of each class, in float64.

    From these follow mean distances within and between classes, their standard errors, and silhouettes.

    Attributes:
        by_point: the sums, one row a class and one column a point; a point is at distance 0 from itself. 8 bytes for
            each class and point.
    """

    def __init__(self, labels: Int[Tensor, " n"], n_classes: int) -> None:
        """Start at zero.

        Args:
            labels: class of each point, from 0.
            n_classes: how many classes.
        """
        self._labels = labels
        self.by_point = torch.zeros(n_classes, len(labels), dtype=torch.float64, device=labels.device)

    def update(self, distances: Float[Tensor, "a b"], rows: slice, columns: slice) -> None:
        """Add one block, in both orders; within a block sums are taken in the distances' own type."""
        self.by_point[:, columns] += self._to_classes(distances, rows)
        if rows != columns:
            self.by_point[:, rows] += self._to_classes(distances.T, columns)

    def _to_classes(self, distances: Float[Tensor, "a b"], rows: slice) -> Float[Tensor, "classes b"]:
        classes = len(self.by_point)
        if classes <= _PRODUCT_CLASSES:
            return F.one_hot(self._labels[rows], classes).T.to(distances.dtype) @ distances
        sums = distances.new_zeros(classes, distances.shape[1])
        return sums.index_add_(0, self._labels[rows], distances.contiguous())

    @property
    def by_pair(self) -> Float[Tensor, "classes classes"]:
        """Sums over all ordered pairs of points, for each pair of classes."""
        classes = len(self.by_point)
        return self.by_point.new_zeros(classes, classes).index_add_(1, self._labels, self.by_point)


class RelabelledSums(PairAccumulator):
    """Sums of distances under many labellings of the same points, such as shuffled labels.

    All labellings give each class the same number of points. Costs an addition for each pair of points and labelling,
    however many classes there are.

    Attributes:
        within: sum over ordered pairs in the same class, for each labelling and class.
        weighted: sum over all ordered pairs, each weighted by one over the sizes of its two classes.
    """

    def __init__(self, labellings: Int[Tensor, "labellings n"], counts: Int[Tensor, " classes"]) -> None:
        """Start at zero.

        Args:
            labellings: class of each point, from 0, one labelling a row.
            counts: size of each class.
        """
        self._labellings = labellings
        self._weights = 1 / counts.double()
        self._rows: slice | None = None
        self._bags: list[tuple[Tensor, Tensor]] = []
        self.within = torch.zeros(len(labellings), len(counts), dtype=torch.float64, device=labellings.device)
        self.weighted = torch.zeros(len(labellings), dtype=torch.float64, device=labellings.device)

    def update(self, distances: Float[Tensor, "a b"], rows: slice, columns: slice) -> None:
        """Add one block, in both orders; within a block sums are taken in the distances' own type."""
        orders = 1 if rows == columns else 2
        classes = self.within.shape[1]
        together = max(1, _BAGS // classes)
        if rows != self._rows:
            self._rows, self._bags = rows, [_bags(t[:, rows], classes) for t in self._labellings.split(together)]
        for number, (members, begins) in enumerate(self._bags):
            some = slice(number * together, (number + 1) * together)
            along = self._labellings[some, columns]
            # the sum of each class's rows, for all labellings at once: no product with ones and zeros
            sums = F.embedding_bag(members, distances, begins, mode="sum").double().unflatten(0, (len(along), classes))
            own = sums.gather(1, along[:, None])[:, 0]
            self.within[some].scatter_add_(1, along, orders * own)
            weighted = (self._weights @ sums * self._weights[along]).sum(1)
            self.weighted[some] += orders * weighted


def _bags(table: Int[Tensor, "labellings a"], classes: int) -> tuple[Tensor, Tensor]:
    """Points sorted by class, one labelling after the other, and where each class of each labelling begins."""
    sizes = table.new_zeros(len(table), classes).scatter_add_(1, table, torch.ones_like(table)).flatten()
    return table.argsort(1).flatten(), sizes.cumsum(0) - sizes
