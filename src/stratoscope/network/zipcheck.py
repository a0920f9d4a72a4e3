"""What is checked of a zip archive before anything in it is read."""

from __future__ import annotations

import os
import struct
import zipfile
from pathlib import Path

from stratoscope.errors import OpenError

MAX_MEMBERS = 200_000
_LONGEST_ENTRY = 4096
_END = b"PK\x05\x06"
_END64 = b"PK\x06\x06"
_END64_LOCATOR = b"PK\x06\x07"


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
    size = path.stat().st_size
    directory = _directory_bytes(path)
    if directory > MAX_MEMBERS * _LONGEST_ENTRY or directory > size:
        raise OpenError(f"{path} is refused: its zip directory claims {directory} bytes, far more than weights need.")
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error) as error:
        raise OpenError(f"{path} is a damaged zip archive ({error}); copy or download it again.") from error
    if len(members) > MAX_MEMBERS:
        raise OpenError(f"{path} is refused: {len(members)} members in one archive, more than {MAX_MEMBERS}.")
    if any("/code/__torch__" in member.filename for member in members):
        raise OpenError(
            f"{path} is a TorchScript archive, which holds code; save the state_dict() of the module instead."
        )
    packed = next((member for member in members if member.compress_type != zipfile.ZIP_STORED), None)
    if packed is not None and not deflated:
        raise OpenError(
            f"{path} is refused: its member {packed.filename!r} is compressed, which torch never does and a zip bomb "
            "does; save the weights again with torch.save or as safetensors."
        )
    if len({member.filename for member in members}) != len(members):
        raise OpenError(f"{path} is refused: two members of the archive have the same name.")
    total = sum(member.file_size for member in members)
    limit = size if max_bytes is None else max_bytes
    if total > limit:
        raise OpenError(f"{path} is refused: it claims to unpack to {total} bytes; at most {limit} are accepted.")


def _directory_bytes(path: Path) -> int:
    """The size that the archive gives its own directory, read before Python builds an object for every member."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        start = max(0, end - 66_000)
        file.seek(start)
        tail = file.read()
        at = tail.rfind(_END)
        if at < 0 or len(tail) - at < 22:
            raise OpenError(
                f"{path} is a damaged zip archive (it has no end record, so it was cut off); copy it again."
            )
        size = int(struct.unpack_from("<I", tail, at + 12)[0])
        locator = tail.rfind(_END64_LOCATOR, 0, at)
        if locator < 0:
            return size
        at = int(struct.unpack_from("<Q", tail, locator + 8)[0])
        file.seek(min(at, end))
        record = file.read(56)
        if len(record) < 56 or record[:4] != _END64:
            raise OpenError(f"{path} is a damaged zip archive (its 64-bit end record is missing); copy it again.")
        return int(struct.unpack_from("<Q", record, 40)[0])
