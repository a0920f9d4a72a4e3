"""A cut network in the terminal, beside the whole one."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from stratoscope.observe.cut_network import Cut


def print_cut(found: Cut, console: Console | None = None) -> None:
    """Print what a cut costs and saves.

    Args:
        found: the comparison.
        console: where to; standard output by default.
    """
    from rich.table import Table as Grid

    from stratoscope.report.console import hanging, safe, speaking

    with speaking(console) as out:
        grid = Grid.grid(padding=(0, 2))
        grid.add_column(no_wrap=True)
        for _ in range(2):
            grid.add_column(justify="right", no_wrap=True)
        for name, *cells in _rows(found):
            grid.add_row(safe(name), *(safe(cell) for cell in cells))
        out.print(grid)
        out.print()
        out.print(hanging("Cut", found.says))


def _rows(found: Cut) -> list[tuple[str, str, str]]:
    """Facts of the network that was cut, and of the whole one."""
    run, saved = len(found.layers_run), len(found.layers_saved)
    kept = found.params - found.params_saved + found.params_probe
    return [
        ("", f"cut after {found.layer}", "whole"),
        (f"accuracy on {found.scored_on}", f"{found.cut.accuracy:.1%}", f"{found.whole.accuracy:.1%}"),
        ("  95 %", f"{found.cut.low:.1%} to {found.cut.high:.1%}", f"{found.whole.low:.1%} to {found.whole.high:.1%}"),
        *([] if found.probed is None else [("a probe before the output", "", f"{found.probed.accuracy:.1%}")]),
        ("layers that run", f"{run:,}", f"{run + saved:,}"),
        ("parameters, with the probe", f"{kept:,}", f"{found.params:,}"),
        ("seconds for 1,000 examples", f"{1e3 * found.seconds_cut:.3g}", f"{1e3 * found.seconds:.3g}"),
    ]
