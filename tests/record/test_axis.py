"""Labels: the compact forms, their text, their union."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stratoscope.errors import RecordError
from stratoscope.record.axis import MAX_PLACES, Axis, levels, plain, union

scalars = st.one_of(st.text(max_size=5), st.integers(-9, 9), st.floats(allow_nan=False, width=32))
flat = st.lists(scalars, max_size=6, unique=True)
pairs = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3)), max_size=8, unique=True)


def types(labels):
    return [tuple(map(type, label)) if isinstance(label, tuple) else type(label) for label in labels]


@given(labels=st.one_of(flat, pairs))
@settings(deadline=None, max_examples=50)
def test_labels_come_back_from_their_text_as_they_were(labels):
    axis = Axis.from_json(Axis.of(labels, len(labels)).to_json())
    assert axis.labels() == tuple(labels)
    assert types(axis.labels()) == types(labels)
    assert axis.size == len(labels)


def test_stacked_labels_are_kept_as_counts():
    labels = [("conv1", k) for k in range(500)] + [("fc", k) for k in range(10)]
    axis = Axis.of(labels, 510)
    assert axis.to_json() == '{"stacked":[["conv1",500],["fc",10]]}'
    assert axis.labels() == tuple(labels)
    assert axis.firsts() == ("conv1", "fc")


def test_labels_that_count_from_zero_are_a_number():
    assert Axis.of([0, 1, 2], 3) == Axis.of(None, 3) == Axis("count", (3,))
    assert Axis.of([False, True], 2).kind == "labels"
    assert Axis.of([0.0, 1.0], 2).kind == "labels"


def test_numpy_labels_become_plain():
    axis = Axis.of([np.str_("a"), np.int64(3), np.float32(0.5), np.bool_(True)], 4)
    assert axis.labels() == ("a", 3, 0.5, True)
    assert types(axis.labels()) == [str, int, float, bool]


@pytest.mark.parametrize("label", [object(), 1 + 2j, np.arange(2), [1]])
def test_other_labels_are_refused(label):
    with pytest.raises(RecordError, match="cannot be a label"):
        plain(label)


@pytest.mark.parametrize("labels", [[("a", 1), "b"], [("a", 1), ("b",)], [()]])
def test_tuples_must_be_alike(labels):
    with pytest.raises(RecordError, match="tuples of one length"):
        Axis.of(labels, len(labels))


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{}", '{"count":[-1]}', '{"count":[1,2]}', '{"count":["a"]}', '{"count":[true]}', '{"labels":3}',
        '{"labels":[[1]]}', '{"stacked":[["a"]]}', '{"stacked":[["a",-1]]}', '{"stacked":[["a",1.5]]}', '{"tuples":[]}',
        '{"tuples":[["a",1],["b"]]}', '{"tuples":[[{"a":1}]]}', '{"other":[1]}', json.dumps({"count": [MAX_PLACES + 1]}),
        json.dumps({"stacked": [["a", MAX_PLACES], ["b", MAX_PLACES]]}), '{"count":[1],"labels":[]}',
    ],
)  # fmt: skip
def test_damaged_axes_are_refused(text):
    with pytest.raises(RecordError, match="damaged"):
        Axis.from_json(text)


@given(parts=st.lists(st.one_of(flat, pairs), min_size=1, max_size=4))
@settings(deadline=None, max_examples=50)
def test_union_is_the_naive_one(parts):
    if len({isinstance(label, tuple) for part in parts for label in part}) > 1:
        parts = [[label for label in part if not isinstance(label, tuple)] for part in parts]
    axes = [Axis.of(part, len(part)) for part in parts]
    joined, places = union(axes)
    order = list(dict.fromkeys(label for part in parts for label in part))
    assert list(joined.labels()) == order
    for part, place in zip(parts, places, strict=True):
        assert np.arange(len(order))[place].tolist() == [order.index(label) for label in part]


def test_union_of_stacked_axes_goes_by_groups():
    first, second = Axis("stacked", (("a", 10**6), ("b", 3))), Axis("stacked", (("c", 2), ("b", 3)))
    joined, places = union([first, second])
    assert joined == Axis("stacked", (("a", 10**6), ("b", 3), ("c", 2)))
    assert places[0] == slice(0, 10**6 + 3)
    assert places[1].tolist() == [10**6 + 3, 10**6 + 4, 10**6, 10**6 + 1, 10**6 + 2]


def test_union_where_a_layer_changed_its_width():
    joined, places = union([Axis("stacked", (("a", 2),)), Axis("stacked", (("a", 3),))])
    assert joined.labels() == (("a", 0), ("a", 1), ("a", 2))
    assert (places[0], places[1]) == (slice(0, 2), slice(0, 3))


def test_level_names():
    assert levels("matrix_eigen", 2) == ("matrix", "eigen")
    assert levels("a_b_c", 3) == ("a", "b", "c")
    assert levels("layer_my_bins", 2) == ("layer", "my_bins")
    assert levels("pair", 3) == ("pair_0", "pair_1", "pair_2")
    assert levels("layer_unit", 2, taken=["step", "unit"]) == ("layer_unit_layer", "layer_unit_unit")
