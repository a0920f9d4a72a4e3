"""What the numbers of a tensor mean, in one line: is it trained, under-trained, over-trained, broken, and how can one tell?

Read from a record's numbers alone. The phase and what belongs to it come from the instrument `spectrum`, whether numbers
are finite and a matrix is not constant from the instrument `weights`. Nothing here knows a network.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stratoscope.report.table import Row, Table

Numbers = Mapping[str, float | str]
Limits = Mapping[str, float]

VERDICTS = {
    "broken": "entries that are not finite",
    "failed": "an instrument failed there",
    "collapsed": "directions are lost",
    "over-trained?": "a very heavy tail, which a network that diverged has as well",
    "suspect": "single huge entries, or a common mean, look like learning",
    "untrained": "nothing in the spectrum that noise would not have",
    "under-trained?": "what was learned hardly stands out of the noise",
    "undecided": "too small, or of a kind for which nobody knows what noise looks like",
    "trained": "directions that noise would not have",
    "not judged": "no matrix, or no spectrum was measured",
    "skipped": "not measured this time",
    "not applicable": "nothing that could be measured",
}
"""Every verdict, the worst first, and what it says."""

QUIET_VERDICTS = ("not judged", "skipped", "not applicable")
"""Verdicts that say nothing of a tensor; it is counted, and shown when all are."""

VERY_HEAVY, HIGH = 2.0, 6.0
"""Exponents below and above which a tail is very heavy or thin, where the record does not say other limits."""

LOW_P = 0.1
"""p-value below which a tail is not taken for a power law, where the record does not say."""

NO_PHASE = ("too-small", "no-test")
"""Phases of what is in none."""

LEVEL = 0.99
"""Probability with which noise stays under its edge, where the record does not say."""

ZERO_MASS = 0.05
"""Share of zeros above which the rank has collapsed, where the record does not say."""

BULK_DISTANCE = 0.1
"""Distance above which eigenvalues do not follow the law of noise, where the record does not say."""

TRAP_SHARE = 0.5
"""Traps over spikes from which the spikes may be no learning, where the record does not say."""

THIN_SOFT_RANK = 0.5
"""Soft rank below which what was learned stands out whatever its exponent, where the record does not say."""

LIMITS = {
    "very_heavy": VERY_HEAVY,
    "high_alpha": HIGH,
    "low_p": LOW_P,
    "tw_level": LEVEL,
    "zero_mass": ZERO_MASS,
    "bulk_distance": BULK_DISTANCE,
    "trap_share": TRAP_SHARE,
    "thin_soft_rank": THIN_SOFT_RANK,
}


@dataclass(frozen=True)
class Meaning:
    """One line about a tensor.

    Attributes:
        verdict: one of `VERDICTS`.
        says: why, with the numbers that it rests on.
        urgency: orders tensors of the same verdict, the worst first.
    """

    verdict: str
    says: str
    urgency: float = 0.0

    @property
    def rank(self) -> tuple[int, float]:
        """Orders tensors, the worst first."""
        return list(VERDICTS).index(self.verdict), -self.urgency


def meaning_of(table: Table, row: Row) -> Meaning:
    """What a row of a table means, at the last step at which it was measured."""
    numbers = numbers_of(table, row)
    if row.status != "measured":
        verdict = row.status.replace("_", " ")
        return Meaning(verdict if verdict in VERDICTS else "not judged", row.reason)
    if row.tensor is None:
        return Meaning("not judged", "no weights of its own")
    if (broken := numbers.get("not_finite", numbers.get("param_not_finite", 0))) > 0:  # type: ignore[operator]
        entries = "entry is" if broken == 1 else "entries are"
        return Meaning("broken", f"{broken:,.0f} {entries} NaN or infinite", float(broken))
    if row.reason:
        return Meaning("failed", row.reason)
    if "phase" in numbers:
        return meaning(numbers, limits_of(table, row))
    if "entry_std" not in numbers:
        return Meaning("not judged", _no_spectrum(row))
    return _constant(numbers) or Meaning("not judged", "its spectrum was not measured")


def _no_spectrum(row: Row) -> str:
    """Why a measured tensor has none."""
    long = [size for size in row.shape or () if size > 1]
    if row.kind != "weight":
        return f"{_a(row.kind)}, which has no spectrum"
    if len(long) > 1:
        return "a part of the layer's weight, which is judged as a whole"
    return f"a {'vector' if long else 'single number'}, which has no spectrum"


def numbers_of(table: Table, row: Row) -> dict[str, float | str]:
    """The finite numbers and categories of a row's tensor, by the variable's name."""
    found: dict[str, float | str] = {}
    for key in row.cells:
        column = table.columns[key]
        value = table.value(row, key) if column.variable.place in ("matrix", "param") and not column.split else None
        if value is not None and math.isfinite(value[1]) and column.variable.name not in found:
            meanings = column.variable.meanings
            found[column.variable.name] = meanings[int(value[1])] if meanings else value[1]
    return found


def limits_of(table: Table, row: Row) -> dict[str, float]:
    """The limits that the record's instrument was set to."""
    key = next((key for key in row.cells if table.columns[key].variable.name == "phase"), None)
    settings = table.settings.get(table.columns[key].variable.instrument, {}) if key is not None else {}
    return {name: float(settings[name]) for name in LIMITS if name in settings}


