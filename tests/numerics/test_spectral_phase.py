"""The rule of phases: known kinds of matrices, noise, invariances, and what has no phase."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stratoscope.numerics.marchenko_pastur import spike_threshold
from stratoscope.numerics.spectral_phase import PHASES, TESTED, WHY, Cuts, spectral_phase

M, N = 384, 1024


def gaussian(rows=M, columns=N, seed=0):
    return np.random.default_rng(seed).standard_normal((rows, columns))


def spectrum(matrix):
    short = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    return np.clip(np.linalg.eigvalsh(short @ short.T)[::-1], 0, None)


def phase_of(matrix, cuts=None, **options):
    return spectral_phase(spectrum(matrix), min(matrix.shape), max(matrix.shape), cuts, **options)


def planted(strengths, rows=M, columns=N, seed=0):
    """Noise, and directions of these strengths in units of the threshold at which they can be seen."""
    generator = np.random.default_rng(seed)
    left = np.linalg.qr(generator.standard_normal((rows, len(strengths))))[0]
    right = np.linalg.qr(generator.standard_normal((columns, len(strengths))))[0]
    scale = math.sqrt(columns) * spike_threshold(rows / columns)
    return generator.standard_normal((rows, columns)) + (left * (scale * np.asarray(strengths))) @ right.T


def heavy(alpha, rows=M, columns=N, seed=0):
    """Eigenvalues from a power law."""
    generator = np.random.default_rng(seed)
    values = (1 - generator.random(rows)) ** (-1 / (alpha - 1))
    turn = np.linalg.qr(generator.standard_normal((columns, rows)))[0]
    return np.sqrt(values)[:, None] * turn.T


KINDS = {
    "random-like": lambda g, seed: gaussian(seed=seed),
    "bleeding-out": lambda g, seed: planted(g.uniform(1.2, 1.5, 6), seed=seed),
    "bulk+spikes": lambda g, seed: planted(g.uniform(2, 3, 10), seed=seed),
    "bulk-decay": lambda g, seed: planted(1.1 + g.exponential(0.6, 46), seed=seed),
    "heavy-tailed": lambda g, seed: heavy(g.uniform(1.6, 4.5), seed=seed),
    "heavy-tailed of entries": lambda g, seed: (g.pareto(1.5, (M, N)) + 1) * g.choice([-1, 1], (M, N)),
    "rank-collapse": lambda g, seed: gaussian(M, M // 2, seed) @ gaussian(M // 2, N, seed + 1),
}


@pytest.mark.parametrize("kind", KINDS)
def test_one_of_each_kind(kind):
    assert phase_of(KINDS[kind](np.random.default_rng(1), 1)).phase.startswith(kind.split()[0])


@pytest.mark.slow
def test_ten_of_each_kind():
    """The cuts were chosen on a set like this one, so that this is no accuracy: it says that the rule is the same."""
    right = {
        kind: sum(phase_of(make(np.random.default_rng(s), s)).phase.startswith(kind.split()[0]) for s in range(10))
        for kind, make in KINDS.items()
    }
    assert sum(right.values()) >= 67, right
    assert min(right.values()) >= 8, right


# -- noise ---------------------------------------------------------------------------------------------------------------


def learned(rows, columns, draws, start=0):
    """Noise matrices that get an exponent, or a phase that is not noise."""
    found = [phase_of(gaussian(rows, columns, start + seed)) for seed in range(draws)]
    return sum(v.fit is not None or v.phase not in ("random-like", "too-small") for v in found)


@pytest.mark.parametrize(("rows", "columns"), [(64, 64), (128, 128), (128, 256)])
def test_noise_shows_nothing_learned(rows, columns):
    assert learned(rows, columns, 40) <= 2


@pytest.mark.slow
def test_noise_of_many_shapes_shows_nothing_learned():
    shapes = [(64, 64), (128, 128), (128, 256), (128, 512), (256, 256), (256, 512), (512, 512)]
    found = {shape: learned(*shape, draws=200, start=1000) for shape in shapes}
    assert sum(found.values()) <= 0.02 * 200 * len(shapes), found
    assert max(found.values()) <= 0.045 * 200, found


def test_noise_gets_no_exponent_unless_it_is_asked_for():
    gated = phase_of(gaussian(seed=1))
    assert (gated.phase, gated.fit, gated.why) == ("random-like", None, "cannot_be_told_from_noise")
    asked = phase_of(gaussian(seed=1), gate=False)
    assert (asked.phase, asked.why) == ("random-like", "given")
    assert asked.fit.alpha > 1


# -- invariances ---------------------------------------------------------------------------------------------------------


@given(kind=st.sampled_from(sorted(KINDS)), exponent=st.floats(-6, 6), seed=st.integers(0, 3))
@settings(deadline=None, max_examples=15)
def test_the_unit_of_the_weights_changes_nothing(kind, exponent, seed):
    matrix = KINDS[kind](np.random.default_rng(seed), seed)[:128, :256]
    plain, scaled = phase_of(matrix), phase_of(10.0**exponent * matrix)
    assert (scaled.phase, scaled.nonzero_phase, scaled.why) == (plain.phase, plain.nonzero_phase, plain.why)
    assert (scaled.bulk.spikes, scaled.zero_mass) == (plain.bulk.spikes, plain.zero_mass)
    assert scaled.soft_rank == pytest.approx(plain.soft_rank)
    assert (scaled.fit is None) == (plain.fit is None)
    if plain.fit is not None:
        assert scaled.fit.alpha == pytest.approx(plain.fit.alpha, rel=1e-6)
        assert scaled.fit.n_tail == plain.fit.n_tail


@given(seed=st.integers(0, 2**31))
@settings(deadline=None, max_examples=10)
def test_rotations_and_transposition_change_nothing(seed):
    matrix = planted([2.0] * 4, 120, 200, seed)
    left = np.linalg.qr(gaussian(120, 120, seed + 1))[0]
    right = np.linalg.qr(gaussian(200, 200, seed + 2))[0]
    plain = phase_of(matrix)
    for other in (phase_of(left @ matrix @ right), phase_of(matrix.T)):
        assert (other.phase, other.bulk.spikes) == (plain.phase, plain.bulk.spikes)
        assert other.soft_rank == pytest.approx(plain.soft_rank)


# -- each cut decides ----------------------------------------------------------------------------------------------------


def test_every_cut_decides_what_it_says():
    spikes = planted([3.0] * 12)
    found = phase_of(spikes)
    assert (found.phase, found.bulk.spikes) == ("bulk+spikes", 12)
    assert found.spike_share == 12 / (M - 12)
    assert phase_of(spikes, Cuts(bulk_decay=0.03)).phase == "bulk-decay"
    assert phase_of(spikes, Cuts(bulk_decay=0.03, decay_spikes=13)).phase == "bulk+spikes"
    assert phase_of(spikes, Cuts(soft_rank=found.soft_rank)).phase == "bleeding-out"
    assert phase_of(spikes, Cuts(min_rows=M + 1)).phase == "too-small"
    assert phase_of(spikes, Cuts(tw_level=1 - 1e-12)).bulk.noise_edge > found.bulk.noise_edge
    for cut in (Cuts(bulk_share=found.bulk.share + 1e-9), Cuts(bulk_distance=found.bulk.distance - 1e-9)):
        assert phase_of(spikes, cut).phase == "heavy-tailed-" + (
            "very-heavy" if found.fit.alpha < 2 else "fat" if found.fit.alpha < 4 else "weak"
        )
    untested = phase_of(spikes, Cuts(min_test_rows=M + 1))
    assert (untested.bulk, untested.fit, untested.tested) == (None, None, "too_few_rows")
    assert phase_of(spikes, Cuts(min_values=M + 1)).why == "too_few_eigenvalues"


def test_the_exponent_names_the_heavy_tail():
    tail = heavy(2.5)
    alpha = phase_of(tail).fit.alpha
    for cuts, name in ((Cuts(), "fat"), (Cuts(very_heavy=alpha + 0.1), "very-heavy"), (Cuts(fat=alpha), "weak")):
        assert phase_of(tail, cuts).phase == f"heavy-tailed-{name}"


# -- what is not usual ---------------------------------------------------------------------------------------------------


def test_a_collapsed_rank_gives_the_phase_of_the_rest_as_well():
    rest = planted([3.0] * 4, 200, N)
    matrix = np.vstack([rest, np.zeros((40, N))])
    found = phase_of(matrix)
    assert (found.phase, found.nonzero_phase) == ("rank-collapse", "bulk+spikes")
    assert found.zero_mass == pytest.approx(40 / 240)
    assert found.bulk.variance == pytest.approx(phase_of(rest).bulk.variance)
    assert found.bulk.spikes == 4
    # a few zeros are no collapse
    assert phase_of(np.vstack([rest, np.zeros((5, N))])).phase == "bulk+spikes"


def test_rounding_is_no_rank():
    low = gaussian(200, 60) @ gaussian(60, 400, 1)
    values = spectrum(torch.from_numpy(low).to(torch.bfloat16).double().numpy())
    assert values[-1] > 1e-8 * values[0]
    assert spectral_phase(values, 200, 400).zero_mass == 0
    floored = spectral_phase(values, 200, 400, floor=float(values[60]) * 1.01)
    assert (floored.phase, floored.zero_mass) == ("rank-collapse", 140 / 200)


@pytest.mark.parametrize(
    ("matrix", "phase", "nonzero", "why"),
    [
        (np.eye(128), "flat", "flat", "flatter_than_noise"),
        (np.linalg.qr(gaussian(400, 200))[0].T, "flat", "flat", "flatter_than_noise"),
        (np.ones((128, 256)), "rank-collapse", "too-small", "too_few_eigenvalues"),
        (np.zeros((128, 256)), "rank-collapse", "too-small", "all_zero"),
        (np.zeros((12, 25)), "too-small", "too-small", "all_zero"),
        (gaussian(1, 500), "too-small", "too-small", "too_few_rows"),
        (gaussian(64, 9), "too-small", "too-small", "too_few_rows"),
        (gaussian(40, 900), "too-small", "too-small", "cannot_be_told_from_noise"),
        (planted([4.0], 40, 900), "too-small", "too-small", "too_few_eigenvalues"),
        (gaussian(900, 128, 1), "random-like", "random-like", "cannot_be_told_from_noise"),
    ],
)  # fmt: skip
def test_odd_matrices_are_decided(matrix, phase, nonzero, why):
    found = phase_of(matrix)
    assert (found.phase, found.nonzero_phase, found.why, found.fit) == (phase, nonzero, why, None)


def test_thinned_noise_is_noise_but_very_sparse_noise_reaches_beyond_the_edge():
    kept = np.random.default_rng(2).random((M, N))
    assert phase_of(gaussian() * (kept < 0.5)).phase == "random-like"
    # the fourth moment of such entries moves the edge; shuffling keeps it, which is how the instrument tells
    assert phase_of(gaussian() * (kept < 0.02)).bulk.spikes > 0


def test_what_is_not_finite_or_not_there_has_no_phase():
    broken = spectral_phase(np.full(200, np.nan), 200, 300)
    assert (broken.phase, broken.why, broken.tested) == ("no-test", "not_finite", "not_finite")
    assert math.isnan(broken.zero_mass)
    empty = spectral_phase(np.empty(0), 0, 300)
    assert (empty.phase, empty.why, empty.tested) == ("too-small", "too_few_eigenvalues", "too_few_rows")


def test_products_are_not_tested_and_get_an_exponent_only_without_the_gate():
    product = gaussian(200, 200) @ gaussian(200, 300, 1)
    found = phase_of(product, testable=False)
    assert (found.phase, found.why, found.tested) == ("no-test", "noise_has_no_known_law", "noise_has_no_known_law")
    assert phase_of(product, testable=False, gate=False).fit is not None


def test_two_groups_of_equal_eigenvalues_are_fitted_or_told_why():
    found = spectral_phase(np.array([9.0] * 100 + [1.0] * 100), 200, 400)
    assert found.phase in PHASES
    same = spectral_phase(np.ones(200), 200, 400, gate=False)
    assert (same.fit, same.why) == (None, "all_eigenvalues_equal")


def test_a_sketch_is_fitted_where_its_values_are_known():
    values = spectrum(heavy(2.5))
    whole, top = spectral_phase(values, M, N), spectral_phase(values, M, N, known=values[:100])
    assert top.phase == whole.phase
    assert (whole.fit.n, top.fit.n) == (M, 100)
    assert spectral_phase(values, M, N, known=values[:10]).why == "too_few_eigenvalues"


def test_pooled_matrices_are_tested_together():
    values = np.sort(np.concatenate([spectrum(gaussian(128, 256, seed)) for seed in range(9)]))[::-1]
    found = spectral_phase(values, 128, 256, copies=9)
    assert (found.phase, found.bulk.spikes) == ("random-like", 0)
    assert found.ratio == 0.5


def test_pooled_matrices_of_collapsed_rank_are_tested_by_what_is_left_of_each():
    rest = [spectrum(gaussian(128, 256, seed)) for seed in range(4)]
    values = np.sort(np.concatenate([*rest, np.zeros(4 * 40)]))[::-1]
    found = spectral_phase(values, 168, 256, copies=4)
    assert (found.phase, found.nonzero_phase, found.ratio) == ("rank-collapse", "random-like", 0.5)
    assert found.bulk.variance == pytest.approx(1, rel=0.02)


def test_every_answer_is_in_the_lists():
    names = {v for v in (*PHASES, *WHY, *TESTED)}
    assert all(" " not in name for name in names)
    assert replace(Cuts(), tw_level=0.95) != Cuts()
