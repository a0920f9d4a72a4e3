"""Everything that is said of one spectrum, as plain numbers: sizes, ranks, noise, tail, shuffles."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from stratoscope.numerics.marchenko_pastur import edges, fit_bulk, spike_strength
from stratoscope.numerics.matrices import effective_rank, numerical_rank, stable_rank
from stratoscope.numerics.spectral_phase import Cuts, Verdict, spectral_phase

if TYPE_CHECKING:
    from stratoscope.numerics.marchenko_pastur import Vector
    from stratoscope.numerics.spectrum import Spectrum

ALTERNATIVES = ("lognormal", "exponential", "truncated_power_law")
"""Laws that the tail is compared with."""


@dataclass(frozen=True)
class Options:
    """What is measured of a spectrum.

    Attributes:
        cuts: of the rule that names the phase.
        gate: whether an exponent is given only to a matrix that can be told from noise.
        xmax: upper limit of the power law, if it has one.
        bootstrap: samples for its p-value, and again for its interval; 0 leaves both out.
        seed: of these samples.
        alternatives: whether the tail is compared with other laws.
    """

    cuts: Cuts = field(default_factory=Cuts)
    gate: bool = True
    xmax: float | None = None
    bootstrap: int = 100
    seed: int = 0
    alternatives: bool = True


@dataclass(frozen=True, eq=False)
class Reading:
    """What was measured of one spectrum.

    Attributes:
        numbers: by name; NaN where there is nothing to say.
        versus: for each alternative law the better one, `"power_law"`, `"other"` or `"undecided"`; empty without a fit.
        verdict: what the rule of phases found.
        strengths: of the spikes, strongest first, in units of the square root of `N` times the variance.
    """

    numbers: dict[str, float]
    versus: dict[str, str]
    verdict: Verdict
    strengths: Vector


def spectrum_numbers(
    spectrum: Spectrum, options: Options | None = None, stored: torch.dtype = torch.float64
) -> Reading:
    """Measure one spectrum.

    With `Options(bootstrap=0, alternatives=False)` and no shuffles in the spectrum this costs little more than the one
    fit of a power law.

    Args:
        spectrum: eigenvalues of `W W^T`.
        options: what is measured; everything if not given.
        stored: type of the stored tensor, whose rounding is no rank.

    >>> from stratoscope.numerics.spectrum import Spectrum
    >>> two = Spectrum(np.array([3.0, 1.0]), rows=2, columns=4, trace=4.0)
    >>> round(spectrum_numbers(two).numbers["stable_rank"], 4)
    1.3333
    """
    options = options or Options()
    values = whole(spectrum)
    verdict = spectral_phase(
        values, spectrum.rows, spectrum.columns, options.cuts, copies=spectrum.copies,
        floor=_rounding(spectrum, stored), testable=spectrum.law == "entries", gate=options.gate,
        known=None if spectrum.nodes is None else spectrum.eigenvalues, xmax=options.xmax,
    )  # fmt: skip
    numbers = {"N": float(spectrum.columns), "M": float(spectrum.rows), "rf": float(spectrum.copies)}
    numbers |= {"Q": spectrum.columns / max(spectrum.rows, 1), "num_evals": float(len(values))}
    numbers |= {"sketch_error": spectrum.error}
    strengths = np.empty(0)
    if len(values) and np.isfinite(values).all():
        numbers |= _sizes(values) | _ranks(values, spectrum, stored) | {"zero_mass": verdict.zero_mass}
        numbers |= _noise(verdict, spectrum.columns, float(np.mean(values)))
        if verdict.bulk and verdict.bulk.spikes:
            scale = spectrum.columns * verdict.bulk.variance
            strengths = spike_strength(values[: verdict.bulk.spikes] / scale, verdict.ratio) if scale > 0 else strengths
        numbers |= _shuffles(values, spectrum, options.cuts)
    tail, versus = _tail(values, spectrum, verdict, options)
    return Reading(numbers | tail, versus, verdict, strengths)


def whole(spectrum: Spectrum) -> Vector:
    """All eigenvalues, descending; of a sketch, each node as often as it stands for one, to the nearest number."""
    if spectrum.nodes is None or spectrum.node_weights is None:
        return spectrum.eigenvalues
    until = np.round(np.cumsum(spectrum.node_weights)).astype(np.int64)
    repeated = np.repeat(spectrum.nodes, np.diff(until, prepend=0))
    return np.sort(np.concatenate([spectrum.eigenvalues, repeated]))[::-1]


def _sizes(values: Vector) -> dict[str, float]:
    largest, trace = float(values[0]), float(values.sum())
    smallest = max(float(values[-1]), 0.0)
    return {
        "lambda_max": largest,
        "sv_max": math.sqrt(largest),
        "sv_min": math.sqrt(smallest),
        "norm": trace,
        "log_norm": _log10(trace),
        "log_spectral_norm": _log10(largest),
    }


def _ranks(values: Vector, spectrum: Spectrum, stored: torch.dtype) -> dict[str, float]:
    largest = float(values[0])
    if largest <= 0:
        return {"numerical_rank": 0.0, "matrix_rank": 0.0, "rank_loss": float(len(values))}
    singular = torch.from_numpy(np.sqrt(np.maximum(values, 0.0)))
    rank = int((singular > singular[0] * spectrum.columns * np.finfo(np.float64).eps).sum())
    share = values[values > 0] / values.sum()
    entropy = -float(np.sum(share * np.log(share)))
    return {
        "stable_rank": float(stable_rank(singular)),
        "effective_rank": float(effective_rank(singular)),
        "numerical_rank": float(numerical_rank(singular, (spectrum.rows, spectrum.columns), stored)),
        "matrix_rank": float(rank),
        "rank_loss": float(len(values) - rank),
        "entropy": entropy / math.log(rank) if rank > 1 else math.nan,
    }


def _noise(verdict: Verdict, columns: int, mean: float) -> dict[str, float]:
    bulk = verdict.bulk
    if bulk is None:
        return {}
    low, high = edges(verdict.ratio)
    return {
        "num_spikes": float(bulk.spikes),
        "spike_share": verdict.spike_share,
        "mp_softrank": verdict.soft_rank,
        "bulk_sigma": math.sqrt(columns * bulk.variance),
        "sigma_mp": math.sqrt(columns * bulk.variance / mean) if mean > 0 else math.nan,
        "bulk_min": bulk.edge * low / high,
        "bulk_max": bulk.edge,
        "noise_edge": bulk.noise_edge,
        "bulk_distance": bulk.distance,
        "bulk_share": bulk.share,
    }


def _tail(
    values: Vector, spectrum: Spectrum, verdict: Verdict, options: Options
) -> tuple[dict[str, float], dict[str, str]]:
    fit = verdict.fit
    if fit is None:
        return {}, {}
    known = values if spectrum.nodes is None else spectrum.eigenvalues
    largest = float(values[0])
    logs = _log10(largest)
    found = {
        "alpha": fit.alpha,
        "sigma": fit.sigma,
        "D": fit.D,
        "xmin": fit.xmin,
        "xmax": largest if fit.xmax is None else fit.xmax,
        "num_pl_spikes": float(fit.n_tail),
        "alpha_weighted": fit.alpha * logs,
        "log_alpha_norm": fit.alpha * logs + _log10(float(np.sum((np.maximum(values, 0.0) / largest) ** fit.alpha))),
    }
    offered = known[known <= (math.inf if fit.xmax is None else fit.xmax)][: fit.n]
    if options.bootstrap:
        from stratoscope.numerics.power_law_errors import alpha_interval, goodness_of_fit

        found["fit_p"] = goodness_of_fit(offered, fit, samples=options.bootstrap, seed=options.seed).p
        ends = alpha_interval(offered, fit, level=0.95, samples=options.bootstrap, seed=options.seed)
        found |= {"alpha_low": ends.low, "alpha_high": ends.high}
    if not options.alternatives:
        return found, {}
    from stratoscope.numerics.tails import compare_tails

    tests = compare_tails(offered, fit)
    found |= {f"{law}_ratio": tests[law].R for law in ALTERNATIVES}
    return found, {law: tests[law].verdict for law in ALTERNATIVES}


def _shuffles(values: Vector, spectrum: Spectrum, cuts: Cuts) -> dict[str, float]:
    """The same entries in another order have no structure left but single large entries and a common mean."""
    if not spectrum.shuffled:
        return {}
    largest = max(float(one[0]) for one in spectrum.shuffled)
    found = {"max_rand_eval": largest, "ww_softrank": largest / float(values[0]) if values[0] > 0 else math.nan}
    first = spectrum.shuffled[0]
    if len(first) == len(values) and values[0] > 0:
        found["rand_distance"] = _jensen_shannon(values / values.sum(), first / first.sum())
    if spectrum.law == "entries" and spectrum.rows >= cuts.min_test_rows and values[0] > 0:
        traps = [
            fit_bulk(one, spectrum.rows, spectrum.columns, level=cuts.tw_level, copies=spectrum.copies).spikes
            for one in spectrum.shuffled
        ]
        found["num_traps"] = float(np.median(traps))
    return found


def _jensen_shannon(left: Vector, right: Vector) -> float:
    """Distance of two distributions: the root of their Jensen-Shannon divergence, in nats."""
    middle = (left + right) / 2
    terms = (part[part > 0] * np.log(part[part > 0] / middle[part > 0]) for part in (left, right))
    return math.sqrt(max(sum(float(np.sum(term)) for term in terms) / 2, 0.0))


def _rounding(spectrum: Spectrum, stored: torch.dtype) -> float:
    """Largest eigenvalue that rounding the entries to the stored type can make: noise of `(eps w)^2 / 12` at most."""
    if not stored.is_floating_point or spectrum.rows == 0:
        return 0.0
    sides = (math.sqrt(spectrum.rows) + math.sqrt(spectrum.columns)) ** 2
    entry = spectrum.trace / (spectrum.copies * spectrum.rows * spectrum.columns)
    return torch.finfo(stored).eps ** 2 / 12 * entry * sides


def _log10(value: float) -> float:
    return math.log10(value) if value > 0 else -math.inf if value == 0 else math.nan


def thinned(values: Vector, keep: int) -> tuple[Vector, Vector | None]:
    """At most `keep` of many eigenvalues: the largest half of that one by one, then medians of groups of equal size.

    Args:
        values: descending.
        keep: at least 2.

    Returns:
        The values, and how many each stands for; `None` where all were kept.

    >>> values, counts = thinned(np.array([9.0, 8.0, 3.0, 2.0, 1.0]), 3)
    >>> values.tolist(), counts.tolist()
    ([9.0, 5.5, 1.5], [1.0, 2.0, 2.0])
    """
    if len(values) <= keep:
        return values, None
    head = keep // 2
    groups = np.array_split(values[head:], keep - head)
    medians = np.array([np.median(group) for group in groups])
    sizes = np.array([float(len(group)) for group in groups])
    return np.concatenate([values[:head], medians]), np.concatenate([np.ones(head), sizes])
