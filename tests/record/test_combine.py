"""Several runs as one, and the difference between two."""

import json
import math
from dataclasses import asdict

import numpy as np
import pytest

from stratoscope.errors import RecordError
from stratoscope.record import Entry, Record, RecordWriter, compare, concat, difference
from stratoscope.record.quantity import quantity


def q(values, dims=(), coords=None, **attrs):
    return quantity(values, units="m", long_name="x", dims=dims, coords=coords, **attrs)


def run(name, *commits):
    with RecordWriter.create(None, {"run_id": name}) as writer:
        for step, entries in commits:
            writer.commit(step, entries)
    return Record.from_writer(writer)


def x(values, split="", name="x", key="a", **attrs):
    return Entry(key, name, q(list(values.values()), "layer", {"layer": list(values)}, **attrs), split=split)


def test_runs_side_by_side():
    one = run("one", (0, [x({"fc": 1.0, "out": 2.0})]), (10, [x({"fc": 3.0, "out": 4.0})]))
    two = run("two", (5, [x({"fc": 5.0, "new": 6.0}), x({"fc": 1.0}, name="y")]))
    both = concat([one, two])
    array = both["a"]["x"]
    assert array.dims == ("run", "step", "layer")
    assert (array.run.values.tolist(), array.step.values.tolist()) == (["one", "two"], [0, 5, 10])
    assert array.sel(run="one", step=10, layer="out").item() == 4.0
    assert array.sel(run="two", step=5, layer="new").item() == 6.0
    assert int(both["a"].measured("x").sum()) == 6
    assert int(np.isnan(array.values).sum()) == 2 * 3 * 3 - 6
    y = both["a"]["y"]
    assert (y.run.values.tolist(), y.sel(run="two", step=5).values.tolist()) == (["one", "two"], [1.0])
    assert not both["a"].measured("y").sel(run="one").any()
    assert (both["a"].layers, both["a"].steps, list(both["a"]), list(both)) == (
        ("fc", "out", "new"),
        (0, 5, 10),
        ["x", "y"],
        ["a"],
    )
    assert both["a"].dataset().sizes == {"run": 2, "step": 3, "layer": 3}
    assert "one, two" in repr(both)
    with pytest.raises(KeyError, match="in any run"):
        both["b"]


def test_ragged_dims_and_gaps_go_through():
    labels = {"layer_unit": [("fc", 0), ("fc", 1)]}
    entry = Entry("a", "u", q([1, 2], "layer_unit", labels, flag_meanings="a b c"))
    one = run(
        "same",
        (0, [entry]),
        (1, [Entry("a", "u", q([0], "layer_unit", {"layer_unit": [("fc", 1)]}, flag_meanings="a b c"))]),
    )
    two = run("same", (0, [entry]))
    both = concat([one, two], dim="seed_run")
    array = both["a"]["u"]
    assert array.seed_run.values.tolist() == ["same", "same#2"]
    assert array.sel(layer="fc").dims == ("seed_run", "step", "unit")
    assert array.values.tolist() == [[[1, 2], [-1, 0]], [[1, 2], [-1, -1]]]
    assert array.attrs["_FillValue"] == -1
    assert "varies" not in array.attrs
    assert both["a"].measured("u").values.tolist() == [[[True, True], [False, True]], [[True, True], [False, False]]]


def test_a_run_without_splits_beside_one_with():
    both = concat([run("one", (0, [x({"fc": 1.0})])), run("two", (0, [x({"fc": 2.0}, split="test")]))])
    assert both["a"]["x"].dims == ("run", "step", "split", "layer")
    assert both["a"]["x"].sel(run="two", split="test").item() == 2.0
    assert both["a"]["x"].sel(run="one", split="").item() == 1.0


def test_runs_that_cannot_be_put_together():
    with pytest.raises(RecordError, match="at least one"):
        concat([])
    with pytest.raises(RecordError, match=r"no instrument in common; they hold one: a; two: b"):
        concat([run("one", (0, [x({"fc": 1.0})])), run("two", (0, [x({"fc": 1.0}, key="b")]))])
    both = concat([run("one", (0, [x({"fc": 1.0})])), run("two", (0, [Entry("a", "x", q(1.0))]))])
    with pytest.raises(RecordError, match="dims"):
        both["a"]["x"]


