"""The server of the page: what is in the runs as JSON and arrays, and a stream that says when there is more.

| address | answer |
|---|---|
| `/` and the bundle's files | the page |
| `/api/runs` | the list of runs |
| `/api/runs/ID` | what a run holds (`view.index`) |
| `/api/runs/ID/charts?id=A&id=B` | charts with their numbers, by id; at most 64 |
| `/api/runs/ID/variable?key=KEY&name=NAME` | a variable of an instrument, with its numbers |
| `/api/events?run=ID` | a stream (server-sent events): the state of these runs whenever one changes |

Numbers travel as `view.wire` packs them, everything else as JSON. What belongs to a run carries its state as an `ETag`.
The contents of the runs that were looked at last are kept.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import threading
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anyio import to_thread
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from stratoscope.errors import StratoscopeError
from stratoscope.record.variables import NotRecordedError
from stratoscope.view.index import Contents
from stratoscope.view.security import LOOPBACK, Guard
from stratoscope.view.wire import pack

if TYPE_CHECKING:
    from starlette.requests import Request

    from stratoscope.record.record import Record
    from stratoscope.view.runs import Run, Runs

BEAT = 1.0
"""Seconds between looks at what has changed."""

NAP = 0.2
"""Seconds after which a stream notices that the server stops."""

SILENCE = 15.0
"""Seconds after which something is sent even if nothing has changed, so that a dead connection is noticed."""

KEPT = 12
"""Runs whose contents and files are held at most: more than are shown beside each other, fewer than fill the memory."""

MOST_CHARTS = 64
"""Charts in one answer at most."""

FILES = {".html": "text/html; charset=utf-8", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


class View:
    """The application.

    Args:
        runs: what may be shown.
        bundle: the folder with the built page.
        stopping: whether the server is about to end; streams then end themselves.
    """

    def __init__(self, runs: Runs, bundle: Path, stopping: Callable[[], bool] = lambda: False) -> None:
        self._runs, self._bundle, self._stopping = runs, bundle.resolve(), stopping
        self._contents: OrderedDict[str, tuple[Run, Contents]] = OrderedDict()
        self._lock = threading.Lock()
        # a server that comes after this one at the same port may say the same things otherwise
        self._birth = secrets.token_hex(4)

    def app(self, *, token: str, port: int, hosts: tuple[str, ...] = LOOPBACK) -> Guard:
        """An ASGI application that lets nobody in without the token.

        Args:
            token: the secret.
            port: where it will listen.
            hosts: the names under which it may be called.
        """
        routes = [
            Route("/", self._page),
            Route("/api/runs", self._list),
            Route("/api/runs/{run}", self._index),
            Route("/api/runs/{run}/charts", self._charts),
            Route("/api/runs/{run}/variable", self._variable),
            Route("/api/events", self._events),
            Route("/{file:path}", self._file),
        ]
        return Guard(Starlette(routes=routes), token, port, hosts)

    # -- the page ---------------------------------------------------------------------------------------------------

    def _page(self, _: Request) -> Response:
        return self._of_bundle("index.html")

    def _file(self, request: Request) -> Response:
        return self._of_bundle(request.path_params["file"])

    def _of_bundle(self, name: str) -> Response:
        """A file of the bundle, by its name in a list of them, so that no name leads out of it."""
        every = {path.relative_to(self._bundle).as_posix(): path for path in self._bundle.rglob("*") if path.is_file()}
        path = every.get(name)
        if path is None or path.suffix not in FILES:
            return PlainTextResponse("There is no such page.", 404)
        return Response(path.read_bytes(), media_type=FILES[path.suffix], headers={"cache-control": "no-cache"})

    # -- the runs ---------------------------------------------------------------------------------------------------

    def _list(self, _: Request) -> Response:
        # as ASCII, which holds any name
        text = json.dumps([run.summary() for run in self._runs.scan()], allow_nan=False)
        return Response(text, media_type="application/json", headers={"cache-control": "no-store"})

    def _index(self, request: Request) -> Response:
        return self._answer(request, lambda contents: pack(contents.index()))

    def _charts(self, request: Request) -> Response:
        names = request.query_params.getlist("id")
        if len(names) > MOST_CHARTS:
            return PlainTextResponse(f"These are {len(names)} charts; ask for {MOST_CHARTS} at a time.", 400)
        return self._answer(request, lambda contents: pack([contents.chart(name) for name in names]))

    def _variable(self, request: Request) -> Response:
        key, name = (request.query_params.get(what, "") for what in ("key", "name"))
        return self._answer(request, lambda contents: pack(contents.variable(key, name)))

    def _answer(self, request: Request, make: Callable[[Contents], bytes]) -> Response:
        """What is asked of a run; 304 where the page has it already."""
        try:
            run = self._runs[request.path_params["run"]]
        except KeyError:
            return PlainTextResponse("There is no such run.", 404)
        try:
            with run.reading() as record:
                contents = self._of(run, record)
                tag = f'"{self._birth}-{run.id}-{contents.state}"'
                if request.headers.get("if-none-match") == tag:
                    return Response(status_code=304, headers={"etag": tag})
                body = make(contents)
        except NotRecordedError as missing:
            return PlainTextResponse(str(missing), 404)
        except StratoscopeError as error:
            return PlainTextResponse(run.said(error), 409)
        return Response(body, media_type="application/octet-stream", headers={"etag": tag, "cache-control": "no-cache"})

    def _of(self, run: Run, record: Record) -> Contents:
        """The run's contents as its record is now; kept until that changes or enough others were looked at since."""
        with self._lock:
            known = self._contents.pop(run.id, None)
            contents = known[1] if known is not None and known[1].shows(record) else Contents(record, run.id)
            self._contents[run.id] = run, contents
            others = [self._contents.popitem(last=False)[1][0] for _ in range(len(self._contents) - KEPT)]
        for other in others:
            if other.lock.acquire(blocking=False):  # one that is being read at this moment stays open
                other.rest()
                other.lock.release()
        return contents

    # -- changes ----------------------------------------------------------------------------------------------------

    async def _events(self, request: Request) -> Response:
        if request.method == "HEAD":
            return Response(media_type="text/event-stream")
        names = frozenset(request.query_params.getlist("run"))
        stream = StreamingResponse(self._changes(request, names), media_type="text/event-stream")
        stream.headers["cache-control"] = "no-store"
        return stream

    async def _changes(self, request: Request, names: frozenset[str]) -> AsyncIterator[str]:
        before, silent, waited = None, 0.0, BEAT
        while not self._stopping() and not await request.is_disconnected():
            if waited >= BEAT:
                now = await to_thread.run_sync(self._state, names)
                silent, waited = silent + BEAT, 0.0
                if now != before:
                    yield f"data: {json.dumps(now)}\n\n"
                    before, silent = now, 0.0
                elif silent >= SILENCE:
                    yield ": still here\n\n"
                    silent = 0.0
            await asyncio.sleep(NAP)
            waited += NAP

    def _state(self, names: frozenset[str]) -> dict[str, Any]:
        every = self._runs.scan()
        return {"runs": len(every), "seq": {run.id: run.seq() for run in every if run.id in names}}
