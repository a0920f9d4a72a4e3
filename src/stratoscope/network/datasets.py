"""Public data sets by name, for examples, studies and tests: `stratoscope.data`.

```python
from stratoscope import data

train, test = data.load("mnist").values()
```

Files are fetched once from their official place, checked against a published SHA-256 and kept in the cache folder
(`STRATOSCOPE_CACHE`, else `XDG_CACHE_HOME/stratoscope`, else the platform's usual place). A folder named by
`STRATOSCOPE_DATA` is looked in first, for `NAME/FILE`. Nothing is ever unpickled.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stratoscope.errors import DataError, SettingError
from stratoscope.network.downloads import Progress, RemoteFile, cache_folder, fetched, is_right
from stratoscope.network.public_sets import PUBLIC_SETS, PublicSet

__all__ = ["PublicSet", "cache_folder", "info", "load", "names"]


def names() -> tuple[str, ...]:
    """The sets that `load` knows.

    >>> "mnist" in names()
    True
    """
    return tuple(PUBLIC_SETS)


def info(name: str) -> PublicSet:
    """What is known of a set: licence, source, homepage, shape, classes, splits, files with their addresses.

    Raises:
        SettingError: if there is no such set.

    >>> info("cifar10").splits["train"]
    50000
    """
    if name not in PUBLIC_SETS:
        raise SettingError(f"There is no data set {name!r}; there are {', '.join(PUBLIC_SETS)}.")
    return PUBLIC_SETS[name]


def load(
    name: str,
    *,
    split: str | None = None,
    cache: str | Path | None = None,
    download: bool = True,
    raw: bool = False,
    progress: Progress | None = None,
) -> dict[str, tuple[Tensor, Tensor]]:
    """Load a public data set.

    Args:
        name: one of `names()`.
        split: only this one; all by default. A set that its makers did not split has the one split `"all"`.
        cache: the folder that files are kept in, instead of the usual one; they lie in a sub-folder of the set's name.
        download: whether files that are not there may be fetched.
        raw: give the numbers as stored (pictures as uint8) instead of scaled ones.
        progress: told `(file, bytes, of)` during a download.

    Returns:
        For each split inputs and labels: float32 `(n, *shape)`, pictures in [0, 1] with channels first, and int64 `(n,)`.

    Raises:
        SettingError: if there is no such set or split.
        DataError: if a file cannot be had (the sentence says where to get it and where to put it), or is not the
            published one.
    """
    found = info(name)
    if split is not None and split not in found.splits:
        raise SettingError(f"{name} has no split {split!r}; it has {', '.join(found.splits)}.")
    folder = cache_folder(cache) / "data" / name
    return {
        one: _read(found, one, folder, download, raw, progress)
        for one in ([split] if split is not None else found.splits)
    }


def _read(
    found: PublicSet, split: str, folder: Path, download: bool, raw: bool, progress: Progress | None
) -> tuple[Tensor, Tensor]:
    paths = {file.name: _path(found.name, file, folder, download, progress) for file in found.files[split]}
    inputs, labels = found.read(paths, split)
    _check(found, split, inputs.shape, labels.shape)
    targets = torch.from_numpy(labels.astype(np.int64))
    if raw:
        return torch.from_numpy(np.array(inputs)), targets
    scaled = torch.from_numpy(inputs.astype(np.float32))
    return (scaled if found.scale == 1 else scaled.div_(found.scale)), targets


def _path(name: str, file: RemoteFile, folder: Path, download: bool, progress: Progress | None) -> Path:
    """Where a file is: the data folder, else the cache, else it is fetched."""
    given = os.environ.get("STRATOSCOPE_DATA")
    if given:
        for place in (file.name, file.name.removesuffix(".gz")):
            path = Path(given).expanduser() / name / place
            if path.is_file():
                if is_right(path, file):
                    return path
                raise DataError(f"{path} is not the published {file.name}: its content has another SHA-256; remove it.")
    return fetched(file, folder, download=download, progress=progress)


def _check(found: PublicSet, split: str, inputs: Sequence[int], labels: Sequence[int]) -> None:
    n = found.splits[split]
    if tuple(inputs) != (n, *found.shape) or tuple(labels) != (n,):
        raise DataError(
            f"{found.name}, split {split!r}, should have shape {(n, *found.shape)} and has {tuple(inputs)}, with labels "
            f"of shape {tuple(labels)}."
        )
