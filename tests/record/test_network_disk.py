"""Runs on a network file system: written on a local disk, copied as sealed files."""

import os
import sqlite3
import time
from pathlib import Path

import numpy as np
import pytest

from stratoscope.errors import RecordError
from stratoscope.record import Entry, Record, RecordWriter, ship
from stratoscope.record import folder as folder_module
from stratoscope.record.folder import filesystem, is_network, new_run_folder
from stratoscope.record.quantity import quantity

MOUNTINFO = r"""
22 27 0:21 / /proc rw,relatime - proc proc rw
29 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,discard
40 29 0:40 / /home rw,relatime shared:20 master:2 - nfs4 server:/home rw,vers=4.2
41 40 0:41 / /home/me/local rw - xfs /dev/sdb1 rw
42 29 0:42 / /mnt/my\040share rw - fuse.sshfs me@host:/ rw
43 29 0:43 / /scratch rw - lustre 10.0.0.1@tcp:/scratch rw
44 29 0:44 / /over rw - nfs a:/b rw
45 44 0:45 / /over rw - tmpfs tmpfs rw
a broken line
46 29 0:46 / /cut rw -
"""


@pytest.mark.parametrize(
    ("path", "kind", "network"),
    [
        ("/", "ext4", False),
        ("/homes/me", "ext4", False),
        ("/home", "nfs4", True),
        ("/home/me/runs", "nfs4", True),
        ("/home/me/local/runs", "xfs", False),
        ("/mnt/my share/runs", "fuse.sshfs", True),
        ("/scratch/x", "lustre", True),
        ("/over/x", "tmpfs", False),
    ],
)
def test_the_file_system_of_a_path(path, kind, network):
    assert filesystem(Path(path), MOUNTINFO) == kind
    assert is_network(kind) is network


def test_an_unknown_file_system_counts_as_local():
    assert filesystem(Path("/x"), "") == ""
    assert not is_network("")


@pytest.fixture
def far(tmp_path, monkeypatch):
    """A folder that counts as lying on a network, and a local place for scratch."""
    for name in ("far", "near"):
        (tmp_path / name).mkdir()

    def lies_on_network(path):
        return path.resolve().is_relative_to(tmp_path / "far")

    monkeypatch.setattr(folder_module, "lies_on_network", lies_on_network)
    monkeypatch.setattr("stratoscope.record.hot.lies_on_network", lies_on_network)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "near"))
    return tmp_path / "far" / "run-1"


def entries(step):
    small = Entry("a", "x", quantity(float(step), units="1", long_name="x"))
    large = Entry("a", "large", quantity(np.full(10**5, step), units="1", long_name="large", dims="bin"))
    return [small, large]


def opened(folder):
    with pytest.warns(
        UserWarning, match=r"network file system: recording goes to .*near.*, copied there twice a minute"
    ):
        return RecordWriter.resume(folder) if (folder / "run.db").exists() else RecordWriter.create(folder)


def test_the_hot_file_is_local_and_sealed_copies_are_shipped(far, monkeypatch):
    writer = opened(far)
    writer.commit(0, entries(0))
    assert sorted(path.name for path in far.iterdir()) == ["run.lock"]
    assert Record.from_writer(writer)["a"]["x"].item() == 0.0
    hot = writer._hot.folder
    assert hot is not None
    assert (hot / "run.db").exists()
    monkeypatch.setattr(ship, "INTERVAL", 0.05)
    with writer._buffer.changed:
        writer._buffer.changed.notify_all()
    end = time.monotonic() + 5
    while not (far / "run.db").exists() and time.monotonic() < end:
        time.sleep(0.01)
    record = Record.open(far)
    assert record["a"]["large"].sel(step=0).values.tolist() == [0] * 10**5
    assert sorted(path.name for path in far.iterdir()) == ["arrays", "run.db", "run.lock"]
    assert sqlite3.connect(far / "run.db").execute("PRAGMA journal_mode").fetchone() == ("delete",)
    writer.commit(1, entries(1))
    while 1 not in record.refresh().steps and time.monotonic() < end:
        time.sleep(0.01)
    assert record["a"]["x"].values.tolist() == [0, 1]
    writer.commit(2, entries(2))
    writer.close()
    assert not hot.exists()
    assert Record.from_writer(writer).steps == (0, 1, 2)
    assert Record.open(far)["a"]["x"].values.tolist() == [0, 1, 2]
    assert Record.open(far).meta["status"] == "finished"
    assert sorted(path.name for path in far.iterdir()) == ["arrays", "run.db"]


