"""Sketches of spectra: against exact decompositions, closed forms, and their own error."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stratoscope.numerics.lanczos import gram_product, sketch

N = 600


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def noise(n, columns, seed=0):
    return torch.linalg.eigvalsh(gaussian(columns, n, seed=seed).T @ gaussian(columns, n, seed=seed) / columns)


def spectra():
    spiked = noise(N, 2 * N, seed=2).clone()
    spiked[-6:] = torch.linspace(5, 50, 6)
    low = torch.zeros(N, dtype=torch.float64)
    low[:5] = torch.arange(1.0, 6.0)
    half = torch.zeros(N, dtype=torch.float64)
    half[: N // 2] = noise(N // 2, N, seed=3)
    power = (1 - torch.rand(N, generator=generator(1), dtype=torch.float64)) ** (-1 / 1.5)
    return {
        "square noise": noise(N, N),
        "long noise": noise(N, 4 * N, seed=1),
        "spikes": spiked,
        "rank 5": low,
        "half of the rank": half,
        "power law": power,
        "identity": torch.ones(N, dtype=torch.float64),
        "zero": torch.zeros(N, dtype=torch.float64),
        "three values": torch.arange(1.0, 4.0, dtype=torch.float64).repeat_interleave(N // 3),
        "projection": (torch.arange(N) < 250).double(),
        "five alike at the top": torch.cat([torch.linspace(0, 1, N - 5), torch.full((5,), 2.0)]).double(),
    }


SPECTRA = {name: values.sort(descending=True).values for name, values in spectra().items()}


def turned(values, seed=9):
    """A symmetric matrix with these eigenvalues and random eigenvectors, so that random signs are not exact."""
    basis = torch.linalg.qr(gaussian(len(values), len(values), seed=seed)).Q
    return basis @ (values[:, None] * basis.T)


def distance(found, truth):
    """Largest difference between the shares below a point, on either side of every jump."""
    rest = truth[len(found.top) :].flip(0)
    if not len(rest):
        return 0.0
    near = 1e-9 * float(truth[0])
    points = torch.cat([found.nodes, rest])
    points = torch.cat([points - near, points + near])
    true = (rest[None] <= points[:, None]).double().mean(1)
    ours = ((found.nodes[None] <= points[:, None]) * found.weights).sum(1) / found.weights.sum()
    return float((true - ours).abs().max())


@pytest.mark.parametrize("name", SPECTRA)
def test_largest_eigenvalues_and_the_distribution_of_the_others(name):
    truth = SPECTRA[name]
    matrix = turned(truth)
    found = sketch(lambda v: matrix @ v, N, generator=generator(), steps=32)
    k = len(found.top)
    assert k >= 1
    np.testing.assert_allclose(found.top, truth[:k], rtol=1e-4, atol=1e-12 * float(truth[0]))
    assert float(found.weights.sum()) + k == pytest.approx(N)
    assert (found.nodes.diff() > 0).all()
    assert distance(found, truth) <= found.error + 1e-9
    assert found.error < 0.12  # of 600 eigenvalues, from 32 steps


@pytest.mark.parametrize(
    ("name", "k"), [("spikes", 6), ("five alike at the top", 5), ("rank 5", 5), ("power law", 20), ("long noise", 3)]
)
def test_what_stands_apart_is_found_to_many_digits(name, k):
    truth = SPECTRA[name]
    matrix = turned(truth)
    found = sketch(lambda v: matrix @ v, N, generator=generator(1))
    assert len(found.top) >= k
    np.testing.assert_allclose(found.top[:k], truth[:k], rtol=1e-6)


def test_the_largest_is_there_even_where_nothing_converged():
    truth = torch.linspace(1, 0, 5000, dtype=torch.float64)
    found = sketch(lambda v: truth[:, None] * v, 5000, generator=generator(), probes=2, steps=20)
    assert len(found.top) == 1
    assert 0.98 < float(found.top[0]) <= 1.0


def test_an_eigenvalue_of_more_copies_than_probes_stays_in_the_rule():
    found = sketch(lambda v: v, N, generator=generator())
    assert found.products == 1
    assert len(found.top) == 8
    np.testing.assert_allclose(found.nodes, [1.0], rtol=1e-12)
    np.testing.assert_allclose(found.weights, [N - 8], rtol=1e-12)
    assert found.error == 0.0


def test_a_zero_matrix_costs_one_product():
    found = sketch(torch.zeros_like, N, generator=generator())
    assert (found.products, found.error) == (1, 0.0)
    assert found.top.tolist() == [0.0] * 8
    assert found.nodes.tolist() == [0.0]


@given(n=st.integers(1, 30), seed=st.integers(0, 2**31))
@settings(deadline=None, max_examples=25)
def test_a_small_matrix_is_decomposed_exactly(n, seed):
    factor = gaussian(n, n + 3, seed=seed)
    matrix = factor @ factor.T
    found = sketch(lambda v: matrix @ v, n, generator=generator(seed))
    truth = torch.linalg.eigvalsh(matrix).flip(0)
    assert len(found.top) + float(found.weights.sum()) == pytest.approx(n)
    if len(found.top) == n:
        assert found.error == 0.0
        np.testing.assert_allclose(found.top, truth, rtol=1e-9, atol=1e-12 * float(truth[0]))
    assert len(found.top) == n or n <= 8  # a few random signs may be linearly dependent


def test_the_rule_is_exact_for_polynomials_and_gives_the_moments_of_noise():
    """For entries of variance 1/N the moments of Marchenko-Pastur's law are 1, 1 + y, 1 + 3y + y^2."""
    n, columns = 500, 1000
    factor = gaussian(columns, n, seed=4) / math.sqrt(columns)
    found = sketch(gram_product(factor, 1.0), n, generator=generator(), steps=4)
    y = n / columns
    for power, moment in ((1, 1.0), (2, 1 + y), (3, 1 + 3 * y + y * y)):
        ours = float((found.top**power).sum() + (found.weights * found.nodes**power).sum()) / n
        # eight probes: the standard error of a mean of squares is about sqrt(2 m_2p / (8 n))
        assert ours == pytest.approx(moment, rel=0.1)


