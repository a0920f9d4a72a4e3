"""Opening weights of any known format: files, sharded folders. No file is ever given code to run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from stratoscope.errors import OpenError
from stratoscope.network import formats
from stratoscope.network.others import refuse_other_file, refuse_other_folder
from stratoscope.network.placing import plain_name
from stratoscope.network.stores import SafetensorsFile, ShardedWeights, listed, some
from stratoscope.network.torchfile import OTHERS, open_torch
from stratoscope.network.weights import WeightSource

SAFETENSORS = (".safetensors",)
TORCH = (".pt", ".pth", ".bin", ".th", ".ckpt")
INDEX = ".index.json"
_MAX_INDEX = 256 * 2**20


def open_weights(path: str | Path, key: str | None = None) -> WeightSource:
    """Open weights without running anything that the file holds, and without reading them yet.

    Args:
        path: a `.safetensors` file; a folder or an `.index.json` of shards; a torch file (`.pt`, `.pth`, `.bin`, `.th`,
            `.ckpt`), read with `weights_only=True` alone; or a file or folder of one of the further formats, such as
            `.pt2`, `.onnx`, `.keras`, `.h5`, `.gguf`, `.npz`, and folders of `torch.distributed.checkpoint`.
        key: where in a torch file the weights are, such as `"ema.state_dict"`; found by itself if not given, and
            `source.about` says which was taken.

    Raises:
        OpenError: if there is nothing, nothing that this reads, or something damaged or unsafe.
        StratoscopeError: if an optional library is missing, with the line that installs it.
    """
    place = Path(path).expanduser()
    if not place.exists():
        raise OpenError(f"There is no file or folder {str(place)!r}; this runs in {Path.cwd()}.")
    if place.is_dir():
        return _open_folder(place, key)
    _refuse_odd(place)
    if place.name.endswith(INDEX):
        return _open_index(place)
    ending = place.suffix.lower()
    if ending in TORCH:
        return open_torch(place, key)
    if ending in SAFETENSORS:
        _refuse_key(place, key, "a safetensors file")
        return SafetensorsFile(place)
    found = formats.format_of_file(place)
    if found is None:
        refuse_other_file(place)
        known = ", ".join(endings())
        raise OpenError(f"{place} is of a kind that is not read here; weights can be opened from {known} or a folder.")
    _refuse_key(place, key, f"of the format {found.name}")
    return found.open(place)


def endings() -> tuple[str, ...]:
    """The endings, in lower case, of files that `open_weights` opens.

    >>> ".safetensors" in endings(), ".gguf" in endings()
    (True, True)
    """
    return (*SAFETENSORS, *TORCH, INDEX, *formats.endings())


def _refuse_key(place: Path, key: str | None, what: str) -> None:
    if key is not None:
        raise OpenError(f"{place} is {what}, which has no parts, so key={key!r} names nothing.")


def _open_folder(folder: Path, key: str | None) -> WeightSource:
    found = formats.format_of_folder(folder)
    if found is not None:
        _refuse_key(folder, key, f"of the format {found.name}")
        return found.open(folder)
    names = sorted(child.name for child in folder.iterdir() if child.is_file())
    indexes = [name for name in names if name.endswith(INDEX)]
    for ending in (".safetensors", ".bin"):
        chosen = [name for name in indexes if name.endswith(ending + INDEX)]
        if len(chosen) > 1:
            raise OpenError(f"{folder} holds several checkpoints ({', '.join(chosen)}); name one of them.")
        if chosen:
            return _open_index(folder / chosen[0])
        files = [name for name in names if name.endswith(ending)]
        if ending == ".safetensors" and files:
            return _open_shards(folder, files)
    files = [name for name in names if Path(name).suffix.lower() in TORCH]
    states = [name for name in files if not OTHERS.search(name)]
    if not states:
        states = [name for name in names if name.lower().endswith(formats.endings())]
    if len(states) == 1:
        return open_weights(folder / states[0], key)
    if states:
        kind = "torch files" if files else "files of weights"
        raise OpenError(f"{folder} holds several {kind} ({listed(states)}); name one of them.")
    refuse_other_folder(folder)
    what = listed(names) if names else "nothing"
    raise OpenError(f"{folder} holds no weights that can be opened here ({what}); name a file or another folder.")


def _open_shards(folder: Path, files: Sequence[str]) -> WeightSource:
    """Several safetensors files without an index: one checkpoint if no tensor is in two of them."""
    if len(files) == 1 or "model.safetensors" in files:
        return open_weights(folder / (files[0] if len(files) == 1 else "model.safetensors"))
    homes: dict[str, WeightSource] = {}
    for name in files:
        _refuse_odd(folder / name)
        source = SafetensorsFile(folder / name)
        twice = [tensor for tensor in source.describe() if tensor in homes]
        if twice:
            raise OpenError(
                f"{folder} holds several checkpoints ({listed(files)}): {some(twice)} in two; name one file."
            )
        homes |= dict.fromkeys(source.describe(), source)
    return ShardedWeights(homes, f"{len(homes)} tensors in {len(files)} files without an index in {folder}")


def _open_index(index: Path) -> WeightSource:
    """An index of shards, as Transformers writes it."""
    if index.stat().st_size > _MAX_INDEX:
        raise OpenError(f"{index} is refused: an index of more than {_MAX_INDEX} bytes.")
    try:
        wanted = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        places = {str(name): plain_name(shard) for name, shard in wanted.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise OpenError(f"{index} is not an index of shards with a weight_map of file names ({error}).") from error
    missing = sorted({shard for shard in places.values() if not (index.parent / shard).is_file()})
    if missing:
        raise OpenError(
            f"{index} names {len(missing)} shards that are not there: {listed(missing)}; download them too."
        )
    sources: dict[str, WeightSource] = {}
    for shard in dict.fromkeys(places.values()):
        if Path(shard).suffix.lower() not in (*SAFETENSORS, *TORCH):
            raise OpenError(f"{index} names {shard!r}, which is no file of weights.")
        sources[shard] = open_weights(index.parent / shard)
    homes = {name: sources[shard] for name, shard in places.items()}
    for source in sources.values():  # what the index forgot is shown all the same
        homes |= {name: source for name in source.describe() if name not in homes}
    return ShardedWeights(homes, f"{len(homes)} tensors in {len(sources)} shards of {index}")


def _refuse_odd(path: Path) -> None:
    """Files that are not what their name says."""
    if not path.is_file():
        raise OpenError(f"{path} is neither a file nor a folder.")
    with path.open("rb") as file:
        start = file.read(64)
    if not start:
        raise OpenError(f"{path} is empty; copy or download it again.")
    if start.startswith(b"version https://git-lfs"):
        raise OpenError(f"{path} is a Git LFS pointer, not the weights themselves; run git lfs pull.")
    if start.lstrip().lower().startswith((b"<!doctype", b"<html")):
        raise OpenError(f"{path} is a web page, not weights; download the file itself.")
