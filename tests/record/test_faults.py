"""Disks that take no more, and places that take no files: said once, and training goes on."""

import json
import os
import resource
import sqlite3
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest

from stratoscope.errors import RecordError
from stratoscope.record import Entry, Record, RecordWriter, new_run_folder
from stratoscope.record import writer as writer_module
from stratoscope.record.quantity import quantity


def entry(value, name="x", dims=()):
    return Entry("a", name, quantity(value, units="1", long_name=name, dims=dims))


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
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "none", disk], check=False, capture_output=True
    ).returncode:
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
        [sys.executable, "-c", code, tmp_path / "r", os.path.dirname(__file__)],
        capture_output=True,
        text=True,
        check=True,
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


def append_and_wait(writer):
    writer.append(0, [entry(1.0)])
    end = time.monotonic() + 5
    while writer.broken is None and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(0.05)


def test_trouble_in_the_flusher_is_said_too(tmp_path, monkeypatch):
    def fails(*_):
        raise OSError(28, "No space left on device")

    with RecordWriter.create(tmp_path / "r") as writer:
        monkeypatch.setattr(writer_module.Tables, "insert", fails)
        monkeypatch.setattr(writer_module, "FLUSH_AFTER", 0.01)
        with pytest.warns(UserWarning, match="nothing was kept"):
            append_and_wait(writer)
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
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "none", disk], check=False, capture_output=True
    ).returncode:
        pytest.skip("a disk can only be mounted by root")
    try:
        for name in ("sealed", "open"):
            with RecordWriter.create(disk / name) as writer:
                writer.commit(0, [entry(1.0)])
                if name == "open":  # closed, yet still in WAL mode: as when a reader was there at the end
                    writer._hot.seal = lambda: None
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        assert (
            sqlite3.connect(f"file:{disk}/open/run.db?immutable=1", uri=True).execute("PRAGMA journal_mode").fetchone()
        )
        for name in ("sealed", "open"):
            with Record.open(disk / name) as record:
                assert record["a"]["x"].item() == 1.0
        with pytest.raises(RecordError, match="Read-only"):
            RecordWriter.resume(disk / "sealed")
        with pytest.raises(RecordError, match="Read-only"):
            RecordWriter.create(disk / "new")
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)
