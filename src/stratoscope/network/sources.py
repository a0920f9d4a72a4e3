"""Data in any form that people have, as named splits from which a fixed set of examples is drawn.

`as_splits` takes `None`, a tensor or array, `(inputs, labels)`, a dict batch, a torch `Dataset` (or anything with
`len` and `[]`, such as a Hugging Face dataset), a `DataLoader`, a list of batches, any other iterable of batches, or a
dict of named splits of these. How one batch is read is said at `unpack` in `stratoscope.network.unpacking`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from stratoscope.errors import DataError
from stratoscope.network.batches import Batch, ProbeSet
from stratoscope.network.drawing import Draw, Indexed, Items, Rows, items_of_loader
from stratoscope.network.loading import load_object, read_data
from stratoscope.network.streams import ListOfBatches, Stream
from stratoscope.network.unpacking import INPUT_KEYS, LABEL_KEYS, MODEL_KEYS, is_numbers, not_finite, owned

__all__ = ["Batch", "ProbeSet", "Split", "as_splits", "load_object", "read_data"]

SPLIT_NAMES = frozenset(
    {
        "train", "training", "test", "testing", "val", "valid", "validation", "dev", "eval", "evaluation", "holdout",
        "all", "unlabelled", "unlabeled", "unsupervised",
    }
)  # fmt: skip
"""Names by which a dict is told to be one of splits, and not a batch."""

ONLY_SPLIT = "data"
"""Name of the split where the data are not named."""


@dataclass(frozen=True, eq=False)
class Split:
    """One named part of the data. Nothing is read until examples are drawn.

    Attributes:
        name: such as `"train"`.
        data: the user's own object; it is never changed.
        labels: labels that belong to it (a tensor or array, by index of the example), or where in a batch they are: a
            position, a key, `True` (the last element), `False` (there are none), `None` (by the usual rules).
    """

    name: str
    data: Any
    labels: Any = None

    def probe(self, limit: int, seed: int, batch_size: int) -> ProbeSet:
        """Draw the examples that are looked at. Equal arguments give equal examples; a smaller limit gives a beginning.

        Drawing leaves the user's things as they are: a loader's own sampler, generator and workers are not used
        (examples are taken from its dataset by index and put together by its `collate_fn`), and the global random
        generators of Python, numpy and torch, which transforms use, are seeded for the time and put back.

        Args:
            limit: at most so many examples.
            seed: of the drawing, and of random transforms.
            batch_size: examples in a batch.

        Raises:
            DataError: if there are no examples, they do not fit each other, cannot be read, or hold NaN or infinity.
        """
        if limit < 1 or batch_size < 1:
            raise DataError(f"limit={limit} and batch_size={batch_size} must both be at least 1.")
        where = f"Split {self.name!r}"
        if seed < 0:
            raise DataError(f"seed={seed} must not be negative.")
        generator = self.data.generator if isinstance(self.data, DataLoader) else None
        with own_randomness(seed, generator):
            drawn = _source(self.data, self.labels, where).draw(limit, seed, batch_size)
        return _finished(self.name, drawn)


def as_splits(data: Any, *, labels: Any = None) -> dict[str, Split]:
    """Turn what the user has into named splits.

    A dict is a batch, and not one of splits, if none of its keys is a split's name (`train`, `test`, `val`, ...) and
    it has a key that batches have (`input_ids`, `x`, `labels`, ...) or all its values are arrays of one length. Several
    values of which each is a pair, a Dataset or a DataLoader are splits by any name.

    Args:
        data: see the module.
        labels: see `Split`; for several splits a dict of these, or one rule for all.

    Returns:
        The splits by name; a single source is called `"data"`; without data there are none.

    Raises:
        DataError: if this is no kind of data, or labels and splits do not fit.

    >>> list(as_splits({"train": torch.zeros(3, 2), "test": torch.zeros(2, 2)}))
    ['train', 'test']
    >>> as_splits((torch.zeros(5, 2), torch.arange(5)))["data"].probe(3, seed=0, batch_size=2).n
    3
    """
    if data is None:
        if labels is not None:
            raise DataError("Labels were given without data.")
        return {}
    if isinstance(data, (str, Path)):
        data = read_data(str(data))
    if isinstance(data, Split):
        return {data.name: data}
    if not isinstance(data, Mapping) or is_batch(data):
        return {ONLY_SPLIT: _split(ONLY_SPLIT, data, labels)}
    if not data:
        raise DataError("The data are an empty dict; give splits such as {'train': (inputs, labels)}.")
    given = labels if isinstance(labels, Mapping) else dict.fromkeys(data, labels)
    odd = [name for name in given if name not in data] or [name for name in data if not isinstance(name, str)]
    if odd:
        raise DataError(f"There is no split {odd[0]!r}; the data have {', '.join(map(str, data))}.")
    if isinstance(labels, (Tensor, np.ndarray)) and len(data) > 1:
        raise DataError(f"One array of labels for {len(data)} splits; give a dict with labels for each.")
    return {name: _split(name, value, given.get(name)) for name, value in data.items()}


def is_batch(data: Mapping[Any, Any]) -> bool:
    """Whether a dict is one of a batch's tensors rather than one of splits.

    Raises:
        DataError: if it has keys of both.

    >>> is_batch({"input_ids": torch.zeros(2, 3), "attention_mask": torch.ones(2, 3)})
    True
    """
    if len(data) > 1 and all(_is_source(value) for value in data.values()):
        return False
    named = [key for key in data if key in SPLIT_NAMES]
    known = [key for key in data if key in MODEL_KEYS or key in INPUT_KEYS or key in LABEL_KEYS]
    if named and known:
        raise DataError(
            f"The data have the split {named[0]!r} beside {known[0]!r}, which belongs into a batch; nest them."
        )
    if named or not data:
        return False
    sizes = {len(value) if _is_array(value) and np.ndim(value) else None for value in data.values()}
    return bool(known) or (len(sizes) == 1 and None not in sizes)


def _is_source(value: Any) -> bool:
    """Whether this is data by itself, and no part of a batch."""
    pair = isinstance(value, (tuple, list)) and len(value) > 1 and all(_is_array(part) for part in value)
    return pair or isinstance(value, (Dataset, DataLoader, Split))


def _split(name: str, data: Any, labels: Any) -> Split:
    if isinstance(data, Split):
        return replace(data, name=name)
    if data is None:
        raise DataError(f"Split {name!r} is None.")
    if iter_once(data):
        raise DataError(
            f"Split {name!r} is a {type(data).__name__}, which can be read only once; give a list or a Dataset."
        )
    return Split(name, data, labels)


def _holds_examples(data: list[Any]) -> bool:
    """Whether a list holds single examples, as `[(picture, 3), ...]` does, rather than batches."""
    first = data[0] if data else None
    parts = list(first.values()) if isinstance(first, Mapping) else first if isinstance(first, (tuple, list)) else []
    return any(isinstance(part, (bool, int, float)) or (_is_array(part) and np.ndim(part) == 0) for part in parts)


def iter_once(data: Any) -> bool:
    """Whether this is an iterator, such as a generator, that is gone after one reading."""
    return hasattr(data, "__next__") and iter(data) is data


def _is_array(value: Any) -> bool:
    return isinstance(value, Tensor) or hasattr(value, "__array__")


def _source(data: Any, labels: Any, where: str) -> Indexed | ListOfBatches | Stream:
    """The way in which examples are got from the user's object."""
    if isinstance(data, DataLoader):
        return _of_loader(data, labels, where)
    if isinstance(data, IterableDataset):
        return Stream(data, labels, where, single=True)
    if type(data) is TensorDataset:
        return Rows(tuple(data.tensors), labels, where)
    if isinstance(data, Mapping) or _is_array(data) or (isinstance(data, (tuple, list)) and is_numbers(data)):
        return Rows(data, labels, where)
    if isinstance(data, tuple):
        return Rows(data, labels, where)
    if isinstance(data, list) and not _holds_examples(data):
        return ListOfBatches(data, labels, where)
    if hasattr(data, "__getitem__") and (isinstance(data, Dataset) or hasattr(data, "__len__")):
        return Items(data, labels, where)
    if hasattr(data, "__iter__"):
        return Stream(data, labels, where)
    raise DataError(
        f"{where} is {type(data).__name__}, which is no data; give a tensor, (inputs, labels), a Dataset, a DataLoader "
        "or a list of batches."
    )


