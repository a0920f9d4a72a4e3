"""Files that a stranger made, or that another release did."""

import sqlite3
import time

import numpy as np
import pytest
from safetensors.numpy import save_file

from stratoscope.errors import RecordError
from stratoscope.record import Entry, Record, RecordWriter, schema
from stratoscope.record.quantity import quantity


@pytest.fixture
def folder(tmp_path):
    """A run with a small and a large variable."""
    values = quantity([1.0, 2.0], units="1", long_name="x", dims="layer", coords={"layer": ["fc", "out"]})
    large = quantity(np.arange(10**5, dtype="f4"), units="1", long_name="large", dims="bin")
    with RecordWriter.create(tmp_path / "r") as writer:
        writer.commit(0, [Entry("a", "x", values), Entry("a", "large", large)])
    return tmp_path / "r"


def change(folder, *statements):
    connection = sqlite3.connect(folder / "run.db")
    connection.execute("PRAGMA ignore_check_constraints = ON")
    with connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


POINT = "UPDATE point SET {} WHERE series = (SELECT id FROM series WHERE name = '{}')"
SERIES = "UPDATE series SET {} WHERE name = 'x'"


@pytest.mark.parametrize(
    "statement",
    [
        POINT.format("data = x'00'", "x"),
        POINT.format("data = zeroblob(24)", "x"),
        POINT.format("data = 'sixteen letters!'", "x"),
        POINT.format("data = 7", "x"),
        POINT.format("data = NULL", "x"),
        POINT.format("data = zeroblob(70000000)", "x"),
        POINT.format("step = 'soon'", "x"),
        POINT.format("step = 1e30", "x"),
        SERIES.format("dtype = 'O'"),
        SERIES.format("dtype = 'f4'"),
        SERIES.format("axes = '[99]'"),
        SERIES.format("axes = '[]'"),
        SERIES.format("axes = '[\"1\"]'"),
        SERIES.format("axes = 'x'"),
        SERIES.format('dims = \'["a", "b"]\''),
        SERIES.format("dims = '[3]'"),
        SERIES.format("attrs = '[]'"),
        SERIES.format("attrs = '{'"),
        SERIES.format("name = x'ff'"),
        "UPDATE axis SET members = '{\"count\":[1000000000000000]}'",
        'UPDATE axis SET members = \'{"stacked":[["a",60000000],["b",60000000]]}\'',
        "UPDATE axis SET members = 'x'",
    ],
)
def test_damaged_numbers_are_refused_in_one_sentence(folder, statement):
    change(folder, statement)
    began = time.monotonic()
    with pytest.raises(RecordError) as caught:
        record = Record.open(folder)
        for group in record.values():
            for name in group:
                assert group[name].size >= 0
    assert str(folder) in str(caught.value) or "axis" in str(caught.value)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("statement", "read"),
    [
        ("INSERT INTO meta VALUES ('a', '{')", lambda record: record.meta),
        (
            "INSERT INTO finding VALUES (1,NULL,'C','a',NULL,0,'nonsense','','','{}','',NULL)",
            lambda record: record.findings,
        ),
        (
            "INSERT INTO finding VALUES (1,NULL,'C','a',NULL,0,'issue','','','[]','',NULL)",
            lambda record: record.findings,
        ),
        ("INSERT INTO finding VALUES (1,NULL,'C','a',NULL,0,'issue','','','','',NULL)", lambda record: record.findings),
        ("INSERT INTO layer VALUES (1,'fc','linear',0,NULL,3,'{')", lambda record: record.layers),
    ],
)
def test_damaged_texts_are_refused_in_one_sentence(folder, statement, read):
    change(folder, statement)
    with pytest.raises(RecordError, match="damaged"):
        read(Record.open(folder))


@pytest.mark.parametrize(
    "name", ["../secret.safetensors", "/etc/passwd", "x.safetensors", "0000-000000.safetensors/../a", ""]
)
def test_array_files_are_plain_names(folder, tmp_path, name):
    save_file({"t0": np.arange(10**5, dtype="f4")}, tmp_path / "r" / "secret.safetensors")
    change(folder, POINT.format(f"file = '{name}'", "large"))
    with pytest.raises(RecordError, match="do not trust it"):
        Record.open(folder)["a"]["large"]


def test_array_files_are_no_links(folder, tmp_path):
    file = folder / "arrays" / "0000-000000.safetensors"
    file.rename(tmp_path / "elsewhere.safetensors")
    file.symlink_to(tmp_path / "elsewhere.safetensors")
    with pytest.raises(RecordError, match="do not trust it"):
        Record.open(folder)["a"]["large"]
    file.unlink()
    (folder / "arrays").rename(tmp_path / "arrays")
    (tmp_path / "elsewhere.safetensors").rename(tmp_path / "arrays" / file.name)
    (folder / "arrays").symlink_to(tmp_path / "arrays")
    with pytest.raises(RecordError, match="do not trust it"):
        Record.open(folder)["a"]["large"]


