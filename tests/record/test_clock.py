"""When a step was: seconds, epochs and tokens; also in records of before tokens were kept."""

import math
import os
import sqlite3
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from stratoscope.errors import RecordError
from stratoscope.record import Entry, Moment, Record, RecordWriter, schema
from stratoscope.record.quantity import quantity
from stratoscope.record.store import MAX_TEXT
from stratoscope.record.values import count


def entry(value=1.0):
    return [Entry("a", "x", quantity(value, units="1", long_name="x"))]


def tokens_of(record):
    return {step: moment.tokens for step, moment in record.clock.items()}


FRAME = """CREATE TABLE frame (seq INTEGER PRIMARY KEY AUTOINCREMENT, step INTEGER NOT NULL, attempt INTEGER NOT NULL DEFAULT 0,
  epoch REAL, samples INTEGER, wall_time REAL NOT NULL, cost_ms REAL)"""


def version_one(folder):
    """Turn a record into what the first version of the tables held."""
    connection = sqlite3.connect(folder / "run.db")
    connection.execute("ALTER TABLE frame DROP COLUMN tokens")
    connection.execute("PRAGMA user_version = 1")
    connection.commit()
    found = [row[1:3] for row in connection.execute("PRAGMA table_info(frame)")]
    plain = sqlite3.connect(":memory:")
    plain.execute(FRAME)
    assert found == [row[1:3] for row in plain.execute("PRAGMA table_info(frame)")]
    plain.close()
    connection.close()


@pytest.fixture
def old(tmp_path):
    """A run of before tokens were kept."""
    with RecordWriter.create(tmp_path / "old", {"note": "first"}) as writer:
        for step in range(3):
            writer.commit(step, entry(float(step)), epoch=0.5 * step)
    version_one(tmp_path / "old")
    return tmp_path / "old"


def version_of(folder):
    connection = sqlite3.connect(folder / "run.db")
    found = connection.execute("PRAGMA user_version").fetchone()[0]
    connection.close()
    return found


@pytest.mark.parametrize("on_disk", [False, True])
def test_what_was_given_comes_back(tmp_path, monkeypatch, on_disk):
    times = iter([100.0, 100.5, 103.0, 104.0])
    monkeypatch.setattr("stratoscope.record.writer.time", SimpleNamespace(time=lambda: next(times)))
    with RecordWriter.create(tmp_path / "r" if on_disk else None) as writer:
        writer.commit(0, entry())
        writer.append(4, entry(), epoch=0.25, tokens=2048)
        writer.commit(4, entry(), tokens=np.int64(2048))
        writer.commit(9, entry(), tokens=2**62 + 1)
        record = Record.from_writer(writer)
        assert record.clock == {0: Moment(0.0), 4: Moment(0.5, 0.25, 2048), 9: Moment(4.0, None, 2**62 + 1)}
        assert type(record.clock[4].tokens) is int


@pytest.mark.parametrize("tokens", [-1, 0.5, math.nan, math.inf, "7", 2**63, True, [1, 2], np.ones(2), torch.ones(2)])
def test_what_is_no_count_is_refused_and_nothing_is_written(tokens):
    with RecordWriter.create(None) as writer:
        for write in (writer.commit, writer.append):
            with pytest.raises(RecordError, match="is no count; give a whole number, not below 0"):
                write(0, entry(), tokens=tokens)
        assert Record.from_writer(writer).steps == ()


def test_counts_of_other_types_are_counts():
    given = [0, 3.0, np.float32(4), np.int8(5), np.uint64(6), torch.tensor(7), torch.tensor([[8]])[0, 0], 10**15 + 1]
    assert [count(value) for value in given] == [0, 3, 4, 5, 6, 7, 8, 10**15 + 1]
    assert all(count(value) is None for value in (None, b"7", 1j, torch.tensor(1j), 10**400, {}))


def test_a_record_of_before_tokens_is_read(old):
    record = Record.open(old)
    assert record["a"]["x"].values.tolist() == [0, 1, 2]
    assert [moment.epoch for moment in record.clock.values()] == [0.0, 0.5, 1.0]
    assert tokens_of(record) == {0: None, 1: None, 2: None}
    assert version_of(old) == 1, "reading changed the file"


def test_a_record_of_before_tokens_goes_on_with_them(old):
    with RecordWriter.resume(old, step=2) as writer:
        writer.commit(2, entry(20.0), epoch=1.0, tokens=300)
        writer.append(3, entry(30.0), epoch=1.5, tokens=400)
    record = Record.open(old)
    assert tokens_of(record) == {0: None, 1: None, 2: 300, 3: 400}
    assert [moment.epoch for moment in record.clock.values()] == [0.0, 0.5, 1.0, 1.5]
    assert record["a"]["x"].values.tolist() == [0, 1, 20, 30]
    assert (record.meta["note"], version_of(old)) == ("first", schema.VERSION)
    with RecordWriter.resume(old) as writer:  # now it is a record of today
        writer.commit(4, entry(), tokens=500)
    assert tokens_of(record.refresh())[4] == 500


