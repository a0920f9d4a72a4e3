"""Weights kept beside a run, and the fingerprint of weights."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from stratoscope.errors import OpenError
from stratoscope.network.modes import as_umask_says
from stratoscope.network.stores import SafetensorsFile
from stratoscope.network.weights import ModuleWeights, StateDict, WeightSource

Savable = nn.Module | Mapping[str, Tensor] | WeightSource
_CHUNK = 1 << 22
_NOT_STORED = (torch.complex128, torch.complex32)


def save_snapshot(weights: Savable, path: str | Path) -> dict[str, str]:
    """Write weights to one safetensors file, which is there whole or not at all.

    Parameters and persistent buffers are kept under their exact keys. Tensors that are tied are stored once; the file's
    metadata names the others, in the way of `safetensors.torch.save_model`.

    Args:
        weights: a module, a state dict, or any source of weights.
        path: the file to write; an older one is replaced.

    Returns:
        The tensors that could not be stored (lazy, meta, complex double), and why.

    Raises:
        OpenError: if the file cannot be written.
    """
    source = as_source(weights)
    kept: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    left: dict[str, str] = {}
    for name, info in source.describe().items():
        if info.role == "transient":
            continue
        if info.reason or info.dtype in _NOT_STORED:
            left[name] = info.reason or f"stored as {info.dtype}, which safetensors has not"
        elif info.same_as in kept:
            aliases[name] = info.same_as
        else:
            kept[name] = _own_memory(source.load(name))
    _write_whole(lambda file: save_file(_apart(kept), str(file), metadata=aliases or None), Path(path))
    return left


def copy_snapshot(source: str | Path, path: str | Path, about: Mapping[str, str]) -> None:
    """Copy a safetensors file and say something about it in its metadata, beside what they say already.

    The tensors go from file to file, so this takes no memory. The new file is there whole or not at all.

    Args:
        source: the file to copy.
        path: the file to write; an older one is replaced.
        about: what to add to the metadata.

    Raises:
        OpenError: if the one cannot be read, or the other not written.
    """

    def write(unfinished: Path) -> None:
        with Path(source).open("rb") as old, unfinished.open("wb") as new:
            header = json.loads(old.read(int.from_bytes(old.read(8), "little")))
            header["__metadata__"] = {**header.get("__metadata__", {}), **about}
            text = json.dumps(header, separators=(",", ":")).encode()
            text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8
            new.write(len(text).to_bytes(8, "little") + text)
            shutil.copyfileobj(old, new, _CHUNK)

    _write_whole(write, Path(path))


def about_snapshot(path: str | Path) -> dict[str, str]:
    """What the metadata of a safetensors file say beside the names of tied tensors.

    Raises:
        OpenError: if there is no such file, or it is damaged.
    """
    source = open_snapshot(path)
    assert isinstance(source, SafetensorsFile)
    return {key: text for key, text in source.metadata.items() if key not in source.describe()}


def open_snapshot(path: str | Path) -> WeightSource:
    """Open what `save_snapshot` wrote, memory-mapped.

    Raises:
        OpenError: if there is none, or it is damaged.
    """
    if not Path(path).is_file():
        raise OpenError(f"There is no snapshot {str(path)!r}.")
    return SafetensorsFile(Path(path))


def as_source(weights: Savable) -> WeightSource:
    """A module or a state dict as a source of weights."""
    if isinstance(weights, WeightSource):
        return weights
    return ModuleWeights(weights) if isinstance(weights, nn.Module) else StateDict(weights)


def digest(weights: Savable) -> str:
    """A fingerprint of weights: SHA-256 over every name, type, shape and byte, in the order of names.

    Equal for a module, its state dict and a file of it, however tensors are tied; buffers that no state dict holds do
    not count. A tensor that cannot be read counts by its name, type and shape. One tensor is in memory at a time.

    >>> digest({"a": torch.zeros(2)}) == digest({"a": torch.zeros(2)}), digest({"a": torch.zeros(2)})[:8]
    (True, '3c568c79')
    """
    source = as_source(weights)
    infos = source.describe()
    found = hashlib.sha256()
    for name in sorted(name for name, info in infos.items() if info.role != "transient"):
        info = infos[name]
        found.update(f"{name}\0{info.dtype}\0{info.shape}\0{bool(info.reason)}\0".encode())
        if not info.reason:
            found.update(_bytes(source.load(name)))
    return found.hexdigest()


def _bytes(tensor: Tensor) -> memoryview:
    flat = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous().reshape(-1)
    flat = flat.as_strided(flat.shape, (1,))  # a lone number may keep any stride
    return flat.view(torch.uint8).numpy().data if flat.numel() else memoryview(b"")


def _own_memory(tensor: Tensor) -> Tensor:
    """The tensor in main memory, alone in its storage, as safetensors wants it."""
    tensor = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous()
    alone = tensor.untyped_storage().nbytes() == tensor.numel() * tensor.dtype.itemsize
    return tensor if alone else tensor.clone()


def _write_whole(write: Callable[[Path], None], path: Path) -> None:
    """Write a file that is there whole or not at all, also after a loss of power."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(unfinished)
        with unfinished.open("rb+") as file:
            os.fsync(file.fileno())
        as_umask_says(unfinished)
        unfinished.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except Exception as error:
        raise OpenError(f"The weights cannot be written to {path} ({error}).") from error
    finally:
        unfinished.unlink(missing_ok=True)


def _apart(kept: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copies where two tensors see the same memory in different ways."""
    seen: set[int] = set()
    apart: dict[str, Tensor] = {}
    for name, tensor in kept.items():
        address = tensor.untyped_storage().data_ptr()
        apart[name] = tensor.clone() if address in seen and address else tensor
        seen.add(address)
    return apart
