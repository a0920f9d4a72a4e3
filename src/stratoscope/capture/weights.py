"""Needs that are filled from weights alone: the params of a layer, its matrices, and their singular values."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from stratoscope.capture.needs import Derived, Need
from stratoscope.capture.tensors import MatrixTensors, Tensors
from stratoscope.errors import NotApplicable, SettingError
from stratoscope.numerics.convolution import circular_singular_values, kernel_slices
from stratoscope.numerics.lanczos import SpectralSketch, gram_product, sketch
from stratoscope.numerics.matrices import (
    largest_entry,
    not_finite,
    power_of_two,
    singular_values,
    singular_values_of_product,
    slice_singular_values,
    squared_norm,
)

if TYPE_CHECKING:
    from stratoscope.network.layers import Layer, Matrix

VIEWS = ("matrix", "slices", "operator")
"""How a convolution's spectrum may be taken; everything else is one matrix in each.

* `"matrix"`: outputs by inputs x kernel.
* `"slices"`: one matrix of outputs by inputs for each place of the kernel (and each group), their spectra pooled, as
  WeightWatcher takes them; it multiplies the entries by `(places / 2)^(1/2)` besides, which is not done here.
* `"operator"`: the linear map on images that wrap around, of stride 1 and twice the kernel's length along each axis.
  The spectra of all its frequencies are pooled. On such images the trace of `W W^T` and of its square is, per pixel,
  that of an endless image.
