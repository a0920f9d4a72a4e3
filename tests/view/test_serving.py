"""Where the server listens, what it says, and what it opens."""

from __future__ import annotations

import threading

import pytest

from stratoscope.errors import SettingError
from stratoscope.view import serving as serving_module
from stratoscope.view.runs import Runs
from stratoscope.view.serving import Serving, serve


@pytest.fixture
def served(folder, bundle, monkeypatch):
    """Serves for a moment; gives what was told, and what was opened."""

    def called(**settings):
        told, opened = [], []
        monkeypatch.setattr(serving_module.webbrowser, "open", opened.append)
        monkeypatch.setattr(Serving, "run", lambda self: self._socket.close())
        timers = []
        monkeypatch.setattr(
            serving_module.threading, "Timer", lambda wait, act, given: timers.append((act, given)) or threading.Event()
        )
        monkeypatch.setattr(threading.Event, "start", lambda self: None, raising=False)
        serve(Runs([folder]), bundle, tell=told.append, **settings)
        for act, given in timers:
            act(*given)
        return told, opened

    return called


def test_the_browser_gets_an_address_that_works_once(served):
    (said,), (opened,) = served()
    printed = said.splitlines()[0].removeprefix("View: ")
    assert opened.split("token=")[0] == printed.split("token=")[0]
    assert opened != printed, "whoever lists the programs of this machine would see the token"
    assert served(open_it=False)[1] == []


def test_others_are_spoken_of_where_they_can_come_in(served):
    assert len(served(open_it=False)[0]) == 1
    first, second = served(open_it=False, host="0.0.0.0")[0]
    assert first == "Everybody who can reach 0.0.0.0 and has the token can read these runs."
    assert second.startswith("View: http://127.0.0.1:")


@pytest.mark.parametrize("port", [-1, 65536, 70000])
def test_a_port_that_there_is_not(folder, bundle, port):
    with pytest.raises(SettingError, match=f"{port}.*choose another --port"):
        Serving(Runs([folder]), bundle, port=port)


def test_all_names_of_this_machine_are_its_own_where_it_is_open(monkeypatch):
    monkeypatch.setattr(serving_module.socket, "gethostname", lambda: "box")
    monkeypatch.setattr(serving_module.socket, "getfqdn", lambda: "box.example")
    monkeypatch.setattr(serving_module, "_own_addresses", lambda: {"192.0.2.7", "2001:db8::7"})
    assert set(serving_module._own_names("0.0.0.0")) == {
        "127.0.0.1",
        "box",
        "box.example",
        "192.0.2.7",
        "[2001:db8::7]",
    }
    assert set(serving_module._own_names("192.0.2.7")) == {"192.0.2.7", "box", "box.example"}


def test_answers_say_nothing_of_the_server(ask):
    assert not {"server", "date"} & {name.lower() for name in ask("/").headers}


def test_its_end_is_waited_for(folder, bundle):
    with Serving(Runs([folder]), bundle) as serving:
        pass
    assert not serving._thread.is_alive()
