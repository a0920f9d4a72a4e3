"""The ledger: what came out of every claim, one row for each claim and budget, in a JSON file.

The package ships one, `studies/ledger.json`. `study run` writes to

1. the file that `STRATOSCOPE_LEDGER` names, if it names one;
2. the shipped one, in a checkout of the repository;
3. else `stratoscope/ledger.json` in the user's state folder (`XDG_STATE_HOME`, or `~/.local/state`).

What is read is the shipped one and the one that is written; of two rows for a claim and budget, the newer.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from stratoscope.errors import RecordError
from stratoscope.studies.claim import Verdict

VARIABLE = "STRATOSCOPE_LEDGER"
SHIPPED = Path(__file__).with_name("ledger.json")
FORMAT = 1

NOT_RUN = "not run at this budget"
STALE = "measured with an older version of the study"


@dataclass(frozen=True)
class Row:
    """What came out of one claim at one budget.

    Attributes:
        study: its name.
        paper: the source.
        claim: the statement.
        where: its place in the source.
        note: what a reader must know.
        expected: whether it should hold, by the paper or by later work.
        result: `"held"`, `"did not hold"` or `"undecided"`.
        reason: why, in one sentence.
        measure: what the effect is.
        units: its unit.
        numbers: `mean`, `low`, `high`, `margin` of the effect, and others that the check gave.
        spread: standard deviation over seeds; `None` without seeds.
        seeds: how many; 0 for a fact.
        per_seed: the effect of each seed; `None` where it was not finite.
        budget: `"smoke"`, `"analogue"` or `"full"`.
        tasks: how many were finished, skipped, failed.
        task_seconds: what they took together.
        date: when, UTC.
        version: of stratoscope.
        digest: of the study's source.
        failed: whether the check itself failed.
        stale: whether the study's source has changed since; not kept in the file.
    """

    study: str
    paper: str
    claim: str
    where: str
    expected: bool
    result: str
    reason: str
    budget: str
    note: str = ""
    measure: str = ""
    units: str = "1"
    numbers: Mapping[str, float] = field(default_factory=dict)
    spread: float | None = None
    seeds: int = 0
    per_seed: Mapping[str, float | bool | None] = field(default_factory=dict)
    tasks: Mapping[str, int] = field(default_factory=dict)
    task_seconds: float = 0.0
    date: str = ""
    version: str = ""
    digest: str = ""
    failed: bool = False
    stale: bool = False

    @property
    def key(self) -> tuple[str, str, str]:
        """What tells it from others."""
        return self.study, self.claim, self.budget

    @property
    def as_expected(self) -> bool | None:
        """Whether it came out as expected; `None` while it is undecided."""
        return None if self.result == Verdict.UNDECIDED else (self.result == Verdict.HELD) == self.expected


_FIELDS = {each.name: each for each in fields(Row) if each.name != "stale"}
_NEEDED = ("study", "claim", "budget", "result", "where", "expected", "reason", "paper")


def written_to() -> Path:
    """The file that `study run` writes."""
    named = os.environ.get(VARIABLE)
    if named:
        return Path(named).expanduser().resolve()
    if (SHIPPED.parents[3] / "pyproject.toml").is_file() and os.access(SHIPPED.parent, os.W_OK):
        return SHIPPED
    state = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(state, "stratoscope", "ledger.json")


def read(*paths: Path) -> dict[tuple[str, str, str], Row]:
    """Every row, of all files together; the newer where two have one key.

    Args:
        *paths: files, of which some may not be there; the shipped one and the one that is written by default.

    Raises:
        RecordError: if one is damaged.
    """
    found: dict[tuple[str, str, str], Row] = {}
    for path in paths or (SHIPPED, written_to()):
        for row in map(_row, _items_in(path)):
            if row.key not in found or row.date >= found[row.key].date:
                found[row.key] = row
    return found


def write(rows: Iterable[Row], path: Path | None = None) -> Path:
    """Put rows into the ledger, in place of those with the same key.

    Rows of the same study and budget whose claim is not among them are dropped: the study no longer makes it. Several
    processes may write at once; a reader sees one whole file or another.

    Args:
        rows: what came out; all claims of a study at a budget together.
        path: the file; `written_to()` by default.

    Returns:
        The file.

    Raises:
        RecordError: if it is damaged (it is left as it is), or cannot be written.
    """
    path, new = (written_to() if path is None else path.resolve()), list(rows)
    renewed = {(row.study, row.budget) for row in new}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path.parent):
            kept = [item for item in _items_in(path) if (item["study"], item["budget"]) not in renewed]
            _replace(path, _text([*kept, *map(_item, new)]))
    except OSError as error:
        raise RecordError(
            f"The ledger {path} cannot be written ({error.strerror}); name another file with {VARIABLE}."
        ) from error
    return path


def check() -> Path:
    """Make sure, before hours of work, that the ledger can be read and written; where it is.

    Raises:
        RecordError: if it cannot.
    """
    return write(())


def _items_in(path: Path) -> list[dict[str, Any]]:
    """The rows as they stand there, with fields that a later release may have added."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise _damaged(path, error) from error
    try:
        table = json.loads(text)
        if table["format"] > FORMAT:
            raise RecordError(f"The ledger {path} is of a newer release; install that, or name another: {VARIABLE}.")
        items: list[dict[str, Any]] = table["rows"]
        for item in items:
            _row(item)
        return items
    except (ValueError, TypeError, KeyError) as error:
        raise _damaged(path, error) from error


def _row(item: Mapping[str, Any]) -> Row:
    missing = [name for name in _NEEDED if name not in item]
    if missing:
        raise ValueError(f"a row has no {missing[0]!r}")
    row = Row(**{name: value for name, value in item.items() if name in _FIELDS})
    if not all(isinstance(part, str) for part in (*row.key, row.date)) or row.result not in tuple(Verdict):
        raise ValueError(f"a row is no row: {row.key!s:.80}")
    return row


def _damaged(path: Path, error: Exception) -> RecordError:
    why = " ".join(str(error).split())[:120]
    return RecordError(f"The ledger {path} is damaged ({why}); mend it or move it away, nothing in it was changed.")


def _item(row: Row) -> dict[str, Any]:
    return {name: value for name, value in asdict(row).items() if name in _FIELDS}


def _text(items: Iterable[Mapping[str, Any]]) -> str:
    order = sorted(items, key=lambda item: (item["study"], item["budget"]))  # claims stay in the order of the study
    return json.dumps({"format": FORMAT, "rows": order}, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _replace(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with draft.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One writer at a time, where the system has such locks; a killed one leaves none behind."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network disks have none
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
