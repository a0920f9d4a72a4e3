"""Which rows a probe is fitted to and which it predicts: folds of one sample, or the sample of another split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from stratoscope.errors import NotApplicable
from stratoscope.network.subject import TRANSFER
from stratoscope.numerics.linear_probe import Fold, Sought, cross_fitted, stratified
from stratoscope.numerics.matrices import not_finite
from stratoscope.numerics.sketch import count_sketch

if TYPE_CHECKING:
    from stratoscope.capture.activations import Activations, Sample
    from stratoscope.capture.inputs import GivenSample
    from stratoscope.capture.views import LayerView

LEAST = 20
"""Fewer examples than this are not probed."""


def check_sample(sample: Sample, folds: int) -> None:
    """Refuse a sample that cannot be cut and fitted.

    Raises:
        NotApplicable: with what there was.
    """
    if bad := not_finite(sample.features):
        raise NotApplicable(f"{bad:,} of {sample.features.numel():,} numbers that it gives are NaN or infinite")
    examples = len(sample.ids.unique())
    if examples < max(LEAST, folds):
        raise NotApplicable(f"{examples} examples are too few for a probe; {LEAST} are needed")


def fitted_sample(view: LayerView, need: Activations) -> Sample | None:
    """The sample of the split that `need` names, if it is to be fitted to where another one is measured.

    Returns:
        `None` to cut the measured sample itself: no split is named, it is the one being measured, or not there; and for
        data of another task, whose classes are others.

    Raises:
        NotApplicable: if it holds numbers that are not finite.
    """
    if need.split is None or view.split in (need.split, TRANSFER):
        return None
    fitted: Sample | None = view.get(need)
    if fitted is not None and not_finite(fitted.features):
        raise NotApplicable(f"on the split {need.split!r} it gives numbers that are NaN or infinite")
    return fitted


def without_classes(sample: Sample) -> str:
    """Why there are no classes to read, in words."""
    if sample.labels is None:
        return "the data have no class labels, one integer an example"
    return f"{len(sample.labels.unique())} classes in {len(sample.ids.unique())} examples, and two of two are needed"


@dataclass(frozen=True)
class ProbeRows:
    """The rows of one layer's sample, ready to be fitted and predicted.

    Attributes:
        features: of all rows, as they were kept.
        labels: classes from 0, and -1 for rows of classes with a single example; all 0 where there are no two classes.
        names: of the classes; none where there are no two.
        group: which example each row belongs to, from 0.
        skipped: classes that are left out.
        folds: fitted parts, and the rows that each predicts.
        predicted: rows of the sample itself, which come first; the others are only fitted to.
        note: how rows were chosen to be fitted, in words.
    """

    features: Tensor
    labels: Tensor
    names: tuple[int, ...]
    group: Tensor
    skipped: int
    folds: list[Fold]
    predicted: int
    note: str

    @classmethod
    def of(
        cls,
        sample: Sample,
        fitted: Sample | None,
        *,
        folds: int,
        seed: int,
        width: int | None = None,
        standardise: bool = True,
    ) -> ProbeRows:
        """Cut a sample into folds, or set it against another one.

        Args:
            sample: what is predicted.
            fitted: what the probe is fitted to; `None` to cut the sample itself into folds.
            folds: how many.
            seed: of the cut.
            width: units that linear probes are fitted to at most; more are projected.
            standardise: whether each unit is divided by its standard deviation.
        """
        features, labels, group = sample.features, sample.labels, _examples(sample)
        if fitted is not None:
            features = torch.cat([features, fitted.features])
            group = torch.cat([group, _examples(fitted) + int(group.max()) + 1])
            labels = None if labels is None or fitted.labels is None else torch.cat([labels, fitted.labels])
        own, names, skipped = _classes(labels, group)
        seen, count = features if width is None else count_sketch(features, width, seed=0), len(sample.features)
        if fitted is None:
            parts = cross_fitted(seen, stratified(own, group, folds, seed=seed), standardise=standardise)
            note = f"{folds} folds"
        else:
            used = (own >= 0).nonzero()[:, 0]
            parts = [Fold.of(seen, used[used >= count], used[used < count], standardise=standardise)]
            note = f"fitted to {len(parts[0].train)} rows of another split"
        return cls(features, own, names, group, skipped, parts, count, note)

    def sought(self, given: GivenSample, ids: Tensor, other: tuple[GivenSample, Tensor] | None) -> list[Sought]:
        """The inputs of the rows, centred for each fold; once for all layers with the same rows.

        Args:
            given: inputs of the sample.
            ids: of the sample's rows.
            other: inputs of the rows that are only fitted to, and their ids.

        Raises:
            NotApplicable: if the inputs of some rows were not kept.
        """
        key = (Sought, ids.numpy().tobytes(), *(fold.train.numpy().tobytes() for fold in self.folds))

        def made_ready() -> list[Sought]:
            values = given.values[_places(given, ids)]
            if other is not None:
                values = torch.cat([values, other[0].values[_places(*other)]])
            return [Sought.of(values, fold.train, fold.test) for fold in self.folds]

        return given.worked_out.once(key, made_ready)


def _examples(sample: Sample) -> Tensor:
    examples: Tensor = sample.ids.unique(return_inverse=True)[1]
    return examples


def _classes(labels: Tensor | None, group: Tensor) -> tuple[Tensor, tuple[int, ...], int]:
    """Classes of at least two examples from 0, their names, and how many have one example only."""
    nothing = torch.zeros_like(group), (), 0
    if labels is None:
        return nothing
    names, place = labels.unique(return_inverse=True)
    of_example = place.new_zeros(int(group.max()) + 1).scatter_(0, group, place)
    usable = torch.bincount(of_example, minlength=len(names)) > 1
    if int(usable.sum()) < 2:
        return nothing
    own = (usable.cumsum(0) - 1)[place].masked_fill(~usable[place], -1)
    return own, tuple(names[usable].tolist()), int((~usable).sum())


def _places(given: GivenSample, ids: Tensor) -> Tensor:
    place = torch.searchsorted(given.ids, ids).clamp(max=len(given.ids) - 1)
    if not bool((given.ids[place] == ids).all()):
        raise NotApplicable("the inputs of some of its examples were not kept")
    return place
