"""Neural collapse: simplexes, closed forms of Gaussian classes, invariances, nulls against real shuffles, precision."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stratoscope.numerics.collapse import (
    collapse,
    collapse_null,
    equiangular_floor,
    nearest_means,
    self_duality,
)
from stratoscope.numerics.scatter import Scatter

SEEDS = st.integers(0, 2**31)


def gaussian(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def orthogonal(size, seed):
    return torch.linalg.qr(gaussian(size, size, seed=seed)).Q


def scatter_of(features, labels):
    scatter = Scatter()
    scatter.update(features, labels)
    return scatter.result()


def read(features, labels):
    return collapse(scatter_of(features, labels))


def simplex(classes, width, seed=0):
    """Corners of a simplex of edge one, turned in space."""
    corners = torch.eye(classes, dtype=torch.float64) / math.sqrt(2)
    padded = torch.nn.functional.pad(corners, (0, width - classes))
    return padded @ orthogonal(width, seed)


def clusters(n=80, width=6, classes=4, seed=0, spread=0.5):
    labels = torch.arange(n) % classes
    return gaussian(classes, width, seed=seed)[labels] + spread * gaussian(n, width, seed=seed + 1), labels


def naive(features, labels):
    """The definitions, one class and one pair at a time."""
    x, y = features.double().numpy(), labels.numpy()
    names = [c for c in np.unique(y) if (y == c).sum() > 1]
    means = {c: x[y == c].mean(0) for c in names}
    centre = np.mean(list(means.values()), axis=0)
    n = sum((y == c).sum() for c in names)
    within = sum((x[y == c] - means[c]).T @ (x[y == c] - means[c]) for c in names) / n
    between = np.mean([np.outer(m - centre, m - centre) for m in means.values()], axis=0)
    spread = {c: np.square(x[y == c] - means[c]).sum(1).mean() for c in names}
    lengths = [np.linalg.norm(m - centre) for m in means.values()]
    pairs = list(itertools.combinations(names, 2))
    cosines = [
        (means[a] - centre) @ (means[b] - centre)
        / np.linalg.norm(means[a] - centre) / np.linalg.norm(means[b] - centre)
        for a, b in pairs
    ]  # fmt: skip
    return {
        "nc1": np.trace(within @ np.linalg.pinv(between, rcond=1e-10, hermitian=True)) / len(names),
        "cdnv": np.mean([(spread[a] + spread[b]) / 2 / np.square(means[a] - means[b]).sum() for a, b in pairs]),
        "equinorm": np.std(lengths) / np.mean(lengths),
        "equiangular": np.mean(np.abs(np.array(cosines) + 1 / (len(names) - 1))),
    }


@pytest.mark.parametrize("width", [150, 700])
@pytest.mark.parametrize("alike", [0.0, 0.999])
def test_more_units_than_examples(width, alike):
    """Nothing varies in most directions, which rounding may take below zero; the numbers are those of the few."""
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 3
    few = torch.randn(60, 8, generator=draw) + 3 * torch.eye(8)[labels]
    few = (1 - alike) * few + alike * few[:, :1]
    turn = torch.linalg.qr(torch.randn(width, 8, generator=draw, dtype=torch.float64))[0]
    wide = (few.double() @ turn.T).float()
    found, known = collapse(scatter_of(wide, labels)), collapse(scatter_of(few, labels))
    assert found.nc1 == pytest.approx(known.nc1, rel=1e-3)
    assert found.cdnv == pytest.approx(known.cdnv, rel=1e-4)
    assert torch.isfinite(collapse_null(scatter_of(wide, labels)).nc1).all()


@given(seed=SEEDS, classes=st.integers(3, 7), width=st.integers(2, 12), single=st.booleans())
@settings(deadline=None, max_examples=25)
def test_equals_its_naive_twin(seed, classes, width, single):
    labels = torch.randint(0, classes, (60,), generator=torch.Generator().manual_seed(seed))
    labels[: 2 * classes] = torch.arange(2 * classes) % classes
    features = gaussian(60, width, seed=seed) + gaussian(classes, width, seed=seed + 1)[labels]
    if single:
        labels[-1] = -5
    found = read(features, labels)
    for name, value in naive(features, labels).items():
        assert getattr(found, name) == pytest.approx(value, rel=1e-7), name
    assert np.mean(found.by_class) == pytest.approx(found.cdnv, rel=1e-9)
    assert found.skipped == ((-5,) if single else ())
    assert len(found.by_class) == len(found.classes) == len(found.counts)


@pytest.mark.parametrize(("classes", "width"), [(3, 3), (10, 10), (10, 40)])
def test_a_simplex_of_points_has_collapsed_in_every_sense(classes, width):
    corners = simplex(classes, width)
    labels = torch.arange(5 * classes) % classes
    found = read(7 + corners[labels], labels)
    assert (found.nc1, found.cdnv) == pytest.approx((0.0, 0.0), abs=1e-20)
    assert (found.equinorm, found.equiangular) == pytest.approx((0.0, 0.0), abs=1e-9)
    assert found.directions == classes - 1
    assert self_duality(3 * (corners - corners.mean(0)), 7 + corners) == pytest.approx(0.0, abs=1e-9)


def test_gaussian_classes_around_a_simplex_have_closed_forms():
    """Spread `s` in every direction around a simplex of edge 1: NC1 is `2 s^2 (C - 1)`, CDNV `D s^2`."""
    classes, width, spread = 5, 20, 0.3
    labels = torch.arange(100_000) % classes
    features = simplex(classes, width)[labels] + spread * gaussian(len(labels), width, seed=1)
    found = read(features, labels)
    assert found.nc1 == pytest.approx(2 * spread**2 * (classes - 1), rel=0.02)
    assert found.cdnv == pytest.approx(width * spread**2, rel=0.02)
    assert found.equinorm < 0.01
    assert found.equiangular < 0.01


@given(seed=SEEDS)
@settings(deadline=None, max_examples=15)
def test_rotation_scale_shift_and_order_leave_everything(seed):
    features, labels = clusters(seed=seed)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    units = torch.randperm(6, generator=torch.Generator().manual_seed(seed))
    one = read(features, labels)
    for other in (
        read(features @ orthogonal(6, seed), labels),
        read(1e3 * features - 50, labels),
        read(features[order][:, units], labels[order]),
    ):
        for name in ("nc1", "cdnv", "equinorm", "equiangular", "by_class"):
            assert getattr(other, name) == pytest.approx(getattr(one, name), rel=1e-7), name


def test_nc1_ignores_invertible_maps_only_where_units_are_fewer_than_classes():
    """The notes' rule for twins: a general map changes NC1 unless `D <= C - 1`."""
    for width, unchanged in ((3, True), (8, False)):
        features, labels = clusters(200, width, 4)
        change = gaussian(width, width, seed=5)
        one, other = read(features, labels), read(features @ change, labels)
        assert (other.nc1 == pytest.approx(one.nc1, rel=1e-6)) == unchanged
        assert other.cdnv != pytest.approx(one.cdnv, rel=1e-2)


