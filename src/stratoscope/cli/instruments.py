"""`stratoscope instruments`: what can be measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from stratoscope.instruments.base import Instrument


def register(app: typer.Typer) -> None:
    """Add the subcommand."""
    app.command("instruments")(command)


def command(json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False) -> None:
    """List every instrument: what it measures, what it needs, its source and its findings.

    Example: stratoscope instruments
    """
    from stratoscope.cli.output import print_json
    from stratoscope.instruments.registry import available, settings_of

    rows = []
    for key, cls in available().items():
        instrument = cls()
        rows.append(
            {
                "key": key,
                "title": cls.title,
                "source": cls.source,
                "requires": sorted(str(need) for need in instrument.requires),
                "uses": sorted(str(need) for need in instrument.uses),
                "cost": cost_of(instrument),
                "settings": settings_of(instrument),
                "codes": dict(cls.codes),
            }
        )
    if json:
        print_json(rows)
        return
    from stratoscope.report.terminal import print_instruments

    print_instruments(rows)


def cost_of(instrument: Instrument) -> str:
    """What measuring takes, in words, from what it asks for."""
    from stratoscope.capture.needs import Kept, Live, Operator, Streamed, innermost

    needs = innermost([*instrument.requires, *instrument.uses])
    if any(isinstance(need, Operator) for need in needs):
        return "several passes over the data, counted"
    if any(isinstance(need, Kept) for need in needs):
        return "shares the one pass over the data; keeps a sample"
    if any(isinstance(need, Streamed) for need in needs):
        return "shares the one pass over the data"
    return "at every step of a watched training" if any(isinstance(need, Live) for need in needs) else "weights alone"
