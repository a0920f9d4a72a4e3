"""What a record says in a few sentences: the verdict, and what was and was not measured."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stratoscope.findings import Finding, Outcome
from stratoscope.instruments.reading import some
from stratoscope.report.spent import spent_of

if TYPE_CHECKING:
    from stratoscope.record.record import Record
    from stratoscope.record.rows import Coverage
    from stratoscope.report.table import Row

SPOKEN = (Outcome.ISSUE, Outcome.FAILED, Outcome.TIP)
"""Outcomes that are shown in full, the most pressing first."""

QUIET = (Outcome.PASSED, Outcome.SKIPPED, Outcome.NOT_APPLICABLE, Outcome.MUTED)
"""Outcomes that are counted."""

_WORDS = {
    Outcome.ISSUE: ("issue", "issues"),
    Outcome.FAILED: ("instrument failed", "instruments failed"),
    Outcome.TIP: ("tip", "tips"),
    Outcome.PASSED: ("check passed", "checks passed"),
    Outcome.SKIPPED: ("check skipped", "checks skipped"),
    Outcome.NOT_APPLICABLE: ("check not applicable", "checks not applicable"),
    Outcome.MUTED: ("muted", "muted"),
}
_STATUS = {"measured": "measured", "not_applicable": "not applicable", "skipped": "skipped", "failed": "failed"}

_WORD, _NUMBER = re.compile(r"[^\s;()'\"]+"), re.compile(r"[-+]?\d[\d.,e+-]*%?")


def grouped(findings: Iterable[Finding]) -> dict[Outcome, list[Finding]]:
    """Findings by outcome, the most pressing first; empty ones are left out."""
    every = list(findings)
    found = {outcome: [f for f in every if f.outcome is outcome] for outcome in (*SPOKEN, *QUIET)}
    return {outcome: same for outcome, same in found.items() if same}


def evidence_of(finding: Finding) -> dict[str, object]:
    """The evidence to print beside a sentence: names that stand in the sentence are not said twice."""
    return {k: v for k, v in finding.evidence.items() if not (isinstance(v, str) and v in finding.says)}


@dataclass(frozen=True)
class Saying:
    """Findings that say the same of several places and ask for the same.

    Attributes:
        worst: the one whose number is furthest beyond its limit; the first of those that are as far.
        items: all of them, in the order in which they came.
    """

    worst: Finding
    items: tuple[Finding, ...]

    @property
    def outcome(self) -> Outcome:
        """Of all of them."""
        return self.worst.outcome

    @property
    def code(self) -> str:
        """Of all of them."""
        return self.worst.code

    @property
    def do(self) -> str:
        """What the worst asks for."""
        return self.worst.do

    @property
    def layers(self) -> list[str]:
        """Every layer that is spoken of, that of the worst first."""
        return _distinct(finding.layer for finding in (self.worst, *self.items))

    @property
    def splits(self) -> list[str]:
        """Every split that is spoken of, that of the worst first."""
        return _distinct(finding.split for finding in (self.worst, *self.items))

    @property
    def others(self) -> str:
        """Of what else the same is said, in words; empty where there is one finding alone."""
        if len(self.items) == 1:
            return ""
        layers = [layer for layer in self.layers if layer != self.worst.layer]
        also = f": also {some(layers)}" if layers else ""
        on = f", on {' and '.join(self.splits)}" if len(self.splits) > 1 else ""
        return f"the worst of {len(self.items):,}{also}{on}"


def sayings(findings: Iterable[Finding]) -> list[Saying]:
    """Findings that ask for something, the most pressing first: what is said of several layers and splits is said once."""
    by_code: dict[tuple[Outcome, str], dict[object, Finding]] = {}
    for finding in (f for outcome, same in grouped(findings).items() if outcome in SPOKEN for f in same):
        said = finding.layer, finding.split, finding.step, finding.says, finding.do
        by_code.setdefault((finding.outcome, finding.code), {}).setdefault(said, finding)
    several = (same for every in by_code.values() for same in _by_advice(list(every.values())))
    return [Saying(max(same, key=beyond), tuple(same)) for same in several]


def beyond(finding: Finding) -> float:
    """How far a finding's number is from its limit, as a share of the limit: the number named right before it.

    A text, such as "nan", in that place is as far as can be, and without a limit the distance is 0.

    >>> beyond(Finding("XX001", "x", None, 0, Outcome.TIP, "says", evidence={"share": 0.75, "limit": 0.5, "n": 9}))
    0.5
    """
    names = list(finding.evidence)
    place = names.index("limit") if "limit" in names else 0
    if not place:
        return 0.0
    value, limit = (finding.evidence[names[at]] for at in (place - 1, place))
    if not (isinstance(value, int | float) and isinstance(limit, int | float) and math.isfinite(value - limit)):
        return math.inf
    return abs(value - limit) / (abs(limit) or 1.0)


def _by_advice(findings: Sequence[Finding]) -> list[list[Finding]]:
    """Findings of one code by what they ask for; names and numbers in it make no difference.

    Those that have no place, or are failures, which have reasons of their own, are told apart by what they say, too.
    """
    texts = (text for f in findings for text in (f.layer, f.split, *f.evidence.values()) if isinstance(text, str))
    names = {name for text in texts for name in (text, *text.split(", "))}

    def without(word: re.Match[str]) -> str:
        bare = word[0].rstrip(",.:!?")
        return "*" if bare in names or _NUMBER.fullmatch(bare) else bare

    found: dict[str, list[Finding]] = {}
    for finding in findings:
        placed = finding.layer or finding.split
        text = finding.do if placed and finding.outcome is not Outcome.FAILED else f"{finding.do}\n{finding.says}"
        found.setdefault(_WORD.sub(without, text), []).append(finding)
    return list(found.values())


def _distinct(names: Iterable[str | None]) -> list[str]:
    return list(dict.fromkeys(name for name in names if name is not None))


def counted(outcome: Outcome, number: int) -> str:
    """A count in words.

    >>> counted(Outcome.ISSUE, 1), counted(Outcome.PASSED, 14)
    ('1 issue', '14 checks passed')
    """
    return f"{number:,} {_WORDS[outcome][number != 1]}"


def counts(findings: Iterable[Finding]) -> dict[Outcome, int]:
    """How much is said of each outcome, the most pressing first: what repeats over layers and splits counts once."""
    every = list(findings)
    said = Counter(saying.outcome for saying in sayings(every))
    return {outcome: said[outcome] or len(same) for outcome, same in grouped(every).items()}


def verdict(findings: Iterable[Finding]) -> str:
    """The whole record in a sentence."""
    found = counts(findings)
    if not found:
        return "Nothing was judged."
    said = ", ".join(counted(outcome, number) for outcome, number in found.items())
    return f"{said}." if any(outcome in found for outcome in SPOKEN) else f"No issues: {said}."


@dataclass(frozen=True)
class Status:
    """How many rows have one status and one reason."""

    status: str
    reason: str
    count: int
    names: tuple[str, ...]


def statuses(rows: Sequence[Row]) -> list[Status]:
    """Tensors by status and reason, the commonest first within each status."""
    found: dict[tuple[str, str], dict[str, None]] = {}
    best: dict[str, tuple[str, str]] = {}
    for row in rows:
        if row.tensor is not None and (row.tensor not in best or row.status == "measured"):
            best[row.tensor] = (row.status, "" if row.status == "measured" else row.reason)
    for tensor, key in best.items():
        found.setdefault(key, {})[tensor] = None
    order = list(_STATUS)
    entries = [Status(status, reason, len(names), tuple(names)) for (status, reason), names in found.items()]
    return sorted(entries, key=lambda entry: (order.index(entry.status), -entry.count))


def coverage_sentence(rows: Sequence[Row]) -> str:
    """As in "17 tensors measured; 2 not applicable: a running statistic"."""
    entries = statuses(rows)
    layers = sum(1 for row in rows if row.tensor is None and row.status == "measured")
    parts = [
        f"{entry.count:,} {'tensors ' if number == 0 and entry.count != 1 else 'tensor ' if number == 0 else ''}"
        f"{_STATUS[entry.status]}" + (f": {entry.reason}" if entry.reason else "")
        for number, entry in enumerate(entries)
    ]
    if layers:
        parts.insert(1 if parts else 0, f"{layers:,} layer{'s' if layers != 1 else ''} without parameters measured")
    return "; ".join(parts) + "." if parts else "No tensor was looked at."


def partial(record: Record) -> str:
    """What is to be said of a record whose measurement was stopped before its end; empty if it was not."""
    stopped = record.meta.get("stopped")
    if not stopped:
        return ""
    measured = len({(row.layer, row.step) for row in record.coverage() if row.status == "measured" and row.layer})
    several = len((record.meta.get("series") or {}).get("checkpoints", ())) > 1
    of = "" if several else f" of {len(record.layers):,}"
    done = max(sum(record.parts.values()), measured) if several else min(measured, len(record.layers))
    again = "; call it again with the same folder to go on" if record.path is not None else ""
    return f"Partial: {stopped} after {done:,}{of} layers{again}."


def series_sentence(record: Record) -> str:
    """What the steps of a record of several checkpoints are."""
    about = record.meta["series"]
    problems = sum(bool(one.get("problem")) for one in about["checkpoints"])
    said = f"{len(about['checkpoints']):,} checkpoints; a step is {about['step']}"
    said += f"; {problems:,} cannot be opened" if problems else ""
    left = about.get("left_out") or []
    return said + (f"; left out: {', '.join(left[:4])}" if left else "") + "."


@dataclass(frozen=True)
class InstrumentCoverage:
    """What one instrument looked at.

    Attributes:
        key: its key, with the label where there is one.
        counts: parts of the network by status.
        reasons: status, reason, and how often, for what was not measured.
    """

    key: str
    counts: dict[str, int]
    reasons: list[tuple[str, str, int]]


def by_instrument(coverage: Iterable[Coverage]) -> list[InstrumentCoverage]:
    """Coverage of each instrument; a part measured on any split counts as measured."""
    best: dict[str, dict[tuple[str, str], tuple[str, str]]] = {}
    for entry in coverage:
        key = f"{entry.instrument}:{entry.label}" if entry.label else entry.instrument
        parts = best.setdefault(key, {})
        part = (entry.layer, entry.param or "")
        if part not in parts or entry.status == "measured":
            parts[part] = (entry.status, entry.reason)
    found = []
    for key, parts in best.items():
        counts = Counter(status for status, _ in parts.values())
        why = Counter((status, reason) for status, reason in parts.values() if status != "measured")
        reasons = [(status, reason, count) for (status, reason), count in why.most_common()]
        found.append(InstrumentCoverage(key, {status: counts.get(status, 0) for status in _STATUS}, reasons))
    return found


def facts_of(record: Record) -> list[tuple[str, str]]:
    """What is known about the run, as pairs of a name and a text."""
    meta = record.meta
    found = [
        ("run", str(meta.get("run_id", ""))),
        ("status", str(meta.get("status", ""))),
        ("started", str(meta.get("started", meta.get("created", "")))),
        ("ended", str(meta.get("ended", ""))),
        ("steps", _steps(record.steps)),
        ("layers", f"{len(record.layers):,}"),
        ("parameters", f"{sum(layer.n_params for layer in record.layers):,}"),
    ]
    for split, about in dict(meta.get("data") or {}).items():
        found.append((f"data: {split}", _data(about)))
    versions = dict(meta.get("versions") or {})
    found.append(("versions", ", ".join(f"{name} {version}" for name, version in versions.items())))
    found += [(name, str(meta[name])) for name in ("device", "threads", "seed") if name in meta]
    spent = spent_of(record)
    found.append(("measuring", "" if spent is None else spent.sentence))
    found.append(("command", " ".join(map(str, meta.get("argv") or []))))
    found.append(("folder", str(record.path or "in memory")))
    return [(name, text) for name, text in found if text]


def _steps(steps: Sequence[int]) -> str:
    if not steps:
        return ""
    return str(steps[0]) if len(steps) == 1 else f"{len(steps):,}, from {steps[0]:,} to {steps[-1]:,}"


def _data(about: object) -> str:
    if not isinstance(about, dict):
        return str(about)
    said = [f"{about['n']:,} examples" if isinstance(about.get("n"), int) else "", str(about.get("how", ""))]
    if about.get("forward_calls"):
        said.append(f"{about['forward_calls']} forward calls in {about.get('seconds', 0):.2f} s")
    if about.get("digest"):
        said.append(f"digest {str(about['digest'])[:12]}")
    notes = about.get("notes") or []
    return ", ".join([part for part in said if part] + [str(note) for note in notes])
