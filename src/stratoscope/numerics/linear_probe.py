"""What a linear map can read from features, on examples that it was not fitted to: classes, and the inputs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from stratoscope.numerics.class_accuracy import ClassAccuracy, class_accuracy, shuffled_labels
from stratoscope.numerics.ridge import Basis, Targets, ridge

MOST_COLUMNS = 2048
"""Targets that are fitted at once: classes times labellings; of many classes fewer shuffles are drawn."""


@dataclass(frozen=True)
class Fold:
    """Examples to fit on and others to test on, with the features of both made ready once.

    Attributes:
        train: rows that are fitted.
        test: rows that are predicted.
        basis: of the features of the rows to fit, standardised by these alone.
        coordinates: of the rows to predict, in that basis.
    """

    train: Int[Tensor, " n"]
    test: Int[Tensor, " m"]
    basis: Basis
    coordinates: Float[Tensor, "m r"]

    @classmethod
    def of(
        cls,
        features: Float[Tensor, "rows D"],
        train: Int[Tensor, " n"],
        test: Int[Tensor, " m"],
        *,
        standardise: bool = True,
    ) -> Fold:
        """Decompose the features of the rows to fit.

        Args:
            features: of all rows.
            train: rows to fit.
            test: rows to predict.
            standardise: divide each unit by its standard deviation; else units keep their scales.

        Raises:
            ValueError: if there are no two rows to fit or an entry is not finite.
        """
        basis = Basis.of(features[train], standardise=standardise)
        return cls(train, test, basis, basis.coordinates(features[test]))


@dataclass(frozen=True)
class ClassProbe:
    """What a ridge regression on one-hot classes says of examples that it was not fitted to.

    Attributes:
        accuracy: of the class with the largest prediction.
        r2: share of the variance of the one-hot classes that is predicted; may be negative. NaN for a single class.
        strength: `lam / n` that generalised cross-validation chose; the geometric mean over the folds.
        degrees: effective degrees of freedom, mean over the folds.
        n_train: examples that each fold was fitted to, mean over the folds.
    """

    accuracy: ClassAccuracy
    r2: float
    strength: float
    degrees: float
    n_train: float


@dataclass(frozen=True)
class Reconstruction:
    """How much of some targets is predicted on examples that nothing was fitted to.

    Attributes:
        r2: 1 less the squared error over `floor`; may be negative.
        standard_error: of `r2`, over examples to predict; the fits are taken as they are.
        error: mean squared error of a target.
        floor: the same when the mean of the fitted examples is predicted for all.
        fitted_r2: share of the variance that is predicted of the fitted examples themselves.
        strength: `lam / n` that generalised cross-validation chose; the geometric mean over the folds. NaN where no
            ridge regression predicts.
        degrees: its effective degrees of freedom, mean over the folds.
        late_progress: share of what a decoder trained by gradients learnt that it learnt in the later half of its epochs;
            the largest of the folds. NaN where nothing is trained.
    """

    r2: float
    standard_error: float
    error: float
    floor: float
    fitted_r2: float
    strength: float = math.nan
    degrees: float = math.nan
    late_progress: float = math.nan


def stratified(labels: Int[Tensor, " n"], group: Int[Tensor, " n"], folds: int, *, seed: int) -> Int[Tensor, " n"]:
    """The fold of each row: groups are dealt out class by class, in random order.

    The folds' numbers of groups differ by at most one, in total and within each class. All rows of a group go to one
    fold, so that places of one picture are not on both sides.

    Args:
        labels: the same for all rows of a group; all zeros where there are no classes, negative for rows to leave out.
        group: which rows belong together, counted from 0.
        folds: how many, at least 2.
        seed: of the order.

    Raises:
        ValueError: if there are fewer than 2 folds, or fewer groups than folds.

    Returns:
        Folds counted from 0; -1 for rows that are left out.

    >>> stratified(torch.tensor([0, 0, 1, 1]), torch.arange(4), 2, seed=0).bincount().tolist()
    [2, 2]
    """
    groups = int(group.max()) + 1 if len(group) else 0
    own = labels.new_zeros(groups).scatter_(0, group, labels)
    order = torch.randperm(groups, generator=torch.Generator().manual_seed(seed)).to(labels.device)
    order = order[own[order].argsort(stable=True)]
    order = order[own[order] >= 0]
    if not 2 <= folds <= len(order):
        raise ValueError(
            f"{len(order)} examples cannot be dealt out to {folds} folds; at least 2, and one example in each."
        )
    fold = torch.full_like(own, -1)
    fold[order] = torch.arange(len(order), device=labels.device) % folds
    return fold[group]


def cross_fitted(features: Float[Tensor, "n D"], fold: Int[Tensor, " n"], *, standardise: bool = True) -> list[Fold]:
    """Each fold tested once, fitted to all others. Rows with a negative fold are in none."""
    parts = [
        (((fold >= 0) & (fold != k)).nonzero()[:, 0], (fold == k).nonzero()[:, 0]) for k in range(int(fold.max()) + 1)
    ]
    return [Fold.of(features, train, test, standardise=standardise) for train, test in parts]


def class_probe(
    folds: Sequence[Fold],
    labels: Int[Tensor, " n"],
    group: Int[Tensor, " n"],
    *,
    permutations: int = 10,
    seed: int = 0,
) -> ClassProbe:
    """Accuracy of a linear probe in closed form (after Alain and Bengio, arXiv:1610.01644), with a shuffled null.

    For each labelling, the true one and shuffled ones, the strength is chosen anew by generalised cross-validation.
    Labels are shuffled within each fold: across folds, a class would be the rarer among the examples to predict the more
    often it was fitted, and noise would read less than chance. Unchanged by shifting and scaling each unit.

    Args:
        folds: of the examples' features.
        labels: classes counted from 0; negative for rows that are in no fold.
        group: which rows belong together, counted from 0; shuffled together, and one example for the interval.
        permutations: shuffles of the labels for the null; fewer where there are many classes.
        seed: of the shuffles.

    >>> features = torch.tensor([[0.0], [0.1], [1.0], [1.1]] * 10)
    >>> labels = torch.tensor([0, 0, 1, 1] * 10)
    >>> fold = stratified(labels, torch.arange(40), 2, seed=0)
    >>> class_probe(cross_fitted(features, fold), labels, torch.arange(40)).accuracy.share
    1.0
    """
    classes = int(labels.max()) + 1
    permutations = min(permutations, max(0, MOST_COLUMNS // classes - 1))
    within = torch.full_like(labels, -1)
    for place, fold in enumerate(folds):
        within[fold.test] = place
    tables = torch.cat([labels[None], shuffled_labels(labels, group, permutations, seed, within=within)])
    which = torch.arange(len(tables), device=labels.device).repeat_interleave(classes)
    hits, tested, error, total = [], [], 0.0, 0.0
    strengths, degrees = [], []
    for fold in folds:
        fit = ridge(fold.basis, _one_hot(tables[:, fold.train], classes).to(fold.coordinates), group=which)
        predicted = fit.along(fold.coordinates)
        hits.append(tables[:, fold.test] == predicted.unflatten(1, (-1, classes)).argmax(2).T)
        tested.append(fold.test)
        truth = _one_hot(labels[None, fold.test], classes).to(predicted)
        error += float((truth - predicted[:, :classes]).square().sum())
        total += float((truth - fit.intercept[:classes]).square().sum())
        strengths.append(float(fit.strengths[0]))
        degrees.append(float(fit.degrees[0]))
    rows, right = torch.cat(tested), torch.cat(hits, 1)
    accuracy = class_accuracy(
        right[0], labels[rows], classes, examples=len(group[rows].unique()), null=right[1:].double().mean(1)
    )
    fitted = sum(len(fold.train) for fold in folds) / len(folds)
    r2 = 1 - error / total if total > 0 else math.nan
    return ClassProbe(accuracy, r2, _geometric(strengths), sum(degrees) / len(degrees), fitted)


@dataclass(frozen=True)
class Sought:
    """Targets to decode on one fold, made ready once for the features of many layers.

    Attributes:
        train: of the rows to fit.
        test: of the rows to predict, less the mean of those to fit.
        floor: squared error of each row to predict if that mean is predicted.
    """

    train: Targets
    test: Float[Tensor, "m q"]
    floor: Float[Tensor, " m"]

    @classmethod
    def of(cls, values: Float[Tensor, "n q"], train: Int[Tensor, " n"], test: Int[Tensor, " m"]) -> Sought:
        """Centre the targets of some rows by the mean of the rows to fit.

        Raises:
            ValueError: if an entry is not finite.
        """
        known = Targets.of(values[train])
        beside = values[test].to(known.mean) - known.mean
        return cls(known, beside, torch.linalg.vector_norm(beside, dim=1).double().square())


def reconstruction(
    folds: Sequence[Fold], sought: Sequence[Sought], group: Int[Tensor, " n"], *, numbers: int | None = None
) -> Reconstruction:
    """How much of the inputs, or of anything else, can be decoded linearly, beside the floor of the mean.

    All targets share one strength.

    Args:
        folds: of the examples' features.
        sought: the targets of the same folds.
        group: which rows belong together, counted from 0; one example for the standard error.
        numbers: how many numbers the targets stand for, where they are a projection; `error` and `floor` are over it.

    >>> features = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    >>> fold = stratified(torch.zeros(60, dtype=torch.int64), torch.arange(60), 2, seed=0)
    >>> folds = cross_fitted(features, fold)
    >>> sought = [Sought.of(features @ torch.ones(3, 5), fold.train, fold.test) for fold in folds]
    >>> round(reconstruction(folds, sought, torch.arange(60)).r2, 3)
    1.0
    """
    fits = [ridge(fold.basis, targets.train) for fold, targets in zip(folds, sought, strict=True)]
    missed = []
    for fold, targets, fit in zip(folds, sought, fits, strict=True):
        rest = torch.addmm(targets.test, fold.coordinates.to(fit.weights), fit.weights, alpha=-1)
        missed.append(torch.linalg.vector_norm(rest, dim=1).double().square())
    found = summed_up(
        [fold.test for fold in folds], sought, missed, [float(fit.residuals[0]) for fit in fits], group, numbers=numbers
    )
    return replace(
        found,
        strength=_geometric([float(fit.strengths[0]) for fit in fits]),
        degrees=sum(float(fit.degrees[0]) for fit in fits) / len(fits),
    )


def summed_up(
    tested: Sequence[Int[Tensor, " m"]],
    sought: Sequence[Sought],
    missed: Sequence[Float[Tensor, " m"]],
    fitted: Sequence[float],
    group: Int[Tensor, " n"],
    *,
    numbers: int | None = None,
) -> Reconstruction:
    """What the errors of one prediction a fold come to, whoever predicted.

    Args:
        tested: rows that each fold predicts.
        sought: the targets of the same folds.
        missed: squared error of each of these rows.
        fitted: squared error of each fold on the rows that it was fitted to, summed.
        group: which rows belong together, counted from 0; one example for the standard error.
        numbers: how many numbers the targets stand for, where they are a projection; `error` and `floor` are over it.
    """
    error, floor = (torch.zeros(int(group.max()) + 1, dtype=torch.float64, device=group.device) for _ in range(2))
    for rows, targets, wrong in zip(tested, sought, missed, strict=True):
        error.index_add_(0, group[rows], wrong)
        floor.index_add_(0, group[rows], targets.floor)
    whole, most = float(error.sum()), float(floor.sum())
    count = sum(map(len, tested)) * (len(sought[0].train.mean) if numbers is None else numbers)
    ratio = whole / most if most > 0 else math.nan
    known = sum(float(targets.train.squares.sum()) for targets in sought)
    return Reconstruction(
        r2=1 - ratio,
        standard_error=float((error - ratio * floor).square().sum()) ** 0.5 / most if most > 0 else math.nan,
        error=whole / count,
        floor=most / count,
        fitted_r2=1 - sum(fitted) / known if known > 0 else math.nan,
    )


def _one_hot(tables: Int[Tensor, "labellings n"], classes: int) -> Float[Tensor, "n columns"]:
    labellings, n = tables.shape
    hot = torch.zeros(n, labellings, classes, dtype=torch.float64, device=tables.device)
    return hot.scatter_(2, tables.T[:, :, None], 1.0).flatten(1)


def _geometric(values: Sequence[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))
