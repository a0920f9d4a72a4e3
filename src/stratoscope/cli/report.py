"""`stratoscope report`: read a record again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stratoscope.cli.output import Muted


def register(app: typer.Typer) -> None:
    """Add the subcommand."""
    app.command("report")(command)


def command(
    run: Annotated[Path, typer.Argument(help="The folder of a run.")],
    html: Annotated[Path | None, typer.Option(help="Write the report to this file.")] = None,
    config: Annotated[Path | None, typer.Option(help="Judge again with this settings file.")] = None,
    mute: Muted = [],  # noqa: B006 - typer copies it for each call
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 if issues are found.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Print what a run found, and write its page.

    A run that was killed was not judged (it holds failures at most); that is then done from what it saved.

    Example: stratoscope report runs/mlp --html mlp.html
    """
    from stratoscope.cli.output import show
    from stratoscope.observe.judging import rejudged, silenced
    from stratoscope.observe.overrides import overridden
    from stratoscope.observe.settings import Settings, load_settings
    from stratoscope.record.record import Record
    from stratoscope.report.advice import was_judged
    from stratoscope.report.codes import known_patterns

    record = Record.open(run)
    muted = known_patterns(mute, [finding.code for finding in record.findings])
    if config is not None or not was_judged(record):
        record = rejudged(record, overridden(load_settings(config), mute=muted))
    elif muted:
        record = record.with_findings(silenced(record.findings, Settings(mute=muted)))
    show(record, as_json_too=json, html=html, strict=strict)
