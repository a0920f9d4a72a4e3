"""CKA and Procrustes distance: invariances, plain twins, the exact null, errors, precision and memory."""

import itertools
import math
import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stratoscope.numerics import hsic
from stratoscope.numerics.similarity import cka_map, linear_cka, procrustes
from stratoscope.numerics.sketch import count_sketch

SEED = 1000 * int(os.environ.get("STRATOSCOPE_TEST_SEED", "0"))
DOUBLE = torch.float64
FIELDS = ("debiased", "biased", "standard_error", "null_biased")


def gaussian(*shape, seed=0, dtype=DOUBLE):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(SEED + seed), dtype=DOUBLE).to(dtype)


def rotation(size, seed=0):
    return torch.linalg.qr(gaussian(size, size, seed=seed)).Q


def related(n, d, e, share=1.0, seed=0):
    """Two representations that share their first columns."""
    x, y = gaussian(n, d, seed=2 * seed) + 3, gaussian(n, e, seed=2 * seed + 1)
    both = min(d, e)
    y[:, :both] += share * x[:, :both]
    return x, y


def plain(x, y):
    """Both forms as they are written in the papers, with n x n matrices and no shortcut."""
    n = len(x)
    k, other = x @ x.T, y @ y.T
    centre = torch.eye(n, dtype=DOUBLE) - 1 / n
    kc, lc = centre @ k @ centre, centre @ other @ centre
    one = torch.ones(n, dtype=DOUBLE)

    def hsic_1(a, b):
        a, b = a - a.diag().diag(), b - b.diag().diag()
        total = (a @ b).trace() + (one @ a @ one) * (one @ b @ one) / ((n - 1) * (n - 2))
        return (total - 2 / (n - 2) * (one @ a @ b @ one)) / (n * (n - 3))

    biased = (kc * lc).sum() / (kc.norm() * lc.norm())
    return float(biased), float(hsic_1(k, other) / (hsic_1(k, k) * hsic_1(other, other)).sqrt())


SHAPES = [(4, 3, 2), (5, 1, 1), (40, 5, 7), (40, 60, 100), (150, 200, 20), (30, 900, 700)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("dtype", "tolerance"), [(DOUBLE, 1e-9), (torch.float32, 1e-4)], ids=["64", "32"])
def test_it_is_the_plain_formula(shape, dtype, tolerance):
    x, y = related(*shape)
    found, (biased, debiased) = linear_cka(x.to(dtype), y.to(dtype)), plain(x, y)
    assert float(found.biased) == pytest.approx(biased, abs=tolerance)
    assert float(found.debiased) == pytest.approx(debiased, abs=tolerance)


@pytest.mark.parametrize("second", [False, True], ids=["among itself", "two sets"])
def test_by_units_and_by_examples_give_the_same(second, monkeypatch):
    some = [gaussian(60, width, seed=width) for width in (3, 150, 20)]
    some[2][:, :3] += some[0]
    others = [gaussian(60, 4, seed=9) + some[0][:, :1], some[1][:, :140]] if second else None
    found = []
    for by_units in (True, False):
        monkeypatch.setattr(hsic, "_units_are_cheaper", lambda *_, way=by_units: way)
        found.append(cka_map(some, others))
    for name in FIELDS:
        torch.testing.assert_close(getattr(found[0], name), getattr(found[1], name), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("by_units", [True, False])
def test_small_blocks_change_nothing(by_units, monkeypatch):
    x, y = related(90, 200, 130)
    monkeypatch.setattr(hsic, "_units_are_cheaper", lambda *_: by_units)
    usual = cka_map([x, y])
    monkeypatch.setattr(hsic, "BLOCK", 2**12)
    monkeypatch.setattr(hsic, "HELD", 0)
    monkeypatch.setattr(hsic.Centred, "rows", 17)
    cut = cka_map([x, y])
    for name in FIELDS:
        torch.testing.assert_close(getattr(cut, name), getattr(usual, name), rtol=1e-9, atol=1e-9)


def test_a_map_is_what_pairs_give():
    some = [gaussian(50, width, seed=width) for width in (4, 9, 70)]
    others = [some[1][:, :3] + gaussian(50, 3, seed=77), some[2]]
    square, oblong = cka_map(some), cka_map(some, others)
    for row, one in enumerate(some):
        for table, columns in ((square, some), (oblong, others)):
            for column, other in enumerate(columns):
                pair = linear_cka(one, other)
                for name in FIELDS:
                    torch.testing.assert_close(
                        getattr(table, name)[row, column], getattr(pair, name), rtol=1e-8, atol=2e-8
                    )
    assert square.at(0, 2).debiased == square.debiased[0, 2]
    assert torch.equal(square.debiased, square.debiased.T)


def test_a_map_has_exact_ones_on_its_diagonal():
    found = cka_map([gaussian(20, 3, dtype=torch.float32), gaussian(20, 40, seed=1, dtype=torch.float32)])
    assert found.debiased.diagonal().tolist() == found.biased.diagonal().tolist() == [1.0, 1.0]
    assert found.standard_error.diagonal().tolist() == [0.0, 0.0]


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 10_000), n=st.integers(5, 40), width=st.integers(1, 60), scale=st.floats(1e-6, 1e6))
def test_shift_rotation_scale_and_duplication_change_nothing(seed, n, width, scale):
    x, y = related(n, width, 7, seed=seed)
    moved = scale * (x @ rotation(width, seed)) + gaussian(width, seed=seed + 1) * scale
    for changed in (
        moved,
        torch.cat([x, x], 1),
        x[:, torch.randperm(width, generator=torch.Generator().manual_seed(seed))],
    ):
        itself = linear_cka(x, changed)
        # one unit, and two examples alike by chance, leave little to compare
        assert float(itself.debiased) == pytest.approx(1, abs=1e-6)
        assert float(itself.biased) == pytest.approx(1, abs=1e-9)
        assert float(linear_cka(changed, y).debiased) == pytest.approx(float(linear_cka(x, y).debiased), abs=1e-6)
        assert float(linear_cka(changed, y).biased) == pytest.approx(float(linear_cka(x, y).biased), abs=1e-9)
    assert procrustes(x, moved).distance == pytest.approx(0, abs=1e-9)
    assert procrustes(moved, y).distance == pytest.approx(procrustes(x, y).distance, abs=1e-7)


