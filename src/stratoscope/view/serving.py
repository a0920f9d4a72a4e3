"""Listening: the server on its socket, its address, and the browser."""

from __future__ import annotations

import ipaddress
import socket
import threading
import webbrowser
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from stratoscope.errors import SettingError
from stratoscope.report.codes import meanings
from stratoscope.view.security import LOOPBACK, Guard, new_token
from stratoscope.view.server import View

if TYPE_CHECKING:
    import uvicorn

    from stratoscope.view.runs import Runs


EVERY = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}
"""What means all interfaces, and how this machine reaches itself then."""


class Serving:
    """A server that listens; used in a `with`, or through `serve`.

    Args:
        runs: what may be shown.
        bundle: the folder with the built page.
        host: address to listen at.
        port: where; 0 for a free one.

    Raises:
        SettingError: if the address cannot be listened at.

    Attributes:
        address: of the page, with the token.
        port: where it listens.
        token: the secret.
    """

    def __init__(self, runs: Runs, bundle: Path, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self.token, self.host = new_token(), host
        self._socket = _listening(host, port)
        self.port: int = self._socket.getsockname()[1]
        self._app = self._guarded(runs, bundle)
        self._server = self._uvicorn()
        self._thread = threading.Thread(target=self.run, name="view", daemon=True)

    @property
    def address(self) -> str:
        """Where the page is, with the token."""
        return self._address(self.token)

    def address_for_once(self) -> str:
        """Where the page is, with a secret that can be used once; another one each time."""
        return self._address(self._app.new_code())

    @property
    def open_to_others(self) -> bool:
        """Whether other machines can reach it."""
        return not _is_loopback(self.host)

    def run(self) -> None:
        """Serve until told to stop."""
        # what the first answer would wait for: all instruments, for what their codes mean
        threading.Thread(target=meanings, name="view-ahead", daemon=True).start()
        self._server.run(sockets=[self._socket])

    def __enter__(self) -> Serving:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(10)

    def _address(self, secret: str) -> str:
        return f"http://{_name(self.host)}:{self.port}/?token={secret}"

    def _guarded(self, runs: Runs, bundle: Path) -> Guard:
        hosts = (*LOOPBACK, *(_own_names(self.host) if self.open_to_others else [_name(self.host)]))
        view = View(runs, bundle, stopping=lambda: self._server.should_exit)
        return view.app(token=self.token, port=self.port, hosts=hosts)

    def _uvicorn(self) -> uvicorn.Server:
        import uvicorn

        config = uvicorn.Config(
            self._app, log_level="warning", access_log=False, lifespan="off", server_header=False, date_header=False,
            timeout_graceful_shutdown=3, ws="none",
        )  # fmt: skip
        return uvicorn.Server(config)


def serve(
    runs: Runs, bundle: Path, *, host: str = "127.0.0.1", port: int = 0, open_it: bool = True, tell: Callable[[str], None] = print
) -> None:  # fmt: skip
    """Serve until Ctrl-C.

    Args:
        runs: what may be shown.
        bundle: the folder with the built page.
        host: address to listen at.
        port: where; 0 for a free one.
        open_it: whether to open the page in the browser.
        tell: told the address.

    Raises:
        SettingError: if the address cannot be listened at.
    """
    serving = Serving(runs, bundle, host=host, port=port)
    if serving.open_to_others:
        tell(f"Everybody who can reach {host} and has the token can read these runs.")
    tell(f"View: {serving.address}\nCtrl-C ends it.")
    if open_it:
        threading.Timer(0.5, webbrowser.open, [serving.address_for_once()]).start()
    with suppress(KeyboardInterrupt):  # the way in which it is ended, and no trouble
        serving.run()


def _listening(host: str, port: int) -> socket.socket:
    listener = None
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(128)
    except (OSError, OverflowError) as error:
        if listener is not None:
            listener.close()
        why = getattr(error, "strerror", None) or str(error)
        raise SettingError(
            f"The page cannot be served at {host}:{port} ({why}); choose another --port or --host."
        ) from error
    return listener


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _name(host: str) -> str:
    """A host as it stands in an address; one that means all interfaces is reached as this machine."""
    if host in EVERY:
        return EVERY[host]
    return f"[{host}]" if ":" in host else host


def _own_names(host: str) -> tuple[str, ...]:
    """Names under which other machines call this one."""
    names = {_name(host), socket.gethostname(), socket.getfqdn()}
    if host in EVERY:
        names |= {_name(address) for address in _own_addresses()}
    return tuple(names)


def _own_addresses() -> set[str]:
    """Addresses of this machine, as far as its name leads to them, and the one from which it reaches others."""
    found = set()
    with suppress(OSError):
        found |= {str(entry[4][0]) for entry in socket.getaddrinfo(socket.gethostname(), None)}
    for family, beyond in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        # nothing is sent: this only asks which way a packet would leave
        with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((beyond, 9))
            found.add(str(probe.getsockname()[0]))
    return found
