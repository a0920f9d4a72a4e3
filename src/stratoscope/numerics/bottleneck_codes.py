r"""Codes of the information bottleneck: the best one for a given price, with a bound on how far it is from the best.

A code $p(t|x)$ of $X$ keeps $I(X;T)$ of the input and knows $I(T;Y)$ of the label, where $Y - X - T$. At the price $\beta$ the
best code minimises $L_\beta = I(X;T) + \beta\, [I(X;Y) - I(T;Y)]$. Minimisers solve

$$ p(t|x) \propto p(t)\, e^{-\beta\, \mathrm{KL}[p(y|x) \,\|\, p(y|t)]} $$

(Tishby, Pereira and Bialek, arXiv:physics/0004057), and two steps alternate towards them as in Blahut and Arimoto's
algorithm. Such an alternation finds a fixed point, not always the best, and crawls near the betas at which clusters split.
Here it is one of three steps. The second weighs the clusters anew, which is a concave problem. The third holds the code
against the condition of optimality: with $Z(x) = \sum_t p(t)\, e^{-\beta\,\mathrm{KL}[p(y|x)\|p(y|t)]}$ the code is a
global minimum if and only if

$$ c(r) = \sum_x p(x)\, e^{-\beta\,\mathrm{KL}[p(y|x)\|r]} / Z(x) \le 1 \quad\text{for every distribution } r \text{ over } y, $$

and else $L_\beta$ is at most $\ln \max_r c(r)$ above the minimum (Csiszar's bound for a codebook of all $r$). Where a
distribution $r$ breaks the condition, a cluster splits: $r$ becomes one of its own. So every code comes with a bound on its
error. With two classes $r$ is searched for on a grid and then uphill. With more it is searched for uphill from every
cluster and every $p(y|x)$ (of the first 256), as no search over all $r$ is feasible: the bound on the error then rests on
the best $r$ that was found.

Everything is in bits but $\beta$, a pure number. Inputs $x$ with equal $p(y|x)$ are merged before, which changes no best
code: it treats them alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

SAME = 1e-12
"""Conditional distributions whose probabilities differ by less are one."""

_GRID = 1025
"""Points at which the condition of optimality is looked at where there are two classes."""
_STARTS = 256
"""Inputs at most from which a better cluster is searched for where there are more."""
_ROUNDS = 300
"""Rounds at most for one point of the curve; most need fewer than 20."""
_CLIMBS, _PEAKS = 8, 16
"""Steps uphill from each place that breaks the condition most, and how many such places."""
_TOGETHER = 1e3
"""Weight of the condition that masses sum to 1, against the inputs' weights of at most 1."""
_EMPTY = 1e-13
"""Clusters of less probability are dropped."""


@dataclass(frozen=True)
class Code:
    """A code of the inputs.

    Attributes:
        beta: for which it was made.
        rate: I(X;T), in bits.
        relevance: I(T;Y), in bits.
        mass: p(t).
        decoder: p(y|t), one cluster a row.
        assignment: p(t|x), one (merged) input a row.
        excess: bits by which `rate + beta (I(X;Y) - relevance)` may lie above the least possible.
    """

    beta: float
    rate: float
    relevance: float
    mass: Array
    decoder: Array
    assignment: Array
    excess: float


@dataclass(frozen=True)
class Joint:
    """A joint distribution, its inputs with equal p(y|x) merged.

    Attributes:
        p_x: probability of each input, positive.
        p_y_given_x: one input a row, one class a column.
    """

    p_x: Array
    p_y_given_x: Array

    @cached_property
    def p_y(self) -> Array:
        """Probability of each class."""
        return np.asarray(self.p_x @ self.p_y_given_x)

    @cached_property
    def entropy_x(self) -> float:
        """Entropy of the merged inputs: of the least that tells all about Y. Bits."""
        return _entropy(self.p_x)

    @cached_property
    def entropy_y(self) -> float:
        """H(Y) in bits."""
        return _entropy(self.p_y)

    @cached_property
    def information(self) -> float:
        """I(X;Y) in bits."""
        return max(0.0, float(self.p_x @ _divergence_terms(self.p_y_given_x, self.p_y).sum(1)) / math.log(2))

    @cached_property
    def certain(self) -> bool:
        """Whether the label is a function of the input."""
        return float(np.max(entropy_terms(self.p_y_given_x).sum(1))) <= SAME

    @cached_property
    def degenerate(self) -> str:
        """Why the curve has no shape of its own; empty where it has one."""
        if self.information <= SAME:
            return "the labels do not depend on the input, so no code knows anything about them"
        if self.certain:
            return (
                "the label is a function of the input, so the bound is the line I(T;Y) = I(X;T) up to H(Y), which the "
                "label itself reaches, diluted, at every point (arXiv:1808.07593)"
            )
        return ""


