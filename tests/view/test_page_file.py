"""The page as one file, and in a notebook."""

from __future__ import annotations

import pytest
from browsing import drawn, until

from stratoscope.errors import SettingError
from stratoscope.record.record import Record
from stratoscope.view.export import export_page
from stratoscope.view.notebook import show
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
    assert trouble == []
    assert [url for url in loaded if not url.startswith(("file:", "data:", "blob:"))] == []
    page.close()


def test_a_notebook_shows_it_in_a_frame(browser, folder, built, tmp_path):
    html = show([Record.open(folder / "first"), folder / "deep"], height=650)._repr_html_()
    path = tmp_path / "notebook.html"
    path.write_text(f"<!doctype html><body>{html}</body>", encoding="utf-8")
    page = browser.new_page()
    trouble = []
    page.on("console", lambda message: trouble.append(message.text))
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.goto(path.as_uri())
    frame = page.frames[1]
    until(frame, "() => window.__view && window.__view.ready()")
    until(frame, "() => document.querySelectorAll('.runs li label').length === 2")
    frame.evaluate("() => document.querySelector('tbody tr:not(.spacer)').click()")
    until(frame, "() => window.__view.state().layer === 'conv1.weight'")
    assert page.locator("iframe").bounding_box()["height"] == pytest.approx(650, abs=3)
    assert trouble == []
    page.close()


def test_a_frame_of_no_height_is_refused(folder):
    with pytest.raises(SettingError, match="from 200 to 4000"):
        show(folder, height=10)
