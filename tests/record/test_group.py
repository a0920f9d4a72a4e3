"""What people see: labelled arrays, joined from what was written piece by piece."""

import warnings

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from stratoscope.errors import RecordError
from stratoscope.record import Entry, Record, RecordWriter
from stratoscope.record.quantity import quantity


def q(values, dims=(), coords=None, **attrs):
    return quantity(values, units="1", long_name="x", dims=dims, coords=coords, **attrs)


def written(*commits):
    """A record in memory of (step, entries) commits."""
    with RecordWriter.create(None) as writer:
        for step, entries in commits:
            writer.commit(step, entries)
    return Record.from_writer(writer)


def by_layer(values, **attrs):
    return q(list(values.values()), "layer", {"layer": list(values)}, **attrs)


def test_select_a_layer():
    record = written((0, [Entry("separation", "gdv", by_layer({"conv1": -0.1, "conv2": -0.2}))]))
    chosen = record["separation"]["gdv"].sel(layer="conv2")
    assert (chosen.dims, chosen.values.tolist()) == (("step",), [-0.2])
    assert record["separation"]["gdv"].attrs["units"] == "1"


def test_select_a_layer_of_a_stacked_dim():
    labels = [("conv1", k) for k in range(3)] + [("conv2", k) for k in range(2)]
    share = q([[1, 2, 3, 4, 5]], ("class", "layer_unit"), {"layer_unit": labels})
    record = written(*((step, [Entry("units", "active_share", share, split="test")]) for step in (0, 5)))
    array = record["units"]["active_share"]
    assert array.dims == ("step", "split", "class", "layer_unit")
    chosen = array.sel(layer="conv2")
    assert chosen.dims == ("step", "split", "class", "unit")
    assert chosen.sel(split="test", step=5).values.tolist() == [[4, 5]]
    assert array.sel(layer="conv1", unit=2).dims == ("step", "split", "class")
    assert record["units"].layers == ("conv1", "conv2")


def test_splits_are_a_dim_only_where_there_are_some():
    record = written(
        (0, [Entry("a", "x", q(1.0)), Entry("a", "y", q(2.0), split="train"), Entry("a", "y", q(3.0), split="test")])
    )
    assert record["a"]["x"].dims == ("step",)
    assert record["a"]["y"].dims == ("step", "split")
    assert record["a"]["y"].sel(split="test").item() == 3.0
    assert record["a"].dataset().sizes == {"step": 1, "split": 2}


def test_settings_of_one_instrument_are_groups_of_their_own():
    record = written(
        (0, [Entry("a", "x", q(1.0), settings='{"k":1}'), Entry("a", "x", q(2.0), label="k2", settings='{"k":2}')])
    )
    assert list(record) == ["a", "a:k2"]
    assert record["a:k2"]["x"].item() == 2.0
    assert record["a:k2"].attrs["settings"] == {"k": 2}
    assert "a:k2" in record
    with pytest.raises(RecordError, match="this record holds a, a:k2"):
        record["b"]
    with pytest.raises(KeyError):
        record["a"]["y"]
    assert record.get("b") is None


def test_titles_and_sources_come_from_the_metadata():
    with RecordWriter.create(None, {"instruments": {"a": {"title": "A thing", "source": "arXiv:1"}}}) as writer:
        writer.commit(0, [Entry("a", "x", q(1.0)), Entry("b", "x", q(1.0, source="arXiv:2"))])
    record = Record.from_writer(writer)
    assert (record["a"].title, record["a"].attrs["source"], record["a"]["x"].attrs["source"]) == (
        "A thing",
        "arXiv:1",
        "arXiv:1",
    )
    assert (record["b"].title, record["b"].attrs["source"]) == ("b", "arXiv:2")