def nearly_flat(seed=0):
    """Six units that say nearly one thing: class means reach 30,000 times further one way than another."""
    features, labels = clusters(300, 6, 10, seed=seed)
    return features * 10.0 ** -torch.tensor([0.0, 2.0, 3.0, 3.5, 4.0, 4.5]) @ orthogonal(6, seed=seed + 2), labels


@pytest.mark.parametrize("seed", range(3))
def test_directions_of_little_extent_keep_their_share_of_nc1(seed):
    """As after a first convolution, whose maps all mean the brightness of a picture."""
    features, labels = nearly_flat(seed)
    factors = torch.tensor([0.5, 2.0, 1.5, 0.6, 1.0, 1.8])
    one, other = read(features, labels), read(features * factors, labels)
    assert one.directions == other.directions == 6
    # before it was turned and flattened it was a well-conditioned matrix, with the same NC1
    assert one.nc1 == pytest.approx(read(*clusters(300, 6, 10, seed=seed)).nc1, rel=1e-6)
    assert other.nc1 == pytest.approx(one.nc1, rel=1e-6)


def test_the_null_of_directions_of_little_extent_is_that_of_any():
    """White noise reads `m D / (C - D - 2)` on average under every invertible map, medians a little less."""
    flat, round_ = (
        collapse_null(scatter_of(*some), draws=100, seed=1).nc1.log() for some in (nearly_flat(), clusters(300, 6, 10))
    )
    assert bool(flat.isfinite().all())
    assert float(flat.mean()) == pytest.approx(
        float(round_.mean()), abs=5 * math.sqrt(float(flat.var() + round_.var()) / 100)
    )


