"""The relative change and the cosine of two tensors: closed forms, invariances, and a naive twin."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stratoscope.numerics import change as module
from stratoscope.numerics.change import Change, change


def drawn(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(deadline=None, max_examples=25)
@given(st.floats(1e-3, 1e3), st.integers(0, 1000))
def test_a_multiple_has_cosine_one(factor, seed):
    a = drawn(seed, 7, 5)
    found = change(a, factor * a)
    assert found.relative == pytest.approx(abs(factor - 1), abs=1e-12)
    assert found.cosine == pytest.approx(1)
    assert change(a, -a) == Change(pytest.approx(2), pytest.approx(-1))


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 1000), st.sampled_from([1e-200, 1e-6, 1.0, 1e6, 1e200]))
def test_it_is_the_textbook_formula_at_any_scale(seed, scale):
    a, b = drawn(seed, 6, 4), drawn(seed + 1, 6, 4)
    found = change(scale * a, scale * b)
    assert found.relative == pytest.approx(float((b - a).norm() / a.norm()))
    assert found.cosine == pytest.approx(float((a * b).sum() / (a.norm() * b.norm())))


def test_blocks_do_not_matter(monkeypatch):
    a, b = drawn(0, 50, 9), drawn(1, 50, 9)
    whole = change(a, b)
    monkeypatch.setattr(module, "BLOCK", 7)
    assert change(a, b) == Change(pytest.approx(whole.relative), pytest.approx(whole.cosine))


def test_independent_noise_has_a_cosine_near_zero():
    cosines = [change(drawn(2 * n, 40, 25), drawn(2 * n + 1, 40, 25)).cosine for n in range(200)]
    assert torch.tensor(cosines).std().item() == pytest.approx(1000**-0.5, rel=0.2)
    assert abs(sum(cosines) / 200) < 4 * (200 * 1000) ** -0.5


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32, torch.int8])
def test_stored_types_are_widened(kind):
    a, b = torch.tensor([3, 4]).to(kind), torch.tensor([4, 3]).to(kind)
    assert change(a, b) == Change(pytest.approx(math.sqrt(2) / 5), pytest.approx(24 / 25))


def test_zeros_nan_and_nothing():
    zero, one, nan = torch.zeros(3), torch.ones(3), torch.tensor([1.0, math.nan, 0.0])
    same = change(zero, zero)
    assert (same.relative, math.isnan(same.cosine)) == (0.0, True)
    assert change(zero, one).relative == math.inf
    assert change(one, zero).relative == 1
    for pair in ((nan, one), (one, nan), (one, torch.tensor([1.0, math.inf, 0.0]))):
        assert math.isnan(change(*pair).relative)
    assert change(torch.empty(0, 4), torch.empty(0, 4)).relative == 0
    with pytest.raises(ValueError, match="differ"):
        change(one, torch.ones(4))
