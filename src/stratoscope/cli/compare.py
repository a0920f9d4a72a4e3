"""`stratoscope compare`: two runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the subcommand."""
    app.command("compare")(command)


def command(
    first: Annotated[Path, typer.Argument(help="The folder of a run.")],
    second: Annotated[Path, typer.Argument(help="The folder of another run.")],
    top: Annotated[int, typer.Option(help="Show so many of the largest differences.")] = 20,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Compare what two runs measured at the last step that both have, the largest relative difference first.

    Example: stratoscope compare runs/a runs/b
    """
    from dataclasses import asdict

    from stratoscope.cli.output import print_json
    from stratoscope.record.combine import compare
    from stratoscope.record.record import Record

    differences = compare(Record.open(first), Record.open(second))
    if json:
        print_json({"first": str(first), "second": str(second), "differences": [asdict(d) for d in differences]})
        return
    from stratoscope.report.terminal import print_comparison

    print_comparison(differences, str(first), str(second), top)
