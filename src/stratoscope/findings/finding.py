"""A finding: one statement about one layer at one step, with the numbers that it rests on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

Evidence = float | int | str | bool | None


class Outcome(StrEnum):
    """How a check ended. Only `ISSUE` and `TIP` ask the reader to do something."""

    ISSUE = "issue"
    TIP = "tip"
    PASSED = "passed"
    NOT_APPLICABLE = "not_applicable"
    SKIPPED = "skipped"
    FAILED = "failed"
    MUTED = "muted"


@dataclass(frozen=True)
class Finding:
    """One statement, its evidence and its source.

    Attributes:
        code: stable identifier such as `"UN001"`; two letters name the instrument.
        instrument: key of the instrument (or diagnosis) that speaks.
        layer: name of the layer, or of the matrix or parameter; `None` for the whole network.
        step: training step that it speaks of; `None` where there is no time.
        outcome: what kind of statement this is.
        says: one sentence for people.
        do: what to try; empty where there is nothing to do.
        evidence: named numbers, the threshold among them, from which `says` follows.
        source: arXiv id or DOI of the method.
        split: the data split that it speaks of; `None` where no data were needed.
    """

    code: str
    instrument: str
    layer: str | None
    step: int | None
    outcome: Outcome
    says: str
    do: str = ""
    evidence: Mapping[str, Evidence] = field(default_factory=dict)
    source: str = ""
    split: str | None = None

    @property
    def wants_action(self) -> bool:
        """Whether the reader is asked to do something."""
        return self.outcome in (Outcome.ISSUE, Outcome.TIP)
