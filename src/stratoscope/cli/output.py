"""What several subcommands share: JSON, tables, progress, exit codes."""

from __future__ import annotations

import json
import math
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from stratoscope.record.record import Record

Muted = Annotated[
    list[str], typer.Option("--mute", help="Leave out findings of this code, as UN002 or UN* (may be repeated).")
]
"""The option by which several subcommands leave findings out."""

PATIENCE = 1.0
"""Seconds after which something that is still running shows how far it is."""


def as_json(record: Record) -> dict[str, Any]:
    """The stable object that `inspect` and `examine` print: `layers`, `findings`, and where they come from."""
    from stratoscope.report.rows import rows_of

    meta = record.meta
    found = {
        "name": meta.get("name", ""),
        "versions": meta.get("versions", {}),
        "data": meta.get("data", {}),
        "status": meta.get("status", ""),
        "layers": rows_of(record),
        "findings": [asdict(finding) for finding in record.findings],
    }
    return found | {key: meta[key] for key in ("opened", "series", "comparison", "notes") if meta.get(key)}


def print_json(value: Any) -> None:
    """Strict JSON: NaN and infinity are null."""
    typer.echo(json.dumps(clean(value), indent=2, allow_nan=False, ensure_ascii=False))


def clean(value: Any) -> Any:
    """The same value with nothing that JSON lacks."""
    if isinstance(value, dict):
        return {str(key): clean(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [clean(item) for item in value]
    if hasattr(value, "item") and not isinstance(value, (str, bytes)):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def measured(run: Callable[[], Record]) -> tuple[Record, bool]:
    """A record, and whether it is partial because of Ctrl-C."""
    from stratoscope.errors import Cancelled

    try:
        return run(), False
    except Cancelled as stop:
        return stop.record, True


def show(
    record: Record,
    *,
    as_json_too: bool,
    html: Path | None,
    strict: bool,
    every: bool = False,
    cancelled: bool = False,
) -> None:
    """Print a record, write its page, and leave with the right exit code.

    Args:
        record: what to show.
        as_json_too: print JSON instead of tables.
        html: where to write the page.
        strict: exit with 1 if there are issues.
        every: leave no row out.
        cancelled: whether it is partial because of Ctrl-C; the exit code is 130 then.
    """
    if html is not None:
        from stratoscope.report.html import write_html

        write_html(record, html)
    if as_json_too:
        print_json(as_json(record))
    else:
        from stratoscope.report.terminal import print_report

        print_report(record, every=every)
        if html is not None:
            typer.echo(f"Report: {html}")
    if cancelled:
        raise typer.Exit(130)
    leave(record, strict)


def leave(record: Record, strict: bool) -> None:
    """Exit with 1 if issues were found and that was asked for."""
    if strict and any(finding.outcome == "issue" for finding in record.findings):
        raise typer.Exit(1)


@contextmanager
def progress() -> Iterator[Callable[[str, int, int], None]]:
    """Something to tell `(what, done, total)`; a bar on standard error from the first second on, if that is a terminal.

    The bar says how long the rest will take.
    """
    if not sys.stderr.isatty():
        yield lambda what, done, total: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from stratoscope.charts.numbers import elide

    columns = (
        *(TextColumn("{task.description}", markup=False), BarColumn(24), TaskProgressColumn(), TimeElapsedColumn()),
        *(TextColumn("so far,"), TimeRemainingColumn(), TextColumn("left")),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("starting", total=None, visible=False)
        # shown also if what it was told last goes on for long
        late = threading.Timer(PATIENCE, lambda: bar.update(task, visible=True))
        late.daemon = True
        late.start()
        try:
            yield lambda what, done, total: bar.update(task, description=elide(what, 48), completed=done, total=total)
        finally:
            late.cancel()


def size(text: str) -> int:
    """Bytes from text such as `512M` or `2G`.

    >>> size("1.5K")
    1536
    """
    from stratoscope.errors import SettingError

    units = {"K": 10, "M": 20, "G": 30, "T": 40}
    number, unit = (text[:-1], text[-1].upper()) if text[-1:].upper() in units else (text, "")
    try:
        found = float(number) * 2 ** units.get(unit, 0)
    except ValueError as error:
        raise SettingError(f"{text!r} is no size; write for example 512M or 2G.") from error
    if not 0 < found < 2**60:
        raise SettingError(f"{text!r} is no size; write for example 512M or 2G.")
    return int(found)
