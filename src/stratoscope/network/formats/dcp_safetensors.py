"""Folders of `torch.distributed.checkpoint` in which each process wrote its blocks as a safetensors file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from stratoscope.errors import OpenError
from stratoscope.network.formats._format import Format
from stratoscope.network.formats._raw import stored_sizes
from stratoscope.network.formats._shards import Piece, PiecedWeights
from stratoscope.network.stores import SafetensorsFile
from stratoscope.network.weights import TensorInfo, WeightSource

_SHARD = re.compile(r"^shard-\d+-model-\d+-of-\d+\.safetensors$")


class _SafetensorsPieces(PiecedWeights):
    """Blocks that are tensors of safetensors files."""

    def read(self, name: str, piece: Piece) -> Tensor:
        """One block."""
        return SafetensorsFile(piece.file).load(name)


def open_safetensors_shards(folder: Path) -> WeightSource:
    """Open a folder that `HuggingFaceStorageWriter` wrote without consolidating it.

    Raises:
        OpenError: if a file is damaged or does not say where its blocks belong.
    """
    pieces: dict[str, list[Piece]] = {}
    dtypes: dict[str, TensorInfo] = {}
    files = _shards(folder)
    for path in files:
        for name, info, piece in _pieces_of(path):
            pieces.setdefault(name, []).append(piece)
            first = dtypes.setdefault(name, info)
            if first.dtype != info.dtype or len(first.shape) != len(info.shape):
                raise OpenError(
                    f"{folder} holds several checkpoints: the pieces of {name!r} do not fit; name one file."
                )
    infos = {
        name: TensorInfo(_extent(each), dtypes[name].dtype, reason=dtypes[name].reason) for name, each in pieces.items()
    }
    return _SafetensorsPieces(infos, pieces, f"{len(infos)} tensors in {len(files)} files of the checkpoint {folder}")


def _shards(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file() and _SHARD.match(path.name))


def _pieces_of(path: Path) -> Iterator[tuple[str, TensorInfo, Piece]]:
    source = SafetensorsFile(path)
    try:
        places = json.loads(source.metadata["DCP_SHARDING_INFO"])
        for name, info in source.describe().items():
            offsets = stored_sizes(places[name]["saved_offsets"])
            if offsets is None or len(offsets) != len(info.shape):
                raise ValueError(f"the place of {name!r} is none")
            yield name, info, Piece(offsets, info.shape, path)
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise OpenError(f"{path} does not say where its pieces of tensors belong ({error!r}).") from None


def _extent(pieces: list[Piece]) -> tuple[int, ...]:
    """The sizes of the whole, which no file says: as far as its blocks reach."""
    ends = [[start + size for start, size in zip(piece.offsets, piece.sizes, strict=True)] for piece in pieces]
    return tuple(max(end) for end in zip(*ends, strict=True))


FORMAT = Format(
    "distributed safetensors checkpoint", (), open_safetensors_shards, is_folder=lambda folder: bool(_shards(folder))
)
