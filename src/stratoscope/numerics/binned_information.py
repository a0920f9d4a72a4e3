"""What the bins of activations tell about inputs and labels, at one number of bins and over a sweep of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from stratoscope.numerics.entropy import Cells, Edges, EqualWidth, Rule, Shared, cells_of, shared_information

ENOUGH = 2**16
"""Numbers from which the edges of equal counts are taken; of larger samples evenly spread examples are."""


@dataclass(frozen=True)
class Examples:
    """What is known of the examples whose activations are binned.

    Attributes:
        labels: class of each, from 0; `None` where there are none.
        shuffles: the same classes in other orders, one a row; `None` for no null.
        inputs: which input each row came from, from 0, where several rows came from one; `None` where all inputs differ.
    """

    labels: Int[np.ndarray, " n"] | None = None
    shuffles: Int[np.ndarray, "P n"] | None = None
    inputs: Int[np.ndarray, " n"] | None = None


@dataclass(frozen=True)
class Binned:
    """What one rule of binning finds.

    Attributes:
        x: `I(X; bin T)` in bits: `H(bin T)` where all inputs differ.
        x_miller_madow: the same with the correction for cells that were missed.
        ceiling: `min(log2 n, H(X))`.
        cells: occupied cells.
        singletons: share of them that hold one example.
        y: what the cells tell about labels; `None` without labels.
    """

    x: float
    x_miller_madow: float
    ceiling: float
    cells: int
    singletons: float
    y: Shared | None

    def uninformative(self, singletons: float = 0.9, within: float = 0.05) -> bool:
        """Whether it could not have read otherwise: most cells hold one example, or `x` is as good as at its ceiling.

        Args:
            singletons: share of the occupied cells from which it says nothing.
            within: bits from the ceiling.
        """
        return self.cells > 1 and (self.singletons > singletons or self.x >= self.ceiling - within)


def binned_information(features: Float[np.ndarray, "n D"], rule: Rule, examples: Examples | None = None) -> Binned:
    """Entropy of binned activations, and what the bins tell about labels; in bits.

    For a deterministic network `I(X; bin T) = H(bin T)`, whatever the inputs: the number says how the activations
    cluster on the scale of the bins, not what was lost (Goldfeld et al., arXiv:1810.05728).

    Args:
        features: one example a row, finite.
        rule: how numbers become bins.
        examples: their labels and inputs.

    >>> table = np.array([[0.1], [0.2], [0.8], [0.9]])
    >>> found = binned_information(table, EqualWidth(0.0, 1.0, 2), Examples(labels=np.array([0, 0, 1, 1])))
    >>> found.x, found.ceiling, found.y.bits
    (1.0, 2.0, 1.0)
    """
    examples = examples or Examples()
    cells = cells_of(features, rule)
    x, corrected, ceiling = _of_inputs(cells, examples.inputs)
    y = None if examples.labels is None else shared_information(cells, examples.labels, examples.shuffles)
    return Binned(x, corrected, ceiling, len(cells.counts), cells.singletons, y)


def _of_inputs(cells: Cells, inputs: NDArray[np.int64] | None) -> tuple[float, float, float]:
    if inputs is None:  # all differ: nothing of T is left open by X
        return cells.entropy, cells.miller_madow, math.log2(cells.n)
    found = shared_information(cells, inputs)
    return found.bits, found.miller_madow, found.ceiling


def equal_count_rules(features: Float[np.ndarray, "n D"], numbers: Sequence[int]) -> list[Edges]:
    """Rules that put equally many of all the units' numbers into each bin, for several numbers of bins.

    >>> equal_count_rules(np.array([[3.0, 1.0], [2.0, 4.0]]), [2])[0].edges
    (3.0,)
    """
    every = max(1, features.size // ENOUGH)
    ascending = np.sort(features[::every], axis=None)
    return [Edges.equal_count(ascending, number) for number in numbers]


def equal_width_rules(low: float, high: float, numbers: Sequence[int]) -> list[EqualWidth]:
    """Rules that cut a range into bins of one width, for several numbers of bins."""
    return [EqualWidth(low, high, number) for number in numbers]


def outside(features: Float[np.ndarray, "n D"], low: float, high: float) -> float:
    """Share of the numbers that lie outside a range, and so were put into its first or last bin.

    >>> outside(np.array([[-2.0, 0.0], [0.5, 1.5]]), -1.0, 1.0)
    0.5
    """
    return float(np.count_nonzero((features < low) | (features > high)) / features.size) if features.size else math.nan
