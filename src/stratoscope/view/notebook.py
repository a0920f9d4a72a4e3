"""The page within a notebook: `show(record)` as the last expression of a cell."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from markupsafe import escape

from stratoscope.errors import SettingError
from stratoscope.record.record import Record
from stratoscope.view.bundle import bundle
from stratoscope.view.export import page_of
from stratoscope.view.runs import Runs


class Page:
    """A page that a notebook shows; it is whole, so a saved notebook keeps it.

    Args:
        text: the page.
        height: of the frame, in pixels.
    """

    def __init__(self, text: str, height: int) -> None:
        self._text, self._height = text, height

    def _repr_html_(self) -> str:
        # its own frame, which may run its script and save files, and can reach nothing of the notebook
        return (
            f'<iframe srcdoc="{escape(self._text)}" sandbox="allow-scripts allow-downloads" title="Stratoscope" '
            f'style="width:100%;height:{self._height}px;border:1px solid #8888"></iframe>'
        )


def show(runs: Record | str | Path | Sequence[Record | str | Path], *, height: int = 700) -> Page:
    """The page of one run or several, as `stratoscope view` shows it, for a notebook.

    ```python
    from stratoscope.view.notebook import show

    show(w.record)
    ```

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
    return Page(page_of(Runs([Path(one) for one in given if not isinstance(one, Record)], records), bundle()), height)
