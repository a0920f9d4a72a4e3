"""Runs to look at, and a server that shows them."""

from __future__ import annotations

import http.client
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from browsing import drawn, until

from stratoscope.findings import Finding, Outcome
from stratoscope.network.layers import Catalogue, Layer, Param
from stratoscope.record.entry import Entry
from stratoscope.record.quantity import quantity
from stratoscope.record.writer import RecordWriter
from stratoscope.view import bundle as page_bundle
from stratoscope.view.runs import Runs
from stratoscope.view.serving import Serving

LAYERS = (*(f"conv{number}" for number in range(1, 14)), "fc")


def layer(name: str, depth: int) -> Layer:
    param = Param(f"{name}.weight", name, (4, 4), "weight")
    return Layer(name, "linear", depth, (param,), (), None, "")


def write_step(writer: RecordWriter, step: int, shift: float = 0.0) -> None:
    values = np.arange(len(LAYERS)) + shift + 0.1 * step
    share = quantity(
        values, units="1", long_name="share", dims="layer", coords={"layer": list(LAYERS)}, source="arXiv:1610.01644"
    )
    loss = quantity(1.0 / (1 + step) + shift, units="nat", long_name="loss")
    writer.commit(step, [Entry("probe", "share", share), Entry("training", "loss", loss)])


def make_run(folder: Path, name: str, steps: int = 6, shift: float = 0.0, *, running: bool = False) -> RecordWriter:
    writer = RecordWriter.create(
        folder,
        {
            "name": name,
            "started": f"2026-01-0{1 + int(shift)}T00:00:00+0000",
            "config": {"rate": 0.1 * (1 + shift)},
            "instruments": {
                "probe": {"title": "Probes", "source": "arXiv:1610.01644", "method": "What $x$ says.", "settings": {}}
            },
        },
    )
    writer.write_layers(Catalogue({one: layer(one, depth) for depth, one in enumerate(LAYERS)}))
    writer.write_edges([(one, other, "data") for one, other in pairwise(LAYERS)])
    for step in range(steps):
        write_step(writer, step, shift)
    writer.replace_findings(
        [
            Finding(
                "PB002", "probe", "conv2", steps - 1, Outcome.ISSUE, "conv2 says <b>nothing</b>", "train longer",
                {"share": 0.1, "limit": 0.2}, "arXiv:1610.01644",
            )
        ]
    )  # fmt: skip
    if not running:
        writer.close("finished")
    return writer


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A page that stands in for the built one."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "index.html").write_text("<!doctype html><title>page</title>")
    (folder / "view.js").write_text("const end = '</script>'; // <!--")
    (folder / "view.css").write_text("body{margin:0}")
    (folder / ".sources").write_text("secret")
    (tmp_path / "outside.html").write_text("outside")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two runs, one of them deeper."""
    make_run(tmp_path / "runs" / "first", "first run")
    make_run(tmp_path / "runs" / "deep" / "second", "second run", shift=1.0)
    return tmp_path / "runs"


@pytest.fixture
def serving(folder: Path, bundle: Path) -> Iterator[Serving]:
    with Serving(Runs([folder]), bundle) as server:
        yield server


Ask = Callable[..., http.client.HTTPResponse]


@pytest.fixture
def ask(serving: Serving) -> Iterator[Ask]:
    """Asks the server for a path, with the token unless other headers are given."""
    open_ones: list[http.client.HTTPConnection | http.client.HTTPResponse] = []

    def asked(path: str, headers: dict[str, str] | None = None, method: str = "GET") -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection("127.0.0.1", serving.port, timeout=20)
        open_ones.append(connection)
        given = {"Authorization": f"Bearer {serving.token}"} if headers is None else headers
        connection.request(method, path, headers=given)
        answer = connection.getresponse()
        open_ones.append(answer)
        return answer

    yield asked
    for one in open_ones:
        one.close()


@pytest.fixture(scope="session")
def build() -> tuple[Callable[..., RecordWriter], Callable[..., None]]:
    """`make_run` and `write_step`, for tests that need other runs."""
    return make_run, write_step


@pytest.fixture(scope="session")
def built():
    """The built page, or a skip."""
    try:
        return page_bundle.bundle()
    except page_bundle.BundleError as error:
        pytest.skip(str(error))


@pytest.fixture
def server(folder, built):
    with Serving(Runs([folder]), built) as serving:
        yield serving


@pytest.fixture
def page(browser, server):
    context = browser.new_context(viewport={"width": 1400, "height": 1000}, color_scheme="light", accept_downloads=True)
    page = context.new_page()
    page.trouble, page.loaded = [], []
    page.on("console", lambda message: page.trouble.append(message.text) if message.type != "info" else None)
    page.on("pageerror", lambda error: page.trouble.append(str(error)))
    page.on("request", lambda request: page.loaded.append(request.url))
    page.goto(server.address)
    until(page, "() => window.__view && window.__view.ready()")
    drawn(page)
    yield page
    assert page.trouble == []
    own = f"127.0.0.1:{server.port}"
    assert {urlsplit(url).netloc for url in page.loaded if not url.startswith(("data:", "blob:"))} == {own}
    context.close()
