"""Examples as a network takes them: one batch, and the fixed set of batches that is looked at."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Int64
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Batch:
    """Some examples. A network is called as `model(*batch.args, **batch.kwargs)`.

    Types are those that the user gave: float64 stays float64 and uint8 stays uint8 until `to` is asked for another
    floating type, which uint8 never becomes (nobody knows how a training scaled its pixels). Only labels change:
    whole numbers become int64, as torch's losses want them.

    Attributes:
        args: what is given by position.
        kwargs: what is given by name, such as `input_ids` and `attention_mask`. For batches in the style of Hugging
            Face `labels` stays among them, since such models compute their own loss from it.
        labels: the labels, or `None`.
        mask: which tokens are real, from a two-dimensional `attention_mask` or `src_key_padding_mask`; `None` where all
            are or nobody says.
        n: how many examples.
        ids: their positions in the probe set.
    """

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    labels: Tensor | None = None
    mask: Bool[Tensor, "n tokens"] | None = None
    n: int = 0
    ids: Int64[Tensor, " n"] = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Batch:
        """A copy on a device, also where it is there already: a network or a loss may write to what it is given.

        Args:
            device: where to.
            dtype: what floating inputs and labels become (a model's own type); `None` leaves them.
        """

        def move(tensor: Tensor) -> Tensor:
            kind = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
            return tensor.to(device, kind, copy=True)

        return replace(
            self,
            args=mapped(move, self.args),
            kwargs=mapped(move, dict(self.kwargs)),
            labels=mapped(move, self.labels),
            mask=mapped(move, self.mask),
            ids=move(self.ids),
        )

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Every tensor that belongs to the data, each once, with where it is: `"0"`, `"input_ids"`, `"labels"`."""
        yield from leaves(self.args)
        yield from leaves(
            {name: value for name, value in self.kwargs.items() if value is None or value is not self.labels}
        )
        if self.labels is not None:
            yield "labels", self.labels


@dataclass(frozen=True, eq=False)
class ProbeSet:
    """The examples of one split that are looked at, at every step the same. Held in memory on the CPU.

    Attributes:
        split: name of the split.
        batches: the examples, in an order drawn by seed, so that the first few are themselves a fair sample.
        ids: for each example, its index in the data.
        how: one sentence part that says how they were chosen.
    """

    split: str
    batches: tuple[Batch, ...]
    ids: Int64[Tensor, " n"]
    how: str

    @property
    def n(self) -> int:
        """How many examples."""
        return len(self.ids)

    @cached_property
    def nbytes(self) -> int:
        """Bytes that the tensors take."""
        return sum(tensor.nbytes for batch in self.batches for _, tensor in batch.tensors())

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the indices and the data; the same for every batch size, where examples have one shape."""
        parts: dict[str, Any] = {}
        for batch in self.batches:
            for name, tensor in batch.tensors():
                kind = f"{name} {tensor.dtype} {tuple(tensor.shape[1:])}"
                parts.setdefault(kind, hashlib.sha256()).update(raw_bytes(tensor))
        whole = hashlib.sha256(raw_bytes(self.ids))
        for kind, part in parts.items():
            whole.update(kind.encode() + part.digest())
        return whole.hexdigest()


def mapped(change: Callable[[Tensor], Tensor], tree: Any) -> Any:
    """Change every tensor in nested tuples, lists and dicts, and leave everything else; lists become tuples.

    >>> mapped(lambda t: t + 1, ({"a": torch.zeros(())}, 7))[0]["a"].item()
    1.0
    """
    if isinstance(tree, Tensor):
        return change(tree)
    if isinstance(tree, Mapping):
        return {name: mapped(change, value) for name, value in tree.items()}
    if isinstance(tree, (tuple, list)):
        return tuple(mapped(change, value) for value in tree)
    return tree


def leaves(tree: Any, at: str = "") -> Iterator[tuple[str, Tensor]]:
    """Every tensor in nested tuples, lists and dicts, with its path."""
    if isinstance(tree, Tensor):
        yield at, tree
    elif isinstance(tree, Mapping):
        for name, value in tree.items():
            yield from leaves(value, f"{at}.{name}" if at else str(name))
    elif isinstance(tree, (tuple, list)):
        for place, value in enumerate(tree):
            yield from leaves(value, f"{at}.{place}" if at else str(place))


def raw_bytes(tensor: Tensor) -> bytes:
    """The numbers of a tensor as they lie in memory, row by row."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
