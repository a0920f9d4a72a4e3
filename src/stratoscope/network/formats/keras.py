"""Weights that Keras saved: `.keras`, `.weights.h5` and the older `.h5`; the model in them is never built."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from torch import Tensor

from stratoscope.errors import OpenError
from stratoscope.network.formats._format import Format
from stratoscope.network.formats._hdf5 import DataSet, Hdf5File
from stratoscope.network.formats._keras_layers import layer_class, layers_in, leaves, use_of
from stratoscope.network.formats._raw import MAX_INDEX, ScratchOwner, read_json, read_range, scratch_file
from stratoscope.network.stores import listed
from stratoscope.network.weights import NOT_TOLD, TensorInfo, Use, WeightSource
from stratoscope.network.zipcheck import FREE_BYTES, MAX_RATIO, extract_member, zip_members

_MAGIC = b"\x89HDF\r\n\x1a\n"
_WEIGHTS, _CONFIG = "model.weights.h5", "config.json"
_CONTAINERS = frozenset({"layers", "_layer_checkpoint_dependencies"})
_OF_OTHERS = ("optimizer", "optimizer_weights", "_trainer")
_NO_WEIGHTS = frozenset({"seed_generator"})
_Layers = Mapping[str, tuple[str, Mapping[str, Any]]]


@dataclass(frozen=True)
class _Named:
    """A data set, what it is called here, and how it is used."""

    name: str
    item: DataSet
    use: Use = NOT_TOLD


class KerasWeights(WeightSource):
    """The weights of an HDF5 file that Keras wrote; of any other, its data sets by path.

    Kernels are stored outputs last, as Keras computes with them. State of the optimizer is left out.

    Args:
        file: the HDF5 file.
        about: what to call it.
        config: of the model, where it is at hand.

    Raises:
        OpenError: if there are no weights in it.
    """

    def __init__(self, file: Hdf5File, about: str, config: object) -> None:
        self._file = file
        layers = layers_in(config)
        legacy = next((base for base in ("", "model_weights") if "layer_names" in file.groups.get(base, {})), None)
        if legacy is not None:
            named = list(_legacy(file, legacy, layers))
        elif any("/vars/" in f"/{path}" for path in file.sets):
            named = list(_current(file, layers))
        else:
            named = [_Named(path, item) for path, item in file.sets.items()]
        self._sets = _by_name(named)
        self._infos = _infos(self._sets)
        if not self._sets:
            raise OpenError(f"{about} holds no weights; it holds {listed(list(file.sets)) or 'nothing'}.")
        self.about = f"{len(self._sets)} tensors in {about}{_left(file)}"

    def describe(self) -> Mapping[str, TensorInfo]:
        """In the order of the layers, where the file tells it."""
        return self._infos

    def load(self, name: str) -> Tensor:
        """Read one tensor."""
        if name not in self._sets:
            raise OpenError(f"There is no tensor {name!r} in {self.about}.")
        return self._file.load(self._sets[name].item)


def open_keras(path: Path) -> WeightSource:
    """Open a file of Keras.

    Raises:
        OpenError: if it is damaged, or holds no weights.
        StratoscopeError: if h5py is not installed.
    """
    with path.open("rb") as file:
        start = file.read(len(_MAGIC))
    if start == _MAGIC:
        return _of_file(Hdf5File(path, 0, path.stat().st_size, str(path)), str(path))
    if not start.startswith(b"PK"):
        raise OpenError(f"{path} is neither an HDF5 file nor an archive of Keras; copy or save it again.")
    return _of_archive(path)


def _of_file(file: Hdf5File, about: str) -> WeightSource:
    text = file.groups.get("", {}).get("model_config", "")
    return KerasWeights(file, about, read_json(text.encode(), f"The config in {about}") if text else {})


def _of_archive(path: Path) -> WeightSource:
    members = zip_members(path, deflated=True, max_bytes=max(FREE_BYTES, MAX_RATIO * path.stat().st_size))
    weights, config = members.get(_WEIGHTS), members.get(_CONFIG)
    if weights is None:
        raise OpenError(f"{path} holds no {_WEIGHTS}; it holds {listed(list(members)) or 'nothing'}.")
    settings: object = {}
    if config is not None:
        if config.size > MAX_INDEX:
            raise OpenError(f"{path} is refused: its {_CONFIG} has {config.size} bytes, more than {MAX_INDEX}.")
        settings = read_json(_member_bytes(path, _CONFIG, config.size), f"{_CONFIG} in {path}")
    if weights.stored:
        file = Hdf5File(path, weights.offset, weights.size, f"{_WEIGHTS} in {path}")
        return KerasWeights(file, str(path), settings)
    owner = ScratchOwner()
    unpacked = scratch_file(owner, _WEIGHTS)
    extract_member(path, _WEIGHTS, unpacked, weights.size)
    return KerasWeights(Hdf5File(unpacked, 0, weights.size, f"{_WEIGHTS} in {path}", owner), str(path), settings)


def _member_bytes(path: Path, name: str, size: int) -> bytes:
    owner = ScratchOwner()
    target = scratch_file(owner, "member")
    extract_member(path, name, target, size)
    return bytes(read_range(target, 0, size))


def _by_name(named: Iterable[_Named]) -> dict[str, _Named]:
    """No two data sets have one name: those that would, keep their path."""
    found: dict[str, _Named] = {}
    for each in named:
        found[each.item.path if each.name in found else each.name] = each
    return found


def _infos(sets: Mapping[str, _Named]) -> dict[str, TensorInfo]:
    """What is known of each tensor; two names of one data set are tied."""
    first: dict[int, str] = {}
    found: dict[str, TensorInfo] = {}
    for name, each in sets.items():
        item, same = each.item, first.setdefault(each.item.address, name)
        tied = None if same == name else same
        found[name] = TensorInfo(item.shape, item.dtype, same_as=tied, reason=item.reason, use=each.use)
    return found


def _current(file: Hdf5File, layers: _Layers) -> Iterator[_Named]:
    """Weights as Keras 3 stores them: by number, in the group `vars` of their layer."""
    groups: dict[str, list[DataSet]] = {}
    for path, item in file.sets.items():
        owner, mark, number = f"/{path}".rpartition("/vars/")
        if mark and number.isdigit() and not path.startswith(_OF_OTHERS):
            groups.setdefault(owner.strip("/"), []).append(item)
    known = _known_names(file)
    called = {owner: _called(owner, known) for owner in groups if not _NO_WEIGHTS & set(owner.split("/"))}
    order = {name: at for at, name in enumerate(layers)}
    for owner in sorted(called, key=lambda owner: _place(called[owner], groups[owner], order)):
        items = sorted(groups[owner], key=lambda item: int(item.path.rpartition("/")[2]))
        path = ".".join(called[owner])
        kind, settings = _class_of(owner.split("/"), called[owner], layers)
        names = leaves(kind, settings, [item.shape for item in items])
        for leaf, item in zip(names, items, strict=True):
            yield _Named(f"{path}.{leaf}".strip("."), item, use_of(kind, settings, path, leaf, item.shape))


def _known_names(file: Hdf5File) -> dict[str, str]:
    """The name that people gave to the layer of each group, where it is not that of a layer beside it as well."""
    told = {
        path.removesuffix("/vars"): str(attributes.get("name", ""))
        for path, attributes in file.groups.items()
        if path.endswith("/vars")
    }
    twins = Counter((path.rpartition("/")[0], name) for path, name in told.items())
    return {path: name for path, name in told.items() if name and twins[path.rpartition("/")[0], name] == 1}


def _called(owner: str, known: Mapping[str, str]) -> list[str]:
    """The names of the layers along a path, without what merely contains layers."""
    parts = owner.split("/")
    paths = ["/".join(parts[: at + 1]) for at in range(len(parts))]
    return [known.get(path, part) for path, part in zip(paths, parts, strict=True) if part not in _CONTAINERS]


def _place(called: list[str], items: list[DataSet], order: Mapping[str, int]) -> tuple[list[int], int]:
    """Where a layer stands: in the order of the config, and where that says nothing, in the order of the file."""
    largest = max(items, key=lambda item: prod(item.shape))  # small ones are gathered in blocks, out of their order
    start = largest.address if largest.offset is None else largest.offset
    return [order.get(name, len(order)) for name in called], start


def _class_of(parts: list[str], called: list[str], layers: _Layers) -> tuple[str, Mapping[str, Any]]:
    """Class and settings of the layer at a path: from the config, or from what Keras calls the group."""
    name = called[-1] if called else ""
    if name in layers:
        return layers[name]
    if parts[-1] == "cell":
        around = layers.get(called[-2] if len(called) > 1 else "", (layer_class(parts[-2]), {}))[0]
        own = layer_class(name)
        return (own if own.endswith("_cell") else f"{around}_cell"), {}
    return layer_class(parts[-1]), {}


def _legacy(file: Hdf5File, base: str, layers: _Layers) -> Iterator[_Named]:
    """Weights as Keras 2 stores them: by name, in the group of their outermost layer."""
    root = f"{base}/" if base else ""
    for layer in file.groups[base]["layer_names"]:
        for weight in file.groups.get(f"{root}{layer}", {}).get("weight_names", ()):
            item = file.sets.get(f"{root}{layer}/{weight}")
            if item is None:
                continue
            parts = weight.removesuffix(":0").split("/")
            parts = parts[parts.index(layer) :] if layer in parts[:-1] else [layer, *parts]
            path, leaf = ".".join(parts[:-1]), parts[-1]
            kind, settings = _legacy_class(parts[:-1], layers)
            yield _Named(f"{path}.{leaf}", item, use_of(kind, settings, path, leaf, item.shape))


def _legacy_class(parts: list[str], layers: _Layers) -> tuple[str, Mapping[str, Any]]:
    own = layer_class(parts[-1])
    if own.endswith("_cell"):
        return own, {}
    return layers.get(parts[-1], (own, {}))


def _left(file: Hdf5File) -> str:
    """What is left out, for people."""
    others = [name for name in _OF_OTHERS if any(path.startswith(f"{name}/") for path in file.sets)]
    links = [f"{len(file.links)} links, which are not followed"] if file.links else []
    return f" (left out: {', '.join(others + links)})" if others or links else ""


FORMAT = Format("Keras", (".keras", ".h5", ".hdf5"), open_keras, magic=_MAGIC)
