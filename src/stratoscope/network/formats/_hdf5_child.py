"""Run as a program of its own: lists an HDF5 file as JSON, or unpacks one data set of it.

The HDF5 library can crash or loop on damaged files, so it works here, under limits, and never in the process that asks.
Imports nothing of this package.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from math import prod
from typing import Any

import h5py

MAX_OBJECTS = 200_000
MAX_TEXT = 64 * 2**20
MAX_MEMORY = 8 * 2**30
FLOATS = {(2, 5): "f2", (2, 8): "bf2", (4, 8): "f4", (8, 11): "f8"}
ATTRIBUTES = ("name", "dtype", "backend", "keras_version", "model_config")
LISTS = ("layer_names", "weight_names")


class Window(io.RawIOBase):
    """A part of a file that looks like a file, for an HDF5 file stored within an archive."""

    def __init__(self, path: str, start: int, size: int) -> None:
        self._file = open(path, "rb")  # noqa: SIM115 - closed with the process
        self._start, self._size, self._at = start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = max(0, offset + (0, self._at, self._size)[whence])
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")[: max(0, self._size - self._at)]
        self._file.seek(self._start + self._at)
        count = self._file.readinto(view)
        self._at += count
        return count


def opened(path: str, start: int, size: int) -> Any:
    """The file, or the part of it."""
    return h5py.File(path, "r", locking=False) if start == 0 else h5py.File(Window(path, start, size), "r")


def listing(file: Any) -> dict[str, Any]:
    """Every data set and the attributes that Keras writes, and every link that is not followed."""
    found: dict[str, Any] = {"sets": {}, "groups": {}, "links": []}
    for path, item in walk(file, found["links"]):
        if isinstance(item, h5py.Dataset):
            found["sets"][path] = described(item)
        else:
            found["groups"][path] = attributes(item)
        if len(found["sets"]) + len(found["groups"]) > MAX_OBJECTS:
            raise ValueError(f"more than {MAX_OBJECTS} objects")
    return found


def walk(file: Any, links: list[str]) -> Iterator[tuple[str, Any]]:
    """Groups and data sets by path, each group once."""
    seen = set()
    stack = [("", file["/"])]
    while stack:
        path, group = stack.pop()
        address = h5py.h5o.get_info(group.id).addr
        if address in seen:
            continue
        seen.add(address)
        yield path, group
        inner = []
        for name in group:
            below = f"{path}/{name}" if path else name
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                links.append(below)
                continue
            item = group[name]
            if isinstance(item, h5py.Group):
                inner.append((below, item))
            elif isinstance(item, h5py.Dataset):
                yield below, item
        stack += inner[::-1]


def described(item: Any) -> dict[str, Any]:
    """What is known of a data set without reading it."""
    kind, reason = stored_type(item.id.get_type()), ""
    shape = [int(size) for size in item.shape or ()]
    if item.external or item.is_virtual:
        reason = "its numbers are said to lie in other files, which are not followed"
    return {
        "shape": shape,
        "type": kind,
        "reason": reason,
        "dtype": attributes(item).get("dtype", ""),
        "offset": None if item.chunks or reason else item.id.get_offset(),
        "stored": int(item.id.get_storage_size()),
        "address": int(h5py.h5o.get_info(item.id).addr),
    }


def stored_type(kind: Any) -> str:
    """Byte order, kind and size, such as `<f4`; empty for what is no number."""
    size = kind.get_size()
    if isinstance(kind, h5py.h5t.TypeFloatID):
        name = FLOATS.get((size, kind.get_fields()[2]), "")
    elif isinstance(kind, h5py.h5t.TypeIntegerID):
        name = ("i" if kind.get_sign() == h5py.h5t.SGN_2 else "u") + str(size)
    elif isinstance(kind, h5py.h5t.TypeEnumID):
        return "<b1" if size == 1 else ""
    else:
        return f"<V{size}" if isinstance(kind, h5py.h5t.TypeOpaqueID) else ""
    order = ">" if kind.get_order() == h5py.h5t.ORDER_BE else "<"
    return f"{order}{name}" if name else ""


def attributes(item: Any) -> dict[str, Any]:
    """The attributes that Keras writes: short strings, and lists of them."""
    there = set(item.attrs)
    found: dict[str, Any] = {name: text(item.attrs[name]) for name in ATTRIBUTES if name in there}
    for name in LISTS:
        parts = [name] if name in there else [f"{name}{at}" for at in range(len(there)) if f"{name}{at}" in there]
        if parts:  # long lists are cut into several attributes
            found[name] = [text(value) for part in parts for value in item.attrs[part]]
    return found


def text(value: Any) -> str:
    """A string attribute."""
    plain = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
    if len(plain) > MAX_TEXT:
        raise ValueError("an attribute is too long")
    return plain


def unpack(file: Any, path: str, target: str, most: int) -> None:
    """Write the numbers of one data set to a file, in the byte order in which they are stored."""
    item = file[path]
    if prod(item.shape) * item.dtype.itemsize > most:
        raise ValueError("larger than allowed")
    with open(target, "wb") as out:
        out.write(item[()].tobytes())


def limit_memory() -> None:
    """Keep the address space of this process bounded, where the system can."""
    try:
        import resource
    except ImportError:
        return
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))


def main() -> None:
    """Read the request from the command line, answer on standard output."""
    request = json.loads(sys.argv[1])
    limit_memory()
    with opened(request["path"], request["start"], request["size"]) as file:
        if "set" in request:
            unpack(file, request["set"], request["target"], request["most"])
        else:
            json.dump(listing(file), sys.stdout)


if __name__ == "__main__":
    main()