def meaning(numbers: Numbers, limits: Mapping[str, float] | None = None) -> Meaning:
    """What the numbers of one weight matrix mean.

    Args:
        numbers: by the names of the instruments `spectrum` and `weights`; what is unknown is left out.
        limits: settings of the instrument `spectrum` by the names in `LIMITS`, where they are not the usual ones.

    >>> meaning({"phase": "bulk+spikes", "num_spikes": 12, "alpha": 3.1, "alpha_low": 2.7, "alpha_high": 3.5}).says
    'bulk+spikes: 12 directions stand above noise; tail alpha 3.1 [2.7, 3.5]'
    """
    known = LIMITS | dict(limits or {})
    constant = _constant(numbers)
    if constant is not None:
        return constant
    found = _PHASES.get(str(numbers["phase"]), _unknown)(numbers, known)
    found = _with_exponent(found, numbers, known)
    if _number(numbers, "fit_p") < known["low_p"] and not math.isnan(_number(numbers, "alpha")):
        found = Meaning(found.verdict, f"{found.says} (no power law, p {_number(numbers, 'fit_p'):.2g})", found.urgency)
    return _with_traps(found, numbers, known)


def _with_exponent(found: Meaning, numbers: Numbers, limits: Limits) -> Meaning:
    """What a very heavy or a thin tail adds; in a small matrix only where all of its interval says so."""
    alpha, low, high = (_number(numbers, name) for name in ("alpha", "alpha_low", "alpha_high"))
    small = numbers["phase"] in NO_PHASE
    if found.verdict in ("trained", "under-trained?") and (high if small else alpha) < limits["very_heavy"]:
        heavy = "" if "very heavy" in found.says else ", very heavy"
        return Meaning("over-trained?", f"{found.says}{heavy}; look at the loss", -alpha)
    thin = (alpha if math.isnan(low) else low) > limits["high_alpha"]
    far = _number(numbers, "mp_softrank") < limits["thin_soft_rank"]
    if found.verdict == "trained" and thin and not far and not small:
        return Meaning("under-trained?", f"{found.says}, a thin one", alpha)
    return found


def _constant(numbers: Numbers) -> Meaning | None:
    """A matrix whose entries are all the same has no spectrum to speak of."""
    if numbers.get("entry_std") != 0:
        return None
    if numbers.get("zero_share") == 1:
        return Meaning("collapsed", "all zero: never trained, or a branch that is meant to start so", 1.0)
    return Meaning("collapsed", "one and the same number everywhere: never trained", 1.0)


def _with_traps(found: Meaning, numbers: Numbers, limits: Limits) -> Meaning:
    """Spikes are no learning where shuffling the entries leaves many of them; one of many is harmless."""
    traps, spikes = _number(numbers, "num_traps"), _number(numbers, "num_spikes")
    if not (traps > 0 and spikes > 0) or found.verdict in ("collapsed", "over-trained?", "untrained"):
        return found
    if traps < limits["trap_share"] * spikes:
        return found
    return Meaning(
        "suspect", f"{found.says}; {_count(traps, 'correlation trap')}: huge entries, or a common mean", traps
    )


# -- one line for each phase ---------------------------------------------------------------------------------------------


def _collapse(numbers: Numbers, limits: Limits) -> Meaning:
    mass, rest = _number(numbers, "zero_mass"), str(numbers.get("nonzero_phase", ""))
    after = f"; the others are {rest}" if rest and rest not in ("too-small", "no-test", "rank-collapse") else ""
    says = f"rank-collapse: {mass:.0%} of its directions are zero{after}; weight decay too strong, or pruned?"
    return Meaning("collapsed", says, mass)


def _random(numbers: Numbers, limits: Limits) -> Meaning:
    says = f"indistinguishable from noise at {1 - limits['tw_level']:.2%}"
    return Meaning("untrained", says.replace(".00%", "%"), _size(numbers))


def _flat(numbers: Numbers, limits: Limits) -> Meaning:
    says = "flat: no direction stands out, and all are more alike than noise: an orthogonal start, untrained?"
    return Meaning("untrained", says, _size(numbers))


