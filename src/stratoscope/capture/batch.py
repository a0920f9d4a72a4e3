"""What a reducer is shown: one batch as one site saw it, with its axes made explicit."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from stratoscope.errors import NotApplicable

if TYPE_CHECKING:
    from stratoscope.capture.needs import Site
    from stratoscope.network.sources import Batch


Made = TypeVar("Made")


class Memo:
    """What several ask for and is worked out once."""

    def __init__(self) -> None:
        self._made: dict[Hashable, Any] = {}

    def __deepcopy__(self, known: dict[int, Any]) -> Memo:
        """An empty one: what was worked out can be worked out again."""
        return Memo()

    def once(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """What `make` gave when this key was first asked for."""
        if key not in self._made:
            self._made[key] = make()
        found: Made = self._made[key]
        return found


@dataclass
class SiteBatch:
    """One batch at one site.

    Attributes:
        site: the layer and which of its calls.
        raw: what the layer returned (or was given), as it was.
        value: the first floating tensor in `raw`, detached; `None` where there is none.
        batch: the examples: labels, mask, ids; where the network is.
        batch_dim: which axis of `value` counts examples; `None` where none does.
        channel_dim: which axis counts units, `1` (feature maps) or `-1`.
        criterion: the subject's own loss; `None` for the usual one of the task.
        loss: the mean loss of this batch, where it was computed.
        loss_n: labelled positions that `loss` is the mean of; weights batches against each other.
        gradients: loss gradients of the layer's params by key, for sites of parameter gradients; those that this
            batch's loss does not depend on are left out.
        lengths_mask: real positions of a packed sequence.
        of_batch: what is the same at every site of this batch.
        of_value: what is the same at every site that gives this very tensor, as a block and its last layer do.
    """

    site: Site
    raw: Any
    value: Tensor | None
    batch: Batch
    batch_dim: int | None = 0
    channel_dim: int = -1
    criterion: Callable[..., Any] | None = None
    loss: Tensor | None = None
    loss_n: int = 0
    gradients: Mapping[str, Tensor] = field(default_factory=dict)
    lengths_mask: Tensor | None = None
    of_batch: Memo = field(default_factory=Memo)
    of_value: Memo = field(default_factory=Memo)

    @property
    def is_map(self) -> bool:
        """Whether units are feature maps: one example has many positions that share a unit."""
        return self.channel_dim == 1

    @cached_property
    def blocks(self) -> Float[Tensor, "n positions units"]:
        """The value as examples x positions x units; half precision becomes float32. A view where possible.

        Raises:
            NotApplicable: if there is no floating tensor, or no axis counts the examples.
        """
        if self.value is None:
            raise NotApplicable(f"there is no floating-point tensor at {self.site.name}")
        if self.batch_dim is None:
            shape = tuple(self.value.shape)
            raise NotApplicable(
                f"{self.site.name} gives shape {shape}, in which no axis counts {self.batch.n} examples."
            )
        value = self.value.movedim(self.batch_dim, 0)
        if value.dtype.itemsize < 4:
            value = value.float()
        if value.ndim == 1:
            return value[:, None, None]
        if self.channel_dim == 1:
            return value.flatten(2).transpose(1, 2) if value.ndim > 2 else value[:, None, :]
        return value.flatten(1, -2) if value.ndim > 2 else value[:, None, :]

    @property
    def positions(self) -> tuple[int, ...]:
        """How an example's positions lie: the sides of a map, the length of a sequence; `()` for a vector."""
        if self.value is None or self.batch_dim is None:
            return ()
        own = self.value.movedim(self.batch_dim, 0).shape[1:]
        return tuple(own[1:] if self.is_map else own[:-1])

    @cached_property
    def mask(self) -> Bool[Tensor, "n positions"] | None:
        """Which positions are real; `None` if all are."""
        mask = self.lengths_mask if self.lengths_mask is not None else self.batch.mask
        if mask is None or self.value is None or mask.shape != self.blocks.shape[:2]:
            return None
        if self.is_map and self.value.ndim != 3:
            return None  # the positions of an image are not tokens, even where there are as many
        if mask is self.lengths_mask:
            return _unless_all(mask, self.blocks.device)
        return self.of_batch.once(("mask", self.blocks.device), lambda: _unless_all(mask, self.blocks.device))

    @cached_property
    def rows(self) -> Float[Tensor, "rows units"]:
        """Every real position of every example."""
        if self.mask is not None:
            return self.blocks[self.mask]
        return self.blocks.reshape(-1, self.blocks.shape[-1])

    @cached_property
    def pooled(self) -> Float[Tensor, "n units"]:
        """The mean over each example's real positions."""
        return self.of_value.once("pooled", self._pooled)

    def _pooled(self) -> Tensor:
        if self.mask is None:
            return self.blocks[:, 0] if self.blocks.shape[1] == 1 else self.blocks.mean(1)
        # padding may hold NaN, which times zero would still be NaN
        real = self.blocks.masked_fill(~self.mask[..., None], 0)
        return real.sum(1) / self.mask.sum(1, keepdim=True).clamp(min=1)

    @cached_property
    def flat(self) -> Float[Tensor, "n width"]:
        """Everything that an example makes the layer say, in one row; padding is zero."""
        blocks = self.blocks if self.mask is None else self.blocks.masked_fill(~self.mask[..., None], 0)
        return blocks.flatten(1)


def _unless_all(mask: Tensor, device: torch.device) -> Tensor | None:
    mask = mask.to(device=device, dtype=torch.bool)
    return None if bool(mask.all()) else mask


def first_tensor(raw: Any) -> tuple[Tensor | None, Tensor | None]:
    """The first floating tensor in a nested output, detached, and the mask of real positions if it was packed.

    Tuples, lists, mappings (Hugging Face outputs among them) and dataclasses are searched in order; a lone number beside
    other things, such as a loss, is passed over.
    """
    found = find_tensor(raw)
    if isinstance(found, PackedSequence):
        padded, lengths = pad_packed_sequence(found, batch_first=True)
        return padded.detach(), torch.arange(padded.shape[1])[None] < lengths[:, None]
    return (None, None) if found is None else (found.detach(), None)


def find_tensor(raw: Any) -> Tensor | PackedSequence | None:
    """The same as it is: in the graph, and packed if it is packed."""
    if isinstance(raw, PackedSequence):
        return raw if raw.data.is_floating_point() else None
    if isinstance(raw, Tensor):
        return raw if raw.is_floating_point() else None
    inner = items_of(raw)
    for item in inner:
        found = find_tensor(item)
        if found is not None and (isinstance(found, PackedSequence) or found.ndim > 0 or len(inner) == 1):
            return found
    return None


def items_of(raw: Any) -> list[Any]:
    """What a tuple, list, mapping or dataclass holds; nothing for anything else."""
    if isinstance(raw, Mapping):
        return list(raw.values())
    if isinstance(raw, (tuple, list)):
        return list(raw)
    if is_dataclass(raw) and not isinstance(raw, type):
        return [getattr(raw, field.name) for field in fields(raw)]
    return []
