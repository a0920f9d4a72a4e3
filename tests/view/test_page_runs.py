"""The page of several runs, of many, of one in training, of none that can be read."""

from __future__ import annotations

import shutil
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from browsing import card, drawn, state, until

from stratoscope.record.entry import Entry
from stratoscope.record.quantity import quantity
from stratoscope.record.writer import RecordWriter
from stratoscope.view.runs import Runs
from stratoscope.view.serving import Serving

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("view")]


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


def test_a_run_may_be_called_like_what_every_object_has(browser, built, tmp_path, build):
    """`constructor` is a word that an empty object of JavaScript answers to."""
    build[0](tmp_path / "constructor", "a run", 3)
    build[0](tmp_path / "other", "another run", 3)
    with Serving(Runs([tmp_path]), built) as serving:
        page = browser.new_page()
        trouble = []
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.goto(f"{serving.address}#runs=constructor")
        until(page, "() => window.__view && window.__view.ready()")
        drawn(page)
        assert state(page)["runs"] == ["constructor"]
        assert trouble == []
        page.close()


def test_a_page_that_nobody_sees_follows_nothing(browser, built, tmp_path, build):
    """A browser gives a host six connections, and a stream holds one: a seventh tab would wait for ever."""
    make_run, write_step = build
    writer = make_run(tmp_path / "live", "live run", steps=3, running=True)
    hide = "hidden => { Object.defineProperty(document, 'hidden', { value: hidden, configurable: true }); document.dispatchEvent(new Event('visibilitychange')); }"
    with Serving(Runs([tmp_path]), built) as serving:
        page = browser.new_page()
        page.goto(serving.address)
        until(page, "() => document.querySelector('button.live')?.innerText === 'live'")
        page.evaluate(hide, True)
        write_step(writer, 3)
        page.wait_for_timeout(2500)
        assert page.locator(".steps input").get_attribute("max") == "2"
        page.evaluate(hide, False)
        until(page, "() => document.querySelector('.steps input').max === '3'")
        page.close()
    writer.close("finished")
