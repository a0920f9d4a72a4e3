"""The page in a real browser: what its script does, and that it loads and prints as it should."""

import csv

import numpy as np
import pytest

from stratoscope.findings import Finding, Outcome
from stratoscope.record import Entry
from stratoscope.record.quantity import quantity
from stratoscope.report.html import write_html

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def path(whole, tmp_path_factory):
    return write_html(whole, tmp_path_factory.mktemp("page") / "report.html")


@pytest.fixture
def page(browser, path):
    page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme="light")
    page.trouble, page.loaded = [], []
    page.on("console", lambda message: page.trouble.append(message.text))
    page.on("pageerror", lambda error: page.trouble.append(str(error)))
    page.on("request", lambda request: page.loaded.append(request.url))
    page.goto(path.as_uri())
    yield page
    assert page.trouble == []
    assert [url for url in page.loaded if not url.startswith(("file:", "data:", "blob:"))] == []
    page.close()


def column(page, table, at):
    return page.evaluate(
        "([t, at]) => Array.from(document.querySelectorAll('table.layers')[t].tBodies[0].rows)"
        ".map(row => row.cells[at].textContent.trim())",
        [table, at],
    )


@pytest.mark.parametrize("width", [380, 768, 1280])
def test_the_page_is_never_wider_than_the_window(page, width):
    page.set_viewport_size({"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("width", [380, 1280])
def test_phases_and_what_repeats_fit_the_window_too(browser, synthetic, tmp_path, width):
    names, theories = (
        [f"encoder.layers.{n}.attention.output.dense" for n in range(6)],
        ["information", "reconstruction"],
    )
    where = {"dims": ("layer", "theory"), "coords": {"layer": names, "theory": theories}, "units": "1"}
    rounds = [
        (step, [Entry("timeline", "phase", quantity(np.full((6, 2), step > 64, float), long_name="phase", chart="timeline",
                flag_values=[0, 1], flag_meanings=["fitting", "compression"], letters=["F", "C"], **where))])
        for step in (0, 64, 128, 1_000_000)
    ]  # fmt: skip
    for name, factor in (("turn", 1.0), ("turn_low", 0.9), ("turn_high", 1.1)):
        turns = np.array([[128.0, 500_000.0]] * 6) * factor
        rounds[-1][1].append(Entry("timeline", name, quantity(turns, long_name=name, chart="none", **where)))
    found = [
        Finding("UN001", "units", name, 9, Outcome.ISSUE, f"{name}: dead", "act", {"share": 0.9, "limit": 0.5}, "", split)
        for name in names for split in ("train", "test")
    ]  # fmt: skip
    path = write_html(synthetic.record_of(rounds).with_findings(found), tmp_path / "page.html")
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.goto(path.as_uri())
    assert page.locator("article.finding").count() == 1
    assert not page.get_by_text(f"{names[1]}: dead").first.is_visible()
    page.locator("details.rest summary").click()
    assert page.locator("details.rest li").count() == 11
    assert page.get_by_text(f"{names[1]}: dead").first.is_visible()
    assert page.locator("#phases svg").count() == 1
    assert "450,000 to 550,000" in page.locator("#phases table").inner_text()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()


def test_sorting_goes_down_up_and_back(page):
    head = page.locator("table.layers").nth(1).locator("thead button", has_text="dead share").first
    at = head.evaluate("node => node.parentNode.cellIndex")
    before = column(page, 1, at)
    numbers = [float(text) for text in before]
    head.click()
    assert [float(text) for text in column(page, 1, at)] == sorted(numbers, reverse=True)
    assert head.evaluate("node => node.parentNode.getAttribute('aria-sort')") == "descending"
    head.click()
    assert [float(text) for text in column(page, 1, at)] == sorted(numbers)
    head.click()
    assert column(page, 1, at) == before


def test_rows_without_a_number_stay_last(page):
    head = page.locator("table.layers").nth(0).locator("thead button", has_text="stable rank").first
    at = head.evaluate("node => node.parentNode.cellIndex")
    for _ in range(2):
        head.click()
        texts = column(page, 0, at)
        assert texts[:5] == [text for text in texts if text]


def test_filtering_by_keyboard(page):
    page.keyboard.press("/")
    page.keyboard.type("relu 2")
    assert page.locator("#count").inner_text() == "1 of 14 rows"
    assert page.locator("table.layers tbody tr:visible").count() == 1
    page.keyboard.press("Escape")
    assert page.locator("table.layers tbody tr:visible").count() == 14


def test_the_theme_is_switched_and_kept(page):
    def ground():
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    light = ground()
    page.click("#theme")
    page.click("#theme")
    assert page.locator("#theme").inner_text() == "Theme: dark"
    dark = ground()
    assert dark != light
    page.reload()
    assert ground() == dark
    page.emulate_media(media="print")
    assert ground() == "rgb(255, 255, 255)"


def test_one_cursor_for_all_charts_reads_the_value(page, whole):
    svg = page.locator("#performance-accuracy-steps svg")
    svg.scroll_into_view_if_needed()
    box = svg.bounding_box()
    plot = svg.locator(".ss-plot").get_attribute("data-x").split()
    scale = box["width"] / 400
    page.mouse.move(box["x"] + float(plot[1]) * scale - 1, box["y"] + 20)
    text = page.locator(".hover").inner_text()
    accuracy = float(whole["performance"]["accuracy"].isel(step=-1, split=0))
    assert "step 200" in text
    assert float(text.partition("≈ ")[2].split()[0]) == pytest.approx(accuracy, abs=0.01)
    shown = page.evaluate(
        "[...document.querySelectorAll('.cursor')].filter(c => c.getAttribute('visibility') === 'visible').length"
    )
    assert shown == page.locator(".ss-plot").count()
    page.mouse.move(5, 5)
    assert not page.locator(".hover").is_visible()


def test_the_table_is_downloaded_with_every_number(page, whole, tmp_path):
    from stratoscope.report.rows import rows_of

    with page.expect_download() as download:
        page.click("#csv")
    download.value.save_as(tmp_path / "layers.csv")
    with (tmp_path / "layers.csv").open(encoding="utf-8", newline="") as file:
        read = list(csv.DictReader(file))
    rows = rows_of(whole)
    assert [row["name"] for row in read] == [row["name"] for row in rows]
    assert float(read[2]["dead_share"]) == pytest.approx(rows[2]["dead_share"], rel=1e-4)
    assert read[0]["shape"] == "32x16"


def test_printing_shows_what_is_folded(page):
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details[open]").count() == 0


@pytest.mark.parametrize("theme", [None, "dark"])
def test_paper_is_white_whatever_the_theme(page, theme):
    page.emulate_media(media="print", color_scheme="dark")
    page.evaluate("theme => { if (theme) document.documentElement.dataset.theme = theme; }", theme)
    style = "node => [getComputedStyle(node).backgroundColor, getComputedStyle(node).color]"
    assert page.locator(".finding").first.evaluate(style) == ["rgb(255, 255, 255)", "rgb(0, 0, 0)"]
    dark = page.locator(".ss-series").first.evaluate("node => getComputedStyle(node).color")
    page.emulate_media(media="screen", color_scheme="light")
    page.evaluate("document.documentElement.dataset.theme = 'light'")
    assert page.locator(".ss-series").first.evaluate("node => getComputedStyle(node).color") == dark


def test_everything_can_be_reached_by_keyboard(page):
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    reached = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
    assert {"theme", "filter", "csv", "SUMMARY", "A", "BUTTON"} <= reached


def test_the_page_works_without_scripts(browser, path):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(path.as_uri())
    assert page.locator("table.layers tbody tr").first.is_visible()
    assert not page.locator("#theme").is_visible()
    page.locator("summary").first.click()
    assert page.locator("details[open]").count() == 1
    context.close()
