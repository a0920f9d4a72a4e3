"""The page with its data as one file that opens from disk, with no server and no network."""

from __future__ import annotations

import base64
import gzip
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import escape

from stratoscope.errors import RecordError, StratoscopeError
from stratoscope.report.html import json_in_script, write_text
from stratoscope.view.index import Contents
from stratoscope.view.wire import pack

if TYPE_CHECKING:
    from stratoscope.view.runs import Run, Runs


def export_page(runs: Runs, bundle: Path, path: Path) -> Path:
    """Write the page of some runs as one file.

    It holds the charts, tables and findings of every run that can be read, what tables and profiles show at other steps,
    and no further numbers of the record. Its
    policy allows its own script and style, by their hashes, and nothing else.

    Args:
        runs: what it shows.
        bundle: the folder with the built page.
        path: the file; folders on the way are made.

    Raises:
        RecordError: if it cannot be written there, or none of the runs can be read.
    """
    return write_text(path, page_of(runs, bundle))


def page_of(runs: Runs, bundle: Path) -> str:
    """The page of some runs as text; see `export_page`.

    Raises:
        RecordError: if none of the runs can be read.
    """
    carried: dict[str, Any] = {"runs": [], "index": {}, "charts": {}, "variables": {}}
    for run in runs.scan():
        carried["runs"].append(_carry(run, carried))
    readable = [summary for summary in carried["runs"] if "error" not in summary]
    if not readable:
        raise RecordError(f"There is nothing to show: {carried['runs'][0]['error']}")
    return _page(bundle, ", ".join(str(summary["name"]) for summary in readable[:3]), carried)


def _carry(run: Run, carried: dict[str, Any]) -> dict[str, Any]:
    """Put a run into the page, or why it cannot be read; what the list says of it."""
    with run.lock:
        summary = run.summary()
        if "error" in summary:
            return summary
        try:
            with run.reading() as record:
                contents = Contents(record, run.id)
                index = contents.index()
                charts = {f"{run.id}/{head['id']}": _text(contents.chart(head["id"])) for head in index["charts"]}
                variables = {
                    f"{run.id}/{key}/{name}": _text(contents.variable(key, name)) for key, name in _followed(index)
                }
        except StratoscopeError as error:
            return summary | {"status": "unreadable", "error": run.said(error)}
        finally:
            run.rest()
    # whoever gets the file need not know where the run lies on this machine
    facts = [fact for fact in index["facts"] if fact[0] not in ("folder", "command")]
    carried["index"][run.id] = _text(index | {"live": False, "facts": facts})
    carried["charts"].update(charts)
    carried["variables"].update(variables)
    return summary


def _followed(index: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The variables that tables and profiles show over the steps."""
    columns = {(one["instrument"], one["variable"]) for one in index["table"]["columns"]}
    profiles = {(head["instrument"], head["variable"]) for head in index["charts"] if head["kind"] == "profile"}
    return sorted(
        (group["key"], variable["name"])
        for group in index["groups"]
        for variable in group["variables"]
        if (group["key"], variable["name"]) in columns | profiles
        and variable["steps"] > 1
        and len(variable["dims"]) <= 1
    )


def _text(value: Any) -> str:
    return base64.b64encode(gzip.compress(pack(value), mtime=0)).decode("ascii")


def _page(bundle: Path, names: str, carried: dict[str, Any]) -> str:
    script = (bundle / "view.js").read_text(encoding="utf-8")
    # within a script element neither may begin the end of one nor a comment
    script = re.sub(r"<(?=/script|!--|script)", r"\\x3c", script, flags=re.IGNORECASE)
    style = (bundle / "view.css").read_text(encoding="utf-8")
    if "</style" in style.lower():
        raise StratoscopeError("The style sheet of the page cannot be put into one file.")
    policy = "; ".join(
        (
            "default-src 'none'", f"script-src '{_hash(script)}'", f"style-src '{_hash(style)}'", "img-src data: blob:",
            "base-uri 'none'", "form-action 'none'",
        )
    )  # fmt: skip
    return "\n".join(
        (
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8" />',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}" />',
            '<meta name="viewport" content="width=device-width, initial-scale=1" />',
            '<meta name="color-scheme" content="light dark" />',
            f"<title>{escape(names)} · Stratoscope</title>",
            f"<style>{style}</style></head>",
            '<body><div id="app"></div>',
            f'<script type="application/json" id="carried">{json_in_script(carried)}</script>',
            f'<script type="module">{script}</script>',
            "</body></html>",
            "",
        )
    )


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}"