def merge_equal(p_x: ArrayLike | None, p_y_given_x: ArrayLike) -> Joint:
    """Merge inputs that say the same about the label.

    Args:
        p_x: probability of each input; `None` for equal ones. Inputs of probability zero are left out.
        p_y_given_x: one input a row, one class a column; rows sum to 1.

    Raises:
        ValueError: if these are no distributions.

    >>> len(merge_equal(None, [[1, 0], [0, 1], [1, 0]]).p_x)
    2
    """
    rows = np.atleast_2d(np.asarray(p_y_given_x, dtype=np.float64))
    weights = np.full(len(rows), 1 / max(1, len(rows))) if p_x is None else np.asarray(p_x, dtype=np.float64)
    if rows.ndim != 2 or rows.size == 0 or weights.shape != rows.shape[:1]:
        raise ValueError(f"p(y|x) is a matrix with a row for each of p(x); there was {rows.shape} and {weights.shape}.")
    for name, sums, values in (("p(x)", weights.sum(), weights), ("p(y|x)", rows.sum(1), rows)):
        if not (np.all(np.isfinite(values)) and np.all(values >= 0) and np.allclose(sums, 1, atol=1e-6)):
            worst = float(np.ravel(sums)[np.argmax(np.abs(np.nan_to_num(np.ravel(sums), nan=np.inf) - 1))])
            raise ValueError(f"{name} must be finite, not negative and sum to 1; a sum is {worst:g}.")
    rows, weights = rows[weights > 0], weights[weights > 0]
    rows = rows / rows.sum(1, keepdims=True)
    _, first, place = np.unique(np.round(rows / SAME), axis=0, return_index=True, return_inverse=True)
    merged = np.bincount(place.ravel(), weights=weights / weights.sum()).astype(np.float64)
    return Joint(merged, rows[first])


def bottleneck(joint: Joint, beta: float, *, start: Array | None = None, tolerance: float = 1e-5) -> Code:
    """The best code for one beta, with a bound on how far it is from the best.

    Args:
        joint: from `merge_equal`.
        beta: at least 0; up to 1 the best code says nothing.
        start: decoders p(y|t) to begin with, one a row, such as those for a neighbouring beta; by default every p(y|x).
        tolerance: bits of I(T;Y) within which it stops; `excess / beta` is at most that unless it gave up before.

    Raises:
        ValueError: if beta is negative or no number.

    >>> code = bottleneck(merge_equal(None, [[0.9, 0.1], [0.1, 0.9]]), beta=4.0)
    >>> round(code.relevance, 3), round(code.rate, 3)
    (0.529, 0.99)
    """
    if not (math.isfinite(beta) and beta >= 0):
        raise ValueError(f"beta must be a number from 0 on; there was {beta}.")
    decoder = joint.p_y_given_x[:_STARTS] if start is None else np.atleast_2d(start)
    decoder = np.concatenate([joint.p_y[None], decoder])
    mass, goal = np.full(len(decoder), 1 / len(decoder)), max(tolerance * max(beta, 1.0) * math.log(2), 1e-13)
    excess = math.inf
    for _ in range(_ROUNDS):
        mass, decoder = _alternate(joint, beta, mass, decoder)
        excess, more, clusters = _split(joint, beta, mass, decoder)
        if excess <= goal:
            break
        mass, decoder = _reweigh(joint, beta, more, clusters)
    return _code(joint, beta, mass, decoder, excess)


def _kernel(joint: Joint, beta: float, decoder: Array) -> Array:
    """-beta KL[p(y|x) || r] for each input and each row r; nats."""
    logs = np.log(np.maximum(decoder, 1e-300))
    cross: Array = joint.p_y_given_x @ logs.T
    distance: Array = np.maximum(-entropy_terms(joint.p_y_given_x).sum(1)[:, None] - cross, 0.0)
    return -beta * distance


def _alternate(joint: Joint, beta: float, mass: Array, decoder: Array) -> tuple[Array, Array]:
    """One alternation: assignment by mass and decoder, then mass and decoder by assignment."""
    assignment = _assigned(joint, beta, mass, decoder)
    mass = joint.p_x @ assignment
    kept = mass > _EMPTY
    mass, assignment = mass[kept] / mass[kept].sum(), assignment[:, kept]
    decoder = (assignment * joint.p_x[:, None]).T @ joint.p_y_given_x
    return mass, decoder / decoder.sum(1, keepdims=True)


def _assigned(joint: Joint, beta: float, mass: Array, decoder: Array) -> Array:
    weights = _kernel(joint, beta, decoder) + np.log(mass)
    return np.asarray(np.exp(weights - _log_sum(weights, 1)[:, None]))