def test_the_mean_over_probes_is_unbiased():
    """Twenty seeds bring the estimated trace of the squared matrix to its value."""
    truth = SPECTRA["square noise"]
    matrix = turned(truth)
    traces = []
    for seed in range(20):
        found = sketch(lambda v: matrix @ v, N, generator=generator(seed), steps=4)
        traces.append(float(found.top.square().sum() + (found.weights * found.nodes.square()).sum()))
    error = np.std(traces) / math.sqrt(20)
    assert abs(np.mean(traces) - float(truth.square().sum())) < 4 * error + 0.002 * float(truth.square().sum())


def test_the_error_falls_with_steps_and_probes():
    truth = SPECTRA["long noise"]
    matrix = turned(truth)
    errors = [
        sketch(lambda v: matrix @ v, N, generator=generator(), probes=probes, steps=steps).error
        for probes, steps in ((4, 8), (4, 32), (16, 32))
    ]
    assert errors[0] > 2 * errors[1] > 2 * errors[2]


@given(exponent=st.integers(-200, 200))
@settings(deadline=None, max_examples=10)
def test_scales_with_powers_of_two(exponent):
    truth, factor = SPECTRA["spikes"][:120], 2.0**exponent
    matrix = turned(truth)
    plain = sketch(lambda v: matrix @ v, 120, generator=generator(), probes=4, steps=12)
    scaled = sketch(lambda v: (matrix * factor) @ v, 120, generator=generator(), probes=4, steps=12)
    np.testing.assert_allclose(scaled.top, plain.top * factor, rtol=1e-9)
    np.testing.assert_allclose(scaled.nodes, plain.nodes * factor, rtol=1e-9)
    assert scaled.error == pytest.approx(plain.error)


def test_the_same_seed_gives_the_same_bytes_and_others_differ():
    matrix = turned(SPECTRA["square noise"])
    one, two, other = (sketch(lambda v: matrix @ v, N, generator=generator(s), steps=8) for s in (3, 3, 4))
    assert torch.equal(one.nodes, two.nodes)
    assert torch.equal(one.weights, two.weights)
    assert not torch.equal(one.weights, other.weights)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_products_read_the_stored_type_in_blocks(dtype, monkeypatch):
    from stratoscope.numerics import matrices

    monkeypatch.setattr(matrices, "BLOCK", 700)
    tall, vectors = gaussian(90, 40).to(dtype), gaussian(40, 3, seed=1)
    wide = tall.double()
    torch.testing.assert_close(gram_product(tall, 4.0)(vectors), wide.T @ (wide @ vectors) / 16)


@pytest.mark.parametrize(("n", "probes", "steps"), [(0, 8, 8), (5, 1, 8), (5, 8, 1)])
def test_sizes_that_make_no_sketch(n, probes, steps):
    with pytest.raises(ValueError, match=rf"there were {n}, {probes}, {steps}"):
        sketch(lambda v: v, n, generator=generator(), probes=probes, steps=steps)
