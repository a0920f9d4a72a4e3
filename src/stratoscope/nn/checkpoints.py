"""Where a greedy training was left, in a folder: a table of contents and one file of tensors for each machine.

`fit.json` names the training and its last finished epoch; `layer-3-epoch-7.safetensors` holds what the machine was then,
and `start.safetensors` what all of them were before.
Files are written beside and moved into place, tensors first, so that at any moment the table names files that are whole.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stratoscope.errors import OpenError, SettingError

CONTENTS, START = "fit.json", "start.safetensors"
FORMAT = 1

Row = tuple[int, int, float]
"""Machine, epoch, reconstruction error."""


class Checkpoints:
    """A folder of checkpoints.

    Attributes:
        folder: where.
        about: what a training must have in common with the one in the folder to go on with it.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any]) -> None:
        self.folder, self.about = folder, dict(about)

    def begin(self, resume: bool, start: Mapping[str, Tensor]) -> list[Row]:
        """What was done before; nothing in a new folder.

        Args:
            resume: whether to go on with what is there.
            start: the machines as they are, kept in a new folder.

        Raises:
            SettingError: if the folder holds another training, or one that is not to be resumed.
            OpenError: if its table of contents cannot be read.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / CONTENTS
        if not path.exists():
            self._write(self.folder / START, start)
            return []
        if not resume:
            raise SettingError(f"{self.folder} holds a training; pass resume=True to go on with it, or another folder.")
        try:
            held = json.loads(path.read_text(encoding="utf-8"))
            history = [(int(layer), int(epoch), float(error)) for layer, epoch, error in held["history"]]
            theirs = held["about"] if held["format"] == FORMAT else {}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise OpenError(f"{path} cannot be read ({error}); remove the folder to begin anew.") from error
        other = [name for name in self.about if theirs.get(name) != self.about[name]]
        if other:
            name = other[0]
            raise SettingError(
                f"{self.folder} holds another training: {name} was {theirs.get(name)} and is {self.about[name]}; use "
                "another folder."
            )
        return history

    def save(self, tensors: Mapping[str, Tensor], history: Sequence[Row]) -> None:
        """Keep a machine after its last epoch in `history`; the epoch before it is no longer needed."""
        layer, epoch, _ = history[-1]
        self._write(self._file(layer, epoch), tensors)
        contents = {"format": FORMAT, "about": self.about, "history": [list(row) for row in history]}
        _replace(self.folder / CONTENTS, json.dumps(contents, indent=1).encode())
        self._file(layer, epoch - 1).unlink(missing_ok=True)

    def load(self, layer: int, epoch: int) -> dict[str, Tensor]:
        """What a machine was after an epoch.

        Raises:
            OpenError: if the file is not there or damaged.
        """
        return self._read(self._file(layer, epoch))

    def start(self) -> dict[str, Tensor]:
        """What all machines were before the first epoch.

        Raises:
            OpenError: if the file is not there or damaged.
        """
        return self._read(self.folder / START)

    def _write(self, path: Path, tensors: Mapping[str, Tensor]) -> None:
        from safetensors.torch import save

        _replace(path, save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}))

    def _read(self, path: Path) -> dict[str, Tensor]:
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except (OSError, SafetensorError) as error:
            raise OpenError(f"{path} cannot be read ({error}); remove the folder to begin anew.") from error

    def _file(self, layer: int, epoch: int) -> Path:
        return self.folder / f"layer-{layer}-epoch-{epoch}.safetensors"


def digest_of(data: Tensor) -> str:
    """Names the content of a tensor: its type, shape and bytes."""
    found = hashlib.sha256(f"{data.dtype} {tuple(data.shape)}".encode())
    for block in data.split(4096):
        found.update(block.detach().cpu().contiguous().view(torch.uint8).numpy())
    return found.hexdigest()[:16]


def _replace(path: Path, content: bytes) -> None:
    """Write a file so that it is either the old one or the new one, whatever happens."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
