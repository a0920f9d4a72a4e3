"""Writing while training: promises about what is on disk, and when."""

import sqlite3
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from stratoscope.errors import RecordError
from stratoscope.record import Entry, Record, RecordWriter, schema
from stratoscope.record import writer as writer_module
from stratoscope.record.quantity import quantity


def entry(value, name="loss", instrument="training"):
    return Entry(instrument, name, quantity(value, units="1", long_name=name))


def on_disk(folder):
    with Record.open(folder) as record:
        return record["training"]["loss"].step.values.tolist() if "training" in record else []


def wait_until(true, seconds=5.0):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def test_what_was_appended_comes_to_disk_by_itself(tmp_path):
    """Within a second: half of it is the wait, which is fixed; how long the disk takes is not tested."""
    assert writer_module.FLUSH_AFTER <= 0.5
    with RecordWriter.create(tmp_path / "r") as writer:
        writer.append(0, [entry(1.0)])
        assert writer.committed == -1
        wait_until(lambda: writer.committed == 0)
        assert on_disk(tmp_path / "r") == [0]
        writer.append(1, [entry(1.0)])
        wait_until(lambda: writer.committed == 1)


def test_committed_says_no_more_than_is_true(tmp_path):
    with RecordWriter.create(tmp_path / "r") as writer:
        assert writer.committed == -1
        writer.append(3, [entry(1.0)])
        assert writer.committed == -1
        writer.commit(5, [entry(1.0, "acc")])
        assert writer.committed == 5
        assert on_disk(tmp_path / "r") == [3]
        writer.append(6, [entry(1.0)])
        assert writer.committed == 5
        writer.append(4, [entry(1.0)])
        assert writer.committed == 3
        writer.flush()
        assert writer.committed == 6
        assert on_disk(tmp_path / "r") == [3, 4, 6]


def test_a_commit_is_one_transaction(tmp_path, monkeypatch):
    """A reader never sees a part of it, whatever happens in the middle."""
    with RecordWriter.create(tmp_path / "r") as writer:
        writer.commit(0, [entry(1.0)])
        original = writer_module.Tables.insert

        def interrupted(self, connection, frame, stored):
            original(self, connection, frame, stored)
            raise KeyboardInterrupt

        monkeypatch.setattr(writer_module.Tables, "insert", interrupted)
        writer.append(1, [entry(2.0)])
        with pytest.raises(KeyboardInterrupt):
            writer.commit(2, [entry(3.0, "new")])
        monkeypatch.undo()
        assert on_disk(tmp_path / "r") == [0]
        assert (writer.broken, writer.committed) == (None, 0)
        writer.commit(3, [entry(4.0, "new")])
        assert on_disk(tmp_path / "r") == [0, 1]
        assert writer.committed == 3


def test_readers_poll_the_sequence_number_while_it_is_written(tmp_path):
    with RecordWriter.create(tmp_path / "r") as writer:
        record = Record.open(tmp_path / "r")
        assert (record.seq, len(record)) == (0, 0)
        first = writer.commit(0, [entry(1.0)])
        assert record.seq == 0
        assert record.refresh().seq == first
        assert record["training"]["loss"].values.tolist() == [1.0]
        second = writer.commit(1, [entry(2.0)])
        assert second > first
        group = record["training"]
        assert (group["loss"].sizes["step"], group.steps) == (1, (0,))
        assert record.steps == (0,)
        assert record.refresh()["training"]["loss"].values.tolist() == [1.0, 2.0]
        changed = record.seq
        writer.write_meta("note", "x")
        assert record.refresh().seq > changed
        assert record.meta["note"] == "x"
    assert record.refresh().meta["status"] == "finished"


