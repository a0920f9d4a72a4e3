"""Other people's formats give the numbers back."""

import csv
import json
import sys

import numpy as np
import pytest
import xarray as xr

from stratoscope.errors import RecordError, StratoscopeError
from stratoscope.findings import Finding, Outcome
from stratoscope.network.layers import Catalogue, Layer, Param
from stratoscope.record import Coverage, Entry, Record, RecordWriter
from stratoscope.record.quantity import quantity


def q(values, dims=(), coords=None, **attrs):
    return quantity(values, units="1", long_name="x", dims=dims, coords=coords, **attrs)


@pytest.fixture
def record():
    """A record with ragged, categorical, missing, NaN, truth and mixed-label variables."""
    units = [("fc", 0), ("fc", 1), ("out", 0)]
    phase = {"flag_values": [0, 1, 2], "flag_meanings": "random bulk heavy"}
    first = [
        Entry("units", "share", q([0.25, np.nan, 1.0], "layer_unit", {"layer_unit": units}), split="test"),
        Entry("units", "dead", q([True, False], "layer", {"layer": ["fc", "out"]})),
        Entry("weights", "phase", q([0, 2], "matrix", {"matrix": ["fc.weight", "out.weight"]}, **phase)),
        Entry(
            "weights",
            "norm",
            q(np.float32([0.1, 3.0]), "matrix", {"matrix": ["fc.weight", "out.weight"]}, n=7, ok=True),
        ),
        Entry("weights", "mixed", q([1.0, 2.0], "pair", {"pair": ["a", 3]}, nothing=None, nested={"a": [1]})),
        Entry("weights", "loss", q(2.5), label="k=2/x"),
        Entry("weights", "loss", q(2.5), label="k=2 x"),
    ]
    second = [
        Entry("weights", "phase", q([1], "matrix", {"matrix": ["fc.weight"]}, **phase)),
        Entry("units", "share", q([0.5, 0.0, 0.0], "layer_unit", {"layer_unit": units}), split="train"),
    ]
    finding = Finding("UN001", "units", "fc", 3, Outcome.ISSUE, "says", "do", {"share": 0.5}, "arXiv:1", "test")
    whole = Finding("UN002", "units", None, None, Outcome.PASSED, 'says, and "quotes"')
    with RecordWriter.create(None, {"run_id": "r", "seed": 3, "data": {"n": 5}}) as writer:
        writer.write_layers(Catalogue({"fc": Layer("fc", "linear", 0, (Param("fc.weight", "fc", (2, 3)),))}))
        writer.write_edges([("fc", "out", "data")])
        writer.commit(
            0, first, findings=[finding, whole], coverage=[Coverage("units", "", "fc", "", "", 0, "measured")]
        )
        writer.commit(10, second)
    return Record.from_writer(writer)


def test_netcdf(record, tmp_path):
    path = record.to_netcdf(tmp_path / "deep" / "r.nc")
    assert [p.name for p in path.parent.iterdir()] == ["r.nc"]
    tree = xr.open_datatree(path, engine="h5netcdf", mask_and_scale=False)
    assert sorted(tree.children) == [
        "_coverage", "_edges", "_findings", "_layers", "units", "weights", "weights-k-2-x", "weights-k-2-x-2",
    ]  # fmt: skip
    for key, name in (("units", "units"), ("weights", "weights"), ("weights:k=2/x", "weights-k-2-x")):
        expected, found = record[key].dataset(measured=True), tree[name].to_dataset()
        assert set(found.data_vars) == set(expected.data_vars)
        for variable in expected:
            assert np.array_equal(
                found[variable].values, expected[variable].values, equal_nan=expected[variable].dtype.kind == "f"
            )
            assert found[variable].dtype == expected[variable].dtype, variable
            assert found[variable].dims == expected[variable].dims
    share = tree["units"]["share"].set_xindex(["layer_unit_layer", "layer_unit_unit"])
    assert share.sel(layer_unit_layer="fc", step=10, split="train").values.tolist() == [0.5, 0.0]
    attrs = tree["weights"]["norm"].attrs
    assert (attrs["units"], attrs["long_name"], attrs["n"], attrs["ok"]) == ("1", "x", 7, "true")
    mixed = tree["weights"]["mixed"]
    assert (mixed.attrs["nothing"], mixed.attrs["nested"], mixed["pair"].values.tolist()) == (
        "null",
        '{"a":[1]}',
        ["a", "3"],
    )
    phase = tree["weights"]["phase"]
    assert phase.attrs["flag_values"].tolist() == [0, 1, 2]
    assert phase.values.tolist() == [[0, 2], [1, -1]]
    assert tree["weights"]["phase__measured"].values.tolist() == [[True, True], [True, False]]
    assert tree.attrs["seed"] == 3
    assert tree.attrs["data"] == '{"n":5}'
    findings = tree["_findings"].to_dataset()
    assert findings["code"].values.tolist() == ["UN001", "UN002"]
    assert findings["layer"].values.tolist() == ["fc", ""]
    assert np.array_equal(findings["step"].values, [3, np.nan], equal_nan=True)
    assert tree["_layers"]["n_params"].values.tolist() == [6]


