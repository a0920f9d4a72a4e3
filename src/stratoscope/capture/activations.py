"""A seeded sample of what a layer says, for distances, probes and pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from stratoscope.capture.batch import SiteBatch
from stratoscope.capture.needs import Kept, KeptReducer, Site
from stratoscope.errors import NotApplicable, SettingError
from stratoscope.numerics.sketch import count_sketch

POOLINGS = ("mean", "flatten")


@dataclass(frozen=True)
class Sample:
    """What was kept of one site.

    Attributes:
        features: one row an example; float32, or float64 where the network computes in it.
        labels: class of each example, or `None` where the data have none (or not one an example).
        ids: positions of the examples in the probe set.
        width_from: numbers an example had before projection to `features.shape[1]`.
        note: how it was pooled, sampled and projected, in words.
    """

    features: Float[Tensor, "n width"]
    labels: Int[Tensor, " n"] | None
    ids: Int[Tensor, " n"]
    width_from: int
    note: str


@dataclass(frozen=True)
class Activations(Kept):
    """A sample of a layer's activations.

    Attributes:
        n: at most so many examples: the first `n` of the probe set, which is itself drawn by seed.
        width: at most so many numbers an example; wider ones are projected by a seeded count sketch, which keeps
            inner products and so distances right on average.
        pooling: `"mean"` over positions (real tokens; pixels of a map) or `"flatten"`.
        split: a named split, or `None` for the one being measured.
        site: `"output"` or `"input"`.
        seed: of the projection.
    """

    n: int = 2000
    width: int = 4096
    pooling: str = "mean"
    split: str | None = None
    site: str = "output"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.pooling not in POOLINGS:
            raise SettingError(f"Activations(pooling={self.pooling!r}): choose one of {', '.join(POOLINGS)}.")
        if self.n < 1 or self.width < 1:
            raise SettingError(f"Activations(n={self.n}, width={self.width}): both must be at least 1.")

    def reducer(self, site: Site) -> ActivationSample:
        """A sample for any site."""
        return ActivationSample(self)


class ActivationSample(KeptReducer):
    """Keeps the rows of the first `n` examples of the probe set at one site."""

    def __init__(self, need: Activations) -> None:
        self._need = need
        self._limit = need.n
        self._rows: list[Tensor] = []
        self._labels: list[Tensor | None] = []
        self._ids: list[Tensor] = []
        self._width_from, self._size = 0, 4

    def update(self, batch: SiteBatch) -> None:
        """Keep those rows of the batch that belong to the sample."""
        chosen = (batch.batch.ids < self._limit).nonzero()[:, 0]
        if len(chosen) == 0:
            return
        rows = batch.pooled if self._need.pooling == "mean" else batch.flat
        rows = rows[chosen.to(rows.device)]
        if self._rows and rows.shape[1] != self._width_from:
            raise NotApplicable(
                f"{batch.site.name} gives {self._width_from} numbers for some examples and {rows.shape[1]} for others; "
                "ask for pooling='mean'"
            )
        self._width_from, self._size = rows.shape[1], rows.element_size()
        if rows.shape[1] > self._need.width:
            rows = count_sketch(rows, self._need.width, seed=self._need.seed)
        self._rows.append(rows.cpu().clone())
        labels = batch.batch.labels
        usable = labels is not None and labels.ndim == 1 and not labels.is_floating_point()
        self._labels.append(labels.cpu()[chosen.cpu()].long() if usable and labels is not None else None)
        self._ids.append(batch.batch.ids.cpu()[chosen.cpu()])

    def merge(self, other: Self) -> None:
        """Take in another part of the same sample."""
        self._rows += other._rows
        self._labels += other._labels
        self._ids += other._ids
        self._width_from = max(self._width_from, other._width_from)

    def bytes_per_example(self) -> int:
        """Four bytes a number; eight where the network computes in float64."""
        return self._size * min(self._width_from, self._need.width)

    def keep_at_most(self, n: int) -> None:
        """Keep the first `n` of the probe set only."""
        self._limit = min(self._limit, n)
        for place, ids in enumerate(self._ids):
            inside = ids < self._limit
            labels = self._labels[place]
            self._rows[place] = self._rows[place][inside].clone()
            self._ids[place] = ids[inside]
            self._labels[place] = None if labels is None else labels[inside]

    def result(self) -> Sample:
        """The sample, in the order of the probe set."""
        if not any(len(ids) for ids in self._ids):
            raise NotApplicable("the layer was not called on any example of the sample")
        rows, ids = torch.cat(self._rows), torch.cat(self._ids)
        order = ids.argsort()
        known = [labels for labels in self._labels if labels is not None]
        labels = torch.cat(known)[order] if len(known) == len(self._labels) else None
        return Sample(rows[order], labels, ids[order], self._width_from, self._note(len(ids)))

    def _note(self, n: int) -> str:
        how = "mean over positions" if self._need.pooling == "mean" else "all positions in one row"
        note = f"{n} examples, {how}"
        if self._limit < self._need.n:
            note += f", cut from {self._need.n} examples to stay within the memory budget"
        if self._width_from > self._need.width:
            note += f", projected from {self._width_from} to {self._need.width} numbers"
        return note
