"""Runs that go on later, and the one writer of each."""

import json
import os
import socket
import sqlite3
import subprocess
import sys

import numpy as np
import pytest

from stratoscope.errors import RecordError
from stratoscope.findings import Finding, Outcome
from stratoscope.record import Coverage, Entry, Record, RecordWriter
from stratoscope.record import hot as hot_module
from stratoscope.record.quantity import quantity


def entry(value, name="x", dims=()):
    return Entry("a", name, quantity(value, units="1", long_name=name, dims=dims))


def test_resume_goes_on_after_the_last_step(tmp_path):
    with RecordWriter.create(tmp_path / "r", {"note": "first"}) as writer:
        for step in range(5):
            writer.commit(step, [entry(float(step))])
    with RecordWriter.resume(tmp_path / "r") as writer:
        assert (writer.committed, writer.attempt, writer.run_id) == (4, 1, "r")
        assert Record.open(tmp_path / "r").meta["status"] == "running"
        writer.commit(5, [entry(50.0)])
    record = Record.open(tmp_path / "r")
    assert record["a"]["x"].values.tolist() == [0, 1, 2, 3, 4, 50]
    assert record.meta["note"] == "first"
    assert [row["attempt"] for row in record.meta["resumed"]] == [1]


def test_resume_replaces_later_steps(tmp_path):
    def finding(step):
        return Finding(f"AA{step}", "a", None, step if step % 2 else None, Outcome.TIP, "it says so")

    def covered(step, status):
        return [Coverage("a", "", "fc", "", "", step, status)]

    folder = tmp_path / "r"
    with RecordWriter.create(folder) as writer:
        for step in range(6):
            kept = [entry(float(step)), entry(np.full(10**5, step), "large", "bin")]
            late = [entry(1.0, "late")] if step >= 4 else []
            writer.commit(
                step,
                kept + late,
                findings=[finding(step)],
                coverage=covered(step, "measured" if step < 4 else "failed"),
            )
        before = Record.from_writer(writer).seq
    assert len(list((folder / "arrays").iterdir())) == 6
    (folder / "arrays" / "notes.txt").write_text("not ours")
    with RecordWriter.resume(folder, step=3) as writer:
        record = Record.open(folder)
        assert record.seq > before
        assert record.steps == (0, 1, 2)
        assert list(record["a"]) == ["x", "large"]
        assert [f.code for f in record.findings] == ["AA0", "AA1", "AA2"]
        assert writer.committed == 2
        assert record.coverage() == covered(0, "measured")
        files = sorted(path.name for path in (folder / "arrays").iterdir())
        assert files == [f"0000-00000{k}.safetensors" for k in range(3)] + ["notes.txt"]
        writer.commit(3, [entry(-3.0), entry(np.ones(1), "late", "seed")], coverage=covered(3, "skipped"))
    record = Record.open(folder)
    assert record["a"]["x"].values.tolist() == [0, 1, 2, -3]
    assert record["a"]["large"].sel(step=2).values.tolist() == [2] * 10**5
    assert record.coverage() == covered(3, "skipped")
    assert record.seq > before


def test_resume_needs_a_record(tmp_path):
    (tmp_path / "empty").mkdir()
    for name in ("empty", "nothing"):
        with pytest.raises(RecordError, match="cannot be resumed; create it instead"):
            RecordWriter.resume(tmp_path / name)
    assert list((tmp_path / "empty").iterdir()) == []
    with RecordWriter.create(tmp_path / "empty") as writer:
        writer.commit(0, [])
    with pytest.raises(RecordError, match="holds a record already"):
        RecordWriter.create(tmp_path / "empty")
    assert Record.open(tmp_path / "empty").steps == (0,)


def test_a_kill_while_the_record_is_made(tmp_path, monkeypatch):
    """An empty file is no record, and does not stand in the way of one."""
    (tmp_path / "r").mkdir()
    sqlite3.connect(tmp_path / "r" / "run.db").execute("PRAGMA journal_mode = WAL")
    with pytest.raises(RecordError, match="not a record"):
        Record.open(tmp_path / "r")
    with RecordWriter.create(tmp_path / "r") as writer:
        assert writer.commit(0, [entry(1.0)]) == 1

    def fails(_):
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(hot_module.schema, "build", fails)
    with pytest.raises(RecordError, match="disk I/O error"):
        RecordWriter.create(tmp_path / "other")
    assert not (tmp_path / "other" / "run.lock").exists()


def test_a_second_writer_is_refused(tmp_path):
    with RecordWriter.create(tmp_path / "r"):
        for open_it in (RecordWriter.create, RecordWriter.resume):
            with pytest.raises(RecordError, match=rf"is being written by process {os.getpid()} on "):
                open_it(tmp_path / "r")
    RecordWriter.resume(tmp_path / "r").close()


def test_a_second_process_is_refused(tmp_path):
    code = "import sys; from stratoscope.record import RecordWriter; RecordWriter.resume(sys.argv[1])"
    with RecordWriter.create(tmp_path / "r"):
        done = subprocess.run([sys.executable, "-c", code, tmp_path / "r"], check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert "RecordError" in done.stderr
    assert f"process {os.getpid()}" in done.stderr


@pytest.mark.parametrize("how", ["dead", "reused"])
def test_the_lock_of_a_dead_process_is_taken_over(tmp_path, how):
    RecordWriter.create(tmp_path / "r").close()
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    owner = {"pid": dead.pid, "host": socket.gethostname(), "started": "1"}
    if how == "reused":
        owner["pid"] = os.getpid()  # another process has its number now: this one
    (tmp_path / "r" / "run.lock").write_text(json.dumps(owner))
    with RecordWriter.resume(tmp_path / "r") as writer:
        assert writer.attempt == 1
    assert not (tmp_path / "r" / "run.lock").exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1, "host": "elsewhere"}'])
def test_the_lock_of_another_machine_stays(tmp_path, text):
    RecordWriter.create(tmp_path / "r").close()
    (tmp_path / "r" / "run.lock").write_text(text)
    with pytest.raises(RecordError, match=r"delete .*run\.lock if it is gone"):
        RecordWriter.resume(tmp_path / "r")
    assert (tmp_path / "r" / "run.lock").read_text() == text
