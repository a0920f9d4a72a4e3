"""What is said of a tensor in two checkpoints: before, after, and how far it moved."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from stratoscope.charts.numbers import format_number

SIDES = {"phase": "phase", "alpha": "alpha", "stable_rank": "stable rank", "num_spikes": "spikes"}
"""What is told before and after, and what it is called."""


def relative_text(row: Mapping[str, Any]) -> str:
    """The relative change of a row as people read it; why there is none, where there is none.

    >>> relative_text({"relative_change": 0.1234, "reason": ""}), relative_text({"relative_change": None, "reason": "NaN"})
    ('12.3 %', 'NaN')
    """
    value = row["relative_change"]
    finite = value is not None and math.isfinite(value)
    return f"{format_number(100 * value)} %" if finite else str(row["reason"])


def sides_text(row: Mapping[str, Any], key: str) -> str:
    """One quantity before and after; once where it is the same.

    >>> sides_text({"before": {"alpha": 4.25}, "after": {"alpha": 3.0}}, "alpha")
    '4.25 to 3'
    """
    before, after = (_shown(row[side].get(key)) for side in ("before", "after"))
    return before if before == after else f"{before or 'none'} to {after or 'none'}"


def _shown(value: object) -> str:
    return format_number(value) if isinstance(value, int | float) else str(value or "")
