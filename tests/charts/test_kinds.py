import numpy as np
import pytest

from stratoscope.charts import Axis, Band, Boxes, Cells, Chart, Dots, Line, Number, Rule, charts_of
from stratoscope.charts.build import kinds
from stratoscope.charts.kinds.distribution import summary
from stratoscope.charts.kinds.lines import running_median
from stratoscope.charts.variable import variables_of
from stratoscope.record import Entry
from stratoscope.record.quantity import quantity


def of_layers(values, names=None, **attrs):
    names = names or [f"layer{n}" for n in range(len(values))]
    attrs = {"units": "1", "long_name": "a share", **attrs}
    return quantity(values, dims="layer", coords={"layer": names}, **attrs)


def charts(synthetic, rounds, **kwargs):
    return charts_of(synthetic.record_of([(step, [Entry("probe", "x", q)]) for step, q in rounds], **kwargs))


def kinds_of(found):
    return sorted(chart.kind for chart in found)


def test_kinds_are_found_by_walking_the_folder():
    assert set(kinds()) == {
        "density",
        "distribution",
        "grid",
        "heatmap",
        "lines",
        "number",
        "plane",
        "profile",
        "similarity",
        "timeline",
    }


def test_every_chart_says_what_it_is(whole):
    found = charts_of(whole)
    assert len({chart.id for chart in found}) == len(found)
    for chart in found:
        assert chart.title
        assert chart.caption.endswith(".")
        assert chart.units
        assert chart.marks
        assert chart.kind in kinds()
        assert chart.instrument in whole
        assert chart.variable in whole[chart.instrument]


def test_few_layers_over_steps_are_lines_and_a_profile(synthetic):
    found = charts(synthetic, [(step, of_layers([0.1 * step, 0.2])) for step in range(4)])
    assert kinds_of(found) == ["lines", "profile"]
    lines = next(chart for chart in found if chart.kind == "lines")
    assert lines.series == ("layer0", "layer1")
    assert lines.ordered
    assert [mark.y.tolist() for mark in lines.marks] == [pytest.approx([0, 0.1, 0.2, 0.3]), [0.2] * 4]
    assert "layer0 is highest (0.3)" in lines.caption


def test_many_layers_over_steps_are_a_map(synthetic):
    found = charts(synthetic, [(step, of_layers(np.linspace(0, 1, 13) + step)) for step in range(5)])
    assert kinds_of(found) == ["heatmap", "profile"]
    cells = next(chart for chart in found if chart.kind == "heatmap").marks[0]
    assert cells.values.shape == (13, 5)
    assert cells.values[0].tolist() == [0, 1, 2, 3, 4]


def test_three_hundred_layers_and_a_thousand_steps(synthetic):
    rng = np.random.default_rng(0)
    found = charts(synthetic, [(step, of_layers(rng.random(300))) for step in range(0, 1000)])
    cells = next(chart for chart in found if chart.kind == "heatmap").marks[0]
    assert cells.values.shape == (300, 240)
    assert len(next(chart for chart in found if chart.kind == "profile").x.labels) == 300


def test_one_step_is_a_profile_along_depth(synthetic):
    layers = [synthetic.linear(name, depth, 3, 3) for depth, name in enumerate(["z", "m", "a"])]
    found = charts(synthetic, [(0, of_layers([1.0, 2.0, 3.0], ["a", "m", "z"]))], layers=layers)
    assert kinds_of(found) == ["profile"]
    assert found[0].x.labels == ("z", "m", "a")
    dots = next(mark for mark in found[0].marks if isinstance(mark, Dots))
    assert dots.y.tolist() == [3.0, 2.0, 1.0]


def test_one_layer_at_one_step_is_a_number(synthetic):
    found = charts(synthetic, [(0, of_layers([0.25]))])
    assert kinds_of(found) == ["number"]
    assert found[0].marks == (Number("", 0.25),)


def test_one_layer_over_steps_is_a_line(synthetic):
    found = charts(synthetic, [(step, of_layers([float(step)])) for step in range(3)])
    assert kinds_of(found) == ["lines"]


def test_what_is_the_same_everywhere_is_a_number(synthetic):
    found = charts(synthetic, [(step, of_layers([7.0, 7.0])) for step in range(3)])
    assert kinds_of(found) == ["number"]
    assert "7, the same everywhere" in found[0].caption


def test_what_never_changes_has_no_lines(synthetic):
    found = charts(synthetic, [(step, of_layers([1.0, 2.0])) for step in range(3)])
    assert kinds_of(found) == ["profile"]


