"""`stratoscope likeness`: two models on the same examples, layer by layer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from stratoscope.record.record import Record


def register(app: typer.Typer) -> None:
    """Add the subcommand."""
    app.command("likeness")(command)


def command(
    first: Annotated[str, typer.Argument(help="A model: file.py:function or module:attribute.")],
    second: Annotated[str, typer.Argument(help="Another one; the first again where it is left out.")] = "",
    weights: Annotated[
        Path | None, typer.Option(help="Load these weights into the first (every key must fit).")
    ] = None,
    other_weights: Annotated[Path | None, typer.Option(help="Load these weights into the second.")] = None,
    data: Annotated[
        str | None, typer.Option(help="A .npz or .safetensors file, a folder of images, or file.py:function.")
    ] = None,
    layers: Annotated[list[str], typer.Option(help="Look at layers of this pattern only, as 'layer1.*'.")] = [],  # noqa: B006 - typer copies it for each call
    device: Annotated[str, typer.Option(help="Where to run: cpu, cuda, cuda:1, ...")] = "cpu",
    limit: Annotated[int, typer.Option(help="Examples drawn from each split.")] = 1000,
    batch_size: Annotated[int, typer.Option(help="Examples a forward pass.")] = 128,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    memory: Annotated[str, typer.Option(help="What kept samples may take, as 512M or 2G.")] = "1G",
    to: Annotated[Path | None, typer.Option(help="Keep the record in this folder.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write the report to this file.")] = None,
    config: Annotated[Path | None, typer.Option(help="A settings file instead of ./stratoscope.toml.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Compare what two models say of the same examples: where they part ways, and which layers are the same.

    Example: stratoscope likeness model.py:build --weights before.pt --other-weights after.pt --data data.npz --html map.html
    """
    from stratoscope.cli.examine import build
    from stratoscope.cli.output import measured, progress, show, size
    from stratoscope.errors import SettingError
    from stratoscope.network.sources import read_data
    from stratoscope.network.subject import Subject
    from stratoscope.observe.likeness import likeness
    from stratoscope.observe.settings import load_settings

    if data is None:
        raise SettingError("Likeness compares what two models say of data; name some with --data.")
    if not second and weights == other_weights:
        raise SettingError("There is one model only; name a second one, or its weights with --other-weights.")
    settings = load_settings(config)
    sides = [(first, weights), (second or first, other_weights)]
    subjects = [
        Subject(build(spec, path, device), name=spec.rpartition(":")[2] + (f" {path.name}" if path else ""))
        for spec, path in sides
    ]

    def run() -> Record:
        with progress() as tell:
            return likeness(
                subjects[0], subjects[1], read_data(data), to=to, layers=layers, n=limit, batch_size=batch_size, seed=seed,
                memory=size(memory), settings=settings, progress=tell,
            )  # fmt: skip

    record, cancelled = measured(run)
    show(record, as_json_too=json, html=html, strict=False, cancelled=cancelled)
