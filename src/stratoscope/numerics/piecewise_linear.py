r"""Least squares by continuous piecewise-linear curves, for every set of knots and many curves at once.

A curve with knots $k_1 < \dots < k_m$ is $a + b x + \sum_j c_j (x - k_j)_+$. What a straight line explains is taken off
first; what a set of knots explains beyond it (its **gain**) is a sum of squares along orthogonal directions, one for each
knot, and a set shares all but its last direction with the set without its last knot. So all sets of up to `most` knots
cost one product of matrices, and the best of them is the best there is: nothing is searched.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stratoscope.numerics.change_point import MARGIN

Array = NDArray[np.float64]
Index = NDArray[np.intp]

CANDIDATES = 20
"""Places that are tried as knots, evenly thinned where there are more."""
STEPS = 5
"""By which knots are moved off the places."""


class PiecewiseLinear:
    """All continuous piecewise-linear fits over given places, with knots at places.

    Before the first knot, between two and after the last there lie `MARGIN` steps from place to place at least.

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
            if not known or self.candidates[new] - self.candidates[known[-1]] >= MARGIN
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
        return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True))

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
        chosen = [gains.argmax(0) for gains in self.gains(curve[None], self.most)]
        return [self._moved(curve, self.knots(one, size)[0]) for size, one in enumerate(chosen)]

    def design(self, knots: Array) -> Array:
        """Columns 1, x and one hinge for each knot."""
        hinges = np.maximum(self.places[:, None] - knots, 0.0)
        return np.concatenate([np.ones((len(self.places), 1)), self.places[:, None], hinges], axis=1)

    def steps(self, knots: Array) -> Array:
        """One step down at each knot: how a fit changes where the knot moves on, for a change of slope by 1."""
        return -(self.places[:, None] > knots).astype(np.float64)

    def fitted(self, curve: Array, knots: Array) -> Array:
        """The least-squares fit with these knots to one curve."""
        basis = np.linalg.qr(self.design(knots))[0]
        return np.asarray(basis @ (basis.T @ curve))

    def slopes(self, curves: Array, knots: Array) -> Array:
        """Slopes `(curves, knots + 1)` of the fits with the same knots, over all places as unit of length."""
        coefficients = np.linalg.lstsq(self.design(knots), curves.T, rcond=None)[0]
        return np.cumsum(coefficients[1:], axis=0).T

    def _moved(self, curve: Array, knots: Array) -> Array:
        """Knots after some steps of Gauss and Newton, each at most half way to the next candidate."""
        if not len(knots):
            return knots
        tried = self.places[self.candidates]
        half = np.concatenate([tried[:1], (tried[1:] + tried[:-1]) / 2, tried[-1:]])
        at = np.searchsorted(tried, knots)
        low, high = half[at], half[at + 1]
        ways = [knots]
        for _ in range(STEPS):
            columns = np.concatenate([self.design(ways[-1]), self.steps(ways[-1])], axis=1)
            found = np.linalg.lstsq(columns, curve, rcond=None)[0][2:]
            bends, moves = found[: len(knots)], found[len(knots) :]
            ways.append(np.clip(ways[-1] + moves / np.where(bends, bends, np.inf), low, high))
        left = [float(np.square(curve - self.fitted(curve, way)).sum()) for way in ways]
        # rounding must not move a knot off its place
        return knots if min(left) >= left[0] * (1 - 1e-6) else ways[int(np.argmin(left))]
