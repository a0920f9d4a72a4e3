"""Runs a study: its tasks by an engine, then its claims on what they measured."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from stratoscope.engine.registry import Engine, Progress
from stratoscope.engine.registry import run as run_tasks
from stratoscope.engine.task import FAILED, FINISHED, SKIPPED, Result, sentence_of
from stratoscope.errors import NotApplicable, SettingError
from stratoscope.record.folder import Lock, cannot_write
from stratoscope.studies.claim import Claim, Decision, Evidence, Verdict, decide
from stratoscope.studies.ledger import Row
from stratoscope.studies.runs import Run, StudyRuns, has
from stratoscope.studies.study import BUDGETS, Budget, Study
from stratoscope.version import __version__

FOLDER = Path("runs", "studies")
"""Where records go, from where one is."""

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """What came of a study.

    Attributes:
        study: which.
        budget: how much.
        folder: where the records lie, one folder a task.
        results: of the tasks.
        rows: for each claim what came out, as it goes into the ledger.
        seconds: what it took this time; tasks that were done before took none.
    """

    study: Study
    budget: Budget
    folder: Path
    results: tuple[Result, ...]
    rows: tuple[Row, ...]
    seconds: float

    @property
    def failed(self) -> list[str]:
        """What went wrong: tasks and checks, a sentence each."""
        tasks = [f"{result.folder.name}: {result.reason}" for result in self.results if result.state == FAILED]
        return tasks + [row.reason for row in self.rows if row.failed]

    @property
    def runs(self) -> StudyRuns:
        """What the finished tasks measured."""
        return _runs_of([result for result in self.results if result.state == FINISHED])


def run_study(
    study: Study,
    budget: Budget = "analogue",
    *,
    seeds: int | None = None,
    engine: Engine | str | None = None,
    to: str | Path = FOLDER,
    progress: Progress | None = None,
) -> Outcome:
    """Run a study, or go on with it: tasks that were finished before are not done again.

    Args:
        study: which.
        budget: `"smoke"`, `"analogue"` or `"full"`.
        seeds: how many; by default what the study says for this budget.
        engine: where tasks are done: an engine, or a name such as `"serial"`, `"local:4"`. By default in this process
            for a smoke run, which is shorter than the start of others, else `"local"`.
        to: the folder below which records go, in one named as the study.
        progress: told `(what, done, total)`.

    Raises:
        SettingError: if there is no such budget or engine, or the study declares tasks that cannot be.
        RecordError: if the folder cannot be written, or another process is running this study there.
    """
    if budget not in BUDGETS:
        raise SettingError(f"There is no budget {budget!r}; there are {', '.join(BUDGETS)}.")
    count = study.seeds[budget] if seeds is None else seeds
    if count < 1:
        raise SettingError(f"seeds={count} must be at least 1.")
    began = time.perf_counter()
    root = Path(to).resolve()
    tasks = study.make_tasks(budget, count, root)
    home = root / study.name
    try:
        home.mkdir(parents=True, exist_ok=True)
        lock = Lock.take(home)
    except OSError as error:
        raise cannot_write(home, error) from error
    try:
        results = tuple(run_tasks(tasks, engine or ("serial" if budget == "smoke" else "local"), progress))
        rows = tuple(_row(study, claim, budget, results) for claim in study.claims)
    finally:
        lock.release()
    return Outcome(study, budget, home, results, rows, round(time.perf_counter() - began, 1))


def _row(study: Study, claim: Claim, budget: Budget, results: Sequence[Result]) -> Row:
    """One claim, checked on its tasks."""
    own = [result for result in results if has(result.spec, claim.of)]
    evidence, decision, failed = _checked(claim, budget, own)
    ends = {"mean": decision.mean, "low": decision.low, "high": decision.high, "margin": decision.margin}
    found = {name: float(value) for name, value in {**ends, **evidence.numbers}.items() if math.isfinite(value)}
    return Row(
        study=study.name,
        paper=study.paper,
        claim=claim.says,
        where=claim.where,
        note=claim.note,
        expected=claim.expected,
        result=decision.result,
        reason=decision.reason,
        measure=evidence.long_name,
        units=evidence.units,
        numbers=found,
        spread=_finite(decision.spread),
        seeds=decision.seeds,
        per_seed={} if evidence.interval else {str(seed): _finite(value) for seed, value in evidence.effect.items()},
        budget=budget,
        tasks={state: sum(r.state == state for r in own) for state in (FINISHED, SKIPPED, FAILED)},
        task_seconds=round(sum(result.seconds for result in own), 1),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        version=__version__,
        digest=study.digest,
        failed=failed,
    )


def _checked(claim: Claim, budget: Budget, own: Sequence[Result]) -> tuple[Evidence, Decision, bool]:
    nothing = Evidence({}, "")
    undone = [result for result in own if result.state != FINISHED]
    if not own:
        return nothing, _undecided(f"no task of the {budget} budget measures it"), False
    if undone:
        first = min(undone, key=lambda result: result.state)  # what failed before what was skipped
        others = f" ({len(undone)} of {len(own)} tasks)" if len(undone) > 1 else ""
        return nothing, _undecided(f"task {first.folder.name} {first.state}: {first.reason}{others}"), False
    runs = _runs_of(own)
    try:
        evidence = claim.check(runs)
        decision = decide(evidence)
    except NotApplicable as answer:
        return nothing, _undecided(f"not applicable: {answer}"), False
    except Exception as error:
        _LOG.debug("a check failed", exc_info=error)
        return nothing, _undecided(f"its check failed: {sentence_of(error)}"), True
    finally:
        runs.close()
    if budget == "smoke":
        decision = _undecided("a smoke run decides nothing; it proves that the code runs", decision)
    return evidence, decision, False


def _finite(value: float | bool) -> float | bool | None:
    return value if math.isfinite(value) else None


def _undecided(reason: str, of: Decision | None = None) -> Decision:
    if of is None:
        return Decision(Verdict.UNDECIDED, reason, math.nan, math.nan, math.nan, math.nan, math.nan, 0)
    return Decision(Verdict.UNDECIDED, reason, of.mean, of.low, of.high, of.margin, of.spread, of.seeds)


def _runs_of(results: Sequence[Result]) -> StudyRuns:
    return StudyRuns([Run(result.spec, result.folder) for result in results])