def _split(joint: Joint, beta: float, mass: Array, decoder: Array) -> tuple[float, Array, Array]:
    """Logarithm of the largest c(r), and the clusters with those added that break the condition of optimality most."""
    log_weight = np.log(joint.p_x) - _log_sum(_kernel(joint, beta, decoder) + np.log(mass), 1)
    places = np.concatenate([_looked_at(joint), decoder])
    height = _log_sum(_kernel(joint, beta, places) + log_weight[:, None], 0)
    places = places[_peaks(height, len(places) - len(decoder), joint.p_y_given_x.shape[1] == 2)]
    for _ in range(_CLIMBS):  # uphill, by the alternation's own step for one cluster
        weights = _kernel(joint, beta, places) + log_weight[:, None]
        height = _log_sum(weights, 0)
        places = np.exp(weights - height).T @ joint.p_y_given_x
    new = places[height > 0]
    return max(0.0, float(height.max())), np.concatenate([mass, np.zeros(len(new))]), np.concatenate([decoder, new])


def _looked_at(joint: Joint) -> Array:
    rows = joint.p_y_given_x
    if rows.shape[1] == 2:
        grid = (1 - np.cos(np.linspace(0, math.pi, _GRID))) / 2
        return np.stack([1 - grid, grid], axis=1)
    return rows[:_STARTS]


def _peaks(height: Array, grid: int, ordered: bool) -> NDArray[np.intp]:
    """The highest places; of those that lie along a line only the tops."""
    order = np.argsort(-height)
    if ordered:
        line = np.pad(height[:grid], 1, constant_values=-math.inf)
        top = np.concatenate([(line[1:-1] >= line[:-2]) & (line[1:-1] >= line[2:]), np.ones(len(height) - grid, bool)])
        order = order[top[order]]
    return order[:_PEAKS]


def _reweigh(joint: Joint, beta: float, mass: Array, decoder: Array) -> tuple[Array, Array]:
    """Better masses for given decoders, by one constrained Newton step; clusters that lose all mass are dropped.

    For fixed decoders -L is concave in the masses, as the likelihood of a mixture is: Wang's step for that
    (doi:10.1111/j.1467-9868.2007.00583.x), a least-squares problem with non-negative masses.
    """
    from scipy.optimize import nnls

    kernel = _kernel(joint, beta, decoder)
    kernel -= kernel.max(1, keepdims=True)
    ratios = np.exp(kernel)
    level = ratios @ mass
    root = np.sqrt(joint.p_x)
    rows = np.concatenate([root[:, None] * ratios / level[:, None], np.full((1, len(mass)), _TOGETHER)])
    try:
        aim = nnls(rows, np.append(2 * root, _TOGETHER))[0]
    except RuntimeError:  # it did not converge; the alternation goes on without it
        return mass[mass > 0], decoder[mass > 0]
    step, change = 1.0, aim / aim.sum() - mass
    now = joint.p_x @ np.log(level)
    while step > 1e-6 and joint.p_x @ np.log(np.maximum(ratios @ (mass + step * change), 1e-300)) < now:
        step /= 2
    mass = np.maximum(mass + (step if step > 1e-6 else 0.0) * change, 0.0)
    return mass[mass > _EMPTY] / mass[mass > _EMPTY].sum(), decoder[mass > _EMPTY]


def _code(joint: Joint, beta: float, mass: Array, decoder: Array, excess: float) -> Code:
    assignment = _assigned(joint, beta, mass, decoder)
    mass = joint.p_x @ assignment
    together = assignment * joint.p_x[:, None]
    decoder = together.T @ joint.p_y_given_x / mass[:, None]
    rate = float(_divergence_terms(together, joint.p_x[:, None] * mass).sum()) / math.log(2)
    relevance = float(mass @ _divergence_terms(decoder, joint.p_y).sum(1)) / math.log(2)
    return Code(beta, max(0.0, rate), max(0.0, relevance), mass, decoder, assignment, excess / math.log(2))


def _entropy(p: Array) -> float:
    return float(entropy_terms(p).sum()) / math.log(2)


def entropy_terms(p: Array) -> Array:
    """`-p ln p` of each number, 0 for 0."""
    return -p * np.log(np.where(p > 0, p, 1.0))


def _divergence_terms(p: Array, q: Array) -> Array:
    """`p ln(p / q)` of each pair, 0 where p is 0."""
    return p * np.log(np.where(p > 0, p, 1.0) / np.where(p > 0, q, 1.0))


def _log_sum(values: Array, axis: int) -> Array:
    """Logarithm of the sum of exponentials."""
    most = values.max(axis, keepdims=True)
    return np.asarray(np.squeeze(most, axis) + np.log(np.exp(values - most).sum(axis)))
