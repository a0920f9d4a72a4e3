"""The page in a real browser: one cursor, an address that holds all, a live run, keys, exports, and nothing from elsewhere."""

from __future__ import annotations

import csv
import json
import shutil
import time
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest

from stratoscope.errors import SettingError
from stratoscope.record.entry import Entry
from stratoscope.record.quantity import quantity
from stratoscope.record.record import Record
from stratoscope.record.writer import RecordWriter
from stratoscope.view.bundle import SOURCES, BundleError, bundle
from stratoscope.view.export import export_page
from stratoscope.view.notebook import show
from stratoscope.view.runs import Runs
from stratoscope.view.serving import Serving

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("view")]
LAYERS = [*(f"conv{number}" for number in range(1, 14)), "fc"]


@pytest.fixture(scope="session")
def built():
    """The built page, or a skip."""
    try:
        return bundle()
    except BundleError as error:
        pytest.skip(str(error))


@pytest.fixture
def server(folder, built):
    with Serving(Runs([folder]), built) as serving:
        yield serving


def until(page, script, *args, seconds=15):
    """Wait until a script gives something true; the page's policy forbids the usual way, which evaluates text."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := page.evaluate(script, *args):
            return found
        time.sleep(0.05)
    raise AssertionError(f"never came true within {seconds} s: {script}; the page shows {state(page)}")


def state(page):
    return page.evaluate("() => window.__view?.state()")


def drawn(page):
    until(page, "() => document.querySelectorAll('.body canvas, .body svg').length > 0")


@pytest.fixture
def page(browser, server):
    context = browser.new_context(viewport={"width": 1400, "height": 1000}, color_scheme="light", accept_downloads=True)
    page = context.new_page()
    page.trouble, page.loaded = [], []
    page.on("console", lambda message: page.trouble.append(message.text) if message.type != "info" else None)
    page.on("pageerror", lambda error: page.trouble.append(str(error)))
    page.on("request", lambda request: page.loaded.append(request.url))
    page.goto(server.address)
    until(page, "() => window.__view && window.__view.ready()")
    drawn(page)
    yield page
    assert page.trouble == []
    own = f"127.0.0.1:{server.port}"
    assert {urlsplit(url).netloc for url in page.loaded if not url.startswith(("data:", "blob:"))} == {own}
    context.close()


def card(page, name):
    return page.locator(f"[data-chart^='{name}']").first


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
    cells = card(page, "probe-share-map").locator(".cells").bounding_box()
    width = cells["width"] - 118
    assert place == pytest.approx(110 + (at + 0.5) * width / 6, abs=2)


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
    chart = card(page, "probe-share-map")
    chart.scroll_into_view_if_needed()
    chart.locator("summary").click()
    with page.expect_download() as coming:
        chart.get_by_role("button", name="CSV").click()
    path = tmp_path / "share.csv"
    coming.value.save_as(path)
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert len(rows) == 6 * 14
    for row in rows:
        wanted = LAYERS.index(row["series"]) + 0.1 * int(row["step"]) + (1.0 if row["run"] == "deep-second" else 0.0)
        assert float(row["layer"]) == pytest.approx(wanted, rel=1e-12)
    with page.expect_download() as coming:
        chart.get_by_role("button", name="JSON").click()
    coming.value.save_as(tmp_path / "share.json")
    (part,) = json.loads((tmp_path / "share.json").read_text())
    assert part["chart"]["marks"][0]["values"]["shape"] == [14, 6]
    with page.expect_download() as coming:
        chart.get_by_role("button", name="PNG").click()
    coming.value.save_as(tmp_path / "share.png")
    from PIL import Image

    with Image.open(tmp_path / "share.png") as picture:
        assert picture.width == 2 * round(chart.locator(".body").bounding_box()["width"])
        assert len(picture.convert("RGB").getcolors(1 << 24)) > 20


def test_a_film_shows_the_steps_and_leaves_the_page_as_it_was(page, tmp_path):
    chart = card(page, "probe-share-map")
    chart.scroll_into_view_if_needed()
    chart.locator("summary").click()
    with page.expect_download() as coming:
        chart.get_by_role("button", name="Film").click()
    coming.value.save_as(tmp_path / "share.webm")
    film = (tmp_path / "share.webm").read_bytes()
    assert film[:4] == b"\x1a\x45\xdf\xa3"  # the head of Matroska, of which WebM is a part
    assert len(film) > 2000
    assert state(page)["step"] is None


def test_a_run_in_training_appears_without_reload(browser, built, tmp_path, build):
    make_run, write_step = build
    writer = make_run(tmp_path / "live", "live run", steps=3, running=True)
    with Serving(Runs([tmp_path]), built) as serving:
        page = browser.new_page()
        page.goto(serving.address)
        until(page, "() => window.__view && window.__view.ready()")
        assert page.locator("button.live").inner_text() == "live"
        write_step(writer, 3)
        until(page, "() => document.querySelector('.steps input').max === '3'")
        page.keyboard.press("p")
        until(page, "() => document.querySelector('button.live').innerText === 'paused'")
        write_step(writer, 4)
        page.wait_for_timeout(2500)
        assert page.locator(".steps input").get_attribute("max") == "3"
        page.keyboard.press("p")
        until(page, "() => document.querySelector('.steps input').max === '4'")
        make_run(tmp_path / "other", "another run")
        until(page, "() => document.querySelectorAll('.runs li label').length === 2")
        page.close()
    writer.close("finished")


def test_a_server_that_is_gone_is_told(browser, built, tmp_path, build):
    writer = build[0](tmp_path / "live", "live run", steps=3, running=True)
    with Serving(Runs([tmp_path]), built) as serving:
        page = browser.new_page()
        page.goto(serving.address)
        until(page, "() => document.querySelector('button.live')?.innerText === 'live'")
    until(page, "() => document.querySelector('button.live').innerText === 'stale'", seconds=30)
    page.close()
    writer.close("finished")


def test_runs_lie_over_each_other(page):
    page.locator(".runs li:not(.on) input").first.click()
    until(page, "() => window.__view.state().runs.length === 2")
    legend = card(page, "training-loss").locator(".readout")
    until(page, "() => document.querySelector('[data-chart^=training-loss] .readout').innerText.includes('second run')")
    assert "first run" in legend.inner_text()


def test_groups_have_headings_and_one_colour_each(browser, built, tmp_path, build):
    for number, shift in enumerate((0.0, 1.0, 1.0)):
        build[0](tmp_path / f"run{number}", f"run {number}", 3, shift=shift)
    with Serving(Runs([tmp_path]), built) as serving:
        page = browser.new_page()
        page.goto(serving.address)
        until(page, "() => window.__view && window.__view.ready()")
        page.get_by_label("Group runs by").select_option("rate")
        assert page.locator(".runs li.heading").all_inner_texts() == ["rate 0.1\n1", "rate 0.2\n2"]
        for place in range(3):
            page.locator(".runs input[type=checkbox]").nth(place).check()
        until(page, "() => window.__view.state().runs.length === 3")
        card(page, "training-loss").scroll_into_view_if_needed()
        until(
            page, "() => document.querySelector('[data-chart^=training-loss] .readout')?.innerText.includes('(2 runs)')"
        )
        keys = card(page, "training-loss").locator(".readout > span:not(.quiet)")
        assert [text.strip() for text in keys.all_inner_texts()] == ["rate 0.1", "rate 0.2 (2 runs)"]
        colours = "e => getComputedStyle(e).backgroundColor"
        swatches = [one.evaluate(colours) for one in page.locator(".runs .swatch").all()]
        assert swatches[0] != swatches[1] == swatches[2]
        assert [one.evaluate(colours) for one in keys.locator("i").all()] == swatches[:2]
        page.close()


def test_a_list_of_250_runs_draws_those_that_are_seen(browser, built, tmp_path, build):
    build[0](tmp_path / "run000", "a run", 2)
    for number in range(1, 250):
        shutil.copytree(tmp_path / "run000", tmp_path / f"run{number:03d}")
    with Serving(Runs([tmp_path]), built) as serving:
        page = browser.new_page()
        page.goto(serving.address)
        until(page, "() => window.__view && window.__view.ready()")
        assert "of 250" in page.locator(".runs h2").inner_text()
        names = page.locator(".runs li label")
        assert 6 <= names.count() <= 30
        page.locator(".runs ul").evaluate("e => e.scrollTo(0, e.scrollHeight)")
        until(page, "() => document.querySelector('.runs li:nth-last-child(2) label')?.title === 'run249'")
        assert 6 <= names.count() <= 30
        page.get_by_label("Filter runs").fill("run123")
        until(page, "() => document.querySelectorAll('.runs li label').length === 1")
        page.close()


def test_of_1000_metrics_those_near_the_screen_are_asked_for_and_drawn(browser, built, tmp_path):
    with RecordWriter.create(tmp_path / "run", {"name": "many"}) as writer:
        for step in range(2):
            value = quantity(float(step), units="1", long_name="metric")
            writer.commit(step, [Entry(f"group{m // 20}", f"metric{m}", value) for m in range(1000)])
    drawn_ones = "() => document.querySelectorAll('.body canvas').length"
    with Serving(Runs([tmp_path]), built) as serving:
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        asked = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(serving.address)
        until(page, "() => window.__view && window.__view.ready()")
        until(page, drawn_ones)
        assert page.locator(".card").count() == 1000
        assert page.evaluate(drawn_ones) <= 30
        page.evaluate("() => scrollTo(0, document.body.scrollHeight)")
        last = "() => document.querySelector('[data-chart^=group49-metric999] canvas')"
        until(page, f"() => Boolean(({last})())")
        until(page, f"() => ({drawn_ones})() <= 30")
        wanted = [name for url in asked for name in parse_qs(urlsplit(url).query).get("id", [])]
        assert 0 < len(wanted) < 150
        assert len(set(wanted)) == len(wanted)
        page.close()


def test_what_takes_long_says_so_and_can_be_cancelled(browser, server):
    page = browser.new_page()
    page.route("**/charts?**", lambda route: None)
    page.goto(server.address)
    until(page, "() => document.querySelector('.card .waiting button')")
    waiting = page.locator(".card .waiting").first
    assert waiting.inner_text().startswith("Still loading")
    waiting.get_by_role("button", name="Cancel").click()
    until(page, "() => document.querySelector('.card .trouble')")
    page.unroute("**/charts?**")
    page.locator(".card .trouble button").first.click()
    drawn(page)
    page.close()


def test_a_card_that_leaves_the_screen_is_no_longer_asked_for(browser, server):
    page = browser.new_page(viewport={"width": 1000, "height": 500})
    failed = []
    page.route("**/charts?**", lambda route: None)
    page.on("requestfailed", lambda request: failed.append(request.url))
    page.goto(server.address)
    until(page, "() => document.querySelector('.card .waiting')")
    page.locator("input.search").fill("no chart has this name")
    until(page, "() => document.querySelectorAll('.card').length === 0")
    page.wait_for_timeout(200)
    assert [url for url in failed if "/charts?" in url]
    page.close()


def test_a_run_that_vanishes_stays_on_the_screen_and_is_told(page, folder):
    shutil.rmtree(folder / "first")
    shutil.rmtree(folder / "deep")
    until(page, "() => document.querySelector('.runs').innerText.includes('no longer there')")
    assert page.locator("tr", has_text="conv2").count() > 0
    assert state(page)["runs"] != []


@pytest.mark.parametrize("layers", [False, True])
def test_runs_with_nothing_to_draw(browser, built, tmp_path, layers):
    with RecordWriter.create(tmp_path / "run", {"name": "名前"}) as writer:
        if layers:
            nothing = quantity(
                np.full(2, np.nan), units="1", long_name="доля", dims="layer", coords={"layer": ["слой", "層"]}
            )
            loss = quantity(float("nan"), units="nat", long_name="loss")
            for step in range(3):
                writer.commit(step, [Entry("probe", "share", nothing), Entry("training", "loss", loss)])
    with Serving(Runs([tmp_path]), built) as serving:
        page = browser.new_page()
        trouble = []
        page.on("console", lambda message: trouble.append(message.text))
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.goto(f"{serving.address}#log=1&clip=1&smooth=0.5")
        until(page, "() => window.__view && window.__view.ready()")
        if layers:
            drawn(page)
            page.keyboard.press("ArrowRight")
        page.wait_for_timeout(300)
        assert trouble == []
        page.close()


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


def test_one_file_opens_from_disk(browser, built, folder, tmp_path):
    path = export_page(Runs([folder]), built, tmp_path / "out" / "page.html")
    page = browser.new_page()
    trouble, loaded = [], []
    page.on("console", lambda message: trouble.append(message.text))
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("request", lambda request: loaded.append(request.url))
    page.goto(path.as_uri())
    until(page, "() => window.__view && window.__view.ready()")
    drawn(page)
    assert page.locator(".runs li label").count() == 2
    assert trouble == []
    assert [url for url in loaded if not url.startswith(("file:", "data:", "blob:"))] == []
    page.close()


@pytest.mark.parametrize("width", [360, 800, 1400])
def test_the_page_is_never_wider_than_the_window(page, width):
    page.set_viewport_size({"width": width, "height": 800})
    page.wait_for_timeout(200)
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width


def test_a_notebook_shows_it_in_a_frame(browser, folder, built, tmp_path):
    html = show([Record.open(folder / "first"), folder / "deep"], height=650)._repr_html_()
    path = tmp_path / "notebook.html"
    path.write_text(f"<!doctype html><body>{html}</body>", encoding="utf-8")
    page = browser.new_page()
    trouble = []
    page.on("console", lambda message: trouble.append(message.text))
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.goto(path.as_uri())
    frame = page.frames[1]
    until(frame, "() => window.__view && window.__view.ready()")
    until(frame, "() => document.querySelectorAll('.runs li label').length === 2")
    frame.evaluate("() => document.querySelector('tbody tr:not(.spacer)').click()")
    until(frame, "() => window.__view.state().layer === 'conv1.weight'")
    assert page.locator("iframe").bounding_box()["height"] == pytest.approx(650, abs=3)
    assert trouble == []
    page.close()


def test_a_frame_of_no_height_is_refused(folder):
    with pytest.raises(SettingError, match="from 200 to 4000"):
        show(folder, height=10)
