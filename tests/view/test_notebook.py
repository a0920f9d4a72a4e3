"""The page in a notebook: what a saved one keeps, what is selected in it, and who hears that."""

from __future__ import annotations

import gc
import json
import re
import sys
import weakref
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from browsing import state, until
from hypothesis import given, settings
from hypothesis import strategies as st

from stratoscope.errors import SettingError, StratoscopeError
from stratoscope.record.record import Record
from stratoscope.view.notebook import SCRIPT, Page, show
from stratoscope.view.selection import (
    ALONG,
    MOST_RUNS,
    ORDERS,
    ROWS,
    THEMES,
    Cursor,
    Selection,
    read_selection,
    write_selection,
)

text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
lists = st.lists(text.filter(lambda one: "," not in one), unique=True, max_size=8).map(tuple)
maybe = st.none() | text
ends = st.floats(-1e9, 1e9).map(lambda end: end + 0.0)  # no zero below zero
ranges = st.tuples(ends, ends).filter(lambda two: two[0] != two[1]).map(sorted).map(tuple)
selections = st.builds(
    Selection, lists, maybe, maybe, maybe, st.none() | st.integers(0, 10**15 - 1), maybe, maybe, st.just("") | text,
    st.floats(0, 1, exclude_max=True), st.sampled_from(ALONG), st.booleans(), st.booleans(), lists,
    st.sampled_from(THEMES), st.booleans(), maybe, st.just("") | text, st.sampled_from(ORDERS), maybe,
    st.sampled_from(ROWS), st.booleans(),
    st.none() | ranges, st.dictionaries(text, ranges, max_size=3),
)  # fmt: skip


@given(selections)
@settings(deadline=None, max_examples=25)
def test_a_selection_comes_back_from_its_text(selection):
    assert read_selection(write_selection(selection)) == selection
    assert read_selection("#" + write_selection(selection)) == selection


@given(st.text(max_size=60))
@settings(deadline=None, max_examples=25)
def test_any_text_is_a_selection(text):
    selection = read_selection(text)
    assert read_selection(write_selection(selection)) == selection


@pytest.mark.parametrize(
    "nonsense",
    ["", "#", "step=-1", "step=1e3", "step=\u0661", f"step={'9' * 5000}", "smooth=1", "smooth=-0.1", "smooth=nan", "smooth=0_1",
     "x=hours", "theme=pink", "live=yes", "clip=true", "runs=,,", "layer=", "&&=&", "layer=&layer=conv1", "Layer=conv1", "order=size",
     "within=5..5", "within=7..5", "within=0..Infinity", "within=-1e308..1e308", "within=..5", "within=1..2..3", "within=0x1..5",
     "zoom=a", "zoom=a:1", "zoom=a:2..1", "logx=yes"],
)  # fmt: skip
def test_nonsense_is_passed_over(nonsense):
    assert read_selection(nonsense) == Selection()


def test_lists_hold_each_name_once_and_eight_runs_at_most():
    assert read_selection("runs=a,b,a&logs=x,x").runs == ("a", "b")
    assert read_selection("runs=" + ",".join("abcdefghijk")).runs == tuple("abcdefgh")


def test_python_and_the_page_know_the_same_choices():
    sources = Path(__file__).parents[2] / "web" / "src"
    if not sources.is_dir():
        pytest.skip("the page's sources are in a checkout only")
    types, state = ((sources / name).read_text(encoding="utf-8") for name in ("types.ts", "state.ts"))
    along = re.search(r"type Along = ([^;]+);", types)
    themes = re.search(r"theme: ((?:\"\w+\"(?: \| )?)+);", state)
    assert (tuple(re.findall(r'"(\w+)"', along[1])), tuple(re.findall(r'"(\w+)"', themes[1]))) == (ALONG, THEMES)
    orders = re.search(r"type Order = ([^;]+);", state)
    rows = re.search(r"type Rows = ([^;]+);", state)
    assert (tuple(re.findall(r'"(\w+)"', orders[1])), tuple(re.findall(r'"(\w+)"', rows[1]))) == (ORDERS, ROWS)
    assert f"MOST_RUNS = {MOST_RUNS};" in state


def test_a_change_leaves_the_rest():
    selection = Selection(runs=("a",), layer="conv1", step=3)
    assert selection.changed(step=np.int64(7), smooth=np.float32(0.5)) == Selection(
        ("a",), None, None, "conv1", 7, smooth=0.5
    )
    assert selection.changed(layer=None, step=None, runs="b", search=None) == Selection(("b",))
    assert repr(selection) == "Selection(runs=('a',), layer='conv1', step=3)"


