"""How much work a network's layers are, so that a bar of progress moves evenly and can say how long the rest takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

from stratoscope.network.layers import Layer, Matrix
from stratoscope.network.weights import TensorInfo

WIDEST = 2000
"""A decomposition costs numbers times the shorter side; beyond this many rows a spectrum is sketched instead."""

UNIT = 1 << 20
"""Multiplications that count as one unit of work; each layer is one unit at least."""


@dataclass(frozen=True)
class Effort:
    """Work and bytes of each layer.

    Attributes:
        names: what is read first of each layer.
        work: units of work of each layer.
        nbytes: stored bytes of each layer's own tensors.
    """

    names: tuple[str, ...]
    work: tuple[int, ...]
    nbytes: tuple[int, ...]

    @classmethod
    def of(cls, layers: Sequence[Layer], infos: Mapping[str, TensorInfo]) -> Effort:
        """Estimate it from shapes and types alone.

        Args:
            layers: in the order in which they are measured.
            infos: what is known of the stored tensors, by name.
        """
        return cls(
            tuple(_first_name(layer) for layer in layers),
            tuple(1 + sum(_cost(matrix) for matrix in layer.matrices) // UNIT for layer in layers),
            tuple(sum(_bytes(infos.get(param.name)) for param in layer.params) for layer in layers),
        )

    @property
    def total(self) -> int:
        """Units of work of all layers."""
        return sum(self.work)

    def before(self, number: int) -> tuple[str, int, int]:
        """What to tell when a layer begins: its tensor and the megabytes so far, the work done, and all there is.

        >>> Effort(("fc", "out"), (9, 1), (3 << 20, 1 << 20)).before(1)
        ('out, 3 of 4 MB', 9, 10)
        """
        megabytes = [round(sum(some) / 2**20) for some in (self.nbytes[:number], self.nbytes)]
        so_far = f", {megabytes[0]:,} of {megabytes[1]:,} MB" if megabytes[1] else ""
        return self.names[number] + so_far, sum(self.work[:number]), self.total


def _first_name(layer: Layer) -> str:
    names = [matrix.name for matrix in layer.matrices] or [param.name for param in layer.params]
    return names[0] if names else layer.name


def _cost(matrix: Matrix) -> int:
    return prod(matrix.shape) * min(*matrix.shape, matrix.rank or WIDEST, WIDEST)


def _bytes(info: TensorInfo | None) -> int:
    if info is None or info.dtype is None or info.same_as is not None:
        return 0
    return prod(info.shape) * info.dtype.itemsize
