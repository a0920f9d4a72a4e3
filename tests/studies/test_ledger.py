import json
import math
import os
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from stratoscope.errors import RecordError, SettingError
from stratoscope.studies import ledger, registry
from stratoscope.studies.ledger import NOT_RUN, Row, read, write, written_to
from stratoscope.studies.listing import as_json, listed

ROW = Row("s", "arXiv:1", "c", "Fig. 1", True, "held", "why", "analogue", numbers={"mean": 1.5}, date="2026-01-02")


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "deep" / "ledger.json"
    rows = [ROW, replace(ROW, claim="d", result="did not hold", per_seed={"0": True, "1": None}, spread=0.5)]
    assert write(rows, path) == path
    assert list(read(path).values()) == rows
    other = replace(ROW, study="r", result="undecided")
    write([other], path)
    assert set(read(path)) == {row.key for row in [*rows, other]}
    assert [row["study"] for row in json.loads(path.read_text())["rows"]] == ["r", "s", "s"]


def test_claims_that_a_study_no_longer_makes_go_and_other_budgets_stay(tmp_path):
    path = tmp_path / "ledger.json"
    write([ROW, replace(ROW, claim="old")], path)
    write([replace(ROW, budget="smoke")], path)
    write([replace(ROW, reason="new")], path)
    assert {(row.claim, row.budget, row.reason) for row in read(path).values()} == {
        ("c", "analogue", "new"),
        ("c", "smoke", "why"),
    }


def test_of_two_ledgers_the_newer_row_counts(tmp_path):
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    write([replace(ROW, date="2026-01-03", reason="newer")], one)
    write([ROW, replace(ROW, claim="d")], two)
    for paths in ((one, two), (two, one)):
        found = read(*paths)
        assert found[ROW.key].reason == "newer"
        assert len(found) == 2
    write([replace(ROW, date="2026-01-03", reason="of the same time")], two)
    assert read(one, two)[ROW.key].reason == "of the same time"  # the last file is the one that is written


def test_a_number_that_json_does_not_have_is_not_written(tmp_path):
    path = write([ROW], tmp_path / "ledger.json")
    before = path.read_bytes()
    with pytest.raises(ValueError, match="JSON"):
        write([replace(ROW, numbers={"mean": math.nan})], path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["ledger.json"]


def test_no_ledger_is_an_empty_one(tmp_path):
    assert read(tmp_path / "nothing.json") == {}


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "{}", '{"format": "x", "rows": []}', '{"format": 1, "rows": [{"study": "s"}]}',
     '{"format": 1, "rows": 3}', '{"format": 1, "rows": [3]}', '{"format": 99, "rows": []}',
     '{"format": 1, "rows": [{"study": "s", "claim": 3, "budget": "b", "result": "held", "where": "", "expected": true, "reason": "", "paper": ""}]}',
     '{"format": 1, "rows": [{"study": "s", "claim": "c", "budget": "b", "result": "maybe", "where": "", "expected": true, "reason": "", "paper": ""}]}'],
)  # fmt: skip
def test_a_damaged_ledger_is_one_sentence_and_stays_as_it_is(tmp_path, text):
    path = tmp_path / "ledger.json"
    path.write_text(text)
    for use in (lambda: read(path), lambda: write([ROW], path)):
        with pytest.raises(RecordError, match=r"ledger\.json is (damaged|of a newer release)"):
            use()
    assert path.read_text() == text
    assert [entry.name for entry in tmp_path.iterdir()] == ["ledger.json"]


def test_bytes_that_are_no_text_are_damage(tmp_path):
    path = tmp_path / "ledger.json"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecordError, match="damaged"):
        read(path)


def test_fields_of_a_later_minor_release_are_no_harm(tmp_path):
    path = tmp_path / "ledger.json"
    write([ROW], path)
    table = json.loads(path.read_text())
    table["rows"][0]["mood"] = "good"
    path.write_text(json.dumps(table))
    assert list(read(path).values()) == [ROW]
    write([replace(ROW, study="r")], path)
    assert [row.get("mood") for row in json.loads(path.read_text())["rows"]] == [None, "good"]


def test_the_file_has_the_mode_that_the_umask_leaves(tmp_path):
    path, before = tmp_path / "ledger.json", os.umask(0o027)
    try:
        write([ROW], path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "real.json").write_text('{"format": 1, "rows": []}')
    (tmp_path / "link.json").symlink_to(tmp_path / "real.json")
    write([ROW], tmp_path / "link.json")
    assert (tmp_path / "link.json").is_symlink()
    assert list(read(tmp_path / "real.json").values()) == [ROW]


def test_a_place_that_takes_no_file_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordError, match=r"cannot be written .* STRATOSCOPE_LEDGER"):
        write([ROW], tmp_path / "file" / "ledger.json")


def test_a_disk_that_is_full_loses_nothing(tmp_path, monkeypatch):
    path = tmp_path / "ledger.json"
    write([ROW], path)

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ledger.os, "fsync", full)
    with pytest.raises(RecordError, match="No space left"):
        write([replace(ROW, claim="d")], path)
    assert list(read(path).values()) == [ROW]
    assert [entry.name for entry in tmp_path.iterdir()] == ["ledger.json"]


WRITER = """
import sys
from pathlib import Path
from dataclasses import replace
from stratoscope.studies.ledger import Row, write
path, who = Path(sys.argv[1]), sys.argv[2]
for number in range(25):
    write([Row(f"{who}-{number}", "p", "c", "w", True, "held", "r", "smoke")], path)
"""