@pytest.mark.parametrize(
    ("changes", "says"),
    [({"layers": "conv1"}, "no 'layers' to select; there are runs, base"), ({"step": -1}, "whole number from 0"),
     ({"step": True}, "whole number"), ({"step": 1.5}, "whole number"), ({"step": "3"}, "whole number"),
     ({"layer": 3}, "must be a text"), ({"smooth": 1}, "less than 1"), ({"smooth": float("nan")}, "less than 1"),
     ({"x": "hours"}, "one of step, epoch, tokens, seconds"), ({"theme": "pink"}, "one of auto, light, dark"),
     ({"runs": ["a,b"]}, "without commas"), ({"runs": [""]}, "without commas"), ({"logs": [3]}, "without commas"),
     ({"runs": list("abcdefghi")}, "8 runs at most, and 9"), ({"order": "size"}, "one of started, name"),
     ({"within": (3,)}, "two finite numbers"), ({"within": 3}, "two finite numbers"), ({"within": "12"}, "two finite numbers"),
     ({"within": (5, 3)}, "smaller one first"), ({"zooms": {"a": (0, float("inf"))}}, "zooms\\['a'\\].*finite")],
)  # fmt: skip
def test_what_cannot_be_selected_is_said(changes, says):
    with pytest.raises(SettingError, match=says):
        Selection().changed(**changes)


def test_a_frame_of_no_height_is_refused(folder):
    with pytest.raises(SettingError, match="from 200 to 4000"):
        show(folder, height=10)


# -- with and without the library of widgets -----------------------------------------------------------------------------


@pytest.fixture
def displayed(monkeypatch):
    """What a cell was given to show, each with what replaced it."""
    display = pytest.importorskip("IPython.display", reason="IPython is not installed")
    outputs = []

    class Handle:
        def __init__(self, output):
            self.output = output

        def update(self, data, raw):
            assert raw
            self.output.append(data)

    def show_it(data, raw, metadata=None, display_id=None):
        assert raw
        outputs.append([data])
        return Handle(outputs[-1]) if display_id else None

    monkeypatch.setattr(display, "display", show_it)
    return outputs


def test_without_the_library_there_is_the_page_and_a_sentence(monkeypatch, displayed):
    monkeypatch.setitem(sys.modules, "anywidget", None)
    page = Page("<p>page</p>", 300, "Stratoscope: mlp")
    page._ipython_display_()
    assert displayed == [[page._repr_mimebundle_()]]
    assert "&lt;p&gt;page&lt;/p&gt;" in displayed[0][0]["text/html"]
    for ask in (
        lambda: page.selection,
        lambda: page.cursor,
        lambda: page.select(step=1),
        lambda: page.on_select(print),
    ):
        with pytest.raises(
            StratoscopeError, match=r"needs anywidget. Install it with: pip install 'stratoscope\[notebook\]'"
        ):
            ask()
    page.close()


def test_with_it_the_page_is_kept_once_and_the_widget_not_at_all(displayed):
    pytest.importorskip("anywidget", reason="anywidget is not installed")
    page = Page("<p>a long page</p>", 300, "Stratoscope: mlp")
    page._ipython_display_()
    (kept,), widget = displayed
    assert kept == page._repr_mimebundle_()
    assert kept["text/plain"] == repr(page) == "Stratoscope: mlp"
    link = page._linked()
    assert widget[0]["application/vnd.jupyter.widget-view+json"]["model_id"] == link.model_id
    assert "a long page" not in json.dumps([widget, link.get_state()], default=str)
    # a front end that shows no widgets, or has lost this one, shows nothing for it
    assert widget[0]["text/html"] == ""
    assert "text/plain" not in widget[0]
    link._handle_custom_msg({"seen": True}, [])
    assert widget[1:] == [{"text/html": ""}]


def test_the_selection_is_read_set_and_heard():
    pytest.importorskip("anywidget", reason="anywidget is not installed")
    page, other, heard = Page("", 300), Page("", 300), []
    assert (page.selection, page.cursor) == (Selection(), Cursor())
    stop = page.on_select(heard.append)
    page.select(layer="conv 1", step=100)
    page._linked().set_state({"state": "layer=fc&step=100", "cursor": {"step": 50, "layer": None}})
    assert page.selection == Selection(layer="fc", step=100)
    assert page.cursor == Cursor(50, None)
    page.select(step=100)
    stop()
    page.select(step=None)
    assert heard == [Selection(layer="conv 1", step=100), Selection(layer="fc", step=100)]
    assert other.selection == Selection()
    # shown again, it is as it was left
    assert '#layer=fc"' in page._repr_html_()
    page._linked().set_state({"cursor": {"step": "<b>", "layer": 7}})
    assert page.cursor == Cursor()
    link = page._linked()
    page.close()
    assert link.comm is None
    assert page.selection == Selection()


