import json

import numpy as np
import pytest

from stratoscope.network.layers import Layer, Matrix, Param
from stratoscope.record import Coverage, Entry
from stratoscope.record.quantity import quantity
from stratoscope.report.rows import columns_of, rows_of
from stratoscope.report.table import OWN, table_of

FIXED = ["name", "layer", "tensor", "kind", "shape", "status", "reason", "verdict", "meaning"]


def fused():
    """An attention layer whose one tensor holds three matrices, a norm with a statistic, and a relu."""
    key = "attn.in_proj_weight"
    params = (Param(key, "attn", (12, 4)), Param("attn.in_proj_bias", "attn", (12,), "bias"))
    parts = tuple(Matrix(f"{key}:{part}", "attn", (key,), "attention", (4, 4), lambda w: w) for part in "qkv")
    norm = (Param("norm.weight", "norm", (4,), "gain"), Param("norm.running_mean", "norm", (4,), "statistic"))
    return [
        Layer("attn", "attention", 0, params, parts),
        Layer("norm", "norm", 1, norm),
        Layer("relu", "activation", 2),
    ]


def per(dim, names, values, **attrs):
    return quantity(values, dims=dim, coords={dim: names}, **{"units": "1", "long_name": "a number", **attrs})


def test_every_row_has_the_fixed_fields_and_a_name_of_its_own(whole):
    rows = rows_of(whole)
    assert len({row["name"] for row in rows}) == len(rows)
    for row in rows:
        assert list(row)[:9] == FIXED
        assert row["status"] in ("measured", "not_applicable", "skipped", "failed")
        assert row["status"] == "measured" or row["reason"]
    json.dumps(rows, allow_nan=False)


def test_every_tensor_has_a_row(whole):
    tensors = {param["name"] for layer in whole.layers for param in layer.spec["params"]}
    assert {row["tensor"] for row in rows_of(whole)} - {None} == tensors


def test_layers_without_params_have_a_row_where_they_were_measured(whole):
    rows = [row for row in rows_of(whole) if row["tensor"] is None]
    assert [row["name"] for row in rows] == [f"body.{n}.relu" for n in range(4)]
    assert all(row["shape"] is None and row["kind"] == "activation" for row in rows)


def test_rows_hold_the_record_s_numbers_at_the_last_step(whole):
    rows = {row["name"]: row for row in rows_of(whole)}
    dead = whole["units"]["dead_share"].sel(split="train", layer="body.1.relu").isel(step=-1)
    assert rows["body.1.relu"]["dead_share"] == float(dead)
    test = whole["units"]["dead_share"].sel(split="test", layer="body.1.relu").isel(step=-1)
    assert rows["body.1.relu"]["dead_share[test]"] == float(test)
    rank = whole["weights"]["stable_rank"].sel(matrix="head.weight").isel(step=-1)
    assert rows["head.weight"]["stable_rank"] == float(rank)
    assert rows["body.1.relu"]["phase"] == "compressed"
    assert "stable_rank" not in rows["body.1.relu"]


def test_the_last_step_is_that_of_each_place(synthetic):
    rounds = [
        (0, [Entry("p", "x", per("layer", ["a", "b"], [1.0, 2.0]))]),
        (5, [Entry("p", "x", per("layer", ["a"], [3.0]))]),
    ]
    rows = {row["name"]: row for row in rows_of(synthetic.record_of(rounds))}
    assert rows["a"]["x"] == 3.0
    assert rows["b"]["x"] == 2.0


def test_fused_matrices_have_a_row_each_and_one_tensor(synthetic):
    names = [f"attn.in_proj_weight:{part}" for part in "qkv"]
    entries = [
        Entry("w", "rank", per("matrix", names, [1.0, 2.0, 3.0])),
        Entry("t", "norm", per("param", ["attn.in_proj_weight", "attn.in_proj_bias"], [4.0, 5.0])),
        Entry("u", "share", per("layer", ["attn", "relu"], [0.1, 0.2])),
    ]
    rows = {row["name"]: row for row in rows_of(synthetic.record_of(*entries, layers=fused()))}
    assert [rows[name]["rank"] for name in names] == [1.0, 2.0, 3.0]
    assert {rows[name]["tensor"] for name in names} == {"attn.in_proj_weight"}
    assert [rows[name]["shape"] for name in names] == [[4, 4]] * 3
    assert [rows[name].get("norm") for name in names] == [4.0, None, None]
    assert [rows[name].get("share") for name in names] == [0.1, None, None]
    assert rows["relu"]["share"] == 0.2
    assert rows["attn.in_proj_bias"]["norm"] == 5.0


def test_tensors_that_nobody_measured_say_why(synthetic):
    cover = [
        Coverage("w", "", "norm", "norm.weight", "", 0, "not_applicable", "a vector or a number, not a matrix"),
        Coverage("u", "", "norm", "norm.weight", "", 0, "failed", "ValueError: broke"),
        Coverage("w", "", "attn", "attn.in_proj_bias", "", 0, "skipped", "the time budget was spent"),
    ]
    rows = {row["name"]: row for row in rows_of(synthetic.record_of(layers=fused(), coverage=cover))}
    assert (rows["norm.weight"]["status"], rows["norm.weight"]["reason"]) == ("failed", "u: ValueError: broke")
    assert (rows["attn.in_proj_bias"]["status"], rows["attn.in_proj_bias"]["reason"]) == (
        "skipped",
        "the time budget was spent",
    )
    assert rows["norm.running_mean"]["reason"] == "a running statistic, not a trained weight"
    assert rows["attn.in_proj_weight:q"]["reason"] == "no instrument looked at it"
    assert "relu" not in rows


