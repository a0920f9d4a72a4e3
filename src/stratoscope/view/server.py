"""The server of the page: what is in the runs as JSON and arrays, and a stream that says when there is more.

| address | answer |
|---|---|
| `/` and the bundle's files | the page |
| `/api/runs` | the list of runs |
| `/api/runs/ID` | what a run holds (`view.index`) |
| `/api/runs/ID/charts?id=A&id=B` | charts with their numbers, by id |
| `/api/runs/ID/variables/KEY/NAME` | a variable with its numbers |
| `/api/events?run=ID` | a stream (server-sent events): the state of these runs whenever one changes |

Numbers travel as `view.wire` packs them, everything else as JSON. What belongs to a run carries its state as an `ETag`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anyio import to_thread
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from stratoscope.errors import StratoscopeError
from stratoscope.view.index import Contents
from stratoscope.view.security import LOOPBACK, Guard
from stratoscope.view.wire import pack

if TYPE_CHECKING:
    from starlette.requests import Request

    from stratoscope.view.runs import Run, Runs

BEAT = 1.0
"""Seconds between looks at what has changed."""

NAP = 0.2
"""Seconds after which a stream notices that the server stops."""

SILENCE = 15.0
"""Seconds after which something is sent even if nothing has changed, so that a dead connection is noticed."""

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
        self._contents: dict[str, Contents] = {}

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
            Route("/api/runs/{run}/variables/{key}/{name}", self._variable),
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
        """A file of the bundle, and nothing that is not in it."""
        path = (self._bundle / name).resolve()
        if not path.is_relative_to(self._bundle) or path.suffix not in FILES or not path.is_file():
            return PlainTextResponse("There is no such page.", 404)
        return Response(path.read_bytes(), media_type=FILES[path.suffix], headers={"cache-control": "no-cache"})

    # -- the runs ---------------------------------------------------------------------------------------------------

    def _list(self, _: Request) -> Response:
        return JSONResponse([run.summary() for run in self._runs.scan()])

    def _index(self, request: Request) -> Response:
        return self._answer(request, lambda contents: pack(contents.index()))

    def _charts(self, request: Request) -> Response:
        names = request.query_params.getlist("id")
        return self._answer(request, lambda contents: pack([contents.chart(name) for name in names]))

    def _variable(self, request: Request) -> Response:
        key, name = request.path_params["key"], request.path_params["name"]
        return self._answer(request, lambda contents: pack(contents.variable(key, name)))

    def _answer(self, request: Request, make: Callable[[Contents], bytes]) -> Response:
        """What is asked of a run; 304 where the page has it already."""
        try:
            run = self._runs[request.path_params["run"]]
        except KeyError:
            return PlainTextResponse("There is no such run.", 404)
        try:
            with run.lock:
                contents = self._of(run)
                tag = f'"{run.id}-{contents.seq}"'
                if request.headers.get("if-none-match") == tag:
                    return Response(status_code=304, headers={"etag": tag})
                body = make(contents)
        except KeyError as missing:
            return PlainTextResponse(f"The run holds no {str(missing.args[0])!r:.80}.", 404)
        except StratoscopeError as error:
            return PlainTextResponse(str(error), 409)
        return Response(body, media_type="application/octet-stream", headers={"etag": tag, "cache-control": "no-cache"})

    def _of(self, run: Run) -> Contents:
        """The run's contents as they are now; kept until the run changes."""
        record = run.record()
        kept = self._contents.get(run.id)
        if kept is None or kept.seq != record.seq:
            kept = self._contents[run.id] = Contents(record, run.id)
        return kept

    # -- changes ----------------------------------------------------------------------------------------------------

    async def _events(self, request: Request) -> Response:
        names = request.query_params.getlist("run")
        stream = StreamingResponse(self._changes(request, names), media_type="text/event-stream")
        stream.headers["cache-control"] = "no-store"
        return stream

    async def _changes(self, request: Request, names: list[str]) -> AsyncIterator[str]:
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

    def _state(self, names: list[str]) -> dict[str, Any]:
        every = self._runs.scan()
        return {"runs": len(every), "seq": {run.id: run.seq() for run in every if run.id in names}}
