"""A seeded sample of what the network was given, at hand beside every layer: to decode it from what the layer says."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from stratoscope.capture.batch import Memo, SiteBatch
from stratoscope.capture.needs import Kept, KeptReducer, Site
from stratoscope.errors import NotApplicable, SettingError
from stratoscope.network.layers import ROOT
from stratoscope.numerics.sketch import count_sketch

if TYPE_CHECKING:
    from stratoscope.network.batches import Batch

_NO_INPUTS = ("labels", "attention_mask", "src_key_padding_mask")


@dataclass(frozen=True)
class GivenSample:
    """What the network was given.

    Attributes:
        values: one row an example, flattened; float32, or float64 where the network computes in it.
        ids: positions of the examples in the probe set; ascending.
        numbers: how many numbers an example had before projection.
        note: which input it is and how it was projected, in words.
        worked_out: what was computed of it; all layers share it.
        shape: of an example before it was flattened, such as `(3, 32, 32)`.
    """

    values: Float[Tensor, "n width"]
    ids: Int[Tensor, " n"]
    numbers: int
    note: str
    worked_out: Memo = field(default_factory=Memo, repr=False, compare=False)
    shape: tuple[int, ...] = ()


@dataclass(frozen=True)
class Inputs(Kept):
    """A sample of the network's inputs; every layer has the same one, and it is held once.

    The first input that holds numbers is taken: of a floating type, or bytes, which are pixels. Token numbers name
    words and are no numbers to predict.

    Attributes:
        n: at most so many examples: the first `n` of the probe set.
        width: at most so many numbers an example; more are projected by a seeded count sketch, which keeps squared
            errors right on average.
        split: a named split, or `None` for the one being measured.
        seed: of the projection.
    """

    n: int = 1000
    width: int = 1024
    split: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n < 1 or self.width < 1:
            raise SettingError(f"Inputs(n={self.n}, width={self.width}): both must be at least 1.")

    def reducer(self, site: Site) -> InputRows:
        """For any site; only the network's own counts the memory."""
        return InputRows(self, counted=site.layer.name == ROOT)


@dataclass(frozen=True)
class _Part:
    """What is kept of one batch."""

    rows: Tensor
    ids: Tensor
    numbers: int
    name: str
    shape: tuple[int, ...]


class InputRows(KeptReducer):
    """Holds the inputs of the first `n` examples; the parts are the same objects at every site."""

    def __init__(self, need: Inputs, counted: bool) -> None:
        self._need, self._counted = need, counted
        self._limit = need.n
        self._parts: list[_Part] = []
        self._result: GivenSample | None = None

    def update(self, batch: SiteBatch) -> None:
        """Keep those inputs of the batch that belong to the sample."""
        part = batch.of_batch.once(self._need, lambda: _part_of(batch.batch, self._need))
        if self._parts and part.numbers != self._parts[0].numbers:
            raise NotApplicable(f"some inputs have {self._parts[0].numbers} numbers and others {part.numbers}")
        self._parts.append(part)
        self._result = None

    def merge(self, other: Self) -> None:
        """Take in another part of the same sample."""
        self._parts += other._parts
        self._limit = min(self._limit, other._limit)
        self._result = None

    def shown(self) -> Hashable:
        """Which parts are held."""
        return self._limit, tuple(map(id, self._parts))

    def bytes_per_example(self) -> int:
        """Of one row; nothing at the sites that hold the same rows as the whole network does."""
        rows = self._parts[0].rows
        return rows.element_size() * rows.shape[1] if self._counted else 0

    def keep_at_most(self, n: int) -> None:
        """Keep the first `n` of the probe set only."""
        self._limit, self._result = min(self._limit, n), None

    def result(self) -> GivenSample:
        """The sample, in the order of the probe set."""
        if self._result is None:
            self._result = self._together()
        return self._result

    def _together(self) -> GivenSample:
        ids = torch.cat([part.ids for part in self._parts])
        kept = ids.argsort(stable=True)
        kept = kept[ids[kept] < self._limit]
        if not len(kept):
            raise NotApplicable("the layer was not called on any example of the sample")
        values = torch.cat([part.rows for part in self._parts])[kept]
        first = self._parts[0]
        note = f"input {first.name}"
        if first.numbers > values.shape[1]:
            note += f", projected from {first.numbers} to {values.shape[1]} numbers"
        return GivenSample(values, ids[kept], first.numbers, note, shape=first.shape)


def _part_of(batch: Batch, need: Inputs) -> _Part:
    name, tensor = _input_of(batch)
    if tensor._version > 0:
        raise NotApplicable("the network writes to its inputs while it computes")
    if tensor.ndim == 0 or tensor.shape[0] != batch.n:
        raise NotApplicable(
            f"the first axis of input {name}, of shape {tuple(tensor.shape)}, does not count {batch.n} examples"
        )
    ids = batch.ids.cpu()
    inside = (ids < need.n).nonzero()[:, 0]
    rows = tensor.detach()[inside.to(tensor.device)].flatten(1) if tensor.ndim > 1 else tensor.detach()[inside][:, None]
    numbers = rows.shape[1]
    rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
    kept = count_sketch(rows, need.width, seed=need.seed).cpu()
    return _Part(kept, ids[inside], numbers, name, tuple(tensor.shape[1:]))


def _input_of(batch: Batch) -> tuple[str, Tensor]:
    """The first input that holds numbers, and where it was given.

    Raises:
        NotApplicable: if there is none.
    """
    seen = []
    for name, tensor in batch.tensors():
        if name in _NO_INPUTS:
            continue
        if tensor.is_floating_point() or (tensor.dtype == torch.uint8 and tensor.ndim > 2):
            return f"{name!r}", tensor
        seen.append(f"{name!r} ({str(tensor.dtype).removeprefix('torch.')})")
    raise NotApplicable(f"the inputs are no numbers to predict: {', '.join(seen) or 'there are none'}")