def test_scaling_single_units_does_change_it():
    x = gaussian(200, 6)
    assert float(linear_cka(x, x * torch.tensor([9.0, 1, 1, 1, 1, 1])).debiased) < 0.6


def test_order_of_arguments_and_of_examples_does_not_matter():
    x, y = related(30, 4, 9)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(SEED))
    one, other, mixed = linear_cka(x, y), linear_cka(y, x), linear_cka(x[order], y[order])
    for name in FIELDS:
        torch.testing.assert_close(getattr(one, name), getattr(other, name), rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(getattr(one, name), getattr(mixed, name), rtol=1e-9, atol=1e-12)


# -- the null ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("d", "e"), [(1, 1), (2, 3), (3, 20)])
def test_the_null_over_every_order_of_five_examples_is_exact(d, e):
    """All 120 orders: the mean of the biased form, and mean and variance of the debiased one, are as stated."""
    x, y = related(5, d, e)
    x = x**3
    found = [linear_cka(x, y[list(order)]) for order in itertools.permutations(range(5))]
    debiased = torch.stack([one.debiased for one in found])
    biased = torch.stack([one.biased for one in found])
    assert float(debiased.mean()) == pytest.approx(0, abs=1e-9)
    assert float(debiased.square().mean()) == pytest.approx(2 / (5 * 2), rel=1e-6)
    assert float(biased.mean()) == pytest.approx(float(found[0].null_biased), rel=1e-9)
    assert found[0].null_sd == pytest.approx(math.sqrt(0.2))


def test_independent_representations_read_zero_whatever_their_width():
    """Debiased: within 5 standard errors of 0 on average over draws. Biased: near 1 where units outnumber examples."""
    for n, d, e in ((40, 3, 5), (40, 400, 300)):
        found = [linear_cka(gaussian(n, d, seed=10 + s), gaussian(n, e, seed=5000 + s)) for s in range(40)]
        mean = float(torch.stack([one.debiased for one in found]).mean())
        assert abs(mean) < 5 * found[0].null_sd / math.sqrt(40)
        assert abs(float(found[0].z)) < 6
    assert float(found[0].biased) > 0.85
    assert float(found[0].biased) == pytest.approx(float(found[0].null_biased), abs=0.02)


def test_a_sample_says_what_the_population_does():
    """Y = [X_1, noise]: the population's CKA is known; the debiased form is unbiased to first order."""
    n = 400
    truth = 1 / math.sqrt(4 * 3)  # X: 4 units, Y: one of them and 2 of noise, all of variance 1
    found = []
    for seed in range(20):
        x, noise = gaussian(n, 4, seed=seed), gaussian(n, 2, seed=900 + seed)
        found.append(linear_cka(x, torch.cat([x[:, :1], noise], 1)))
    values, errors = (torch.stack([getattr(one, name) for one in found]) for name in ("debiased", "standard_error"))
    assert float(values.mean()) == pytest.approx(truth, abs=5 * float(errors.mean()) / math.sqrt(20))


# -- standard error ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shape", "share"), [((60, 4, 6), 1.0), ((60, 3, 3), 3.0), ((40, 80, 60), 2.0)], ids=str)
def test_standard_error_is_that_of_the_jackknife(shape, share):
    x, y = related(*shape, share=share)
    n = len(x)
    left_out = torch.stack([
        linear_cka(x[torch.arange(n) != i], y[torch.arange(n) != i], standard_error=False).debiased for i in range(n)
    ])  # fmt: skip
    jackknife = float((left_out - left_out.mean()).square().sum() * (n - 1) / n) ** 0.5
    assert float(linear_cka(x, y).standard_error) == pytest.approx(jackknife, rel=0.25)


@pytest.mark.parametrize(("share", "least", "most"), [(1.0, 0.75, 1.35), (0.0, 1.0, 1.9)])
def test_standard_error_is_the_spread_over_fresh_samples(share, least, most):
    found = [linear_cka(*related(100, 10, 6, share=share, seed=100 + s)) for s in range(80)]
    spread = float(torch.stack([one.debiased for one in found]).std())
    said = float(torch.stack([one.standard_error for one in found]).mean())
    assert least < said / spread < most


def test_witnesses_stand_for_all_examples(monkeypatch):
    x, y = related(900, 4, 6)
    every = linear_cka(x, y)
    monkeypatch.setattr(hsic, "WITNESSES", 300)
    some = linear_cka(x, y)
    assert float(some.debiased) == pytest.approx(float(every.debiased), rel=1e-6)
    assert float(some.standard_error) == pytest.approx(float(every.standard_error), rel=0.25)
    assert math.isnan(float(linear_cka(x, y, standard_error=False).standard_error))


# -- edges ---------------------------------------------------------------------------------------------------------------


def test_constants_and_equidistant_examples_have_nothing_to_compare():
    constant = torch.full((10, 3), 7.1)
    x = gaussian(10, 3, dtype=torch.float32)
    for other in (x, constant):
        found = linear_cka(constant, other)
        assert [float(getattr(found, name)) for name in FIELDS] == [0, 0, 0, 0]
        assert procrustes(constant, other).distance == pytest.approx(math.sqrt(2))
    table = cka_map([constant, x])
    assert table.debiased.tolist() == table.biased.tolist() == [[0, 0], [0, 1]]
    corners = torch.eye(10)
    assert float(linear_cka(corners, corners).debiased) == 0
    assert float(linear_cka(corners, corners).biased) == pytest.approx(1)


def test_a_constant_unit_among_others_changes_nothing():
    x, y = related(20, 4, 5)
    with_constant = torch.cat([x, torch.full((20, 2), 5.0, dtype=DOUBLE)], 1)
    assert float(linear_cka(with_constant, y).debiased) == pytest.approx(float(linear_cka(x, y).debiased), abs=1e-10)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64, torch.uint8])
