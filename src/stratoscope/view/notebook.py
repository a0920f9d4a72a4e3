"""The page within a notebook: `show(record)` as the last expression of a cell.

The page itself is an output of HTML, so that the saved notebook keeps it, whoever opens it and with what. Beside it, where
`anywidget` is installed, stands a widget that draws nothing and holds no page: it passes the selection on, both ways.
"""

from __future__ import annotations

import secrets
import weakref
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from markupsafe import escape

from stratoscope.errors import RecordError, SettingError, StratoscopeError, require
from stratoscope.record.record import Record
from stratoscope.view.bundle import bundle
from stratoscope.view.export import page_of
from stratoscope.view.runs import Run, Runs
from stratoscope.view.selection import Cursor, Selection, read_selection, write_selection

SCRIPT = Path(__file__).with_name("notebook.js")
"""What passes messages between the page's frames and the widget."""

MOST_NAMED = 3
"""Runs that the plain text of a page names."""


class Page:
    """A page that a notebook shows; it is whole, so a saved notebook keeps it.

    What is selected in it can be read and set. That takes the extra `notebook`, and a cell of its own: while a cell runs,
    the notebook passes nothing on.

    Args:
        text: the page.
        height: of the frame, in pixels.
        says: in a line, what it shows.
    """

    def __init__(self, text: str, height: int, says: str = "Stratoscope") -> None:
        self._text, self._height, self._says = text, height, says
        # frames of one name are one page; no other page has it
        self._name = f"stratoscope-{secrets.token_hex(8)}"
        self._link: Any = None
        self._views: list[Any] = []

    @property
    def selection(self) -> Selection:
        """What is selected in the page; see `Selection`.

        Raises:
            StratoscopeError: if `anywidget` is not installed.
        """
        return read_selection(self._linked().state)

    @property
    def cursor(self) -> Cursor:
        """The step and the layer that the pointer is at, or else those that are selected.

        Raises:
            StratoscopeError: if `anywidget` is not installed.
        """
        said, chosen = self._linked().cursor, self.selection
        step, layer = said.get("step", chosen.step), said.get("layer", chosen.layer)
        return Cursor(step if isinstance(step, int) else None, layer if isinstance(layer, str) else None)

    def select(self, **changes: Any) -> None:
        """Select something else: `page.select(layer="conv1", step=100)`; the rest stays as it is.

        Args:
            **changes: attributes of `Selection`; `None` takes a choice back.

        Raises:
            SettingError: if there is no such attribute, or a value is none that the page could show.
            StratoscopeError: if `anywidget` is not installed.
        """
        self._linked().state = write_selection(self.selection.changed(**changes))

    def on_select(self, callback: Callable[[Selection], object]) -> Callable[[], None]:
        """Call back whenever the selection changes, whether by hand or by `select`.

        Args:
            callback: given the new selection.

        Returns:
            Ends it.

        Raises:
            StratoscopeError: if `anywidget` is not installed.
        """
        link = self._linked()

        def changed(change: dict[str, Any]) -> None:
            callback(read_selection(change["new"]))

        link.observe(changed, names="state")
        return lambda: link.unobserve(changed, names="state")

    def close(self) -> None:
        """Pass nothing on any longer; the page stays where it is shown."""
        if self._link is not None:
            self._end()
            self._link = None

    def __repr__(self) -> str:
        return self._says

    def _repr_html_(self) -> str:
        state = "" if self._link is None else self._link.state
        # its own frame, which may run its script and save files, and can reach nothing of the notebook
        return (
            f'<iframe srcdoc="{escape(self._text)}" sandbox="allow-scripts allow-downloads" title="Stratoscope" '
            f'name="{self._name}#{escape(state)}" style="width:100%;height:{self._height}px;border:1px solid #8888"></iframe>'
        )

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        return {"text/html": self._repr_html_(), "text/plain": self._says}

    def _ipython_display_(self) -> None:
        # two outputs: a front end shows one kind of an output only, and of a saved one whose widget is gone, nothing
        display = import_module("IPython.display").display
        display(self._repr_mimebundle_(), raw=True)
        try:
            link = self._linked()
        except StratoscopeError:
            return
        data, metadata = link._repr_mimebundle_()
        self._views.append(display(_BLANK | _without_text(data), metadata=metadata, raw=True, display_id=True))

    def _display_(self) -> Any:
        # what marimo asks for; it makes a widget where it shows one, and knows no outputs that are replaced later
        marimo = import_module("marimo")
        page = marimo.Html(self._repr_html_())
        try:
            return marimo.vstack([page, self._linked()], gap=0)
        except StratoscopeError:
            return page

    def _linked(self) -> Any:
        """The widget; its `state` is what the page shows.

        Raises:
            StratoscopeError: if `anywidget` is not installed.
        """
        if self._link is None:
            link, views = _link(require("anywidget", "notebook"))(frame=self._name), self._views
            # all widgets are kept somewhere for good; so this one had better not keep the page
            link.on_msg(lambda *_: _clear(views))
            self._end = weakref.finalize(self, _end, link, views)
            self._end.atexit = False
            self._link = link
        return self._link


