"""Maps between representations, and what theory says they leave alone."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stratoscope.numerics.change_of_basis import (
    INVARIANCES,
    ChangeOfBasis,
    Group,
    correlating,
    permuting,
    rescaling,
    rotating,
    stays,
    whitening,
)

seeds = st.integers(0, 2**20)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rows(n=200, units=6, seed=0):
    return draw(n, units, seed=seed) @ draw(units, units, seed=seed + 1) + draw(units, seed=seed + 2)


def moments(z):
    return z.mean(0), torch.cov(z.T, correction=0).reshape(z.shape[1], z.shape[1])


def correlations(z):
    return torch.corrcoef(z.T)[~torch.eye(z.shape[1], dtype=torch.bool)]


MAKERS = {
    "permute": lambda z: permuting(z.shape[1], seed=3),
    "rescale": lambda z: rescaling(z.shape[1], seed=3),
    "rotate": lambda z: rotating(z.shape[1], seed=3),
    "whiten": lambda z: whitening(*moments(z)),
    "correlate": lambda z: correlating(*moments(z)),
}


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("units", [1, 2, 7])
def test_the_inverse_undoes_the_map(name, units):
    z = rows(units=units)
    change = MAKERS[name](z)
    assert torch.allclose((change(z) - change.shift) @ change.inverse.T, z, rtol=1e-9, atol=1e-9)
    assert torch.allclose(change.matrix @ change.inverse, torch.eye(units, dtype=torch.float64), atol=1e-9)
    assert change.units == units


@given(seed=seeds, units=st.integers(1, 12))
@settings(deadline=None, max_examples=20)
def test_whitening_leaves_no_mean_and_one_variance(seed, units):
    z = rows(units=units, seed=seed)
    white = whitening(*moments(z), condition=1e6)(z)
    assert torch.allclose(white.mean(0), torch.zeros(units, dtype=torch.float64), atol=1e-6)
    assert torch.allclose(moments(white)[1], torch.eye(units, dtype=torch.float64), atol=1e-5)


def test_whitening_is_the_map_nearest_to_the_identity_of_all_that_whiten():
    # ZCA minimises the mean squared distance to the centred activations; a rotation behind it only adds
    z = rows(seed=4) * 0.3
    change = whitening(*moments(z))
    away = [(rotating(6, seed=s).matrix @ change.matrix @ (z - z.mean(0)).T - (z - z.mean(0)).T).square().sum() for s in range(20)]  # fmt: skip
    assert (change(z) - (z - z.mean(0))).square().sum() < min(away)


def test_whitening_of_what_lies_in_fewer_dimensions_is_bounded():
    z = draw(50, 2, seed=1) @ draw(2, 5, seed=2)
    change = whitening(*moments(z), condition=100.0)
    assert change.condition == pytest.approx(100.0, rel=1e-6)
    assert torch.allclose(torch.linalg.eigvalsh(moments(change(z))[1])[-2:], torch.ones(2, dtype=torch.float64))
    assert torch.isfinite(change.inverse).all()


@given(seed=seeds, strength=st.floats(0.05, 0.95), units=st.integers(2, 9))
@settings(deadline=None, max_examples=20)
def test_correlating_gives_every_pair_that_correlation(seed, strength, units):
    z = rows(units=units, seed=seed)
    found = correlations(correlating(*moments(z), correlation=strength, condition=1e7)(z))
    assert torch.allclose(found, torch.full_like(found, strength), atol=1e-4)


def test_the_map_that_correlates_keeps_to_its_condition():
    z = draw(50, 3, seed=1) @ draw(3, 20, seed=2)
    assert correlating(*moments(z), condition=1e3).condition <= 1e3 * (1 + 1e-6)


def test_rescaling_is_within_its_spread_and_its_logarithm_is_uniform():
    factors = torch.cat([rescaling(500, spread=10.0, seed=s).matrix.diagonal() for s in range(20)])
    logs = factors.log10()
    assert -1.0 <= logs.min() < -0.99
    assert 0.99 < logs.max() <= 1.0
    assert float(logs.mean()) == pytest.approx(0.0, abs=4 / math.sqrt(3 * 10_000))


def test_permuting_moves_every_unit_and_rotations_are_orthogonal():
    for units in (2, 3, 8):
        matrix = permuting(units, seed=units).matrix
        assert matrix.diagonal().sum() == 0
        assert torch.equal(matrix.sum(0), torch.ones(units, dtype=torch.float64))
        turn = rotating(units, seed=units).matrix
        assert torch.allclose(turn @ turn.T, torch.eye(units, dtype=torch.float64), atol=1e-12)


@pytest.mark.parametrize("maker", [permuting, rescaling, rotating])
def test_a_seed_gives_the_same_map_and_another_seed_another(maker):
    assert torch.equal(maker(6, seed=1).matrix, maker(6, seed=1).matrix)
    assert not torch.equal(maker(6, seed=1).matrix, maker(6, seed=2).matrix)


def test_groups_are_told_from_the_matrix():
    z = rows()
    groups = {name: make(z).groups for name, make in MAKERS.items()}
    assert groups["permute"] == set(Group)
    assert groups["rescale"] == {Group.SCALING, Group.INVERTIBLE}
    assert groups["rotate"] == {Group.ROTATION, Group.INVERTIBLE}
    assert groups["whiten"] == groups["correlate"] == {Group.INVERTIBLE}
    both = rescaling(5, seed=1).matrix @ permuting(5, seed=2).matrix
    zero = torch.zeros(5, dtype=torch.float64)
    assert ChangeOfBasis(both, both.inverse(), zero).groups == {Group.SCALING, Group.INVERTIBLE}
    assert ChangeOfBasis(-both, -both.inverse(), zero).groups == {Group.INVERTIBLE}


SAYS = {  # the last lines of the specification's section on identical outputs
    "cka": {"permute", "rotate"},
    "nc1": {"permute", "rotate"},
    "kernel_information": {"permute", "rotate"},
    "gdv": {"permute", "rescale"},
    "binned_information": {"permute"},
    "rank_centred": set(MAKERS),
    "linear_readout": set(MAKERS),
    "correlation": {"permute", "rescale"},
    "sparsity": {"permute", "rescale"},
}


@pytest.mark.parametrize("statistic", SAYS)
def test_theory_is_that_of_the_specification(statistic):
    z = rows()
    assert {name for name, make in MAKERS.items() if stays(statistic, make(z))} == SAYS[statistic]


def test_a_shift_changes_the_raw_rank_and_not_the_centred_one_and_few_units_keep_nc1():
    z = rows()
    white = whitening(*moments(z))
    assert white.shifts
    assert not white.without_shift.shifts
    assert not stays("rank", white)
    assert stays("rank", white.without_shift)
    assert stays("rank_centred", white)
    assert stays("nc1", white, classes=7)
    assert not stays("nc1", white, classes=6)
    assert not stays("cka", white)
    assert set(SAYS) < set(INVARIANCES)
    with pytest.raises(KeyError):
        stays("beauty", white)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda: permuting(0), "at least one unit"),
        (lambda: rotating(-1), "at least one unit"),
        (lambda: rescaling(3, spread=0.5), "at least 1"),
        (lambda: rescaling(3, spread=math.inf), "at least 1"),
        (lambda: whitening(torch.zeros(2), torch.eye(3)), "takes a mean, its covariance"),
        (lambda: whitening(torch.zeros(2), torch.eye(2), condition=0.1), "takes a mean, its covariance"),
        (lambda: whitening(torch.zeros(2), torch.zeros(2, 2)), "No unit varies"),
        (lambda: whitening(torch.zeros(2), torch.full((2, 2), math.nan)), "finite"),
        (lambda: correlating(torch.zeros(2), torch.eye(2), correlation=1.0), "between 0 and 1"),
        (lambda: correlating(torch.zeros(90), torch.eye(90), correlation=0.999, condition=100.0), "ask for less"),
    ],
)
def test_what_cannot_be_is_refused(wrong, says):
    with pytest.raises(ValueError, match=says):
        wrong()
