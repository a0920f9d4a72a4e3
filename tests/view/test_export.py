"""The page as one file: what it carries, what it leaves out, and what its policy allows."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re

import numpy as np
import pytest

from stratoscope.errors import RecordError, StratoscopeError
from stratoscope.record.entry import Entry
from stratoscope.record.quantity import quantity
from stratoscope.record.record import Record
from stratoscope.record.writer import RecordWriter
from stratoscope.view import export
from stratoscope.view.export import page_of
from stratoscope.view.runs import Runs
from stratoscope.view.wire import unpack


def carried_by(page):
    found = json.loads(re.search(r'id="carried">(.*?)</script>', page, re.DOTALL)[1])
    for kind in ("index", "charts", "variables"):
        found[kind] = {name: unpack(gzip.decompress(base64.b64decode(text))) for name, text in found[kind].items()}
    return found


def test_it_carries_what_the_server_would_say(folder, bundle):
    runs = Runs([folder])
    page = page_of(runs, bundle)
    found = carried_by(page)
    assert found["runs"] == [run.summary() for run in runs.scan()]
    index = found["index"]["first"]
    assert {f"first/{head['id']}" for head in index["charts"]} == {
        name for name in found["charts"] if name.startswith("first/")
    }
    np.testing.assert_array_equal(
        found["variables"]["first/probe/share"]["values"][:, 0], Record.open(folder / "first")["probe"]["share"].values
    )
    assert page_of(Runs([folder]), bundle) == page, "the same runs give another page"


def test_where_the_runs_lie_is_left_out(tmp_path, bundle):
    about = {"folder": str(tmp_path), "command": "train --key=hidden"}
    with RecordWriter.create(tmp_path / "run", about) as writer:
        writer.commit(0, [Entry("training", "loss", quantity(1.0, units="nat", long_name="loss"))])
    page = page_of(Runs([tmp_path]), bundle)
    index = carried_by(page)["index"]["run"]
    assert not {"folder", "command"} & {name for name, _ in index["facts"]}
    assert str(tmp_path) not in page + json.dumps(index, default=str)
    assert "hidden" not in json.dumps(index, default=str)


def test_a_run_in_training_is_no_longer_live(tmp_path, bundle, build):
    writer = build[0](tmp_path / "run", "run", 2, running=True)
    index = carried_by(page_of(Runs([tmp_path]), bundle))["index"]["run"]
    assert (index["status"], index["live"]) == ("running", False)
    writer.close("finished")


def test_only_variables_that_follow_the_step_are_carried(tmp_path, bundle):
    def per(values, dims, **coords):
        return quantity(values, units="1", long_name="x", dims=dims, coords=coords)

    layers = ["a", "b"]
    with RecordWriter.create(tmp_path / "run", {}) as writer:
        for step in range(3):
            once = [Entry("probe", "once", per([1.0, 2.0], "layer", layer=layers))] if step == 0 else []
            grid = per(np.ones((2, 3)) * step, ("layer", "class"), layer=layers, **{"class": ["x", "y", "z"]})
            share = per([1.0 * step, 2.0], "layer", layer=layers)
            writer.commit(step, [*once, Entry("probe", "grid", grid), Entry("probe", "share", share)])
    assert set(carried_by(page_of(Runs([tmp_path]), bundle))["variables"]) == {"run/probe/share"}


def test_profiles_are_carried_that_the_table_does_not_show(tmp_path, bundle):
    names = [f"x{number:02}" for number in range(20)]
    with RecordWriter.create(tmp_path / "run", {}) as writer:
        for step in range(2):
            values = [quantity(np.arange(3.0) + step + n, units="1", long_name=name, dims="layer", coords={"layer": ["a", "b", "c"]})
                      for n, name in enumerate(names)]  # fmt: skip
            writer.commit(step, [Entry("probe", name, value) for name, value in zip(names, values, strict=True)])
    found = carried_by(page_of(Runs([tmp_path]), bundle))
    profiles = {head["variable"] for head in found["index"]["run"]["charts"] if head["kind"] == "profile"}
    assert len(found["index"]["run"]["table"]["shown"]) < len(profiles)
    assert {name.rpartition("/")[2] for name in found["variables"]} >= profiles


def hash_of(text):
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def test_the_policy_allows_its_own_script_and_style_alone(folder, bundle):
    (bundle / "view.js").write_text('const a = "</SCRIPT>", b = "<!--", c = "<Script>", d = 1 < script;')
    page = page_of(Runs([folder]), bundle)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1]
    (script,) = re.findall(r'<script type="module">(.*)</script>', page)
    (style,) = re.findall(r"<style>(.*)</style>", page)
    assert script == r'const a = "\x3c/SCRIPT>", b = "\x3c!--", c = "\x3cScript>", d = 1 < script;'
    assert dict(part.strip().partition(" ")[::2] for part in policy.split(";")) == {
        "default-src": "'none'", "script-src": hash_of(script), "style-src": hash_of(style), "img-src": "data: blob:",
        "base-uri": "'none'", "form-action": "'none'",
    }  # fmt: skip
    assert page.index("Content-Security-Policy") < page.index("<style"), "it holds only for what follows"


def test_a_style_that_would_end_itself_is_refused(folder, bundle):
    (bundle / "view.css").write_text("a{content:'</STYLE>'}")
    with pytest.raises(StratoscopeError, match="style sheet"):
        page_of(Runs([folder]), bundle)


def test_no_file_stays_open(folder, bundle):
    runs = Runs([folder])
    page_of(runs, bundle)
    assert [run.id for run in runs.scan() if run._record is not None] == []


def test_an_export_tells_of_what_it_cannot_carry(folder, bundle):
    (folder / "broken").mkdir()
    (folder / "broken" / "run.db").write_bytes(b"no database")
    text = page_of(Runs([folder]), bundle)
    assert "unreadable" in text
    assert "<title>first run, second run" in text or "<title>second run, first run" in text
    assert str(folder) not in text


def test_an_export_of_nothing_is_refused(tmp_path, bundle):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "run.db").write_bytes(b"no database")
    with pytest.raises(RecordError, match="nothing to show"):
        page_of(Runs([tmp_path]), bundle)


def test_an_export_goes_on_where_a_run_breaks_on_the_way(folder, bundle, monkeypatch):
    whole = export.Contents.index

    def index(contents):
        if contents._run == "first":
            raise StratoscopeError("It broke.")
        return whole(contents)

    monkeypatch.setattr(export.Contents, "index", index)
    text = page_of(Runs([folder]), bundle)
    assert "It broke." in text
    assert "deep-second" in text
