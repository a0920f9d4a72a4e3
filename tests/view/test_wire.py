"""What the page gets is what was sent, number for number."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stratoscope.charts.values import Axis, Rule
from stratoscope.view.wire import exact, pack, unpack

SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5)


@settings(deadline=None, max_examples=25)
@given(st.lists(hnp.arrays(np.float64, SHAPES), max_size=4))
def test_numbers_come_back_as_they_were(arrays):
    back = unpack(pack({"a": arrays, "b": "text"}))
    assert back["b"] == "text"
    for one, other in zip(arrays, back["a"], strict=True):
        assert one.shape == other.shape
        np.testing.assert_array_equal(one, other.astype(np.float64))


def test_arrays_begin_where_typed_arrays_may():
    message = pack([np.array([1.5]), np.array([True, False, True]), np.array([0.1])])
    begin = 8 + int.from_bytes(message[4:8], "little")
    assert begin % 8 == 0
    assert (len(message) - begin) % 8 == 0
    assert [array.tolist() for array in unpack(message)] == [[1.5], [1, 0, 1], [0.1]]


def test_single_precision_only_where_nothing_is_lost():
    assert exact(np.array([0.5, np.nan, np.inf])).dtype == np.float32
    assert exact(np.array([0.1])).dtype == np.float64
    assert exact(np.array([2.0**24 + 1])).dtype == np.float64
    assert exact(np.arange(5)).dtype == np.float32


def test_numbers_alone_that_json_lacks_are_null():
    assert unpack(pack({"a": float("nan"), "b": np.float32(0.5), "c": Rule("floor", 1.0)})) == {
        "a": None,
        "b": 0.5,
        "c": {"name": "floor", "value": 1.0, "upright": False},
    }
    assert unpack(pack(Axis("x", labels=("a", "b"))))["labels"] == ["a", "b"]


def test_something_else_is_refused():
    with pytest.raises(ValueError, match="no message"):
        unpack(b"GET / HTTP/1.1")


def test_text_that_is_none_does_not_stop_the_rest():
    assert unpack(pack({"a": "\ud800 名前", "b": 1})) == {"a": "? 名前", "b": 1}


def test_arrays_of_names_are_lists_and_slices_are_what_they_show():
    grid = np.arange(6.0).reshape(2, 3)
    back = unpack(pack({"names": np.array(["a", "b"]), "turned": grid.T, "some": grid[:, ::2]}))
    assert back["names"] == ["a", "b"]
    np.testing.assert_array_equal(back["turned"], grid.T)
    np.testing.assert_array_equal(back["some"], grid[:, ::2])


def test_a_name_that_means_an_array_is_told_apart():
    assert unpack(pack({"$array": 5, "a": [{"$array": ["f4", [9], 0]}]})) == {
        " $array": 5,
        "a": [{" $array": ["f4", [9], 0]}],
    }
