"""How examples are got from batches: those of a list, and the first of a stream."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from stratoscope.errors import DataError
from stratoscope.network.batches import Batch, leaves
from stratoscope.network.drawing import Draw, Indexed, LabelSource, collated, counted, drawn_order, unreadable
from stratoscope.network.unpacking import at_rows, joined, unpack


class ListOfBatches:
    """Batches that are already in memory. Rows are drawn over all of them, or whole batches where their shapes differ."""

    def __init__(self, data: Sequence[Any], labels: Any, where: str) -> None:
        self.where = where
        self._labels = LabelSource(labels, where)
        if not data:
            raise DataError(f"{where} is empty: it has no batches.")
        self._batches = [
            sized(unpack(b, self._labels.rule, where), f"{where}, batch {at},") for at, b in enumerate(data)
        ]
        self._starts = np.cumsum([0, *(batch.n for batch in self._batches)])
        self._labels.check(int(self._starts[-1]), where)
        if len({_form(batch)[0] for batch in self._batches}) > 1:
            raise DataError(
                f"{where} is a list of {len(data)} that do not fit each other, and a list is read as one of batches; "
                "give a tuple (inputs, labels) for a pair."
            )

    def draw(self, limit: int, seed: int, batch_size: int) -> Draw:
        """Draw rows by seed, or whole batches."""
        if len({_form(batch) for batch in self._batches}) == 1:
            return _JoinedRows(self._batches, self._starts, self._labels, self.where).draw(limit, seed, batch_size)
        order = [int(at) for at in drawn_order(len(self._batches), len(self._batches), seed)]
        pieces = ((self._batches[at], int(self._starts[at])) for at in order)
        batches, ids = _first(pieces, limit, batch_size, self._labels, self.where)
        total = int(self._starts[-1])
        how = (
            f"all {counted(total)}"
            if total <= limit
            else f"{len(ids):,} of {total:,} examples, by whole batches drawn with seed {seed}"
        )
        return Draw(batches, ids, how)


class _JoinedRows(Indexed):
    """Rows of batches of one shape."""

    def __init__(self, batches: list[Batch], starts: Any, labels: LabelSource, where: str) -> None:
        self.where, self._batches, self._starts, self._labels = where, batches, starts, labels

    def population(self) -> int:
        return int(self._starts[-1])

    def take(self, places: Int64[np.ndarray, " n"]) -> Batch:
        home = np.searchsorted(self._starts, places, side="right") - 1
        order = np.argsort(home, kind="stable")
        parts = [
            at_rows(self._batches[at], torch.from_numpy(places[home == at] - self._starts[at]))
            for at in np.unique(home)
        ]
        batch = at_rows(joined(parts), torch.from_numpy(np.argsort(order)))
        return self._labels.onto(batch, torch.from_numpy(places), self.where)


class Stream:
    """Anything that can only be iterated: its first examples are taken.

    Args:
        data: the iterable, which is not used up by one iteration.
        labels: see `Split`.
        where: begins the message of an error.
        single: whether it gives single examples rather than batches.
        collate: puts single examples together, or changes a batch; torch's usual way by default.
        sampler: gives the keys to ask `data` for, where it gives whole batches by key.
    """

    def __init__(
        self,
        data: Any,
        labels: Any,
        where: str,
        *,
        single: bool = False,
        collate: Callable[[Any], Any] | None = None,
        sampler: Any = None,
    ) -> None:
        self.where = where
        self._data, self._single, self._collate, self._sampler = data, single, collate, sampler
        self._labels = LabelSource(labels, where)

    def draw(self, limit: int, seed: int, batch_size: int) -> Draw:
        """Take the first examples of one iteration; `seed` acts through the global generators alone."""
        start, pieces = 0, []
        for batch in self._iterate(batch_size):
            pieces.append((batch, start))
            start += batch.n
            if start >= limit:
                break
        if start < 1:
            raise DataError(f"{self.where} is empty: one iteration over it gave no examples.")
        batches, ids = _first(iter(pieces), limit, batch_size, self._labels, self.where)
        how = f"the first {counted(len(ids))} of one iteration"
        return Draw(batches, ids, how if start >= limit else f"all {counted(start)} of one iteration")

    def _iterate(self, batch_size: int) -> Iterator[Batch]:
        source = iter(self._raw())
        while True:
            try:
                items = list(islice(source, batch_size if self._single else 1))
            except Exception as error:
                raise unreadable(self.where, "its next examples", error) from error
            if not items:
                return
            given = collated(items, self._collate, self.where) if self._single else self._whole(items[0])
            yield sized(unpack(given, self._labels.rule, self.where), self.where)

    def _raw(self) -> Iterator[Any]:
        if self._sampler is None:
            yield from self._data
            return
        for key in copy.deepcopy(self._sampler):
            yield self._data[key]

    def _whole(self, batch: Any) -> Any:
        return batch if self._collate is None else self._collate(batch)


def _first(
    pieces: Iterator[tuple[Batch, int]], limit: int, batch_size: int, labels: LabelSource, where: str
) -> tuple[list[Batch], Int64[Tensor, " n"]]:
    """The first examples of some batches, each of which begins at a given index, in batches of a size."""
    batches: list[Batch] = []
    ids: list[Tensor] = []
    left = limit
    for whole, start in pieces:
        for at in range(0, min(whole.n, left), batch_size):
            n = min(batch_size, whole.n - at, left - at)
            index = torch.arange(start + at, start + at + n)
            part = at_rows(whole, slice(at, at + n))
            batches.append(replace(labels.onto(part, index, where), n=n))
            ids.append(index)
        left -= min(whole.n, left)
        if left <= 0:
            break
    return batches, torch.cat(ids)


def sized(batch: Batch, where: str) -> Batch:
    """The batch with its number of examples, which every tensor must agree on.

    Raises:
        DataError: if they do not.
    """
    sizes = {name: len(tensor) for name, tensor in batch.tensors() if tensor.ndim}
    if len(set(sizes.values())) != 1:
        said = ", ".join(f"{name!r} has {size}" for name, size in sizes.items()) or "no tensors"
        raise DataError(f"{where} has tensors of different length: {said}; each needs one row an example.")
    return replace(batch, n=next(iter(sizes.values())))


def _form(batch: Batch) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """What batches must share to belong together, and what they must share to be joined."""
    whole = [*leaves(batch.args), *leaves(dict(batch.kwargs))]
    whole += [("labels", batch.labels)] if batch.labels is not None else []
    together = tuple((name, tensor.ndim) for name, tensor in whole)
    return together, tuple((tuple(tensor.shape[1:]), tensor.dtype, str(tensor.device)) for _, tensor in whole)
