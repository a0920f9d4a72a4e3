"""Named tensors as they are stored, widened when they are asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor

from stratoscope.numerics.matrices import at_least_float32

if TYPE_CHECKING:
    from stratoscope.network.layers import Matrix


@dataclass(frozen=True)
class Tensors(Mapping[str, Tensor]):
    """Tensors by name, in float32 at least, and the type that each is stored in.

    A tensor of less precision is widened whenever it is asked for, so that of a large network no wide copy is kept.
    What reads its tensors in blocks takes them with `as_stored`.

    Attributes:
        tensors: the tensors, some of them narrower; not to be written to.
        stored: for each, the type that it is stored in, which bounds how precise it can be.
    """

    tensors: Mapping[str, Tensor]
    stored: Mapping[str, torch.dtype]

    def __getitem__(self, name: str) -> Tensor:
        return at_least_float32(self.tensors[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def __contains__(self, name: object) -> bool:
        return name in self.tensors  # without widening it

    def as_stored(self, name: str) -> Tensor:
        """One tensor without a wide copy of it."""
        return self.tensors[name]


@dataclass(frozen=True, eq=False)
class MatrixTensors(Mapping[str, Tensor]):
    """A layer's matrices by name: held where they are views or were computed, formed when asked for where products.

    The products of all heads of an attention layer would take many times the memory of its weights. A matrix that is
    a rearranged param shares its memory and its type; what is computed is computed in float32 at least.

    Attributes:
        matrices: what they are, in order.
        parts: the params' tensors as they are stored, by their exact keys.
        held: the matrices that are no products.
    """

    matrices: Mapping[str, Matrix]
    parts: Mapping[str, Tensor]
    held: Mapping[str, Tensor]

    @classmethod
    def of(cls, matrices: Iterable[Matrix], parts: Mapping[str, Tensor]) -> Self:
        """See params as matrices."""
        named = {matrix.name: matrix for matrix in matrices}
        held = {name: m.view(*_parts(m, parts)) for name, m in named.items() if m.factors is None}
        return cls(named, parts, held)

    def __getitem__(self, name: str) -> Tensor:
        if name in self.held:
            return self.held[name]
        matrix = self.matrices[name]
        return matrix.view(*_parts(matrix, self.parts))

    def __iter__(self) -> Iterator[str]:
        return iter(self.matrices)

    def __len__(self) -> int:
        return len(self.matrices)

    def __contains__(self, name: object) -> bool:
        return name in self.matrices  # without forming it

    def factors(self, name: str) -> tuple[Tensor, Tensor] | None:
        """The two factors of a product; `None` for what is no product."""
        matrix = self.matrices[name]
        return None if matrix.factors is None else matrix.factors(*_parts(matrix, self.parts))

    def kernel(self, name: str) -> Tensor | None:
        """A convolution's weight as `(outputs, inputs / groups, *kernel)`; `None` for what is no convolution."""
        matrix = self.matrices[name]
        return None if matrix.kernel_view is None else matrix.kernel_view(*_parts(matrix, self.parts))

    def stored(self, name: str) -> torch.dtype:
        """The type that bounds a matrix's precision: its param's, or where it is computed the type of that."""
        matrix = self.matrices[name]
        if name in self.held and len(matrix.params) > 1:
            return self.held[name].dtype
        types = [self.parts[key].dtype for key in matrix.params]
        return types[0] if len(types) == 1 else reduce(torch.promote_types, types, torch.float32)


def _parts(matrix: Matrix, parts: Mapping[str, Tensor]) -> list[Tensor]:
    """What a matrix is made from. Factors are cut out before they are widened; a single param is only rearranged."""
    own = [parts[key] for key in matrix.params]
    as_they_are = matrix.factors is not None or (len(own) == 1 and matrix.law != "parametrized")
    return own if as_they_are else [at_least_float32(tensor) for tensor in own]
