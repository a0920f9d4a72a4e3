"""Files of `torch.save`, of which only tensors are accepted."""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stratoscope.errors import OpenError
from stratoscope.network.stores import first_line, listed
from stratoscope.network.weights import StateDict, WeightSource
from stratoscope.network.zipcheck import check_zip

USUAL_KEYS = ("state_dict", "model_state_dict", "model", "module", "net", "network", "weights", "params")
"""Where training scripts put the weights within what they save, the likeliest first."""

OTHERS = re.compile(
    r"^(optim|\w*sched|(grad_)?scaler|callbacks|loops|hyper_parameters|\w*args|config|rng|random_)", re.I
)
"""Names of what training scripts save beside the weights."""

MAX_VALUES = 1_000_000


def open_torch(path: Path, key: str | None = None) -> WeightSource:
    """Open a file that `torch.save` wrote, mapped into memory where it is of the newer, zipped kind.

    Args:
        path: the file.
        key: where in it the weights are; found by itself if not given.

    Raises:
        OpenError: if it is damaged, unsafe, or holds no tensors.
    """
    with path.open("rb") as file:
        archive = file.read(2) == b"PK"
    if archive:
        check_zip(path)
    saved = _load_torch(path, archive)
    taken, tensors = _weights_in(saved, path, key)
    if not tensors:
        raise OpenError(f"{path} holds no tensors{f' under {taken!r}' if taken else ''}; it holds {_contents(saved)}.")
    about = f"{len(tensors)} tensors in {path}" + (f", under {taken!r}" if taken else "")
    rest = _left_out(saved, taken, tensors)
    return StateDict(tensors, about + (f" (left out: {listed(rest)})" if rest else ""))


def _left_out(saved: object, taken: str, tensors: Mapping[str, object]) -> list[str]:
    """What else the file holds, by its outermost names."""
    names = [str(name) for name in saved] if isinstance(saved, Mapping) else []
    if taken:
        return [name for name in names if taken != name and not taken.startswith(f"{name}.")]
    return [name for name in names if not any(key == name or key.startswith(f"{name}.") for key in tensors)]


def _load_torch(path: Path, archive: bool) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch's own storage classes
            return torch.load(str(path), map_location="cpu", weights_only=True, mmap=archive)
    except pickle.UnpicklingError as error:
        globals_ = _unsafe_globals(path, error)
        if not globals_:
            raise OpenError(
                f"{path} is not a file that torch.save wrote{_cause(error)}; nothing in it was run."
            ) from None
        raise OpenError(
            f"{path} is refused, and nothing in it was run: it holds Python objects ({listed(globals_)}) beside tensors; "
            "where it was made, save model.state_dict() alone with torch.save, or as safetensors."
        ) from None
    except RuntimeError as error:
        if "TorchScript" in str(error):
            raise OpenError(
                f"{path} is a TorchScript archive, which holds code; save the state_dict() of the module instead."
            ) from None
        raise OpenError(f"{path} cannot be read as a torch file ({first_line(error)}); copy it again.") from error
    except Exception as error:  # a damaged pickle can fail in any way
        raise OpenError(
            f"{path} is not a complete torch file ({type(error).__name__}: {first_line(error)}); copy it again."
        ) from error


def _cause(error: Exception) -> str:
    """The core of torch's message, without its advice to trust the file."""
    found = re.search(r"WeightsUnpickler error: *(\S[^\n]{0,200})", str(error))
    return f" ({found[1].rstrip('. ')})" if found else ""


def _unsafe_globals(path: Path, error: Exception) -> list[str]:
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(str(path)))
    except Exception:  # torch's own look refuses old files and damaged ones
        return sorted(set(re.findall(r"GLOBAL (\S+)", str(error))))


def _weights_in(saved: Any, path: Path, key: str | None) -> tuple[str, dict[str, Tensor]]:
    """Where the weights are in what was saved, and they themselves, by name."""
    if key is not None:
        found = saved
        for part in key.split("."):
            if not isinstance(found, Mapping) or part not in found:
                raise OpenError(f"{path} has nothing under key={key!r}; it holds {_contents(saved)}.")
            found = found[part]
        return key, _by_name(found)
    taken: list[str] = []
    while isinstance(saved, Mapping) and (name := _usual_key(saved)) is not None:
        saved, taken = saved[name], [*taken, name]
    return ".".join(taken), _by_name(saved)


def _usual_key(saved: Mapping[Any, object]) -> str | None:
    """The first usual key under which a mapping with tensors lies."""
    for name in USUAL_KEYS:
        inner = saved.get(name)
        if isinstance(inner, Mapping) and _by_name(inner):
            return name
    return None


def _by_name(saved: object) -> dict[str, Tensor]:
    """Tensors by name, those of nested mappings and lists by their path; the state of optimizers is no weight."""
    if isinstance(saved, Tensor):
        return {"tensor": saved}
    found: dict[str, Tensor] = {}
    todo = [(str(name), value) for name, value in _items(saved) if not _is_of_others(name, value)][::-1]
    visited = 0
    while todo:
        name, value = todo.pop()
        visited += 1
        if visited > MAX_VALUES:  # lists that hold themselves, or one another many times
            raise OpenError(f"The file is refused: its mappings unfold to more than {MAX_VALUES} values.")
        if not isinstance(value, Tensor):
            todo += [(f"{name}.{inner}", item) for inner, item in _items(value)][::-1]
        elif name in found:
            raise OpenError(f"Two tensors of this file would have the same name, {name!r}; save a flat state dict.")
        else:
            found[name] = value
    return found


def _items(value: object) -> list[tuple[object, object]]:
    """What a container holds, as far as it may be or hold tensors."""
    items: list[tuple[object, object]] = []
    if isinstance(value, Mapping):
        items = list(value.items())
    elif isinstance(value, list | tuple):
        items = list(enumerate(value))
    return [(name, item) for name, item in items if isinstance(item, Tensor | Mapping | list | tuple)]


def _is_of_others(name: object, value: object) -> bool:
    return not isinstance(value, Tensor) and OTHERS.search(str(name)) is not None


def _contents(saved: object) -> str:
    if isinstance(saved, Mapping):
        return listed([str(name) for name in saved]) or "an empty mapping"
    return f"a {type(saved).__name__}"
