"""What a file may ask of the machine, and reading that keeps to it."""

from __future__ import annotations

import gzip
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from stratoscope.errors import DataError

MAX_BYTES = 8 * 2**30
"""Bytes that one file may unpack to, unless the caller allows more."""

MAX_RATIO = 200
"""How many times larger than its file the content may be: real data rarely pass 50, a bomb reaches 1,000."""

FREE_BYTES = 64 * 2**20
"""Below so many bytes the ratio is not looked at: a megabyte of zeros harms nobody."""

MAX_MEMBERS = 10_000
"""Members that an archive may have."""

MAX_DEFLATE = 1040
"""Deflate packs at most 1032 bytes into one; a header that promises more is false."""


def existing(path: str | Path) -> Path:
    """The path, if a file is there.

    Raises:
        DataError: if there is none.
    """
    found = Path(path)
    if not found.is_file():
        what = "a folder" if found.is_dir() else "nothing"
        raise DataError(f"There is no file {found}: {what} is there.")
    return found


def check_size(path: str | Path, packed: int, unpacked: int, max_bytes: int) -> None:
    """Refuse content that is too large, or too large for its file.

    Raises:
        DataError: with both sizes and the limit.
    """
    if unpacked > max_bytes:
        raise DataError(
            f"{path} unpacks to {unpacked / 2**20:,.0f} MiB and the limit is {max_bytes / 2**20:,.0f} MiB; "
            "give a larger max_bytes if you trust it."
        )
    if unpacked > FREE_BYTES and unpacked > MAX_RATIO * max(packed, 1):
        raise DataError(
            f"{path} has {packed:,} bytes and unpacks to {unpacked:,}, {unpacked // max(packed, 1):,} times as many, "
            "as a file made to exhaust memory does; store it uncompressed if it is sound."
        )


def check_zip(path: Path, archive: zipfile.ZipFile, max_bytes: int) -> None:
    """Look at an archive's table of contents before anything in it is read.

    Raises:
        DataError: if there are too many members, they are too large, or one is encrypted.
    """
    members = archive.infolist()
    if len(members) > MAX_MEMBERS:
        raise DataError(f"{path} has {len(members):,} members and the limit is {MAX_MEMBERS:,}.")
    if any(member.flag_bits & 0x1 for member in members):
        raise DataError(f"{path} is encrypted; unpack it first.")
    for member in members:
        check_size(f"{path}, member {member.filename!r},", member.compress_size, member.file_size, max_bytes)
    packed = min(path.stat().st_size, sum(member.compress_size for member in members))
    check_size(path, packed, sum(member.file_size for member in members), max_bytes)


def is_gzip(path: Path) -> bool:
    """Whether the file begins as gzip files do, whatever its name."""
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open a file, unpacking it while it is read if it is gzip.

    Raises:
        DataError: if what is read from it is damaged.
    """
    try:
        with gzip.open(path, "rb") if is_gzip(path) else path.open("rb") as file:
            yield file  # type: ignore[misc]  # a GzipFile reads as a BinaryIO does
    except EOFError as error:
        raise DataError(f"{path} ends early: it was cut off.") from error
    except (zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is damaged: {error}.") from error


def read_all(path: Path, max_bytes: int) -> bytes:
    """The whole content, unpacked if it is gzip, and never more than allowed.

    Raises:
        DataError: if it is damaged or too large.
    """
    packed = path.stat().st_size
    pieces: list[bytes] = []
    total = 0
    with opened(path) as file:
        while piece := file.read(2**20):
            pieces.append(piece)
            total += len(piece)
            check_size(path, packed, total, max_bytes)
    return b"".join(pieces)
