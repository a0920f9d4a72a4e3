"""What a command line names: an object in a file or module, and data in files."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from stratoscope.errors import DataError, SettingError, StratoscopeError
from stratoscope.network.unpacking import from_array

SPLIT_OF = {
    "train": "train", "training": "train", "test": "test", "testing": "test", "val": "val", "valid": "val",
    "validation": "val", "dev": "val",
}  # fmt: skip
"""Names of splits within keys such as `x_train`, and what they are called here."""

NAME_KEYS = frozenset({"names", "classes", "class_names", "source"})
"""Keys of files that hold names for people, which are passed over."""


def load_object(spec: str) -> Any:
    """The object that `file.py:name` or `module:name` stands for; a name may have dots.

    A file is run once, under a private module name; while it runs, its folder (for a module: the working folder) can
    be imported from, and not afterwards.

    Raises:
        SettingError: if the form is wrong, there is no such file, module or name, or running it fails.
    """
    place, colon, name = spec.rpartition(":")
    if not colon or not place or not name:
        raise SettingError(f"{spec!r} should have the form file.py:name or module:name.")
    module = _file_module(Path(place)) if place.endswith(".py") else _named_module(place)
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            there = [known for known in vars(found) if not known.startswith("_")] if hasattr(found, "__dict__") else []
            own = [n for n in there if getattr(getattr(found, n), "__module__", None) == getattr(found, "__name__", "")]
            listed = ", ".join((own or there)[:12]) or "nothing"
            raise SettingError(f"{place} has no {name!r}; it has {listed}.")
        found = getattr(found, part)
    return found


def _file_module(path: Path) -> ModuleType:
    path = path.expanduser().resolve()
    if not path.is_file():
        raise SettingError(f"There is no file {path}.")
    state = path.stat()
    key = f"{path} {state.st_mtime_ns} {state.st_size}"
    private = f"_stratoscope_{path.stem}_{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    if private in sys.modules:
        return sys.modules[private]
    spec = importlib.util.spec_from_file_location(private, path)
    if spec is None or spec.loader is None:
        raise SettingError(f"{path} is no Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[private] = module  # dataclasses look their module up while it runs
    try:
        with importable(path.parent):
            spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[private]
        if isinstance(error, Exception):
            raise _failed(str(path), error) from error
        raise
    return module


def _named_module(name: str) -> ModuleType:
    try:
        with importable(Path.cwd()):
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise SettingError(
                f"There is no module {error.name!r} to import; for a file write file.py:name."
            ) from error
        raise _failed(name, error) from error
    except Exception as error:
        raise _failed(name, error) from error


def _failed(place: str, error: Exception) -> StratoscopeError:
    if isinstance(error, StratoscopeError):
        return error
    said = (str(error).splitlines() or [""])[0]
    return SettingError(f"{place} cannot be loaded: {type(error).__name__}: {said}")


@contextmanager
def importable(folder: Path) -> Iterator[None]:
    """Let modules in a folder be imported for a while."""
    entry = str(folder)
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        if entry in sys.path:
            sys.path.remove(entry)


def read_data(spec: str) -> Any:
    """Data that a path or `file.py:function` names, in a form that `as_splits` takes.

    * `.npz`, `.safetensors`: the keys `x` and `y` (or `inputs`, `images`, `labels`, `targets`, ...), or with a split:
      `x_train`, `train_x`, `test.labels`, `val/inputs`, .... Other keys are inputs given by name, such as `input_ids`;
      `arr_0` and `arr_1` (unnamed arrays) are inputs and labels. Numbers stay as they are stored. An npz with `jpeg`
      and `offset` holds packed pictures.
    * `.csv`, `.csv.gz`: numbers as float32; the column `label`, `class`, `target` or `y` is the labels. Rows with
      missing values are refused when examples are drawn.
    * a folder: one sub-folder a class, or sub-folders `train`, `test`, `val` that have these.
    * `file.py:function` or `module:name`: what the function gives, or the object itself.

    Pictures from files become float32 `(n, channels, height, width)` in [0, 1].

    Raises:
        DataError: if there is no such file, or it cannot be read as data.
        SettingError: if a function cannot be loaded.
    """
    path = Path(spec).expanduser()
    if path.is_dir():
        return _read_folder(path)
    if path.is_file():
        return _read_file(path)
    if ":" not in spec or spec.endswith((".npz", ".safetensors", ".csv")):
        raise DataError(
            f"There is no file or folder {spec}; data are .npz, .safetensors, .csv, a folder or file.py:function."
        )
    found = load_object(spec)
    if not callable(found) or isinstance(found, (Tensor, torch.nn.Module)):
        return found
    place = spec.rpartition(":")[0]
    folder = Path(place).expanduser().resolve().parent if place.endswith(".py") else Path.cwd()
    try:
        with importable(folder):
            return found()
    except StratoscopeError:
        raise
    except Exception as error:
        said = (str(error).splitlines() or [""])[0]
        raise DataError(f"{spec} failed: {type(error).__name__}: {said}") from error


def _read_file(path: Path) -> Any:
    from stratoscope.network import readers

    name = path.name.lower()
    if name.endswith(".npz"):
        arrays = readers.read_npz(path)
        if {"jpeg", "offset"} <= arrays.keys():
            return _pictures(readers.read_packed_images(path))
        numbers = {key: from_array(a, f"{path}, {key!r},") for key, a in arrays.items() if a.dtype.kind in "biufc"}
        return by_split(numbers, str(path))
    if name.endswith(".safetensors"):
        return by_split(readers.read_safetensors(path), str(path))
    if name.endswith((".csv", ".csv.gz")):
        table = readers.read_csv(path)
        label = table.label_name()
        inputs = torch.from_numpy(table.matrix(() if label is None else (label,))).float()
        return inputs if label is None else (inputs, torch.from_numpy(table.labels(label)))
    if name.endswith((".pt", ".pth", ".pkl", ".pickle")):
        raise DataError(f"{path} may hold code, so it is not opened as data; save the tensors as .safetensors or .npz.")
    raise DataError(
        f"{path} is no data file: data are .npz, .safetensors, .csv, a folder of pictures or file.py:function."
    )


def _read_folder(path: Path) -> Any:
    from stratoscope.network import readers

    inside = sorted(entry.name for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not inside or any(name.lower() not in SPLIT_OF for name in inside):
        return _pictures(readers.read_image_folder(path))
    found = {name: readers.read_image_folder(path / name) for name in inside}
    classes = {images.names for images in found.values()}
    if len(classes) > 1:
        raise DataError(
            f"{path} has splits with different classes: {' and '.join(', '.join(c) for c in sorted(classes))}."
        )
    return {SPLIT_OF[name.lower()]: _pictures(images) for name, images in found.items()}


def _pictures(found: Any) -> Any:
    """Pictures as networks take them: floating, channels first, in [0, 1]."""
    inputs = torch.from_numpy(found.images).permute(0, 3, 1, 2).float().div_(255).contiguous()
    return inputs if found.labels is None else (inputs, torch.from_numpy(found.labels))


def by_split(arrays: Mapping[str, Tensor], where: str) -> dict[str, Any] | Any:
    """Named arrays as one batch, or as a batch for each split that their names say.

    Raises:
        DataError: if there are none, or only some names say a split.

    >>> sorted(by_split({"x_train": torch.zeros(2), "y_train": torch.zeros(2), "test.x": torch.zeros(1)}, "f"))
    ['test', 'train']
    """
    kept = {name: array for name, array in arrays.items() if name not in NAME_KEYS}
    if not kept:
        raise DataError(f"{where} holds no arrays of numbers.")
    if set(kept) == {f"arr_{i}" for i in range(len(kept))}:
        return tuple(kept[f"arr_{i}"] for i in range(len(kept)))
    found: dict[str, dict[str, Tensor]] = {}
    for name, array in kept.items():
        split, key = _split_of(name)
        found.setdefault(split, {})[key] = array
    if "" in found and len(found) > 1:
        raise DataError(f"{where} holds {', '.join(kept)}: only some of these names say a split.")
    return found.get("", found)


def _split_of(name: str) -> tuple[str, str]:
    """The split and the key that a name such as `x_train` or `test.labels` says; no split is `""`."""
    for sign in "._/-":
        head, _, behind = name.partition(sign)
        before, _, tail = name.rpartition(sign)
        for split, key in ((head, behind), (tail, before)):
            if split.lower() in SPLIT_OF and key:
                return SPLIT_OF[split.lower()], key
    if name.lower() in SPLIT_OF:
        return SPLIT_OF[name.lower()], "x"
    return "", name
