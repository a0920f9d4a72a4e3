"""How often each unit is active, against counting one by one."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from stratoscope.capture.batch import SiteBatch
from stratoscope.capture.needs import Site
from stratoscope.capture.unit_counts import BOUNDED, GATED, ONE_SIDED, UnitCounts, active_band
from stratoscope.capture.views import Capture
from stratoscope.errors import NotApplicable, SettingError
from stratoscope.network.layers import Layer
from stratoscope.network.sources import Batch
from stratoscope.network.subject import Subject
from stratoscope.testing import SUBJECTS
from stratoscope.testing.strategies import arrays

EVERY = (*ONE_SIDED, *GATED, *BOUNDED)
SLOPES = {
    "tanh": lambda y: 1 - y * y,
    "sigmoid": lambda y: 4 * y * (1 - y),
    "softsign": lambda y: (1 - abs(y)) ** 2,
}
"""Derivative over its largest value, from the output."""


def is_active(activation, y, threshold=0.01, slope=0.1):
    """One number at a time, from the definition."""
    if math.isnan(y):
        return False
    if activation in ONE_SIDED:
        return y > 0
    if activation in GATED:
        return abs(y) > threshold
    if activation in SLOPES:
        low, high = BOUNDED[activation]
        return low < y < high and SLOPES[activation](y) > slope
    low, high = BOUNDED[activation]
    return low < y < high


def count(activation, *values, mask=None, channel_dim=-1, need=None, module=None):
    layer = Layer("at", "activation", 0, activation=activation, module=module)
    counter = (need or UnitCounts()).reducer(Site(layer))
    start = 0
    for value in values:
        n = len(value)
        batch = Batch(n=n, ids=torch.arange(start, start + n), mask=mask)
        counter.update(SiteBatch(Site(layer), value, value, batch, 0, channel_dim))
        start += n
    return counter


def naive(activation, blocks, threshold=0.01, slope=0.1):
    """Loops over examples, positions and units."""
    n, positions, units = blocks.shape
    active, anywhere = [0] * units, [0] * units
    for example in range(n):
        for unit in range(units):
            hits = sum(is_active(activation, float(y), threshold, slope) for y in blocks[example, :, unit])
            active[unit] += hits
            anywhere[unit] += hits > 0
    return n, n * positions, active, anywhere


def outputs(shape):
    """Values where decisions are made: at bounds, at zero, tiny, and anywhere."""
    special = st.sampled_from(
        (0.0, -0.0, 1.0, -1.0, 6.0, 0.5, 0.005, -0.005, 0.02, -0.02, 1e-30, math.nan, math.inf, 0.98)
    )
    numbers = st.one_of(special, st.floats(-2, 8, width=32))
    size = math.prod(shape)
    return st.lists(numbers, min_size=size, max_size=size).map(
        lambda x: torch.tensor(x, dtype=torch.float64).reshape(shape)
    )


@pytest.mark.parametrize("activation", EVERY)
@settings(deadline=None, max_examples=12)
@given(outputs((4, 2, 3)))
def test_maps_are_counted_as_one_by_one(activation, value):
    tally = count(activation, value.transpose(1, 2), channel_dim=1).result()
    expected = naive(activation, value)
    assert (tally.n, tally.positions, tally.active.tolist(), tally.anywhere.tolist()) == expected
    assert tally.not_finite.tolist() == (~value.isfinite()).sum((0, 1)).tolist()


@pytest.mark.parametrize("activation", ["relu", "gelu", "tanh"])
@settings(deadline=None, max_examples=12)
@given(outputs((4, 2, 3)), st.lists(st.booleans(), min_size=8, max_size=8).filter(any))
def test_every_real_token_is_an_example(activation, value, real):
    mask = torch.tensor(real).reshape(4, 2)
    tally = count(activation, value, mask=mask).result()
    expected = naive(activation, value[mask][:, None])
    assert (tally.n, tally.positions, tally.active.tolist(), tally.anywhere.tolist()) == expected


@settings(deadline=None, max_examples=25)
@given(arrays((9, 4), bound=3.0), st.sampled_from(EVERY), st.integers(1, 8))
def test_cutting_and_merging_change_nothing(value, activation, cut):
    value = torch.from_numpy(value)
    whole = count(activation, value).result()
    parts = count(activation, value[:cut], value[cut:]).result()
    merged = count(activation, value[:cut])
    merged.merge(count(activation, value[cut:]))
    for other in (parts, merged.result()):
        assert other.n == whole.n
        for name in ("active", "anywhere", "lowest", "highest", "not_finite"):
            assert torch.equal(getattr(other, name), getattr(whole, name))


def test_merging_with_what_saw_nothing_changes_nothing():
    seen, unseen = count("relu", torch.ones(3, 2)), count("relu")
    seen.merge(unseen)
    unseen.merge(seen)
    assert unseen.result().n == seen.result().n == 3


@pytest.mark.parametrize("activation", sorted(SLOPES))
@pytest.mark.parametrize("slope", [0.01, 0.1, 0.5])
def test_the_band_of_a_bounded_function_ends_where_the_slope_is_left(activation, slope):
    low, high, rule = active_band(activation, 0.01, slope)
    for edge in (low, high):
        assert SLOPES[activation](edge) == pytest.approx(slope)
    assert rule == f"more than {slope:.0%} of the largest slope is left"


@pytest.mark.parametrize("activation", sorted(SLOPES))
def test_the_slopes_are_those_of_the_functions(activation):
    x = torch.linspace(-4, 4, 41, dtype=torch.float64, requires_grad=True)
    function = {"tanh": torch.tanh, "sigmoid": torch.sigmoid, "softsign": nn.functional.softsign}[activation]
    y = function(x)
    (slope,) = torch.autograd.grad(y.sum(), x)
    expected = [SLOPES[activation](v) * float(slope.max()) for v in y.tolist()]
    assert slope.tolist() == pytest.approx(expected)


def test_the_extremes_are_those_of_each_unit():
    value = torch.tensor([[1.0, -3.0], [2.0, 5.0]])
    tally = count("gelu", value).result()
    assert (tally.lowest.tolist(), tally.highest.tolist()) == ([1, -3], [2, 5])


def test_a_threshold_of_zero_counts_both_sides_of_a_gated_function():
    value = torch.tensor([[-0.1, 0.0, 0.1]])
    assert count("gelu", value, need=UnitCounts(threshold=0.0)).result().active.tolist() == [1, 0, 1]


def test_a_module_s_own_bounds_are_used():
    value = torch.tensor([[-1.5, 0.0, 2.0]])
    assert count("hardtanh", value, module=nn.Hardtanh(-2, 2)).result().active.tolist() == [1, 1, 0]
    assert count("hardtanh", value).result().active.tolist() == [0, 1, 0]


class Clips(nn.Module):
    def forward(self, x):
        return nn.functional.hardtanh(x, 0, 20)


def test_a_function_s_own_bounds_are_used():
    subject = Subject(nn.Sequential(Clips()), torch.tensor([[-1.0, 5.0], [7.0, 19.0], [30.0, 2.0]]))
    capture = Capture(subject, frozenset({UnitCounts()}))
    capture.run("data")
    (layer,) = [layer for layer in capture.layers() if layer.activation == "hardtanh"]
    tally = capture.value(UnitCounts(), layer, "data")
    assert tally.active.tolist() == [1, 3]
    assert tally.rule == "0 < output < 20"


def test_a_threshold_module_that_gives_more_than_zero_when_off_is_not_looked_at():
    at = Layer("at", "activation", 0, activation="threshold", module=nn.Threshold(0.1, 20))
    assert UnitCounts().reducer(Site(at)) is None
    assert UnitCounts().reducer(Site(Layer("at", "activation", 0, activation="softmax"))) is None


def test_padding_of_a_map_over_tokens_is_not_counted():
    value = torch.tensor(
        [
            [[1.0, -1, 9], [-5, -1, 9]],  # examples x units x tokens
            [[-2, 8, torch.nan], [3, 7, torch.inf]],
            [[6, 6, 6], [6, 6, 6]],
        ]
    )
    mask = torch.tensor([[1, 1, 0], [1, 0, 0], [0, 0, 0]])
    tally = count("relu", value, mask=mask, channel_dim=1).result()
    assert (tally.n, tally.positions) == (2, 3)
    assert (tally.active.tolist(), tally.anywhere.tolist()) == ([1, 1], [1, 1])
    assert (tally.lowest.tolist(), tally.highest.tolist()) == ([-2, -5], [1, 3])
    assert tally.not_finite.tolist() == [0, 0]


@pytest.mark.parametrize("activation", ["relu", "gelu", "tanh"])
@settings(deadline=None, max_examples=12)
@given(outputs((4, 3, 2)), st.lists(st.booleans(), min_size=12, max_size=12).filter(any), st.integers(1, 3))
def test_masked_maps_are_counted_as_one_by_one_however_they_are_cut(activation, value, real, cut):
    mask, maps = torch.tensor(real).reshape(4, 3), value.transpose(1, 2)
    parts = count(activation, maps[:cut], mask=mask[:cut], channel_dim=1)
    parts.merge(count(activation, maps[cut:], mask=mask[cut:], channel_dim=1))
    whole = count(activation, maps, mask=mask, channel_dim=1).result()
    examples = [naive(activation, value[i][mask[i]][None]) for i in range(4) if mask[i].any()]
    for tally in (whole, parts.result()):
        assert (tally.n, tally.positions) == (len(examples), sum(real))
        assert tally.active.tolist() == [sum(example[2][unit] for example in examples) for unit in range(2)]
        assert tally.anywhere.tolist() == [sum(example[3][unit] for example in examples) for unit in range(2)]
        assert tally.not_finite.tolist() == (~value[mask].isfinite()).sum(0).tolist()
        torch.testing.assert_close(tally.lowest, value[mask].amin(0), rtol=0, atol=0, equal_nan=True)


def test_a_batch_without_a_real_token_counts_nothing():
    value, nothing = torch.ones(2, 3, 4), torch.zeros(2, 3)
    counter = count("relu", value, mask=nothing)
    with pytest.raises(NotApplicable, match="no unit was seen"):
        counter.result()


@pytest.mark.parametrize("bad", [{"threshold": -1.0}, {"slope": 0.0}, {"slope": 1.0}])
def test_settings_out_of_range_are_refused(bad):
    with pytest.raises(SettingError, match="the threshold must be at least 0"):
        UnitCounts(**bad)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_counted(dtype):
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU()).to(dtype)
    subject = Subject(model, torch.ones(6, 3))
    tally = Capture(subject, frozenset({UnitCounts()})).value(UnitCounts(), subject.catalogue["1"], "data")
    assert tally.n == 6
    assert set(tally.active.tolist()) <= {0, 6}


def test_a_one_dimensional_convolution_has_one_unit_a_channel_whatever_else_is_asked():
    subject = SUBJECTS["conv1d"]()
    tally = Capture(subject, frozenset({UnitCounts()})).value(UnitCounts(), subject.catalogue["1"], "data")
    assert (tally.n, tally.positions, len(tally.active)) == (40, 40 * 12, 6)
