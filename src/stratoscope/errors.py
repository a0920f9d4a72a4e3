"""The errors that people meet: one sentence that says what happened, what was there, and what to do."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stratoscope.record.record import Record


class StratoscopeError(Exception):
    """Base of every error that this package raises on purpose."""


class SubjectError(StratoscopeError):
    """The network, its data or its labels cannot be examined as given."""


class OpenError(StratoscopeError):
    """A file of weights, a record or a settings file cannot be opened."""


class DataError(StratoscopeError):
    """Data cannot be read, or holds what no instrument can use."""


class CaptureError(StratoscopeError):
    """Something was asked of a capture that it does not hold or cannot gather."""


class RecordError(StratoscopeError):
    """A record cannot be written or read."""


class SettingError(StratoscopeError):
    """A setting, an option or a name is not one that exists, or has a value out of range."""


class NotApplicable(Exception):  # noqa: N818 - an answer, not an error
    """Raised by an instrument whose question makes no sense here; the message is the reason."""


class Cancelled(KeyboardInterrupt):
    """A measurement was interrupted (Ctrl-C).

    Attributes:
        record: what had been measured until then, readable as any other record; its status is `"interrupted"`.
    """

    def __init__(self, record: Record) -> None:
        super().__init__("cancelled")
        self.record = record


def require(module: str, extra: str) -> Any:
    """Import an optional library, or say in one sentence how to install it.

    Args:
        module: the name to import, such as `"matplotlib.pyplot"`.
        extra: the extra of this package that brings it.

    Raises:
        StratoscopeError: if the library is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        library = module.partition(".")[0]
        message = f"This needs {library}. Install it with: pip install 'stratoscope[{extra}]'"
        raise StratoscopeError(message) from error
