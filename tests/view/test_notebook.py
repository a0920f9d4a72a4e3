"""The page in a notebook: what a saved one keeps, what is selected in it, and who hears that."""

from __future__ import annotations

import gc
import json
import sys
import weakref
from dataclasses import fields
from types import SimpleNamespace

import pytest
from browsing import state, until

from stratoscope.errors import SettingError, StratoscopeError
from stratoscope.record.record import Record
from stratoscope.view.notebook import SCRIPT, Page, show
from stratoscope.view.selection import Cursor, Selection, read_selection, write_selection


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
    # it may run its script and save files, and be of no origin: a record may come from anybody
    assert ' sandbox="allow-scripts allow-downloads" ' in displayed[0][0]["text/html"]
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


def test_a_name_of_several_lines_is_one(folder, built, tmp_path, build):
    build[0](tmp_path / "odd", "one\n  two\tthree", 1)
    assert repr(show(tmp_path / "odd")).startswith("Stratoscope: one two three: ")


def test_what_is_selected_cannot_end_the_name_of_the_frame():
    page = Page("<p>page</p>", 300)
    page._link = SimpleNamespace(state='layer="><script>')
    html = page._repr_html_()
    assert html.count("<") == html.count(">") == 2
    assert "#layer=&#34;&gt;&lt;script&gt;" in html
