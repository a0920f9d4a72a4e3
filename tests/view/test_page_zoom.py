"""The page in a real browser: ranges shown large, logarithmic steps, lists whose order stands in the address, drawings as SVG."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
import torch
from browsing import card, saved, state, until

from stratoscope.network.layers import Catalogue, Layer
from stratoscope.observe.inspecting import inspect
from stratoscope.record.entry import Entry
from stratoscope.record.quantity import quantity
from stratoscope.record.writer import RecordWriter
from stratoscope.view.runs import Runs
from stratoscope.view.serving import Serving

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("view")]

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def folder(tmp_path, build):
    """Two runs of twenty steps; their loss falls from 1 to 1/20."""
    for number in range(2):
        build[0](tmp_path / "runs" / f"run{number}", f"run {number}", 20, shift=float(number))
    return tmp_path / "runs"


def settled(page, name):
    """The place of a curve, once it no longer moves."""
    plot, before = card(page, name).locator(".u-over"), None
    plot.scroll_into_view_if_needed()
    while (now := plot.bounding_box()) != before:
        before = now
        page.wait_for_timeout(150)
    return now


def drag(page, box, start, end):
    page.mouse.move(box["x"] + start * box["width"], box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + end * box["width"], box["y"] + 60, steps=4)
    page.mouse.up()


def texts(path):
    return [element.text for element in ElementTree.parse(path).iter(f"{SVG}text")]


def test_a_drag_shows_a_range_of_steps_large_in_all_charts(page, tmp_path):
    box = settled(page, "training-loss")
    drag(page, box, 0.25, 0.55)
    low, high = until(page, "() => window.__view.state().within")
    # twenty steps, from 0 to 19
    assert (low, high) == (pytest.approx(0.25 * 19, abs=0.8), pytest.approx(0.55 * 19, abs=0.8))
    assert state(page)["step"] is None
    assert f"within={low}..{high}" in page.url
    labels = texts(saved(page, "probe-share-map", "SVG", tmp_path / "map.svg"))
    steps = [int(label) for label in labels if label.isdigit()]
    assert steps == [step for step in steps if low <= step <= high]
    assert steps
    box = settled(page, "training-loss")
    page.mouse.move(box["x"] + 2, box["y"] + 30)
    until(page, f"() => window.__view.state().cursorStep === {low}")
    page.reload()
    until(page, "() => window.__view && window.__view.ready()")
    assert state(page)["within"] == [low, high]
    page.keyboard.press("f")
    until(page, "() => window.__view.state().within === null")
    page.keyboard.press("Control+z")
    until(page, "() => window.__view.state().within !== null")
    box = settled(page, "training-loss")
    page.mouse.dblclick(box["x"] + 50, box["y"] + 30)
    until(page, "() => window.__view.state().within === null")


def test_what_is_no_chart_of_steps_is_shown_large_alone(browser, built, tmp_path):
    """The spectrum of a layer has eigenvalues along its horizontal axis."""
    rng = np.random.default_rng(0)
    network = torch.nn.Linear(60, 40, bias=False)
    with torch.no_grad():
        network.weight.copy_(torch.from_numpy(rng.normal(size=(40, 60))))
    record = inspect(network, only=["spectrum"])
    with Serving(Runs([], [("layer", record)]), built) as serving:
        tab = browser.new_page(viewport={"width": 1200, "height": 900})
        tab.goto(serving.address)
        until(tab, "() => window.__view && window.__view.ready()")
        name = "spectrum-eigenvalue-density"
        drag(tab, settled(tab, name), 0.3, 0.6)
        zooms = until(
            tab, "() => { const { zooms } = window.__view.state(); return Object.keys(zooms).length && zooms; }"
        )
        ((chart, (low, high)),) = zooms.items()
        assert chart.startswith(name)
        assert 0 < low < high
        assert state(tab)["within"] is None
        box = settled(tab, name)
        ends = []
        for share in (0.002, 0.998):
            tab.mouse.move(box["x"] + share * box["width"], box["y"] + 30)
            ends.append(
                float(until(tab, f"() => document.querySelector('[data-chart^={name}] .readout > b')?.innerText"))
            )
        assert low * 0.8 <= ends[0] < ends[1] <= high * 1.25
        tab.get_by_role("button", name="fit", exact=True).click()
        until(tab, "() => Object.keys(window.__view.state().zooms).length === 0")
        assert tab.get_by_role("button", name="fit", exact=True).count() == 0
        tab.close()


def test_steps_run_along_a_logarithmic_axis(page):
    """On one of asinh(step), step 3 stands at asinh(3) / asinh(19) of the width, half of it."""
    box = settled(page, "training-loss")
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 20)
    until(page, "() => [9, 10].includes(window.__view.state().cursorStep)")
    page.mouse.move(5, 500)
    page.keyboard.press("x")
    until(page, "() => location.hash.includes('logx=1')")
    box = settled(page, "training-loss")
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 20)
    until(page, "() => window.__view.state().cursorStep === 3")


def test_curves_leave_as_drawings(page, tmp_path):
    root = ElementTree.parse(saved(page, "training-loss", "SVG", tmp_path / "loss.svg"))
    assert not list(root.iter(f"{SVG}image"))
    (line,) = (path for path in root.iter(f"{SVG}path") if path.get("class", "").startswith("line"))
    places = [float(part) for part in line.get("d").replace("M", " ").replace("L", " ").split()]
    assert len(places) == 2 * 20
    heights = np.array(places[1::2])
    # loss is 1 / (1 + step): its heights on the picture are a linear map of that
    loss = 1.0 / (1 + np.arange(20))
    slope, offset = np.polyfit(loss, heights, 1)
    np.testing.assert_allclose(slope * loss + offset, heights, atol=0.11)  # places are written to a tenth
    assert slope < 0
    assert line.get("stroke").startswith("rgb(0, 114, 178")


def test_smoothed_curves_leave_with_what_was_measured_behind(page, tmp_path):
    page.evaluate("() => { location.hash += '&smooth=0.5' }")
    until(page, "() => window.__view.state().smooth === 0.5")
    root = ElementTree.parse(saved(page, "training-loss", "SVG", tmp_path / "loss.svg"))
    roles = [path.get("class") for path in root.iter(f"{SVG}path") if path.get("class", "").startswith("line")]
    assert roles == ["line raw", "line main"]


def test_a_profile_leaves_with_the_step_that_is_looked_at(page, tmp_path):
    before = ElementTree.parse(saved(page, "probe-share-depth", "SVG", tmp_path / "end.svg"))
    page.evaluate("() => { location.hash += '&step=4' }")
    until(page, "() => document.querySelector('[data-chart^=probe-share-depth] .behind')")
    after = ElementTree.parse(saved(page, "probe-share-depth", "SVG", tmp_path / "then.svg"))
    assert len(list(after.iter(f"{SVG}path"))) == len(list(before.iter(f"{SVG}path"))) + 1


def test_a_profile_follows_the_step_on_the_screen(page):
    """Every layer moves by 0.1 a step, so what lies over the profile changes with the step."""
    chart = card(page, "probe-share-depth")
    chart.scroll_into_view_if_needed()
    seen = (
        "() => { const sheet = document.querySelector('[data-chart^=probe-share-depth] canvas.over');"
        " if (!sheet) return null;"
        " const data = sheet.getContext('2d').getImageData(0, 0, sheet.width, sheet.height).data;"
        " let rows = 0, count = 0;"
        " for (let i = 3; i < data.length; i += 4) if (data[i] > 128) { count++; rows += Math.floor(i / 4 / sheet.width); }"
        " return count > 50 ? rows / count : 0; }"
    )
    until(page, "() => document.querySelector('[data-chart^=probe-share-depth] canvas.over')")
    assert page.evaluate(seen) == 0
    heights = []
    for step in (1, 18):
        page.evaluate("step => { location.hash = location.hash.replace(/&step=\\d+/, '') + `&step=${step}` }", step)
        until(page, f"() => window.__view.state().cursorStep === {step}")
        heights.append(until(page, seen))
    assert heights[1] < heights[0] - 5  # higher up on the screen


def test_lists_keep_their_order_and_filter_in_the_address(page):
    page.get_by_label("Filter runs").fill("run 1")
    page.get_by_label("Sort runs by").select_option("name")
    page.locator(".layers thead th button").nth(1).click()
    assert page.locator(".layers tbody th").first.inner_text() == "fc.weight"
    assert page.locator(".layers thead th").nth(1).get_attribute("aria-sort") == "descending"
    until(page, "() => location.hash.includes('sort=') && location.hash.includes('filter=')")
    page.reload()
    until(page, "() => window.__view && window.__view.ready()")
    until(page, "() => document.querySelectorAll('.runs li label').length === 1")
    assert page.get_by_label("Filter runs").input_value() == "run 1"
    assert page.get_by_label("Sort runs by").input_value() == "name"
    assert page.locator(".layers tbody th").first.inner_text() == "fc.weight"
    page.locator(".layers thead th button").nth(1).click()
    until(page, "() => document.querySelector('.layers tbody th').innerText === 'conv1.weight'")


def test_a_key_of_a_chart_leads_to_its_layer(browser, built, tmp_path):
    names = ["conv1", "conv2", "fc"]
    with RecordWriter.create(tmp_path / "run", {"name": "run"}) as writer:
        writer.write_layers(
            Catalogue({name: Layer(name, "linear", depth, (), (), None, "") for depth, name in enumerate(names)})
        )
        for step in range(4):
            share = quantity(
                np.arange(3.0) + step,
                units="1",
                long_name="share",
                dims="layer",
                coords={"layer": names},
                chart="lines",
            )
            writer.commit(step, [Entry("probe", "share", share)])
    with Serving(Runs([tmp_path]), built) as serving:
        tab = browser.new_page()
        tab.goto(serving.address)
        until(tab, "() => window.__view && window.__view.ready()")
        key = tab.locator(".readout .leads", has_text="conv2").first
        key.hover()
        until(tab, "() => window.__view.state().cursorLayer === 'conv2'")
        key.click()
        until(tab, "() => window.__view.state().layer === 'conv2'")
        tab.close()
