"""The plane of two measured quantities: ways, bands, ceilings, the bound."""

import json
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from stratoscope.charts import charts_of, to_json, to_svg
from stratoscope.charts.frame import across
from stratoscope.charts.mpl import save
from stratoscope.charts.svg_marks import SHADES
from stratoscope.charts.values import Line, Path, Rule, Span
from stratoscope.record import Entry
from stratoscope.record.quantity import quantity

LAYERS = ["a", "b", "c"]


def rounds(steps, *, bad=False):
    """Three layers that first learn about labels, then forget inputs."""
    for step in steps:
        t = step / max(steps[-1], 1)
        x = np.array([12.0, 8 + 3 * t - 4 * t**2, 6 + 4 * t - 6 * t**2])
        y = np.array([1.0, 0.3 + 0.6 * t, 0.1 + 0.8 * t])
        if bad:
            x[2], y[1] = np.nan, np.nan
        place = {"dims": "layer", "coords": {"layer": LAYERS}, "units": "bit"}
        parts = {
            "kept": quantity(x, long_name="information kept", chart="none", **place),
            "kept_low": quantity(x - 1, long_name="least", **place),
            "kept_high": quantity(x + 0.5, long_name="most", **place),
            "kept_ceiling": quantity(np.full(3, 12.0), long_name="ceiling", **place),
            "told": quantity(y, long_name="information told", across="kept", bound=("at", "best"), **place),
            "at": quantity([3.0, 0.0, 1.0], units="bit", long_name="at", dims="beta", chart="none"),
            "best": quantity([1.0, 0.0, 0.6], units="bit", long_name="best", dims="beta", chart="none"),
        }
        yield step, [Entry("probe", name, found, split="test") for name, found in parts.items()]


def plane(synthetic, steps=(0, 1, 10, 50, 100), **more):
    found = [
        chart for chart in charts_of(synthetic.record_of(list(rounds(list(steps), **more)))) if chart.kind == "plane"
    ]
    assert len(found) == 1
    return found[0]


def marks(chart, kind):
    return [mark for mark in chart.marks if isinstance(mark, kind)]


def test_each_layer_goes_its_way_with_its_band(synthetic):
    chart = plane(synthetic)
    assert chart.series == (*LAYERS, "the bound")
    ways, spans = marks(chart, Path), marks(chart, Span)
    assert [way.along.tolist() for way in ways] == [[0, 1, 10, 50, 100]] * 3
    assert ways[2].x.tolist() == pytest.approx([6, 6.0394, 6.34, 6.5, 4])
    assert ways[2].y[-1] == pytest.approx(0.9)
    np.testing.assert_allclose(spans[1].high - spans[1].low, 1.5)
    assert chart.colour.title == "step"
    assert chart.colour.scale == "log"


def test_ceilings_and_the_bound_are_there_in_order(synthetic):
    chart = plane(synthetic)
    (rule,) = marks(chart, Rule)
    assert (rule.name, rule.value, rule.upright) == ("ceiling", 12.0, True)
    (bound,) = marks(chart, Line)
    assert bound.x.tolist() == [0, 1, 3]
    assert bound.y.tolist() == [0, 0.6, 1]
    low, high = across(chart)
    assert low == 0
    assert high > 12.5


def test_the_caption_says_where_ways_turn_and_end(synthetic):
    assert "c ends at 4 across and 0.9 up, after 6.5 across at step 50" in plane(synthetic).caption


def test_a_single_step_is_a_dot_each(synthetic):
    chart = plane(synthetic, (7,))
    assert [len(way.x) for way in marks(chart, Path)] == [1, 1, 1]
    svg = to_svg(chart)
    assert len(re.findall("<circle", svg)) == 3
    assert chart.caption.startswith("Each layer. a ends")


def test_what_is_not_finite_is_a_gap(synthetic):
    chart = plane(synthetic, bad=True)
    assert chart.series == ("a", "the bound")
    ET.fromstring(to_svg(chart))


@pytest.mark.parametrize("standalone", [True, False])
def test_it_is_drawn_inside_its_canvas_and_names_itself(synthetic, standalone):
    chart = plane(synthetic)
    root = ET.fromstring(to_svg(chart, standalone=standalone))
    _, _, width, height = (float(part) for part in root.get("viewBox").split())
    for node in root.iter():
        for name, most in (("cx", width), ("x", width), ("cy", height), ("y", height)):
            assert 0 <= float(node.get(name, 0)) <= most
    names = {node.get("data-name") for node in root.iter()} - {None}
    assert names == {*LAYERS, "the bound"}
    texts = {node.text for node in root.iter() if node.tag.endswith("text")}
    assert {"a", "b", "c", "ceiling 12"} <= texts


def test_colours_follow_the_steps(synthetic):
    svg = to_svg(plane(synthetic, range(0, 400, 4)))
    assert len(re.findall('class="ss-way"', svg)) == 3
    assert len(set(re.findall(r"--l:(#\w+)", svg))) >= SHADES


def test_it_has_all_three_forms(synthetic, tmp_path):
    chart = plane(synthetic)
    save(chart, tmp_path / "plane.png")
    assert (tmp_path / "plane.png").stat().st_size > 5000
    plain = json.loads(json.dumps(to_json(chart), allow_nan=False))
    assert [mark["mark"] for mark in plain["marks"]] == ["rule", "line", *["span"] * 3, *["path"] * 3]


def test_a_variable_that_is_drawn_across_nothing_is_no_plane(synthetic):
    place = {"dims": "layer", "coords": {"layer": LAYERS}, "units": "1"}
    entry = Entry("probe", "told", quantity(np.ones(3), long_name="told", across="not there", **place), split="test")
    assert not [c for c in charts_of(synthetic.record_of([(0, [entry])])) if c.kind == "plane"]


def test_a_second_dim_gives_a_plane_a_label(synthetic):
    names = ["small", "large"]
    place = {"dims": ("layer", "noise"), "coords": {"layer": LAYERS, "noise": names}, "units": "bit"}
    x, y = np.array([[6.0, 3.0], [5.0, 2.0], [4.0, 1.0]]), np.array([[0.9, 0.7], [0.8, 0.6], [0.7, 0.5]])
    parts = {
        "kept": quantity(x, long_name="kept", **place),
        "kept_low": quantity(x - 0.5, long_name="least", **place),
        "kept_high": quantity(x + 0.25, long_name="most", **place),
        "told": quantity(y, long_name="told", across="kept", plane="Noisy plane", **place),
    }
    entries = [(step, [Entry("probe", name, found) for name, found in parts.items()]) for step in (0, 5)]
    record = synthetic.record_of(entries)
    found = [chart for chart in charts_of(record) if chart.kind == "plane"]
    assert [chart.title for chart in found] == ["Noisy plane, noise small", "Noisy plane, noise large"]
    assert len({chart.id for chart in found}) == 2
    spans = marks(found[1], Span)
    assert [span.high.tolist() for span in spans] == [[3.25, 3.25], [2.25, 2.25], [1.25, 1.25]]
    assert [way.y.tolist() for way in marks(found[1], Path)] == [[0.7, 0.7], [0.6, 0.6], [0.5, 0.5]]