def test_netcdf_with_masks_gives_nan_for_what_was_not_measured(record, tmp_path):
    data = xr.open_dataset(record.to_netcdf(tmp_path / "r.nc"), group="weights", engine="h5netcdf")
    assert np.array_equal(data["phase"].values, [[0, 2], [1, np.nan]], equal_nan=True)


SHARE = [
    (0, "test", "fc", 0, 0.25),
    (0, "test", "fc", 1, None),
    (0, "test", "out", 0, 1.0),
    (10, "train", "fc", 0, 0.5),
    (10, "train", "fc", 1, 0.0),
    (10, "train", "out", 0, 0.0),
]


def test_parquet(record, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    written = record.to_parquet(tmp_path / "tables")
    assert all(path.is_file() for path in written)
    table = parquet.read_table(tmp_path / "tables" / "units" / "share.parquet")
    assert table.column_names == ["step", "split", "layer", "unit", "value"]
    rows = [tuple(row.values()) for row in table.to_pylist()]
    assert [tuple(None if x != x else x for x in row) for row in rows] == SHARE
    assert table["value"].null_count == 0
    assert json.loads(table.schema.metadata[b"units"]) == "1"
    phase = parquet.read_table(tmp_path / "tables" / "weights" / "phase.parquet")
    assert phase.to_pydict() == {
        "step": [0, 0, 10],
        "matrix": ["fc.weight", "out.weight", "fc.weight"],
        "value": [0, 2, 1],
    }
    assert str(phase.schema.field("value").type) == "int64"
    assert str(parquet.read_table(tmp_path / "tables" / "units" / "dead.parquet").schema.field("value").type) == "bool"
    findings = parquet.read_table(tmp_path / "tables" / "findings.parquet").to_pylist()
    assert [(row["code"], row["layer"], row["step"], row["outcome"]) for row in findings] == [
        ("UN001", "fc", 3, "issue"), ("UN002", None, None, "passed"),
    ]  # fmt: skip
    assert json.loads((tmp_path / "tables" / "meta.json").read_text())["meta"]["seed"] == 3


def test_csv(record, tmp_path):
    def read(*parts):
        with tmp_path.joinpath(*parts).open(newline="") as file:
            return list(csv.DictReader(file))

    written = record.to_csv(tmp_path)
    assert len(written) == len(set(written)) == 12
    rows = read("units", "share.csv")
    assert list(rows[0]) == ["step", "split", "layer", "unit", "value"]
    found = [(int(r["step"]), r["split"], r["layer"], int(r["unit"]), float(r["value"])) for r in rows]
    assert [tuple(None if x != x else x for x in row) for row in found] == SHARE
    assert [row["value"] for row in read("weights", "norm.csv")] == ["0.1", "3.0"]
    assert [row["value"] for row in read("units", "dead.csv")] == ["True", "False"]
    assert read("weights-k-2-x", "loss.csv") == [{"step": "0", "value": "2.5"}]
    assert read("findings.csv")[1]["says"] == 'says, and "quotes"'
    assert read("findings.csv")[1]["step"] == ""
    assert read("edges.csv") == [{"src": "fc", "dst": "out", "kind": "data"}]
    assert json.loads((tmp_path / "meta.json").read_text())["variables"]["weights"]["norm"]["n"] == 7


def test_a_missing_library_is_one_sentence(record, tmp_path, monkeypatch):
    for module, call in (("h5py", record.to_netcdf), ("pyarrow", record.to_parquet)):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(StratoscopeError, match=r"pip install 'stratoscope\[export\]'"):
            call(tmp_path / "x")
    assert list(tmp_path.iterdir()) == []
    record.to_csv(tmp_path / "csv")


def test_places_that_cannot_be_written(record, tmp_path):
    (tmp_path / "file").write_text("")
    for call in (record.to_netcdf, record.to_parquet, record.to_csv):
        with pytest.raises(RecordError, match="cannot be written"):
            call(tmp_path / "file" / "x")


def test_an_empty_record_is_exported_too(tmp_path):
    with RecordWriter.create(None) as writer:
        record = Record.from_writer(writer)
    assert len(record.to_csv(tmp_path / "csv")) == 5
    assert len(record.to_parquet(tmp_path / "parquet")) == 5
    assert xr.open_datatree(record.to_netcdf(tmp_path / "r.nc"), engine="h5netcdf").attrs["status"] == "running"


def test_netcdf_does_not_take_the_place_of_what_is_no_file(record, tmp_path):
    with pytest.raises(RecordError, match="no plain file"):
        record.to_netcdf(tmp_path)
    assert tmp_path.is_dir()