def test_nan_everywhere_is_shown_as_such(synthetic):
    found = charts(synthetic, [(step, of_layers([np.nan, np.nan])) for step in range(3)])
    assert kinds_of(found) == ["lines", "profile"]
    assert all("finite" in chart.caption for chart in found)


def test_an_empty_record_has_no_charts(synthetic):
    assert charts_of(synthetic.record_of()) == []


def test_scalars_over_steps_have_a_line_a_split_and_their_interval(synthetic):
    def entry(name, value, split):
        return Entry("probe", name, quantity(value, units="nat", long_name="loss"), split=split)

    rounds = [
        (step, [entry(n, v, split) for split in ("train", "test") for n, v in
                (("loss", 3.0 - step), ("loss_low", 2.5 - step), ("loss_high", 3.5 - step))])
        for step in range(3)
    ]  # fmt: skip
    (chart,) = charts_of(synthetic.record_of(rounds))
    assert chart.series == ("train", "test")
    assert chart.units == "nat"
    bands = [mark for mark in chart.marks if isinstance(mark, Band)]
    assert [band.low.tolist() for band in bands] == [[2.5, 1.5, 0.5]] * 2


def test_a_standard_error_becomes_an_interval(synthetic):
    entries = [
        Entry("p", "loss", quantity(2.0, units="1", long_name="loss")),
        Entry("p", "loss_se", quantity(0.5, units="1", long_name="se")),
    ]
    (chart,) = charts_of(synthetic.record_of(*entries))
    assert chart.marks == (Number("", 2.0, 1.5, 2.5),)


def test_steps_that_were_not_measured_are_no_gaps_but_nan_is(synthetic):
    values = {0: 1.0, 1: np.nan, 3: 2.0}
    rounds = [(step, [Entry("p", "x", of_layers([values[step], step + 0.5]))]) if step in values else
              (step, [Entry("p", "x", of_layers([9.0], ["layer1"]))]) for step in range(4)]  # fmt: skip
    lines = next(chart for chart in charts_of(synthetic.record_of(rounds)) if chart.kind == "lines")
    first = next(mark for mark in lines.marks if mark.series == 0)
    assert first.x.tolist() == [0, 1, 3]
    assert np.isnan(first.y).tolist() == [False, True, False]


def test_categories_over_steps_are_a_map_of_names(synthetic):
    def phase(a, b):
        return of_layers([a, b], flag_values=[0, 5], flag_meanings="still_random learned")

    found = charts(synthetic, [(0, phase(0, 0)), (1, phase(5, 0)), (2, phase(5, 5))])
    assert kinds_of(found) == ["heatmap"]
    cells = found[0].marks[0]
    assert cells.meanings == ("still random", "learned")
    assert cells.values.tolist() == [[0, 1, 1], [0, 0, 1]]


def test_categories_at_one_step_are_dots_at_names(synthetic):
    found = charts(synthetic, [(0, of_layers([0, 1], flag_values=[0, 1], flag_meanings="a b"))])
    assert kinds_of(found) == ["profile"]
    assert found[0].y == Axis("a share", "1", "category", ("a", "b"))
    assert "1 a, 1 b" in found[0].caption


def test_names_in_a_list_are_kept_as_they_are(synthetic):
    flags = {"flag_values": [0, 1], "flag_meanings": ["layer_1", "fc 2"]}
    found = charts(synthetic, [(0, of_layers([0, 1], **flags))])
    assert found[0].y.labels == ("layer_1", "fc 2")


def test_a_truth_value_is_yes_or_no(synthetic):
    found = charts(synthetic, [(0, of_layers([True, False]))])
    assert found[0].y.labels == ("no", "yes")


def test_ragged_units_are_distributions(synthetic):
    labels = [("a", 0), ("a", 1), ("b", 0), ("b", 1), ("b", 2)]
    values = quantity(
        [1.0, 3.0, 5.0, np.nan, 7.0], units="1", long_name="x", dims="layer_unit", coords={"layer_unit": labels}
    )
    (chart,) = charts(synthetic, [(0, values)])
    assert chart.kind == "distribution"
    (boxes,) = chart.marks
    assert boxes.counts.tolist() == [2, 2]
    assert boxes.quantiles[:, 3].tolist() == [2.0, 6.0]


def test_the_distribution_agrees_with_numpy_and_sums_to_one():
    values = np.random.default_rng(1).normal(size=1000)
    box = summary([values, np.empty(0)])
    assert box.quantiles[0] == pytest.approx(np.quantile(values, [0, 0.05, 0.25, 0.5, 0.75, 0.95, 1]))
    assert box.density[0].sum() == pytest.approx(1.0)
    assert np.isnan(box.quantiles[1]).all()
    assert box.counts.tolist() == [1000, 0]


