"""Which of the phases of self-regularisation a weight matrix is in, as a rule on its eigenvalues.

Martin and Mahoney (arXiv:1810.01075) name five phases and a sixth, and tell them apart by eye. Here they are a rule,
applied in this order to the eigenvalues of `W W^T`, `W` with sides `M <= N`:

1. more than `zero_mass` of the eigenvalues are zero: **rank-collapse** (the others then get a phase of their own);
2. no eigenvalue beyond what noise reaches: **random-like**; but **flat** where the others do not follow the law of
   noise either, as after an orthogonal initialisation;
3. the noise holds less than `bulk_share` of the variance, or does not follow its law: **heavy-tailed**, by its exponent
   `very-heavy` (below 2), `fat` (2 to 4) or `weak` (from 4);
4. many spikes, at least `decay_spikes` and a share of `bulk_decay` to the rest: **bulk-decay**;
5. the largest eigenvalue is near the edge, soft rank from `soft_rank` on: **bleeding-out**;
6. else **bulk+spikes**.

The papers give no numbers; each cut is ours, and is a field of `Cuts`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stratoscope.numerics.marchenko_pastur import Bulk, distribution, fit_bulk
from stratoscope.numerics.power_law import PowerLaw, fit_power_law

if TYPE_CHECKING:
    from stratoscope.numerics.marchenko_pastur import Vector

PHASES = (
    "random-like",
    "bleeding-out",
    "bulk+spikes",
    "bulk-decay",
    "heavy-tailed-weak",
    "heavy-tailed-fat",
    "heavy-tailed-very-heavy",
    "rank-collapse",
    "flat",
    "too-small",
    "no-test",
)
"""Every answer of the rule; the first seven are in the order in which training and noise go through them."""


WHY = (
    "given",
    "cannot_be_told_from_noise",
    "flatter_than_noise",
    "noise_has_no_known_law",
    "too_few_rows",
    "too_few_eigenvalues",
    "all_eigenvalues_equal",
    "all_zero",
    "not_finite",
)
"""Why a matrix has no exponent; the first says that it has one."""

TESTED = ("tested", "too_few_rows", "noise_has_no_known_law", "all_zero", "not_finite", "too_few_eigenvalues")
"""Why noise was not tested for; the first says that it was."""


@dataclass(frozen=True)
class Cuts:
    """Every number that the rule compares with.

    Attributes:
        tw_level: probability with which the largest eigenvalue of noise stays under its edge.
        zero: share of the largest eigenvalue below which one counts as zero.
        zero_mass: share of zeros above which the rank has collapsed.
        bulk_share: share of the variance below which the noise is no bulk.
        bulk_distance: Kolmogorov-Smirnov distance above which the bulk is not Marchenko-Pastur.
        bulk_decay: spikes over the other eigenvalues from which the bulk decays.
        decay_spikes: number of spikes below which it does not, whatever their share.
        soft_rank: edge over largest eigenvalue from which spikes are just bleeding out.
        fat: exponent below which a heavy tail is fat.
        very_heavy: exponent below which it is very heavy.
        min_rows: `M` below which a matrix is too small for a phase.
        min_test_rows: `M` below which noise is not tested for, as its own distance from the law reaches 0.1 there.
        min_values: eigenvalues other than zero below which no exponent is fitted.
    """

    tw_level: float = 0.99
    zero: float = 1e-8
    zero_mass: float = 0.05
    bulk_share: float = 0.5
    bulk_distance: float = 0.10
    bulk_decay: float = 0.07
    decay_spikes: int = 10
    soft_rank: float = 0.75
    fat: float = 4.0
    very_heavy: float = 2.0
    min_rows: int = 100
    min_test_rows: int = 32
    min_values: int = 50


@dataclass(frozen=True)
class Verdict:
    """What the rule found.

    Attributes:
        phase: one of `PHASES`.
        nonzero_phase: the phase of the eigenvalues that are not zero, where the rank has collapsed; else `phase`.
        zero_mass: share of eigenvalues that count as zero; NaN where there are none, or not finite ones.
        bulk: the noise, of the nonzero part where the rank has collapsed; `None` where noise is not tested for.
        spike_share: spikes over the other eigenvalues; NaN without a bulk.
        soft_rank: edge over largest eigenvalue; NaN without a bulk.
        ratio: `y`, shorter over longer side, of what the bulk was fitted to.
        fit: the power law, where a matrix that differs from noise has enough eigenvalues; else `None`.
        why: why there is no fit, one of `WHY`; the first if there is one.
        tested: why there is no bulk, one of `TESTED`; the first if there is one.
    """

    phase: str
    nonzero_phase: str
    zero_mass: float
    bulk: Bulk | None = None
    spike_share: float = math.nan
    soft_rank: float = math.nan
    ratio: float = math.nan
    fit: PowerLaw | None = None
    why: str = WHY[0]
    tested: str = TESTED[0]


def spectral_phase(
    eigenvalues: Vector,
    rows: int,
    columns: int,
    cuts: Cuts | None = None,
    *,
    copies: int = 1,
    floor: float = 0.0,
    testable: bool = True,
    gate: bool = True,
    known: Vector | None = None,
    xmax: float | None = None,
) -> Verdict:
    """Apply the rule to the eigenvalues of one matrix. Nothing depends on their unit.

    Args:
        eigenvalues: of `W W^T`, descending.
        rows: `M`, the shorter side.
        columns: `N`, the longer side.
        cuts: what is compared with; the defaults if not given.
        copies: number of matrices of this size whose eigenvalues are pooled.
        floor: eigenvalue up to which all is rounding of the stored type.
        testable: whether noise of this kind follows Marchenko and Pastur's law; of products and operators it does not.
        gate: whether a tail is fitted only where the matrix can be told from noise.
        known: the eigenvalues to which a tail is fitted, if not to all: of a sketch, those that were computed.
        xmax: upper limit of the power law, if it has one.

    >>> generator = np.random.default_rng(0)
    >>> matrix = generator.standard_normal((200, 400))
    >>> spectral_phase(np.linalg.eigvalsh(matrix @ matrix.T)[::-1], 200, 400).phase
    'random-like'
    >>> matrix[:, 0] += 4 * generator.standard_normal(200)
    >>> spectral_phase(np.linalg.eigvalsh(matrix @ matrix.T)[::-1], 200, 400).phase
    'bulk+spikes'
    """
    cuts = cuts or Cuts()
    if len(eigenvalues) == 0 or not np.isfinite(eigenvalues).all() or eigenvalues[0] <= 0:
        return _without_spectrum(eigenvalues, rows, cuts)
    zero = max(cuts.zero * float(eigenvalues[0]), floor)
    nonzero = eigenvalues[eigenvalues > zero]
    zero_mass = 1 - len(nonzero) / len(eigenvalues)
    collapsed = zero_mass - (_below(floor, eigenvalues, rows, columns) if testable else 0.0) > cuts.zero_mass
    part, left = (nonzero, max(round(len(nonzero) / copies), 1)) if collapsed else (eigenvalues, rows)
    left = min(left, rows)
    tested = _tested(rows, left, testable, cuts)
    bulk = fit_bulk(part, left, columns, level=cuts.tw_level, copies=copies) if tested == TESTED[0] else None
    kind = tested if bulk is None else _kind(bulk, cuts)
    fitted = nonzero if known is None else known[known > zero]
    fit, why = (None, kind) if gate and kind in WHY else _tail(fitted, cuts, xmax)
    share = bulk.spikes / max(len(part) - bulk.spikes, 1) if bulk else math.nan
    soft = bulk.edge / float(eigenvalues[0]) if bulk else math.nan
    phase = "too-small" if left < cuts.min_rows else _name(kind, bulk, share, soft, fit, cuts)
    whole = "too-small" if rows < cuts.min_rows else "rank-collapse" if collapsed else phase
    return Verdict(whole, phase, zero_mass, bulk, share, soft, left / columns, fit, why, tested)


def _without_spectrum(eigenvalues: Vector, rows: int, cuts: Cuts) -> Verdict:
    """The verdict where there are no eigenvalues, none but zero, or not finite ones."""
    if len(eigenvalues) == 0 or not np.isfinite(eigenvalues).all():
        if len(eigenvalues):
            return Verdict("no-test", "no-test", math.nan, why="not_finite", tested="not_finite")
        return Verdict("too-small", "too-small", math.nan, why="too_few_eigenvalues", tested="too_few_rows")
    phase = "too-small" if rows < cuts.min_rows else "rank-collapse"
    return Verdict(phase, "too-small", 1.0, why="all_zero", tested="all_zero")


def _below(floor: float, eigenvalues: Vector, rows: int, columns: int) -> float:
    """Share of the eigenvalues of noise that coarse rounding hides: a tenth of a square matrix's in eight bits."""
    variance = float(np.mean(eigenvalues)) / columns
    return float(distribution(floor / columns, rows / columns, variance)) if floor > 0 else 0.0


