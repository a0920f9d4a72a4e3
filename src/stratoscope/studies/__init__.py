"""Published claims, executed: a folder for each paper, and a ledger of what came out.

`stratoscope.studies.study` shows how one is declared, `stratoscope.studies.claim` how claims are decided.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stratoscope.studies.claim import Claim, Evidence, Verdict
    from stratoscope.studies.runs import Run, StudyRuns
    from stratoscope.studies.study import Budget, Study

_HOME = {
    "Budget": "study",
    "Claim": "claim",
    "Evidence": "claim",
    "Run": "runs",
    "Study": "study",
    "StudyRuns": "runs",
    "Verdict": "claim",
}

__all__ = ["Budget", "Claim", "Evidence", "Run", "Study", "StudyRuns", "Verdict"]


def __getattr__(name: str) -> Any:
    """Import a name where it is first used."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
