"""`stratoscope demo`: the whole flow on real input, in under a minute."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from stratoscope.demo import Tick
    from stratoscope.record.record import Record


def register(app: typer.Typer) -> None:
    """Add the subcommand."""
    app.command("demo")(command)


def command(
    out: Annotated[
        Path | None, typer.Option(help="A new folder for the record; a dated one under runs/ by default.")
    ] = None,
    broken: Annotated[
        bool, typer.Option("--broken", help="Train a twin with two faults, which the findings name.")
    ] = False,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training data.")] = 40,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 if issues are found.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of the table.")] = False,
) -> None:
    """Train a small convolutional network on handwritten digits while watching every layer.

    Example: stratoscope demo --out runs/first
    """
    from stratoscope.cli.output import show
    from stratoscope.record.folder import new_run_folder

    folder = out if out is not None else new_run_folder(Path("runs"))
    record = _train(folder, broken, epochs, quiet=json)
    show(record, as_json_too=json, html=folder / "report.html", strict=strict)


def _train(folder: Path, broken: bool, epochs: int, quiet: bool) -> Record:
    from rich.console import Console
    from rich.live import Live

    from stratoscope import demo

    if quiet:
        return demo.run(folder, broken=broken, epochs=epochs)
    ticks: list[Tick] = []
    with Live(_table(ticks, epochs), console=Console(), refresh_per_second=4) as live:

        def tell(tick: Tick) -> None:
            ticks.append(tick)
            live.update(_table(ticks, epochs))

        return demo.run(folder, broken=broken, epochs=epochs, tell=tell)


def _table(ticks: list[Tick], epochs: int) -> Table:
    from rich.table import Table

    table = Table(title="A small convolutional network learns handwritten digits", title_justify="left")
    for name in ("epoch", "step", "loss", "test accuracy", "seconds", "measuring"):
        table.add_column(name, justify="right")
    shown = [tick for tick in ticks if tick.epoch in (1, 2, 5, 10, 20, 40)] + ticks[-1:]
    for tick in dict.fromkeys(shown):
        table.add_row(
            f"{tick.epoch}/{epochs}", str(tick.step), f"{tick.loss:.4f}", f"{tick.test_accuracy:.1%}",
            f"{tick.seconds:.1f}", f"{tick.share:.0%}",
        )  # fmt: skip
    return table
