"""What is checked of a zip archive before anything in it is read."""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from stratoscope.errors import OpenError

MAX_MEMBERS = 200_000
MAX_RATIO = 200
"""How many times its packed size a member may unpack to: weights hardly shrink, a bomb reaches 1,000."""

FREE_BYTES = 64 * 2**20
"""Up to this size a member may unpack to anything."""

_LONGEST_ENTRY = 4096
_LOCAL_HEADER = struct.Struct("<4s5H3L2H")
_LOCAL = b"PK\x03\x04"
_END = b"PK\x05\x06"
_END64 = b"PK\x06\x06"
_END64_LOCATOR = b"PK\x06\x07"


@dataclass(frozen=True)
class Member:
    """A member of an archive that has been checked.

    Attributes:
        offset: where in the file its bytes begin.
        size: how many bytes it unpacks to.
        packed: how many bytes it has in the file; the same as `size` where it is stored as it is.
        stored: whether it is stored as it is.
    """

    offset: int
    size: int
    packed: int
    stored: bool


def check_zip(path: Path, *, deflated: bool = False, max_bytes: int | None = None) -> None:
    """Refuse an archive that would unpack to more than it should.

    Args:
        path: the archive.
        deflated: whether compressed members are allowed; torch never writes any.
        max_bytes: what all members together may unpack to; the size of the file if not given.

    Raises:
        OpenError: if it is damaged, has too many members, compressed ones that are not allowed, members of the same
            name, or says that it unpacks to more than `max_bytes`.
    """
    with path.open("rb") as file:
        check_zip_file(file, str(path), deflated=deflated, max_bytes=max_bytes)


def check_zip_file(
    file: BinaryIO, where: str, *, deflated: bool = False, max_bytes: int | None = None
) -> list[zipfile.ZipInfo]:
    """`check_zip` of an open file, such as an archive within an archive; gives what it lists.

    Raises:
        OpenError: as `check_zip`.
    """
    size = file.seek(0, os.SEEK_END)
    directory = _directory_bytes(file, where)
    if directory > MAX_MEMBERS * _LONGEST_ENTRY or directory > size:
        raise OpenError(f"{where} is refused: its zip directory claims {directory} bytes, far more than weights need.")
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error) as error:
        raise OpenError(f"{where} is a damaged zip archive ({error}); copy or download it again.") from error
    _check_members(members, where, deflated)
    total = sum(member.file_size for member in members)
    limit = size if max_bytes is None else max_bytes
    if total > limit:
        raise OpenError(f"{where} is refused: it claims to unpack to {total} bytes; at most {limit} are accepted.")
    return members


def _check_members(members: list[zipfile.ZipInfo], where: str, deflated: bool) -> None:
    if len(members) > MAX_MEMBERS:
        raise OpenError(f"{where} is refused: {len(members)} members in one archive, more than {MAX_MEMBERS}.")
    if any("/code/__torch__" in member.filename for member in members):
        raise OpenError(
            f"{where} is a TorchScript archive, which holds code; save the state_dict() of the module instead."
        )
    packed = next((member for member in members if member.compress_type != zipfile.ZIP_STORED), None)
    if packed is not None and not deflated:
        raise OpenError(
            f"{where} is refused: its member {packed.filename!r} is compressed, which torch never does and a zip bomb "
            "does; save the weights again with torch.save or as safetensors."
        )
    if len({member.filename for member in members}) != len(members):
        raise OpenError(f"{where} is refused: two members of the archive have the same name.")


def zip_members(path: Path, *, deflated: bool = False, max_bytes: int | None = None) -> Mapping[str, Member]:
    """Check an archive and find where in the file each member lies, so that one can be read without the others.

    Raises:
        OpenError: as `check_zip`; also if a member is encrypted, lies outside the file, or unpacks to so many times
            its size as no weights do.
    """
    with path.open("rb") as file:
        listed = check_zip_file(file, str(path), deflated=deflated, max_bytes=max_bytes)
        return {info.filename: _member(file, info, path) for info in listed}


def _member(file: BinaryIO, info: zipfile.ZipInfo, path: Path) -> Member:
    end = file.seek(0, os.SEEK_END)
    file.seek(min(max(info.header_offset, 0), end))
    header = file.read(_LOCAL_HEADER.size)
    if info.header_offset < 0 or len(header) < _LOCAL_HEADER.size or not header.startswith(_LOCAL):
        raise OpenError(
            f"{path} is a damaged zip archive ({info.filename!r} is not where it should be); copy it again."
        )
    *_, name_length, extra_length = _LOCAL_HEADER.unpack(header)
    offset = info.header_offset + _LOCAL_HEADER.size + name_length + extra_length
    stored = info.compress_type == zipfile.ZIP_STORED
    if info.flag_bits & 1:
        raise OpenError(f"{path} is refused: its member {info.filename!r} is encrypted.")
    if offset + info.compress_size > end or (stored and info.compress_size != info.file_size):
        raise OpenError(f"{path} is a damaged zip archive ({info.filename!r} does not fit in it); copy it again.")
    if info.file_size > FREE_BYTES and info.file_size > MAX_RATIO * info.compress_size:
        raise OpenError(
            f"{path} is refused: its member {info.filename!r} has {info.compress_size} bytes and claims to unpack to "
            f"{info.file_size}, as a zip bomb does."
        )
    return Member(offset, info.file_size, info.compress_size, stored)


def extract_member(path: Path, name: str, target: Path, size: int) -> None:
    """Copy or unpack one member to a file of its own, without holding it in memory.

    Args:
        path: an archive that was checked.
        name: of the member.
        target: the file to write.
        size: what it may unpack to; reading stops there.

    Raises:
        OpenError: if it is damaged or unpacks to another size.
    """
    written = 0
    try:
        with zipfile.ZipFile(path) as archive, archive.open(name) as source, target.open("wb") as file:
            while chunk := source.read(2**20):
                written += len(chunk)
                if written > size:
                    break
                file.write(chunk)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError, KeyError) as error:
        raise OpenError(f"{name!r} in {path} cannot be unpacked ({error}); copy the file again.") from error
    if written != size:
        raise OpenError(f"{name!r} in {path} does not unpack to the {size} bytes that it claims; copy the file again.")


def _directory_bytes(file: BinaryIO, where: str) -> int:
    """The size that the archive gives its own directory, read before Python builds an object for every member."""
    end = file.seek(0, os.SEEK_END)
    file.seek(max(0, end - 66_000))
    tail = file.read()
    at = tail.rfind(_END)
    if at < 0 or len(tail) - at < 22:
        raise OpenError(f"{where} is a damaged zip archive (it has no end record, so it was cut off); copy it again.")
    size = int(struct.unpack_from("<I", tail, at + 12)[0])
    locator = at - 20  # just before the end record; an archive within the archive may have one of its own
    if locator < 0 or not tail.startswith(_END64_LOCATOR, locator):
        return size
    at = int(struct.unpack_from("<Q", tail, locator + 8)[0])
    file.seek(min(at, end))
    record = file.read(56)
    if len(record) < 56 or record[:4] != _END64:
        raise OpenError(f"{where} is a damaged zip archive (its 64-bit end record is missing); copy it again.")
    return int(struct.unpack_from("<Q", record, 40)[0])
