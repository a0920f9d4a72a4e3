"""Which runs there are, and what the list says of those that are damaged, gone, or were put elsewhere."""

from __future__ import annotations

import os
import shutil
import sqlite3
from concurrent.futures import ThreadPoolExecutor

import pytest

from stratoscope.errors import RecordError
from stratoscope.record.record import Record
from stratoscope.record.writer import RecordWriter
from stratoscope.view import runs as runs_module
from stratoscope.view.runs import DEEPEST, Runs


def ids(runs):
    return [run.id for run in runs.scan()]


def of(runs, name):
    return runs[name].summary()


def test_what_the_list_says_of_a_run(folder):
    said = of(Runs([folder]), "first")
    assert said["name"] == "first run"
    assert (said["folder"], said["status"]) == ("first", "finished")
    assert (said["steps"], said["last_step"]) == (6, 5)
    assert said["findings"] == {"issue": 1}
    assert said["config"] == {"rate": 0.1}


def test_a_run_its_folder_and_the_folder_above_are_the_same_run(folder):
    runs = Runs([folder / "first", folder, folder / "deep"])
    assert len(runs.scan()) == 2
    assert ids(runs) == ["first", "deep-second"]


@pytest.mark.parametrize("missing", ["nothing", "first/nothing"])
def test_a_path_that_is_not_there_is_named(folder, missing):
    with pytest.raises(RecordError, match=f"There is no run .*{missing}"):
        Runs([folder / missing])


def test_a_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(RecordError, match=r"run\.db"):
        Runs([tmp_path])


def test_a_new_run_appears(folder, build):
    runs = Runs([folder])
    build[0](folder / "third", "third run")
    assert set(ids(runs)) == {"first", "deep-second", "third"}


def test_runs_are_looked_for_so_deep_and_no_deeper(tmp_path, build):
    for depth in (DEEPEST, DEEPEST + 1):
        build[0](tmp_path.joinpath(*([f"at{depth}"] * depth)), "run", 1)
    build[0](tmp_path / ".hidden" / "x", "run", 1)
    assert [run.name for run in Runs([tmp_path]).scan()] == ["/".join([f"at{DEEPEST}"] * DEEPEST)]


def test_a_folder_that_may_not_be_read_is_passed_over(folder):
    closed = folder / "closed"
    closed.mkdir(mode=0)
    try:
        assert set(ids(Runs([folder]))) == {"first", "deep-second"}
    finally:
        closed.chmod(0o700)


