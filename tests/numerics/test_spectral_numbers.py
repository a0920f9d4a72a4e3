"""Numbers of one spectrum: naive twins, weightwatcher's values, what is left out."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon

from stratoscope.numerics.matrices import effective_rank, stable_rank
from stratoscope.numerics.power_law import fit_power_law
from stratoscope.numerics.power_law_errors import goodness_of_fit
from stratoscope.numerics.spectral_numbers import ALTERNATIVES, Options, spectrum_numbers, thinned, whole
from stratoscope.numerics.spectral_phase import Cuts
from stratoscope.numerics.spectrum import Spectrum
from stratoscope.numerics.tails import compare_tails

QUICK = Options(bootstrap=0, alternatives=False)


def gaussian(rows, columns, seed=0):
    return np.random.default_rng(seed).standard_normal((rows, columns))


def with_structure(seed, rows, columns):
    """Noise and eight directions, the same that weightwatcher was given."""
    generator = np.random.default_rng(seed)
    noise = generator.standard_normal((rows, columns))
    return noise + 0.35 * generator.standard_normal((rows, 8)) @ generator.standard_normal((8, columns))


def spectrum_of(matrix, **more):
    values = np.linalg.svd(matrix, compute_uv=False) ** 2
    short, long = sorted(matrix.shape)
    return Spectrum(values, short, long, trace=float(values.sum()), **more)


WEIGHTWATCHER = {
    (1, 120, 300): {
        "alpha": 2.14813701763131, "D": 0.1010895386633276, "xmin": 203.74959278047874, "xmax": 6460.8228977745675,
        "sigma": 0.13170034824192253, "num_pl_spikes": 76.0, "entropy": 0.8052617038445369, "norm": 71398.1835482411,
        "log_norm": 4.853687162966505, "alpha_weighted": 8.18502034930313, "log_alpha_norm": 8.875784491255217,
        "log_spectral_norm": 3.810287836447473, "sv_max": 80.3792441975823, "sv_min": 6.7466681893747795,
        "stable_rank": 11.050942686083259, "lambda_max": 6460.8228977745675, "rank_loss": 0.0, "matrix_rank": 120.0,
        "num_evals": 120.0, "N": 300.0, "M": 120.0, "Q": 2.5, "rf": 1.0, "num_spikes": 8.0,
    },
    (2, 128, 128): {
        "alpha": 2.0863314550040504, "D": 0.0840746236975507, "xmin": 126.82664445842389, "xmax": 3099.0057486645514,
        "sigma": 0.1478309864608415, "num_pl_spikes": 54.0, "entropy": 0.7757388380099874, "norm": 31275.148843582716,
        "log_norm": 4.495199385249321, "alpha_weighted": 7.283847071683548, "log_alpha_norm": 7.911524799578139,
        "log_spectral_norm": 3.49122238185754, "sv_max": 55.66871427170338, "sv_min": 0.01651190590943318,
        "stable_rank": 10.091994458887356, "lambda_max": 3099.0057486645514, "rank_loss": 0.0, "matrix_rank": 128.0,
        "num_evals": 128.0, "N": 128.0, "M": 128.0, "Q": 1.0, "rf": 1.0, "num_spikes": 8.0,
    },
}  # fmt: skip
"""What weightwatcher 0.7.7 says of these matrices; it rounds them to float32 first."""


@pytest.mark.parametrize("which", WEIGHTWATCHER)
def test_equal_names_have_equal_values(which):
    numbers = spectrum_numbers(spectrum_of(with_structure(*which)), QUICK).numbers
    for name, value in WEIGHTWATCHER[which].items():
        assert numbers[name] == pytest.approx(value, rel=1e-5), name


def test_the_edge_of_the_noise_is_near_weightwatchers_where_its_fit_is_good():
    numbers = spectrum_numbers(spectrum_of(with_structure(1, 120, 300)), QUICK).numbers
    assert numbers["bulk_max"] == pytest.approx(792.533, rel=0.05)
    assert numbers["sigma_mp"] == pytest.approx(0.706992, rel=0.05)
    assert numbers["mp_softrank"] == pytest.approx(0.122668, rel=0.05)


@given(seed=st.integers(0, 2**31), rows=st.integers(2, 40), columns=st.integers(2, 40))
@settings(deadline=None, max_examples=25)
def test_sizes_and_ranks_equal_their_naive_twins(seed, rows, columns):
    matrix = gaussian(rows, columns, seed)
    numbers = spectrum_numbers(spectrum_of(matrix), QUICK).numbers
    s = np.linalg.svd(matrix, compute_uv=False)
    assert numbers["norm"] == pytest.approx(np.linalg.norm(matrix) ** 2)
    assert numbers["lambda_max"] == pytest.approx(np.linalg.norm(matrix, 2) ** 2)
    assert 10 ** numbers["log_spectral_norm"] == pytest.approx(numbers["lambda_max"])
    assert numbers["matrix_rank"] == np.linalg.matrix_rank(matrix)
    assert numbers["matrix_rank"] + numbers["rank_loss"] == numbers["num_evals"] == min(rows, columns)
    assert numbers["stable_rank"] == pytest.approx(float(stable_rank(torch.from_numpy(s))))
    assert numbers["effective_rank"] == pytest.approx(float(effective_rank(torch.from_numpy(s))))
    share = s**2 / (s**2).sum()
    assert numbers["entropy"] == pytest.approx(-(share * np.log(share)).sum() / np.log(len(s)))


def test_noise_and_spikes_add_up():
    reading = spectrum_numbers(spectrum_of(with_structure(1, 120, 300)), QUICK)
    numbers = reading.numbers
    assert len(reading.strengths) == numbers["num_spikes"] == 8
    assert list(reading.strengths) == sorted(reading.strengths, reverse=True)
    assert numbers["sigma_mp"] ** 2 * numbers["norm"] / 120 == pytest.approx(numbers["bulk_sigma"] ** 2)
    assert numbers["bulk_max"] == pytest.approx((numbers["bulk_sigma"] * (1 + math.sqrt(0.4))) ** 2)
    assert numbers["bulk_min"] == pytest.approx((numbers["bulk_sigma"] * (1 - math.sqrt(0.4))) ** 2)
    assert numbers["mp_softrank"] == pytest.approx(numbers["bulk_max"] / numbers["lambda_max"])
    assert numbers["noise_edge"] > numbers["bulk_max"]


def test_noise_gets_none_of_the_tail():
    reading = spectrum_numbers(spectrum_of(gaussian(128, 200, 1)))
    assert reading.verdict.why == "cannot_be_told_from_noise"
    assert not {"alpha", "D", "xmin", "fit_p", "log_alpha_norm", "lognormal_ratio"} & set(reading.numbers)
    assert (reading.versus, len(reading.strengths)) == ({}, 0)
    asked = spectrum_numbers(spectrum_of(gaussian(128, 200, 1)), Options(gate=False, bootstrap=0))
    assert asked.numbers["alpha"] > 1


def test_the_tail_has_an_interval_a_p_value_and_alternatives():
    spectrum = spectrum_of(with_structure(1, 120, 300))
    reading = spectrum_numbers(spectrum, Options(bootstrap=50, seed=3))
    numbers = reading.numbers
    assert numbers["alpha_low"] < numbers["alpha"] < numbers["alpha_high"]
    assert 0 < numbers["fit_p"] <= 1
    assert set(reading.versus) == set(ALTERNATIVES)
    assert reading.versus["exponential"] == "power_law"
    assert numbers["exponential_ratio"] > 0
    assert spectrum_numbers(spectrum, Options(bootstrap=50, seed=3)).numbers == numbers
    assert "fit_p" not in spectrum_numbers(spectrum, QUICK).numbers


def test_an_upper_limit_is_passed_on():
    values = np.sort(1 / np.random.default_rng(0).random(400))[::-1]
    spectrum = Spectrum(values, 400, 1000, trace=float(values.sum()))
    limited = spectrum_numbers(spectrum, Options(xmax=20.0, bootstrap=30, seed=3)).numbers
    assert limited["xmax"] == 20.0
    assert limited["num_pl_spikes"] <= (values <= 20).sum()
    assert limited["alpha_low"] < limited["alpha_high"]
    fit = fit_power_law(values, xmax=20.0)
    assert limited["fit_p"] == goodness_of_fit(values, fit, samples=30, seed=3).p
    assert limited["fit_p"] != goodness_of_fit(values, fit, samples=30).p  # the seed is passed on, too
    assert limited["lognormal_ratio"] == pytest.approx(compare_tails(values, fit)["lognormal"].R)


def test_a_huge_exponent_overflows_nothing():
    values = np.concatenate([np.linspace(1.001, 1.0, 60) * 1e12, np.full(60, 1.0)])
    numbers = spectrum_numbers(
        Spectrum(values, 120, 4000, trace=float(values.sum())), Options(gate=False, bootstrap=0)
    ).numbers
    assert math.isfinite(numbers["log_alpha_norm"])
    assert numbers["log_alpha_norm"] >= numbers["alpha_weighted"]


def test_shuffles_find_single_huge_entries():
    clean, trapped = gaussian(100, 150), gaussian(100, 150)
    trapped[3, 4] = 60.0
    numbers = {}
    for name, matrix in (("clean", clean), ("trapped", trapped)):
        generator = np.random.default_rng(1)
        other = generator.permutation(matrix.ravel()).reshape(matrix.shape)
        shuffled = np.linalg.svd(other, compute_uv=False) ** 2
        spectrum = spectrum_of(matrix, shuffled=(shuffled,))
        numbers[name] = spectrum_numbers(spectrum, QUICK).numbers
        assert numbers[name]["max_rand_eval"] == shuffled[0]
        assert numbers[name]["ww_softrank"] == shuffled[0] / spectrum.eigenvalues[0]
        naive = jensenshannon(spectrum.eigenvalues, shuffled)
        assert numbers[name]["rand_distance"] == pytest.approx(naive, abs=1e-7)
    assert numbers["clean"]["num_traps"] == 0
    assert numbers["trapped"]["num_traps"] == numbers["trapped"]["num_spikes"] == 1
    assert "num_traps" not in spectrum_numbers(spectrum_of(clean), QUICK).numbers


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_rounding_of_the_stored_type_is_not_rank(dtype):
    low = (gaussian(200, 60) @ gaussian(60, 400, 1)) / 20
    matrix = torch.from_numpy(low).to(dtype).double().numpy()
    reading = spectrum_numbers(spectrum_of(matrix), QUICK, dtype)
    assert reading.numbers["zero_mass"] == pytest.approx(0.7)
    assert reading.verdict.phase == "rank-collapse"
    # and noise of full rank keeps its rank
    noise = torch.from_numpy(gaussian(300, 300)).to(dtype).double().numpy()
    reading = spectrum_numbers(spectrum_of(noise), QUICK, dtype)
    assert reading.numbers["zero_mass"] < 0.02
    assert reading.verdict.phase == "random-like"


def test_rounding_is_the_same_in_each_of_several_pooled_matrices():
    eps, sides = torch.finfo(torch.float16).eps, (math.sqrt(100) + math.sqrt(200)) ** 2
    rounding = eps**2 / 12 * (50 / (100 * 200)) * sides
    one = np.concatenate([np.ones(50), np.full(50, 3 * rounding)])
    single = Spectrum(one, 100, 200, trace=float(one.sum()))
    pooled = Spectrum(np.repeat(one, 9), 100, 200, copies=9, trace=9 * float(one.sum()))
    for spectrum in (single, pooled):
        assert spectrum_numbers(spectrum, QUICK, torch.float16).numbers["zero_mass"] == 0
    below = Spectrum(np.where(one < 1, 0.9 * rounding, one), 100, 200, trace=50.0)
    assert spectrum_numbers(below, QUICK, torch.float16).numbers["zero_mass"] == 0.5


def test_a_sketch_stands_for_all():
    values = np.sort(np.random.default_rng(0).exponential(size=200))[::-1]
    nodes = values[100:][::-1].reshape(20, 5).mean(axis=1)
    sketch = Spectrum(
        values[:100], 200, 400, how="sketch", error=0.02, nodes=nodes, node_weights=np.full(20, 5.0),
        trace=float(values.sum()),
    )  # fmt: skip
    assert len(whole(sketch)) == 200
    assert np.all(np.diff(whole(sketch)) <= 0)
    numbers, exact = (spectrum_numbers(s, QUICK).numbers for s in (sketch, Spectrum(values, 200, 400)))
    assert numbers["sketch_error"] == 0.02
    for name in ("norm", "stable_rank", "effective_rank", "entropy", "bulk_share"):
        assert numbers[name] == pytest.approx(exact[name], rel=0.05), name


def test_weights_of_nodes_that_are_not_whole_numbers_still_make_up_the_number():
    weights = np.full(10, 0.1)
    assert np.cumsum(weights)[-1] < 1  # by rounding
    sketch = Spectrum(np.array([9.0]), 2, 8, how="sketch", nodes=np.linspace(1, 2, 10), node_weights=weights)
    assert len(whole(sketch)) == sketch.count


@pytest.mark.parametrize("rows", [31, 32])
def test_traps_are_looked_for_where_noise_is_tested_for(rows):
    noise = spectrum_of(gaussian(rows, 64), shuffled=(spectrum_of(gaussian(rows, 64, seed=1)).eigenvalues,))
    numbers = spectrum_numbers(noise, QUICK).numbers
    assert numbers["max_rand_eval"] == noise.shuffled[0][0]
    assert numbers.get("num_traps") == (None if rows == 31 else 0)
    assert ("num_spikes" in numbers) == (rows == 32)


def test_of_several_shuffles_the_traps_are_their_median_and_the_largest_eigenvalue_is_of_all():
    plain = [spectrum_of(gaussian(64, 64, seed=seed)).eigenvalues for seed in range(3)]
    plain[1] = np.concatenate([[1e3], plain[1][:-1]])
    several = spectrum_of(gaussian(64, 64, seed=9), shuffled=tuple(plain))
    numbers = spectrum_numbers(several, QUICK).numbers
    assert (numbers["num_traps"], numbers["max_rand_eval"]) == (0, 1e3)


@pytest.mark.parametrize(
    ("values", "rows"), [(np.full(50, np.nan), 50), (np.empty(0), 0), (np.zeros(150), 150), (np.ones(1), 1)]
)
def test_odd_spectra_have_sizes_and_nothing_that_is_not_so(values, rows):
    reading = spectrum_numbers(Spectrum(values, rows, 200, trace=float(values.sum())), QUICK)
    assert reading.numbers["num_evals"] == len(values)
    assert reading.verdict.fit is None
    if rows == 150:
        assert reading.numbers["zero_mass"] == 1
        assert (reading.numbers["matrix_rank"], reading.numbers["rank_loss"]) == (0, 150)
        assert "stable_rank" not in reading.numbers
    if rows == 1:
        assert math.isnan(reading.numbers["entropy"])


@given(n=st.integers(0, 100), keep=st.integers(2, 50))
@settings(deadline=None, max_examples=25)
def test_thinning_keeps_the_number_the_order_and_the_top(n, keep):
    values = np.sort(np.random.default_rng(n).random(n))[::-1]
    kept, counts = thinned(values, keep)
    assert len(kept) == min(n, keep)
    assert np.all(np.diff(kept) <= 0)
    if counts is None:
        assert kept is values
    else:
        assert counts.sum() == n
        assert (kept[: keep // 2] == values[: keep // 2]).all()


def test_the_cuts_reach_the_rule():
    spectrum = spectrum_of(with_structure(1, 120, 300))
    assert spectrum_numbers(spectrum, Options(Cuts(min_rows=121), bootstrap=0)).verdict.phase == "too-small"
