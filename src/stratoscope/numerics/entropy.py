"""Entropy of binned activations, what the cells tell about labels, and what shuffled labels would read.

A rule (`EqualWidth`, `FixedWidth`, `Edges`) turns each number into the index of its bin; `cells_of` packs the indices of
an example into one integer, its cell; entropies follow from how many examples share a cell. Everything is in bits.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

Ints = NDArray[np.int64]

ROUNDING = 1e-12
"""Bits by which two sums of the same terms may differ."""

LARGEST = 2**62
"""Cells are numbered below this, so that nothing overflows."""
MOST_BINS = 2**30
"""Bins of a fixed width over a range; with more of them a bin is narrower than the spacing of float32."""
TOGETHER = 2**20
"""Numbers that are binned at a time."""
FIRST = 6
"""Units that are looked at first; where these tell all examples apart the others need not be looked at."""
CHEAP = 2**14
"""Examples up to which seeing whether all are told apart costs little beside looking at further units."""
DENSE = 2**22
"""Entries of a table of counts; larger ones are sorted instead."""


class Rule(ABC):
    """Turns numbers into the indices of bins."""

    @property
    @abstractmethod
    def bins(self) -> int:
        """How many bins there may be."""

    @abstractmethod
    def codes(self, values: Float[np.ndarray, "n D"]) -> Int[np.ndarray, "n D"]:
        """Index of each number's bin, from 0; int64, a new array."""


@dataclass(frozen=True)
class EqualWidth(Rule):
    """So many bins of one width between two ends; the upper end belongs to the last bin, what is outside to the nearest.

    Attributes:
        low: lower end.
        high: upper end. Where it is not above `low` there is one bin.
        number: how many.

    >>> EqualWidth(-1.0, 1.0, 4).codes(np.array([[-1.0, -0.5, 0.9, 1.0, 7.0]])).tolist()
    [[0, 1, 3, 3, 3]]
    """

    low: float
    high: float
    number: int

    @property
    def bins(self) -> int:
        """The number that was asked for, or 1 where both ends are the same."""
        return self.number if self.high > self.low else 1

    def codes(self, values: Float[np.ndarray, "n D"]) -> Int[np.ndarray, "n D"]:
        """Index of each number's bin; places are computed in float64."""
        if self.bins == 1:
            return np.zeros(values.shape, dtype=np.int64)
        half = 1.0 if math.isfinite(self.high - self.low) else 0.5  # a span beyond the largest number
        places = values.astype(np.float64)
        places *= half
        places -= self.low * half
        places /= self.high * half - self.low * half
        places *= self.number
        np.floor(places, out=places)
        return np.clip(places, 0, self.number - 1, out=places).astype(np.int64)


@dataclass(frozen=True)
class FixedWidth(Rule):
    """Bins of a stated width whatever the range, `floor(t / width)`, as Saxe et al. took 0.07 for tanh.

    Attributes:
        width: of each bin, in the units of the activations.
        low: the smallest number there is.
        high: the largest.

    Raises:
        ValueError: if the width is not above 0, or is below the precision of numbers of this range.
    """

    width: float
    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.width > 0:
            raise ValueError(f"A bin has a width above 0; there was {self.width}.")
        if not (self.high - self.low) / self.width < MOST_BINS:
            raise ValueError(f"Bins of width {self.width:g} are too narrow for {self.low:g} to {self.high:g}.")

    @property
    def _first(self) -> int:
        return math.floor(self.low / self.width)

    @property
    def bins(self) -> int:
        """As many as lie between the smallest and the largest number."""
        return math.floor(self.high / self.width) - self._first + 1

    def codes(self, values: Float[np.ndarray, "n D"]) -> Int[np.ndarray, "n D"]:
        """Index of each number's bin, counted from that of the smallest."""
        places = values.astype(np.float64)
        places /= self.width
        np.floor(places, out=places)
        places -= self._first
        return places.astype(np.int64)


