r"""Least squares by continuous piecewise-linear curves, for every set of knots and many curves at once.

A curve with knots $k_1 < \dots < k_m$ is $a + b x + \sum_j c_j (x - k_j)_+$. What a straight line explains is taken off
first; what a set of knots explains beyond it (its **gain**) is a sum of squares along orthogonal directions, one for each
knot, and a set shares all but its last direction with the set without its last knot. So all sets of up to `most` knots
cost one product of matrices, and the best of them is the best there is: nothing is searched. Since knots keep apart, there
are some thousand sets at most, however many places and knots.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stratoscope.numerics.change_point import MARGIN

Array = NDArray[np.float64]
Index = NDArray[np.intp]

CANDIDATES = 20
"""Places that are tried as knots, evenly thinned where there are more."""
STEPS = 3
"""Of Gauss and Newton, by which knots are moved off the places."""


class PiecewiseLinear:
    """All continuous piecewise-linear fits over given places.

    Knots are at places first: before the first, between two and after the last there lie `MARGIN` steps from place to
    place at least, and between two another candidate. Then they are moved off the places where that fits better.

    Attributes:
        places: `x`, moved and stretched to run from 0 to 1.
        candidates: indices of the places that may be knots.
        sets: for each number of knots the sets, one a row, as indices into `candidates`.
    """

    def __init__(self, x: Array, most: int) -> None:
        """Lay out the directions of all sets.

        Args:
            x: places, strictly ascending.
            most: knots at most; fewer where there is no room for so many.
        """
        self.places: Array = (x - x[0]) / (x[-1] - x[0])
        inner = np.arange(MARGIN, len(x) - MARGIN)
        self.candidates: Index = inner[np.unique(np.linspace(0, len(inner) - 1, CANDIDATES).round().astype(int))]
        line = np.linalg.qr(np.stack([np.ones_like(self.places), self.places], axis=1))[0]
        hinges = np.maximum(self.places - self.places[self.candidates][:, None], 0.0)
        self._line: Array = line
        self._basis: Array = np.linalg.qr((hinges - hinges @ line @ line.T).T)[0]
        self._hinges = hinges @ self._basis
        self.sets: list[Index] = [np.zeros((1, 0), dtype=np.intp)]
        self._parents: list[Index] = [np.zeros(1, dtype=np.intp)]
        self._directions: list[Array] = [np.zeros((1, self._basis.shape[1]))]
        while len(self.sets) <= most and self._add_a_knot():
            pass

    @property
    def most(self) -> int:
        """How many knots there is room for."""
        return len(self.sets) - 1

    def _add_a_knot(self) -> bool:
        """Sets with one knot more, from the sets that there are; False where no set has room."""
        last = self.sets[-1]
        size = last.shape[1] + 1
        rows = [
            (parent, [*known, new])
            for parent, known in enumerate(last.tolist())
            for new in range((known[-1] + 1) if known else 0, len(self.candidates))
            if not known or (new - known[-1] > 1 and self.candidates[new] - self.candidates[known[-1]] >= MARGIN)
        ]
        if not rows:
            return False
        self.sets.append(np.array([chosen for _, chosen in rows]).reshape(-1, size))
        self._parents.append(np.array([parent for parent, _ in rows]))
        self._directions.append(self._last_directions(self.sets[-1]))
        return True

    def _last_directions(self, sets: Index) -> Array:
        """For each set the part of its last hinge that no other of its hinges has, of length 1."""
        found = self._hinges[sets[:, -1]]
        if sets.shape[1] > 1:
            others = np.linalg.qr(np.swapaxes(self._hinges[sets[:, :-1]], 1, 2))[0]
            for _ in range(2):  # once more for what rounding left
                found = found - np.einsum("spk,sk->sp", others, np.einsum("spk,sp->sk", others, found))
        lengths = np.linalg.norm(found, axis=1, keepdims=True)
        return np.asarray(found / np.where(lengths > 0, lengths, 1.0))

    def left_by_line(self, curves: Array) -> Array:
        """Curves, one a row, less their straight lines."""
        return np.asarray(curves - (curves @ self._line) @ self._line.T)

    def gains(self, curves: Array, most: int) -> list[Array]:
        """What each set of up to `most` knots explains beyond a line: for each number of knots `(sets, curves)`."""
        inside = (curves @ self._basis).T
        found = [np.zeros((1, len(curves)))]
        for parents, directions in zip(self._parents[1 : most + 1], self._directions[1 : most + 1], strict=True):
            gains = directions @ inside
            gains *= gains
            gains += found[-1][parents]
            found.append(gains)
        return found

    def knots(self, chosen: Index, size: int) -> Array:
        """Knots of sets with `size` knots, one set a row."""
        return np.asarray(self.places[self.candidates[self.sets[size][chosen]]])

    def best(self, curve: Array) -> list[Array]:
        """The best knots of one curve for each number of knots from 0 on, moved off the places where that fits better."""
        return [self.best_of(curve[None], size)[0] for size in range(self.most + 1)]

    def best_of(self, curves: Array, size: int) -> Array:
        """The best `size` knots of each of many curves, `(curves, size)`, moved as well."""
        return self._moved(curves, self.knots(self.gains(curves, size)[size].argmax(0), size))

    def design(self, knots: Array, at: Array | None = None) -> Array:
        """Columns 1, x and one hinge for each knot: `(..., T, 2 + knots)` for knots `(..., knots)`.

        Args:
            knots: knots, in 0 to 1.
            at: places `(places)` or `(..., places)`, in 0 to 1; without them those of the curves.
        """
        at = self.places if at is None else at
        hinges = np.maximum(at[..., None] - knots[..., None, :], 0.0)
        line = np.stack([np.ones_like(at), at], axis=-1)
        return np.concatenate([np.broadcast_to(line, (*hinges.shape[:-1], 2)), hinges], axis=-1)

    def steps(self, knots: Array) -> Array:
        """One step down at each knot: how a fit changes where the knot moves on, for a change of slope by 1."""
        return -(self.places[:, None] > knots[..., None, :]).astype(np.float64)

    def fitted(self, curve: Array, knots: Array) -> Array:
        """The least-squares fit with these knots to one curve."""
        basis = np.linalg.qr(self.design(knots))[0]
        return np.asarray(basis @ (basis.T @ curve))

    def corners(self, curves: Array, knots: Array) -> tuple[Array, Array]:
        """Fits, each curve with its own knots: first place, knots and last place, and the fits' values there."""
        at = np.pad(knots, ((0, 0), (1, 1)), constant_values=((0.0, 0.0), (0.0, 1.0)))
        return at, np.einsum("cap,cp->ca", self.design(knots, at), _solved(self.design(knots), curves))

    def _moved(self, curves: Array, knots: Array) -> Array:
        """Knots after some steps of Gauss and Newton, each at most half way to the next candidate."""
        size = knots.shape[1]
        if not size:
            return knots
        tried = self.places[self.candidates]
        half = np.concatenate([tried[:1], (tried[1:] + tried[:-1]) / 2, tried[-1:]])
        at = np.searchsorted(tried, knots)
        found, now = knots, knots
        # rounding must not move a knot off its place
        least = self._left(curves, knots) * (1 - 1e-6)
        for _ in range(STEPS):
            solved = _solved(np.concatenate([self.design(now), self.steps(now)], axis=-1), curves)
            bends, moves = solved[:, 2 : 2 + size], solved[:, 2 + size :]
            now = np.clip(now + moves / np.where(np.abs(bends) > 1e-9, bends, np.inf), half[at], half[at + 1])
            left = self._left(curves, now)
            found = np.where((left < least)[:, None], now, found)
            least = np.minimum(left, least)
        return found

    def _left(self, curves: Array, knots: Array) -> Array:
        """Sum of squares that the fit of each curve with its own knots leaves."""
        columns = self.design(knots)
        return np.asarray(np.square(curves - np.einsum("ctp,cp->ct", columns, _solved(columns, curves))).sum(1))


def _solved(columns: Array, curves: Array) -> Array:
    """Least squares of each curve by its own columns; places lie in 0 to 1, so their products are conditioned well."""
    turned = np.swapaxes(columns, 1, 2)
    # enough for columns that coincide, and below what is read off
    ridge = 1e-13 * columns.shape[1] * np.eye(columns.shape[2])
    return np.asarray(np.linalg.solve(turned @ columns + ridge, turned @ curves[..., None])[..., 0])
