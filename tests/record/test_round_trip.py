"""What is written comes back: numbers, labels, attributes, findings, coverage, layers, edges, metadata."""

import math
import sqlite3
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stratoscope.errors import RecordError
from stratoscope.findings import Finding, Outcome
from stratoscope.network.layers import Catalogue, Layer, Matrix, Param
from stratoscope.record import Coverage, Edge, Entry, Record, RecordWriter
from stratoscope.record.quantity import Quantity, quantity


def q(values, dims=(), coords=None, **attrs):
    return quantity(values, units="1", long_name="x", dims=dims, coords=coords, **attrs)


names = st.text(st.characters(blacklist_categories=("Cs", "Cc")), min_size=1, max_size=4)


@st.composite
def labels(draw, size):
    kinds = [st.none(), st.lists(names, min_size=size, max_size=size, unique=True).map(tuple)]
    kinds.append(st.lists(st.integers(-5, 99), min_size=size, max_size=size, unique=True).map(tuple))
    kinds.append(
        st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 9)), min_size=size, max_size=size, unique=True).map(
            tuple
        )
    )
    return draw(st.one_of(*kinds))


@st.composite
def quantities(draw):
    dtype = draw(st.sampled_from(["<f4", "<f8", "<i8", "<i4", "?", ">f8", "<f2", "u1"]))
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3))
    values = draw(hnp.arrays(dtype, shape))
    dims = tuple(("class", "layer_unit", "seed")[: len(shape)])
    coords = {dim: draw(labels(size)) for dim, size in zip(dims, shape, strict=True)}
    attrs = draw(
        st.dictionaries(names, st.one_of(names, st.integers(), st.floats(), st.booleans(), st.none()), max_size=3)
    )
    return Quantity(values, dims, {k: v for k, v in coords.items() if v is not None}, {**attrs, "units": "1"})


@given(given=quantities())
@settings(deadline=None, max_examples=60)
def test_any_quantity_comes_back(given):
    with RecordWriter.create(None) as writer:
        writer.commit(3, [Entry("a", "x", given)])
    group = Record.from_writer(writer)["a"]
    array = group["x"]
    assert array.dims == ("step", *given.dims)
    assert np.array_equal(array.values[0], given.values, equal_nan=given.values.dtype.kind == "f")
    assert array.values.dtype.kind == ("i" if given.values.dtype.kind == "u" else given.values.dtype.kind)
    assert array.values.dtype.itemsize >= given.values.dtype.itemsize
    assert array.step.values.tolist() == [3]
    for dim, axis in zip(given.dims, group.variable("x").axes[1:], strict=True):
        assert axis.labels() == given.labels(dim)
        assert array.indexes[dim].tolist() == list(given.labels(dim))
    assert set(array.attrs) == set(given.attrs)
    for key, value in given.attrs.items():
        assert array.attrs[key] == value or (math.isnan(value) and math.isnan(array.attrs[key]))
    assert group.measured("x").values.all()


@pytest.mark.parametrize("where", ["memory", "disk"])
@pytest.mark.parametrize("dtype", ["f4", "f8", "i4", "i8", "bool"])
def test_large_arrays_come_back(tmp_path, where, dtype):
    values = (np.arange(4 * 300_000) % 251).astype(dtype).reshape(4, -1)
    with RecordWriter.create(None if where == "memory" else tmp_path / "r") as writer:
        writer.commit(0, [Entry("a", "x", q(values, ("class", "bin"))), Entry("a", "y", q(values[0], "bin"))])
        writer.commit(9, [Entry("a", "x", q(values[::-1], ("class", "bin")))])
    record = Record.from_writer(writer)
    assert np.array_equal(record["a"]["x"].sel(step=0), values)
    assert np.array_equal(record["a"]["x"].sel(step=9), values[::-1])
    assert np.array_equal(record["a"]["y"].sel(step=0), values[0])
    assert np.array_equal(record["a"].read("x", steps=[9]).values[0], values[::-1])
    files = sorted(path.name for path in (tmp_path / "r" / "arrays").glob("*")) if where == "disk" else []
    assert files == (["0000-000000.safetensors", "0000-000001.safetensors"] if where == "disk" else [])


