"""What measuring a training took of its time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stratoscope.record.record import Record

MOST = 3
"""Instruments that are named."""

_ASIDE = {
    "steps": "single steps",
    "beginning": "the beginning",
    "conclusions": "findings",
    "keeping": "keeping weights",
}
"""What the record calls the rest, and what people do."""


@dataclass(frozen=True)
class Spent:
    """What measuring took.

    Attributes:
        seconds: all of it.
        share: the same over the rest of the training's time.
        budget: the share that it was allowed; `None` where the record does not say.
        instruments: seconds of each instrument, the most costly first.
        aside: seconds of what no instrument did, such as the recording of single steps.
    """

    seconds: float
    share: float
    budget: float | None = None
    instruments: Mapping[str, float] = field(default_factory=dict)
    aside: Mapping[str, float] = field(default_factory=dict)

    @property
    def most(self) -> str:
        """What took most, in words; empty where one cannot tell."""
        every = {**self.instruments, **{_ASIDE.get(name, name): seconds for name, seconds in self.aside.items()}}
        named = sorted(every.items(), key=lambda one: -one[1])[:MOST]
        return ", ".join(f"{name} {duration(seconds)}" for name, seconds in named)

    @property
    def sentence(self) -> str:
        """All of it.

        >>> Spent(3.2, 0.041, 0.05, {"spectrum": 1.1, "information": 0.8}).sentence
        'Measuring took 3.2 s, 4.1% of the training time (budget 5%); most of it spectrum 1.1 s, information 0.8 s.'
        """
        allowed = "" if self.budget is None else f" (budget {percent(self.budget)})"
        most = f"; most of it {self.most}" if len(self.instruments) + len(self.aside) > 1 else ""
        return f"Measuring took {duration(self.seconds)}, {percent(self.share)} of the training time{allowed}{most}."


def spent_of(record: Record) -> Spent | None:
    """What a record says of that; nothing if it was not watched, or has not ended."""
    meta = record.meta
    seconds, share = _number(meta.get("seconds_spent")), _number(meta.get("share_spent"))
    if seconds is None or share is None:
        return None
    each, aside = (_seconds(meta.get(name)) for name in ("seconds_by_instrument", "seconds_aside"))
    return Spent(seconds, share, _number(meta.get("budget")), each, aside)


def _seconds(given: Any) -> dict[str, float]:
    """What took any time, the most first."""
    known = {str(name): _number(value) for name, value in given.items()} if isinstance(given, dict) else {}
    return dict(sorted(((name, value) for name, value in known.items() if value), key=lambda one: -one[1]))


def duration(seconds: float) -> str:
    """Seconds as people say them.

    >>> duration(0.0123), duration(3.21), duration(75.0), duration(7300)
    ('12 ms', '3.2 s', '75 s', '2 h 2 min')
    """
    if seconds < 0.1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 600:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def percent(share: float) -> str:
    """A share with two digits.

    >>> percent(0.0412), percent(146.7), percent(0.00037)
    ('4.1%', '15,000%', '0.037%')
    """
    rounded = float(f"{100 * share:.2g}")
    return f"{rounded:,.0f}%" if rounded >= 100 else f"{rounded:.4g}%"


def _number(value: Any) -> float | None:
    """A number of zero or more; nothing where something else stands."""
    good = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf")
    return float(value) if good else None