def test_a_reader_in_another_process(tmp_path):
    code = "import sys; from stratoscope.record import Record; print(Record.open(sys.argv[1])['training']['loss'].values.tolist())"
    with RecordWriter.create(tmp_path / "r") as writer:
        writer.commit(0, [entry(0.5)])
        done = subprocess.run([sys.executable, "-c", code, tmp_path / "r"], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "[0.5]"
        writer.commit(1, [entry(0.25)])


def test_many_threads(tmp_path):
    with RecordWriter.create(tmp_path / "r") as writer:

        def work(k):
            for step in range(40):
                give = writer.commit if step % 10 == 0 else writer.append
                give(step, [entry(float(k * 1000 + step), f"v{k}", "threads")])

        threads = [threading.Thread(target=work, args=(k,)) for k in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    group = Record.open(tmp_path / "r")["threads"]
    for k in range(6):
        assert group[f"v{k}"].values.tolist() == [k * 1000 + step for step in range(40)]


def test_append_writes_itself_when_too_much_waits(monkeypatch):
    monkeypatch.setattr(writer_module, "MAX_WAITING", 1000)
    monkeypatch.setattr(writer_module, "FLUSH_AFTER", 100.0)
    with RecordWriter.create(None) as writer:
        writer.append(0, [entry(np.float64(1.0))])
        assert writer.committed == -1
        writer.append(1, [Entry("a", "x", quantity(np.zeros(200), units="1", long_name="x", dims="bin"))])
        assert writer.committed == 1


def test_closing_writes_everything_and_seals_the_file(tmp_path):
    folder = tmp_path / "r"
    writer = RecordWriter.create(folder)
    writer.append(0, [entry(1.0)])
    writer.close()
    writer.close()
    assert sorted(path.name for path in folder.iterdir()) == ["run.db"]
    assert on_disk(folder) == [0]
    assert sqlite3.connect(folder / "run.db").execute("PRAGMA journal_mode").fetchone() == ("delete",)
    for call in (
        lambda: writer.append(1, [entry(1.0)]),
        lambda: writer.commit(1, [entry(1.0)]),
        lambda: writer.write_meta("a", 1),
    ):
        with pytest.raises(RecordError, match="closed"):
            call()
    writer.flush()


def test_closing_beside_a_reader(tmp_path):
    began = time.monotonic()
    with RecordWriter.create(tmp_path / "r") as writer:
        writer.commit(0, [entry(1.0)])
        reader = Record.open(tmp_path / "r")
        assert reader["training"]["loss"].item() == 1.0
    assert reader.refresh().meta["status"] == "finished"
    assert time.monotonic() - began < schema.BUSY_MS / 1000, "it waited for a lock"
    reader.close()
    with pytest.raises(RecordError, match="was closed"):
        reader.refresh()
    assert on_disk(tmp_path / "r") == [0]


@pytest.mark.parametrize(
    ("error", "status"), [(KeyboardInterrupt, "interrupted"), (ValueError, "failed"), (None, "finished")]
)
def test_how_a_run_ended(tmp_path, error, status):
    try:
        with RecordWriter.create(tmp_path / "r") as writer:
            writer.append(0, [entry(1.0)])
            if error:
                raise error
    except (KeyboardInterrupt, ValueError):
        pass
    assert Record.open(tmp_path / "r").meta["status"] == status
    assert on_disk(tmp_path / "r") == [0]


def test_a_program_that_ends_without_closing_loses_nothing(tmp_path):
    code = """
import sys
from stratoscope.record import Entry, RecordWriter
from stratoscope.record.quantity import quantity
writer = RecordWriter.create(sys.argv[1])
writer.append(7, [Entry("training", "loss", quantity(0.5, units="1", long_name="loss"))])
"""
    subprocess.run([sys.executable, "-c", code, tmp_path / "r"], check=True)
    assert on_disk(tmp_path / "r") == [7]
    assert Record.open(tmp_path / "r").meta["status"] == "interrupted"
    assert not (tmp_path / "r" / "run.lock").exists()


def test_a_forked_child_must_not_write(tmp_path, monkeypatch):
    with RecordWriter.create(tmp_path / "r") as writer:
        writer.commit(0, [entry(1.0)])
        monkeypatch.setattr(writer, "_pid", writer._pid + 1)
        for call in (writer.append, writer.commit):
            with pytest.raises(RecordError, match="only that one may write"):
                call(1, [entry(1.0)])
        writer._at_exit()
        monkeypatch.undo()
    assert on_disk(tmp_path / "r") == [0]


def test_an_old_group_stays_as_it_was_after_a_refresh():
    with RecordWriter.create(None) as writer:
        writer.commit(0, [entry(1.0), entry(1.0, "acc")])
        record = Record.from_writer(writer)
        group = record["training"]
        assert group["loss"].sizes["step"] == 1
        writer.commit(1, [entry(1.0), entry(1.0, "acc"), entry(2.0, "new")])
        record.refresh()
        assert (group["acc"].sizes["step"], group.steps, list(group)) == (1, (0,), ["loss", "acc"])
        assert record["training"]["acc"].sizes["step"] == 2


def test_a_record_in_memory_outlives_its_writer():
    def make():
        with RecordWriter.create(None) as writer:
            writer.append(0, [entry(1.0)])
            return Record.from_writer(writer)

    record = make()
    assert record["training"]["loss"].item() == 1.0
    assert record.refresh().meta["status"] == "finished"
    assert record.path is None


def test_a_record_in_memory_follows_its_writer():
    with RecordWriter.create(None) as writer:
        record = Record.from_writer(writer)
        writer.append(0, [entry(1.0)])
        assert record.refresh()["training"]["loss"].item() == 1.0


def test_what_the_writer_says_of_itself(tmp_path):
    with RecordWriter.create(tmp_path / "run-1") as writer:
        writer.commit(2, [entry(1.0)])
        assert "committed up to step 2" in repr(writer)
        assert (writer.run_id, writer.folder, writer.attempt) == ("run-1", tmp_path / "run-1", 0)
    assert "closed" in repr(writer)
    with RecordWriter.create(tmp_path / "Run 2") as writer:
        assert writer.run_id != "Run 2"
    with RecordWriter.create(tmp_path / "run-3", {"status": "mine"}):
        assert Record.open(tmp_path / "run-3").meta["status"] == "mine"
    with pytest.raises(RecordError, match="no text form"):
        RecordWriter.create(None, {"model": object()})
    with pytest.raises(RecordError, match="no text form"):
        RecordWriter.create(tmp_path / "run-4", {"model": object()})
    assert not (tmp_path / "run-4" / "run.lock").exists()
