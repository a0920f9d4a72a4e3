"""The page in a real browser, as people use it: what is in sight, what closes, what leads where, what leaves as a picture."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from browsing import card, drawn, saved, state, until
from conftest import layer

from stratoscope.network.layers import Catalogue
from stratoscope.record.entry import Entry
from stratoscope.record.quantity import quantity
from stratoscope.record.writer import RecordWriter
from stratoscope.view.runs import Runs
from stratoscope.view.serving import Serving

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("view")]

SVG = "{http://www.w3.org/2000/svg}"


def chosen(page, hash_):
    page.evaluate("hash => { location.hash = hash }", hash_)


def test_escape_closes_one_thing_at_a_time(page):
    chosen(page, "#chart=training-loss-steps&layer=conv2&search=loss&step=3")
    card(page, "training-loss").locator(".menu summary").click()
    assert page.locator(".menu[open]").count() == 1
    page.keyboard.press("?")
    assert page.locator("dialog.help").is_visible()
    seen = []
    for _ in range(6):
        page.keyboard.press("Escape")
        page.wait_for_timeout(50)
        now = state(page)
        seen.append(
            [
                page.locator("dialog.help").count(),
                page.locator(".menu[open]").count(),
                *(int(bool(now[name])) for name in ("chart", "layer", "search", "step")),
            ]
        )
    assert seen == [[0] * gone + [1] * (6 - gone) for gone in range(1, 7)]


def test_undo_stays_in_the_page(browser, server):
    context = browser.new_context()
    page = context.new_page()
    page.goto("about:blank")
    page.goto(server.address)
    until(page, "() => window.__view && window.__view.ready()")
    page.keyboard.press("c")
    until(page, "() => window.__view.state().clip")
    for _ in range(4):
        page.keyboard.press("Control+z")
        page.wait_for_timeout(100)
    assert page.url.startswith("http://127.0.0.1")
    assert state(page)["clip"] is False
    context.close()


def test_a_menu_closes_when_something_else_is_pointed_at(page):
    menus = page.locator(".menu summary")
    menus.first.click()
    assert page.locator(".menu[open]").count() == 1
    page.locator("h1").click()
    assert page.locator(".menu[open]").count() == 0


@pytest.mark.parametrize("width", [390, 800, 1400])
def test_the_panel_of_a_layer_is_in_sight(page, width):
    page.set_viewport_size({"width": width, "height": 800})
    chosen(page, "#layer=conv2")
    panel = page.locator("aside.detail")
    panel.wait_for()
    box = panel.bounding_box()
    assert box["y"] >= 0
    assert box["y"] + min(box["height"], 100) <= 800
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= width + 1


def test_what_sticks_does_not_lie_under_the_bar(page):
    page.set_viewport_size({"width": 900, "height": 700})
    page.wait_for_timeout(100)
    page.evaluate("() => scrollTo(0, 600)")
    page.wait_for_timeout(100)
    bar = page.locator(".bar").bounding_box()
    assert page.locator(".side").bounding_box()["y"] >= bar["y"] + bar["height"] - 1


def long_run(folder):
    names = [f"transformer.h.{number}.self_attention.query_key_value.projection" for number in range(30)]
    with RecordWriter.create(folder, {"name": "long"}) as writer:
        writer.write_layers(Catalogue({name: layer(name, depth) for depth, name in enumerate(names)}))
        for step in range(3):
            share = quantity(
                np.sin(np.arange(30) + step) + 2, units="1", long_name="share", dims="layer", coords={"layer": names}
            )
            writer.commit(step, [Entry("probe", "share", share)])


@pytest.mark.parametrize("width", [390, 1000])
def test_long_names_are_whole_and_differ(browser, built, tmp_path, width):
    long_run(tmp_path / "long")
    with Serving(Runs([tmp_path / "long"]), built) as server:
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.goto(server.address + "#chart=probe-share-depth")
        until(page, "() => window.__view && window.__view.ready()")
        drawn(page)
        names = until(
            page,
            """() => {
              const frame = document.querySelector('svg.plane')?.getBoundingClientRect();
              const texts = [...document.querySelectorAll('svg.plane text[transform]')];
              return texts.length && texts.map(t => {
                const box = t.getBoundingClientRect();
                const inside = box.bottom <= frame.bottom + 1 && box.left >= frame.left - 1;
                return [t.textContent, inside];
              });
            }""",
        )
        assert all(inside for _, inside in names)
        assert len({name for name, _ in names}) == len(names) > 3
        page.close()


def test_a_drawing_says_what_it_shows(page, tmp_path):
    chosen(page, "#runs=first,deep-second&chart=training-loss-steps&theme=dark")
    until(page, "() => Object.keys(window.__view.state().seq).length === 2")
    until(page, "() => document.querySelector('.readout')?.textContent.includes('second run')")
    root = ElementTree.parse(saved(page, "training-loss-steps", "SVG", tmp_path / "a.svg")).getroot()
    texts = [element.text for element in root.iter(f"{SVG}text")]
    assert texts[0] == "Loss [nat]"
    assert {"first run", "second run", "step"} <= set(texts)
    ground = next(root.iter(f"{SVG}rect"))
    assert ground.get("fill") == "#15181d"
    assert [ground.get("width"), ground.get("height")] == [root.get("width"), root.get("height")]
    sizes = {element.get("font-size") for element in root.iter(f"{SVG}text")} - {None}
    assert sizes == {"12px"}


def test_numbers_of_runs_are_a_table_after_the_pictures(browser, built, tmp_path):
    for name, value in (("a", 3.0), ("b", 4.0)):
        with RecordWriter.create(tmp_path / name, {"name": name}) as writer:
            for step in range(3):
                count = quantity(value, units="1", long_name="count")
                loss = quantity(1.0 / (1 + step), units="nat", long_name="loss")
                writer.commit(step, [Entry("training", "count", count), Entry("training", "loss", loss)])
    with Serving(Runs([tmp_path]), built) as server:
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.goto(server.address + "#runs=a,b")
        until(page, "() => window.__view && window.__view.ready()")
        page.locator(".by-run").first.wait_for()
        rows = page.locator(".by-run tbody tr").all_inner_texts()
        assert [row.split() for row in rows] == [["a", "3"], ["b", "4"]]
        order = page.locator("[data-chart]").evaluate_all("all => all.map(one => one.dataset.chart)")
        assert order.index("training-loss-steps") < next(i for i, name in enumerate(order) if "count" in name)
        page.close()


def test_back_from_a_large_chart_its_card_is_in_sight(page):
    page.set_viewport_size({"width": 800, "height": 500})
    one = card(page, "training-loss")
    one.scroll_into_view_if_needed()
    one.get_by_role("button", name="Show large: Loss").click()
    until(page, "() => window.__view.state().chart === 'training-loss-steps'")
    assert 0 <= page.locator("[data-chart='training-loss-steps']").bounding_box()["y"] < 500
    page.get_by_role("button", name="Back to all charts from Loss").click()
    until(page, "() => document.querySelectorAll('[data-chart]').length > 1")
    page.wait_for_timeout(200)
    box = page.locator("[data-chart='training-loss-steps']").bounding_box()
    assert box["y"] < 500
    assert box["y"] + box["height"] > 0


def test_a_run_alone_a_step_forgotten_and_all_charts_again_take_one_click(page):
    chosen(page, "#search=nothing+is+called+so&step=3")
    page.get_by_role("button", name="Show all charts").click()
    until(page, "() => window.__view.state().search === ''")
    page.get_by_role("button", name="No step").click()
    assert state(page)["step"] is None
    before = state(page)["runs"]
    other = "second run" if page.locator(".runs li.on").inner_text().startswith("first") else "first run"
    page.get_by_role("button", name=f"Show {other} only").click()
    until(page, "before => window.__view.state().runs.join() !== before", ",".join(before))
    assert len(state(page)["runs"]) == 1


def test_findings_say_whose_they_are_and_lead_to_those_of_other_runs(page):
    chosen(page, "#runs=first,deep-second")
    until(page, "() => Object.keys(window.__view.state().seq).length === 2")
    found = page.locator(".findings")
    assert found.locator("h2").inner_text().startswith("Findings of first run")
    found.get_by_role("button", name="second run", exact=True).click()
    assert state(page)["base"] == "deep-second"
    until(page, "() => document.querySelector('.findings h2').innerText.startsWith('Findings of second run')")


def test_a_search_shows_what_it_finds_though_a_chart_is_large(page):
    chosen(page, "#chart=training-loss-steps")
    until(page, "() => document.querySelectorAll('[data-chart]').length === 1")
    page.locator("input.search").fill("share")
    until(page, "() => document.querySelector('[data-chart^=probe-share]')")
    assert page.locator("[data-chart^=training]").count() == 0


def test_a_chart_that_goes_away_under_the_pointer_lets_the_cursor_go(page):
    chosen(page, "#chart=probe-share-map")
    until(page, "() => document.querySelectorAll('[data-chart]').length === 1")
    box = page.locator(".cells canvas").bounding_box()
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 20)
    page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 20)
    assert until(page, "() => window.__view.state().cursorLayer") == "conv1"
    chosen(page, "#search=nothing+is+called+so")
    until(page, "() => document.querySelectorAll('[data-chart]').length === 0")
    assert [state(page)["cursorStep"], state(page)["cursorLayer"]] == [None, None]


def test_the_number_under_the_cursor_says_what_it_is_of(page):
    chosen(page, "#chart=training-loss-steps&step=3")
    until(page, "() => document.querySelector('.readout > b')?.innerText === '3'")
    assert page.locator(".readout > span").first.inner_text() == "step"


def test_maps_of_layers_mark_both_sides_and_boxes_tell_their_spread(browser, built, tmp_path):
    """Three layers against themselves, and a hundred units in each, whose values are 0 to 99."""
    names = ["conv1", "conv2", "fc"]
    likeness = quantity(
        np.eye(3), units="1", long_name="likeness", dims=("layer", "other"), coords={"layer": names, "other": names}
    )
    units = quantity(
        np.tile(np.arange(100.0), 3), units="1", long_name="share", dims="layer_unit",
        coords={"layer_unit": [(name, unit) for name in names for unit in range(100)]},
    )  # fmt: skip
    with RecordWriter.create(tmp_path / "run", {"name": "run"}) as writer:
        writer.write_layers(Catalogue({name: layer(name, depth) for depth, name in enumerate(names)}))
        writer.commit(0, [Entry("similarity", "likeness", likeness), Entry("units", "share", units)])
    with Serving(Runs([tmp_path]), built) as serving:
        tab = browser.new_page(viewport={"width": 1200, "height": 900})
        tab.goto(f"{serving.address}#layer=conv2")
        until(tab, "() => window.__view && window.__view.ready()")
        cells = tab.locator("[data-chart^=similarity-likeness] .cells")
        cells.scroll_into_view_if_needed()
        until(tab, "() => !document.querySelector('.cells .cursor-line')?.hidden")
        left = float(cells.locator(".cursor-row").evaluate("e => parseFloat(e.style.left)"))
        width = float(cells.locator(".cursor-row").evaluate("e => parseFloat(e.style.width)"))
        place = float(cells.locator(".cursor-line").evaluate("e => new DOMMatrix(getComputedStyle(e).transform).e"))
        assert place == pytest.approx(left + width / 2, abs=1)
        boxes = tab.locator("[data-chart^=units-share-spread] .planes")
        boxes.scroll_into_view_if_needed()
        box = boxes.bounding_box()
        tab.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 60)
        said = card(tab, "units-share-spread").locator(".readout")
        until(tab, "() => document.querySelector('[data-chart^=units-share-spread] .readout > b')")
        assert "middle half 24.75 to 74.25" in " ".join(said.inner_text().split())
        tab.close()


def test_a_run_of_one_step_offers_nothing_along_steps(browser, built, tmp_path, build):
    build[0](tmp_path / "run", "run", 1)
    with Serving(Runs([tmp_path]), built) as serving:
        tab = browser.new_page()
        tab.goto(serving.address)
        until(tab, "() => window.__view && window.__view.ready()")
        assert "finished, 1 step," in tab.locator(".runs li small").first.inner_text()
        assert tab.get_by_role("button", name="log y").count() == 1
        assert tab.get_by_role("button", name="log x").count() == 0
        assert tab.locator(".smooth").count() == 0
        tab.close()
