"""Who may talk to the server: whoever has the token, from its own page, under its own name.

The address that is printed holds a random token. Opening it exchanges the token for a cookie that scripts cannot read and
that other sites' pages do not send; a program may send `Authorization: Bearer TOKEN` instead. The name in `Host` has to be
one of the server's own, so that a foreign name which resolves to this machine is refused (DNS rebinding), and a request
with an `Origin` has to come from the server's own page. The page may load nothing from elsewhere.

A browser does not send a strict cookie when a page of another site leads here, as a link in a notebook's or a mailbox's
page does. Such a visitor is told to load the page again, which then comes from here.

The browser that is opened for you gets an address with a code that works once in place of the token: what a program is
started with can be read by everybody on the machine.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY = "; ".join(
    (
        "default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self' data: blob:",
        "connect-src 'self'", "font-src 'self'", "worker-src 'self'", "base-uri 'none'", "form-action 'none'",
        "frame-ancestors 'none'",
    )
)  # fmt: skip
"""What the page may do."""

HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
"""Names of this machine that are always the server's own."""


def new_token() -> str:
    """256 random bits as text."""
    return secrets.token_urlsafe(32)


@dataclass(frozen=True)
class Guard:
    """Lets through what may come in, and marks what goes out. An ASGI application around another one.

    Attributes:
        app: the application.
        token: the secret.
        port: where the server listens.
        hosts: names under which it may be called, without port.
        codes: further secrets, each of which lets somebody in once.
    """

    app: ASGIApp
    token: str
    port: int
    hosts: tuple[str, ...] = LOOPBACK
    codes: set[str] = field(default_factory=set, repr=False)

    def new_code(self) -> str:
        """A secret that lets somebody in once."""
        code = new_token()
        self.codes.add(code)
        return code

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
            await send(message)

        app: ASGIApp = self._refusal(scope) or self._entrance(scope) or self.app
        await app(scope, receive, marked)

    @property
    def cookie(self) -> str:
        """Its name; a cookie knows no port, so that two servers of one machine need two names."""
        return f"stratoscope-{self.port}"

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        hosts = {host.lower() for host in self.hosts}
        names = {f"{host}:{self.port}" for host in hosts} | (hosts if self.port == 80 else set())
        if headers.getlist("host") != [headers.get("host")] or headers.get("host", "").lower() not in names:
            return PlainTextResponse("This server goes by another name; open the address that it printed.", 400)
        if not {origin.lower() for origin in headers.getlist("origin")} <= {f"http://{name}" for name in names}:
            return PlainTextResponse("Requests of other pages are refused.", 403)
        if scope["method"] not in ("GET", "HEAD"):
            return PlainTextResponse("This server is only read from.", 405, {"allow": "GET, HEAD"})
        return None

    def _entrance(self, scope: Scope) -> Response | None:
        """Exchange a token in the address for a cookie; refuse who has neither."""
        query = parse_qs(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
        given = query.pop("token", [None])[0]
        if given is not None:
            if not (self._fits(given) or self._spends(given)):
                return PlainTextResponse(
                    "The token in this address is not this server's; use the address it printed.", 403
                )
            rest = urlencode(query, doseq=True)
            # with one slash at its head: two would name another host
            response = RedirectResponse(f"/{scope['path'].lstrip('/')}" + (f"?{rest}" if rest else ""), 303)
            response.set_cookie(self.cookie, self.token, httponly=True, samesite="strict", path="/")
            return response
        headers = Headers(scope=scope)
        kind, _, own = headers.get("authorization", "").partition(" ")
        if (kind.lower() == "bearer" and self._fits(own.strip())) or any(map(self._fits, self._of_cookies(headers))):
            return None
        told = "Open the address that the server printed; its token lets you in."
        if headers.get("sec-fetch-site") == "cross-site" and headers.get("sec-fetch-mode") == "navigate":
            return HTMLResponse(f'<!doctype html><meta http-equiv="refresh" content="0"><title>View</title>{told}', 403)
        return PlainTextResponse(told, 403)

    def _of_cookies(self, headers: Headers) -> list[str]:
        """Every value under the cookie's name: cookies of other servers of this machine come as well, whatever is in them."""
        parts = [part.partition("=") for line in headers.getlist("cookie") for part in line.split(";")]
        return [value.strip() for name, _, value in parts if name.strip() == self.cookie]

    def _spends(self, given: str) -> bool:
        """Whether it is one of the codes, which then works no more."""
        found = [code for code in list(self.codes) if secrets.compare_digest(given.encode(), code.encode())]
        self.codes.difference_update(found)
        return bool(found)

    def _fits(self, given: str) -> bool:
        return secrets.compare_digest(given.encode(), self.token.encode())