@pytest.mark.parametrize(
    "tensors",
    [
        {"t0": np.arange(9, dtype="f4")},
        {"t0": np.arange(10**5, dtype="f8")},
        {"other": np.arange(10**5, dtype="f4")},
        None,
    ],
)
def test_array_files_hold_what_the_record_says(folder, tensors):
    file = folder / "arrays" / "0000-000000.safetensors"
    file.unlink()
    if tensors is not None:
        save_file(tensors, file)
    with pytest.raises(RecordError, match="whole"):
        Record.open(folder)["a"]["large"]


@pytest.mark.parametrize("content", [b"", b"not a database at all" * 99, b"SQLite format 3\0" + bytes(5000)])
def test_files_that_are_no_record(tmp_path, content):
    (tmp_path / "run.db").write_bytes(content)
    with pytest.raises(RecordError, match=r"run\.db"):
        Record.open(tmp_path)
    with pytest.raises(RecordError):
        RecordWriter.resume(tmp_path)
    assert not (tmp_path / "run.lock").exists()


def test_nothing_there(tmp_path):
    with pytest.raises(RecordError, match="There is no record at"):
        Record.open(tmp_path)
    with pytest.raises(RecordError, match="There is no record at"):
        Record.open(tmp_path / "nothing")


def test_other_databases_are_no_record(tmp_path):
    sqlite3.connect(tmp_path / "run.db").execute("CREATE TABLE a (b)")
    for open_it in (Record.open, RecordWriter.resume):
        with pytest.raises(RecordError, match="not a record of Stratoscope"):
            open_it(tmp_path)


@pytest.mark.parametrize(
    "statements",
    [
        ["DROP TABLE coverage"],
        ["ALTER TABLE point RENAME TO points", "CREATE VIEW point AS SELECT * FROM points"],
    ],
)
def test_other_tables_are_no_record(folder, statements):
    change(folder, *statements)
    for open_it in (Record.open, RecordWriter.resume):
        with pytest.raises(RecordError, match="has no table"):
            open_it(folder)


def test_names_in_a_path_are_not_read_as_options(tmp_path):
    with RecordWriter.create(tmp_path / "a?mode=rwc#%41 b") as writer:
        writer.commit(0, [])
    assert Record.open(tmp_path / "a?mode=rwc#%41 b").steps == (0,)
    assert Record.open(tmp_path / "a?mode=rwc#%41 b" / "run.db").steps == (0,)


# -- versions ---------------------------------------------------------------------------------------------------------


def test_a_newer_record_says_to_upgrade(folder):
    change(folder, f"PRAGMA user_version = {schema.VERSION + 1}")
    for open_it in (Record.open, RecordWriter.resume):
        with pytest.raises(RecordError, match="pip install --upgrade stratoscope"):
            open_it(folder)
    assert not (folder / "run.lock").exists()


def test_a_record_older_than_any_migration_is_refused(folder):
    change(folder, "PRAGMA user_version = 0")
    for open_it in (Record.open, RecordWriter.resume):
        with pytest.raises(RecordError, match="can no longer read"):
            open_it(folder)


def test_an_older_record_is_migrated(folder, monkeypatch):
    """Reading migrates a copy; resuming migrates the file."""
    change(
        folder, "PRAGMA user_version = 0", "ALTER TABLE meta RENAME TO about", "ALTER TABLE frame DROP COLUMN tokens"
    )
    monkeypatch.setitem(schema.MIGRATIONS, 0, lambda connection: connection.execute("ALTER TABLE about RENAME TO meta"))
    record = Record.open(folder)
    assert record["a"]["x"].values.tolist() == [[1.0, 2.0]]
    assert record["a"]["large"].values[0, 7] == 7
    assert record.meta["status"] == "finished"
    assert sqlite3.connect(folder / "run.db").execute("PRAGMA user_version").fetchone() == (0,)
    with RecordWriter.resume(folder) as writer:
        writer.commit(1, [])
    assert sqlite3.connect(folder / "run.db").execute("PRAGMA user_version").fetchone() == (schema.VERSION,)
    assert Record.open(folder).steps == (0, 1)


def test_a_migration_that_fails_changes_nothing(folder, monkeypatch):
    def fails(connection):
        connection.execute("DROP TABLE meta")
        raise ValueError("no")

    change(folder, "PRAGMA user_version = 0")
    monkeypatch.setitem(schema.MIGRATIONS, 0, fails)
    with pytest.raises(ValueError, match="no"):
        RecordWriter.resume(folder)
    assert sqlite3.connect(folder / "run.db").execute("SELECT count(*) FROM meta").fetchone()[0] > 0
    assert not (folder / "run.lock").exists()
