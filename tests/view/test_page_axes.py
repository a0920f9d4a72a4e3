"""The page in a real browser: what runs along the horizontal axis of its curves."""

from __future__ import annotations

import pytest
from browsing import card, state, until

from stratoscope.record.entry import Entry
from stratoscope.record.quantity import quantity
from stratoscope.record.writer import RecordWriter

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("view")]

TOKENS = {2: 1000, 4: 3000, 6: 9000}
"""What the loop said; before step 2, at the odd steps and after step 6 it said nothing."""


READ = "document.querySelector('[data-chart^=training-loss] .readout > b')"
CURSOR = "document.querySelector('[data-chart^=training-loss] .u-cursor-x')"


def make(folder, tokens):
    with RecordWriter.create(folder, {"name": folder.name}) as writer:
        for step in range(9):
            loss = quantity(1.0 / (1 + step), units="nat", long_name="loss")
            early = [Entry("training", "rate", quantity(0.1 + step, units="1", long_name="rate"))] if step < 2 else []
            writer.commit(step, [Entry("training", "loss", loss), *early], tokens=tokens.get(step))


@pytest.fixture
def folder(tmp_path):
    """A run that counts tokens at some of its steps, and one that counts none."""
    make(tmp_path / "runs" / "counting", TOKENS)
    make(tmp_path / "runs" / "silent", {})
    return tmp_path / "runs"


def choose(page, runs):
    page.evaluate("runs => { location.hash = '#runs=' + runs }", runs)
    until(page, "n => Object.keys(window.__view.state().seq).length === n", runs.count(",") + 1)


def axes(page):
    choice = page.get_by_label("Along the horizontal axis")
    return choice, choice.locator("option").all_inner_texts()


def plot_of(page, name):
    """The place of a curve, once it is drawn and stays."""
    plot, before = card(page, name).locator(".u-over"), None
    plot.scroll_into_view_if_needed()
    for _ in range(100):
        now = (
            plot.bounding_box(),
            plot.evaluate("e => (window.__marked ??= new WeakMap()).get(e) ?? (window.__marked.set(e, 1), 0)"),
        )
        if now == before and now[1]:
            return now[0]
        before = now
        page.wait_for_timeout(50)
    raise AssertionError(f"the curve {name} is drawn again and again")


def pointed(page, share):
    """The number and the step under a place of the loss, as a share of its width."""
    box = plot_of(page, "training-loss")
    page.mouse.move(box["x"] + share * box["width"], box["y"] + 20)
    step = until(page, "() => window.__view.state().cursorStep")
    return card(page, "training-loss").locator(".readout > b").inner_text(), step


def test_tokens_run_along_and_places_that_nobody_knows_are_left_out(page):
    choose(page, "counting")
    choice, there = axes(page)
    assert there == ["steps", "tokens", "seconds"]
    assert pointed(page, 0.999) == ("8", 8)
    choice.select_option("tokens")
    until(page, "() => location.hash.includes('x=tokens')")
    page.mouse.move(5, 500)
    until(page, "() => window.__view.state().cursorStep === null")
    # from step 2 to step 6, and in between as far as they are by their tokens: step 3 at an eighth
    assert pointed(page, 0.001) == ("1,000", 2)
    assert pointed(page, 0.25) == ("3,000", 4)
    assert pointed(page, 0.999) == ("9,000", 6)
    assert card(page, "training-loss").locator(".readout").inner_text().count("0.1429") == 1  # 1 / 7
    page.reload()
    until(page, "() => window.__view && window.__view.ready()")
    assert state(page)["x"] == "tokens"
    assert axes(page)[0].input_value() == "tokens"
    assert pointed(page, 0.999) == ("9,000", 6)


def test_the_cursor_is_hidden_where_its_step_has_no_place(page):
    choose(page, "counting&x=tokens&step=4")
    box = plot_of(page, "training-loss")
    until(page, f"() => {READ}?.innerText === '3,000'")
    assert page.evaluate(f"() => new DOMMatrix(getComputedStyle({CURSOR}).transform).e") == pytest.approx(
        0.25 * box["width"], abs=1.5
    )
    page.evaluate("() => { location.hash = location.hash.replace('step=4', 'step=8') }")
    until(page, "() => window.__view.state().cursorStep === 8")
    until(page, f"() => !{READ} && {CURSOR}.classList.contains('u-off')")


def test_a_curve_without_any_place_is_empty_and_says_nothing_wrong(page):
    """`rate` was measured at steps 0 and 1 only, and nobody knows how many tokens those had seen."""
    choose(page, "counting&x=tokens")
    box = plot_of(page, "training-rate")
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 20)
    page.mouse.down()
    page.mouse.up()
    assert state(page)["cursorStep"] is None
    page.get_by_label("Along the horizontal axis").select_option("step")
    until(page, "() => window.__view.state().x === 'step'")
    box = plot_of(page, "training-rate")
    page.mouse.move(box["x"] + 0.999 * box["width"], box["y"] + 20)
    until(page, "() => window.__view.state().cursorStep === 1")


def test_runs_share_their_axis(page):
    choose(page, "counting,silent&x=tokens")
    choice, there = axes(page)
    assert there == ["steps", "seconds"]
    assert choice.input_value() == "step"
    assert pointed(page, 0.999) == ("8", 8)