def test_whoever_reads_a_record_of_before_tokens_sees_it_go_on(old):
    """The reader has a copy, and must leave it when the file changes."""
    record = Record.open(old)
    assert record.steps == (0, 1, 2)
    same = record._store.connection
    assert record.refresh()._store.connection is same, "nothing changed, yet it was read again"
    with RecordWriter.resume(old) as writer:
        writer.commit(3, entry(), tokens=10)
        assert record.refresh().steps == (0, 1, 2, 3)
        following = record._store.connection
        writer.commit(4, entry(), tokens=20)
        assert tokens_of(record.refresh()) == {0: None, 1: None, 2: None, 3: 10, 4: 20}
        assert record._store.connection is following, "a record of today is read where it lies"


def test_a_release_of_before_that_still_writes_is_followed(old):
    record = Record.open(old)
    writer = sqlite3.connect(old / "run.db")
    writer.execute("PRAGMA journal_mode = WAL")
    for step in (3, 4):
        with writer:
            writer.execute("INSERT INTO frame (step, wall_time) VALUES (?, 0)", (step,))
        assert record.refresh().steps[-1] == step
    writer.close()


def test_a_copy_is_read_as_carefully_as_a_file(old):
    """The guards against files that a stranger made hold for the copy, too."""
    record = Record.open(old)
    connection = record._store.connection
    assert connection.execute("PRAGMA journal_mode").fetchone() != ("memory",), "a large one would fill the memory"
    assert connection.execute("PRAGMA trusted_schema").fetchone() == (0,)
    assert connection.getlimit(sqlite3.SQLITE_LIMIT_LENGTH) == MAX_TEXT


@pytest.mark.parametrize("damage", ["ALTER TABLE frame ADD COLUMN tokens", "ALTER TABLE frame RENAME TO other"])
def test_a_record_that_is_no_old_one_is_refused_and_left_as_it_is(old, damage):
    connection = sqlite3.connect(old / "run.db")
    connection.execute(damage)
    connection.commit()
    connection.close()
    with pytest.raises(RecordError, match="is damaged"):
        Record.open(old)
    with pytest.raises(RecordError, match="cannot be opened as a record"):
        RecordWriter.resume(old)
    assert version_of(old) == 1
    assert not os.path.exists(old / "run.lock")


def test_what_is_no_count_is_named_shortly():
    with RecordWriter.create(None) as writer, pytest.raises(RecordError) as caught:
        writer.commit(0, entry(), tokens="9" * 10_000)
    assert len(str(caught.value)) < 120
    assert count(np.bool_(True)) is None


def test_a_record_shows_the_moments_that_it_looked_at():
    with RecordWriter.create(None) as writer:
        writer.commit(5, entry(), tokens=1)
        record = Record.from_writer(writer)
        writer.commit(3, entry(), tokens=2)
        assert list(record.clock) == [5]
        assert list(record.refresh().clock) == [3, 5]


@pytest.mark.parametrize(
    ("column", "value"), [("epoch", "one"), ("tokens", b"7"), ("tokens", 0.5), ("wall_time", "soon"), ("step", b"1")]
)
def test_a_moment_that_is_no_number_is_refused_in_a_sentence(tmp_path, column, value):
    with RecordWriter.create(tmp_path / "r") as writer:
        writer.commit(0, entry(), epoch=0.5, tokens=3)
    connection = sqlite3.connect(tmp_path / "r" / "run.db")
    connection.execute(f"UPDATE frame SET {column} = ?", (value,))
    connection.commit()
    connection.close()
    with pytest.raises(RecordError, match="is damaged"):
        assert Record.open(tmp_path / "r").clock


@pytest.mark.parametrize("value", [b"1", "first", 0.5])
def test_steps_that_are_no_whole_numbers_are_refused(tmp_path, value):
    with RecordWriter.create(tmp_path / "r") as writer:
        writer.commit(0, entry())
    connection = sqlite3.connect(tmp_path / "r" / "run.db")
    connection.execute("UPDATE frame SET step = ?", (value,))
    connection.commit()
    connection.close()
    with pytest.raises(RecordError, match="is damaged"):
        assert Record.open(tmp_path / "r").steps


def test_text_without_an_end_is_refused(tmp_path):
    with RecordWriter.create(tmp_path / "r") as writer:
        writer.commit(0, entry())
    connection = sqlite3.connect(tmp_path / "r" / "run.db")
    connection.execute("INSERT INTO meta VALUES ('deep', ?)", ("[" * 100_000 + "]" * 100_000,))
    connection.commit()
    connection.close()
    with pytest.raises(RecordError, match="is damaged"):
        Record.open(tmp_path / "r")


def test_another_record_in_the_place_of_one_has_its_own_names(tmp_path):
    def made(folder, names):
        values = quantity(np.ones(2), units="1", long_name="x", dims="layer", coords={"layer": names})
        with RecordWriter.create(tmp_path / folder) as writer:
            writer.commit(0, [Entry("a", "x", values)])
        return tmp_path / folder / "run.db"

    first, second = made("first", ["conv1", "conv2"]), made("second", ["fc1", "fc2"])
    record = Record.open(first)
    assert record["a"]["x"].coords["layer"].values.tolist() == ["conv1", "conv2"]
    os.replace(second, first)
    assert record.refresh()["a"]["x"].coords["layer"].values.tolist() == ["fc1", "fc2"]
