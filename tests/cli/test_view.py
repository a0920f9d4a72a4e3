"""`stratoscope view` where it cannot start, and `--export`."""

from __future__ import annotations

import socket
import sys

import pytest

from stratoscope.cli.main import main
from stratoscope.record.entry import Entry
from stratoscope.record.quantity import quantity
from stratoscope.record.writer import RecordWriter
from stratoscope.view import bundle as bundle_module


@pytest.fixture
def view(monkeypatch, tmp_path, capsys):
    """Runs `stratoscope view`; gives the exit code, and what was printed on either side."""
    page = tmp_path / "bundle"
    page.mkdir()
    (page / "index.html").write_text("<!doctype html>")
    (page / "view.js").write_text("1")
    (page / "view.css").write_text("")
    monkeypatch.setattr(bundle_module, "bundle", lambda tell: page)

    def called(*arguments):
        monkeypatch.setattr(sys, "argv", ["stratoscope", "view", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        said = capsys.readouterr()
        return left.value.code, said.out, said.err

    return called


@pytest.fixture
def run(tmp_path):
    with RecordWriter.create(tmp_path / "runs" / "one", {"name": "one"}) as writer:
        writer.commit(0, [Entry("training", "loss", quantity(1.0, units="nat", long_name="loss"))])
    return tmp_path / "runs" / "one"


def refused(answer, *parts):
    code, out, err = answer
    assert code == 2
    assert out == ""
    assert err.count("\n") == 1
    assert "fault of stratoscope" not in err
    for part in parts:
        assert part in err


def test_a_path_that_is_not_there(view, tmp_path):
    refused(view(tmp_path / "nothing", "--no-open"), "There is no run", "nothing")


def test_a_folder_without_a_run(view, tmp_path):
    (tmp_path / "empty").mkdir()
    refused(view(tmp_path / "empty", "--no-open"), "There is no run", "run.db")


def test_a_file_that_is_no_checkpoint(view, tmp_path):
    (tmp_path / "notes.txt").write_text("notes")
    refused(view(tmp_path / "notes.txt", "--no-open"), "notes.txt")


def test_a_port_that_is_taken(view, run):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        refused(view(run, "--no-open", "--port", taken.getsockname()[1]), "choose another --port")


@pytest.mark.parametrize("host", ["no.such.host.invalid", "300.1.1.1", "192.0.2.1"])
def test_an_address_that_is_not_ours(view, run, host):
    refused(view(run, "--no-open", "--host", host), host)


def test_a_port_out_of_range(view, run):
    code, _, err = view(run, "--port", 70000)
    assert code == 2
    assert "--port" in err


@pytest.mark.parametrize("path", ["one", "one/run.db"])
def test_the_page_as_one_file(view, run, tmp_path, path):
    page = tmp_path / "out" / "page.html"
    code, out, err = view(run.parent / path, "--export", page)
    assert (code, err) == (0, "")
    assert out == f"Page: {page}\n"
    assert "<title>one" in page.read_text()


def test_an_export_of_a_run_that_cannot_be_read(view, run, tmp_path):
    (run / "run.db").write_bytes(b"no database")
    refused(view(run, "--export", tmp_path / "page.html"), "nothing to show")
    assert not (tmp_path / "page.html").exists()


def test_an_export_beside_a_run_that_cannot_be_read(view, run, tmp_path):
    (run.parent / "broken").mkdir()
    (run.parent / "broken" / "run.db").write_bytes(b"no database")
    code, _, _ = view(run.parent, "--export", tmp_path / "page.html")
    assert code == 0
    assert "unreadable" in (tmp_path / "page.html").read_text()


def test_a_place_that_cannot_be_written(view, run, tmp_path):
    (tmp_path / "taken").write_text("a file")
    refused(view(run, "--export", tmp_path / "taken" / "page.html"), "cannot be written")
