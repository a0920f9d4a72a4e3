"""How often guesses of a class are right, beside what no skill would give."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from stratoscope.numerics.intervals import clopper_pearson


@dataclass(frozen=True)
class ClassAccuracy:
    """Hits of one guess an example.

    Attributes:
        share: of guesses that are right.
        low: lower end of the exact 95 % interval (Clopper and Pearson, doi:10.1093/biomet/26.4.404).
        high: its upper end.
        balanced: mean over classes of the share that is right within the class.
        by_class: that share, for each class in order.
        majority: share that always saying the commonest class would have.
        chance: one over the number of classes, what `balanced` is without skill.
        null_mean: mean share under shuffled labels; NaN without shuffles.
        null_sd: its standard deviation; NaN with less than 2 shuffles.
        n: guesses.
        examples: independent examples among them, for which the interval holds.
    """

    share: float
    low: float
    high: float
    balanced: float
    by_class: tuple[float, ...]
    majority: float
    chance: float
    null_mean: float
    null_sd: float
    n: int
    examples: int


def class_accuracy(
    right: Float[Tensor, " n"],
    labels: Int[Tensor, " n"],
    classes: int,
    *,
    examples: int | None = None,
    null: Float[Tensor, " P"] | None = None,
) -> ClassAccuracy:
    """Sum hits up.

    Args:
        right: whether each guess is right.
        labels: true classes from 0.
        classes: how many there are; one without any guess is left out of `balanced` and is NaN in `by_class`.
        examples: independent examples, where several guesses belong to one; the interval is then that of so many.
        null: share that was right under each shuffle.

    >>> found = class_accuracy(torch.tensor([1, 1, 0, 1]), torch.tensor([0, 0, 0, 1]), 2)
    >>> found.share, round(found.balanced, 4), found.majority
    (0.75, 0.8333, 0.75)
    """
    hits, n = right.double(), len(right)
    counts = torch.bincount(labels, minlength=classes).double()
    within = torch.bincount(labels, weights=hits, minlength=classes) / counts
    share = float(hits.mean()) if n else math.nan
    trials = n if examples is None else examples
    low, high = clopper_pearson(share * trials, trials) if n else (math.nan, math.nan)
    drawn = 0 if null is None else len(null)
    return ClassAccuracy(
        share=share,
        low=float(low),
        high=float(high),
        balanced=float(within[counts > 0].mean()) if n else math.nan,
        by_class=tuple(within.tolist()),
        majority=float(counts.max()) / n if n else math.nan,
        chance=1 / classes,
        null_mean=float(null.mean()) if null is not None and drawn else math.nan,
        null_sd=float(null.std()) if null is not None and drawn > 1 else math.nan,
        n=n,
        examples=trials,
    )


def shuffled_labels(
    labels: Int[Tensor, " n"],
    group: Int[Tensor, " n"],
    permutations: int,
    seed: int,
    *,
    within: Int[Tensor, " n"] | None = None,
) -> Int[Tensor, "permutations n"]:
    """Labels dealt out anew, the same one to all rows of a group; negative ones stay where they are.

    Args:
        labels: the same for all rows of a group; negative for rows that are left out.
        group: which rows belong together, counted from 0.
        permutations: how many times.
        seed: of the shuffles.
        within: parts of the rows, such as folds, that keep their labels to themselves; the same for all rows of a group.

    >>> shuffled_labels(torch.tensor([4, 4, 7]), torch.tensor([0, 0, 1]), 5, seed=0)[:, 0].unique().tolist()
    [4, 7]
    """
    groups = int(group.max()) + 1
    own = labels.new_zeros(groups).scatter_(0, group, labels)
    dealt = (own >= 0).nonzero()[:, 0]
    generator = torch.Generator().manual_seed(seed)
    table = own.repeat(permutations, 1)
    part = torch.zeros_like(own) if within is None else torch.zeros_like(own).scatter_(0, group, within)
    dealt = dealt[part[dealt].argsort(stable=True)]
    for row in table:
        order = dealt[torch.randperm(len(dealt), generator=generator).to(dealt.device)]
        row[dealt] = own[order[part[order].argsort(stable=True)]]
    return table[:, group]