def test_other_types_are_computed_in_float32(dtype):
    x = (20 * gaussian(30, 4).abs()).round().clamp(0, 100)
    y = (20 * gaussian(30, 6, seed=5)).round().clamp(-100, 100)
    assert float(linear_cka(x.to(dtype), y.float()).debiased) == pytest.approx(
        float(linear_cka(x, y).debiased), abs=1e-5
    )


@pytest.mark.parametrize("scale", [1e-38, 1e-20, 1e18, 1e37])
def test_huge_and_tiny_numbers_in_float32(scale):
    x, y = (features / 10 for features in related(30, 4, 6))
    found = linear_cka((x * scale).float(), y.float())
    assert float(found.debiased) == pytest.approx(float(linear_cka(x, y).debiased), abs=1e-4)
    assert procrustes((x * scale).float(), y.float()).distance == pytest.approx(procrustes(x, y).distance, abs=1e-4)


def test_a_small_spread_around_a_large_mean_keeps_its_digits():
    x, y = related(50, 4, 6)
    far = (1000 + 0.01 * x).float()
    assert float(linear_cka(far, y).debiased) == pytest.approx(float(linear_cka(far.double(), y).debiased), abs=1e-5)


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        (torch.ones(3, 2), torch.ones(3, 2), "At least 4 examples"),
        (torch.randn(5, 2), torch.randn(6, 2), "same examples"),
        (torch.randn(5), torch.randn(5, 1), "shape"),
        (torch.randn(5, 0), torch.randn(5, 1), "shape"),
        (torch.randn(5, 1, dtype=torch.complex64), torch.randn(5, 1), "Real features"),
        (torch.tensor([[1.0], [2.0], [math.nan], [3.0], [4.0]]), torch.randn(5, 1), "1 of 5 are NaN or infinite"),
        (torch.randn(5, 1), torch.tensor([[1.0], [2.0], [math.inf], [3.0], [4.0]]), "1 of 5 are NaN or infinite"),
    ],
)
def test_what_cannot_be_compared_is_refused(first, second, words):
    for compare in (linear_cka, procrustes):
        with pytest.raises(ValueError, match=words):
            compare(first, second)