def _of_loader(loader: DataLoader[Any], labels: Any, where: str) -> Items | Stream:
    if type(loader).__iter__ is not DataLoader.__iter__:
        return Stream(loader, labels, where)
    if isinstance(loader.dataset, IterableDataset):
        batched = loader.batch_size is not None
        return Stream(loader.dataset, labels, where, single=batched, collate=loader.collate_fn)
    if loader.batch_sampler is None:  # the dataset gives whole batches
        return Stream(loader.dataset, labels, where, collate=loader.collate_fn, sampler=loader.sampler)
    return items_of_loader(loader, labels, where)


def _finished(name: str, drawn: Draw) -> ProbeSet:
    """Number the examples, and refuse what no instrument could use."""
    _refuse_not_finite(name, drawn)
    batches: list[Batch] = []
    seen = 0
    for batch in drawn.batches:
        batches.append(replace(owned(batch), n=batch.n, ids=torch.arange(seen, seen + batch.n)))
        seen += batch.n
    return ProbeSet(name, tuple(batches), drawn.ids, drawn.how)


def _refuse_not_finite(name: str, drawn: Draw) -> None:
    seen, bad, first = 0, 0, ""
    for batch in drawn.batches:
        found = not_finite(batch)
        if found is not None:
            at, rows = found
            bad += int(rows.sum())
            index = int(rows.nonzero()[0])
            place = f"example {int(drawn.ids[seen + index])}" if len(rows) == batch.n else "a batch"
            first = first or f"first in {at!r} of {place}"
        seen += batch.n
    if bad:
        raise DataError(
            f"Split {name!r} has NaN or infinity in {bad:,} of the {len(drawn.ids):,} examples drawn, {first}; "
            "remove such examples or replace these values."
        )


@contextmanager
def own_randomness(seed: int, generator: torch.Generator | None = None) -> Iterator[None]:
    """Seed the global generators that a user's transforms draw from, and put them back as they were.

    Args:
        seed: for the time being.
        generator: one of the user's that may be drawn from and is put back too.
    """
    own = None if generator is None else generator.get_state()
    python, numeric, torchs = random.getstate(), np.random.get_state(), torch.get_rng_state()
    device = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    try:
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.default_generator.manual_seed(seed)
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numeric)
        torch.set_rng_state(torchs)
        if device is not None:
            torch.cuda.set_rng_state_all(device)
        if generator is not None and own is not None:
            generator.set_state(own)
