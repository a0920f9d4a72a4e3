"""Needs that are filled from weights alone: the params of a layer, its matrices, and their singular values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from stratoscope.capture.needs import Derived, Need
from stratoscope.errors import NotApplicable, SettingError
from stratoscope.numerics.matrices import at_least_float32, not_finite, singular_values

if TYPE_CHECKING:
    from stratoscope.network.layers import Layer

VIEWS = ("matrix",)


@dataclass(frozen=True)
class Tensors(Mapping[str, Tensor]):
    """Tensors by name, in float32 at least, and the type that each is stored in.

    Attributes:
        tensors: the tensors; not to be written to.
        stored: for each, its type before it was widened, which bounds how precise it can be.
    """

    tensors: Mapping[str, Tensor]
    stored: Mapping[str, torch.dtype]

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)


@dataclass(frozen=True)
class Weights(Derived):
    """A layer's own params, running statistics left out. The value is a `Tensors`, by the params' exact keys."""

    def derive(self, layer: Layer, ask: Callable[[Need], Any], load: Callable[[str], Any]) -> Tensors:
        """Load them.

        Raises:
            NotApplicable: if the layer has no params, or none that can be read; says why.
        """
        own = [param for param in layer.params if param.role != "statistic"]
        loaded: dict[str, Tensor] = {param.name: load(param.name) for param in own if not param.reason}
        if not loaded:
            raise NotApplicable(next((param.reason for param in own), "the layer has no weights of its own"))
        return Tensors(
            {name: at_least_float32(tensor) for name, tensor in loaded.items()},
            {name: tensor.dtype for name, tensor in loaded.items()},
        )


@dataclass(frozen=True)
class Matrices(Derived):
    """A layer's weight matrices in two dimensions. The value is a `Tensors`, by the matrices' names.

    Attributes:
        view: `"matrix"`: outputs by inputs; a convolution's inputs are input channels x kernel.
    """

    view: str = "matrix"

    def __post_init__(self) -> None:
        _check_view(self)

    def derive(self, layer: Layer, ask: Callable[[Need], Any], load: Callable[[str], Any]) -> Tensors:
        """View the params as matrices; a product or a norm of several params counts as float32.

        Raises:
            NotApplicable: if the layer has no weight matrix.
        """
        if not layer.matrices:
            raise NotApplicable("the layer has no weight matrix")
        own: Tensors = ask(Weights())
        matrices, stored = {}, {}
        for matrix in layer.matrices:
            # an adapter's second param lies in another layer
            parts = [own[key] if key in own else at_least_float32(load(key)) for key in matrix.params]
            matrices[matrix.name] = matrix.view(*parts)
            alone = len(parts) == 1 and matrix.params[0] in own
            stored[matrix.name] = own.stored[matrix.params[0]] if alone else matrices[matrix.name].dtype
        return Tensors(matrices, stored)


@dataclass(frozen=True)
class SingularValues(Derived):
    """All singular values of each of a layer's matrices, descending, in float64, by the matrices' names.

    Shared by every instrument that looks at spectra, so that a matrix is decomposed once. A matrix with an entry that
    is not finite has NaN for each of its singular values; an empty one has none.

    Attributes:
        view: how the params are seen as matrices, as in `Matrices`.
    """

    view: str = "matrix"

    def __post_init__(self) -> None:
        _check_view(self)

    def derive(
        self, layer: Layer, ask: Callable[[Need], Any], load: Callable[[str], Any]
    ) -> dict[str, Float[Tensor, " k"]]:
        """Decompose each matrix.

        Raises:
            NotApplicable: if the layer has no weight matrix.
        """
        matrices: Tensors = ask(Matrices(self.view))
        return {name: _spectrum(matrix) for name, matrix in matrices.items()}


def _spectrum(matrix: Tensor) -> Tensor:
    if matrix.numel() == 0 or not_finite(matrix):
        return torch.full((min(matrix.shape),), torch.nan, dtype=torch.float64)
    return singular_values(matrix).cpu()


def _check_view(need: Matrices | SingularValues) -> None:
    if need.view not in VIEWS:
        raise SettingError(f"{type(need).__name__}(view={need.view!r}): choose one of {', '.join(VIEWS)}.")