def test_a_quantity_may_change_after_it_was_handed_over():
    values = np.zeros(4)
    large = np.zeros(100_000)
    with RecordWriter.create(None) as writer:
        for step in range(3):
            values[:] = step
            large[:] = step
            writer.append(step, [Entry("a", "x", q(values, "bin")), Entry("a", "large", q(large, "class"))])
    group = Record.from_writer(writer)["a"]
    assert group["x"].values[:, 0].tolist() == [0, 1, 2]
    assert group["large"].values[:, 7].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (np.array([1j]), "complex numbers"),
        (np.array(["a"]), "categories as integers"),
        (np.array([None]), "object"),
        (np.array([2**63], dtype=np.uint64), "beyond 64-bit"),
    ],
)
def test_numbers_without_a_form_on_disk_are_refused(values, says):
    with RecordWriter.create(None) as writer, pytest.raises(RecordError, match=says):
        writer.commit(0, [Entry("a", "x", q(values, "bin"))])


def test_wrong_entries_are_refused_and_leave_the_writer_well():
    with RecordWriter.create(None) as writer:
        for wrong in (
            Entry("a", "x", Quantity(np.zeros(2), ())),
            Entry("a", "x", Quantity(np.zeros(2), ("bin",), {"bin": ("a",)})),
            Entry("a", "x", q([1.0], "step")),
            Entry("a", "x", q([1.0], "split")),
            Entry("a:b", "x", q(1.0)),
            Entry("", "x", q(1.0)),
            Entry("a", "x", q(1.0, what=object())),
        ):
            with pytest.raises(RecordError):
                writer.commit(0, [wrong])
            with pytest.raises(RecordError):
                writer.append(0, [wrong])
        assert writer.commit(0, [Entry("a", "x", q(1.0))]) == 1
        with pytest.raises(RecordError, match="recorded with dims"):
            writer.commit(1, [Entry("a", "x", q([1.0], "bin"))])
        with pytest.raises(RecordError, match="status"):
            writer.commit(1, [], coverage=[Coverage("a", "", "fc", "", "", 1, "maybe")])
    assert writer.broken is None


def finding(code, **given):
    return Finding(
        **{"code": code, "instrument": "a", "layer": "fc", "step": 4, "outcome": Outcome.ISSUE, "says": "x", **given}
    )


def test_findings_come_back_and_are_replaced():
    first = finding("AA001", evidence={"share": np.float32(0.5), "n": 3, "why": "b", "gone": None, "yes": True}, do="y")
    second = finding("AA002", layer=None, step=None, outcome=Outcome.PASSED, split="test", source="arXiv:1")
    with RecordWriter.create(None) as writer:
        writer.commit(4, [], findings=[first])
        writer.commit(5, [], findings=[second])
        record = Record.from_writer(writer)
        assert record.findings == [first, second]
        assert list(record.findings[0].evidence) == ["share", "n", "why", "gone", "yes"]
        assert isinstance(record.findings[0].outcome, Outcome)
        before = record.seq
        writer.replace_findings([second])
        assert record.refresh().findings == [second]
        assert record.seq > before
    assert record.with_findings([first]).findings == [first]
    assert record.findings == [second]


