"""Records that somebody made to do harm: whoever opens the folder they lie in still sees all the others, and a sentence."""

from __future__ import annotations

import json
import re
import sqlite3

import numpy as np
import pytest

from stratoscope.errors import StratoscopeError
from stratoscope.findings import Finding, Outcome
from stratoscope.record.entry import Entry
from stratoscope.record.quantity import quantity
from stratoscope.record.writer import RecordWriter
from stratoscope.view.export import page_of
from stratoscope.view.index import Contents
from stratoscope.view.runs import SHORT, Runs
from stratoscope.view.wire import pack, unpack

DEEP = "[" * 100_000 + "]" * 100_000
MARKUP = "<img src=x onerror=alert(1)></script><script>alert(2)</script><!--"


def changed(folder, statement, *values):
    connection = sqlite3.connect(folder / "first" / "run.db")
    connection.execute("PRAGMA ignore_check_constraints = ON")
    connection.execute(statement, values)
    connection.commit()
    connection.close()


@pytest.mark.parametrize(
    ("statement", "value"),
    [
        ("UPDATE meta SET value = ? WHERE key = 'name'", DEEP),
        ("UPDATE meta SET value = ? WHERE key = 'instruments'", "[1]"),
        ("UPDATE layer SET spec = ?", "[1]"),
        ("UPDATE layer SET n_params = ?", "many"),
        ("UPDATE axis SET members = ?", DEEP),
        ("UPDATE series SET settings = ?", DEEP),
        ("UPDATE series SET attrs = ?", DEEP),
        ("UPDATE finding SET evidence = ?", DEEP),
        ('UPDATE finding SET "do" = ?', b"\xff"),
        ("UPDATE frame SET step = ?", b"\xff"),
        ("UPDATE frame SET step = ?", float("inf")),
        ("UPDATE frame SET wall_time = ?", "soon"),
        ("UPDATE frame SET epoch = ?", "one"),
        ("UPDATE frame SET tokens = ?", "many"),
    ],
)
def test_a_damaged_run_is_told_and_stops_no_other(ask, folder, bundle, statement, value):
    changed(folder, statement, value)
    listed = {run["id"]: run for run in json.loads(ask("/api/runs").read())}
    assert listed["deep-second"]["status"] == "finished"
    answer = ask("/api/runs/first")
    said = answer.read().decode()
    assert answer.status == 409, said[:200]
    assert said.endswith("use a copy that is whole.")
    assert str(folder) not in said
    assert len(said) < 600
    assert ask("/api/runs/deep-second").status == 200
    page = page_of(Runs([folder]), bundle)
    assert "use a copy that is whole." in page
    assert "deep-second" in page


def test_an_error_that_nobody_thought_of_is_said_of_its_run(folder, monkeypatch):
    run = Runs([folder])["first"]
    with pytest.raises(StratoscopeError, match=r"The run first cannot be shown \(KeyError: 'first/x'\)"), run.reading():
        raise KeyError(f"{folder}/first/x")
    with pytest.raises(StratoscopeError, match=r"^as it was said$"), run.reading():
        raise StratoscopeError("as it was said")


def test_long_texts_do_not_fill_the_list(folder):
    long = "x" * 10_000
    config = {**{str(number): 1 for number in range(1000)}, "long": long}
    for key, value in (("name", long), ("status", long), ("started", long), ("config", {"long": long, **config})):
        changed(folder, "INSERT OR REPLACE INTO meta VALUES (?, ?)", key, json.dumps(value))
    said = Runs([folder])["first"].summary()
    assert said["name"] == "x" * (SHORT - 1) + "…"
    assert len(said["config"]) == SHORT
    assert len(said["config"]["long"]) == SHORT
    assert len(json.dumps(said)) < 10_000


def test_numbers_of_a_config_that_a_page_cannot_hold_are_words(tmp_path):
    given = {"clip": float("inf"), "seed": 2**53, "hash": -(2**53) - 1, "flag": True}
    with RecordWriter.create(tmp_path / "run", {"config": given}):
        pass
    assert Runs([tmp_path])["run"].summary()["config"] == {
        "clip": "inf", "seed": 2**53, "hash": "-9007199254740993", "flag": True,
    }  # fmt: skip


@pytest.fixture
def marked(tmp_path, build):
    """A run with markup wherever it has a text, and numbers at the ends of what there is."""
    about = {
        "title": MARKUP,
        "source": f'{MARKUP} doi:10.1234/"x',
        "method": f"`{MARKUP}` ${MARKUP}$ **{MARKUP}** {MARKUP}",
    }
    with RecordWriter.create(tmp_path / "x" / "run", {"name": MARKUP, "instruments": {"probe": about}}) as writer:
        coords = {"layer": [MARKUP]}
        for step, value in ((0, 1e308), (1, -1e308), (2, np.nan), (3, np.inf), (2**53 + 1, 5e-324)):
            share = quantity([value], units=MARKUP, long_name=MARKUP, dims="layer", coords=coords, source=MARKUP)
            loss = quantity(value, units="nat", long_name="loss")
            writer.commit(step, [Entry("probe", "share", share), Entry("training", "loss", loss)])
        finding = Finding(
            "XX001", "probe", MARKUP, 1, Outcome.ISSUE, MARKUP, MARKUP, {"share": np.nan}, f'{MARKUP} doi:10.1234/"x'
        )
        writer.replace_findings([finding])
    return tmp_path / "x"


def test_markup_in_a_record_is_text(marked, bundle):
    with Runs([marked])["run"].reading() as record:
        contents = Contents(record, "run")
        index = unpack(pack(contents.index()))
        charts = [unpack(pack(contents.chart(head["id"]))) for head in index["charts"]]
    assert index["groups"][0]["title"] == MARKUP
    html = [
        one[name]
        for kind in ("groups", "findings", "charts")
        for one in index[kind]
        for name in one
        if name.endswith("_html")
    ]
    assert sum("&lt;img" in text for text in html) >= 3
    for text in html:
        assert not re.search(r"<(?!/?(p|a|code|strong|math|m\w+|annotation|semantics)\b)", text), text
        assert not re.search(r"<[^>]*\son\w+=", text), text
    assert charts
    page = page_of(Runs([marked]), bundle)
    assert page.count("<script") == page.count("</script") == 2
    assert "<img" not in page
    assert "<!--" not in page
