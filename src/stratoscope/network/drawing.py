"""How examples are got from each kind of data: by index where that is possible, else the first of a stream."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
    default_collate,
)

from stratoscope.errors import DataError, StratoscopeError
from stratoscope.network.batches import Batch
from stratoscope.network.unpacking import as_labels, at_rows, tensors, unpack

WHOLE_DATASET = (SequentialSampler, RandomSampler, DistributedSampler)
"""Samplers that go over every example, each in an order (or part) that does not matter here."""

SHUFFLED_WHOLE = 2**22
"""Up to so many examples their order is a permutation of all; above, indices are drawn until enough differ."""


@dataclass(frozen=True, eq=False)
class Draw:
    """Examples that were drawn.

    Attributes:
        batches: the examples; `n` is set.
        ids: index of each in the data.
        how: one sentence part.
    """

    batches: Sequence[Batch]
    ids: Int64[Tensor, " n"]
    how: str


def drawn_order(n: int, limit: int, seed: int) -> Int64[np.ndarray, " limit"]:
    """At most `limit` of the numbers below `n`, in random order; a smaller limit gives a beginning of a larger one's.

    >>> drawn_order(5, 3, seed=0).tolist() == drawn_order(5, 5, seed=0)[:3].tolist()
    True
    """
    rng = np.random.default_rng(seed)
    if n <= SHUFFLED_WHOLE:
        return rng.permutation(n)[:limit].astype(np.int64)
    found: dict[int, None] = {}
    while len(found) < min(limit, n):
        found.update(dict.fromkeys(rng.integers(n, size=65536).tolist()))
    return np.fromiter(islice(found, limit), dtype=np.int64)


def counted(n: int) -> str:
    """A number of examples in words.

    >>> counted(2000)
    '2,000 examples'
    """
    return f"{n:,} example{'' if n == 1 else 's'}"


class LabelSource:
    """Labels beside the data: where in a batch they are, or an array of them by index."""

    def __init__(self, given: Any, where: str) -> None:
        is_rule = given is None or isinstance(given, (bool, int, str))
        self.rule = given if is_rule else False
        self.array: Tensor | None = None if is_rule else as_labels(given, where)

    def check(self, n: int, where: str) -> None:
        """Compare their number with that of the examples."""
        if self.array is not None and (self.array.ndim == 0 or len(self.array) != n):
            raise DataError(f"{where} has {n} examples and labels of shape {tuple(self.array.shape)}.")

    def onto(self, batch: Batch, ids: Tensor, where: str) -> Batch:
        """The batch with its labels."""
        if self.array is None:
            return batch
        if self.array.ndim == 0 or int(ids.max()) >= len(self.array):
            raise DataError(f"{where} has more examples than the {self.array.numel()} labels that were given.")
        return replace(batch, labels=self.array[ids.to(self.array.device)])


class Indexed(ABC):
    """Data whose examples can be taken by index."""

    where: str
    note: str = ""

    @abstractmethod
    def population(self) -> int:
        """How many examples there are."""

    @abstractmethod
    def take(self, places: Int64[np.ndarray, " n"]) -> Batch:
        """The examples at some of the places below `population()`."""

    def index_of(self, places: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
        """The user's own indices of these places."""
        return places

    def draw(self, limit: int, seed: int, batch_size: int) -> Draw:
        """Draw examples by seed."""
        total = self.population()
        if total < 1:
            raise DataError(f"{self.where} is empty: it has no examples.")
        places = drawn_order(total, limit, seed)
        chunks = [places[at : at + batch_size] for at in range(0, len(places), batch_size)]
        batches = [replace(self._checked(self.take(chunk), len(chunk)), n=len(chunk)) for chunk in chunks]
        how = f"all {counted(total)}" if total <= limit else f"{limit:,} of {total:,} examples drawn with seed {seed}"
        return Draw(batches, torch.from_numpy(self.index_of(places)), how + self.note)

    def _checked(self, batch: Batch, n: int) -> Batch:
        """Whether a batch holds as many examples as were asked for; some networks take them along the second axis."""
        sizes = {name: tuple(tensor.shape) for name, tensor in batch.tensors() if tensor.ndim}
        inputs = {name: shape for name, shape in sizes.items() if name != "labels"}
        if not inputs:
            raise DataError(f"{self.where} has no tensor among its inputs.")
        fits = any(n in shape for shape in inputs.values())
        if not fits or ("labels" in sizes and sizes["labels"][0] != n):
            said = ", ".join(f"{name} {shape}" for name, shape in sizes.items())
            raise DataError(
                f"{self.where} gave, for {n} examples, {said}; its collate_fn must keep one row an example."
            )
        return batch


