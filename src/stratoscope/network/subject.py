"""What is examined: weights always; a model, data, labels and a loss where they are at hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stratoscope.errors import SubjectError
from stratoscope.network.catalogue import catalogue_of
from stratoscope.network.heads import config_beside
from stratoscope.network.layers import Catalogue
from stratoscope.network.naming import catalogue_of_weights
from stratoscope.network.opening import open_weights
from stratoscope.network.sources import ProbeSet, Split, as_splits
from stratoscope.network.unwrap import unwrap
from stratoscope.network.weights import ModuleWeights, StateDict, WeightSource, WithTwins

TRANSFER = "transfer"
"""What data of another task are called, as a split."""


@dataclass(frozen=True)
class Subject:
    """A network to look at, with whatever belongs to it. The module is never wrapped, replaced or rewritten.

    Attributes:
        model: the live module; compiled and data-parallel wrappers are looked through.
        data: tensors, arrays, `(inputs, labels)`, a Dataset, a DataLoader, dict batches, or a dict of named splits of
            these.
        loss: `loss(output, labels)`; the usual one of the task where it is left out.
        labels: labels that belong to `data`, where `data` does not hold them.
        weights: a state dict, an opened source or a path. With a model, its forward passes run on these weights.
        optimizer: the optimizer of a training, or several.
        name: for people.
        probe: examples drawn from each split, once, and held.
        batch_size: examples a forward pass.
        seed: of the drawing.
        heads: whether the catalogue lists what each attention head computes with, `W_q^T W_k` and `W_o W_v`; a number
            is that of the query heads, where neither the model nor its config says. `catalogue.notes` tell what is missing.
        config: what the model's `config.json` says; read from beside the weights where it is left out.
        transfer: data of another task, with their labels, one source; only what asks for them is measured there.
    """

    model: nn.Module | None = None
    data: Any = None
    loss: Callable[..., Any] | None = None
    labels: Any = None
    weights: WeightSource | Mapping[str, Tensor] | str | Path | None = None
    optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer] | None = None
    name: str = ""
    probe: int = 2000
    batch_size: int = 128
    seed: int = 0
    heads: bool | int = False
    config: Mapping[str, Any] | None = None
    transfer: Any = None
    _probes: dict[str, ProbeSet] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.model is None and self.weights is None:
            raise SubjectError("A subject needs a model or weights; neither was given.")
        if self.model is not None and not isinstance(self.model, nn.Module):
            raise SubjectError(f"The model must be a torch.nn.Module, not {type(self.model).__name__}.")
        if self.probe < 1 or self.batch_size < 1:
            raise SubjectError(f"probe={self.probe} and batch_size={self.batch_size} must both be at least 1.")
        for optimizer in self.optimizers:
            if not hasattr(optimizer, "register_step_post_hook"):
                raise SubjectError(
                    f"The optimizer must be a torch.optim.Optimizer or a list of them, not {type(optimizer).__name__}."
                )
        if self.loss is not None and not callable(self.loss):
            raise SubjectError(f"The loss must be callable as loss(output, labels), not {type(self.loss).__name__}.")

    @classmethod
    def open(cls, path: str | Path, **more: Any) -> Subject:
        """A checkpoint, opened lazily and without running anything in it.

        Raises:
            OpenError: one sentence that says why it cannot be opened.
        """
        more = {"name": Path(path).stem, "config": config_beside(path)} | more
        return cls(weights=open_weights(path), **more)

    @property
    def optimizers(self) -> tuple[torch.optim.Optimizer, ...]:
        """Every optimizer of the training; none where it has none."""
        if self.optimizer is None:
            return ()
        return tuple(self.optimizer) if isinstance(self.optimizer, Sequence) else (self.optimizer,)

    @cached_property
    def module(self) -> nn.Module | None:
        """The model itself, without wrappers."""
        return None if self.model is None else unwrap(self.model)

    @cached_property
    def source(self) -> WeightSource:
        """Where the weights are read from."""
        if self.weights is None:
            assert self.module is not None
            return ModuleWeights(self.module)
        if isinstance(self.weights, WeightSource):
            source = self.weights
        else:
            source = StateDict(self.weights) if isinstance(self.weights, Mapping) else open_weights(self.weights)
        return source if self.module is None else WithTwins(source, self.module)

    @cached_property
    def catalogue(self) -> Catalogue:
        """Every layer."""
        if self.module is None:
            config = self.config
            if config is None and isinstance(self.weights, str | Path):
                config = config_beside(self.weights)
            return catalogue_of_weights(self.source, self.heads, config)
        if self.weights is not None:
            self._check_keys(self.module)
        return catalogue_of(self.module, self.heads)

    @cached_property
    def splits(self) -> dict[str, Split]:
        """The named splits of the data; empty where there are none."""
        return as_splits(self.data, labels=self.labels)

    @cached_property
    def sources(self) -> dict[str, Split]:
        """The splits, and after them the data of another task under the name `transfer`, where there are some.

        Raises:
            SubjectError: if the data have a split of that name themselves, or those of the other task have several.
        """
        if self.transfer is None:
            return self.splits
        other = as_splits(self.transfer)
        if len(other) != 1:
            raise SubjectError(
                f"Data for transfer are one source, not splits ({', '.join(other)}); hand over one of them."
            )
        if TRANSFER in self.splits:
            raise SubjectError(
                f"The data have a split {TRANSFER!r}, which is what data for transfer are called; rename it."
            )
        return {**self.splits, TRANSFER: replace(next(iter(other.values())), name=TRANSFER)}

    def probe_set(self, split: str) -> ProbeSet:
        """The fixed examples of a split: drawn once by seed, the same at every step."""
        if split not in self.sources:
            known = ", ".join(self.sources) or "none"
            raise SubjectError(f"There is no split {split!r}; the data have {known}.")
        if split not in self._probes:
            self._probes[split] = self.sources[split].probe(self.probe, self.seed, self.batch_size)
        return self._probes[split]

    @cached_property
    def device(self) -> torch.device:
        """Where the model lives."""
        tensors = [] if self.module is None else [*self.module.parameters(), *self.module.buffers()]
        return tensors[0].device if tensors else torch.device("cpu")

    def override(self) -> dict[str, Tensor] | None:
        """The tensors to run the model with, where they are not its own."""
        if self.module is None or self.weights is None:
            return None
        own = {**dict(self.module.named_parameters()), **dict(self.module.named_buffers())}
        there = self.source.describe()
        return {
            name: self.source.load(name).to(device=tensor.device, dtype=tensor.dtype)
            for name, tensor in own.items()
            if name in there
        }

    def _check_keys(self, module: nn.Module) -> None:
        wanted = {name: tuple(t.shape) for name, t in module.state_dict().items()}
        there = {name: info.shape for name, info in self.source.describe().items()}
        for name, shape in wanted.items():
            if name not in there:
                raise SubjectError(
                    f"The weights lack {name!r}, which {type(module).__name__} has; is it another network?"
                )
            if there[name] != shape:
                raise SubjectError(f"{name!r} has shape {there[name]} in the weights and {shape} in the model.")
        extra = [name for name in there if name not in wanted]
        if extra:
            raise SubjectError(
                f"The weights hold {extra[0]!r}, which {type(module).__name__} has not ({len(extra)} such)."
            )
