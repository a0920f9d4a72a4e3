r"""The deterministic information bottleneck: the best code that gives each input one cluster.

It minimises $H(T) - \beta I(T;Y)$ over functions $t(x)$ (Strouse and Schwab, arXiv:1604.00268). Their family of codes

$$ p(t|x) \propto \exp\{ [\ln p(t) - \beta\, \mathrm{KL}[p(y|x) \,\|\, p(y|t)]] / \alpha \} $$

has the information bottleneck at $\alpha = 1$ and this one as its limit for $\alpha \to 0$. The layers of a network
without noise are such functions of their input, so this is what they can reach; the bottleneck of random codes is never
lower. Bits throughout but for beta.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stratoscope.numerics.bottleneck_codes import Array, Code, Joint, entropy_terms

_LARGEST = 400
"""Inputs up to which clusters are joined pair by pair from single inputs."""


def deterministic_bottleneck(joint: Joint, beta: float) -> Code:
    """The best deterministic code for one beta.

    With two classes it is exact: for given clusters an input belongs to the lowest of some lines over p(y=1|x), so every
    cluster is an interval, and the best intervals are found one after the other. With more it joins pairs of inputs as
    long as that helps and then moves inputs: a local minimum, whose `excess` is infinite.

    Args:
        joint: from `merge_equal`.
        beta: at least 0.

    Raises:
        ValueError: if beta is negative or no number, or there are more than two classes and over 400 inputs.

    >>> from stratoscope.numerics.bottleneck_codes import merge_equal
    >>> code = deterministic_bottleneck(merge_equal(None, [[0.9, 0.1], [0.8, 0.2], [0.1, 0.9]]), beta=3.0)
    >>> code.assignment.tolist()
    [[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]
    """
    if not (math.isfinite(beta) and beta >= 0):
        raise ValueError(f"beta must be a number from 0 on; there was {beta}.")
    if joint.p_y_given_x.shape[1] == 2:
        return _hard(joint, beta, _intervals(joint, beta), 0.0)
    if len(joint.p_x) > _LARGEST:
        raise ValueError(
            f"With more than two classes at most {_LARGEST} inputs can be joined; there were {len(joint.p_x)}."
        )
    return _hard(joint, beta, _moved(joint, beta, _joined(joint, beta)), math.inf)


def deterministic_curve(joint: Joint, *, points: int = 100) -> list[Code]:
    """The deterministic codes that are best for some beta, from one cluster to all inputs apart.

    Args:
        joint: from `merge_equal`.
        points: at most.

    Returns:
        Codes by ascending rate: the corners of the concave hull of what deterministic codes reach.

    >>> from stratoscope.numerics.bottleneck_codes import merge_equal
    >>> codes = deterministic_curve(merge_equal([0.5, 0.25, 0.25], [[0.9, 0.1], [0.2, 0.8], [0.1, 0.9]]))
    >>> [round(code.rate, 3) for code in codes]
    [0.0, 1.0, 1.5]
    """
    every = np.arange(len(joint.p_x))
    codes = [_hard(joint, 0.0, np.zeros_like(every), 0.0)]
    if len(every) > 1:
        codes.append(_hard(joint, math.inf, every, 0.0))
    straight: set[tuple[float, float]] = set()
    while len(codes) < points:
        open_ends = [(a, b) for a, b in pairwise(codes) if (a.rate, b.rate) not in straight]
        if not open_ends:
            break
        left, right = max(open_ends, key=lambda ends: ends[1].rate - ends[0].rate)
        code = _beyond(joint, left, right)
        if code is None:
            straight.add((left.rate, right.rate))
        else:
            codes.insert(codes.index(left) + 1, code)
    return codes


def _beyond(joint: Joint, left: Code, right: Code) -> Code | None:
    """A code above the chord between two, and `None` where there is none."""
    rise = right.relevance - left.relevance
    if rise <= 1e-12:
        return None
    beta = (right.rate - left.rate) / rise
    code = deterministic_bottleneck(joint, beta)
    gain = (left.rate - beta * left.relevance) - (code.rate - beta * code.relevance)
    return code if gain > 1e-9 and left.rate < code.rate < right.rate else None


def _cost(mass: Array, joint_mass: Array, beta: float) -> Array:
    """What each cluster adds to H(T) + beta H(Y|T), in nats: of p(t) and p(t, y)."""
    return np.asarray(entropy_terms(mass) + beta * (entropy_terms(joint_mass).sum(-1) - entropy_terms(mass)))


def _intervals(joint: Joint, beta: float) -> NDArray[np.intp]:
    order = np.argsort(joint.p_y_given_x[:, 1], kind="stable")
    both = (joint.p_x[:, None] * joint.p_y_given_x)[order]
    upto = np.concatenate([np.zeros((1, 2)), np.cumsum(both, 0)])
    n = len(order)
    best, begins = np.zeros(n + 1), np.zeros(n + 1, np.intp)
    for end in range(1, n + 1):
        inside = np.maximum(upto[end] - upto[:end], 0.0)
        total = best[:end] + _cost(inside.sum(1), inside, beta)
        begins[end] = int(np.argmin(total))
        best[end] = total[begins[end]]
    labels, end, label = np.zeros(n, np.intp), n, 0
    while end > 0:
        labels[order[begins[end] : end]] = label
        end, label = int(begins[end]), label + 1
    return labels


def _joined(joint: Joint, beta: float) -> NDArray[np.intp]:
    """Pairs of clusters are joined, the best pair first, until none helps."""
    labels = np.arange(len(joint.p_x))
    both = joint.p_x[:, None] * joint.p_y_given_x
    while len(both) > 1:
        mass = both.sum(1)
        alone = _cost(mass, both, beta)
        first, second = np.triu_indices(len(both), 1)
        gain = alone[first] + alone[second] - _cost(mass[first] + mass[second], both[first] + both[second], beta)
        pair = int(np.argmax(gain))
        if gain[pair] <= 0:
            break
        one, other = int(first[pair]), int(second[pair])
        both[one] += both[other]
        both = np.delete(both, other, 0)
        labels[labels == other] = one
        labels[labels > other] -= 1
    return labels


def _moved(joint: Joint, beta: float, labels: NDArray[np.intp]) -> NDArray[np.intp]:
    """Each input goes to the cluster that suits it best, until the sum gets no lower."""
    lowest, found = math.inf, labels
    for _ in range(100):
        code = _hard(joint, beta, labels, 0.0)
        cost = code.rate - beta * code.relevance
        if cost >= lowest - 1e-12:
            break
        lowest, found = cost, labels
        logs = np.log(np.maximum(code.decoder, 1e-300))
        labels = np.argmax(np.log(code.mass) + beta * joint.p_y_given_x @ logs.T, axis=1)
    return found


def _hard(joint: Joint, beta: float, labels: NDArray[np.intp], excess: float) -> Code:
    assignment = np.eye(int(labels.max()) + 1)[labels]
    assignment = assignment[:, assignment.any(0)]
    both = (assignment * joint.p_x[:, None]).T @ joint.p_y_given_x
    mass = both.sum(1)
    rate = float(entropy_terms(mass).sum()) / math.log(2)
    given = float((entropy_terms(both).sum(1) - entropy_terms(mass)).sum()) / math.log(2)
    return Code(beta, rate, max(0.0, joint.entropy_y - given), mass, both / mass[:, None], assignment, excess)


def hard_information(index: NDArray[np.integer], p_x: ArrayLike | None, p_y_given_x: ArrayLike) -> tuple[float, float]:
    """I(X;T) and I(T;Y) in bits where each input has one cluster, such as the cell that its activations fall into.

    Exact for this distribution of inputs: a code of them, so never above its bound.

    Args:
        index: cluster of each input, from 0.
        p_x: probability of each input; `None` for equal ones.
        p_y_given_x: one input a row, one class a column.

    Raises:
        ValueError: if the sizes do not fit.

    >>> hard_information(np.array([0, 0, 1, 1]), None, [[1, 0], [1, 0], [0, 1], [0, 1]])
    (1.0, 1.0)
    """
    rows = np.asarray(p_y_given_x, dtype=np.float64)
    weights = np.full(len(rows), 1 / max(1, len(rows))) if p_x is None else np.asarray(p_x, dtype=np.float64)
    if rows.ndim != 2 or rows.size == 0 or index.shape != rows.shape[:1] or weights.shape != rows.shape[:1]:
        raise ValueError(
            f"Each of {index.shape} clusters needs one of p(x) and one row of p(y|x); there were {weights.shape} and "
            f"{rows.shape}."
        )
    columns = [np.bincount(index, weights=weights * rows[:, label]) for label in range(rows.shape[1])]
    both: Array = np.stack(columns, axis=1).astype(np.float64)
    mass = both.sum(1)
    rate, known = (
        float(entropy_terms(mass).sum()),
        float(entropy_terms(both.sum(0)).sum() + entropy_terms(mass).sum() - entropy_terms(both).sum()),
    )
    return max(0.0, rate / math.log(2)), max(0.0, known / math.log(2))
