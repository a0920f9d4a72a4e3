"""What the server answers: the list, what a run holds, charts, variables, and a stream of changes."""

from __future__ import annotations

import http.client
import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit

import numpy as np
import pytest

from stratoscope.errors import StratoscopeError
from stratoscope.network.layers import Catalogue
from stratoscope.record.entry import Entry
from stratoscope.record.quantity import quantity
from stratoscope.record.record import Record
from stratoscope.record.writer import RecordWriter
from stratoscope.report.codes import meanings
from stratoscope.view import server as server_module
from stratoscope.view.export import page_of
from stratoscope.view.runs import Runs
from stratoscope.view.serving import Serving
from stratoscope.view.wire import unpack


@contextmanager
def answer_of(serving, path):
    connection = http.client.HTTPConnection("127.0.0.1", serving.port, timeout=20)
    connection.request("GET", path, headers={"Authorization": f"Bearer {serving.token}"})
    answer = connection.getresponse()
    yield answer
    answer.close()
    connection.close()


def got(ask, path, status=200):
    answer = ask(path)
    body = answer.read()
    assert answer.status == status, body[:300]
    return unpack(body) if answer.headers["content-type"] == "application/octet-stream" else body.decode()


def test_the_list(ask):
    answer = ask("/api/runs")
    assert answer.headers["cache-control"] == "no-store"
    runs = {run["id"]: run for run in json.loads(answer.read())}
    assert set(runs) == {"first", "deep-second"}
    assert runs["deep-second"]["config"] == {"rate": 0.2}


def test_what_a_run_holds(ask):
    index = got(ask, "/api/runs/first")
    assert index["steps"] == [0, 1, 2, 3, 4, 5]
    assert [layer["name"] for layer in index["layers"]][:2] == ["conv1", "conv2"]
    assert index["edges"][0] == ["conv1", "conv2", "data"]
    assert {group["key"] for group in index["groups"]} == {"probe", "training"}
    (finding,) = index["findings"]
    assert (finding["code"], finding["layer"], finding["evidence"]) == ("PB002", "conv2", {"share": 0.1, "limit": 0.2})
    assert index["said"][0]["items"] == ["f0"]
    assert {head["instrument"] for head in index["charts"]} == {"probe", "training"}
    assert len(index["table"]["rows"]) >= 14
    assert not index["live"]


def test_charts_carry_the_numbers_of_the_record(ask, folder):
    heads = got(ask, "/api/runs/first")["charts"]
    ids = [head["id"] for head in heads]
    charts = got(ask, "/api/runs/first/charts?" + "&".join(f"id={name}" for name in ids))
    assert [chart["id"] for chart in charts] == ids
    cells = next(mark for chart in charts for mark in chart["marks"] if mark["mark"] == "cells")
    measured = Record.open(folder / "first")["probe"]["share"].values
    np.testing.assert_array_equal(np.sort(cells["values"].ravel()), np.sort(np.asarray(measured).ravel()))


def test_a_variable_carries_the_numbers_of_the_record(ask):
    found = got(ask, "/api/runs/first/variable?key=training&name=loss")
    np.testing.assert_array_equal(found["values"].ravel(), 1 / (1 + np.arange(6)))
    assert found["measured"].all()
    assert found["units"] == "nat"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/runs/other", 404),
        ("/api/runs/first/charts?id=other", 404),
        ("/api/runs/first/charts?id=probe-share-map&id=../x", 404),
        ("/api/runs/first/variable", 404),
        ("/api/runs/first/variable?key=probe", 404),
        ("/api/runs/first/variable?key=other&name=share", 404),
        ("/api/runs/first/variable?key=probe%00&name=share", 404),
        ("/api/runs/first%00", 404),
        ("/api/runs/first%2fcharts?id=other", 404),
        ("/api/runs/FIRST", 404),
        ("/api/runs/" + "x" * 5000, 404),
        ("/api/runs/first/charts?" + "id=probe-share-map&" * 65, 400),
    ],
)
def test_what_is_not_there_is_said_in_a_sentence(ask, path, status):
    said = got(ask, path, status)
    assert said.endswith(".")
    assert "Traceback" not in said
    assert len(said) < 300


def test_no_charts_are_asked_for(ask):
    assert got(ask, "/api/runs/first/charts") == []


def test_a_head_has_no_body(ask):
    for path in ("/", "/api/runs", "/api/runs/first", "/api/events?run=first"):
        answer = ask(path, method="HEAD")
        assert (answer.status, answer.read()) == (200, b"")


