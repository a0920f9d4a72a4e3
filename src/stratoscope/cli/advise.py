"""`stratoscope advise`: what to do, from a record alone, with the thresholds that you want."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stratoscope.cli.output import Muted

if TYPE_CHECKING:
    from stratoscope.observe.overrides import Override
    from stratoscope.record.record import Record


def register(app: typer.Typer) -> None:
    """Add the subcommand."""
    app.command("advise")(command)


def command(
    run: Annotated[Path, typer.Argument(help="The folder of a run, finished, killed or still going on.")],
    config: Annotated[Path | None, typer.Option(help="A settings file instead of ./stratoscope.toml.")] = None,
    assign: Annotated[
        list[str],
        typer.Option(
            "--set",
            metavar="KEY.FIELD=VALUE",
            help="Judge with this setting, as units.dead_limit=0.3 (may be repeated).",
        ),
    ] = [],  # noqa: B006 - typer copies it for each call
    mute: Muted = [],  # noqa: B006 - typer copies it for each call
    only: Annotated[list[str], typer.Option(help="Show findings of this code only (may be repeated).")] = [],  # noqa: B006 - typer copies it for each call
    html: Annotated[Path | None, typer.Option(help="Write the report, judged so, to this file.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 if issues are found.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say what a run's findings ask for, judged again from its record; the record stays as it is.

    It says what other thresholds change against the findings that are stored.

    Example: stratoscope advise runs/mlp --set units.dead_limit=0.3 --mute TR005
    """
    from stratoscope.cli.output import print_json, progress
    from stratoscope.observe.judging import rejudged
    from stratoscope.observe.overrides import overridden, override
    from stratoscope.observe.settings import load_settings
    from stratoscope.record.record import Record
    from stratoscope.report.advice import Advice
    from stratoscope.report.codes import known_patterns

    with Record.open(run) as record:
        codes = [finding.code for finding in record.findings]
        given = [override(text) for text in assign]
        settings = overridden(load_settings(config), given, known_patterns(mute, codes))
        chosen = known_patterns(only, codes)
        with progress() as tell:
            tell("judging again", 0, 1)
            again = rejudged(record, settings)
        notes = [note for one in given if (note := _without_effect(one, again))]
        advice = Advice.of(record, again, settings, chosen, notes)
        if html is not None:
            from stratoscope.report.html import write_html

            write_html(again.with_findings(advice.findings), html)
        if json:
            print_json(advice.plain())
        else:
            from stratoscope.report.advising import print_advice

            print_advice(advice)
            if html is not None:
                typer.echo(f"Report: {html}")
    if strict and advice.has_issues:
        raise typer.Exit(1)


def _without_effect(one: Override, record: Record) -> str:
    """Why a setting changes nothing in a record; empty where it may change something."""
    key = one.judge.key
    if not any(name.partition(":")[0] == key for name in record):
        return f"{key} is not in this record, so {key}.{one.field} changes nothing"
    if one.decides_what_is_measured:
        return f"{key}.{one.field} decides what is measured, and this record holds what was; measure again to see what it changes"
    return ""
