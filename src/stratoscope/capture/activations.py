"""A seeded sample of what a layer says, for distances, probes and pictures."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from stratoscope.capture.batch import Memo, SiteBatch
from stratoscope.capture.loss import IGNORED_LABEL
from stratoscope.capture.needs import Kept, KeptReducer, Site
from stratoscope.capture.pooling import Rows, check_pooling, pooled_in_words, rows_of
from stratoscope.errors import NotApplicable, SettingError
from stratoscope.numerics.sketch import count_sketch

if TYPE_CHECKING:
    from stratoscope.network.sources import Batch


@dataclass(frozen=True)
class Sample:
    """What was kept of one site.

    Attributes:
        features: one row an example; float32, or float64 where the network computes in it. With `"spatial"` pooling
            several rows an example, which are not independent.
        labels: class of each row's example, or `None` where the data have none (or not one an example). Examples with
            the label -100, which losses leave out, are left out of a sample in which others have labels.
        ids: for each row, the position of its example in the probe set; ascending.
        width_from: numbers an example had before projection to `features.shape[1]`.
        note: how it was pooled, sampled and projected, in words.
        worked_out: what was computed of it. Layers that give the same share one sample, so a result that depends on
            the sample alone is computed for one of them.
        positions: how the positions lie of which `"flatten"` makes a row, one after the other, each with its units: the
            sides of a map, the length of a sequence; `()` for a vector.
    """

    features: Float[Tensor, "n width"]
    labels: Int[Tensor, " n"] | None
    ids: Int[Tensor, " n"]
    width_from: int
    note: str
    worked_out: Memo = field(default_factory=Memo, repr=False, compare=False)
    positions: tuple[int, ...] = ()


@dataclass(frozen=True)
class Activations(Kept):
    """A sample of a layer's activations.

    Attributes:
        n: at most so many examples: the first `n` of the probe set, which is itself drawn by seed.
        width: at most so many numbers an example; wider ones are projected by a seeded count sketch, which keeps
            inner products and so distances right on average.
        pooling: `"gap"`, the mean over positions (real tokens; pixels of a map), `"flatten"`, or `"spatial"`.
        split: a named split, or `None` for the one being measured.
        site: `"output"` or `"input"`.
        seed: of the projection, and of the choice of positions.
        positions: with `"spatial"`, so many positions of each example at most.
    """

    n: int = 1000
    width: int = 4096
    pooling: str = "gap"
    split: str | None = None
    site: str = "output"
    seed: int = 0
    positions: int = 16

    def __post_init__(self) -> None:
        check_pooling("Activations", self.pooling, self.positions)
        if self.n < 1 or self.width < 1:
            raise SettingError(f"Activations(n={self.n}, width={self.width}): both must be at least 1.")

    def reducer(self, site: Site) -> ActivationSample:
        """A sample for any site."""
        return ActivationSample(self)


@dataclass(frozen=True)
class _Part:
    """Which examples of a batch belong to the sample: places in the batch, or the first so many of it."""

    places: slice | Tensor
    ids: Tensor
    labels: Tensor | None

    @classmethod
    def of(cls, batch: Batch, limit: int) -> _Part:
        ids = batch.ids.cpu()
        inside = (ids < limit).nonzero()[:, 0]
        count = len(inside)
        labels = batch.labels
        usable = labels is not None and labels.ndim == 1 and not labels.is_floating_point()
        in_front = count == 0 or int(inside[-1]) == count - 1
        return cls(
            slice(count) if in_front else inside,
            ids[inside],
            labels.cpu()[inside].long() if usable and labels is not None else None,
        )

    def spread(self, examples: Tensor, n: int) -> _Part:
        """The same examples where several rows belong to one: places among the rows, each with its example's label."""
        row_of = torch.full((n,), -1)
        row_of[self.places] = torch.arange(len(self.ids))
        own = row_of[examples.cpu()]
        places = (own >= 0).nonzero()[:, 0]
        labels = None if self.labels is None else self.labels[own[places]]
        return _Part(places, self.ids[own[places]], labels)


def _units_in_a_row(batch: SiteBatch) -> int | None:
    """How many units a map has that lies in memory unit by unit, so that its rows need no copy; `None` for other values."""
    value = batch.value
    if value is None or not batch.is_map or batch.batch_dim != 0 or batch.mask is not None:
        return None
    return value.shape[1] if value.ndim > 2 and value.is_contiguous() else None


