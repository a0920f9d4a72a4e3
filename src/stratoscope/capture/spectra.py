"""The need for whole spectra: eigenvalues of every matrix of a layer, and of seeded shuffles of its entries."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from stratoscope.capture.needs import Derived, Need
from stratoscope.capture.weights import VIEWS, Matrices, SingularValues, Tensors
from stratoscope.errors import SettingError
from stratoscope.numerics.matrices import gram_eigenvalues
from stratoscope.numerics.spectrum import Spectrum

if TYPE_CHECKING:
    from stratoscope.network.layers import Layer


@dataclass(frozen=True)
class Spectra(Derived):
    """The spectrum of each of a layer's matrices: a `Spectrum` by the matrix's name.

    It shares its decompositions with `SingularValues` of the same view, so a matrix is decomposed once.

    Attributes:
        view: how the params are seen as matrices, as in `Matrices`.
        shuffles: how many times the entries are shuffled and decomposed again; each costs about one decomposition.
        seed: of the shuffles; the same seed and matrix (its name and shape) always give the same ones.
        exact_up_to: longest shorter side of a matrix whose eigenvalues are all computed.
    """

    view: str = "matrix"
    shuffles: int = 0
    seed: int = 0
    exact_up_to: int = 8192

    def __post_init__(self) -> None:
        if self.view not in VIEWS:
            raise SettingError(f"Spectra(view={self.view!r}): choose one of {', '.join(VIEWS)}.")
        if self.shuffles < 0:
            raise SettingError(f"Spectra(shuffles={self.shuffles}): a number of shuffles is 0 or more.")

    def derive(self, layer: Layer, ask: Callable[[Need], Any], load: Callable[[str], Any]) -> dict[str, Spectrum]:
        """Square the singular values of each matrix, and decompose its shuffles.

        Raises:
            NotApplicable: if the layer has no weight matrix.
        """
        values: dict[str, Tensor] = ask(SingularValues(self.view))
        matrices: Tensors = ask(Matrices(self.view))
        return {name: self._spectrum(name, matrix, values[name]) for name, matrix in matrices.items()}

    def _spectrum(self, name: str, matrix: Tensor, singular: Tensor) -> Spectrum:
        eigenvalues = singular.square().numpy()
        finite = bool(np.isfinite(eigenvalues).all()) and matrix.numel() > 0
        shuffled = tuple(
            gram_eigenvalues([_tall_shuffle(matrix, self.seed, number, name)]).numpy()
            for number in range(self.shuffles if finite else 0)
        )
        short, long = sorted(matrix.shape)
        return Spectrum(eigenvalues, short, long, trace=float(eigenvalues.sum()), shuffled=shuffled)


def _tall_shuffle(matrix: Tensor, seed: int, number: int, name: str) -> Tensor:
    """The same entries in an order that the seed, the matrix's name and its shape decide."""
    key = f"{seed} {number} {name} {tuple(matrix.shape)}"
    digest = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big", signed=True)
    order = torch.randperm(matrix.numel(), generator=torch.Generator().manual_seed(digest))
    return matrix.reshape(-1)[order.to(matrix.device)].reshape(max(matrix.shape), min(matrix.shape))
