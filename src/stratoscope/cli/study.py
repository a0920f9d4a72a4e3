"""`stratoscope study list`, `stratoscope study run`: published claims, executed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

import typer


def register(app: typer.Typer) -> None:
    """Add the subcommands."""
    group = typer.Typer(help="Studies: claims of papers, executed.", no_args_is_help=True)
    group.command("list")(list_studies)
    group.command("run")(run)
    app.add_typer(group, name="study")


def list_studies(json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False) -> None:
    """List every study: its question, its paper and its claims.

    Example: stratoscope study list
    """
    from stratoscope.cli.output import print_json
    from stratoscope.studies import registry

    rows = [
        {
            "name": study.name,
            "title": study.title,
            "paper": study.paper,
            "question": study.question,
            "seeds": {str(each): count for each, count in study.seeds.items()},
            "claims": [{"claim": c.says, "where": c.where, "expected": c.expected} for c in study.claims],
        }
        for study in registry.available().values()
    ]
    if json:
        print_json(rows)
        return
    from stratoscope.report.claims import print_studies

    print_studies(rows)


def run(
    name: Annotated[str, typer.Argument(help="The study.")],
    budget: Annotated[str, typer.Option(help="smoke, analogue or full.")] = "analogue",
    seeds: Annotated[int | None, typer.Option(min=1, help="How many seeds; by default what the study says.")] = None,
    engine: Annotated[
        str | None, typer.Option(help="Where tasks are done: serial (as smoke runs by default), local, local:N.")
    ] = None,
    to: Annotated[Path | None, typer.Option(help="The folder of the records; runs/studies by default.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 if a task or a check failed.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Run a study, check its claims, and put what came out into the ledger. What was done before is not done again.

    Example: stratoscope study run self-regularisation --budget smoke
    """
    from stratoscope.cli.output import print_json, progress
    from stratoscope.studies import ledger, registry
    from stratoscope.studies.listing import as_json
    from stratoscope.studies.running import FOLDER, run_study
    from stratoscope.studies.study import Budget

    study, allowed = registry.study(name), cast(Budget, checked_budget(budget))
    file = ledger.check()
    with progress() as tell:
        found = run_study(study, allowed, seeds=seeds, engine=engine, to=to or FOLDER, progress=tell)
    ledger.write(found.rows)
    rows = [as_json(row) for row in found.rows]
    tasks = [
        {"spec": dict(r.spec), "state": r.state, "reason": r.reason, "seconds": r.seconds, "folder": str(r.folder)}
        for r in found.results
    ]
    if json:
        about = {"study": name, "budget": budget, "seconds": found.seconds, "folder": str(found.folder)}
        print_json({**about, "ledger": str(file), "tasks": tasks, "claims": rows})
    else:
        from stratoscope.report.claims import print_outcome

        print_outcome(rows, tasks, found.seconds, str(found.folder), str(file))
    if strict and found.failed:
        raise typer.Exit(1)


def checked_budget(budget: str) -> str:
    """A budget that there is.

    Raises:
        SettingError: if there is none of this name.
    """
    from stratoscope.errors import SettingError
    from stratoscope.studies.study import BUDGETS

    if budget not in BUDGETS:
        raise SettingError(f"There is no budget {budget!r}; there are {', '.join(BUDGETS)}.")
    return budget
