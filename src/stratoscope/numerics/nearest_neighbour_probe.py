"""A probe without training: each example is guessed to be of the class of most of its nearest neighbours."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from stratoscope.numerics.class_accuracy import ClassAccuracy, class_accuracy, shuffled_labels

_NUMBERS = 2**21


def neighbour_probe(
    index: Int[Tensor, "n k"],
    labels: Int[Tensor, " n"],
    *,
    k: int | None = None,
    group: Int[Tensor, " n"] | None = None,
    permutations: int = 10,
    seed: int = 0,
) -> ClassAccuracy:
    """Leave-one-out accuracy of the vote of the `k` nearest neighbours.

    Each neighbour has one vote; of classes with as many votes the one with the nearer neighbours wins, the nearest
    deciding first. On shuffled labels of classes of one size it reads a little below one over the number of classes,
    since the example itself is missing from its own class; `null_mean` says by how much.

    Args:
        index: neighbours of each example, nearest first, itself left out.
        labels: class of each example, counted from 0; negative for examples that neither vote nor count.
        k: how many of them vote; all without it.
        group: examples that belong together, such as places of one picture, counted from 0: they do not vote for each
            other, and an example without any other neighbour is left out.
        permutations: shuffles of the labels for the null.
        seed: of the shuffles.

    Raises:
        ValueError: if the shapes do not fit or there are no `k` neighbours.

    >>> neighbour_probe(torch.tensor([[1], [0], [3], [2]]), torch.tensor([0, 0, 1, 1])).share
    1.0
    """
    n, held = index.shape
    k = held if k is None else k
    if labels.shape != (n,) or not 1 <= k <= held:
        raise ValueError(f"{n} examples with {held} neighbours each cannot give {len(labels)} votes of k={k}.")
    near = index[:, :k]
    own = torch.arange(n, device=index.device) if group is None else group
    votes = (own[near] != own[:, None]) & (labels[near] >= 0)
    used = votes.any(1) & (labels >= 0)
    classes = int(labels.max()) + 1
    tables = torch.cat([labels[None], shuffled_labels(labels, own, permutations, seed)])
    together = max(1, _NUMBERS // (n * max(k, classes)))
    right = torch.cat([_winners(some[:, near], votes, classes) == some for some in tables.split(together)])[:, used]
    return class_accuracy(
        right[0],
        labels[used],
        classes,
        examples=len(own[used].unique()),
        null=right[1:].double().mean(1),
    )


def _winners(
    voted: Int[Tensor, "labellings n k"], votes: Bool[Tensor, "n k"], classes: int
) -> Int[Tensor, "labellings n"]:
    """The class with the most votes; half of a vote is shared out so that nearer ones break ties."""
    k = voted.shape[2]
    weights = (1 + 0.5 ** torch.arange(2, k + 2, dtype=torch.float64, device=voted.device)) * votes
    table = weights.new_zeros(*voted.shape[:2], classes)
    return table.scatter_add_(2, voted.clamp(min=0), weights.expand(voted.shape)).argmax(2)
