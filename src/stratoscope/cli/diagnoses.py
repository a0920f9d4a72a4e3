"""`stratoscope diagnoses`: what is derived from what instruments measure."""

from __future__ import annotations

from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the subcommand."""
    app.command("diagnoses")(command)


def command(json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False) -> None:
    """List every diagnosis: which instruments it reads, its source and its findings.

    Example: stratoscope diagnoses
    """
    from stratoscope.cli.output import print_json
    from stratoscope.diagnoses.registry import available
    from stratoscope.instruments.registry import settings_of

    rows = [
        {
            "key": key,
            "title": cls.title,
            "source": cls.source,
            "requires": sorted(cls.reads - cls.optional),
            "uses": sorted(cls.optional),
            "any_of": sorted(cls.any_of),
            "settings": settings_of(cls()),
            "codes": dict(cls.codes),
        }
        for key, cls in available().items()
    ]
    if json:
        print_json(rows)
        return
    from stratoscope.report.terminal import print_instruments

    print_instruments(rows)
