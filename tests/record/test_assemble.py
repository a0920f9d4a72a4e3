"""Results of single layers, joined into one quantity."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stratoscope.errors import RecordError
from stratoscope.record import Entry, Record, RecordWriter
from stratoscope.record.assemble import assemble, ragged
from stratoscope.record.quantity import Quantity, quantity


def q(values, dims=(), coords=None, **attrs):
    return quantity(values, units="1", long_name="x", dims=dims, coords=coords, **attrs)


def joined(**per_layer):
    return assemble({layer: {"x": measured} for layer, measured in per_layer.items()})["x"]


def test_a_number_for_each_layer():
    x = joined(fc=q(1.0), out=q(2.0))
    assert (x.dims, x.labels("layer"), x.values.tolist()) == (("layer",), ("fc", "out"), [1.0, 2.0])
    assert x.attrs == {"units": "1", "long_name": "x"}


def test_shared_dims_stay():
    x = joined(fc=q([1, 2], "class", {"class": ["a", "b"]}), out=q([3, 4], "class", {"class": ["a", "b"]}))
    assert (x.dims, x.values.tolist(), x.labels("class")) == (("layer", "class"), [[1, 2], [3, 4]], ("a", "b"))
    assert x.values.dtype.kind == "i"


def test_shared_dims_with_other_labels_get_all_of_them():
    x = joined(fc=q([1.0, 2.0], "class", {"class": ["a", "b"]}), out=q([3.0], "class", {"class": ["c"]}))
    assert x.labels("class") == ("a", "b", "c")
    assert np.array_equal(x.values, [[1, 2, np.nan], [np.nan, np.nan, 3]], equal_nan=True)
    flags = {"flag_values": [0, 1], "flag_meanings": "no yes"}
    x = joined(fc=q([1, 0], "bin", **flags), out=q([1], "bin", **flags))
    assert (x.values.tolist(), x.attrs["_FillValue"]) == ([[1, 0], [1, -1]], -1)


@given(
    widths=st.lists(st.integers(0, 5), min_size=1, max_size=4), dim=st.sampled_from(["unit", "eigen", "head", "token"])
)
@settings(deadline=None, max_examples=25)
def test_ragged_dims_are_stacked_without_padding(widths, dim):
    values = {f"l{k}": np.arange(float(width)) + 10 * k for k, width in enumerate(widths)}
    x = joined(**{layer: q(row, dim) for layer, row in values.items()})
    assert x.dims == (f"layer_{dim}",)
    assert x.values.tolist() == [number for row in values.values() for number in row]
    if sum(widths):
        assert x.labels(x.dims[0]) == tuple((layer, k) for layer, row in values.items() for k in range(len(row)))


def test_ragged_dims_beside_others():
    x = joined(fc=q([[1, 2, 3], [4, 5, 6]], ("class", "unit")), out=q([[7], [8]], ("class", "unit")))
    assert (x.dims, x.values.tolist()) == (("class", "layer_unit"), [[1, 2, 3, 7], [4, 5, 6, 8]])
    x = joined(fc=q(np.zeros((2, 3)), ("unit", "class")), out=q(np.ones((1, 3)), ("unit", "class")))
    assert (x.dims, x.values.shape) == (("layer_unit", "class"), (3, 3))


def test_units_with_labels_of_their_own():
    x = joined(fc=q([1.0, 2.0], "unit", {"unit": [4, 7]}), out=q([3.0], "unit", {"unit": [0]}))
    assert x.labels("layer_unit") == (("fc", 4), ("fc", 7), ("out", 0))


@pytest.mark.parametrize("dim", ["matrix", "param", "layer"])
def test_names_that_are_unique_are_laid_one_after_the_other(dim):
    x = joined(fc=q([1.0, 2.0], dim, {dim: ["fc.a", "fc.b"]}), out=q([3.0], dim, {dim: ["out.a"]}))
    assert (x.dims, x.labels(dim), x.values.tolist()) == ((dim,), ("fc.a", "fc.b", "out.a"), [1.0, 2.0, 3.0])
    with pytest.raises(RecordError, match="same"):
        joined(fc=q([1.0], dim, {dim: ["w"]}), out=q([3.0], dim, {dim: ["w"]}))


def test_what_is_stacked_already_is_laid_one_after_the_other():
    first = ragged({"q": [3.0, 2.0], "k": [1.0]}, units="1", long_name="x", n=3)
    empty = ragged({}, units="1", long_name="x", n=3)
    second = ragged({"v": [5.0]}, units="1", long_name="x", n=3)
    x = joined(attn=first, none=empty, out=second)
    assert x.dims == ("matrix_eigen",)
    assert x.labels("matrix_eigen") == (("q", 0), ("q", 1), ("k", 0), ("v", 0))
    assert x.values.tolist() == [3.0, 2.0, 1.0, 5.0]
    assert x.attrs["n"] == 3


def test_ragged_values_are_vectors():
    with pytest.raises(RecordError, match="2 axes"):
        ragged({"q": [[1.0]]}, units="1", long_name="x")
    x = ragged({"fc": np.arange(3)}, "layer", "unit", units="1", long_name="x")
    assert (x.dims, x.values.dtype) == (("layer_unit",), np.arange(3).dtype)


def test_dims_must_agree():
    with pytest.raises(RecordError, match=r"x has the dims \(\) in fc and \('class',\) in out"):
        joined(fc=q(1.0), out=q([1.0], "class"))


def test_attributes_that_differ_are_named():
    assert joined(fc=q(1.0, n=5), out=q(1.0, n=6)).attrs == {"units": "1", "long_name": "x", "n": 6, "varies": ["n"]}


def test_layers_without_a_variable_are_left_out():
    found = assemble({"fc": {"x": q(1.0), "y": q(2.0)}, "relu": {}, "out": {"x": q(3.0)}})
    assert found["x"].labels("layer") == ("fc", "out")
    assert found["y"].labels("layer") == ("fc",)
    assert assemble({}) == {}


def test_one_layer_at_a_time_reads_the_same_as_all_at_once():
    per_layer = {
        f"l{k}": {
            "share": q(np.arange(k + 1.0), "unit"),
            "norm": q(float(k)),
            "s": ragged({f"l{k}.weight": np.ones(k)}, units="1", long_name="s"),
            "phase": q([k], "matrix", {"matrix": [f"l{k}.weight"]}, flag_meanings="a b c d"),
        }
        for k in range(1, 4)
    }
    groups = []
    for parts in ([per_layer], [{layer: found} for layer, found in per_layer.items()]):
        with RecordWriter.create(None) as writer:
            for part in parts:
                writer.commit(0, [Entry("a", name, measured) for name, measured in assemble(part).items()])
        groups.append(Record.from_writer(writer)["a"])
    for name in ("share", "norm", "s", "phase"):
        assert groups[0][name].identical(groups[1][name]), name
        assert groups[1].measured(name).values.all()


def test_the_given_quantities_stay_as_they_are():
    values = np.arange(3.0)
    given = Quantity(values, ("unit",), {}, {"units": "1"})
    x = joined(fc=given, out=given)
    x.values[:] = -1
    assert values.tolist() == [0, 1, 2]
    assert given.attrs == {"units": "1"}
