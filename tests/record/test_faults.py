"""When things go wrong: full disks, kills, damaged logs, places that take no files."""

import json
import os
import random
import re
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest

from stratoscope.errors import RecordError
from stratoscope.findings import Finding, Outcome
from stratoscope.record import Coverage, Entry, Record, RecordWriter, new_run_folder
from stratoscope.record import hot as hot_module
from stratoscope.record import writer as writer_module
from stratoscope.record.quantity import quantity


def entry(value, name="x", dims=()):
    return Entry("a", name, quantity(value, units="1", long_name=name, dims=dims))


# -- kill -9 ---------------------------------------------------------------------------------------------------------

CHILD = """
import sys, numpy as np
from stratoscope.record import Entry, RecordWriter
from stratoscope.record.quantity import quantity

def numbers(step, n):
    return np.random.default_rng(step).random(n)

def entry(name, values, dims):
    return Entry("a", name, quantity(values, units="1", long_name=name, dims=dims))

folder, start = sys.argv[1], int(sys.argv[2])
writer = RecordWriter.create(folder) if start == 0 else RecordWriter.resume(folder, step=start)
print(writer.attempt, flush=True)
for step in range(start, start + 10**6):
    writer.append(step, [entry("loss", numbers(step, 1)[0], ()), entry("ratio", numbers(step, 20), "layer")])
    if step % 5 == 0:
        writer.commit(step, [entry("spectrum", numbers(step, 500), "bin")])
        writer.commit(step, [entry("wide", numbers(step, 20).astype("f4"), "class")])
    if step % 25 == 0:
        writer.commit(step, [entry("large", numbers(step, 40_000), "seed")])
    if step % 7 == 0:
        writer.flush()
    print(writer.committed, flush=True)
"""


def numbers(step, n):
    return np.random.default_rng(step).random(n)


