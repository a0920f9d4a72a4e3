"""The wire format of Protocol Buffers, read in place: fields are found, none is copied until it is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stratoscope.errors import OpenError

MAX_FIELDS = 20_000_000
"""Fields that are looked at in one file; a large model has a million."""

_FIXED = {1: 8, 5: 4}
_VARINT, _BYTES = 0, 2


@dataclass
class Buffer:
    """Bytes that hold messages, and how many fields of them may still be looked at."""

    data: Any = field(repr=False)
    left: int = MAX_FIELDS


@dataclass(frozen=True)
class Message:
    """A part of a buffer that holds one message, one string, or integers one after another."""

    buffer: Buffer
    start: int
    stop: int

    def fields(self) -> Iterator[tuple[int, int | Message]]:
        """Each field's number, and its value: an integer, or the part of the buffer where it lies.

        Raises:
            OpenError: if this is no message, or has very many fields.
        """
        at = self.start
        while at < self.stop:
            self.buffer.left -= 1
            if self.buffer.left < 0:
                raise OpenError(f"it has more than {MAX_FIELDS} fields")
            tag, at = self._varint(at)
            wire = tag & 7
            if wire == _VARINT:
                value, at = self._varint(at)
                yield tag >> 3, value
                continue
            length = _FIXED.get(wire, -1)
            if wire == _BYTES:
                length, at = self._varint(at)
            if length < 0 or at + length > self.stop:
                raise OpenError("a field runs over its end")
            yield tag >> 3, Message(self.buffer, at, at + length)
            at += length

    def integers(self) -> Iterator[int]:
        """The integers that lie here one after another.

        Raises:
            OpenError: if the last one does not end.
        """
        at = self.start
        while at < self.stop:
            value, at = self._varint(at)
            yield signed(value)

    def text(self) -> str:
        """The string that lies here; bytes that are no UTF-8 are shown as such."""
        return bytes(self.buffer.data[self.start : self.stop]).decode("utf-8", "backslashreplace")

    def _varint(self, at: int) -> tuple[int, int]:
        value = 0
        for shift in range(0, 70, 7):
            if at >= self.stop:
                raise OpenError("it ends within a number")
            octet = self.buffer.data[at]
            at += 1
            value |= (octet & 127) << shift
            if octet < 128:
                return value & (2**64 - 1), at
        raise OpenError("a number does not end")


def signed(value: int) -> int:
    """A 64-bit integer as protocol buffers store negative ones.

    >>> signed(2**64 - 1)
    -1
    """
    return value - 2**64 if value >= 2**63 else value


def unpacked(data: bytearray) -> NDArray[np.uint64]:
    r"""The variable-length integers that lie one after another, many at once.

    Raises:
        OpenError: if the last one does not end.

    >>> unpacked(bytearray(b"\x96\x01\x03")).tolist()
    [150, 3]
    """
    octets = np.frombuffer(data, np.uint8)
    if octets.size == 0:
        return np.zeros(0, np.uint64)
    last = octets < 128
    starts = np.flatnonzero(np.concatenate(([True], last[:-1])))
    place = np.arange(octets.size) - np.repeat(starts, np.diff(np.append(starts, octets.size)))
    if not last[-1] or int(place.max()) > 9:
        raise OpenError("a number does not end")
    shifted = (octets & 127).astype(np.uint64) << (7 * place).astype(np.uint64)
    return np.add.reduceat(shifted, starts, dtype=np.uint64)