def test_an_empty_map_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        cka_map([])
    with pytest.raises(ValueError, match="at least one"):
        cka_map([torch.randn(5, 2)], [])


# -- Procrustes ----------------------------------------------------------------------------------------------------------


def test_procrustes_of_a_known_angle():
    """Two circles, one squeezed: X'Y is diagonal, so the nuclear norm is its trace."""
    x = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    y = x * torch.tensor([3.0, 1.0])
    alike = (2 * 3 + 2 * 1) / math.sqrt(4 * 20)
    assert procrustes(x, y).distance == pytest.approx(math.sqrt(2 - 2 * alike))


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 10_000), n=st.integers(4, 30), d=st.integers(1, 40), e=st.integers(1, 40))
def test_procrustes_is_a_metric_and_the_best_rotation(seed, n, d, e):
    x, y, z = gaussian(n, d, seed=seed), gaussian(n, e, seed=seed + 1), gaussian(n, 5, seed=seed + 2)
    xy, yz, xz = (procrustes(a, b).distance for a, b in ((x, y), (y, z), (x, z)))
    assert xy == pytest.approx(procrustes(y, x).distance, abs=1e-9)
    assert xz <= xy + yz + 1e-9
    assert 0 <= xy <= math.sqrt(2) + 1e-12
    width = max(d, e)
    a, b = ((m - m.mean(0)) / (m - m.mean(0)).norm() for m in (x, y))
    a, b = (torch.nn.functional.pad(m, (0, width - m.shape[1])) for m in (a, b))
    u, _, vh = torch.linalg.svd(a.T @ b)
    assert xy == pytest.approx(float((a @ u @ vh - b).norm()), abs=1e-7)
    assert xy <= float((a @ rotation(width, seed) - b).norm()) + 1e-9


@pytest.mark.parametrize("shape", [(20, 3, 4), (20, 40, 30), (100, 10, 3)], ids=str)
def test_shuffled_examples_read_at_least_the_null(shape):
    x, y = related(*shape)
    generator = torch.Generator().manual_seed(SEED)
    squares = [procrustes(x, y[torch.randperm(len(y), generator=generator)]).distance ** 2 for _ in range(60)]
    mean = sum(squares) / 60
    spread = torch.tensor(squares).std().item() / math.sqrt(60)
    null = procrustes(x, y).null
    assert null**2 <= mean + 5 * spread
    assert null > 0.7 * math.sqrt(mean)


def test_float32_and_float64_agree_for_close_shapes():
    x = gaussian(50, 8)
    y = x + 1e-4 * gaussian(50, 8, seed=3)
    assert procrustes(x.float(), y.float()).distance == pytest.approx(procrustes(x, y).distance, rel=1e-2)


# -- memory --------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layers", "width", "n", "what"),
    [(6, 256, 10_000, "cka_map(some)"), (3, 3000, 700, "cka_map(some)"), (2, 512, 10_000, "procrustes(*some)")],
)
def test_memory_stays_under_64_mb_beside_the_features(layers, width, n, what):
    code = f"""
import resource, torch
torch.set_num_threads(1)
from stratoscope.numerics.similarity import cka_map, procrustes
some = [torch.randn({n}, {width}, generator=torch.Generator().manual_seed(s)) for s in range({layers})]
small = [features[:, :4] for features in some[:2]]
cka_map([features[:100].clone() for features in small])
procrustes(*[features[:100].clone() for features in small])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
{what}
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert float(out) < 80  # the library's own buffers among them


@pytest.mark.parametrize(("width", "expected"), [(100, 0.25), (200, 0.5)])
def test_a_projection_lowers_it_as_the_instrument_says(width, expected):
    """`1 / (1 + P (1/w - 1/D))` for two rotations of one round cloud, in which all `P = D = 400` directions are in use."""
    x = gaussian(900, 400)
    y = x @ rotation(400, 1)
    found = linear_cka(count_sketch(x, width, seed=SEED), count_sketch(y, width, seed=SEED))
    assert float(found.debiased) == pytest.approx(expected, abs=0.05)
