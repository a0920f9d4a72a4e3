"""The picture of layers against layers: what it holds, what it says, and that every renderer draws it."""

import json

import numpy as np
import pytest

from stratoscope.charts import Cells, charts_of, to_json, to_svg
from stratoscope.record import Entry
from stratoscope.record.quantity import quantity


def table(values, rows, columns, **attrs):
    coords = {"layer": rows, "other": columns}
    return quantity(values, units="1", dims=("layer", "other"), coords=coords, long_name="debiased linear CKA", **attrs)


def charts(synthetic, rounds, **kwargs):
    return charts_of(synthetic.record_of([(step, [Entry("similarity", "cka", q)]) for step, q in rounds], **kwargs))


ONE = np.array([
    [1.0, 0.9, 0.9, 0.2],
    [0.9, 1.0, 1.0, 0.5],
    [0.9, 1.0, 1.0, 0.5],
    [0.2, 0.5, 0.5, 1.0],
])  # fmt: skip
"""Layer c hands on what layer b gave."""


def test_a_map_of_one_network(synthetic):
    names = ["a", "b", "c", "d"]
    (chart,) = charts(synthetic, [(0, table(ONE, names, names))])
    assert chart.kind == "similarity"
    assert chart.x.labels == chart.y.labels == ("a", "b", "d")
    (cells,) = chart.marks
    assert isinstance(cells, Cells)
    np.testing.assert_array_equal(cells.values, ONE[np.ix_([0, 1, 3], [0, 1, 3])])
    assert "3 layers that give something of their own" in chart.caption
    assert "0.7 in the middle, least at d (0.5); first and last layer 0.2." in chart.caption


def test_the_last_step_is_shown(synthetic):
    names = ["a", "b", "c", "d"]
    (chart,) = charts(synthetic, [(0, table(ONE, names, names)), (7, table(ONE**2, names, names))])
    assert chart.marks[0].values[0, 1] == pytest.approx(0.81)
    assert "at step 7" in chart.caption


def test_a_map_of_two_networks_keeps_the_order_of_the_second(synthetic):
    values = np.array([[0.1, 0.2, 0.95], [0.6, 0.7, 0.3]])
    (chart,) = charts(synthetic, [(0, table(values, ["layer0", "layer1"], ["stem", "layer1", "layer0"]))])
    assert chart.y.labels == ("layer0", "layer1")
    assert chart.x.labels == ("stem", "layer1", "layer0")
    np.testing.assert_array_equal(chart.marks[0].values, values)
    assert chart.x.title == "layer of the other network"
    assert "the closest pair is layer0 and layer0 (0.95)" in chart.caption


def test_rows_and_columns_of_one_kind_stand_in_one_order(synthetic):
    values = np.array([[0.1, 1.0], [0.9, 0.2]])
    (chart,) = charts(synthetic, [(0, table(values, ["a", "b"], ["b", "a"]))])
    assert chart.x.labels == chart.y.labels
    assert {(y, x): v for y, row in zip(chart.y.labels, chart.marks[0].values, strict=True)
            for x, v in zip(chart.x.labels, row, strict=True)} == {
        ("a", "b"): 0.1, ("a", "a"): 1.0, ("b", "b"): 0.9, ("b", "a"): 0.2,
    }  # fmt: skip


def test_what_is_kept_out_is_not_drawn(synthetic):
    names = ["a", "b", "c", "d"]
    assert not charts(synthetic, [(0, table(ONE, names, names, chart="none"))])
    (chart,) = charts(synthetic, [(0, table(np.full((2, 2), np.nan), ["a", "b"], ["a", "b"]))]) or [None]
    assert chart is None or "No value is finite" in chart.caption


@pytest.mark.parametrize("size", [2, 30, 100])
def test_every_renderer_draws_it(synthetic, size, tmp_path):
    names = [f"blocks.{place}.attn" for place in range(size)]
    depth = np.arange(size)
    values = np.exp(-np.abs(depth[:, None] - depth) / 5) + 1e-6 * depth[:, None] * (depth[:, None] != depth)
    (chart,) = charts(synthetic, [(0, table(values, names, names))])
    assert len(chart.y.labels) == size
    picture = to_svg(chart)
    assert picture.startswith("<svg")
    assert "blocks.0.attn" in picture
    cells = to_json(chart)["marks"][0]
    assert len(cells["values"]) == size
    json.dumps(to_json(chart), allow_nan=False)
    mpl = pytest.importorskip("stratoscope.charts.mpl")
    mpl.save(chart, tmp_path / "map.png", dpi=50)
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")
