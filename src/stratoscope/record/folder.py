"""Run folders: their names, the lock of the one writer, and whether their disk is a local one."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from stratoscope.errors import RecordError
from stratoscope.record.schema import DATABASE
from stratoscope.record.values import digest

LOCK = "run.lock"

NETWORK = frozenset(
    [
        *("9p", "afs", "beegfs", "ceph", "cifs", "davfs", "fhgfs", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs"),
        *("nfs4", "orangefs", "panfs", "pvfs2", "smb2", "smb3", "smbfs", "virtiofs", "wekafs"),
    ]
)
"""File systems where SQLite's shared memory does not work between machines; every `fuse.` one counts too."""

_RUN_ID = re.compile(r"[a-z0-9-]{1,64}")


def is_run_id(text: str) -> bool:
    """Whether a text can name a run."""
    return _RUN_ID.fullmatch(text) is not None


def new_run_id(now: datetime | None = None) -> str:
    """A name that sorts by time (UTC, microseconds).

    >>> new_run_id(datetime(2026, 11, 21, 15, 30, 45, 7, tzinfo=UTC))
    '20261121-153045-000007'
    """
    return (now or datetime.now(UTC)).strftime("%Y%m%d-%H%M%S-%f")


def new_run_folder(parent: Path) -> Path:
    """Make a fresh folder for a run, named by the time.

    Args:
        parent: where runs are kept; made if it is not there.

    Raises:
        RecordError: if it cannot be written.
    """
    for _ in range(1000):
        folder = Path(parent) / new_run_id()
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue  # another run began in the same microsecond
        except OSError as error:
            raise cannot_write(folder, error) from error
        return folder
    raise RecordError(f"No free name for a run was found in {parent}; is the clock standing still?")


def cannot_write(folder: Path, error: OSError) -> RecordError:
    """The error for a place that takes no files."""
    return RecordError(f"{folder} cannot be written ({error.strerror or error}); choose another folder for the run.")


def filesystem(path: Path, mountinfo: str) -> str:
    r"""The type of file system that a path lies on.

    Args:
        path: an absolute path.
        mountinfo: text in the form of `/proc/self/mountinfo`.

    >>> filesystem(Path("/data/run"), "1 0 0:1 / / rw - ext4 sda rw\n2 1 0:2 / /data rw shared:1 - nfs4 host:/x rw")
    'nfs4'
    """
    best, found = -1, ""
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        if len(left.split()) < 5 or not right.split():
            continue
        place = Path(_unescape(left.split()[4]))
        if path.is_relative_to(place) and len(place.parts) >= best:
            best, found = len(place.parts), right.split()[0]
    return found


def is_network(kind: str) -> bool:
    """Whether a type of file system may be shared between machines."""
    return kind in NETWORK or kind.startswith("fuse.")


def lies_on_network(path: Path) -> bool:
    """Whether a path lies on a network file system; `False` where that cannot be known."""
    try:
        text = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return is_network(filesystem(path.resolve(), text))


def scratch_for(run: Path) -> Path:
    """A local folder for the hot file of a run whose own folder lies on the network.

    The one that an earlier attempt left, if there is one; else a new one in `TMPDIR`, `XDG_STATE_HOME`, `/tmp`,
    `/var/tmp` or `/dev/shm`, whichever first is local and can be written.

    Raises:
        RecordError: if there is no such place.
    """
    name = _path_name(run)
    for place in _scratch_places():
        if (place / name / DATABASE).is_file() and _is_mine(place):
            return place / name
    for place in _scratch_places():
        try:
            (place / name).mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if _is_mine(place):
            return place / name
    raise RecordError(f"{run} lies on a network file system and no local folder can be written; set TMPDIR to one.")


def _scratch_places() -> list[Path]:
    state = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    places = [os.environ.get("TMPDIR"), state, "/tmp", "/var/tmp", "/dev/shm"]
    return [Path(place) / f"stratoscope-{_user()}" for place in places if place and not lies_on_network(Path(place))]


def _user() -> int:
    return os.getuid() if os.name == "posix" else 0


def _is_mine(folder: Path) -> bool:
    """Whether nobody else made this folder in a place that everybody may write."""
    return not folder.is_symlink() and folder.stat().st_uid == _user()


def _path_name(run: Path) -> str:
    name = re.sub(r"[^a-z0-9-]", "-", run.name.lower())[:40]
    return f"{name}-{digest(str(run.resolve()))[:12]}"


def _unescape(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


@dataclass(frozen=True)
class Lock:
    """The right to write one run: a file that names the process which has it."""

    path: Path

    @classmethod
    def take(cls, folder: Path) -> Lock:
        """Take the lock; one that a dead process of this machine left is taken over.

        Raises:
            RecordError: if another process writes this run, with how to go on.
            OSError: if the folder takes no files.
        """
        path = folder / LOCK
        for _ in range(3):
            try:
                handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
            except FileExistsError:
                _clear_stale(path)
                continue
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(_myself(), file)
            return cls(path)
        raise RecordError(f"{folder} is being opened by several writers at once; try again.")

    def release(self) -> None:
        """Give the lock back, if it is still ours."""
        with contextlib.suppress(OSError):
            if _owner(self.path) == _myself():
                self.path.unlink()


def _clear_stale(path: Path) -> None:
    owner = _owner(path)
    host, pid = owner.get("host"), owner.get("pid")
    if host == socket.gethostname() and isinstance(pid, int) and _started(pid) != owner.get("started"):
        aside = path.with_name(f"{path.name}.{os.getpid()}.stale")
        with contextlib.suppress(FileNotFoundError):
            os.rename(path, aside)  # of two takers only one can
            if _owner(aside) != owner:  # a third had already taken over
                os.rename(aside, path)
            aside.unlink(missing_ok=True)
        return
    raise RecordError(
        f"{path.parent} is being written by process {pid or '(unknown)'} on {host or '(unknown)'}; "
        f"close that writer, or delete {path} if it is gone."
    )


def _owner(path: Path) -> dict[str, object]:
    try:
        owner = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return owner if isinstance(owner, dict) else {}


def _myself() -> dict[str, object]:
    return {"pid": os.getpid(), "host": socket.gethostname(), "started": _started(os.getpid())}


def _started(pid: int) -> str | None:
    """When a process began, in the kernel's ticks (pids are used again); `None` if there is none."""
    if os.name != "posix":
        return "unknown"
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:
        pass
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "unknown"
    return None if fields[0] in "ZX" else fields[19]