def test_nothing_is_left_of_a_page_that_nobody_has(displayed):
    pytest.importorskip("anywidget", reason="anywidget is not installed")
    page = Page("<p>page</p>", 300)
    page._ipython_display_()
    gone, link = weakref.ref(page), page._linked()
    del page
    gc.collect()
    assert gone() is None
    assert link.comm is None
    # it may have gone before the notebook came to its widget
    assert displayed[1][1:] == [{"text/html": ""}]


def test_marimo_gets_page_and_widget_in_one(monkeypatch):
    pytest.importorskip("anywidget", reason="anywidget is not installed")
    stand_in = SimpleNamespace(Html=lambda html: ("html", html), vstack=lambda items, gap: (gap, *items))
    monkeypatch.setitem(sys.modules, "marimo", stand_in)
    page = Page("<p>page</p>", 300)
    assert page._display_() == (0, ("html", page._repr_html_()), page._linked())
    page.close()
    monkeypatch.setitem(sys.modules, "anywidget", None)
    assert page._display_() == ("html", page._repr_html_())


# -- in a browser ---------------------------------------------------------------------------------------------------------

MODEL = """
class Model {
  constructor(frame) { this.values = { frame, state: "", cursor: {} }; this.callbacks = []; this.saved = 0; this.sent = []; }
  get(name) { return this.values[name]; }
  set(name, value) {
    if (this.values[name] === value) return;
    this.values[name] = value;
    for (const [on, call] of [...this.callbacks]) if (on === `change:${name}`) call();
  }
  on(name, call) { this.callbacks.push([name, call]); }
  off(name, call) { this.callbacks = this.callbacks.filter(([on, one]) => on !== name || one !== call); }
  save_changes() { this.saved++; }
  send(what) { this.sent.push(what); }
}
"""

START = """
async ([script, names]) => {
  const url = URL.createObjectURL(new Blob([script], { type: "text/javascript" }));
  const { default: widget } = await import(url);
  const Model = (0, eval)(`(${window.modelSource})`);
  window.models = names.map((name) => new Model(name));
  window.widget = widget;
  window.ends = window.models.map((model) => widget.initialize({ model }));
}
"""


@pytest.fixture
def notebook(browser, folder, built, tmp_path):
    """Two pages in one document, each with the widget's script and a stand-in for its model."""
    shown = [show([Record.open(folder / "first"), folder / "deep"], height=650), show(folder / "first", height=400)]
    path = tmp_path / "notebook.html"
    frames = "".join(page._repr_html_() for page in shown)
    path.write_text(f"<!doctype html><meta charset='utf-8'><body>{frames}</body>", encoding="utf-8")
    tab = browser.new_page()
    trouble = []
    tab.on("console", lambda message: trouble.append(message.text))
    tab.on("pageerror", lambda error: trouble.append(str(error)))
    tab.goto(path.as_uri())
    frames = tab.frames[1:]
    for frame in frames:
        until(frame, "() => window.__view && window.__view.ready()")
    tab.evaluate("source => { window.modelSource = source }", MODEL.strip())
    tab.evaluate(START, [SCRIPT.read_text(encoding="utf-8"), [page._name for page in shown]])
    yield tab, frames
    assert trouble == []
    tab.close()


def value(tab, at, name):
    return tab.evaluate("([at, name]) => window.models[at].values[name]", [at, name])


def click_first_layer(frame):
    until(frame, "() => document.querySelector('tbody tr:not(.spacer)')")
    frame.evaluate("() => document.querySelector('tbody tr:not(.spacer)').click()")


@pytest.mark.browser
@pytest.mark.xdist_group("view")
def test_frames_show_the_pages(notebook):
    tab, (both, first) = notebook
    until(both, "() => document.querySelectorAll('.runs li label').length === 2")
    assert first.evaluate("() => document.querySelectorAll('.runs li label').length") == 1
    heights = [tab.locator("iframe").nth(at).bounding_box()["height"] for at in (0, 1)]
    assert heights == pytest.approx([650, 400], abs=3)


@pytest.mark.browser
@pytest.mark.xdist_group("view")
def test_a_click_reaches_the_model_of_its_page_alone(notebook):
    tab, (both, first) = notebook
    # what was there before the widget is asked for
    until(tab, "() => window.models.every((model) => model.values.state.startsWith('runs=first'))")
    click_first_layer(both)
    until(tab, "() => window.models[0].values.state.includes('layer=conv1.weight')")
    assert read_selection(value(tab, 0, "state")) == Selection(("first-run",), layer="conv1.weight")
    until(tab, "() => window.models[0].values.cursor.layer === 'conv1.weight'")
    assert read_selection(value(tab, 1, "state")) == Selection(("first",))
    assert state(first)["layer"] is None
    assert tab.evaluate("() => window.models[0].saved") >= 2