def _bleeding(numbers: Numbers, limits: Limits) -> Meaning:
    soft = _number(numbers, "mp_softrank")
    says = f"bleeding-out: {_stand(numbers)} just above noise (soft rank {soft:.2f}){_tail(numbers)}"
    return Meaning("under-trained?", says, soft)


def _spikes(numbers: Numbers, limits: Limits) -> Meaning:
    return Meaning("trained", f"{numbers['phase']}: {_stand(numbers)} above noise{_tail(numbers)}")


def _decay(numbers: Numbers, limits: Limits) -> Meaning:
    share = f" ({_number(numbers, 'spike_share'):.0%} of the others)"
    return Meaning("trained", f"bulk-decay: {_stand(numbers)} above noise{share}{_tail(numbers)}")


def _heavy(numbers: Numbers, limits: Limits) -> Meaning:
    kind = str(numbers["phase"]).removeprefix("heavy-tailed-").replace("-", " ")
    share = f"noise holds {_number(numbers, 'bulk_share'):.0%} of the variance" if "bulk_share" in numbers else ""
    return Meaning("trained", f"heavy-tailed ({kind}): {share}{_tail(numbers)}")


def _small(numbers: Numbers, limits: Limits) -> Meaning:
    """Too few rows for a phase, yet noise may be told apart from what was learned."""
    rows, spikes, mass = (_number(numbers, name) for name in ("M", "num_spikes", "zero_mass"))
    says = f"{_count(rows, 'row')}, too few for a phase" if rows > 0 else "too few rows for a phase"
    if mass > limits["zero_mass"]:
        return Meaning("undecided", f"{says}; {mass:.0%} of its directions are zero{_tail(numbers)}", mass)
    if spikes > 0:
        return Meaning("trained", f"{_stand(numbers)} above noise; {says}{_tail(numbers)}")
    if spikes == 0:
        fits = not _number(numbers, "bulk_distance") > limits["bulk_distance"]
        return Meaning("untrained" if fits else "undecided", f"nothing stands above noise; {says}", _size(numbers))
    return Meaning("undecided", says + _rank(numbers))


def _untested(numbers: Numbers, limits: Limits) -> Meaning:
    return Meaning("undecided", f"no phase: noise of this kind has no known law{_rank(numbers)}{_tail(numbers)}")


def _unknown(numbers: Numbers, limits: Limits) -> Meaning:
    return Meaning("undecided", f"{numbers['phase']}{_tail(numbers)}")


_PHASES: Mapping[str, Callable[[Numbers, Limits], Meaning]] = {
    "rank-collapse": _collapse,
    "random-like": _random,
    "flat": _flat,
    "bleeding-out": _bleeding,
    "bulk+spikes": _spikes,
    "bulk-decay": _decay,
    "heavy-tailed-weak": _heavy,
    "heavy-tailed-fat": _heavy,
    "heavy-tailed-very-heavy": _heavy,
    "too-small": _small,
    "no-test": _untested,
}


def _number(numbers: Numbers, name: str) -> float:
    value = numbers.get(name, math.nan)
    return value if isinstance(value, int | float) else math.nan


def _size(numbers: Numbers) -> float:
    """Entries: a large layer that learned nothing comes before a small one."""
    size = _number(numbers, "M") * _number(numbers, "N")
    return 0.0 if math.isnan(size) else size


def _count(number: float, thing: str) -> str:
    return f"{number:,.0f} {thing}{'' if number == 1 else 's'}"


def _stand(numbers: Numbers) -> str:
    spikes = _number(numbers, "num_spikes")
    return f"{_count(spikes, 'direction')} stand{'s' if spikes == 1 else ''}"


def _rank(numbers: Numbers) -> str:
    """The stable rank, of what it could be: of pooled spectra the number of eigenvalues, of products their rank."""
    rank, count, rows = (_number(numbers, name) for name in ("stable_rank", "num_evals", "M"))
    full = count if count > rows else min(rows, _number(numbers, "full_rank"))
    return "" if math.isnan(rank) or math.isnan(full) else f"; stable rank {rank:.1f} of {full:,.0f}"


def _tail(numbers: Numbers) -> str:
    alpha, low, high = (_number(numbers, name) for name in ("alpha", "alpha_low", "alpha_high"))
    if math.isnan(alpha):
        return ""
    interval = (
        ""
        if math.isnan(low) or math.isnan(high)
        else f" [{low:.1f}, {high:.1f}]"
        if high < 100
        else f" [{low:.1f}, >100]"
    )
    return f"; tail alpha {alpha:.1f}{interval}"


def _a(kind: str) -> str:
    return f"{'an' if kind[:1] in 'aeiou' else 'a'} {kind}"
