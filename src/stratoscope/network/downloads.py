"""Files from the web, each known by its SHA-256, kept in the user's cache folder."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import os
import sys
import tempfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from stratoscope.errors import DataError
from stratoscope.network.readers.limits import is_gzip
from stratoscope.version import __version__

Progress = Callable[[str, int, int], None]
"""Told what is being fetched, how many bytes are here, and how many there are."""

TIMEOUT = 30.0
"""Seconds without a sign of life after which a server is given up."""

BLOCK = 2**20


@dataclass(frozen=True)
class RemoteFile:
    """One file of a public data set.

    Attributes:
        name: what it is called.
        urls: where it can be had, the first choice first.
        sha256: of the file.
        nbytes: its length.
        content_sha256: of what it unpacks to, if it is gzip: the same content may have been packed anew.
        content_nbytes: the length of that.
    """

    name: str
    urls: tuple[str, ...]
    sha256: str
    nbytes: int
    content_sha256: str = ""
    content_nbytes: int = 0


def cache_folder(given: str | Path | None = None) -> Path:
    """The folder that files are kept in; it need not exist yet.

    What is given, else `STRATOSCOPE_CACHE`, else `XDG_CACHE_HOME/stratoscope`, else the platform's usual place.
    """
    chosen = given or os.environ.get("STRATOSCOPE_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    xdg = os.environ.get("XDG_CACHE_HOME")
    if xdg and Path(xdg).is_absolute():
        return Path(xdg) / "stratoscope"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "stratoscope"
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        return (Path(local) if local else Path.home() / "AppData" / "Local") / "stratoscope" / "Cache"
    return Path.home() / ".cache" / "stratoscope"


def fetched(file: RemoteFile, folder: Path, *, download: bool = True, progress: Progress | None = None) -> Path:
    """The path of a file in a folder, downloaded into it if it is not there; its SHA-256 is checked either way.

    A download is written beside its place and renamed once it is whole and right, so an interrupted one leaves nothing.

    Args:
        file: which.
        folder: where it is kept.
        download: whether it may be fetched.
        progress: told how far it is.

    Raises:
        DataError: if it cannot be had, or is not the file that was published; says where to get it and where to put it.
    """
    path = folder / file.name
    if path.is_file():
        if not is_right(path, file):
            raise DataError(f"{path} is not the published file (its SHA-256 is not {file.sha256}); remove it.")
        return path
    if not download:
        raise DataError(f"{file.name} is not here and download=False; get {file.urls[0]} and put it into {folder}.")
    _make(folder)
    reasons: list[str] = []
    for url in file.urls:
        try:
            _download(url, file, path, progress)
            return path
        except (OSError, http.client.HTTPException, ValueError) as error:
            reasons.append(f"{url}: {getattr(error, 'reason', None) or error or type(error).__name__}")
    raise DataError(
        f"{file.name} cannot be downloaded ({'; '.join(reasons)}); get {file.urls[0]} and put it into {folder}."
    )


def is_right(path: Path, file: RemoteFile) -> bool:
    """Whether a file is the published one, or unpacks to the same content."""
    with path.open("rb") as plain:
        found = _sha256(plain, max(file.nbytes, file.content_nbytes))
    if found in (file.sha256, file.content_sha256):
        return True
    if not file.content_sha256 or not is_gzip(path):
        return False
    try:
        with gzip.open(path, "rb") as unpacked:
            return _sha256(unpacked, file.content_nbytes) == file.content_sha256  # type: ignore[arg-type]
    except (OSError, EOFError, zlib.error):
        return False


def _sha256(file: BinaryIO, at_most: int) -> str:
    """SHA-256, given up (with an answer that no file has) once there is more than expected."""
    whole, seen = hashlib.sha256(), 0
    while block := file.read(BLOCK):
        seen += len(block)
        if seen > at_most:
            return "longer"
        whole.update(block)
    return whole.hexdigest()


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"The cache folder {folder} cannot be made ({error.strerror}); set STRATOSCOPE_CACHE."
        ) from error


def _download(url: str, file: RemoteFile, path: Path, progress: Progress | None) -> None:
    handle, name = tempfile.mkstemp(prefix=f".{file.name}.", suffix=".part", dir=path.parent)
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as target:
            _copy(url, file, target, progress)
            target.flush()
            os.fsync(target.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _copy(url: str, file: RemoteFile, target: BinaryIO, progress: Progress | None) -> None:
    request = urllib.request.Request(url, headers={"User-Agent": f"stratoscope/{__version__}"})
    whole, seen = hashlib.sha256(), 0
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
        while block := answer.read(BLOCK):
            seen += len(block)
            if seen > file.nbytes:
                break
            whole.update(block)
            target.write(block)
            if progress is not None:
                progress(file.name, seen, file.nbytes)
    if seen != file.nbytes or whole.hexdigest() != file.sha256:
        what = "more" if seen > file.nbytes else f"{seen:,} bytes with SHA-256 {whole.hexdigest()}"
        raise DataError(
            f"{url} gave {what}, not the published {file.nbytes:,} bytes with SHA-256 {file.sha256}; nothing was kept."
        )


__all__ = ["Progress", "RemoteFile", "cache_folder", "fetched", "is_right"]
