"""The ledger as people read it: a row for every claim of every study, whether it was run or not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from typing import Any

from stratoscope.studies.claim import Claim, Verdict
from stratoscope.studies.ledger import NOT_RUN, STALE, Row
from stratoscope.studies.study import BUDGETS, Budget, Study


def listed(
    studies: Iterable[Study], rows: Mapping[tuple[str, str, str], Row], budget: Budget | None = None
) -> list[Row]:
    """One row for each claim.

    Args:
        studies: whose claims.
        rows: what the ledger holds.
        budget: the row of this budget; by default that of the largest at which the claim was decided, else of the
            largest at which it was run, else one that says that it was not run.
    """
    return [_best(study, claim, rows, budget) for study in studies for claim in study.claims]


def _best(study: Study, claim: Claim, rows: Mapping[tuple[str, str, str], Row], budget: Budget | None) -> Row:
    wanted = BUDGETS if budget is None else (budget,)
    found = [row for each in wanted if (row := rows.get((study.name, claim.says, each))) is not None]
    if not found:
        unrun = budget or "analogue"
        return Row(study.name, study.paper, claim.says, claim.where, claim.expected, Verdict.UNDECIDED, NOT_RUN, unrun)
    decided = [row for row in found if row.result != Verdict.UNDECIDED]
    row = (decided or found)[-1]
    return replace(row, stale=row.digest != study.digest)


def as_json(row: Row) -> dict[str, Any]:
    """A row as `--json` prints it."""
    reason = f"{row.reason}; {STALE}" if row.stale else row.reason
    return {**asdict(row), "reason": reason, "result": str(row.result), "as_expected": row.as_expected}
