r"""Values with arrays in them as bytes for the page: a JSON head, and the arrays behind it as they lie in memory.

A message is the four bytes `STR1`, the length of the head (unsigned, 32 bits, little-endian), the head as JSON in UTF-8
padded with blanks to a multiple of 8 bytes, and the arrays, each at a multiple of 8 bytes. In the head an array stands as
`{"$array": [type, shape, offset]}` with the offset counted from the end of the head, in bytes; `type` is `f4`, `f8`, `i4`
or `u1`. So NaN and the infinities travel as what they are, and the page makes typed arrays without looking at a number.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAGIC = b"STR1"
ALIGN = 8
TYPES: dict[str, np.dtype[Any]] = {
    "f4": np.dtype("<f4"),
    "f8": np.dtype("<f8"),
    "i4": np.dtype("<i4"),
    "u1": np.dtype("u1"),
}
"""Types that the page knows."""

SMALL = 1 << 24
"""Whole numbers below this fit a float32."""


def pack(value: Any) -> bytes:
    """A value as one message.

    Args:
        value: dicts, lists, dataclasses, text, numbers, and arrays of numbers anywhere in it.

    >>> unpack(pack({"x": np.array([1.0, np.nan])}))["x"]
    array([ 1., nan], dtype=float32)
    """
    arrays: list[NDArray[Any]] = []
    plain = _plain(value, arrays, [0])
    head = json.dumps(plain, allow_nan=False, separators=(",", ":"), ensure_ascii=False).encode(errors="replace")
    head += b" " * (-(len(MAGIC) + 4 + len(head)) % ALIGN)
    parts = [MAGIC, len(head).to_bytes(4, "little"), head]
    for array in arrays:
        data = array.tobytes()
        parts += [data, b"\0" * (-len(data) % ALIGN)]
    return b"".join(parts)


def unpack(message: bytes) -> Any:
    """The value of a message; the page has the same in TypeScript.

    Raises:
        ValueError: if it is none.
    """
    if message[:4] != MAGIC:
        raise ValueError(f"This is no message: it begins with {message[:4]!r} and not with {MAGIC!r}.")
    begin = 8 + int.from_bytes(message[4:8], "little")
    return _whole(json.loads(message[8:begin]), memoryview(message)[begin:])


def exact(values: NDArray[Any]) -> NDArray[Any]:
    """The smallest of the page's types that holds these numbers: float32 only where none of them changes by it."""
    if values.dtype.kind == "b":
        return values.astype(np.uint8)
    wide = np.asarray(values, dtype=np.float64)
    whole = wide.size > 0 and bool(np.isfinite(wide).all()) and bool((wide == np.rint(wide)).all())
    if whole and float(np.abs(wide).max()) < SMALL:
        return wide.astype("<f4")
    with np.errstate(over="ignore", under="ignore"):  # what overflows is not the same, and stays wide
        narrow = wide.astype("<f4")
    same = (narrow == wide) | np.isnan(wide)
    return narrow if bool(same.all()) else wide.astype("<f8")


def _plain(value: Any, arrays: list[NDArray[Any]], end: list[int]) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name), arrays, end) for field in fields(value)}
    if isinstance(value, np.ndarray) and value.dtype.kind in "bfiu":
        return _placed(exact(value), arrays, end)
    if isinstance(value, np.ndarray):
        return _plain(value.tolist(), arrays, end)
    if isinstance(value, Mapping):
        # a name in a record may be anything, and this one means an array
        return {" $array" if key == "$array" else str(key): _plain(item, arrays, end) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item, arrays, end) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, str | int | bool | type(None)) else str(value)


def _placed(array: NDArray[Any], arrays: list[NDArray[Any]], end: list[int]) -> dict[str, Any]:
    name = next(name for name, dtype in TYPES.items() if dtype == array.dtype)
    place = end[0]
    arrays.append(array)
    end[0] += array.nbytes + (-array.nbytes % ALIGN)
    return {"$array": [name, list(array.shape), place]}


def _whole(value: Any, body: memoryview) -> Any:
    if isinstance(value, list):
        return [_whole(item, body) for item in value]
    if not isinstance(value, dict):
        return value
    if "$array" in value:
        name, shape, place = value["$array"]
        return np.frombuffer(body, TYPES[name], math.prod(shape), place).reshape(shape)
    return {key: _whole(item, body) for key, item in value.items()}