def test_layer_by_layer_is_the_same_as_at_once():
    values = {f"layer{k}": np.arange(k + 1.0) for k in range(4)}
    labels = [(layer, k) for layer, row in values.items() for k in range(len(row))]
    at_once = q(np.concatenate(list(values.values())), "layer_unit", {"layer_unit": labels})
    pieces = [
        (step, [Entry("a", "x", q(row, "layer_unit", {"layer_unit": [(layer, k) for k in range(len(row))]}))])
        for step in (0, 1)
        for layer, row in values.items()
    ]
    one, many = written((0, [Entry("a", "x", at_once)]), (1, [Entry("a", "x", at_once)])), written(*pieces)
    xr.testing.assert_identical(one["a"]["x"], many["a"]["x"])
    assert many["a"].measured("x").values.all()


def test_not_measured_differs_from_measured_nan():
    record = written(
        (0, [Entry("a", "x", by_layer({"fc": np.nan}))]),
        (1, [Entry("a", "x", by_layer({"fc": 1.0, "out": 2.0}))]),
    )
    array, measured = record["a"]["x"], record["a"].measured("x")
    assert np.array_equal(array.values, [[np.nan, np.nan], [1, 2]], equal_nan=True)
    assert measured.values.tolist() == [[True, False], [True, True]]
    assert measured.dims == array.dims
    assert measured.sel(layer="out", step=0).item() is False


@pytest.mark.parametrize(
    ("dtype", "attrs", "expected", "fill"),
    [
        ("f4", {}, "f4", None),
        ("f8", {}, "f8", None),
        ("i4", {}, "f8", None),
        ("i8", {}, "f8", None),
        ("bool", {}, "f8", None),
        ("i4", {"flag_meanings": "a b", "flag_values": [0, 1]}, "i4", -1),
        ("i8", {"flag_meanings": "a b"}, "i8", -1),
        ("i4", {"flag_meanings": "a b c", "flag_values": [-1, 0, 1]}, "i4", -2),
    ],
)
def test_gaps(dtype, attrs, expected, fill):
    def entry(*layers):
        return [Entry("a", "x", by_layer(dict.fromkeys(layers, np.dtype(dtype).type(1)), **attrs))]

    whole = written((0, entry("fc", "out")), (1, entry("fc", "out")))["a"]["x"]
    assert whole.dtype == np.dtype(dtype)
    assert "_FillValue" not in whole.attrs
    array = written((0, entry("fc", "out")), (1, entry("fc")))["a"]["x"]
    assert array.dtype == np.dtype(expected)
    gap = array.sel(step=1, layer="out").item()
    assert np.isnan(gap) if fill is None else gap == fill
    assert array.attrs.get("_FillValue") == fill


cells = st.tuples(st.integers(0, 4), st.sets(st.sampled_from("abcd"), min_size=1), st.integers(0, 99))


@given(commits=st.lists(cells, min_size=1, max_size=12), split=st.booleans())
@settings(deadline=None, max_examples=60)
def test_reading_is_replaying_the_commits(commits, split):
    """A naive twin: the last commit of a cell wins; steps are sorted; labels come in order of first appearance."""
    cell: dict[tuple[int, str], float] = {}
    with RecordWriter.create(None) as writer:
        for step, layers, value in commits:
            row = {layer: value + k / 10 for k, layer in enumerate(sorted(layers))}
            writer.commit(step, [Entry("a", "x", by_layer(row), split="s" if split else "")])
            cell.update({(step, layer): number for layer, number in row.items()})
    group = Record.from_writer(writer)["a"]
    array, measured = group["x"], group.measured("x")
    if split:
        array, measured = array.sel(split="s"), measured.sel(split="s")
    assert array.step.values.tolist() == sorted({step for step, _ in cell})
    assert array.layer.values.tolist() == list(
        dict.fromkeys(label for _, layers, _ in commits for label in sorted(layers))
    )
    for step in array.step.values.tolist():
        for layer in array.layer.values.tolist():
            there = (step, layer) in cell
            assert measured.sel(step=step, layer=layer).item() == there
            number = array.sel(step=step, layer=layer).item()
            assert number == cell[step, layer] if there else np.isnan(number)