_BLANK = {"text/html": ""}


def _clear(views: list[Any]) -> None:
    """Take the views of a widget away: it goes on without them, and a saved notebook cannot show them."""
    while views:
        views.pop().update(_BLANK, raw=True)


def _end(link: Any, views: list[Any]) -> None:
    _clear(views)
    link.close()


def _without_text(data: dict[str, Any]) -> dict[str, Any]:
    return {kind: value for kind, value in data.items() if kind != "text/plain"}


@cache
def _link(anywidget: Any) -> Any:
    """The class of the widget."""
    traits = require("traitlets", "notebook")
    body = {
        "__doc__": "What passes the selection on.",
        "_esm": SCRIPT.read_text(encoding="utf-8"),
        "frame": traits.Unicode("").tag(sync=True),
        "state": traits.Unicode("").tag(sync=True),
        "cursor": traits.Dict().tag(sync=True),
    }
    return type("Link", (anywidget.AnyWidget,), body)


def show(runs: Record | str | Path | Sequence[Record | str | Path], *, height: int = 700) -> Page:
    """The page of one run or several, as `stratoscope view` shows it, for a notebook.

    ```python
    from stratoscope.view.notebook import show

    page = show(w.record)
    page
    ```

    With the extra `notebook`, `page.selection` is what is selected in it, `page.select(layer="conv1")` selects, and
    `page.on_select(callback)` calls back.

    Args:
        runs: records or their folders.
        height: of the frame, in pixels; from 200 to 4000.

    Raises:
        SettingError: if the height is out of range.
        RecordError: if a run cannot be read.
        BundleError: if the page is not built and cannot be.
    """
    if not 200 <= height <= 4000:
        raise SettingError(f"height={height} must be from 200 to 4000 pixels.")
    given = [runs] if isinstance(runs, Record | str | Path) else list(runs)
    records = [(str(one.meta.get("name") or one.run_id), one) for one in given if isinstance(one, Record)]
    found = Runs([Path(one) for one in given if not isinstance(one, Record)], records)
    return Page(page_of(found, bundle()), height, _said(found))


def _said(runs: Runs) -> str:
    """What is shown, in a line: which runs, and how they were judged."""
    every = runs.scan()
    more = len(every) - MOST_NAMED
    rest = [f"{more} more"] if more > 0 else []
    return f"Stratoscope: {'; '.join([*(_verdict(run) for run in every[:MOST_NAMED]), *rest])}"


def _verdict(run: Run) -> str:
    from stratoscope.report.summary import verdict  # much to import for a line

    try:
        with run.reading() as record:
            name = " ".join(str(record.meta.get("name") or record.run_id or run.name).split())
            return f"{name}: {verdict(record.findings).rstrip('.')}"
    except RecordError as error:
        return f"{run.name}: {run.said(error)}"
    finally:
        run.rest()