def run_and_kill(folder, start, seconds):
    """The last step that the writer acknowledged before it was killed; `start - 1` if none."""
    child = subprocess.Popen([sys.executable, "-c", CHILD, folder, str(start)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert re.fullmatch(r"\d+\n", child.stdout.readline())
    time.sleep(seconds)
    child.send_signal(signal.SIGKILL)
    lines = child.communicate()[0].split("\n")[:-1]  # what follows the last end of line was cut off
    return max([start - 1, *(int(line) for line in lines)])


def check(folder, acknowledged, since=0):
    record = Record.open(folder)
    group = record["a"] if "a" in record else {}
    loss = group["loss"]
    assert loss.step.values.tolist()[: acknowledged + 1] == list(range(acknowledged + 1))
    for name, n, every in (("ratio", 20, 1), ("spectrum", 500, 5), ("wide", 20, 5), ("large", 40_000, 25)):
        array = group[name]
        place = {step: at for at, step in enumerate(array.step.values.tolist())}
        for step in range(-(-since // every) * every, acknowledged + 1, every):
            assert np.array_equal(array.values[place[step]], numbers(step, n).astype(array.dtype)), (name, step)
    assert loss.values[: acknowledged + 1].tolist() == [numbers(step, 1)[0] for step in range(acknowledged + 1)]
    record.close()


def kill_often(folder, times, seed):
    random.seed(seed)  # only decides when to kill
    acknowledged = -1
    for _ in range(times):
        before, acknowledged = acknowledged, run_and_kill(folder, acknowledged + 1, random.uniform(0.02, 0.6))
        check(folder, acknowledged, before + 1)
    assert acknowledged > times
    check(folder, acknowledged)
    with RecordWriter.resume(folder) as writer:
        assert writer.attempt == times
        assert writer.committed >= acknowledged
    integrity = sqlite3.connect(folder / "run.db").execute("PRAGMA integrity_check").fetchall()
    assert integrity == [("ok",)]


def test_nothing_acknowledged_is_lost_on_kill(tmp_path):
    kill_often(tmp_path / "r", 2, seed=1)


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_on_twenty_kills(tmp_path):
    kill_often(tmp_path / "r", 20, seed=2)


@pytest.mark.parametrize("damage", ["cut", "noise", "zeros", "gone", "no shm"])
def test_a_damaged_log_leaves_a_consistent_beginning(tmp_path, damage):
    folder, copy = tmp_path / "r", tmp_path / "copy"
    with RecordWriter.create(folder) as writer:
        for step in range(60):
            writer.commit(step, [entry(float(step)), entry(np.full(200, step), "y", "bin")])
        shutil.copytree(folder, copy)  # as a kill leaves it
    log = copy / "run.db-wal"
    size = log.stat().st_size
    assert size > 100_000
    if damage == "cut":
        os.truncate(log, size * 2 // 3)
    elif damage in ("noise", "zeros"):
        with log.open("r+b") as file:
            file.seek(size // 2)
            file.write(np.random.default_rng(0).bytes(size // 4) if damage == "noise" else bytes(size // 4))
    elif damage == "gone":
        log.unlink()
    (copy / "run.db-shm").unlink()
    if damage == "gone":
        with pytest.raises(RecordError):
            Record.open(copy)  # killed before anything reached the file itself
        return
    group = Record.open(copy)["a"]
    steps = group["x"].step.values.tolist()
    assert steps == list(range(len(steps)))
    assert len(steps) == 60 if damage == "no shm" else 20 < len(steps) < 60
    assert group["y"].values[:, 0].tolist() == group["x"].values.tolist() == steps


# -- disks that take no more ---------------------------------------------------------------------------------------


def fill(folder):
    """Write until the disk is full; what was said on the way."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with RecordWriter.create(folder) as writer:
            for step in range(400):
                writer.append(step, [entry(np.full(3000, step, dtype="f8"), dims="bin")])
                writer.flush()
                if writer.broken:
                    break
            kept = writer.committed
            assert writer.broken
            assert writer.commit(999, [entry(np.zeros(3000), dims="bin")]) == -1
            writer.append(999, [entry(np.zeros(3000), dims="bin")])
            writer.flush()
            writer.write_meta("a", 1)
            writer.replace_findings([])
            assert writer.committed == kept
    return kept, [str(one.message) for one in said]


def assert_kept(folder, kept, said):
    assert kept > 1
    assert len(said) == 1
    assert said[0].startswith(f"Recording to {folder} stopped (")
    assert said[0].endswith(f"training goes on, what was recorded up to step {kept} is kept.")
    array = Record.open(folder)["a"]["x"]
    assert array.step.values.tolist() == list(range(kept + 1))
    assert (array.values == array.step.values[:, None]).all()


def test_a_full_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", disk], capture_output=True).returncode:
        pytest.skip("a small disk can only be mounted by root")
    try:
        kept, said = fill(disk / "r")
        assert "full" in said[0]
        assert_kept(disk / "r", kept, said)
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


def test_files_that_may_not_grow(tmp_path):
    """The same where nobody may mount: the process itself may write no file of more than a megabyte."""
    code = """
import json, resource, sys
sys.path.insert(0, sys.argv[2])
from test_faults import fill
resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))
print(json.dumps(fill(__import__("pathlib").Path(sys.argv[1]))))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "r", os.path.dirname(__file__)], capture_output=True, text=True, check=True
    )
    kept, said = json.loads(done.stdout)
    assert_kept(tmp_path / "r", kept, said)
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 2**20


@pytest.mark.parametrize("error", [sqlite3.OperationalError("disk I/O error"), OSError(28, "No space left on device")])
def test_trouble_is_said_once_and_training_goes_on(tmp_path, monkeypatch, error):
    def fails(*_):
        raise error

    with RecordWriter.create(tmp_path / "r") as writer:
        writer.commit(0, [entry(1.0)])
        monkeypatch.setattr(writer_module.Tables, "insert", fails)
        with pytest.warns(UserWarning, match=r"what was recorded up to step 0 is kept\.$"):
            assert writer.commit(1, [entry(1.0)]) == -1
        assert writer.commit(2, [entry(1.0)]) == -1
        writer.append(3, [entry(1.0)])
        assert writer.broken == str(error)
        assert writer.committed == 0
        assert str(error) in repr(writer)
    assert Record.open(tmp_path / "r")["a"]["x"].step.values.tolist() == [0]


def test_trouble_in_the_flusher_is_said_too(tmp_path, monkeypatch):
    def fails(*_):
        raise OSError(28, "No space left on device")

    with RecordWriter.create(tmp_path / "r") as writer:
        monkeypatch.setattr(writer_module.Tables, "insert", fails)
        monkeypatch.setattr(writer_module, "FLUSH_AFTER", 0.01)
        with pytest.warns(UserWarning, match="nothing was kept"):
            writer.append(0, [entry(1.0)])
            while writer.broken is None:
                time.sleep(0.01)
            time.sleep(0.05)
        assert writer.committed == -1


def test_a_large_array_that_does_not_fit_leaves_no_row(tmp_path, monkeypatch):
    from stratoscope.record import statements

    def fails(folder, name, _):
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.tmp").write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    with RecordWriter.create(tmp_path / "r") as writer:
        monkeypatch.setattr(statements, "write_arrays", fails)
        with pytest.warns(UserWarning, match="No space left"):
            writer.commit(0, [entry(1.0), entry(np.zeros(10**5), "large", "bin")])
    assert list(Record.open(tmp_path / "r")) == []
    assert (tmp_path / "r" / "arrays" / "0000-000000.safetensors.tmp").exists()
    RecordWriter.resume(tmp_path / "r").close()
    assert list((tmp_path / "r" / "arrays").iterdir()) == []


# -- places that take no files --------------------------------------------------------------------------------------


def test_places_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    for call in (RecordWriter.create, RecordWriter.resume, new_run_folder):
        with pytest.raises(RecordError) as caught:
            call(tmp_path / "file" / "r")
        assert str(tmp_path / "file") in str(caught.value)
        assert str(caught.value).count(". ") == 0

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("stratoscope.record.folder.os.open", refuse)
    with pytest.raises(RecordError, match=r"r cannot be written \(Permission denied\); choose another folder"):
        RecordWriter.create(tmp_path / "r")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder(tmp_path):
    folder = tmp_path / "r"
    with RecordWriter.create(folder) as writer:
        writer.commit(0, [entry(1.0)])
    (tmp_path / "other").mkdir(mode=0o500)
    with pytest.raises(RecordError, match="Permission denied"):
        RecordWriter.create(tmp_path / "other")
    folder.chmod(0o500)
    (folder / "run.db").chmod(0o400)
    try:
        assert Record.open(folder)["a"]["x"].item() == 1.0
    finally:
        folder.chmod(0o700)


def test_reading_on_a_disk_that_is_mounted_read_only(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", disk], capture_output=True).returncode:
        pytest.skip("a disk can only be mounted by root")
    try:
        for name in ("sealed", "open"):
            with RecordWriter.create(disk / name) as writer:
                writer.commit(0, [entry(1.0)])
                if name == "open":  # closed, yet still in WAL mode: as when a reader was there at the end
                    writer._hot.seal = lambda: None
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        assert sqlite3.connect(f"file:{disk}/open/run.db?immutable=1", uri=True).execute("PRAGMA journal_mode").fetchone()
        for name in ("sealed", "open"):
            with Record.open(disk / name) as record:
                assert record["a"]["x"].item() == 1.0
        with pytest.raises(RecordError, match="Read-only"):
            RecordWriter.resume(disk / "sealed")
        with pytest.raises(RecordError, match="Read-only"):
            RecordWriter.create(disk / "new")
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


# -- attempts ---------------------------------------------------------------------------------------------------------


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
            writer.commit(step, kept + late, findings=[finding(step)], coverage=covered(step, "measured" if step < 4 else "failed"))
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


# -- two writers ------------------------------------------------------------------------------------------------------


def test_a_second_writer_is_refused(tmp_path):
    with RecordWriter.create(tmp_path / "r"):
        for open_it in (RecordWriter.create, RecordWriter.resume):
            with pytest.raises(RecordError, match=rf"is being written by process {os.getpid()} on "):
                open_it(tmp_path / "r")
    RecordWriter.resume(tmp_path / "r").close()


def test_a_second_process_is_refused(tmp_path):
    code = "import sys; from stratoscope.record import RecordWriter; RecordWriter.resume(sys.argv[1])"
    with RecordWriter.create(tmp_path / "r"):
        done = subprocess.run([sys.executable, "-c", code, tmp_path / "r"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "RecordError" in done.stderr
    assert f"process {os.getpid()}" in done.stderr


@pytest.mark.parametrize("how", ["dead", "reused"])
def test_the_lock_of_a_dead_process_is_taken_over(tmp_path, how):
    import socket

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
