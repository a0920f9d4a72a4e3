"""`stratoscope inspect`: weights alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the subcommand."""
    app.command("inspect")(command)


def command(
    path: Annotated[str, typer.Argument(help="A .safetensors or .pt file, or a folder with a sharded checkpoint.")],
    only: Annotated[list[str], typer.Option(help="Run this instrument only (may be repeated).")] = [],  # noqa: B006 - typer copies it for each call
    skip: Annotated[list[str], typer.Option(help="Leave this instrument out (may be repeated).")] = [],  # noqa: B006 - typer copies it for each call
    layers: Annotated[list[str], typer.Option(help="Look at layers of this pattern only, as 'layer1.*'.")] = [],  # noqa: B006 - typer copies it for each call
    seconds: Annotated[
        float | None, typer.Option("--time", help="Stop after so many seconds; the rest is skipped.")
    ] = None,
    to: Annotated[Path | None, typer.Option(help="Keep the record in this folder.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write the report to this file.")] = None,
    config: Annotated[Path | None, typer.Option(help="A settings file instead of ./stratoscope.toml.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 if issues are found.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure every weight matrix of a checkpoint, without data and without running anything in it.

    Example: stratoscope inspect model.safetensors --html report.html
    """
    from stratoscope.cli.output import progress, show
    from stratoscope.observe.examine import inspect
    from stratoscope.observe.settings import load_settings

    with progress() as tell:
        record = inspect(
            path,
            to=to,
            only=only,
            skip=skip,
            layers=layers,
            seconds=seconds,
            settings=load_settings(config),
            progress=tell,
        )
    show(record, as_json_too=json, html=html, strict=strict)