def test_what_has_not_changed_is_not_sent_again(serving, ask, folder):
    first = ask("/api/runs/first")
    tag = first.headers["etag"]
    assert first.read()
    own = {"Authorization": f"Bearer {serving.token}", "If-None-Match": tag}
    again = ask("/api/runs/first", headers=own)
    assert (again.status, again.headers["etag"], again.read()) == (304, tag, b"")
    assert ask("/api/runs/deep-second", headers=own).status == 200
    shutil.rmtree(folder / "first")
    shutil.copytree(folder / "deep" / "second", folder / "first")  # as many changes, and another run
    other = ask("/api/runs/first", headers=own)
    assert other.status == 200
    assert unpack(other.read())["name"] == "second run"


def test_another_server_at_the_same_port_has_other_tags(folder, bundle):
    def tag():
        with Serving(Runs([folder]), bundle) as serving, answer_of(serving, "/api/runs/first") as answer:
            return answer.headers["etag"]

    assert tag() != tag()


def lines(answer, count, seconds=20):
    """The next states that a stream tells."""
    found, end = [], time.monotonic() + seconds
    while len(found) < count and time.monotonic() < end:
        line = answer.readline().decode()
        if line.startswith("data:"):
            found.append(json.loads(line[5:]))
    return found


def test_changes_are_told(tmp_path, bundle, build):
    make_run, write_step = build
    writer = make_run(tmp_path / "live", "live", 2, running=True)
    with ExitStack() as later:
        with Serving(Runs([tmp_path]), bundle) as serving:
            answer = later.enter_context(answer_of(serving, "/api/events?run=live&run=no"))
            assert answer.headers["content-type"].startswith("text/event-stream")
            (first,) = lines(answer, 1)
            assert (first["runs"], set(first["seq"])) == (1, {"live"})
            write_step(writer, 2)
            (second,) = lines(answer, 1)
            assert second["seq"]["live"] > first["seq"]["live"]
            make_run(tmp_path / "other", "other", 1)
            (third,) = lines(answer, 1)
            assert third["runs"] == 2
        assert answer.read().strip() == b""  # the server is gone, and so is the stream
    writer.close("finished")


def test_a_server_with_open_streams_ends_soon(folder, bundle):
    with ExitStack() as later:
        with Serving(Runs([folder]), bundle) as serving:
            answers = [later.enter_context(answer_of(serving, "/api/events?run=first")) for _ in range(3)]
            assert all(lines(answer, 1) for answer in answers)
        assert not [thread for thread in threading.enumerate() if thread.name == "view"]
        assert all(answer.read().strip() == b"" for answer in answers)


