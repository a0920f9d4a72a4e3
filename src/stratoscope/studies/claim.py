"""What a paper says, and how it is decided: one rule for all studies.

A claim's `check` reads what was measured and gives `Evidence`: for each seed one number, the *effect*, that is above a
margin where the claim is true. The rule is in `decide`:

* **held** if the 95 % interval lies above the margin, **did not hold** if it lies below, **undecided** otherwise;
* the interval is Student's for the mean over seeds: `mean ± t(n - 1) s / sqrt(n)`, where `t` is 4.3 for 3 seeds and 2.6
  for 6. It takes effects of different seeds as draws from one normal distribution;
* where the effect of every seed is the same number (a correlation that is 1 for all), that interval has no width and
  says nothing. Then, and where effects are truth values, seeds are counted: the interval is Clopper and Pearson's for
  the share of seeds for which the claim is true, and its margin is 1/2. Fewer than 6 seeds that agree decide nothing,
  so give a number that varies rather than a truth value;
* fewer than 3 seeds decide nothing;
* what needs no seed (a trained network that somebody published) is a `fact`, with the interval of its own estimator.

Each side of an interval errs in 1 of 40 cases, so among many claims at their margins a few are decided wrongly. Seeds
change initial weights and the order of examples, not the data set: an interval over seeds says nothing of other data.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from stratoscope.errors import SettingError

if TYPE_CHECKING:
    from stratoscope.studies.runs import StudyRuns

CONFIDENCE = 0.95
FEWEST = 3
"""Seeds below which nothing is decided."""


class Verdict(StrEnum):
    """What came out."""

    HELD = "held"
    DID_NOT_HOLD = "did not hold"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Evidence:
    """What a claim's check found.

    Attributes:
        effect: for each seed a number that is above the margin where the claim is true, or a truth value.
        long_name: what that number is.
        units: its unit; `"1"` for a pure number.
        margin: what it is compared with; truth values have none.
        numbers: anything else worth printing, by name.
        interval: for a `fact`, the lowest and the highest value that its estimator allows.
    """

    effect: Mapping[int, float | bool]
    long_name: str
    units: str = "1"
    margin: float = 0.0
    numbers: Mapping[str, float] = field(default_factory=dict)
    interval: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        # numbers of NumPy and torch become Python's
        object.__setattr__(self, "effect", {seed: _plain(value) for seed, value in self.effect.items()})

    @classmethod
    def fact(
        cls,
        value: float,
        long_name: str,
        *,
        interval: tuple[float, float] | None = None,
        units: str = "1",
        margin: float = 0.0,
        numbers: Mapping[str, float] | None = None,
    ) -> Evidence:
        """Evidence that no seed can change: one number, with the interval of its estimator (exact without one)."""
        return cls({0: value}, long_name, units, margin, numbers or {}, interval or (value, value))


@dataclass(frozen=True)
class Claim:
    """One statement of a paper.

    Attributes:
        says: the statement, in our words.
        where: its place: figure, table, theorem, section.
        check: reads the runs and gives evidence; a plain function.
        expected: whether it should hold: by the paper, or by later work that contests it.
        of: reads only the runs with these values in their specs (one, or several of which any will do), so that
            other tasks may fail.
        note: what a reader of the result must know, such as in what it differs from the paper's.
    """

    says: str
    where: str
    check: Callable[[StudyRuns], Evidence]
    expected: bool = True
    of: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class Decision:
    """What follows from evidence.

    Attributes:
        result: held, did not hold, or undecided.
        reason: why, in one sentence.
        mean: of the effect over seeds; for counted seeds the share of those for which the claim is true.
        low: lower end of the interval.
        high: upper end.
        margin: what they are compared with.
        spread: standard deviation of the effect over seeds (n - 1); NaN where there is none.
        seeds: how many; 0 for a fact.
    """

    result: Verdict
    reason: str
    mean: float
    low: float
    high: float
    margin: float
    spread: float
    seeds: int


def decide(evidence: Evidence) -> Decision:
    """Apply the rule at the head of this module.

    Raises:
        SettingError: if the effect is of another type than numbers or truth values for seeds.

    >>> decide(Evidence({0: 0.1, 1: 2.0, 2: 1.5}, "gain")).result
    <Verdict.UNDECIDED: 'undecided'>
    >>> decide(Evidence({0: 1.0, 1: 1.2, 2: 1.1}, "gain")).result
    <Verdict.HELD: 'held'>
    """
    effects = _checked(evidence)
    bad = {seed: value for seed, value in effects.items() if not math.isfinite(value)}
    n = 0 if evidence.interval is not None else len(effects)
    if not effects or bad:
        where = f"the effect of seed {next(iter(bad))} is {next(iter(bad.values()))}" if bad else "there is no effect"
        return Decision(Verdict.UNDECIDED, where, math.nan, math.nan, math.nan, evidence.margin, math.nan, n)
    values = list(effects.values())
    mean, spread = _mean_and_spread(values)
    truth = all(isinstance(value, bool) for value in evidence.effect.values())
    if evidence.interval is not None:
        low, high = evidence.interval
        return _compared(values[0], low, high, evidence.margin, math.nan, 0)
    if truth or (n >= FEWEST and spread <= 1e-12 * max(map(abs, values))):
        return _counted(values, 0.5 if truth else evidence.margin, spread, truth)
    if n < FEWEST:
        return Decision(Verdict.UNDECIDED, _few(n), mean, math.nan, math.nan, evidence.margin, spread, n)
    half = _student(n - 1) * spread / math.sqrt(n)
    return _compared(mean, mean - half, mean + half, evidence.margin, spread, n)


def _plain(value: Any) -> Any:
    return value.item() if getattr(value, "ndim", None) == 0 else value


def _checked(evidence: Evidence) -> dict[int, float]:
    values = list(evidence.effect.values())
    mixed = len({isinstance(value, bool) for value in values}) > 1
    if mixed or any(not isinstance(value, bool | int | float) for value in values):
        raise SettingError(f"{evidence.long_name}: an effect is a number or a truth value for each seed, not {values}.")
    ends = evidence.interval
    if ends is not None and (len(values) != 1 or (math.isfinite(values[0]) and not ends[0] <= ends[1])):
        raise SettingError(f"{evidence.long_name}: a fact is one number with an interval, not {values}.")
    return {int(seed): float(value) for seed, value in evidence.effect.items()}


def _counted(values: list[float], margin: float, spread: float, truth: bool) -> Decision:
    from stratoscope.numerics.intervals import clopper_pearson

    n, hits = len(values), sum(value > margin for value in values)
    low, high = (float(end) for end in clopper_pearson(hits, n, CONFIDENCE))
    found = _compared(hits / n, low, high, 0.5, spread, n)
    alike = "" if truth else f" (each gave exactly {values[0]:.6g}, so they are counted)"
    seeds = f"true for {hits} of {n} seeds{alike}"
    few = f"; {_few(n)}" if n < FEWEST else "; it takes 6 seeds that agree" if n < 6 else ""
    result = Verdict.UNDECIDED if n < FEWEST else found.result
    reason = seeds + few if result is Verdict.UNDECIDED else seeds
    return Decision(result, reason, found.mean, low, high, 0.5, spread, n)


def _compared(mean: float, low: float, high: float, margin: float, spread: float, n: int) -> Decision:
    if not math.isfinite(low) or not math.isfinite(high):
        return Decision(Verdict.UNDECIDED, "its interval is not finite", mean, low, high, margin, spread, n)
    result = Verdict.HELD if low > margin else Verdict.DID_NOT_HOLD if high < margin else Verdict.UNDECIDED
    side = {Verdict.HELD: "above", Verdict.DID_NOT_HOLD: "below"}.get(result, "on both sides of")
    reason = f"the interval{f' over {n} seeds' if n else ''} lies {side} the margin"
    return Decision(result, reason, mean, low, high, margin, spread, n)


def _few(n: int) -> str:
    return f"{'1 seed decides' if n == 1 else f'{n} seeds decide'} nothing; it takes at least {FEWEST}"


def _mean_and_spread(values: list[float]) -> tuple[float, float]:
    mean = math.fsum(value / len(values) for value in values)
    if len(values) < 2:
        return mean, math.nan
    return mean, math.hypot(*(value - mean for value in values)) / math.sqrt(len(values) - 1)


def _student(freedom: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + CONFIDENCE) / 2))
