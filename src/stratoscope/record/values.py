"""Text forms of labels, settings and evidence: JSON that reads back as it was."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

from stratoscope.errors import RecordError


def to_json(value: Any, what: str, *, in_order: bool = False) -> str:
    """Canonical JSON (sorted keys, no blanks), so that equal values give equal text.

    NumPy scalars, arrays and 0-d tensors become numbers and lists; NaN and the infinities stay, as Python writes them.

    Args:
        value: what is to be kept.
        what: what to call it.
        in_order: leave keys in the order that they have, where that says something.

    Raises:
        RecordError: if it holds something that has no text form.

    >>> to_json({"b": (1, 2), "a": float("nan")}, "settings")
    '{"a":NaN,"b":[1,2]}'
    """
    try:
        return (_IN_ORDER if in_order else _ENCODER).encode(value)
    except (TypeError, ValueError) as error:
        raise RecordError(f"{what} cannot be kept in a record: {error}; use numbers, text, lists and dicts.") from error


def digest(text: str) -> str:
    """A short name for a text that differs where the text differs."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def count(value: Any) -> int | None:
    """A count as an `int`, also where it comes as a float without a fraction; `None` for everything else.

    >>> count(3e6), count(np.int64(5)), count(0.5), count(float("nan")), count(-1), count(True)
    (3000000, 5, None, None, None, None)
    """
    if isinstance(value, bool | np.bool_ | str | bytes) or getattr(value, "ndim", None):
        return None
    try:
        whole = int(value) if float(value).is_integer() else -1
    except (TypeError, ValueError, OverflowError, RuntimeError):  # the last is torch's, for complex numbers
        return None
    return whole if 0 <= whole < 2**63 else None


PLAIN = (str, int, float, bool, type(None))
"""Types of values that nobody can change."""


def copy_of(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """A copy that later changes of the original do not reach."""
    return {name: value if type(value) in PLAIN else copy.deepcopy(value) for name, value in attributes.items()}


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, set | frozenset):
        return sorted(value, key=str)
    for turn in ("tolist", "item"):
        if hasattr(value, turn):
            return getattr(value, turn)()
    raise TypeError(f"{type(value).__name__} {value!r:.60} has no text form")


# made once: `json.dumps` makes one at each call that asks for anything unusual
_IN_ORDER, _ENCODER = (
    json.JSONEncoder(sort_keys=sort, separators=(",", ":"), ensure_ascii=False, default=_plain)
    for sort in (False, True)
)
