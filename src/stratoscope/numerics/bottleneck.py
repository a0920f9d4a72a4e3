r"""The information-bottleneck bound: how much a code of $X$ can know about $Y$ at most, for what it keeps of $X$.

For a joint distribution of $X$ and $Y$ and codes $p(t|x)$ the bound is the curve

$$ F(R) = \max \{ I(T;Y) : I(X;T) \le R,\; Y - X - T \}, $$

concave, non-decreasing, below $\min(R, I(X;Y))$, with slope $1/\beta$ at the best code for the price $\beta$ (see
`stratoscope.numerics.bottleneck_codes`). The curve is enclosed: from below by chords between codes that were found, from
above by their tangents. Everything is in bits but $\beta$, a pure number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike

from stratoscope.numerics.bottleneck_codes import SAME, Array, Code, Joint, bottleneck, merge_equal


@dataclass(frozen=True)
class BottleneckCurve:
    """The bound, between the codes that were found and their tangents.

    Attributes:
        joint: of what.
        beta: one over the slope, ascending from 1 to infinity; for each point of the curve.
        rate: I(X;T) of the code for each beta, in bits, ascending.
        relevance: I(T;Y) of it, in bits, ascending: codes that exist.
        least: a lower bound on `rate + beta (I(X;Y) - relevance)` over all codes, in bits, for each beta.
        accuracy: bits by which the tangents lie above the chords at most.
    """

    joint: Joint
    beta: Array
    rate: Array
    relevance: Array
    least: Array
    accuracy: float

    @property
    def degenerate(self) -> str:
        """Why the curve has no shape of its own; empty where it has one."""
        return self.joint.degenerate

    def relevance_at(self, rate: ArrayLike) -> Array:
        """The most I(T;Y) that a code of this I(X;T) can have, in bits: no code lies above.

        Args:
            rate: I(X;T) in bits, any shape; below 0 it counts as 0.
        """
        rates = np.maximum(np.asarray(rate, dtype=np.float64), 0.0)
        lines = self.joint.information - (self.least - rates[..., None]) / self.beta
        return np.asarray(np.minimum(lines.min(-1), np.minimum(rates, self.joint.information)))

    def rate_at(self, relevance: ArrayLike) -> Array:
        """The least I(X;T) that a code of this I(T;Y) needs, in bits; infinite above I(X;Y).

        Args:
            relevance: I(T;Y) in bits, any shape.
        """
        known = np.asarray(relevance, dtype=np.float64)
        finite = np.isfinite(self.beta)
        lines = self.least[finite] - self.beta[finite] * (self.joint.information - known[..., None])
        least = np.maximum(np.maximum(lines.max(-1), known), 0.0)
        beyond = known > self.joint.information + SAME
        # the last stretch is the chord to the code that keeps everything: from there on no beta is large enough
        return np.where(beyond, np.inf, np.minimum(least, self.joint.entropy_x))

    def missing(self, rate: ArrayLike, relevance: ArrayLike) -> Array:
        """Bits of I(T;Y) that a point lies below the bound; negative above it, where an estimate is biased.

        Args:
            rate: I(X;T) of points, in bits.
            relevance: their I(T;Y), in bits.
        """
        return np.asarray(self.relevance_at(rate) - np.asarray(relevance, dtype=np.float64))

    def surplus(self, rate: ArrayLike, relevance: ArrayLike) -> Array:
        """Bits of I(X;T) that a point has beyond what its I(T;Y) needs; minus infinity above I(X;Y).

        Args:
            rate: I(X;T) of points, in bits.
            relevance: their I(T;Y), in bits.
        """
        return np.asarray(rate, dtype=np.float64) - self.rate_at(relevance)


def bottleneck_curve(
    p_x: ArrayLike | None, p_y_given_x: ArrayLike, *, accuracy: float = 1e-3, points: int = 200
) -> BottleneckCurve:
    """The whole bound.

    Beta is annealed to where the curve bends: between two codes the next beta is one over the slope of their chord, and
    its search begins with the clusters of both. It ends where the tangents are nowhere further than `accuracy` above the
    chords.

    Args:
        p_x: probability of each input; `None` for equal ones.
        p_y_given_x: one input a row, one class a column.
        accuracy: in bits.
        points: of the curve at most.

    Raises:
        ValueError: if these are no distributions, or `accuracy` or `points` is out of range.

    >>> curve = bottleneck_curve(None, [[0.9, 0.1], [0.1, 0.9]])
    >>> curve.relevance_at([0.0, 0.5, 1.0]).round(3).tolist()
    [0.0, 0.303, 0.531]
    """
    if not accuracy > 0 or points < 2:
        raise ValueError(f"accuracy={accuracy} must be above 0 and points={points} at least 2.")
    joint = merge_equal(p_x, p_y_given_x)
    codes = list(_ends(joint))
    while not joint.degenerate and len(codes) < points:
        gaps = _gaps(joint, codes, able_to_close=True)
        widest = int(np.argmax(gaps))
        if gaps[widest] <= accuracy:
            break
        left, right = codes[widest : widest + 2]
        start = np.concatenate([left.decoder, right.decoder])
        codes.insert(widest + 1, bottleneck(joint, _chord(left, right), start=start, tolerance=accuracy / 10))
    gap = max(_gaps(joint, codes))
    beta, rate, relevance, excess = (
        np.array([getattr(code, name) for code in codes]) for name in ("beta", "rate", "relevance", "excess")
    )
    least = np.where(
        np.isfinite(beta), rate + np.where(np.isfinite(beta), beta, 0) * (joint.information - relevance) - excess, 0
    )
    return BottleneckCurve(joint, beta, rate, relevance, least, gap)


def _ends(joint: Joint) -> tuple[Code, Code]:
    """The code that says nothing, the best up to beta = 1 as I(T;Y) <= I(X;T); and the one that says all that matters."""
    nothing = Code(1.0, 0.0, 0.0, np.ones(1), joint.p_y[None], np.ones((len(joint.p_x), 1)), 0.0)
    rows = joint.p_y_given_x
    everything = Code(math.inf, joint.entropy_x, joint.information, joint.p_x, rows, np.eye(len(rows)), 0.0)
    return nothing, everything


def _chord(left: Code, right: Code) -> float:
    """One over the slope of the chord between two codes, kept between their own."""
    rise = right.relevance - left.relevance
    beta = (right.rate - left.rate) / rise if rise > 0 else left.beta
    return min(max(beta, left.beta), right.beta)


def _tangent(joint: Joint, code: Code) -> tuple[float, float]:
    """Height at rate 0 and slope of the line above which no code lies."""
    if math.isinf(code.beta):
        return joint.information, 0.0
    return joint.information - _least(joint, code) / code.beta, 1 / code.beta


def _least(joint: Joint, code: Code) -> float:
    """No code has less of `rate + beta (I(X;Y) - relevance)`; 0 where beta is infinite, as it then does not matter."""
    if math.isinf(code.beta):
        return 0.0
    return code.rate + code.beta * (joint.information - code.relevance) - code.excess


def _gaps(joint: Joint, codes: list[Code], *, able_to_close: bool = False) -> list[float]:
    """Between neighbours, how far the tangents' crossing lies above the chord; 0 where a further code cannot help."""
    gaps = []
    for left, right in pairwise(codes):
        (a, s), (b, t) = _tangent(joint, left), _tangent(joint, right)
        crossing = (b - a) / (s - t) if s > t else left.rate
        crossing = min(max(crossing, left.rate), right.rate)
        share = (crossing - left.rate) / (right.rate - left.rate) if right.rate > left.rate else 0.0
        chord = left.relevance + share * (right.relevance - left.relevance)
        gap = max(0.0, min(a + s * crossing, b + t * crossing) - chord)
        stuck = any(abs(1 / _chord(left, right) - slope) <= 1e-6 * slope for slope in (s, t))
        gaps.append(0.0 if able_to_close and stuck else gap)
    return gaps
