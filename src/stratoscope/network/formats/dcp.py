"""Folders of `torch.distributed.checkpoint`, whose description is read as data and never unpickled."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stratoscope.errors import OpenError
from stratoscope.network.formats._format import Format
from stratoscope.network.formats._pickled import Made, Name, read_pickle
from stratoscope.network.formats._raw import MAX_INDEX, read_range, stored_sizes
from stratoscope.network.formats._shards import Piece, PiecedWeights, claims_more
from stratoscope.network.placing import plain_name
from stratoscope.network.stores import first_line, listed, printable
from stratoscope.network.torchfile import OTHERS, USUAL_KEYS
from stratoscope.network.weights import TensorInfo, WeightSource
from stratoscope.network.zipcheck import check_zip_file

METADATA = ".metadata"
_HOME = "torch.distributed.checkpoint"
_ADMITTED = frozenset(
    {
        "collections.OrderedDict",
        "pathlib.Path",
        "pathlib.PosixPath",
        "pathlib.PurePosixPath",
        "pathlib.PureWindowsPath",
        "pathlib.WindowsPath",
        "pathlib._local.PosixPath",
        "pathlib._local.WindowsPath",
        "torch.Size",
        "torch.serialization._get_layout",
        "torch.distributed._shard.sharded_tensor.metadata.MEM_FORMAT_ENCODING",
        "torch.distributed._shard.sharded_tensor.metadata.TensorProperties",
        f"{_HOME}.filesystem._StorageInfo",
        f"{_HOME}.filesystem._StoragePrefix",
        f"{_HOME}.metadata._MEM_FORMAT_ENCODING",
        f"{_HOME}.metadata.BytesStorageMetadata",
        f"{_HOME}.metadata.ChunkStorageMetadata",
        f"{_HOME}.metadata.Metadata",
        f"{_HOME}.metadata.MetadataIndex",
        f"{_HOME}.metadata.StorageMeta",
        f"{_HOME}.metadata.TensorProperties",
        f"{_HOME}.metadata.TensorStorageMetadata",
    }
)
"""All that the description of a checkpoint may name beside torch's types of numbers; none of it is imported."""


class DistributedWeights(PiecedWeights):
    """Tensors of a distributed checkpoint."""

    def read(self, name: str, piece: Piece) -> Tensor:
        """One block, which is a torch file within a file of the checkpoint."""
        where = f"A piece of {name!r} in {piece.file}"
        blob = io.BytesIO(read_range(piece.file, piece.start, piece.length))
        check_zip_file(blob, where)
        blob.seek(0)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of torch's own storage classes
                block = torch.load(blob, map_location="cpu", weights_only=True)
        except Exception as error:  # a damaged pickle can fail in any way
            raise OpenError(f"{where} cannot be read ({first_line(error)}); nothing in it was run.") from None
        if not isinstance(block, Tensor):
            raise OpenError(f"{where} is no tensor but a {type(block).__name__}.")
        return block


def open_distributed(folder: Path) -> WeightSource:
    """Open a folder that `torch.distributed.checkpoint.save` wrote.

    Raises:
        OpenError: if its description is damaged, names what it has no use for, or files are missing.
    """
    metadata = _metadata(folder / METADATA)
    tensors, paths = metadata.get("state_dict_metadata"), metadata.get("planner_data")
    if not isinstance(tensors, dict):
        raise OpenError(f"{folder / METADATA} describes no tensors; was it written by torch.distributed.checkpoint?")
    paths = paths if isinstance(paths, dict) else {}
    kept, left = _weights_among(tensors, paths)
    if not kept:
        raise OpenError(f"{folder} holds no weights; it holds {listed(left) or 'nothing'}.")
    try:
        stored = dict(_stored(folder, metadata.get("storage_data")))
    except (TypeError, ValueError, AttributeError) as error:
        raise OpenError(f"{folder / METADATA} is refused: {error}.") from None
    pieces = {name: _pieces(key, tensors[key], stored) for name, key in kept.items()}
    missing = sorted({piece.file.name for each in pieces.values() for piece in each if not piece.file.is_file()})
    if missing:
        raise OpenError(f"{folder} names {len(missing)} files that are not there: {listed(missing)}; copy them too.")
    infos = {name: _info(tensors[key], pieces[name]) for name, key in kept.items()}
    about = f"{len(infos)} tensors in the distributed checkpoint {folder}"
    return DistributedWeights(infos, pieces, about + (f" (left out: {listed(left)})" if left else ""))


