"""`stratoscope cut`: really run a network only up to a layer, and see what that costs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from stratoscope.observe.cut_network import Cut


def register(app: typer.Typer) -> None:
    """Add the subcommand."""
    app.command("cut")(command)


def command(
    spec: Annotated[str, typer.Argument(help="Where the model comes from: file.py:function or module:attribute.")],
    weights: Annotated[Path | None, typer.Option(help="Load these weights into it (every key must fit).")] = None,
    data: Annotated[
        str | None, typer.Option(help="A .npz or .safetensors file, a folder of images, or file.py:function.")
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(help="Cut after this layer; by default after the one that the depth diagnosis advises."),
    ] = None,
    fit: Annotated[str | None, typer.Option(help="Fit the probe on this split; train or the first by default.")] = None,
    score: Annotated[str | None, typer.Option(help="Compare on this split; the first other one by default.")] = None,
    pooling: Annotated[
        str, typer.Option(help="How a map becomes features: gap (mean over places) or flatten.")
    ] = "gap",
    device: Annotated[str, typer.Option(help="Where to run: cpu, cuda, cuda:1, ...")] = "cpu",
    limit: Annotated[int, typer.Option(help="Examples drawn from each split.")] = 2000,
    batch_size: Annotated[int, typer.Option(help="Examples a forward pass.")] = 128,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    config: Annotated[Path | None, typer.Option(help="A settings file instead of ./stratoscope.toml.")] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 if the cut network is right less often, beyond the interval.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Run a model only up to a layer, fit a linear probe there, and compare both on the same held-out examples.

    Example: stratoscope cut model.py:build --weights w.safetensors --data data.npz --at layer3
    """
    from stratoscope.cli.examine import build
    from stratoscope.cli.output import print_json, progress
    from stratoscope.errors import SettingError
    from stratoscope.network.sources import read_data
    from stratoscope.observe.cutting import cut
    from stratoscope.observe.settings import load_settings

    if data is None:
        raise SettingError("A network is cut while it runs; name its data with --data.")
    settings = load_settings(config)
    model = build(spec, weights, device)
    with progress() as tell:
        found = cut(
            model, read_data(data), at, fit=fit, score=score, pooling=pooling, probe=limit, batch_size=batch_size,
            seed=seed, settings=settings, progress=tell,
        )  # fmt: skip
    if json:
        print_json(found.plain())
    else:
        _print(found)
    if strict and found.worse:
        raise typer.Exit(1)


def _print(found: Cut) -> None:
    from stratoscope.report.cutting import print_cut

    print_cut(found)
