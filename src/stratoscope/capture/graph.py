"""Which layer's output goes into which layer, followed through everything that happens between them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

INPUT = "(input)"
"""The name under which the network's own input stands."""

MAX_DEPTH = 4
"""How deep a nested value is searched for tensors."""


@dataclass
class Flow:
    """Follows tensors through one forward pass.

    Every tensor that a leaf layer gives carries that layer's name; a function of tensors carries the names of all of
    them, so the two sides of a residual sum are both known where the sum is used.

    Attributes:
        edges: pairs (from, to), in order of first use.
    """

    edges: dict[tuple[str, str], None] = field(default_factory=dict)
    _origin: Any = field(default_factory=WeakIdKeyDictionary)

    def begin(self, inputs: Any) -> None:
        """Tensors that are handed to the network."""
        self._mark(inputs, frozenset({INPUT}))

    def through(self, output: Any, inputs: Any) -> None:
        """A function made `output` out of `inputs`."""
        origin = self._origins(inputs)
        if origin:
            self._mark(output, origin)

    def enter(self, name: str, inputs: Any) -> None:
        """A leaf layer takes `inputs`."""
        for source in sorted(self._origins(inputs)):
            if source != name:
                self.edges[source, name] = None

    def leave(self, name: str, output: Any) -> None:
        """A leaf layer gives `output`."""
        self._mark(output, frozenset({name}))

    def _origins(self, value: Any) -> frozenset[str]:
        found: frozenset[str] = frozenset()
        for tensor in tensors_in(value):
            found |= self._origin.get(tensor, frozenset())
        return found

    def _mark(self, value: Any, origin: frozenset[str]) -> None:
        for tensor in tensors_in(value):
            self._origin[tensor] = origin


def tensors_in(value: Any, depth: int = 0) -> Iterator[Tensor]:
    """Every tensor in a nested value."""
    if isinstance(value, Tensor):
        yield value
    elif depth < MAX_DEPTH:
        inner = value.values() if isinstance(value, Mapping) else value
        if isinstance(inner, (list, tuple)) or isinstance(value, Mapping):
            for item in inner:
                yield from tensors_in(item, depth + 1)