@pytest.mark.browser
@pytest.mark.xdist_group("view")
def test_a_change_of_the_model_reaches_its_page_alone(notebook):
    tab, (both, first) = notebook
    wanted = Selection(
        ("second", "first-run"), "first-run", "rate", "conv2.weight", 3, "probe", "a b~*é+&=%#/'(),!", "x y", 0.25,
        "seconds", True, True, ("training-loss",), "dark", False, None, "a+b", "steps", "-share|test", "all",
        True, (2.0, 4.0),
        {"weights:spectrum": (-1.5, 2.25), "b": (0.0, 1.0)},
    )  # fmt: skip
    tab.evaluate("text => window.models[0].set('state', text)", write_selection(wanted))
    until(both, "() => window.__view.state().theme === 'dark'")
    seen = state(both)
    for name, here in vars(wanted).items():
        assert seen[name] == json.loads(json.dumps(here)), name
    until(tab, "() => window.models[0].values.cursor.step === 3")
    # nothing that the page can show is missing here
    assert {field.name for field in fields(Selection)} == set(seen) - {"cursorStep", "cursorLayer", "seq"}
    # and it writes the same as Python, to the letter
    assert value(tab, 0, "state") == write_selection(wanted)
    assert state(first)["theme"] == "auto"
    assert "dark" not in value(tab, 1, "state")
    tab.evaluate("() => window.models[0].set('state', 'layer=conv2&step=lots&runs=nobody')")
    until(tab, "() => window.models[0].values.state === 'runs=first-run&layer=conv2'")


@pytest.mark.browser
@pytest.mark.xdist_group("view")
def test_a_page_that_is_drawn_again_goes_on_where_it_was(notebook):
    tab, (both, _) = notebook
    click_first_layer(both)
    until(tab, "() => window.models[0].values.state.includes('layer=conv1.weight')")
    with tab.expect_event("frameattached"):
        tab.evaluate("() => { const frame = document.querySelector('iframe'); frame.replaceWith(frame.cloneNode()); }")
    again = tab.frames[-1]
    until(again, "() => window.__view && window.__view.ready() && window.__view.state().layer === 'conv1.weight'")
    tab.wait_for_timeout(100)  # what it said at its start, before it was told, has come by now
    assert read_selection(value(tab, 0, "state")) == Selection(("first-run",), layer="conv1.weight")


@pytest.mark.browser
@pytest.mark.xdist_group("view")
def test_a_page_opens_with_what_was_selected_before(browser, folder, built, tmp_path):
    pytest.importorskip("anywidget", reason="anywidget is not installed")
    page = show(folder / "first")
    page.select(layer="conv2.weight", step=2, search='"><b>')
    path = tmp_path / "saved.html"
    path.write_text(f"<!doctype html><meta charset='utf-8'><body>{page._repr_html_()}</body>", encoding="utf-8")
    tab = browser.new_page()
    tab.goto(path.as_uri())
    until(tab.frames[1], "() => window.__view && window.__view.ready()")
    assert {"layer": "conv2.weight", "step": 2, "search": '"><b>'}.items() <= state(tab.frames[1]).items()
    tab.close()


@pytest.mark.browser
@pytest.mark.xdist_group("view")
def test_others_are_not_heard_and_after_its_end_nobody_is(notebook):
    tab, (both, first) = notebook
    until(tab, "() => window.models.every((model) => model.values.state)")
    before = value(tab, 0, "state")
    # the document itself, and another page under its own name
    tab.evaluate("() => window.postMessage({ stratoscope: 1, state: 'layer=evil', cursor: {}, heard: 99 }, '*')")
    first.evaluate("() => parent.postMessage({ stratoscope: 1, state: 'layer=other', cursor: {}, heard: 99 }, '*')")
    until(tab, "() => window.models[1].values.state === 'layer=other'")
    assert value(tab, 0, "state") == before
    both.evaluate("() => parent.postMessage({ stratoscope: 1, state: 7 }, '*')")
    tab.evaluate("() => window.ends[0]()")
    assert tab.evaluate("() => window.models[0].callbacks.length") == 0
    click_first_layer(both)
    until(both, "() => window.__view.state().layer === 'conv1.weight'")
    first.evaluate("() => parent.postMessage({ stratoscope: 1, state: 'layer=last', cursor: {}, heard: 99 }, '*')")
    until(tab, "() => window.models[1].values.state === 'layer=last'")
    assert value(tab, 0, "state") == before
    tab.evaluate("() => window.models[0].set('state', 'layer=conv3')")
    tab.evaluate("() => window.widget.render({ model: window.models[0] })")
    assert tab.evaluate("() => window.models[0].sent") == [{"seen": True}]
    assert state(both)["layer"] == "conv1.weight"


@pytest.mark.slow
def test_the_line_names_the_runs_and_the_verdict(folder, built):
    assert repr(show(folder / "first")) == "Stratoscope: first run: 1 issue"
    assert repr(show(folder)) == "Stratoscope: first run: 1 issue; second run: 1 issue"
