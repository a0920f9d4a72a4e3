"""Tensors that lie in pieces in several files, put together one at a time."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stratoscope.errors import OpenError
from stratoscope.network.weights import MUCH, TensorInfo, WeightSource, readable

_MOST_PIECES = 65_536


@dataclass(frozen=True)
class Piece:
    """A block of a tensor: where it begins in the tensor, its sizes, and the part of a file that holds it.

    `packed` names how the part is compressed or otherwise changed; empty if it is not.
    """

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    file: Path
    start: int = 0
    length: int = 0
    packed: str = ""


class PiecedWeights(WeightSource):
    """Tensors made of blocks.

    Args:
        infos: what is known of each tensor.
        pieces: the blocks of each.
        about: what this is, for people.
    """

    def __init__(self, infos: Mapping[str, TensorInfo], pieces: Mapping[str, Sequence[Piece]], about: str) -> None:
        self._pieces = pieces
        self._infos = {
            name: replace(info, reason=info.reason or why_no_whole(info.shape, pieces[name]))
            for name, info in infos.items()
        }
        self.about = about

    @abstractmethod
    def read(self, name: str, piece: Piece) -> Tensor:
        """The numbers of one block.

        Raises:
            OpenError: if they cannot be read.
        """

    def describe(self) -> Mapping[str, TensorInfo]:
        """In the order of the description."""
        return self._infos

    def load(self, name: str) -> Tensor:
        """Read one tensor, block by block."""
        shape, dtype = readable(self._infos, name, self.about)
        whole: Tensor | None = None
        for piece in self._pieces[name]:
            block = self.read(name, piece)
            if tuple(block.shape) != piece.sizes or block.dtype != dtype:
                raise OpenError(
                    f"A piece of {name!r} in {piece.file} is {block.dtype} of sizes {tuple(block.shape)}, where "
                    f"{dtype} of {piece.sizes} should be; copy the checkpoint again."
                )
            if piece.sizes == shape:
                return block.detach()
            if whole is None:
                whole = torch.zeros(shape, dtype=dtype)
            places = zip(piece.offsets, piece.sizes, strict=True)
            whole[tuple(slice(offset, offset + size) for offset, size in places)] = block
        return torch.zeros(shape, dtype=dtype) if whole is None else whole


def why_no_whole(shape: Sequence[int], pieces: Sequence[Piece]) -> str:
    """Why blocks do not make up a tensor, each of its numbers once; empty if they do.

    >>> halves = [Piece((0,), (2,), Path("a")), Piece((2,), (2,), Path("b"))]
    >>> why_no_whole((4,), halves), why_no_whole((4,), halves[:1])
    ('', 'its pieces hold 2 of its 4 numbers')
    """
    if len(pieces) > _MOST_PIECES:
        return f"it is in {len(pieces)} pieces, more than {_MOST_PIECES}"
    if any(len(piece.offsets) != len(shape) or len(piece.sizes) != len(shape) for piece in pieces):
        return "its pieces have another number of axes"
    there, count = sum(prod(piece.sizes) for piece in pieces), prod(shape)
    if there != count:
        return f"its pieces hold {there} of its {count} numbers"
    if not shape or count == 0:
        return ""
    starts = np.array([piece.offsets for piece in pieces if prod(piece.sizes)], dtype=np.int64)
    stops = starts + np.array([piece.sizes for piece in pieces if prod(piece.sizes)], dtype=np.int64)
    if (stops > np.array(shape)).any():
        return "its pieces lie beyond its sizes"
    for at in range(len(starts) - 1):  # two blocks overlap if they do along every axis
        later = slice(at + 1, None)
        if ((starts[later] < stops[at]) & (starts[at] < stops[later])).all(axis=1).any():
            return "its pieces overlap"
    return ""


def claims_more(info: TensorInfo, pieces: Sequence[Piece]) -> str:
    """Why a tensor is larger than its pieces' parts of files could honestly hold; empty if it is not."""
    size = prod(info.shape) * (info.dtype.itemsize if info.dtype is not None else 0)
    stored = sum(piece.length for piece in pieces)
    return f"it claims {size} bytes but stores {stored}" if size > MUCH and size > stored else ""
