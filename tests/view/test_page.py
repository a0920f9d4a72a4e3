"""The page in a real browser: one cursor, an address that holds all, keys, exports, and nothing from elsewhere."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from browsing import card, drawn, saved, state, until

from stratoscope.view.bundle import SOURCES

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("view")]
LAYERS = [*(f"conv{number}" for number in range(1, 14)), "fc"]


def test_the_token_leaves_the_address(page, server):
    assert server.token not in page.url
    assert server.token not in page.evaluate("() => document.cookie")


def test_one_cursor_moves_in_every_chart(page):
    map_of = card(page, "probe-share-map").locator(".cells")
    map_of.scroll_into_view_if_needed()
    box = map_of.locator("canvas").bounding_box()
    page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 10)
    at = until(page, "() => window.__view.state().cursorStep")
    assert 0 < at < 5
    shown = until(
        page,
        "() => { const x = document.querySelector('.uplot .u-cursor-x');"
        " return x && !x.classList.contains('u-off') && /translate\\((\\d+)/.exec(x.style.transform)?.[1]; }",
    )
    assert int(shown) > 0
    assert state(page)["cursorLayer"] == "conv1"
    assert page.locator("tr.hot").first.inner_text().startswith("conv1")
    assert page.locator(".steps output").inner_text() == f"step {at}"
    page.mouse.move(5, 500)
    until(page, "() => window.__view.state().cursorStep === null")


def test_the_cursor_of_a_curve_moves_the_map(page):
    plot = card(page, "training-loss").locator(".u-over")
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 20)
    at = until(page, "() => window.__view.state().cursorStep")
    line = card(page, "probe-share-map").locator(".cursor-line")
    assert line.is_visible()
    place = float(line.evaluate("e => new DOMMatrix(getComputedStyle(e).transform).e"))
    map_of = card(page, "probe-share-map")
    cells = map_of.locator(".cells").bounding_box()
    left = float(map_of.locator(".cursor-row").evaluate("e => parseFloat(e.style.left)"))
    width = cells["width"] - left - 8
    assert place == pytest.approx(left + (at + 0.5) * width / 6, abs=2)


def test_the_address_holds_what_is_shown(page):
    page.locator("tr", has_text="conv2").first.click()
    page.keyboard.press("d")
    page.keyboard.press("l")
    page.locator("input.search").fill("share")
    page.evaluate("() => document.activeElement.blur()")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    before = state(page)
    until(page, "() => location.hash.includes('step=1')")
    assert {
        "layer": "conv2.weight",
        "theme": "dark",
        "log": True,
        "search": "share",
        "step": 1,
    }.items() <= before.items()
    page.reload()
    until(page, "() => window.__view && window.__view.ready()")
    assert {k: v for k, v in state(page).items() if k != "cursorLayer"} == {
        k: v for k, v in before.items() if k != "cursorLayer"
    }
    assert page.locator("aside.detail h2").first.inner_text() == "conv2.weight"


def test_back_undoes(page):
    page.locator("tr", has_text="conv2").first.click()
    until(page, "() => window.__view.state().layer === 'conv2.weight'")
    page.keyboard.press("Control+z")
    until(page, "() => window.__view.state().layer === null")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_dark_and_light_follow_the_system_and_the_key(page, scheme):
    page.emulate_media(color_scheme=scheme)
    ground = page.evaluate("() => getComputedStyle(document.documentElement).backgroundColor")
    bright = sum(int(part) for part in ground[4:-1].split(",")) > 380
    assert bright == (scheme == "light")
    page.keyboard.press("d")
    until(page, "() => document.documentElement.dataset.theme === 'dark'")
    ground = page.evaluate("() => getComputedStyle(document.documentElement).backgroundColor")
    assert sum(int(part) for part in ground[4:-1].split(",")) < 380


def test_it_can_be_walked_by_keys_alone(page):
    page.keyboard.press("/")
    assert page.evaluate("() => document.activeElement.classList.contains('search')")
    page.keyboard.type("loss")
    assert state(page)["search"] == "loss"
    page.keyboard.press("Escape")
    until(page, "() => window.__view.state().search === ''")
    page.keyboard.press("?")
    assert page.locator("dialog.help").is_visible()
    page.keyboard.press("Escape")
    assert not page.locator("dialog.help").is_visible()
    page.keyboard.press("]")
    page.keyboard.press("]")
    until(page, "() => window.__view.state().layer === 'conv2'")
    page.keyboard.press("[")
    until(page, "() => window.__view.state().layer === 'conv1'")
    page.keyboard.press("Home")
    until(page, "() => window.__view.state().step === 0")
    page.keyboard.press("End")
    until(page, "() => window.__view.state().step === 5")
    page.locator(".layers .scroll").focus()
    page.keyboard.press("End")
    until(page, "() => window.__view.state().layer === 'fc.weight'")
    page.keyboard.press("ArrowUp")
    until(page, "() => window.__view.state().layer !== 'fc.weight'")


def test_every_control_is_reached_by_tab(page):
    seen = set()
    page.evaluate("() => document.body.focus()")
    for _ in range(40):
        page.keyboard.press("Tab")
        seen.add(page.evaluate("() => document.activeElement.tagName + ' ' + (document.activeElement.type || '')"))
    assert {"INPUT search", "INPUT range", "BUTTON submit", "INPUT checkbox"} <= seen


def test_exports_give_the_numbers_that_are_shown(page, tmp_path):
    name = "probe-share-map"
    rows = list(csv.DictReader(saved(page, name, "CSV", tmp_path / "share.csv").read_text().splitlines()))
    assert len(rows) == 6 * 14
    for row in rows:
        wanted = LAYERS.index(row["series"]) + 0.1 * int(row["step"]) + (1.0 if row["run"] == "deep-second" else 0.0)
        assert float(row["layer"]) == pytest.approx(wanted, rel=1e-12)
    (part,) = json.loads(saved(page, name, "JSON", tmp_path / "share.json").read_text())
    assert part["chart"]["marks"][0]["values"]["shape"] == [14, 6]
    saved(page, name, "PNG", tmp_path / "share.png")
    from PIL import Image

    with Image.open(tmp_path / "share.png") as picture:
        assert picture.width == 2 * round(card(page, name).locator(".body").bounding_box()["width"])
        assert len(picture.convert("RGB").getcolors(1 << 24)) > 20


def test_a_film_shows_the_steps_and_leaves_the_page_as_it_was(page, tmp_path):
    film = saved(page, "probe-share-map", "Film", tmp_path / "share.webm").read_bytes()
    assert film[:4] == b"\x1a\x45\xdf\xa3"  # the head of Matroska, of which WebM is a part
    assert len(film) > 2000
    assert state(page)["step"] is None


def test_a_link_on_another_site_leads_in(browser, server):
    page = browser.new_page()
    link = server.address
    page.route(
        "http://elsewhere.test/", lambda route: route.fulfill(body=f"<a href='{link}'>in</a>", content_type="text/html")
    )
    page.goto("http://elsewhere.test/")
    page.locator("a").click()
    page.locator(".card").first.wait_for()  # what evaluates would be cut off when the page is loaded once more
    assert page.url.startswith(f"http://127.0.0.1:{server.port}/")
    page.close()


def test_names_from_a_record_are_text(page):
    said = page.locator(".findings li").first
    assert "conv2 says <b>nothing</b>" in said.inner_text()
    assert said.locator("summary b").count() == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    "shown", ["", "&layer=conv2.weight&instrument=probe&step=2&log=1", "&group=rate&chart=training-loss-steps"]
)
def test_axe_finds_nothing_serious(page, scheme, shown):
    script = SOURCES / "node_modules" / "axe-core" / "axe.min.js"
    if not script.is_file():
        pytest.skip("axe-core is not installed in web/")
    page.emulate_media(color_scheme=scheme)
    page.evaluate("hash => { location.hash = hash }", f"runs=first,deep-second{shown}")
    until(page, "() => window.__view.state().runs.length === 2")
    drawn(page)
    assert page.locator(".charts.one").count() == ("chart=" in shown)
    if shown:
        page.keyboard.press("?")
    page.evaluate(script.read_text(encoding="utf-8"))
    found = page.evaluate("async () => (await axe.run()).violations.map(v => [v.impact, v.id, v.nodes[0].html])")
    assert [one for one in found if one[0] in ("serious", "critical")] == []


@pytest.mark.parametrize("width", [360, 800, 1400])
def test_the_page_is_never_wider_than_the_window(page, width):
    page.set_viewport_size({"width": width, "height": 800})
    page.wait_for_timeout(200)
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width


def test_a_layer_shows_the_course_of_its_numbers(page):
    """`share` of conv2 is 1 and rises by 0.1 a step, from step 0 to step 5."""
    page.evaluate("() => { location.hash += '&layer=conv2.weight&instrument=probe' }")
    course = page.locator("aside.detail svg.course").first
    course.wait_for()
    places = [
        float(part) for part in course.locator("path").get_attribute("d").replace("M", " ").replace("L", " ").split()
    ]
    heights = np.array(places[1::2])
    assert len(heights) == 6
    np.testing.assert_allclose(np.diff(heights), np.diff(heights)[0], atol=0.11)
    assert heights[-1] < heights[0] - 10
    number = "() => document.querySelector('aside.detail dd').innerText.trim()"
    assert page.evaluate(number) == "1.5"
    box = course.bounding_box()
    page.mouse.click(box["x"] + 0.42 * box["width"], box["y"] + 10)
    until(page, "() => window.__view.state().step === 2")
    until(page, f"() => ({number})() === '1.2'")
    assert float(course.locator("circle").get_attribute("cy")) == pytest.approx(heights[2], abs=0.1)


def test_a_layer_is_marked_where_its_params_stand(page):
    """The map has the layer conv2, the table its weight."""
    page.locator(".layers tbody tr", has_text="conv2.weight").first.hover()
    row = card(page, "probe-share-map").locator(".cursor-row")
    until(page, "() => !document.querySelector('[data-chart^=probe-share-map] .cursor-row').hidden")
    height = card(page, "probe-share-map").locator(".cells .cursor-line").evaluate("e => parseFloat(e.style.height)")
    place = float(row.evaluate("e => new DOMMatrix(getComputedStyle(e).transform).f"))
    assert place == pytest.approx(height / 14, abs=1)
