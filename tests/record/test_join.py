"""Pieces laid into a whole, against a twin that goes cell by cell."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stratoscope.record.axis import Axis
from stratoscope.record.join import Piece, join, merge_attrs


@st.composite
def pieces(draw):
    rows = draw(st.lists(st.sampled_from("abcd"), min_size=0, max_size=3, unique=True))
    cols = draw(st.lists(st.integers(0, 4), min_size=0, max_size=3, unique=True))
    values = draw(st.lists(st.integers(0, 99), min_size=len(rows) * len(cols), max_size=len(rows) * len(cols)))
    array = np.array(values, dtype=draw(st.sampled_from(["i4", "f4", "f8"]))).reshape(len(rows), len(cols))
    mask = draw(st.one_of(st.none(), st.just(array % 2 == 0)))
    return Piece(array, (Axis.of(rows, len(rows)), Axis.of(cols, len(cols))), mask)


@given(given_pieces=st.lists(pieces(), min_size=1, max_size=4))
@settings(deadline=None, max_examples=100)
def test_join_is_the_naive_one(given_pieces):
    joined = join(given_pieces, {})
    cell, there, count = {}, set(), 0
    rows = list(dict.fromkeys(r for piece in given_pieces for r in piece.axes[0].labels()))
    cols = list(dict.fromkeys(c for piece in given_pieces for c in piece.axes[1].labels()))
    for piece in given_pieces:
        for i, row in enumerate(piece.axes[0].labels()):
            for j, col in enumerate(piece.axes[1].labels()):
                if piece.measured is None or piece.measured[i, j]:
                    cell[row, col] = piece.values[i, j]
                    there.add((row, col))
                    count += 1
    assert (list(joined.axes[0].labels()), list(joined.axes[1].labels())) == (rows, cols)
    assert joined.values.shape == (len(rows), len(cols))
    for i, row in enumerate(rows):
        for j, col in enumerate(cols):
            measured = True if joined.measured is None else joined.measured[i, j]
            assert measured == ((row, col) in there)
            assert joined.values[i, j] == cell[row, col] if (row, col) in cell else np.isnan(joined.values[i, j])
    assert joined.overlaps == (count > len(there))


def test_numbers_without_dims():
    piece = Piece(np.array(3), ())
    assert join([piece], {}).values == 3
    assert join([piece, Piece(np.array(4), ())], {}).values == 4
    assert join([piece, piece], {}).overlaps


def test_given_labels_come_first():
    axis = Axis.of(["b"], 1)
    joined = join([Piece(np.array([1.0]), (axis,))], {}, {0: Axis.of(["a", "b"], 2)})
    assert joined.axes[0].labels() == ("a", "b")
    assert np.array_equal(joined.values, [np.nan, 1], equal_nan=True)


@pytest.mark.parametrize("same", [(np.array([1, 2]), [1, 2]), (float("nan"), float("nan")), ((1, 2), [1, 2])])
def test_attributes_that_say_the_same_do_not_vary(same):
    assert "varies" not in merge_attrs([{"a": value} for value in same])


def test_the_last_value_of_an_attribute_is_kept():
    assert merge_attrs([{"a": 1}, {"a": 2}, {"a": 1}]) == {"a": 1, "varies": ["a"]}


def test_attributes_that_one_piece_lacks_vary():
    assert merge_attrs([{"a": 1}, {}]) == {"a": 1, "varies": ["a"]}