def test_resume_after_a_kill_finds_what_was_not_shipped(far):
    writer = opened(far)
    writer.commit(0, entries(0))
    writer._ship()
    writer.commit(1, entries(1))
    kill(writer)
    assert Record.open(far).steps == (0,)
    with opened(far) as again:
        assert again.committed == 1
        again.commit(2, entries(2))
    assert Record.open(far).steps == (0, 1, 2)
    assert Record.open(far)["a"]["large"].values[:, 0].tolist() == [0, 1, 2]


def kill(writer):
    """As if the process had died: nothing more is written or shipped."""
    import atexit

    atexit.unregister(writer._at_exit)
    writer._shipper = None
    with writer._buffer.changed:
        writer._closed = True
        writer._buffer.changed.notify_all()
    writer._hot.connection.close()
    (writer.folder / "run.lock").unlink()


def test_resume_on_another_machine_starts_from_the_copy(far, tmp_path, monkeypatch):
    with opened(far) as writer:
        writer.commit(0, entries(0))
    (tmp_path / "other").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "other"))
    (tmp_path / "near").rename(tmp_path / "gone")
    with pytest.warns(UserWarning, match="other"), RecordWriter.resume(far) as writer:
        writer.commit(1, entries(1))
    assert Record.open(far)["a"]["large"].values[:, 0].tolist() == [0, 1]


def test_what_another_machine_did_meanwhile_wins_over_an_old_hot_file(far, tmp_path, monkeypatch):
    writer = opened(far)
    writer.commit(0, entries(0))
    writer._ship()
    writer.commit(1, entries(1))
    kill(writer)
    (tmp_path / "near").rename(tmp_path / "first machine")
    (tmp_path / "near").mkdir()
    with opened(far) as writer:
        assert writer.committed == 0
        writer.commit(1, entries(10))
        writer.commit(2, entries(20))
    (tmp_path / "near").rename(tmp_path / "second machine")
    (tmp_path / "first machine").rename(tmp_path / "near")
    with opened(far) as writer:
        assert (writer.attempt, writer.committed) == (2, 2)
    assert Record.open(far)["a"]["x"].values.tolist() == [0, 10, 20]


def test_arrays_of_replaced_steps_go_from_the_copy_too(far):
    with opened(far) as writer:
        for step in range(3):
            writer.commit(step, entries(step))
    assert len(list((far / "arrays").iterdir())) == 3
    with pytest.warns(UserWarning, match="network"), RecordWriter.resume(far, step=1):
        pass
    assert [path.name for path in (far / "arrays").iterdir()] == ["0000-000000.safetensors"]
    assert Record.open(far).steps == (0,)


def test_a_copy_that_fails_is_said_and_nothing_is_lost(far, monkeypatch):
    writer = opened(far)
    writer.commit(0, entries(0))

    def fails(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(ship, "copy_whole", fails)
    with pytest.warns(UserWarning, match=r"could not be copied to .*far.*; it is safe in .*near"):
        writer._ship()
    monkeypatch.undo()
    assert writer.broken is None
    writer.close()
    assert Record.open(far).steps == (0,)


def test_no_local_place_at_all(far, monkeypatch):
    monkeypatch.setattr(folder_module, "lies_on_network", lambda path: True)
    with pytest.raises(RecordError, match="set TMPDIR"):
        RecordWriter.create(far)
    assert not (far / "run.lock").exists()


def test_scratch_of_another_user_is_not_used(far, tmp_path, monkeypatch):
    (tmp_path / "near" / f"stratoscope-{os.getuid()}").symlink_to(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with pytest.warns(UserWarning, match="state"):
        writer = RecordWriter.create(far)
    assert writer._hot.folder is not None
    assert writer._hot.folder.is_relative_to(tmp_path / "state")
    writer.close()


def test_run_folders_sort_by_time(tmp_path):
    folders = [new_run_folder(tmp_path / "runs") for _ in range(20)]
    assert sorted(folders) == folders
    assert len(set(folders)) == 20
    assert all(folder.is_dir() and folder_module.is_run_id(folder.name) for folder in folders)
    with RecordWriter.create(folders[0]) as writer:
        assert writer.run_id == folders[0].name