def test_writers_at_the_same_time_lose_nothing(tmp_path):
    path = tmp_path / "ledger.json"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(who)]) for who in range(3)]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    assert len(read(path)) == 75


def test_where_it_is_written(tmp_path, monkeypatch):
    monkeypatch.setenv("STRATOSCOPE_LEDGER", str(tmp_path / "mine.json"))
    assert written_to() == tmp_path / "mine.json"
    monkeypatch.delenv("STRATOSCOPE_LEDGER")
    package = tmp_path / "src" / "stratoscope" / "studies"
    package.mkdir(parents=True)
    monkeypatch.setattr(ledger, "SHIPPED", package / "ledger.json")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert written_to() == tmp_path / "state" / "stratoscope" / "ledger.json"  # an installed package
    (tmp_path / "pyproject.toml").write_text("")
    assert written_to() == package / "ledger.json"  # a checkout
    monkeypatch.setattr(ledger.os, "access", lambda path, mode: False)
    assert written_to() == tmp_path / "state" / "stratoscope" / "ledger.json"
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert written_to() == tmp_path / "home" / ".local" / "state" / "stratoscope" / "ledger.json"


def test_the_ledger_that_is_shipped_can_be_read_and_names_what_there_is():
    for row in read(ledger.SHIPPED).values():
        claims = {claim.says for claim in registry.available()[row.study].claims}
        assert row.claim in claims


# -- the list of all claims -----------------------------------------------------------------------------------------


def row_of(toy, claim, budget, result, **more):
    return replace(ROW, study=toy.name, claim=claim.says, budget=budget, result=result, digest=toy.digest, **more)


def test_every_claim_is_listed_whether_it_was_run_or_not(toy):
    rows = listed([toy], {})
    assert [row.claim for row in rows] == [claim.says for claim in toy.claims]
    assert {(row.result, row.reason, row.budget) for row in rows} == {("undecided", NOT_RUN, "analogue")}
    assert {row.budget for row in listed([toy], {}, "full")} == {"full"}


def test_the_largest_budget_that_decided_is_listed(toy):
    claim = toy.claims[0]
    made = [
        row_of(toy, claim, budget, result)
        for budget, result in [("smoke", "undecided"), ("analogue", "held"), ("full", "undecided")]
    ]
    table = {row.key: row for row in made}
    assert listed([toy], table)[0].budget == "analogue"
    assert listed([toy], table, "full")[0].result == "undecided"
    assert listed([toy], {row.key: row for row in made[::2]})[0].budget == "full"
    assert listed([toy], {made[0].key: made[0]})[0].budget == "smoke"
    assert listed([toy], {made[0].key: made[0]}, "full")[0].reason == NOT_RUN


def test_what_an_older_study_measured_is_called_so(toy, package):
    row = row_of(toy, toy.claims[0], "analogue", "held")
    assert listed([toy], {row.key: row})[0].stale is False
    source = package / "study.py"
    source.write_text(source.read_text() + "\n")
    (shown,) = (as_json(found) for found in listed([toy], {row.key: row}) if found.claim == row.claim)
    assert shown["stale"] is True
    assert shown["reason"] == "why; measured with an older version of the study"


# -- finding studies ------------------------------------------------------------------------------------------------


class Point:
    name, value = "other", "other.study:STUDY"

    def __init__(self, found):
        self.found = found

    def load(self):
        if isinstance(self.found, Exception):
            raise self.found
        return self.found


@pytest.fixture
def fresh(monkeypatch):
    """Look for studies again, ours not among them."""
    registry.available.cache_clear()
    monkeypatch.setattr(registry.home, "__path__", [])
    yield lambda *found: monkeypatch.setattr(registry, "entry_points", lambda group: [Point(each) for each in found])
    monkeypatch.undo()
    registry.available.cache_clear()


def test_studies_of_other_packages_are_found(package, fresh):
    from toy.study import STUDY

    fresh(STUDY)
    assert registry.study("toy-study") is STUDY
    with pytest.raises(SettingError, match=r"no study 'toy_studi'; there are toy-study. Did you mean 'toy-study'\?"):
        registry.study("toy_studi")
    with pytest.raises(SettingError, match=r"no study 'xyz'; there are toy-study\.$"):
        registry.study("xyz")


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (["text"], "other.study:STUDY is no Study"),
        ([ImportError("no module named other")], "other .* cannot be loaded: no module named other"),
    ],
)
def test_what_is_no_study_is_said(package, fresh, found, says):
    fresh(*found)
    with pytest.raises(SettingError, match=says):
        registry.available()


def test_two_studies_of_one_name_are_refused(package, fresh):
    from toy.study import STUDY

    fresh(STUDY, replace(STUDY, title="Another"))
    with pytest.raises(SettingError, match="which another study has"):
        registry.available()


def test_every_study_of_ours_is_declared_in_full():
    for name, study in registry.available().items():
        assert study.paper.startswith(("arXiv:", "doi:"))
        assert study.question.endswith("?")
        assert all(claim.where for claim in study.claims)
        for budget, seeds in study.seeds.items():
            specs = study.tasks(budget, seeds)
            assert specs, f"{name} has no task at {budget}"
            seen = {column for spec in specs for column in spec}
            assert all(set(claim.of) <= seen for claim in study.claims)
        assert study.seeds["analogue"] >= 3
        assert Path(study.sources[0]).is_file()
