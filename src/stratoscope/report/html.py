"""A record as one self-contained page: findings first, then the layers, the charts, and what was not measured.

The page loads nothing from anywhere, opens from disk, works without JavaScript, and its policy forbids every script but
its own. All text from the record is escaped, since names may come from anybody's file.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import tempfile
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from stratoscope.charts.build import charts_of
from stratoscope.charts.svg import stylesheet
from stratoscope.errors import RecordError
from stratoscope.network.modes import as_umask_says
from stratoscope.report import page
from stratoscope.report.prose import prose, source_link
from stratoscope.report.summary import partial, series_sentence, verdict
from stratoscope.report.table import table_of

if TYPE_CHECKING:
    from stratoscope.record.record import Record


def to_html(record: Record, *, all_charts: bool = False) -> str:
    """The page of a record as text.

    Args:
        record: a record, finished or still being written.
        all_charts: whether to draw every chart of `charts_of(record)`. By default the page stays small and shows, for
            each instrument, the variables with a `headline` attribute or its first three that vary, and curves over steps
            for the first data split; it says how many it leaves out.
    """
    table = table_of(record)
    findings, charts = record.findings, charts_of(record)
    script = _file("report.js")
    seen = hashlib.sha256(script.encode()).digest()
    text: str = _template().render(
        name=str(record.meta.get("name") or record.run_id or "record"),
        verdict=verdict(findings),
        chips=page.chips(findings),
        findings=page.findings(findings, table),
        tiles=page.tiles(record),
        tables=page.tables(table, findings),
        course=page.course(record, charts),
        sections=page.sections(record, charts, all_charts=all_charts),
        coverage=page.coverage(record, table),
        facts=page.facts(record),
        summary=page.summary(record),
        partial=partial(record),
        series=series_sentence(record) if "series" in record.meta else "",
        comparison=page.comparison(record),
        data=json_in_script(page.data(table)),
        script=Markup(script),
        script_hash=base64.b64encode(seen).decode("ascii"),
        style=Markup(stylesheet() + _file("report.css")),
    )
    return text


def write_html(record: Record, path: str | Path, *, all_charts: bool = False) -> Path:
    """Write the page of a record.

    The file is complete or not there: it is written beside its place and then renamed. What is no plain file, such as
    `/dev/stdout`, a pipe or a link, is written to as it is, and never replaced.

    Args:
        record: a record, finished or still being written.
        path: the file; folders on the way are made.
        all_charts: as in `to_html`.

    Returns:
        The path.

    Raises:
        RecordError: if it cannot be written there.
    """
    return write_text(path, to_html(record, all_charts=all_charts))


def write_text(path: str | Path, page: str) -> Path:
    """Write a page, as `write_html` does: whole or not at all.

    Raises:
        RecordError: if it cannot be written there.
    """
    path, text = Path(path), page.encode("utf-8", errors="replace")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink() or (path.exists() and not path.is_file()):
            with path.open("wb") as special:
                special.write(text)
        else:
            _replace(path, text)
    except OSError as error:
        raise RecordError(
            f"{path} cannot be written ({error.strerror}); choose another file for the report."
        ) from error
    return path


def _replace(path: Path, text: bytes) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(text)
        as_umask_says(Path(temporary))
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def json_in_script(value: Any) -> Markup:
    r"""JSON that cannot end the script element that it stands in, nor open a comment or another one.

    >>> str(json_in_script({"name": "</script>"}))
    '{"name":"\\u003c/script\\u003e"}'
    """
    text = json.dumps(value, allow_nan=False, separators=(",", ":"), ensure_ascii=True)
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)


@cache
def _template() -> Any:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["prose"] = prose
    environment.filters["source"] = source_link
    return environment.from_string(_file("template.html.j2"))


def _file(name: str) -> str:
    """One of our files, without indentation: it is half of a small page otherwise, and none of them needs it."""
    lines = files("stratoscope.report").joinpath(name).read_text(encoding="utf-8").splitlines()
    return "\n".join(line.strip() for line in lines if line.strip()) + "\n"