def test_a_point_written_again_is_replaced():
    record = written((0, [Entry("a", "x", q(1.0))]), (1, [Entry("a", "x", q(2.0))]), (0, [Entry("a", "x", q(3.0))]))
    assert record["a"]["x"].values.tolist() == [3.0, 2.0]
    assert record.steps == (0, 1)


def test_attributes_that_vary_are_named():
    record = written((0, [Entry("a", "x", q(1.0, n=5))]), (1, [Entry("a", "x", q(2.0, n=7))]))
    assert record["a"]["x"].attrs == {"units": "1", "long_name": "x", "n": 7, "varies": ["n"]}
    assert record["a"]["x"].values.tolist() == [1.0, 2.0]


def test_numbers_are_read_only_and_copies_are_not():
    array = written((0, [Entry("a", "x", by_layer({"fc": 1.0}))]))["a"]["x"]
    with pytest.raises(ValueError, match="read-only"):
        array.values[:] = 2
    copy = array.copy()
    copy.values[:] = 2
    assert array.item() == 1.0


def test_a_dataset_of_ragged_and_plain_variables():
    labels = [("fc", 0), ("fc", 1), ("out", 0)]
    record = written(
        (0, [
            Entry("a", "share", q([1.0, 2.0, 3.0], "layer_unit", {"layer_unit": labels})),
            Entry("a", "dead", by_layer({"fc": 1, "out": 2})),
            Entry("a", "eigen", q([4.0], "layer_eigen", {"layer_eigen": [("fc", 0)]})),
            Entry("a", "loss", q(0.5)),
        ]),
        (1, [Entry("a", "loss", q(0.25))]),
    )  # fmt: skip
    data = record["a"].dataset(measured=True)
    assert data.sizes == {"step": 2, "layer_unit": 3, "layer": 2, "layer_eigen": 1}
    assert data["share"].sel(layer_unit_layer="fc", step=0).values.tolist() == [1.0, 2.0]
    assert data["loss"].values.tolist() == [0.5, 0.25]
    assert np.isnan(data["dead"].sel(step=1)).all()
    assert data["dead__measured"].sel(step=1).values.tolist() == [False, False]
    assert "loss__measured" not in data
    assert data.attrs["instrument"] == "a"


def test_pairs_have_a_multiindex_of_their_own():
    pairs = q([0.1, 0.2], "pair", {"pair": [("fc", "out"), ("fc", "head")]})
    array = written((0, [Entry("cka", "cka", pairs)]))["cka"]["cka"]
    assert array.sel(pair_0="fc", pair_1="head").item() == 0.2


def test_a_variable_too_large_says_what_to_do(monkeypatch):
    from stratoscope.record import join, store

    record = written((0, [Entry("a", "x", by_layer({"fc": 1.0}))]), (1, [Entry("a", "x", by_layer({"out": 1.0}))]))
    monkeypatch.setattr(join, "MAX_BYTES", 16)
    with pytest.raises(RecordError, match=r"group\.read"):
        record["a"]["x"]
    assert record["a"].read("x", steps=[1]).values.tolist() == [[1.0]]
    monkeypatch.setattr(store, "MAX_BYTES", 4)
    with pytest.raises(RecordError, match=r"group\.read"):
        record["a"].read("x", steps=[1])


def test_a_group_says_what_it_holds():
    record = written((0, [Entry("a", "x", by_layer({"fc": 1.0})), Entry("a", "y", q(1.0))]))
    assert repr(record["a"]).splitlines() == ["<Group a: 1 step (0)>", "  x (layer)", "  y (one number)"]
    assert "x, y" in repr(record)
    assert "finished" in repr(record)
    assert "layer" in record["a"]._repr_html_()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert record == record
        assert record["a"] in {record["a"]}