def test_what_is_not_finite_is_null_with_a_reason(synthetic):
    record = synthetic.record_of(Entry("p", "x", per("layer", ["a", "b", "c"], [np.nan, np.inf, 1.0])))
    rows = {row["name"]: row for row in rows_of(record)}
    assert rows["a"]["x"] is None
    assert rows["a"]["x_reason"] == "the measured value is NaN"
    assert rows["b"]["x_reason"] == "the measured value is infinite"
    assert rows["c"]["x"] == 1.0
    assert "x_reason" not in rows["c"]
    assert all(row["status"] == "measured" for row in rows.values())


def test_categories_and_truth_values_are_not_numbers(synthetic):
    entries = [
        Entry("p", "phase", per("layer", ["a", "b"], [0, 1], flag_values=[0, 1], flag_meanings="one two")),
        Entry("p", "ok", per("layer", ["a", "b"], [True, False])),
    ]
    rows = rows_of(synthetic.record_of(*entries))
    assert [row["phase"] for row in rows] == ["one", "two"]
    assert [row["ok"] for row in rows] == [True, False]


def test_names_that_two_instruments_use_say_whose(synthetic):
    entries = [Entry(key, name, per("layer", ["a"], [value])) for key, name, value in
               (("p", "x", 1.0), ("q", "x", 2.0), ("p", "n", 3.0), ("p", "y", 4.0))]  # fmt: skip
    (row,) = rows_of(synthetic.record_of(*entries))
    assert {key: value for key, value in row.items() if key not in FIXED} == {
        "p.x": 1.0,
        "q.x": 2.0,
        "p.n": 3.0,
        "y": 4.0,
    }


def test_a_layer_and_a_tensor_of_one_name_stay_apart(synthetic):
    layers = [Layer("scale", "other", 0, (Param("scale", "scale", (3,), "other"),)), Layer("scale2", "other", 1, (Param("relu", "scale2", (3,)),)),
              Layer("relu", "activation", 2)]  # fmt: skip
    record = synthetic.record_of(Entry("p", "x", per("layer", ["scale", "relu"], [1.0, 2.0])), layers=layers)
    rows = rows_of(record)
    assert len({row["name"] for row in rows}) == len(rows)
    assert [row["x"] for row in rows if "x" in row] == [1.0, 2.0]


def test_further_calls_of_a_layer_have_rows_beside_it(synthetic):
    record = synthetic.record_of(Entry("p", "x", per("layer", ["relu", "relu@2"], [1.0, 2.0])), layers=fused())
    rows = [row for row in rows_of(record) if row["tensor"] is None]
    assert [(row["name"], row["kind"], row["x"]) for row in rows] == [
        ("relu", "activation", 1.0),
        ("relu@2", "activation", 2.0),
    ]


def test_products_give_their_second_tensor_a_row(synthetic):
    params = (Param("a", "lora", (2, 8), "adapter"), Param("b", "lora", (8, 2), "adapter"))
    matrix = Matrix("a:product", "lora", ("a", "b"), "adapter", (8, 8), lambda a, b: b @ a)
    record = synthetic.record_of(
        Entry("w", "rank", per("matrix", ["a:product"], [2.0])), layers=[Layer("lora", "linear", 0, params, (matrix,))]
    )
    rows = {row["name"]: row for row in rows_of(record)}
    assert rows["a:product"]["tensor"] == "a"
    assert rows["a:product"]["rank"] == 2.0
    assert rows["b"]["tensor"] == "b"


def test_variables_named_like_what_a_row_says_of_itself_leave_it(synthetic):
    names = sorted(OWN)
    record = synthetic.record_of(*(Entry("p", name, per("layer", ["relu"], [1.0])) for name in names), layers=fused())
    assert names == sorted(set(rows_of(synthetic.record_of(layers=fused()))[0]) | {"n"})
    (row,) = (row for row in rows_of(record) if row["layer"] == "relu" and row["tensor"] is None)
    assert (row["name"], row["kind"]) == ("relu", "activation")
    assert [row[f"p.{name}"] for name in names] == [1.0] * len(names)


def test_an_empty_record_has_no_rows(synthetic):
    assert rows_of(synthetic.record_of()) == []
    assert columns_of(synthetic.record_of()) == []


def test_columns_say_what_they_mean(whole):
    columns = {column["key"]: column for column in columns_of(whole)}
    dead = columns["dead_share[test]"]
    assert (dead["instrument"], dead["split"], dead["units"], dead["source"]) == (
        "units",
        "test",
        "1",
        "arXiv:1811.05381",
    )
    assert dead["meaning"] == "Share of units active for no example, on test (arXiv:1811.05381)."
    used = {key for row in rows_of(whole) for key in row if key not in FIXED and not key.endswith("_reason")}
    assert used <= set(columns)


def test_ragged_and_crossed_variables_are_no_columns(whole):
    table = table_of(whole)
    assert not {"active_share", "intra"} & set(table.columns)


@pytest.mark.parametrize("layers", [1, 300])
def test_rows_scale(synthetic, layers):
    record = synthetic.make(steps=(0,), layers=layers, every_step=1)
    assert len(rows_of(record)) == 3 * layers + 2
