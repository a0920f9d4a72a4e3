"""Advice: what a record's findings ask for, the most pressing first, and what judging it again has changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from stratoscope.findings import Finding, Outcome
from stratoscope.observe.settings import Settings, matches
from stratoscope.report.codes import meanings, page_of
from stratoscope.report.spent import spent_of
from stratoscope.report.summary import SPOKEN, Saying, sayings

if TYPE_CHECKING:
    from stratoscope.record.record import Record


@dataclass(frozen=True)
class Gone:
    """A finding that was stored and is not made any more.

    Attributes:
        finding: as it is stored.
        now: what became of it, in words.
    """

    finding: Finding
    now: str


@dataclass(frozen=True)
class Advice:
    """What is advised, and how that differs from what is stored.

    Attributes:
        record: judged again.
        settings: that were changed, and what is muted.
        findings: all that are asked for.
        new: those that ask for something and are not stored.
        gone: those that are stored, ask for something, and are not made any more.
        stored: whether the record had been judged before; a killed run was not.
        only: codes that are asked for; all where it is empty.
        notes: what else is to be said.
    """

    record: Record
    settings: Settings
    findings: tuple[Finding, ...]
    new: tuple[Finding, ...]
    gone: tuple[Gone, ...]
    stored: bool
    only: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, before: Record, after: Record, settings: Settings, only: Sequence[str] = (), notes: Sequence[str] = ()
    ) -> Advice:
        """Compare a record as it is stored with the same judged again.

        Args:
            before: as it is stored.
            after: judged again with the settings.
            settings: what was changed and muted.
            only: codes to look at, `HE*` for all that begin so.
            notes: what else is to be said.
        """
        old, found = ([f for f in r.findings if not only or matches(f.code, only)] for r in (before, after))
        stored = was_judged(before)
        new, gone = _changes(old, found) if stored else ([], [])
        return cls(after, settings, tuple(found), tuple(new), tuple(gone), stored, tuple(only), tuple(notes))

    @property
    def sayings(self) -> list[Saying]:
        """What is advised, the most pressing first."""
        return sayings(self.findings)

    def is_new(self, saying: Saying) -> bool:
        """Whether none of what it says is stored."""
        new = {id(finding) for finding in self.new}
        return all(id(finding) in new for finding in saying.items)

    @property
    def has_issues(self) -> bool:
        """Whether anything is very likely wrong."""
        return any(finding.outcome is Outcome.ISSUE for finding in self.findings)

    def plain(self) -> dict[str, Any]:
        """The stable object that `stratoscope advise --json` prints."""
        meta, spent = self.record.meta, spent_of(self.record)
        return {
            "name": str(meta.get("name", "")),
            "run": str(self.record.path or ""),
            "status": str(meta.get("status", "")),
            "settings": {key: dict(table) for key, table in self._tables().items()},
            "muted": list(self.settings.mute),
            "only": list(self.only),
            "notes": list(self.notes),
            "advice": [self._plain(saying) for saying in self.sayings],
            "findings": [asdict(finding) for finding in self.findings],
            "stored": self.stored,
            "new": [asdict(finding) for finding in self.new],
            "gone": [{**asdict(one.finding), "now": one.now} for one in self.gone],
            "spent": None if spent is None else asdict(spent),
        }

    def _tables(self) -> dict[str, Any]:
        return {**self.settings.instruments, **self.settings.diagnoses}

    def _plain(self, saying: Saying) -> dict[str, Any]:
        return {
            **asdict(saying.worst),
            "meaning": meanings().get(saying.code, ""),
            "page": page_of(saying.code),
            "count": len(saying.items),
            "layers": saying.layers,
            "splits": saying.splits,
            "new": self.is_new(saying),
        }


def was_judged(record: Record) -> bool:
    """Whether a record's findings come from judging it; a killed run holds what was noted while it was measured."""
    noted = (Outcome.FAILED, Outcome.NOT_APPLICABLE)
    return record.meta.get("status", "running") != "running" or any(f.outcome not in noted for f in record.findings)


def _changes(old: Sequence[Finding], found: Sequence[Finding]) -> tuple[list[Finding], list[Gone]]:
    """Findings that came, and those that went; what says the same of the same place is the same, whatever its numbers."""
    before, after = ({_identity(f) for f in some if f.outcome in SPOKEN} for some in (old, found))
    new = [f for f in found if f.outcome in SPOKEN and _identity(f) not in before]
    left = {_identity(f)[1:]: f.outcome for f in reversed(found)}
    gone = [f for f in old if f.outcome in SPOKEN and _identity(f) not in after]
    return new, [Gone(f, _became(f, left.get(_identity(f)[1:]))) for f in gone]


def _identity(finding: Finding) -> tuple[Outcome, str, str, str | None, str | None]:
    return finding.outcome, finding.code, finding.instrument, finding.layer, finding.split


def _became(finding: Finding, outcome: Outcome | None) -> str:
    """What became of a finding, given how the same check of the same place ends now."""
    if outcome is not None and outcome is not Outcome.PASSED:
        return f"now {outcome.value.replace('_', ' ')}"
    return "does not fail any more" if finding.outcome is Outcome.FAILED else "within its limit now"
