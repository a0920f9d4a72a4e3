"""`stratoscope ledger`: what came out of every claim."""

from __future__ import annotations

from typing import Annotated, cast

import typer


def register(app: typer.Typer) -> None:
    """Add the subcommand."""
    app.command("ledger")(command)


def command(
    study: Annotated[list[str], typer.Option(help="Claims of this study only (may be repeated).")] = [],  # noqa: B006 - typer copies it for each call
    budget: Annotated[
        str | None, typer.Option(help="What came out at this budget; by default the largest that decided.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
) -> None:
    """List every claim of every study: what came out, with numbers, seeds, spread and budget.

    Example: stratoscope ledger --study self-regularisation
    """
    from stratoscope.cli.output import print_json
    from stratoscope.cli.study import checked_budget
    from stratoscope.studies import ledger, registry
    from stratoscope.studies.listing import as_json, listed
    from stratoscope.studies.study import Budget

    chosen = [registry.study(name) for name in study] or list(registry.available().values())
    wanted = None if budget is None else cast(Budget, checked_budget(budget))
    rows = listed(chosen, ledger.read(), wanted)
    if json:
        print_json([as_json(row) for row in rows])
        return
    from stratoscope.report.claims import print_claims

    print_claims([as_json(row) for row in rows])
