"""Who may read a file that we wrote: whom the user's umask says, also where a library made it for its owner alone."""

from __future__ import annotations

import os
import re
from pathlib import Path


def as_umask_says(path: Path) -> None:
    """Give a new file the mode that `open` would have given it."""
    path.chmod(0o666 & ~_umask())


def _umask() -> int:
    """The process's umask, read where possible: to ask by setting it would be seen by other threads."""
    try:
        found = re.search(r"^Umask:\s*([0-7]+)$", Path("/proc/self/status").read_text(), re.MULTILINE)
    except OSError:
        found = None
    if found is not None:
        return int(found[1], 8)
    umask = os.umask(0o077)
    os.umask(umask)
    return umask
