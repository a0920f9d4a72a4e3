"""Docstrings are written in plain Markdown; autodoc wants reStructuredText."""

from __future__ import annotations

import re

_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)\n(?P<body>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)
_DOCTEST = re.compile(r"^ *>>> .*?(?=\n\s*\n|\Z)", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"(?<!`)(``?)(?!`)(.+?)(?<!`)\1(?!`)", re.DOTALL)
_LINK = re.compile(r"\[([^\]\n]+)\]\((https?://[^)\s]+)\)")


def to_rst(text: str) -> str:
    """Turn the Markdown that docstrings use (code spans, fences, formulas, links) into reStructuredText.

    >>> to_rst("The norm `|x|` is |x| of `w_`.")
    'The norm ``|x|`` is \\\\|x\\\\| of ``w_``.'
    """
    parts, at = [], 0
    for found in re.finditer(f"{_FENCE.pattern}|{_DOCTEST.pattern}", text, re.MULTILINE | re.DOTALL):
        parts += [_prose(text[at : found.start()]), _block(found)]
        at = found.end()
    return "".join([*parts, _prose(text[at:])])


def _block(found: re.Match[str]) -> str:
    if found["body"] is None:
        return found[0]
    indent = found["indent"]
    body = "".join(f"   {line}\n" if line.strip() else "\n" for line in found["body"].splitlines())
    return f"{indent}.. code-block:: {found['language'] or 'text'}\n\n{body}"


def _prose(text: str) -> str:
    parts, at = [], 0
    for found in _CODE.finditer(text):
        # a code span may be wrapped over lines; in reStructuredText it may not be indented anew
        parts += [_plain(text[at : found.start()]), f"``{' '.join(found[2].split())}``"]
        at = found.end()
    return "".join([*parts, _plain(text[at:])])


def _plain(text: str) -> str:
    parts = re.split(r"(\$\$?[^$]+\$\$?)", text)
    for place, part in enumerate(parts):
        if place % 2:
            parts[place] = f":math:`{' '.join(part.strip('$').split())}`"
        else:
            escaped = re.sub(r"(?<=\w)_(?!\w)", r"\_", part.replace("|", r"\|"))
            parts[place] = _LINK.sub(r"`\1 <\2>`__", escaped)
    return "".join(parts)


def process(app: object, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Sphinx's `autodoc-process-docstring`. What a module says of itself stands on its page already, as Markdown."""
    lines[:] = [] if what == "module" else to_rst("\n".join(lines)).split("\n")
