"""The page as one file."""

from __future__ import annotations

import pytest
from browsing import drawn, until

from stratoscope.view.export import export_page
from stratoscope.view.runs import Runs

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("view")]


def test_one_file_opens_from_disk(browser, built, folder, tmp_path):
    path = export_page(Runs([folder]), built, tmp_path / "out" / "page.html")
    page = browser.new_page()
    trouble, loaded = [], []
    page.on("console", lambda message: trouble.append(message.text))
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("request", lambda request: loaded.append(request.url))
    page.goto(path.as_uri())
    until(page, "() => window.__view && window.__view.ready()")
    drawn(page)
    assert page.locator(".runs li label").count() == 2
    # tables and profiles follow the step as they do with a server
    number = "() => document.querySelector('.layers tbody tr:not(.spacer) td').innerText"
    assert page.evaluate(number) in ("0.5", "1.5")
    page.keyboard.press("Home")
    until(page, f"() => ['0', '1'].includes(({number})())")
    until(page, "() => document.querySelector('[data-chart^=probe-share-depth] .behind')")
    assert trouble == []
    assert [url for url in loaded if not url.startswith(("file:", "data:", "blob:"))] == []
    page.close()