@pytest.mark.parametrize("width", [40, 300])
def test_few_directions_in_many_units_have_the_null_of_real_shuffles(width):
    """Rounding in float32 fills the other directions; it is no scatter that a null could be drawn from."""
    labels = torch.arange(600) % 30
    features = (gaussian(600, 3) @ gaussian(3, width, seed=1)).float()
    null = collapse_null(scatter_of(features, labels), draws=30, seed=1).nc1.log()
    generator = torch.Generator().manual_seed(2)
    shuffled = [read(features, labels[torch.randperm(600, generator=generator)]) for _ in range(30)]
    assert {found.directions for found in shuffled} == {3}
    real = torch.tensor([found.nc1 for found in shuffled], dtype=torch.float64).log()
    error = math.sqrt(float(null.var()) / 30 + float(real.var()) / 30)
    assert float(null.mean()) == pytest.approx(float(real.mean()), abs=5 * error)


def test_halves_merge_to_the_whole():
    features, labels = clusters()
    parts = [Scatter(), Scatter()]
    for part, rows in zip(parts, (slice(0, 33), slice(33, None)), strict=True):
        part.update(features[rows], labels[rows])
    parts[0].merge(parts[1])
    one, other = read(features, labels), collapse(parts[0].result())
    for name in ("nc1", "cdnv", "equinorm", "equiangular"):
        assert getattr(other, name) == pytest.approx(getattr(one, name), rel=1e-9)


@pytest.mark.parametrize("width", [30, 400])
def test_collapsed_classes_in_float32_are_right_to_four_digits(width):
    """Classes whose spread is 1e-5 of their distance, far from the origin as after a ReLU."""
    labels = torch.arange(400) % 4
    centres = simplex(4, width) + 0.2
    exact = centres[labels] + 1e-5 / math.sqrt(width) * gaussian(400, width, seed=1)
    exact = exact.float().double()  # what float32 can hold is the truth here
    single, double = read(exact.float(), labels), read(exact, labels)
    twin = naive(exact, labels)
    for name in ("nc1", "cdnv"):
        assert getattr(single, name) == pytest.approx(getattr(double, name), rel=1e-4)
        assert getattr(double, name) == pytest.approx(twin[name], rel=1e-6)
    assert single.cdnv == pytest.approx(1e-10, rel=0.1)


# -- what shuffled labels read -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("classes", "width", "slope"), [(4, 40, 0.0), (10, 64, 2.0), (12, 5, 1.0), (10, 60, 0.0)])
def test_the_null_is_what_real_shuffles_read(classes, width, slope):
    """Also with structure between the classes, unequal classes, and units of unequal scale."""
    labels = torch.cat([torch.arange(20 * classes) % classes, torch.zeros(30, dtype=torch.int64)])
    scale = torch.arange(1, width + 1, dtype=torch.float64) ** (-slope / 2)
    features = (gaussian(len(labels), width) + gaussian(classes, width, seed=1)[labels]) * scale
    null = collapse_null(scatter_of(features, labels), draws=60, seed=3)
    generator = torch.Generator().manual_seed(2)
    shuffled = [read(features, labels[torch.randperm(len(labels), generator=generator)]) for _ in range(60)]
    for name in ("nc1", "cdnv", "equinorm", "equiangular"):
        logs = getattr(null, name).log()
        real = torch.tensor([getattr(one, name) for one in shuffled], dtype=torch.float64).log()
        error = math.sqrt(float(logs.var() + real.var()) / 60)
        assert float(logs.mean()) == pytest.approx(float(real.mean()), abs=5 * error + 0.05), name
        assert 0.5 < float(logs.std() / real.std()) < 2, name


@pytest.mark.parametrize(
    ("classes", "width", "expected"),
    [(5, 60, 40 * 4 / 55), (30, 6, 40 * 6 / 22)],
)
def test_noise_has_the_closed_forms_that_are_stated(classes, width, expected):
    """White activations, 40 examples a class: `m (C-1)/(D-C)`, and for `D < C - 2` `m D/(C-D-2)` on average."""
    reads = [
        read(gaussian(40 * classes, width, seed=seed), torch.arange(40 * classes) % classes).nc1 for seed in range(20)
    ]
    assert np.mean(reads) == pytest.approx(expected, rel=0.15)


def test_the_cdnv_of_wide_noise_is_half_the_examples_of_a_class():
    reads = [read(gaussian(200, 500, seed=seed), torch.arange(200) % 5).cdnv for seed in range(5)]
    assert np.mean(reads) == pytest.approx(20, rel=0.05)