class ActivationSample(KeptReducer):
    """Keeps the rows of the first `n` examples of the probe set at one site.

    They are brought to the CPU while the network goes on; whoever asks for the result waits for them.
    """

    def __init__(self, need: Activations) -> None:
        self._need = need
        self._limit = need.n
        self._rows: list[Tensor] = []
        self._labels: list[Tensor | None] = []
        self._ids: list[Tensor] = []
        self._width_from, self._size, self._rows_each = 0, 4, 1
        self._left_out = 0
        self._positions: tuple[int, ...] = ()
        self._arriving: torch.device | None = None
        self._result: Sample | None = None

    def update(self, batch: SiteBatch) -> None:
        """Keep those rows of the batch that belong to the sample."""
        part = batch.of_batch.once(("part", self._limit), lambda: _Part.of(batch.batch, self._limit))
        if len(part.ids) == 0:
            return
        units = _units_in_a_row(batch) if self._need.pooling == "flatten" else None
        if units is None:
            found = rows_of(batch, self._need.pooling, self._need.positions, self._need.seed)
        else:
            assert batch.value is not None
            found = Rows(batch.value.flatten(1))
        rows = found.values
        if (examples := found.examples) is not None:
            own = part
            part = batch.of_value.once(("rows", self._limit, examples), lambda: own.spread(examples, batch.batch.n))
            self._rows_each = max(self._rows_each, -(-len(rows) // batch.batch.n))
        if self._rows and rows.shape[1] != self._width_from:
            raise NotApplicable(
                f"{batch.site.name} gives {self._width_from} numbers for some examples and {rows.shape[1]} for others; "
                "ask for pooling='gap'"
            )
        self._width_from, self._size = rows.shape[1], max(4, rows.element_size())
        self._positions = batch.positions
        if rows.device.type != "cpu":
            self._arriving = rows.device
        self._rows.append(batch.of_value.once((self._need, self._limit), lambda: self._kept(rows, part, batch, units)))
        self._labels.append(part.labels)
        self._ids.append(part.ids)
        self._result = None

    def _kept(self, rows: Tensor, part: _Part, batch: SiteBatch, units: int | None) -> Tensor:
        places = part.places
        chosen = rows[places] if isinstance(places, slice) else rows[places.to(rows.device)]
        if units is not None:
            chosen = chosen.to(torch.promote_types(chosen.dtype, torch.float32))
        if units is not None or chosen.shape[1] > self._need.width:
            chosen = count_sketch(chosen, self._need.width, seed=self._need.seed, units=units)
        if chosen.device.type != "cpu":
            return chosen.to("cpu", non_blocking=True)
        assert batch.value is not None
        # a copy only of what is the network's own, which later layers may change, or the beginning of something larger
        own = chosen.untyped_storage()
        theirs = own.data_ptr() == batch.value.untyped_storage().data_ptr()
        return chosen.clone() if theirs or own.nbytes() > chosen.nbytes else chosen

    def _arrive(self) -> None:
        if self._arriving is not None:
            torch.accelerator.synchronize(self._arriving)
            self._arriving = None

    def merge(self, other: Self) -> None:
        """Take in another part of the same sample."""
        self._rows += other._rows
        self._labels += other._labels
        self._ids += other._ids
        self._width_from = max(self._width_from, other._width_from)
        self._positions = self._positions or other._positions
        self._left_out += other._left_out
        self._arriving = self._arriving or other._arriving
        self._result = None

    def shown(self) -> Hashable:
        """Which tensors were kept, and of which examples: the same tensor object is at hand where layers give the same."""
        return tuple(map(id, self._rows)), tuple(map(id, self._ids))

    def bytes_per_example(self) -> int:
        """Four bytes a number; eight where the network computes in float64."""
        return self._size * self._rows_each * min(self._width_from, self._need.width)

    def keep_at_most(self, n: int) -> None:
        """Keep the first `n` of the probe set only."""
        self._arrive()
        self._limit, self._result = min(self._limit, n), None
        for place, ids in enumerate(self._ids):
            inside = ids < self._limit
            labels = self._labels[place]
            self._rows[place] = self._rows[place][inside].clone()
            self._ids[place] = ids[inside]
            self._labels[place] = None if labels is None else labels[inside]

    def result(self) -> Sample:
        """The sample, in the order of the probe set."""
        if self._result is None:
            self._result = self._together()
        return self._result

    def _together(self) -> Sample:
        if not any(len(ids) for ids in self._ids):
            raise NotApplicable("the layer was not called on any example of the sample")
        self._arrive()
        rows, ids = torch.cat(self._rows), torch.cat(self._ids)
        known = [labels for labels in self._labels if labels is not None]
        labels = torch.cat(known) if len(known) == len(self._labels) else None
        if labels is not None and bool((ignored := labels == IGNORED_LABEL).any()):
            if bool(ignored.all()):
                labels = None
            else:
                self._left_out += len(ids[ignored].unique())
                rows, ids, labels = rows[~ignored], ids[~ignored], labels[~ignored]
        if bool((ids[1:] < ids[:-1]).any()):
            order = ids.argsort(stable=True)
            rows, ids, labels = rows[order], ids[order], None if labels is None else labels[order]
        # not twice in memory
        self._rows, self._ids, self._labels = [rows], [ids], [labels]
        return Sample(rows, labels, ids, self._width_from, self._note(ids), positions=self._positions)

    def _note(self, ids: Tensor) -> str:
        note = pooled_in_words(self._need.pooling, self._need.positions, len(ids.unique()), len(ids))
        if self._left_out:
            note += f", {self._left_out} without a label ({IGNORED_LABEL}) left out"
        if self._limit < self._need.n:
            note += f", cut from {self._need.n} examples to stay within the memory budget"
        if self._width_from > self._need.width:
            note += f", projected from {self._width_from} to {self._need.width} numbers"
        return note