"""

EXACT_UP_TO = 8192
"""Longest shorter side of a matrix of which every singular value is computed."""


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
        return Tensors(loaded, {name: tensor.dtype for name, tensor in loaded.items()})


@dataclass(frozen=True)
class Matrices(Derived):
    """A layer's weight matrices in two dimensions. The value is a `Tensors`, by the matrices' names.

    Attributes:
        view: `"matrix"`: outputs by inputs; a convolution's inputs are input channels x kernel.
    """

    view: str = "matrix"

    def __post_init__(self) -> None:
        _check_view(self, VIEWS[:1])

    def derive(self, layer: Layer, ask: Callable[[Need], Any], load: Callable[[str], Any]) -> Tensors:
        """View the params as matrices; a product or a norm of several params counts as float32.

        Raises:
            NotApplicable: if the layer has no weight matrix.
        """
        if not layer.matrices:
            raise NotApplicable("the layer has no weight matrix")
        own: Tensors = ask(Weights())
        # a product's second param lies in another layer
        keys = dict.fromkeys(key for matrix in layer.matrices for key in matrix.params)
        parts = {key: own.as_stored(key) if key in own else load(key) for key in keys}
        made = MatrixTensors.of(layer.matrices, parts)
        return Tensors(made, {name: made.stored(name) for name in made})


@dataclass(frozen=True, eq=False)
class Decomposition:
    """The singular values of one matrix, or the sketch of their squares, and whose they are.

    Attributes:
        values: singular values, descending, in float64; of a sketch the largest alone. NaN if an entry is not finite.
        rows: the shorter side.
        columns: the longer side.
        copies: how many matrices are pooled.
        law: what the spectrum would be without learning; see `Spectrum`.
        rank: largest rank that its making allows where that is below `rows`, else `None`.
        trace: the sum of all squared singular values.
        sketch: the rest of a sketch, of eigenvalues over `scale` squared; `None` where all values are there.
        scale: a power of two.
    """

    values: Float[Tensor, " k"]
    rows: int
    columns: int
    copies: int = 1
    law: str = "entries"
    rank: int | None = None
    trace: float = math.nan
    sketch: SpectralSketch | None = None
    scale: float = 1.0


@dataclass(frozen=True)
class Decompositions(Derived):
    """A `Decomposition` of each of a layer's matrices by its name; `SingularValues` and `Spectra` share it.

    Attributes:
        view: one of `VIEWS`.
        exact_up_to: longest shorter side of a matrix of which every singular value is computed; of a longer one the
            largest are, and the others are sketched.
    """

    view: str = "matrix"
    exact_up_to: int = EXACT_UP_TO

    def __post_init__(self) -> None:
        _check_view(self, VIEWS)

    def derive(self, layer: Layer, ask: Callable[[Need], Any], load: Callable[[str], Any]) -> dict[str, Decomposition]:
        """Decompose each matrix once.

        Raises:
            NotApplicable: if the layer has no weight matrix.
        """
        made = ask(Matrices()).tensors
        assert isinstance(made, MatrixTensors)
        return {name: self._decompose(made, name) for name in made}

    def _decompose(self, made: MatrixTensors, name: str) -> Decomposition:
        matrix = made.matrices[name]
        kernel = made.kernel(name) if self.view != "matrix" else None
        if kernel is not None:
            return _of_kernel(kernel, matrix, self.view)
        factors = made.factors(name)
        parts = factors or (made[name],)
        short, long = sorted(matrix.shape)
        known = partial(Decomposition, rows=short, columns=long, law=matrix.law, rank=matrix.rank)
        if any(part.numel() == 0 or not_finite(part) for part in parts):
            return known(torch.full((short,), torch.nan, dtype=torch.float64))
        if factors is None and short > self.exact_up_to:
            return _sketched(made[name], name, known)
        values = singular_values(parts[0]) if factors is None else singular_values_of_product(*factors)
        return known(values.cpu(), trace=float(values.square().sum()))


@dataclass(frozen=True)
class SingularValues(Derived):
    """All singular values of each of a layer's matrices, descending, in float64, by the matrices' names.

    Shared by every instrument that looks at spectra, so that a matrix is decomposed once. A matrix with an entry that
    is not finite has NaN for each of its singular values; an empty one has none. Of a matrix whose shorter side is
    beyond 8192 only the largest ones are there, converged; `Spectra` knows how the others are spread.

    Attributes:
        view: how the params are seen as matrices: one of `VIEWS`. The values of a convolution's slices, or of all
            frequencies of its map on images, are pooled.
    """

    view: str = "matrix"

    def __post_init__(self) -> None:
        _check_view(self, VIEWS)

    def derive(
        self, layer: Layer, ask: Callable[[Need], Any], load: Callable[[str], Any]
    ) -> dict[str, Float[Tensor, " k"]]:
        """Decompose each matrix.

        Raises:
            NotApplicable: if the layer has no weight matrix.
        """
        found: dict[str, Decomposition] = ask(Decompositions(self.view))
        return {name: decomposition.values for name, decomposition in found.items()}


def _of_kernel(kernel: Tensor, matrix: Matrix, view: str) -> Decomposition:
    """The pooled singular values of a convolution's slices, or of its map on images."""
    groups = matrix.groups
    short, long = sorted((kernel.shape[0] // groups, kernel.shape[1]))
    sizes = tuple(2 * length for length in matrix.kernel) if view == "operator" else matrix.kernel
    copies = groups * prod(sizes)
    if kernel.numel() == 0 or not_finite(kernel):
        values = torch.full((short * copies,), torch.nan, dtype=torch.float64)
    elif view == "operator":
        values = circular_singular_values(kernel, sizes, groups=groups).cpu()
    else:
        values = slice_singular_values(kernel_slices(kernel, groups)).cpu()
    law = "operator" if view == "operator" else matrix.law
    return Decomposition(values, short, long, copies, law, trace=float(values.square().sum()))


def _sketched(matrix: Tensor, name: str, known: Callable[..., Decomposition]) -> Decomposition:
    tall = matrix.T if matrix.shape[0] < matrix.shape[1] else matrix
    scale = power_of_two(largest_entry(tall))
    found = sketch(gram_product(tall, scale), tall.shape[1], generator=named_generator(name, tuple(matrix.shape)))
    rest = found if len(found.nodes) else None  # nothing is left where all were found
    return known(found.top.sqrt() * scale, trace=squared_norm(tall), sketch=rest, scale=scale)


def named_generator(*key: Hashable) -> torch.Generator:
    """A generator on the CPU whose seed follows from the key's text alone, on every machine."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big", signed=True))


def _check_view(need: Matrices | Decompositions | SingularValues, views: Sequence[str]) -> None:
    if need.view not in views:
        raise SettingError(f"{type(need).__name__}(view={need.view!r}): choose one of {', '.join(views)}.")
