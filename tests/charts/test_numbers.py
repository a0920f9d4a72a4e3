import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stratoscope.charts.numbers import elide, format_number, linear_ticks, log_ticks, short_names


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.5, "0.5"), (-0.0, "0"), (1e-9, "1e-9"), (123456.7, "1.23e5"), (99999, "99,999"), (1234.56, "1,235"),
     (0.1 + 0.2, "0.3"), (math.inf, "∞"), (-math.inf, "-∞"), (math.nan, "NaN"), (True, "yes"), (None, "")],
)  # fmt: skip
def test_a_number_is_written_as_people_read_it(value, text):
    assert format_number(value) == text


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e30, max_value=1e30))
@settings(deadline=None, max_examples=25)
def test_the_text_of_a_number_is_close_to_it(value):
    assert float(format_number(value).replace(",", "")) == pytest.approx(value, rel=6e-3, abs=1e-300)


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6), st.integers(2, 8))
@settings(deadline=None, max_examples=25)
def test_linear_ticks_lie_inside_evenly_and_are_round(low, span, about):
    ticks = linear_ticks(low, low + span, about)
    slack = 1e-6 * (span + abs(low))
    assert all(low - slack <= tick <= low + span + slack for tick in ticks)
    assert len(ticks) <= about + 2
    steps = {f"{b - a:.3e}" for a, b in pairwise(ticks)}
    if len(ticks) > 2 and span > 1e-5 * abs(low):
        assert len(steps) == 1
        assert steps.pop()[:4].rstrip("0").rstrip(".") in ("1", "2", "2.5", "5")


@given(st.floats(-12, 6), st.floats(0.05, 14))
@settings(deadline=None, max_examples=25)
def test_log_ticks_lie_inside_and_ascend(low, decades):
    bottom, top = 10.0**low, 10.0 ** (low + decades)
    ticks = log_ticks(bottom, top)
    assert ticks == sorted(set(ticks))
    assert all(bottom * 0.99 <= tick <= top * 1.01 for tick in ticks)
    assert ticks or decades < 0.35


def test_ticks_of_an_empty_range_do_not_fail():
    assert linear_ticks(3.0, 3.0) == [3.0]
    assert linear_ticks(math.nan, 1.0) == []


@given(st.lists(st.text("ab.c", min_size=1, max_size=40), min_size=1, max_size=12, unique=True), st.integers(5, 20))
@settings(deadline=None, max_examples=25)
def test_short_names_stay_different(names, width):
    short = short_names(names, width)
    assert len(set(short)) == len(names)
    assert all(len(name) <= width + 8 for name in short)


def test_short_names_never_become_a_bare_number():
    assert short_names(["0.weight", "2.weight"], 10) == ["0.weight", "2.weight"]
    assert short_names(["net.a.w", "net.b.w"], 10) == ["a", "b"]


def test_elide_keeps_both_ends():
    assert elide("abcdefghij", 7) == "abc…hij"
    assert elide("abc", 7) == "abc"


def test_short_names_keep_what_tells_blocks_apart():
    names = [f"transformer.h.{n}.attn.c_attn.weight:{part}" for n in range(2) for part in "qkv"] + ["lm_head.weight"]
    assert short_names(names, 20) == [f"t.h.{n}.attn.c_attn:{part}" for n in range(2) for part in "qkv"] + ["lm_head"]
    assert short_names(["a.weight", "a.bias", "b.weight"], 20) == ["a.weight", "a.bias", "b.weight"]
