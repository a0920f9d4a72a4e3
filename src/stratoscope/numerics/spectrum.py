"""The eigenvalues of a matrix times its transpose, as a value: all of them, or a sketch of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float64


@dataclass(frozen=True, eq=False)
class Spectrum:
    """The eigenvalues of `W W^T`: the squared singular values of a weight matrix `W`, in float64.

    Attributes:
        eigenvalues: descending. All `rows` of them (of pooled matrices all `copies * rows`; where the rank is bounded,
            see `rank`, all that its making allows); of a sketch the largest few, each converged. NaN for each where an
            entry of the matrix is not finite; none where the matrix is empty.
        rows: `M`, the shorter side.
        columns: `N`, the longer side.
        copies: how many matrices of this size are pooled, such as the slices of a convolution's kernel.
        law: what its spectrum would follow if the matrix were noise. `"entries"`: independent entries, hence the
            Marchenko-Pastur law; `"product"` (a product of weights), `"parametrized"` (what a parametrization makes of
            them) and `"operator"` (the map on images that a convolution is): no such law.
        rank: largest rank that the making of the matrix allows, where that is below `rows`; the zeros that follow from
            it are left out of `eigenvalues`. Otherwise `None`.
        how: `"exact"`: every eigenvalue was computed; `"sketch"`: the largest ones were, and of the others the
            distribution was estimated by Gauss quadrature from random probes.
        error: of a sketch, how far the estimated share of the remaining eigenvalues below any point may be off (a
            Kolmogorov distance in [0, 1]); 0 where exact.
        nodes: of a sketch, where the remaining eigenvalues lie, ascending; `None` where exact.
        node_weights: how many eigenvalues each node stands for; they sum to the number of the remaining ones, so that
            `f(eigenvalues).sum() + (node_weights * f(nodes)).sum()` estimates the sum of `f` over the whole spectrum.
        trace: the sum of all eigenvalues (the squared Frobenius norm, of all copies together); exact for a sketch too.
        shuffled: the eigenvalues, descending, of each seeded shuffle of the matrix's entries; none where none was asked
            for, of a sketch, of a product and of a map on images, and where an entry is not finite.

    >>> import numpy as np
    >>> Spectrum(np.array([4.0, 1.0]), rows=2, columns=3, trace=5.0).count
    2
    """

    eigenvalues: Float64[np.ndarray, " k"]
    rows: int
    columns: int
    copies: int = 1
    law: str = "entries"
    rank: int | None = None
    how: str = "exact"
    error: float = 0.0
    nodes: Float64[np.ndarray, " nodes"] | None = None
    node_weights: Float64[np.ndarray, " nodes"] | None = None
    trace: float = 0.0
    shuffled: tuple[Float64[np.ndarray, " k"], ...] = ()

    @property
    def count(self) -> int:
        """How many eigenvalues there are in all, those of a sketch that only nodes stand for among them."""
        return self.copies * (self.rows if self.rank is None else min(self.rows, self.rank))
