"""What was measured: labelled arrays on disk, appended while training, read while written."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stratoscope.record.combine import Difference, Runs, compare, concat, difference
    from stratoscope.record.entry import Entry
    from stratoscope.record.folder import new_run_folder
    from stratoscope.record.group import Group
    from stratoscope.record.quantity import Quantity
    from stratoscope.record.record import Record
    from stratoscope.record.rows import Coverage, Edge, LayerRow, Moment
    from stratoscope.record.writer import RecordWriter

_HOME = {
    "Coverage": "rows",
    "Difference": "combine",
    "Edge": "rows",
    "Entry": "entry",
    "Group": "group",
    "LayerRow": "rows",
    "Moment": "rows",
    "Quantity": "quantity",
    "Record": "record",
    "RecordWriter": "writer",
    "Runs": "combine",
    "compare": "combine",
    "concat": "combine",
    "difference": "combine",
    "new_run_folder": "folder",
}

__all__ = [
    "Coverage",
    "Difference",
    "Edge",
    "Entry",
    "Group",
    "LayerRow",
    "Moment",
    "Quantity",
    "Record",
    "RecordWriter",
    "Runs",
    "compare",
    "concat",
    "difference",
    "new_run_folder",
]


def __getattr__(name: str) -> Any:
    """Import a name where it is first used, so that writing a record does not import what only reading needs."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
