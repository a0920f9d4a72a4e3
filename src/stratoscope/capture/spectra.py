"""The need for whole spectra: eigenvalues of every matrix of a layer, and of seeded shuffles of its entries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from stratoscope.capture.needs import Derived, Need
from stratoscope.capture.tensors import MatrixTensors
from stratoscope.capture.weights import EXACT_UP_TO, VIEWS, Decomposition, Decompositions, Matrices, named_generator
from stratoscope.errors import SettingError
from stratoscope.numerics.matrices import (
    gram_eigenvalues,
    in_memory_order,
    largest_entry,
    power_of_two,
    slice_singular_values,
)
from stratoscope.numerics.shuffle import shuffled_rows
from stratoscope.numerics.spectrum import Spectrum

if TYPE_CHECKING:
    from stratoscope.network.layers import Layer


@dataclass(frozen=True)
class Spectra(Derived):
    """The spectrum of each of a layer's matrices: a `Spectrum` by the matrix's name.

    It shares its decompositions with `SingularValues` of the same view, so a matrix is decomposed once.

    Attributes:
        view: how the params are seen as matrices: one of `VIEWS`.
        shuffles: how many times the entries are shuffled and decomposed again; each costs about one decomposition. The
            entries of a convolution are shuffled over its whole kernel. Products, maps on images and sketches have no
            shuffles.
        seed: of the shuffles; the same seed and matrix (its name and shape) always give the same ones.
        exact_up_to: longest shorter side of a matrix whose eigenvalues are all computed; of a longer one they are
            sketched.
    """

    view: str = "matrix"
    shuffles: int = 0
    seed: int = 0
    exact_up_to: int = EXACT_UP_TO

    def __post_init__(self) -> None:
        if self.view not in VIEWS:
            raise SettingError(f"Spectra(view={self.view!r}): choose one of {', '.join(VIEWS)}.")
        if self.shuffles < 0:
            raise SettingError(f"Spectra(shuffles={self.shuffles}): a number of shuffles is 0 or more.")
        if self.exact_up_to < 1:
            raise SettingError(f"Spectra(exact_up_to={self.exact_up_to}): a size is 1 or more.")

    def derive(self, layer: Layer, ask: Callable[[Need], Any], load: Callable[[str], Any]) -> dict[str, Spectrum]:
        """Square the singular values of each matrix, and decompose its shuffles.

        Raises:
            NotApplicable: if the layer has no weight matrix.
        """
        found: dict[str, Decomposition] = ask(Decompositions(self.view, self.exact_up_to))
        matrices = ask(Matrices()).tensors
        return {name: self._spectrum(known, name, matrices) for name, known in found.items()}

    def _spectrum(self, known: Decomposition, name: str, matrices: MatrixTensors) -> Spectrum:
        eigenvalues: Float64[np.ndarray, " k"] = known.values.square().numpy()
        if known.rank is not None:
            eigenvalues = eigenvalues[: known.rank]
        spectrum = Spectrum(
            eigenvalues, known.rows, known.columns, known.copies, known.law, known.rank, trace=known.trace
        )
        if known.sketch is not None:
            return replace(
                spectrum,
                how="sketch",
                error=known.sketch.error,
                nodes=known.sketch.nodes.numpy() * known.scale**2,
                node_weights=known.sketch.weights.numpy(),
            )
        if not np.isfinite(known.trace) or known.law in ("product", "operator"):
            return spectrum
        shuffled = tuple(self._shuffled(matrices[name], known, name, number) for number in range(self.shuffles))
        return replace(spectrum, shuffled=shuffled)

    def _shuffled(self, matrix: Tensor, known: Decomposition, name: str, number: int) -> Float64[np.ndarray, " k"]:
        """The eigenvalues after one shuffle; of pooled matrices all of them."""
        generator = named_generator(self.seed, number, name, tuple(matrix.shape))
        scale = power_of_two(largest_entry(matrix))
        rows = shuffled_rows(in_memory_order(matrix), known.rows, generator=generator)
        if known.copies == 1:
            return gram_eigenvalues(rows, scale).cpu().numpy()
        stack = torch.cat(list(rows)).view(known.copies, known.columns, known.rows)
        return slice_singular_values(stack).square().cpu().numpy()