def test_the_distribution_on_a_log_axis_leaves_zeros_out_of_its_bins():
    box = summary([np.array([0.0, 1.0, 100.0])], log=True)
    assert box.density[0].sum() == pytest.approx(1.0)
    assert box.edges[0] == pytest.approx(1.0)


def test_layer_by_class_is_a_grid(synthetic):
    table = quantity(
        [[1.0, 2.0], [3.0, np.nan]], units="1", long_name="x", dims=("layer", "class"), coords={"layer": ["a", "b"]}
    )
    (chart,) = charts(synthetic, [(0, table)])
    assert chart.kind == "grid"
    assert chart.y.labels == ("a", "b")
    assert chart.x.labels == ("0", "1")
    assert isinstance(chart.marks[0], Cells)


def test_floors_and_ceilings_become_rules(synthetic):
    entries = [
        Entry("p", "gdv", of_layers([-0.1, -0.2], ceiling=0.0)),
        Entry("p", "gdv_floor", of_layers([-0.9, -0.9])),
    ]
    found = charts_of(synthetic.record_of(*entries))
    assert [chart.variable for chart in found] == ["gdv"]
    assert [mark for mark in found[0].marks if isinstance(mark, Rule)] == [Rule("floor", -0.9), Rule("ceiling", 0.0)]


def test_a_floor_that_differs_between_layers_is_a_curve(synthetic):
    entries = [Entry("p", "gdv", of_layers([-0.1, -0.2])), Entry("p", "gdv_floor", of_layers([-0.9, -0.8]))]
    (chart,) = charts_of(synthetic.record_of(*entries))
    assert chart.series == ("step 0", "floor")
    (floor,) = (mark for mark in chart.marks if isinstance(mark, Line) and mark.role == "reference")
    assert floor.y.tolist() == [-0.9, -0.8]


def test_a_variable_may_stay_out_of_charts(synthetic):
    assert charts(synthetic, [(0, of_layers([1.0, 2.0], chart="none"))]) == []


def test_two_steps_are_compared_along_depth(synthetic):
    found = charts(synthetic, [(0, of_layers([1.0, 2.0])), (5, of_layers([3.0, 4.0]))])
    profile = next(chart for chart in found if chart.kind == "profile")
    assert profile.series == ("step 5", "step 0")
    reference = next(mark for mark in profile.marks if isinstance(mark, Line) and mark.role == "reference")
    assert reference.y.tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("values", "attrs", "scale"),
    [([1.0, 2.0], {}, "linear"), ([1e-4, 10.0], {}, "log"), ([1.0, 2.0], {"scale": "log"}, "log"), ([-1.0, 1e6], {}, "linear"),
     ([1e-4, 10.0], {"scale": "linear"}, "linear"), ([0.0, 0.0], {"scale": "log"}, "linear"), ([0.0, 10.0], {"scale": "log"}, "log")],
)  # fmt: skip
def test_the_scale_follows_the_hint_else_the_values(synthetic, values, attrs, scale):
    record = synthetic.record_of(Entry("p", "x", of_layers(values, **attrs)))
    assert variables_of(record, "p")["x"].scale == scale


def test_long_curves_are_smoothed_with_every_value_behind(synthetic):
    rng = np.random.default_rng(0)
    loss = rng.normal(size=150)
    rounds = [
        (step, [Entry("p", "loss", quantity(value, units="1", long_name="loss"))]) for step, value in enumerate(loss)
    ]
    (chart,) = charts_of(synthetic.record_of(rounds))
    raw, main = chart.marks
    assert (raw.role, main.role) == ("raw", "main")
    assert raw.y.tolist() == loss.tolist()
    assert "running median" in chart.caption


def test_the_running_median_agrees_with_a_loop_and_keeps_gaps():
    values = np.random.default_rng(3).normal(size=50)
    values[7] = np.nan
    smooth = running_median(values, 5)
    for place in range(50):
        if place == 7:
            assert np.isnan(smooth[place])
        else:
            assert smooth[place] == np.nanmedian(values[max(0, place - 2) : place + 3])


def test_charts_of_one_name_get_different_ids(synthetic):
    entries = [Entry("p", name, of_layers([1.0, 2.0])) for name in ("a b", "a-b", "<a b>")]
    found = charts_of(synthetic.record_of(*entries))
    assert len({chart.id for chart in found}) == 3
    assert all(chart.id.replace("-", "").isalnum() for chart in found)


def test_a_chart_is_a_plain_value():
    chart = Chart("a", "lines", "A", "", "i", "v", "1", "", Axis("x"), Axis("y"), (Boxes(*np.zeros((4, 1, 1))),))
    with pytest.raises(AttributeError):
        chart.title = "B"