def test_compare_at_the_last_common_step():
    one = run(
        "one", (0, [x({"fc": 9.0, "out": 9.0})]), (10, [x({"out": 2.0, "fc": 1.0, "old": 1.0})]), (20, [x({"fc": 7.0})])
    )
    two = run("two", (0, [x({"fc": 9.0, "out": 9.0})]), (10, [x({"fc": 1.0, "out": -3.0})]), (30, [x({"fc": 8.0})]))
    (found,) = compare(one, two)
    assert (found.key, found.variable, found.step, found.units) == ("a", "x", 10, "m")
    assert (found.compared, found.changed, found.largest, found.where) == (2, 1, 5.0, {"layer": "out"})
    assert (found.before, found.after, found.only_first, found.only_second) == (2.0, -3.0, 1, 0)
    assert found.relative == pytest.approx(5 / 3)
    assert json.loads(json.dumps(asdict(found)))["where"] == {"layer": "out"}
    gap = difference(one, two, "a", "x")
    assert np.array_equal(gap.sel(layer=["fc", "out"]).values, [0.0, -5.0])
    assert gap.layer.values.tolist() == ["out", "fc"]
    assert difference(one, two, "a", "x", step=0).sel(layer="fc").item() == 0.0
    with pytest.raises(RecordError, match="common step"):
        difference(one, two, "a", "x", step=20)


def test_compare_is_antisymmetric_and_zero_on_itself():
    values = np.random.default_rng(0).normal(size=(2, 8))
    one, two = (
        run(f"r{k}", (3, [x(dict(zip("abcdefgh", row, strict=True)), split="test")])) for k, row in enumerate(values)
    )
    there, back = compare(one, two)[0], compare(two, one)[0]
    assert (there.largest, there.before, there.changed) == (back.largest, back.after, 8)
    assert np.array_equal(difference(one, two, "a", "x"), -difference(two, one, "a", "x"))
    same = compare(one, one)[0]
    assert (same.changed, same.largest, same.relative) == (0, 0.0, 0.0)


def test_the_largest_relative_difference_comes_first():
    def one(scale):
        return run(
            "r",
            (
                0,
                [
                    x({"fc": 1000.0 + scale}, name="far"),
                    x({"fc": 1.0 + scale}, name="near"),
                    x({"fc": np.nan}, name="none"),
                ],
            ),
        )

    assert [found.variable for found in compare(one(0), one(1))] == ["near", "far", "none"]


@pytest.mark.parametrize(
    ("old", "new", "changed", "largest"),
    [
        (np.nan, np.nan, 0, math.nan), (np.nan, 1.0, 1, math.nan), (1.0, np.nan, 1, math.nan), (np.inf, np.inf, 0, math.nan),
        (np.inf, 1.0, 1, math.inf), (1, 3, 1, 2.0), (True, False, 1, 1.0),
    ],
)  # fmt: skip
def test_nan_infinity_and_other_kinds(old, new, changed, largest):
    (found,) = compare(run("one", (0, [x({"fc": old})])), run("two", (0, [x({"fc": new})])))
    assert (found.compared, found.changed) == (1, changed)
    assert found.largest == largest or (math.isnan(found.largest) and math.isnan(largest))


def test_what_one_run_did_not_measure_is_not_compared():
    one = run("one", (0, [x({"fc": 1.0}, split="test"), x({"out": 1.0}, split="train")]))
    two = run("two", (0, [x({"fc": 1.0, "out": 5.0}, split="test")]))
    (found,) = compare(one, two)
    assert (found.compared, found.changed) == (1, 0)


def test_compare_numbers_without_dims():
    (found,) = compare(run("one", (0, [Entry("a", "x", q(1.0))])), run("two", (0, [Entry("a", "x", q(4.0))])))
    assert (found.largest, found.where, found.before, found.after) == (3.0, {}, 1.0, 4.0)


def test_runs_with_nothing_in_common():
    with pytest.raises(RecordError, match=r"nothing in common to compare.*one: a; two: nothing"):
        compare(run("one", (0, [x({"fc": 1.0})])), run("two"))
    with pytest.raises(RecordError, match="at no common step"):
        compare(run("one", (0, [x({"fc": 1.0})])), run("two", (1, [x({"fc": 1.0})])))
