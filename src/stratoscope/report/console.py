"""Text that is safe to print: nothing from a record steers the terminal, and an old encoding gets plain signs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, ConsoleRenderable, OverflowMethod, RenderHook, RenderResult
from rich.segment import Segment
from rich.table import Table as Grid
from rich.text import Text

from stratoscope.charts.numbers import TIMES, readable

_ASCII = str.maketrans(dict(zip(f"✗✓•·…→─▁▂▃▄▅▆▇█{TIMES}", "x+*-.>-__..==##x", strict=True)))


@contextmanager
def speaking(console: Console | None) -> Iterator[Console]:
    """The console; while it is used, signs that its encoding lacks are replaced by plain ones."""
    console = console or Console(highlight=False)
    if not console.options.ascii_only:
        yield console
        return
    console.push_render_hook(_AsciiHook())
    try:
        yield console
    finally:
        console.pop_render_hook()


class _AsciiHook(RenderHook):
    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [_AsciiOnly(renderable) for renderable in renderables]


class _AsciiOnly:
    def __init__(self, inner: ConsoleRenderable) -> None:
        self._inner = inner

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for segment in console.render(self._inner, options):
            yield Segment(_as_ascii(segment.text), segment.style, segment.control)


def _as_ascii(text: str) -> str:
    return "".join(sign if sign.isascii() else "?" * cell_len(sign) for sign in text.translate(_ASCII))


def safe(value: str, style: str = "", *, no_wrap: bool | None = None, overflow: OverflowMethod | None = None) -> Text:
    """Text from a record, without signs that steer the terminal."""
    return Text(readable(value), style=style, no_wrap=no_wrap, overflow=overflow)


def joined(*parts: str | tuple[str, str]) -> Text:
    """Pieces of text, some with a style; a piece that is a line break alone is kept."""
    text = Text(overflow="fold")
    for part in parts:
        value, style = (part, "") if isinstance(part, str) else part
        text.append(value if value == "\n" else readable(value), style=style)
    return text


def hanging(label: str, text: str | Text, style: str = "") -> Grid:
    """A label, and beside it text that may take several lines."""
    grid = Grid.grid(padding=(0, 1))
    grid.add_column(no_wrap=True, width=9)
    grid.add_column(overflow="fold")
    grid.add_row(safe(label, "bold"), safe(text, style, overflow="fold") if isinstance(text, str) else text)
    return grid