def test_coverage_holds_until_it_changes(tmp_path):
    def row(step, layer, status, reason=""):
        return Coverage("a", "", layer, "fc.weight", "test", step, status, reason)

    with RecordWriter.create(tmp_path / "r") as writer:
        for step in range(5):
            writer.commit(step, [], coverage=[row(step, "fc", "measured"), row(step, "out", "skipped", "no time")])
        writer.commit(5, [], coverage=[row(5, "fc", "failed", "it broke")])
        writer.commit(6, [], coverage=[row(6, "fc", "failed", "it broke")])
    rows = sqlite3.connect(tmp_path / "r" / "run.db").execute("SELECT count(*) FROM coverage").fetchone()
    assert rows == (3,)
    record = Record.open(tmp_path / "r")
    assert record.coverage() == [row(5, "fc", "failed", "it broke"), row(0, "out", "skipped", "no time")]
    assert record.coverage(step=4) == [row(0, "fc", "measured"), row(0, "out", "skipped", "no time")]
    assert record.coverage(step=-1) == []


def test_layers_edges_and_metadata_come_back():
    weight = Param("block.fc.weight", "block.fc", (3, 4))
    tied = Param("out.weight", "out", (3, 4), same_as="block.fc.weight")
    mean = Param("block.norm.running_mean", "block.norm", (3,), role="statistic", trainable=False)
    matrix = Matrix("block.fc.weight", "block.fc", ("block.fc.weight",), "linear", (3, 4), lambda w: w)
    layers = [
        Layer("(root)", "block", 0),
        Layer("block", "block", 1),
        Layer("block.fc", "linear", 2, (weight,), (matrix,)),
        Layer("block.norm", "norm", 3, (mean,)),
        Layer("out", "linear", 4, (tied,)),
    ]
    with RecordWriter.create(None, {"seed": 7, "data": {"n": (1, 2)}}) as writer:
        writer.write_layers(Catalogue({layer.name: layer for layer in layers}))
        writer.write_layers(Catalogue({layer.name: layer for layer in layers}))
        writer.write_edges([("block.fc", "out", "data"), Edge("out", "out", "tied"), ("block.fc", "out", "data")])
        writer.write_meta("seed", 8)
    record = Record.from_writer(writer)
    assert [(row.name, row.parent, row.n_params) for row in record.layers] == [
        ("(root)", None, 0), ("block", "(root)", 0), ("block.fc", "block", 12), ("block.norm", "block", 0), ("out", "(root)", 0),
    ]  # fmt: skip
    assert record.layers[2].spec["params"][0]["shape"] == [3, 4]
    assert record.layers[2].spec["matrices"][0]["name"] == "block.fc.weight"
    assert record.layers[2].spec["matrices"][0]["rank"] is None
    assert record.layers[2].spec["matrices"][0]["law"] == "entries"
    assert set(record.edges) == {Edge("block.fc", "out", "data"), Edge("out", "out", "tied")}
    assert record.meta["seed"] == 8
    assert record.meta["data"] == {"n": [1, 2]}
    assert record.meta["status"] == "finished"


def test_an_empty_record_can_be_read():
    with RecordWriter.create(None) as writer:
        record = Record.from_writer(writer)
    assert (len(record), record.steps, record.findings, record.coverage(), record.layers) == (0, (), [], [], [])
    assert "no steps" in repr(record)
    assert "no steps" in record._repr_html_()


def test_names_are_escaped_in_html():
    with RecordWriter.create(None) as writer:
        writer.commit(0, [Entry("<b>", "<script>", q(1.0, source="<i>"))])
    record = Record.from_writer(writer)
    for text in (record._repr_html_(), record["<b>"]._repr_html_()):
        assert "<script>" not in text
        assert "&lt;script&gt;" in text


def test_writing_imports_no_heavy_library():
    heavy = "'xarray', 'pandas', 'torch', 'scipy', 'rich', 'pyarrow'"
    code = f"import sys, stratoscope.record.writer, stratoscope.record.assemble; print([m for m in ({heavy}) if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_package_offers_its_names_lazily():
    import stratoscope.record as room

    assert {name: getattr(room, name) for name in room.__all__}
    with pytest.raises(AttributeError, match="nothing_like_it"):
        room.nothing_like_it  # noqa: B018