@pytest.mark.parametrize("content", [b"", b"no database", b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_damaged_run_is_listed_as_unreadable_and_the_others_stay(folder, content):
    (folder / "broken").mkdir()
    (folder / "broken" / "run.db").write_bytes(content)
    runs = Runs([folder])
    said = {run.id: run.summary() for run in runs.scan()}
    assert said["broken"]["status"] == "unreadable"
    assert said["broken"]["error"]
    assert str(folder) not in said["broken"]["error"]
    assert runs["broken"].seq() == -1
    assert said["first"]["status"] == "finished"


def test_a_table_that_is_lost_is_unreadable(folder):
    with sqlite3.connect(folder / "first" / "run.db") as connection:
        connection.execute("DROP TABLE finding")
    connection.close()
    assert of(Runs([folder]), "first")["status"] == "unreadable"


def test_a_run_that_vanishes_and_comes_back(folder, tmp_path):
    runs = Runs([folder])
    run = runs["first"]
    run.record()
    shutil.move(folder / "first", tmp_path / "aside")
    assert "no longer there" in of(runs, "first")["error"]
    with pytest.raises(RecordError, match="no longer there"):
        run.record()
    shutil.move(tmp_path / "aside", folder / "first")
    assert of(runs, "first")["status"] == "finished"
    assert len(run.record().steps) == 6


@pytest.mark.parametrize("what", ["folder", "file"])
def test_a_run_that_a_link_replaces_is_not_followed(folder, tmp_path, build, what):
    build[0](tmp_path / "secret", "secret run")
    runs = Runs([folder])
    gone = folder / "first" if what == "folder" else folder / "first" / "run.db"
    shutil.move(gone, tmp_path / "aside")
    gone.symlink_to(tmp_path / "secret" if what == "folder" else tmp_path / "secret" / "run.db")
    said = of(runs, "first")
    assert "a link" in said["error"]
    assert "secret" not in str(said)
    with pytest.raises(RecordError, match="a link"):
        runs["first"].record()
    assert "first" not in ids(Runs([folder]))


def test_a_file_that_has_not_changed_is_not_opened_again(folder, monkeypatch):
    runs = Runs([folder])
    before = [run.summary() for run in runs.scan()]
    monkeypatch.setattr(Record, "open", lambda path: pytest.fail(f"opened {path}"))
    assert [run.summary() for run in runs.scan()] == before


def test_a_run_that_is_being_read_does_not_hold_up_the_list(tmp_path, build):
    make_run, write_step = build
    writer = make_run(tmp_path / "live", "live", 3, running=True)
    run = Runs([tmp_path])["live"]
    before = run.summary()
    write_step(writer, 3)
    with ThreadPoolExecutor(1) as other:
        with run.lock:
            assert other.submit(run.summary).result(20) == before
        assert other.submit(run.summary).result(20)["last_step"] == 3
    writer.close("finished")


def test_a_list_keeps_no_file_open(tmp_path, build):
    for number in range(6):
        build[0](tmp_path / f"run{number}", "run", 1)
    runs = Runs([tmp_path])
    own = f"/proc/{os.getpid()}/fd"
    if not os.path.isdir(own):
        pytest.skip("open files cannot be counted here")
    for run in runs.scan():
        run.summary()
    links = [os.path.join(own, name) for name in os.listdir(own)]
    open_files = [os.readlink(link) for link in links if os.path.islink(link)]
    assert [path for path in open_files if path.startswith(str(tmp_path))] == []


def test_a_change_is_seen(tmp_path, build):
    make_run, write_step = build
    writer = make_run(tmp_path / "live", "live", 3, running=True)
    runs = Runs([tmp_path])
    before = runs["live"].seq()
    write_step(writer, 3)
    assert runs["live"].seq() > before
    assert runs["live"].summary()["last_step"] == 3
    writer.close("finished")
    assert runs["live"].summary()["status"] == "finished"


def test_an_empty_run(tmp_path):
    RecordWriter.create(tmp_path / "empty", {}).close("finished")
    said = of(Runs([tmp_path]), "empty")
    assert (said["steps"], said["last_step"], said["findings"], said["config"]) == (0, None, {}, {})
    assert said["name"]


def test_names_in_other_scripts_have_ids_that_stay(tmp_path, build):
    names = ["実験", "опыт", "実験2", "é", "a" * 90, "a" * 91]
    for name in names:
        build[0](tmp_path / name, "実験", 1)
    first = {run.name: run.id for run in Runs([tmp_path]).scan()}
    assert set(first) == set(names)
    assert len(set(first.values())) == len(names)
    assert all(one.isascii() and one == one.lower() and 0 < len(one) <= 70 for one in first.values())
    shutil.rmtree(tmp_path / "опыт")
    again = {run.name: run.id for run in Runs([tmp_path]).scan()}
    assert again == {name: one for name, one in first.items() if name != "опыт"}


def test_a_name_that_is_no_text(tmp_path, build):
    try:
        os.mkdir(os.fsencode(tmp_path) + b"/\xff")
    except OSError:
        pytest.skip("this file system has only names that are text")
    build[0](tmp_path / "plain", "plain", 1)
    shutil.copy(tmp_path / "plain" / "run.db", os.fsdecode(os.fsencode(tmp_path) + b"/\xff/run.db"))
    for run in Runs([tmp_path]).scan():
        assert run.name.encode()
        assert "error" not in run.summary()


def test_infinities_in_a_config_are_words(tmp_path):
    with RecordWriter.create(tmp_path / "run", {"config": {"clip": float("inf"), "rate": 0.5, "no": [1]}}):
        pass
    assert of(Runs([tmp_path]), "run")["config"] == {"clip": "inf", "rate": 0.5}


def test_a_record_in_memory(folder):
    record = Record.open(folder / "first")
    runs = Runs(records=[("mine", record), ("mine", record)])
    assert ids(runs) == ["mine", "mine-2"]
    assert of(runs, "mine")["name"] == "first run"


def test_a_record_in_memory_is_shown_as_its_owner_sees_it(build):
    writer = RecordWriter.create(None, {})
    build[1](writer, 0)
    record = Record.from_writer(writer)
    runs = Runs(records=[("mine", record)])
    before = of(runs, "mine")
    build[1](writer, 1)
    assert of(runs, "mine") == before, "it is its owner's, who may not have looked again"
    record.refresh()
    after = of(runs, "mine")
    assert (before["last_step"], after["last_step"]) == (0, 1)
    assert after["seq"] > before["seq"]
    writer.close()


def test_a_run_that_could_not_be_read_is_tried_again(folder, monkeypatch):
    run, whole = Runs([folder])["first"], Record.open

    def refused(path):
        raise RecordError("It is busy.")

    monkeypatch.setattr(Record, "open", refused)
    assert run.summary()["error"] == "It is busy."
    monkeypatch.setattr(Record, "open", whole)
    assert run.summary()["status"] == "finished"


def test_an_empty_log_says_nothing(folder, monkeypatch):
    run = Runs([folder])["first"]
    run.summary()
    (folder / "first" / "run.db-wal").write_bytes(b"")
    monkeypatch.setattr(Record, "open", lambda path: pytest.fail(f"opened {path}"))
    assert run.summary()["status"] == "finished"


def test_folders_that_take_long_to_walk_are_walked_now_and_then(folder, monkeypatch, build):
    now = [100.0]
    monkeypatch.setattr(runs_module.time, "monotonic", lambda: now[0])
    walk = runs_module._folders

    def slow(root):
        now[0] += 2.0
        return walk(root)

    monkeypatch.setattr(runs_module, "_folders", slow)
    runs = Runs([folder])
    build[0](folder / "third", "third", 1)
    now[0] += 2.0 * runs_module.PATIENCE
    assert len(runs.scan()) == 2
    now[0] += 0.1
    assert len(runs.scan()) == 3


def test_no_more_runs_are_listed_than_can_be(tmp_path, build, monkeypatch):
    monkeypatch.setattr(runs_module, "MOST", 2)
    for name in ("c", "a", "b"):
        build[0](tmp_path / name, name, 1)
    assert ids(Runs([tmp_path])) == ["a", "b"]


def test_what_every_run_knows_groups_them_as_well(tmp_path):
    with RecordWriter.create(tmp_path / "run", {"config": {"seed": 7}, "seed": 1, "device": "cpu", "threads": 2}):
        pass
    assert of(Runs([tmp_path]), "run")["config"] == {"seed": 7, "device": "cpu", "threads": 2}