class Rows(Indexed):
    """Tensors and arrays in memory (or mapped into it) with an example a row."""

    def __init__(self, data: Any, labels: Any, where: str) -> None:
        self.where = where
        self._labels = LabelSource(labels, where)
        self._whole = unpack(data, self._labels.rule, where)
        sizes = {name: len(tensor) for name, tensor in self._whole.tensors() if tensor.ndim}
        if not sizes:
            raise DataError(f"{where} is a single number, not rows of examples.")
        if len(set(sizes.values())) > 1:
            said = ", ".join(f"{name!r} has {size}" for name, size in sizes.items())
            raise DataError(f"{where} has arrays of different length: {said}; each needs one row an example.")
        self._n = next(iter(sizes.values()))
        self._labels.check(self._n, where)

    def population(self) -> int:
        """Rows."""
        return self._n

    def take(self, places: Int64[np.ndarray, " n"]) -> Batch:
        """Copies of some rows."""
        ids = torch.from_numpy(places)
        return self._labels.onto(at_rows(self._whole, ids), ids, self.where)


class Items(Indexed):
    """A dataset that gives one example an index.

    Args:
        dataset: the user's dataset.
        labels: see `Split`.
        where: begins the message of an error.
        collate: puts examples together; torch's usual way by default.
        chosen: the indices that belong to the split; all by default.
        note: added to how the examples were drawn.
    """

    def __init__(
        self,
        dataset: Any,
        labels: Any,
        where: str,
        collate: Callable[[list[Any]], Any] | None = None,
        chosen: Int64[np.ndarray, " n"] | None = None,
        note: str = "",
    ) -> None:
        self.where, self.note = where, note
        self._dataset, self._collate, self._chosen = dataset, collate, chosen
        self._labels = LabelSource(labels, where)
        try:
            self._size = len(dataset)
        except (TypeError, NotImplementedError) as error:
            raise DataError(f"{where} is a {type(dataset).__name__} without a length; give it __len__.") from error
        self._labels.check(self._size, where)

    def population(self) -> int:
        """Examples that belong to the split."""
        return self._size if self._chosen is None else len(self._chosen)

    def index_of(self, places: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
        """Indices in the dataset."""
        return places if self._chosen is None else self._chosen[places]

    def take(self, places: Int64[np.ndarray, " n"]) -> Batch:
        """Read and collate some examples."""
        ids = [int(at) for at in self.index_of(places)]
        try:
            many = getattr(self._dataset, "__getitems__", None)
            items = list(many(ids)) if callable(many) else [self._dataset[at] for at in ids]
        except Exception as error:
            raise unreadable(self.where, f"examples {ids[0]} and on", error) from error
        batch = unpack(collated(items, self._collate, self.where), self._labels.rule, self.where)
        return self._labels.onto(batch, torch.tensor(ids), self.where)


def collated(items: list[Any], collate: Callable[[list[Any]], Any] | None, where: str) -> Any:
    """Put examples together as the user does, or as torch does by default.

    Raises:
        DataError: if they cannot be: they differ in shape, or hold what no network takes.
    """
    if collate is None:
        items = [_prepared(item, where) for item in items]
    try:
        return (collate or default_collate)(items)
    except StratoscopeError:
        raise
    except Exception as error:
        raise DataError(
            f"{where}: its examples cannot be put into one batch ({type(error).__name__}: {_first_line(error)}); "
            "are they ragged? Pad them, or give a DataLoader with a collate_fn."
        ) from error


def _prepared(item: Any, where: str) -> Any:
    """One example with lists of numbers as tensors, which torch would otherwise take for lists of examples."""
    if isinstance(item, (tuple, list)):
        return tuple(tensors(part, where) for part in item)
    return tensors(item, where)


def items_of_loader(loader: DataLoader[Any], labels: Any, where: str) -> Items:
    """A map-style loader's dataset, its `collate_fn`, and the indices that its sampler would give; it is not iterated."""
    dataset: Any = loader.dataset
    sampler: Any = loader.batch_sampler
    if type(sampler) is BatchSampler:
        sampler = sampler.sampler
    chosen, note = _chosen(sampler, dataset)
    return Items(dataset, labels, where, loader.collate_fn, chosen, note)


def _chosen(sampler: Any, dataset: Any) -> tuple[Int64[np.ndarray, " n"] | None, str]:
    """The indices that a sampler is limited to (`None`: all), and what is to be said of it."""
    if type(sampler) in WHOLE_DATASET:
        return None, ""
    if type(sampler) is WeightedRandomSampler:
        return None, ", all equally likely (the loader's sampler has weights)"
    if type(sampler) is SubsetRandomSampler:
        return np.unique(np.asarray(sampler.indices, dtype=np.int64)), ""
    try:
        own = copy.deepcopy(sampler, {id(dataset): dataset}) if isinstance(sampler, Sampler) else sampler
        given = islice(iter(own), 2 * len(dataset) + 1)
        flat = chain.from_iterable(at if isinstance(at, (list, tuple)) else (at,) for at in given)
        return np.unique(np.fromiter((int(at) for at in flat), dtype=np.int64)), ""
    except Exception:
        return None, f", of the whole dataset (its {type(sampler).__name__} cannot be read without using it up)"


def unreadable(where: str, what: str, error: Exception) -> DataError:
    """What to raise where the user's own code failed."""
    return DataError(f"{where} failed to give {what}: {type(error).__name__}: {_first_line(error)}.")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0].rstrip(".")
