"""What a page shows as plain values: its text and back, what may be selected, and that the page knows the same."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stratoscope.errors import SettingError
from stratoscope.view.selection import (
    ALONG,
    MOST_RUNS,
    ORDERS,
    ROWS,
    THEMES,
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
    shown = re.search(r"export interface Shown \{\n(.*?)\n\}", state, re.DOTALL)
    assert re.findall(r"^  (\w+):", shown[1], re.MULTILINE) == [one.name for one in fields(Selection)]


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


def test_blanks_and_text_that_is_none():
    assert read_selection("within= 1..2").within is None
    assert read_selection("within=1..2 ").within is None
    assert write_selection(Selection(layer="\ud800")) == "layer=%3F"
