"""`stratoscope view`: the live page of one run or many."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from stratoscope.view.runs import Runs


def register(app: typer.Typer) -> None:
    """Add the subcommand."""
    app.command("view")(command)


def command(
    runs: Annotated[list[Path], typer.Argument(help="A run, a folder of runs, or a checkpoint; one or more.")],
    port: Annotated[int, typer.Option(help="Where to listen; a free port by default.", min=0, max=65535)] = 0,
    host: Annotated[
        str, typer.Option(help="Address to listen at; any but this machine's own lets others in who have the token.")
    ] = "127.0.0.1",
    open_it: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in the browser.")] = True,
    export: Annotated[Path | None, typer.Option(help="Write page and data as one file instead, and leave.")] = None,
) -> None:
    """Look at runs in the browser: charts that follow one cursor, layers, findings; a run in training is followed.

    Example: stratoscope view runs
    """
    from stratoscope.view.bundle import bundle
    from stratoscope.view.serving import serve

    found = _runs(runs)
    page = bundle(lambda what: typer.echo(f"view: {what}", err=True))
    if export is not None:
        from stratoscope.view.export import export_page

        typer.echo(f"Page: {export_page(found, page, export)}")
        return
    serve(found, page, host=host, port=port, open_it=open_it, tell=typer.echo)


def _runs(paths: list[Path]) -> Runs:
    """The runs of some paths; a checkpoint is inspected first, into memory."""
    from stratoscope.observe.inspecting import inspect
    from stratoscope.view.runs import DATABASE, Runs

    folders, records = [], []
    for path in paths:
        run = path.parent if path.name == DATABASE else path
        if run.is_file() or (run.is_dir() and any(run.glob("*.safetensors.index.json"))):
            records.append((path.stem, inspect(path)))
        else:
            folders.append(run)
    return Runs(folders, records)
