"""A picture of palette colours as PNG, for heat maps with more cells than SVG carries well."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def palette_png(indexes: NDArray[np.uint8], palette: Sequence[str]) -> bytes:
    r"""A PNG whose pixels point into a palette; index 0 is transparent.

    Args:
        indexes: rows x columns.
        palette: at most 256 colours as `#rrggbb`.

    >>> palette_png(np.zeros((1, 1), dtype=np.uint8), ["#000000"])[:4]
    b'\x89PNG'
    """
    rows, columns = indexes.shape
    colours = b"".join(bytes.fromhex(colour[1:]) for colour in palette)
    scanlines = np.concatenate([np.zeros((rows, 1), dtype=np.uint8), indexes], axis=1)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        (
            _chunk(b"IHDR", struct.pack(">IIBBBBB", columns, rows, 8, 3, 0, 0, 0)),
            _chunk(b"PLTE", colours),
            _chunk(b"tRNS", b"\x00"),
            _chunk(b"IDAT", zlib.compress(scanlines.tobytes(), 9)),
            _chunk(b"IEND", b""),
        )
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