def test_a_null_is_drawn_by_seed_and_less_often_for_many_classes():
    scatter = scatter_of(*clusters())
    one, same, other = (collapse_null(scatter, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one.nc1, same.nc1)
    assert not torch.equal(one.nc1, other.nc1)
    assert len(one.nc1) == 20
    many = scatter_of(gaussian(400, 3), torch.arange(400) % 200)
    assert len(collapse_null(many).nc1) == 5
    assert len(collapse_null(many, draws=2).nc1) == 2


# -- shape of the means --------------------------------------------------------------------------------------------------


def test_two_classes_have_no_nc2():
    found = read(*clusters(classes=2))
    assert math.isnan(found.equinorm)
    assert math.isnan(found.equiangular)
    assert found.directions == 1


@given(seed=SEEDS, classes=st.integers(3, 9), width=st.integers(1, 9))
@settings(deadline=None, max_examples=25)
def test_no_class_means_fall_below_the_equiangular_floor(seed, classes, width):
    labels = torch.arange(2 * classes) % classes
    found = read(gaussian(classes, width, seed=seed)[labels], labels)
    assert found.equiangular >= found.equiangular_floor - 1e-9
    assert found.equiangular_floor == equiangular_floor(classes, width)


def test_the_floor_is_zero_where_a_simplex_fits():
    assert equiangular_floor(5, 4) == 0.0
    assert equiangular_floor(5, 3) > 0
    assert math.isnan(equiangular_floor(1, 3))


def test_self_duality_has_its_ends():
    means = gaussian(10, 50)
    offsets = means - means.mean(0)
    assert self_duality(-offsets, means) == pytest.approx(2.0)
    # unrelated: the root of two, as far as so many numbers allow
    values = [self_duality(gaussian(10, 50, seed=seed), means) for seed in range(1, 20)]
    assert np.mean(values) == pytest.approx(math.sqrt(2), abs=0.03)
    assert math.isnan(self_duality(torch.zeros(3, 2), torch.ones(3, 2)))
    with pytest.raises(ValueError, match=r"\(3, 2\) and \(2, 3\)"):
        self_duality(torch.ones(3, 2), torch.ones(2, 3))


@given(seed=SEEDS)
@settings(deadline=None, max_examples=10)
def test_nearest_means_equal_their_naive_twin(seed):
    features, means = gaussian(50, 4, seed=seed) + 100, gaussian(7, 4, seed=seed + 1) + 100
    assert torch.equal(nearest_means(features, means), torch.cdist(features, means).argmin(1))


# -- ends and input ------------------------------------------------------------------------------------------------------


def test_a_layer_of_constants_has_no_numbers():
    found = read(torch.ones(20, 3), torch.arange(20) % 4)
    assert found.directions == 0
    for value in (found.nc1, found.cdnv, found.equinorm, found.equiangular):
        assert math.isnan(value)
    null = collapse_null(scatter_of(torch.ones(20, 3), torch.arange(20) % 4))
    for values in (null.nc1, null.cdnv, null.equinorm, null.equiangular):
        assert bool(values.isnan().all())


def test_classes_with_one_mean_are_infinitely_far_from_collapse():
    features = torch.tensor([[-1.0], [1.0], [-2.0], [2.0], [5.0], [7.0]])
    found = read(features, torch.tensor([0, 0, 1, 1, 2, 2]))
    assert found.cdnv == math.inf
    assert math.isfinite(found.nc1)


def test_more_classes_than_units_is_decided_by_the_rank():
    found = read(*clusters(200, 3, 20))
    assert found.directions == 3
    assert math.isfinite(found.nc1)


@pytest.mark.parametrize(
    "labels", [torch.zeros(6, dtype=torch.int64), torch.arange(6), torch.tensor([0, 0, 1, 2, 3, 4])]
)
def test_two_classes_of_two_are_needed(labels):
    scatter = scatter_of(torch.ones(6, 2), labels)
    for ask in (collapse, collapse_null):
        with pytest.raises(ValueError, match="two classes of two examples"):
            ask(scatter)


def test_without_labels_or_draws_it_says_so():
    unlabelled = Scatter()
    unlabelled.update(gaussian(10, 2))
    with pytest.raises(ValueError, match="there were 0 classes"):
        collapse(unlabelled.result())
    with pytest.raises(ValueError, match="draws=0"):
        collapse_null(scatter_of(*clusters()), draws=0)