@dataclass(frozen=True)
class Edges(Rule):
    """Bins between stated edges: index `b` where `edge_(b-1) <= t < edge_b`.

    Attributes:
        edges: ascending, all different.
    """

    edges: tuple[float, ...]

    @classmethod
    def equal_count(cls, ascending: Float[np.ndarray, " m"], number: int) -> Edges:
        """Edges that put equally many of some numbers into each of so many bins; equal numbers stay together.

        Edges are values that occur, so the bins of a strictly increasing function of the numbers are the same bins.

        Args:
            ascending: the numbers, sorted.
            number: how many bins; fewer where values repeat.

        >>> Edges.equal_count(np.array([0.0, 0.0, 0.0, 1.0, 2.0, 9.0]), 3).edges
        (0.0, 2.0)
        """
        places = -(-np.arange(1, number) * len(ascending) // number)
        return cls(tuple(np.unique(ascending[places[places < len(ascending)]]).tolist()))

    @property
    def bins(self) -> int:
        """One more than there are edges."""
        return len(self.edges) + 1

    def codes(self, values: Float[np.ndarray, "n D"]) -> Int[np.ndarray, "n D"]:
        """Index of each number's bin."""
        edges = np.asarray(self.edges, dtype=values.dtype if values.dtype.kind == "f" else np.float64)
        return np.searchsorted(edges, values, side="right").astype(np.int64, copy=False)


@dataclass(frozen=True)
class Cells:
    """Which examples share a cell.

    Attributes:
        index: cell of each example, from 0.
        counts: examples in each cell, all above 0.
    """

    index: Int[np.ndarray, " n"]
    counts: Int[np.ndarray, " cells"]

    @property
    def n(self) -> int:
        """Examples."""
        return len(self.index)

    @cached_property
    def entropy(self) -> float:
        """Plug-in entropy of the cells in bits: 0 to `log2 n`."""
        return entropy(self.counts)

    @property
    def miller_madow(self) -> float:
        """Entropy with the correction for cells that were missed, `(cells - 1) / 2n` nats."""
        return self.entropy + (len(self.counts) - 1) / (2 * self.n * math.log(2))

    @property
    def singletons(self) -> float:
        """Share of the occupied cells that hold one example."""
        return float(np.count_nonzero(self.counts == 1) / len(self.counts))


def entropy(counts: Int[np.ndarray, " cells"]) -> float:
    """Plug-in entropy of counts in bits: that of their shares. Biased downwards by about `(cells - 1) / 2n` nats.

    >>> entropy(np.array([2, 1, 1]))
    1.5
    """
    n = int(counts.sum())
    return max(0.0, math.log2(n) - _weighted_logs(counts) / n) if n else math.nan


def _weighted_logs(counts: NDArray[np.int64]) -> float:
    """The sum of `c log2 c`; small counts, which are most of them, are looked up how often they occur."""
    several = counts[counts > 1].astype(np.float64)
    return float(several @ np.log2(several))


def cells_of(features: Float[np.ndarray, "n D"], rule: Rule) -> Cells:
    """Cells of examples: two are in the same one if all their numbers fall into the same bins.

    Bin indices are packed into one integer as digits of a number; where that would overflow, the cells so far are
    numbered anew from 0. So no two cells are ever mistaken for one, at any width, and it stops as soon as no two
    examples share a cell. Time `n D + n log n`, memory a few numbers an example.

    Args:
        features: one example a row, finite.
        rule: how numbers become bins.

    Raises:
        ValueError: if there is no example, or a number is not finite.

    >>> cells_of(np.array([[0.1, 0.9], [0.2, 0.8], [0.9, 0.9]]), EqualWidth(0.0, 1.0, 2)).counts.tolist()
    [2, 1]
    """
    if features.ndim != 2 or len(features) == 0:
        raise ValueError(f"Cells are of features of shape (n, D) with n > 0; there was {features.shape}.")
    n, width = features.shape
    size, packed, used, start = rule.bins, np.zeros(n, dtype=np.int64), 1, 0
    if size == 1:
        width = 0
    most = max(1, TOGETHER // n)
    wanted = FIRST
    while start < width:
        room = _digits(size, LARGEST // used, min(wanted, most, width - start))
        block = features[:, start : start + room]
        if not np.isfinite(block).all():
            raise ValueError(
                f"{np.count_nonzero(~np.isfinite(features))} of {features.size} numbers are NaN or infinite."
            )
        packed = packed * size**room + rule.codes(block) @ (size ** np.arange(room, dtype=np.int64))
        used, start, wanted = used * size**room, start + room, 2 * wanted
        if start < width and used > n and (n <= CHEAP or not _digits(size, LARGEST // used, 1)):
            packed, used = _renumbered(packed, used)
            if used == n:  # no two share a cell, and none will
                break
    index, cells = _renumbered(packed, used)
    return Cells(index, np.bincount(index, minlength=cells))


def _digits(size: int, room: int, most: int) -> int:
    """How many digits of this size fit below `room`, at most so many."""
    count, reach = 0, size
    while count < most and reach <= room:
        count, reach = count + 1, reach * size
    return count


def _renumbered(packed: Ints, used: int) -> tuple[Ints, int]:
    """The same cells with numbers from 0 on, all of them taken, and how many there are."""
    if used <= 4 * len(packed) + 1024:
        there = np.bincount(packed, minlength=used) > 0
        return (np.cumsum(there) - 1)[packed], int(np.count_nonzero(there))
    values, index = np.unique(packed, return_inverse=True)
    return index.astype(np.int64, copy=False), len(values)


@dataclass(frozen=True)
class Shared:
    """What cells tell about a grouping of the same examples: labels, or the inputs that the examples came from.

    Attributes:
        bits: plug-in mutual information, `H(T) + H(G) - H(T, G)`; 0 to `min(H(T), H(G))`.
        miller_madow: the same from entropies that are each corrected for cells that were missed. May fall below 0.
        ceiling: `H(G)`, the entropy of the grouping.
        null_mean: mean of `bits` under shuffled groupings: what cells of these sizes read where there is nothing to
            tell. NaN without shuffles.
        null_sd: standard deviation under shuffled groupings; 0 where no shuffle can change anything, NaN with less
            than 2 shuffles.
        z: `(bits - null_mean) / (null_sd sqrt(1 + 1/P))`; NaN where `null_sd` is 0. On noise, with 30 shuffles, above 3
            in 6 of 1,000 simulations.
        p_value: `(1 + shuffles with as much) / (P + 1)`: exact on noise.
    """

    bits: float
    miller_madow: float
    ceiling: float
    null_mean: float = math.nan
    null_sd: float = math.nan
    z: float = math.nan
    p_value: float = math.nan

    @property
    def debiased(self) -> float:
        """`bits` less what shuffled groupings read: 0 on average where there is nothing to tell."""
        return self.bits - self.null_mean


def shared_information(
    cells: Cells, groups: Int[np.ndarray, " n"], shuffles: Int[np.ndarray, "P n"] | None = None
) -> Shared:
    """Mutual information of cells and a grouping, with what shuffled groupings read.

    Where no two examples share a cell it is `H(G)` whatever the groups are, and so are all shuffles. With the inputs as
    the grouping it is `I(X; T)` of the cells: exactly `H(T)` where all inputs differ, or where the network gives equal
    inputs equal activations, as a deterministic one does, each under one number.

    Args:
        cells: of the examples.
        groups: group of each example, from 0.
        shuffles: the same groups in other orders, one a row, as `shuffled` gives them.

    Raises:
        ValueError: if the sizes do not fit.

    >>> cells = Cells(np.array([0, 0, 1, 1]), np.array([2, 2]))
    >>> shared_information(cells, np.array([1, 1, 0, 0])).bits
    1.0
    """
    if groups.shape != cells.index.shape or (shuffles is not None and shuffles.shape[1:] != groups.shape):
        raise ValueError(f"{cells.n} examples are in cells; the groups have shape {groups.shape}.")
    sizes = np.bincount(groups)
    ceiling = entropy(sizes)
    table = groups[None] if shuffles is None else np.concatenate([groups[None], shuffles])
    together, occupied = _joint(cells, table, len(sizes))
    found = ceiling + (together - _weighted_logs(cells.counts)) / cells.n
    found[found < ROUNDING] = 0.0
    missed = (len(cells.counts) + np.count_nonzero(sizes) - int(occupied[0]) - 1) / (2 * cells.n * math.log(2))
    bits = float(found[0])
    return Shared(bits, bits + float(missed), ceiling, *_against(bits, found[1:]))


def shuffled(
    groups: Int[np.ndarray, " n"], permutations: int, seed: int, blocks: Int[np.ndarray, " n"] | None = None
) -> Int[np.ndarray, "P n"]:
    """The groups of examples in other orders, one a row.

    Args:
        groups: group of each example.
        permutations: how many orders.
        seed: of the orders.
        blocks: which examples belong together, such as the places of one image, and keep one group between them; each
            block has one group. All examples are shuffled singly where it is left out.

    >>> shuffled(np.array([0, 1, 1]), 2, seed=0).sum(1).tolist()
    [2, 2]
    """
    generator = np.random.default_rng(seed)
    if blocks is None:
        return generator.permuted(np.tile(groups, (permutations, 1)), axis=1)
    _, first, place = np.unique(blocks, return_index=True, return_inverse=True)
    return generator.permuted(np.tile(groups[first], (permutations, 1)), axis=1)[:, place]


def _joint(cells: Cells, table: Int[np.ndarray, "L n"], groups: int) -> tuple[NDArray[np.float64], Ints]:
    """For each row, the sum of `c log2 c` over the occupied pairs of cell and group, and how many there are.

    Cells of one example add nothing to the sum, and one pair.
    """
    several = cells.counts > 1
    there = several[cells.index]
    alone = int(np.count_nonzero(~several))
    place = (np.cumsum(several) - 1)[cells.index[there]]
    size = int(np.count_nonzero(several)) * groups
    pairs = place * groups + table[:, there]
    if len(table) * size <= DENSE:
        pairs += size * np.arange(len(table))[:, None]
        counts = np.bincount(pairs.ravel(), minlength=len(table) * size).reshape(len(table), size)
        logs = np.arange(1 + counts.max(initial=1), dtype=np.float64)
        logs[1:] *= np.log2(logs[1:])
        return logs[counts].sum(1), alone + np.count_nonzero(counts, axis=1)
    each = [np.unique(row, return_counts=True)[1] for row in pairs]
    return np.array([_weighted_logs(counts) for counts in each]), alone + np.array([len(counts) for counts in each])


def _against(bits: float, null: NDArray[np.float64]) -> tuple[float, float, float, float]:
    """Mean and deviation of a null, and how far out and how rare a value is under it."""
    if not len(null):
        return math.nan, math.nan, math.nan, math.nan
    mean = float(null.mean())
    deviation = float(null.std(ddof=1)) if len(null) > 1 else math.nan
    if deviation <= ROUNDING:
        mean, deviation = float(null[0]), 0.0
    z = (bits - mean) / (deviation * math.sqrt(1 + 1 / len(null))) if deviation > 0 else math.nan
    return mean, deviation, z, float((1 + np.count_nonzero(null >= bits - ROUNDING)) / (1 + len(null)))