SERVE = """
import sys
from pathlib import Path
from stratoscope.view.runs import Runs
from stratoscope.view.serving import serve
serve(Runs([Path(sys.argv[1])]), Path(sys.argv[2]), open_it=False, tell=lambda what: print(what, flush=True))
print("over")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="a signal cannot be sent to one process there")
def test_ctrl_c_ends_it_without_a_word(folder, bundle):
    command = [sys.executable, "-c", SERVE, str(folder), str(bundle)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        address = urlsplit(process.stdout.readline().split()[-1])
        assert address.query.startswith("token=")
        assert process.stdout.readline() == "Ctrl-C ends it.\n"
        connection = http.client.HTTPConnection(address.hostname, address.port, timeout=30)
        connection.request("GET", "/")  # answered once it serves
        with connection.getresponse() as answer:
            assert answer.status == 403
        connection.close()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, "over\n", "")


def test_a_damaged_run_and_one_that_vanished_are_said_without_their_place(ask, folder):
    assert ask("/api/runs/first").read()
    (folder / "first" / "run.db").write_bytes(b"no database")
    shutil.rmtree(folder / "deep" / "second")
    for run, what in (("first", "copy that is whole"), ("deep-second", "no longer there")):
        said = got(ask, f"/api/runs/{run}", 409)
        assert what in said
        assert str(folder) not in said
    assert [run["status"] for run in json.loads(ask("/api/runs").read())] == ["unreadable", "unreadable"]


def test_only_some_contents_are_kept(tmp_path, bundle, build, monkeypatch):
    monkeypatch.setattr(server_module, "KEPT", 2)
    for number in range(5):
        build[0](tmp_path / f"run{number}", f"run {number}", 1)
    runs = Runs([tmp_path])
    view = server_module.View(runs, bundle)
    for run in [*runs.scan(), *runs.scan()[:2]]:
        with run.reading() as record:
            view._of(run, record).index()
    assert list(view._contents) == ["run0", "run1"]
    assert sorted(run.id for run in runs.scan() if run._record is not None) == ["run0", "run1"]


def test_many_ask_at_once_while_a_run_is_written(tmp_path, bundle, build):
    make_run, write_step = build
    writer = make_run(tmp_path / "live", "live", 2, running=True)
    troubles = []
    with Serving(Runs([tmp_path]), bundle) as serving:

        def reader():
            connection = http.client.HTTPConnection("127.0.0.1", serving.port, timeout=60)
            for path in ("/api/runs", "/api/runs/live", "/api/runs/live/variable?key=probe&name=share") * 4:
                connection.request("GET", path, headers={"Authorization": f"Bearer {serving.token}"})
                answer = connection.getresponse()
                body = answer.read()
                if answer.status != 200:
                    troubles.append(body)
            connection.close()

        threads = [threading.Thread(target=reader) for _ in range(6)]
        for thread in threads:
            thread.start()
        for step in range(2, 12):
            write_step(writer, step)
        for thread in threads:
            thread.join(60)
    writer.close("finished")
    assert troubles == []


def lone(folder, writer_of):
    with RecordWriter.create(folder, {"name": "名前"}) as writer:
        writer_of(writer)
    return folder


def nothing(_):
    pass


def without_layers(writer):
    writer.write_layers(Catalogue({}))
    writer.commit(0, [Entry("training", "loss", quantity(1.0, units="nat", long_name="потери"))])


def no_numbers(writer):
    for step in range(3):
        writer.commit(step, [Entry("training", "loss", quantity(float("nan"), units="nat", long_name="loss"))])


def odd_names(writer):
    share = quantity([1.0, 2.0], units="1", long_name="доля", dims="layer", coords={"layer": ["слой/1", "層"]})
    writer.commit(0, [Entry("зонд", "a/b доля", share)])


@pytest.mark.parametrize("kind", [nothing, without_layers, no_numbers, odd_names])
def test_runs_out_of_the_ordinary_are_answered(tmp_path, bundle, kind):
    lone(tmp_path / "run", kind)
    with Serving(Runs([tmp_path]), bundle) as serving:
        connection = http.client.HTTPConnection("127.0.0.1", serving.port, timeout=20)

        def asked(path):
            connection.request("GET", path, headers={"Authorization": f"Bearer {serving.token}"})
            answer = connection.getresponse()
            assert answer.status == 200
            return answer.read()

        assert json.loads(asked("/api/runs"))[0]["name"].startswith("名前")
        index = unpack(asked("/api/runs/run"))
        ids = "&".join(f"id={head['id']}" for head in index["charts"])
        for chart in unpack(asked(f"/api/runs/run/charts?{ids}")):
            assert chart["marks"]
        if kind is odd_names:
            name = "key=%D0%B7%D0%BE%D0%BD%D0%B4&name=a/b%20%D0%B4%D0%BE%D0%BB%D1%8F"
            assert unpack(asked(f"/api/runs/run/variable?{name}"))["values"].ravel().tolist() == [1.0, 2.0]
        connection.close()
    assert "名前" in page_of(Runs([tmp_path]), bundle)


def test_what_takes_long_is_begun_before_anybody_asks(folder, bundle):
    meanings.cache_clear()
    with Serving(Runs([folder]), bundle):
        end = time.monotonic() + 30
        while not meanings.cache_info().currsize and time.monotonic() < end:
            time.sleep(0.02)
    assert meanings.cache_info().currsize == 1


def test_a_silent_stream_says_that_it_is_there(folder, bundle, monkeypatch):
    for name, value in (("BEAT", 0.05), ("NAP", 0.05), ("SILENCE", 0.2)):
        monkeypatch.setattr(server_module, name, value)
    with Serving(Runs([folder]), bundle) as serving, answer_of(serving, "/api/events?run=first") as answer:
        assert answer.headers["cache-control"] == "no-store"
        said = [answer.readline() for _ in range(4)]
    assert said[0].startswith(b"data: ")
    assert said[2] == b": still here\n"


def test_what_is_kept_is_asked_after_each_time(ask):
    for path in ("/", "/view.js", "/api/runs/first"):
        assert ask(path).headers["cache-control"] == "no-cache"


def test_an_error_on_the_way_is_said_without_the_place(ask, folder, monkeypatch):
    def broken(contents):
        raise StratoscopeError(f"{folder / 'first'} broke.")

    monkeypatch.setattr(server_module.Contents, "index", broken)
    assert got(ask, "/api/runs/first", 409) == "first broke."
