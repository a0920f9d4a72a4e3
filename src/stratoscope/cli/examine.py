"""`stratoscope examine`: a model with data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stratoscope.cli.output import Muted

if TYPE_CHECKING:
    from stratoscope.record.record import Record


def register(app: typer.Typer) -> None:
    """Add the subcommand."""
    app.command("examine")(command)


def command(
    spec: Annotated[str, typer.Argument(help="Where the model comes from: file.py:function or module:attribute.")],
    weights: Annotated[Path | None, typer.Option(help="Load these weights into it (every key must fit).")] = None,
    data: Annotated[
        str | None, typer.Option(help="A .npz or .safetensors file, a folder of images, or file.py:function.")
    ] = None,
    transfer: Annotated[
        str | None, typer.Option(help="Data of another task, to which a probe of every layer is fitted; as --data.")
    ] = None,
    loss: Annotated[
        str | None, typer.Option(help="A loss, as file.py:function or torch.nn.functional:mse_loss.")
    ] = None,
    only: Annotated[list[str], typer.Option(help="Run this instrument only (may be repeated).")] = [],  # noqa: B006 - typer copies it for each call
    skip: Annotated[list[str], typer.Option(help="Leave this instrument out (may be repeated).")] = [],  # noqa: B006 - typer copies it for each call
    layers: Annotated[list[str], typer.Option(help="Look at layers of this pattern only, as 'layer1.*'.")] = [],  # noqa: B006 - typer copies it for each call
    device: Annotated[str, typer.Option(help="Where to run: cpu, cuda, cuda:1, ...")] = "cpu",
    limit: Annotated[int, typer.Option(help="Examples drawn from each split.")] = 2000,
    batch_size: Annotated[int, typer.Option(help="Examples a forward pass.")] = 128,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    memory: Annotated[str, typer.Option(help="What kept samples may take, as 512M or 2G.")] = "1G",
    seconds: Annotated[
        float | None, typer.Option("--time", help="Stop after so many seconds; the rest is skipped.")
    ] = None,
    to: Annotated[Path | None, typer.Option(help="Keep the record in this folder.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write the report to this file.")] = None,
    config: Annotated[Path | None, typer.Option(help="A settings file instead of ./stratoscope.toml.")] = None,
    mute: Muted = [],  # noqa: B006 - typer copies it for each call
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 if issues are found.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure what every layer of a model has learned, in one pass over the data.

    Example: stratoscope examine model.py:build --weights w.safetensors --data data.npz --html report.html
    """
    from stratoscope.cli.output import measured, progress, show, size
    from stratoscope.network.sources import load_object, read_data
    from stratoscope.observe.examine import examine
    from stratoscope.observe.overrides import overridden
    from stratoscope.observe.settings import load_settings
    from stratoscope.report.codes import known_patterns

    settings = overridden(load_settings(config), mute=known_patterns(mute))
    model = build(spec, weights, device)

    def run() -> Record:
        with progress() as tell:
            return examine(
                model, read_data(data) if data is not None else None, loss=load_object(loss) if loss else None,
                transfer=read_data(transfer) if transfer is not None else None, to=to,
                only=only, skip=skip, layers=layers, probe=limit, batch_size=batch_size, seed=seed,
                memory=size(memory), seconds=seconds, settings=settings, progress=tell,
            )  # fmt: skip

    record, cancelled = measured(run)
    show(record, as_json_too=json, html=html, strict=strict, cancelled=cancelled)


def build(spec: str, weights: Path | None, device: str) -> Any:
    """The model that a SPEC names, with its weights, where it is to run.

    Raises:
        StratoscopeError: if it names no module, the weights do not fit, or there is no such device.
    """
    import torch

    from stratoscope.errors import SettingError, SubjectError
    from stratoscope.network.opening import open_weights
    from stratoscope.network.sources import load_object
    from stratoscope.network.weights import WithTwins

    found = load_object(spec)
    try:
        model = found if isinstance(found, torch.nn.Module) else found()
    except Exception as error:
        why = " ".join(str(error).split())[:300]
        raise SubjectError(f"{spec} failed when it was called: {type(error).__name__}: {why}") from error
    if not isinstance(model, torch.nn.Module):
        raise SubjectError(f"{spec} gives {type(model).__name__}, not a torch.nn.Module.")
    if weights is not None:
        source = WithTwins(open_weights(weights), model)
        state = {name: source.load(name) for name in source.describe()}
        try:
            model.load_state_dict(state, strict=True)
        except RuntimeError as error:
            first = " ".join(str(error).split())[:300]
            raise SubjectError(f"The weights in {weights} do not fit {type(model).__name__}: {first}") from error
    try:
        return model.to(device)
    except (RuntimeError, AssertionError) as error:
        raise SettingError(f"--device {device} cannot be used here: {str(error).splitlines()[0]}") from error