def _tested(rows: int, left: int, testable: bool, cuts: Cuts) -> str:
    """Whether noise is tested for, and else why not; one of `TESTED`."""
    if not testable:
        return "noise_has_no_known_law"
    if left < cuts.min_test_rows:
        return "too_few_rows" if rows < cuts.min_test_rows else "too_few_eigenvalues"
    return TESTED[0]


def _kind(bulk: Bulk, cuts: Cuts) -> str:
    """How a spectrum differs from noise; one of `WHY` where it does not."""
    if bulk.spikes == 0:
        return "flatter_than_noise" if bulk.distance > cuts.bulk_distance else "cannot_be_told_from_noise"
    return "heavy" if bulk.share < cuts.bulk_share or bulk.distance > cuts.bulk_distance else "spikes"


def _tail(values: Vector, cuts: Cuts, xmax: float | None) -> tuple[PowerLaw | None, str]:
    """The power law of some eigenvalues, or why there is none."""
    if len(values) < cuts.min_values:
        return None, "too_few_eigenvalues"
    try:
        return fit_power_law(values, xmax=xmax), WHY[0]
    except ValueError:
        return None, "all_eigenvalues_equal"


def _name(kind: str, bulk: Bulk | None, share: float, soft: float, fit: PowerLaw | None, cuts: Cuts) -> str:
    """The phase of a spectrum that is large enough for one."""
    if bulk is None:
        return "no-test"
    if bulk.spikes == 0:
        return "flat" if kind == "flatter_than_noise" else "random-like"
    if kind == "heavy":
        alpha = math.inf if fit is None else fit.alpha
        return f"heavy-tailed-{'very-heavy' if alpha < cuts.very_heavy else 'fat' if alpha < cuts.fat else 'weak'}"
    if bulk.spikes >= cuts.decay_spikes and share >= cuts.bulk_decay:
        return "bulk-decay"
    return "bleeding-out" if soft >= cuts.soft_rank else "bulk+spikes"
