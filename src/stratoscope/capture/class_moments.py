"""Means and covariances of what a layer says, within and between classes, streamed over the whole probe set."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Self

import torch
from jaxtyping import Int
from torch import Tensor

from stratoscope.capture.batch import Memo, SiteBatch
from stratoscope.capture.loss import IGNORED_LABEL
from stratoscope.capture.needs import Reducer, Site, Streamed
from stratoscope.capture.pooling import IN_WORDS, check_pooling, rows_of
from stratoscope.errors import NotApplicable, SettingError
from stratoscope.numerics.scatter import ClassScatter, Scatter
from stratoscope.numerics.sketch import count_sketch

WAITING = 2**17
"""Numbers of small batches that wait at one site to be multiplied together."""


@dataclass(frozen=True)
class LayerMoments:
    """First and second moments of one site.

    Attributes:
        scatter: the moments; see `ClassScatter`.
        examples: examples seen; with `"spatial"` pooling fewer than rows.
        width_from: numbers a row had before projection to `scatter.width`.
        note: how it was pooled and projected, in words.
        worked_out: what was computed of it; layers that give the same share it.
    """

    scatter: ClassScatter
    examples: int
    width_from: int
    note: str
    worked_out: Memo = field(default_factory=Memo, repr=False, compare=False)

    @property
    def projected(self) -> bool:
        """Whether columns are random mixtures of units."""
        return self.width_from > self.scatter.width


@dataclass(frozen=True)
class ClassMoments(Streamed):
    """Means and covariances of a layer's activations; the value is a `LayerMoments`.

    Examples with the label -100, which losses leave out, are left out here, too. Memory does not grow with the data: eight bytes for each pair of columns, and for each class and column.

    Attributes:
        width: at most so many columns; wider activations are projected by a seeded count sketch.
        pooling: `"gap"`, the mean over positions, `"flatten"`, or `"spatial"`.
        split: a named split, or `None` for the one being measured.
        site: `"output"` or `"input"`.
        seed: of the projection, and of the choice of positions.
        positions: with `"spatial"`, so many positions of each example at most.
    """

    width: int = 1024
    pooling: str = "gap"
    split: str | None = None
    site: str = "output"
    seed: int = 0
    positions: int = 16

    def __post_init__(self) -> None:
        check_pooling("ClassMoments", self.pooling, self.positions)
        if self.width < 1:
            raise SettingError(f"ClassMoments(width={self.width}): it must be at least 1.")

    def reducer(self, site: Site) -> MomentsReducer:
        """Moments for any site."""
        return MomentsReducer(self)


@dataclass(frozen=True)
class _Rows:
    """The rows of one batch, shared by all sites that give the same tensor."""

    values: Tensor
    labels: Tensor | None
    examples: int
    width_from: int


class MomentsReducer(Reducer):
    """Merges the moments of batches; small batches wait for each other, since many small products are slow."""

    def __init__(self, need: ClassMoments) -> None:
        self._need = need
        self._scatter = Scatter()
        self._waiting: list[_Rows] = []
        self._examples = self._width_from = 0
        self._shown: list[object] = []
        self._result: LayerMoments | None = None

    def update(self, batch: SiteBatch) -> None:
        """Take in one batch."""
        found, mark = batch.of_value.once((self._need, "rows"), lambda: (self._of(batch), object()))
        if self._width_from and found.width_from != self._width_from:
            raise NotApplicable(
                f"{batch.site.name} gives {self._width_from} numbers for some examples and {found.width_from} for "
                "others; ask for pooling='gap'"
            )
        self._waiting.append(found)
        self._examples += found.examples
        self._width_from = found.width_from
        self._shown.append(mark)
        self._result = None
        if sum(rows.values.numel() for rows in self._waiting) > WAITING:
            self._reduce()

    def _of(self, batch: SiteBatch) -> _Rows:
        need = self._need
        rows = rows_of(batch, need.pooling, need.positions, need.seed)
        labels = batch.of_batch.once("class labels", lambda: _labels(batch))
        examples = batch.batch.n if labels is None else int((labels != IGNORED_LABEL).sum())
        if labels is not None and rows.examples is not None:
            labels = labels.to(rows.examples.device)[rows.examples]
        values = rows.values
        if labels is not None and examples < batch.batch.n:
            there = labels != IGNORED_LABEL
            values, labels = values[there.to(values.device)], labels[there]
        values = count_sketch(values, need.width, seed=need.seed)
        assert batch.value is not None
        # later layers may change in place what is the network's own
        theirs = values.untyped_storage().data_ptr() == batch.value.untyped_storage().data_ptr()
        return _Rows(values.clone() if theirs else values, labels, examples, rows.values.shape[1])

    def _reduce(self) -> None:
        parts, self._waiting = self._waiting, []
        known = [rows.labels for rows in parts if rows.labels is not None]
        if parts:
            labels = torch.cat(known) if len(known) == len(parts) else None
            self._scatter.update(torch.cat([rows.values for rows in parts]), labels)

    def merge(self, other: Self) -> None:
        """Take in what another reducer has seen."""
        self._reduce()
        other._reduce()
        self._scatter.merge(other._scatter)
        self._examples += other._examples
        self._width_from = max(self._width_from, other._width_from)
        self._shown += other._shown
        self._result = None

    def shown(self) -> Hashable:
        """Which batches were taken in."""
        return tuple(map(id, self._shown))

    def result(self) -> LayerMoments:
        """The moments of everything seen so far."""
        if self._result is None:
            self._result = self._together()
        return self._result

    def _together(self) -> LayerMoments:
        self._reduce()
        if not self._scatter.count:
            raise NotApplicable("the layer was not called on any example that has a label")
        scatter = self._scatter.result()
        note = f"{self._examples} examples, {IN_WORDS.get(self._need.pooling, f'{scatter.n} rows, one a position')}"
        if self._width_from > scatter.width:
            note += f", projected from {self._width_from} to {scatter.width} numbers"
        return LayerMoments(scatter, self._examples, self._width_from, note)


def _labels(batch: SiteBatch) -> Int[Tensor, " n"] | None:
    """One class an example, or `None`."""
    labels = batch.batch.labels
    usable = labels is not None and labels.ndim == 1 and not labels.is_floating_point()
    return labels.long() if usable and labels is not None else None
