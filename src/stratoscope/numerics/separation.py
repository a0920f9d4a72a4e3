"""How well a representation separates classes: the generalized discrimination value, its floor and its null."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from stratoscope.numerics.distances import ClassSums, PairAccumulator, Points, RelabelledSums, pair_pass
from stratoscope.numerics.matrices import not_finite
from stratoscope.numerics.moments import Moments

TOGETHER = 2**20
"""Numbers of classes, or of their distances, that are laid side by side."""

CONSTANT = 8
"""A unit is constant if its standard deviation is at most so many roundings of its largest entry."""


@dataclass(frozen=True)
class ClassSeparation:
    """The generalized discrimination value of a sample, and what bounds it.

    Attributes:
        gdv: 0 without structure, `floor` at best; more than 0 where classes are more spread than mixed.
        standard_error: of `gdv`, for a fresh sample with the same class sizes. Units' scales are taken as known,
            which made it 1.2 to 1.5 times too large in simulations, never too small.
        floor: the least value that these class sizes and constant units allow.
        null_mean: mean of `gdv` under shuffled labels; NaN without shuffles.
        null_sd: standard deviation under shuffled labels; NaN with less than 2 shuffles.
        z: how many deviations below or above shuffled labels: `(gdv - null_mean) / (null_sd sqrt(1 + 1/P))`. On
            noise about Student's t with `P - 1` degrees of freedom, `P` being the number of shuffles; with one or two
            units the null is skewed, and `z < -3` comes up on a few noise samples in a hundred.
        p_value: `(1 + number of shuffles with a value as low) / (P + 1)`: exact on noise, at any number of units.
        classes: the labels of the classes, ascending.
        intra: for each class, the mean distance between two members, over the root of the number of units.
        n: examples counted.
        units: units, constant ones among them.
        active_units: units that are not constant.
        skipped: labels of classes with a single example, left out together with it.
    """

    gdv: float
    standard_error: float
    floor: float
    null_mean: float
    null_sd: float
    z: float
    p_value: float
    classes: tuple[int, ...]
    intra: tuple[float, ...]
    n: int
    units: int
    active_units: int
    skipped: tuple[int, ...]

    @property
    def fraction(self) -> float:
        """`gdv / floor`: 0 without structure, 1 for classes collapsed to points as far apart as they can be."""
        return self.gdv / self.floor if self.floor else math.nan

    @property
    def n_classes(self) -> int:
        """How many classes were compared."""
        return len(self.classes)


def gdv(
    features: Float[Tensor, "n D"], labels: Int[Tensor, " n"], *, permutations: int = 20, seed: int = 0
) -> ClassSeparation:
    """Generalized discrimination value (Schilling et al., arXiv:1811.01753), with its floor and a null.

    Each unit is standardised to `z = (s - mean) / (2 std)` over all samples (population deviation); constant units
    become 0 and still count in `D`. Then::

        GDV = D^(-1/2) [ mean_c intra_c  -  mean_(c < c') inter_cc' ]

    with `intra_c` the mean Euclidean distance over pairs of different members of class `c`, and `inter_cc'` that over
    pairs across two classes; classes and pairs of classes weigh the same, whatever their sizes. Unchanged by
    shifting and scaling each unit, by duplicating all units, and by their order; not by rotation.

    Distances within a class are computed around the class's own mean, so float32 keeps 4 digits of them even when
    classes have collapsed to 1e-5 of the spread. Time `n^2 D`; memory beside the input under 64 MB, plus 8 bytes for
    each class and example.

    Args:
        features: one example a row; float32 is computed in float32, float64 in float64.
        labels: class of each example; any integers.
        permutations: shuffles of the labels for the null, drawn in the same pass.
        seed: of the shuffles.

    Raises:
        ValueError: if the shapes do not fit, an entry is not finite, fewer than two classes have two examples, or
            `permutations` is negative.

    >>> corners = torch.tensor([[0.0], [0.0], [1.0], [1.0]])
    >>> gdv(corners, torch.tensor([3, 3, 7, 7])).gdv
    -1.0
    """
    if permutations < 0:
        raise ValueError(f"The null takes 0 shuffles or more; permutations={permutations}.")
    kept, index, labels, counts, names, skipped = _classes(features, labels)
    shift, scale = _standardisation(Points(features, kept))
    n, width = len(labels), features.shape[1]
    active = int((scale > 0).sum())
    sums, shuffled = ClassSums(labels, len(counts)), RelabelledSums(_shuffles(labels, permutations, seed), counts)
    accumulators: list[PairAccumulator] = [sums, shuffled] if permutations else [sums]
    pair_pass(Points(features, kept, shift, scale), accumulators)
    own = _within_classes(features, index, scale, labels, counts)
    root = math.sqrt(width)
    intra, inter, influence = _contrast(sums, own, labels, counts)
    values = _shuffled_values(shuffled, counts) / root
    null_mean = float(values.mean()) if permutations else math.nan
    null_sd = float(values.std()) if permutations > 1 else math.nan
    value = float(intra.mean() - inter) / root
    return ClassSeparation(
        gdv=value,
        standard_error=_standard_error(influence, labels, counts) / root,
        floor=gdv_floor(counts, active, width),
        null_mean=null_mean,
        null_sd=null_sd,
        z=(value - null_mean) / (null_sd * math.sqrt(1 + 1 / permutations)) if null_sd > 0 else math.nan,
        p_value=(1 + int((values <= value).sum())) / (permutations + 1) if permutations else math.nan,
        classes=names,
        intra=tuple((intra / root).tolist()),
        n=n,
        units=width,
        active_units=active,
        skipped=skipped,
    )


def gdv_floor(counts: Int[Tensor, " classes"], active_units: int, units: int) -> float:
    """The least discrimination value that classes of these sizes can reach: each collapsed to a point.

    `-1/2 sqrt(2 lam / (C (C - 1))) sqrt(active / units)`, with `lam` the largest eigenvalue of
    `P^(-1/2) (C I - 1 1') P^(-1/2)` and `P` the diagonal matrix of class shares; for `C` classes of one size it is
    `-sqrt(C / (2 (C - 1)))`. So -1 is the best for two classes of equal size only: it is -0.7454 for ten, and -1.091
    for two classes of 30 % and 70 %. A bound: with few units or unequal classes it may be out of reach.

    Args:
        counts: size of each class.
        active_units: units that are not constant.
        units: all units.

    >>> round(gdv_floor(torch.tensor([5, 5, 5]), 4, 4), 4)
    -0.866
    """
    classes = len(counts)
    shares = counts.double().cpu() / float(counts.sum())
    spread = classes * torch.eye(classes, dtype=torch.float64) - 1.0
    weights = shares.rsqrt()
    largest = float(torch.linalg.eigvalsh(weights[:, None] * spread * weights)[-1])
    return -0.5 * math.sqrt(2 * largest / (classes * (classes - 1)) * active_units / units)


def _classes(
    features: Tensor, labels: Tensor
) -> tuple[Tensor | None, Tensor, Tensor, Tensor, tuple[int, ...], tuple[int, ...]]:
    """Which rows count (`None` for all, and as an index), their classes from 0, class sizes, names, skipped names."""
    if features.ndim != 2 or labels.shape != features.shape[:1]:
        raise ValueError(
            f"GDV takes features of shape (n, D) and n labels; there was {tuple(features.shape)} and "
            f"{tuple(labels.shape)}."
        )
    if labels.is_floating_point() or labels.is_complex():
        raise ValueError(f"GDV takes classes as integers; the labels were {labels.dtype}.")
    if features.numel() and not all(bool(torch.isfinite(end)) for end in torch.aminmax(features)):
        bad = sum(not_finite(block) for block in torch.split(features, 1024))
        raise ValueError(f"GDV needs finite features; {bad} of {features.numel()} are NaN or infinite.")
    names, places, counts = torch.unique(labels.to(features.device), return_inverse=True, return_counts=True)
    usable = counts > 1
    if int(usable.sum()) < 2 or features.shape[1] == 0:
        raise ValueError(
            f"GDV needs two classes of at least two examples and one unit; there were {len(names)} classes with "
            f"{counts.tolist()[:10]} examples and {features.shape[1]} units."
        )
    index = usable[places].nonzero()[:, 0]
    renumbered = (usable.cumsum(0) - 1)[places[index]]
    kept = None if bool(usable.all()) else index
    return kept, index, renumbered, counts[usable], tuple(names[usable].tolist()), tuple(names[~usable].tolist())


def _standardisation(points: Points) -> tuple[Tensor, Tensor]:
    """Mean and `1 / (2 std)` of each unit over the points; 0 for constant units."""
    moments = Moments()
    largest = points.values.new_zeros(points.values.shape[1], dtype=points.dtype)
    for rows in points.slices():
        block = points.block(rows)
        moments.update(block)
        largest = torch.maximum(largest, torch.maximum(block.amax(0), -block.amin(0)))
    deviation = moments.variance().sqrt().to(largest.device)
    rounding = torch.finfo(torch.promote_types(points.values.dtype, torch.float32)).eps
    constant = deviation <= CONSTANT * rounding * largest.to(deviation)
    return moments.mean, torch.where(constant, 0.0, 0.5 / deviation.where(~constant, 1.0))


def _shuffles(labels: Tensor, permutations: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(len(labels), generator=generator) for _ in range(permutations)]
    table = torch.stack(orders) if orders else torch.empty(0, len(labels), dtype=torch.int64)
    return labels[table.to(labels.device)]


def _within_classes(features: Tensor, index: Tensor, scale: Tensor, labels: Tensor, counts: Tensor) -> Tensor:
    """For each point, the sum of its distances to its own class, measured around the class's mean."""
    own = torch.zeros(len(labels), dtype=torch.float64, device=labels.device)
    by_class = torch.split(labels.argsort(stable=True), counts.tolist())
    for classes in alike_batches(counts.tolist(), features.shape[1]):
        if len(classes) > 1:
            members = pad_sequence([by_class[c] for c in classes], batch_first=True, padding_value=-1)
            real = members >= 0
            own[members[real]] = _own_distances(features, index[members], real, scale)[real]
            continue
        members = by_class[classes[0]]
        rows = Points(features, index[members])
        mean = Moments()
        for block in rows.slices():
            mean.update(rows.block(block))
        sums = ClassSums(torch.zeros_like(members), 1)
        pair_pass(Points(features, index[members], mean.mean, scale), [sums])
        own[members] = sums.by_point[0]
    return own


def alike_batches(sizes: list[int], width: int) -> Iterator[list[int]]:
    """Classes of about one size, few enough to be laid side by side in little memory; a large one stands alone.

    Args:
        sizes: members of each class.
        width: numbers a member has.

    >>> list(alike_batches([2, 100, 90], 4))
    [[1, 2], [0]]
    """
    batch: list[int] = []
    for label in sorted(range(len(sizes)), key=lambda label: -sizes[label]):
        largest = sizes[batch[0]] if batch else 0
        numbers = (len(batch) + 1) * largest * max(largest, width)
        if batch and (numbers > TOGETHER or 2 * sizes[label] < largest):
            yield batch
            batch = []
        batch.append(label)
    yield batch


def _own_distances(features: Tensor, places: Tensor, real: Tensor, scale: Tensor) -> Tensor:
    """Sums of distances of each member to the others of its class, for classes side by side.

    Args:
        features: one example a row.
        places: rows of the members, one class a row; anything where there is no further member.
        real: which of these are members.
        scale: by which each unit is multiplied.
    """
    block = features[places].to(Points(features).dtype)
    block.masked_fill_(~real[..., None], 0.0)
    mean = block.sum(1, dtype=torch.float64) / real.sum(1, keepdim=True)
    block = (block - mean[:, None].to(block)) * scale.to(block)
    squares = block.square().sum(2)
    squared = (squares[:, :, None] + squares[:, None]).baddbmm_(block, block.mT, alpha=-2)
    squared.diagonal(dim1=1, dim2=2).zero_()
    distances = squared.clamp_min_(0.0).sqrt_()
    return distances.masked_fill_(~real[:, None], 0.0).sum(2, dtype=torch.float64)


def _contrast(sums: ClassSums, own: Tensor, labels: Tensor, counts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean distance within each class, mean over pairs of classes, and the influence of each point on GDV."""
    classes = len(counts)
    shares = 1 / counts.double()
    # over all classes, less the own one: no second table of classes x points
    others = shares @ sums.by_point - sums.by_point.gather(0, labels[None])[0] * shares[labels]
    beside = own / (counts[labels] - 1)
    intra = _class_means(beside, labels, counts)
    inter = _class_means(others, labels, counts).mean() / (classes - 1)
    return intra, inter, 2 / classes * (beside - others / (classes - 1))


def _class_means(values: Tensor, labels: Tensor, counts: Tensor) -> Tensor:
    return values.new_zeros(len(counts)).index_add_(0, labels, values) / counts


def _standard_error(influence: Tensor, labels: Tensor, counts: Tensor) -> float:
    """From the scatter of the points' influences within each class: a U-statistic's first-order variance."""
    centred = influence - _class_means(influence, labels, counts)[labels]
    variance = _class_means(centred.square(), labels, counts) / (counts - 1)
    return math.sqrt(float(variance.sum()))


def _shuffled_values(shuffled: RelabelledSums, counts: Tensor) -> Tensor:
    classes = len(counts)
    intra = (shuffled.within / (counts * (counts - 1))).mean(1)
    inter = (shuffled.weighted - (shuffled.within / counts.square()).sum(1)) / (classes * (classes - 1))
    return intra - inter