def _metadata(path: Path) -> Made:
    if path.stat().st_size > MAX_INDEX:
        raise OpenError(f"{path} is refused: a description of more than {MAX_INDEX} bytes.")
    try:
        found = read_pickle(path.read_bytes(), _admits)
    except OpenError as error:
        raise OpenError(f"{path} is refused, and nothing in it was run: {error}.") from None
    if not isinstance(found, Made) or str(found.kind) != f"{_HOME}.metadata.Metadata":
        raise OpenError(f"{path} is no description of a distributed checkpoint.")
    return found


def _admits(name: Name) -> bool:
    return str(name) in _ADMITTED or _dtype(name) is not None


def _dtype(name: object) -> torch.dtype | None:
    found = torch.__dict__.get(name.name) if isinstance(name, Name) and name.module == "torch" else None
    return found if isinstance(found, torch.dtype) else None


def _weights_among(tensors: Mapping[Any, Any], paths: Mapping[Any, Any]) -> tuple[dict[str, str], list[str]]:
    """The key of each tensor of the model by its name, and the outermost names of what is left out."""
    kept: dict[str, tuple[str, ...]] = {}
    left: dict[str, None] = {}
    for key, meta in tensors.items():
        path = paths.get(key)
        path = tuple(str(part) for part in path) if isinstance(path, tuple) and path else (str(key),)
        outermost = path[0] if len(path) > 1 else path[0].partition(".")[0]
        tensor = isinstance(meta, Made) and meta.kind.name == "TensorStorageMetadata"
        if not tensor or (outermost != str(key) and OTHERS.search(outermost)):
            left[outermost] = None
        else:
            kept[str(key)] = path
    inner = {path[0] for path in kept.values() if len(path) > 1}
    weights = [name for name in USUAL_KEYS if name in inner]
    if weights:  # as in a torch file, the state dict of the model alone, by its own names
        left |= {path[0]: None for path in kept.values() if path[0] != weights[0]}
        kept = {key: path[1:] for key, path in kept.items() if path[0] == weights[0] and len(path) > 1}
    names = {".".join(path): key for key, path in kept.items()}
    return (names if len(names) == len(kept) else {key: key for key in kept}), list(left)


def _stored(folder: Path, data: object) -> Iterator[tuple[tuple[str, tuple[int, ...]], Piece]]:
    """Where each block lies, by the tensor's key and the block's place in it."""
    if not isinstance(data, dict):
        raise TypeError("it does not say where the tensors lie")
    for index, info in data.items():
        start, length = stored_sizes([info.get("offset"), info.get("length")]) or (-1, -1)
        if start < 0 or not isinstance(index.get("fqn"), str):
            raise ValueError("where a tensor lies is no place in a file")
        file = folder / plain_name(info.get("relative_path"))
        packed = ", ".join(printable(str(how), 40) for how in info.get("transform_descriptors") or ())
        yield (index.get("fqn"), _size(index.get("offset")) or ()), Piece((), (), file, start, length, packed)


def _pieces(key: str, meta: Made, stored: Mapping[tuple[str, tuple[int, ...]], Piece]) -> list[Piece]:
    found = []
    chunks = meta.get("chunks")
    for chunk in chunks if isinstance(chunks, list) else []:
        offsets, sizes = _size(chunk.get("offsets")), _size(chunk.get("sizes"))
        if offsets is None or sizes is None or (key, offsets) not in stored:
            raise OpenError(f"A piece of {key!r} is nowhere; copy the checkpoint again.")
        found.append(replace(stored[key, offsets], offsets=offsets, sizes=sizes))
    return found


def _info(meta: Made, pieces: list[Piece]) -> TensorInfo:
    properties = meta.get("properties")
    state = properties.state if isinstance(properties, Made) else None
    dtype = _dtype(state[0]) if isinstance(state, tuple) and state else None
    shape = _size(meta.get("size"))
    if dtype is None or shape is None:
        return TensorInfo(shape or (), dtype, reason="its type or sizes are not said")
    info = TensorInfo(shape, dtype)
    packed = next((piece.packed for piece in pieces if piece.packed), "")
    return replace(info, reason=f"its pieces are packed ({packed})" if packed else claims_more(info, pieces))


def _size(made: object) -> tuple[int, ...] | None:
    """The sizes that a `torch.Size` in the description has."""
    if not isinstance(made, Made) or str(made.kind) != "torch.Size" or len(made.args) != 1:
        return None
    return stored_sizes(made.args[0])


FORMAT = Format("distributed checkpoint", (), open_distributed, is_folder=lambda folder: (folder / METADATA).is_file())
