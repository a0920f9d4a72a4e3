"""`stratoscope inspect`: weights alone, of one checkpoint or of several along a training."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from stratoscope.cli.output import Muted

if TYPE_CHECKING:
    from stratoscope.record.record import Record


class OptionalHeads(TyperCommand):
    """`--heads` may stand alone, or before a number."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Give `--heads` the value that it has when it stands alone."""
        done = list(args)
        for place, text in enumerate(args):
            if text == "--heads" and not (place + 1 < len(args) and args[place + 1].lstrip("-").isdecimal()):
                done[place] = "--heads=all"
        return super().parse_args(ctx, done)


def register(app: typer.Typer) -> None:
    """Add the subcommand."""
    app.command("inspect", cls=OptionalHeads)(command)


def command(
    path: Annotated[
        list[str],
        typer.Argument(
            help="A checkpoint (a file, or a folder with a sharded one); several, a folder of several, or a quoted "
            "pattern such as 'runs/*.pt' are a series along the training."
        ),
    ],
    only: Annotated[list[str], typer.Option(help="Run this instrument only (may be repeated).")] = [],  # noqa: B006 - typer copies it for each call
    skip: Annotated[list[str], typer.Option(help="Leave this instrument out (may be repeated).")] = [],  # noqa: B006 - typer copies it for each call
    layers: Annotated[
        list[str], typer.Option(help="Look at layers, tensors or matrices of this pattern only, as 'layer1.*'.")
    ] = [],  # noqa: B006 - typer copies it for each call
    compare: Annotated[
        str | None, typer.Option(help="Another checkpoint: say how far each matrix is from PATH to it.")
    ] = None,
    heads: Annotated[
        str | None,
        typer.Option(
            metavar="[N]", help="Look at each attention head, too; N heads where the checkpoint does not say how many."
        ),
    ] = None,
    view: Annotated[
        str | None, typer.Option(help="How convolutions are seen: matrix, slices (of the kernel) or operator.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random.")] = None,
    seconds: Annotated[
        float | None, typer.Option("--time", help="Stop after so many seconds; the rest is skipped.")
    ] = None,
    to: Annotated[
        Path | None, typer.Option(help="Keep the record in this folder; called again, go on where it stopped.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write the report to this file.")] = None,
    config: Annotated[Path | None, typer.Option(help="A settings file instead of ./stratoscope.toml.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Show every row, those that were not measured too.")] = False,
    mute: Muted = [],  # noqa: B006 - typer copies it for each call
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 if issues are found.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say of every weight matrix whether it is trained, and how one can tell; needs no data and runs nothing in a file.

    Example: stratoscope inspect model.safetensors --html report.html
    """
    from stratoscope.cli.output import measured, progress, show
    from stratoscope.observe.inspecting import inspect
    from stratoscope.observe.overrides import overridden
    from stratoscope.observe.settings import load_settings
    from stratoscope.report.codes import known_patterns

    settings = overridden(load_settings(config), mute=known_patterns(mute))

    def run() -> Record:
        with progress() as bar:
            return inspect(
                *path, to=to, only=only, skip=skip, layers=layers, compare=compare, heads=_heads(heads), view=view,
                seed=seed, seconds=seconds, settings=settings, progress=bar,
                notify=lambda sentence: print(sentence, file=sys.stderr),
            )  # fmt: skip

    record, cancelled = measured(run)
    show(record, as_json_too=json, html=html, strict=strict, every=every, cancelled=cancelled)


def _heads(text: str | None) -> bool | int:
    """What `--heads` asks for."""
    from stratoscope.errors import SettingError

    if text is None or text == "all":
        return text is not None
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise SettingError(f"--heads {text} is no number of heads; write --heads alone, or for example --heads 8.")
    return number
