"""Docstrings as safe HTML: paragraphs, lists, tables, `code`, **bold**, formulas, and links to sources."""

from __future__ import annotations

import re

from markupsafe import Markup, escape

from stratoscope.report.tex import mathml

_ARXIV = re.compile(r"arXiv:(\d{4}\.\d{4,5}(?:v\d+)?|[a-z-]+/\d{7})")
_DOI = re.compile(r"doi:(10\.\d{4,9}/[^\s,;()<>\"']*[^\s,;()<>\"'.])")
_TOKEN = re.compile(r"(``[^`]+``|`[^`]+`|\$\$[^$]+\$\$|\$[^$\s](?:[^$]*[^$\s])?\$|\*\*[^*]+\*\*)")
_CELL = re.compile(r"(?:`[^`]*`|\$[^$]*\$|[^|`$]|[`$])+")
_RULE = re.compile(r"^\s*\|?[\s:|-]+\|?\s*$")


def source_link(source: str) -> Markup:
    """A source, with links for arXiv ids and DOIs; nothing else becomes a link.

    >>> str(source_link("arXiv:1811.05381"))
    '<a href="https://arxiv.org/abs/1811.05381" rel="noreferrer">arXiv:1811.05381</a>'
    """
    return Markup(_linked(str(escape(source))))


def prose(text: str) -> Markup:
    r"""Paragraphs, lists and tables from a docstring; everything in it is escaped first.

    >>> str(prose("One.\n\n* `a <b>`;\n* two."))
    '<p>One.</p><ul><li><code>a &lt;b&gt;</code>;</li><li>two.</li></ul>'
    """
    blocks = re.split(r"\n\s*\n", text.strip())
    return Markup("".join(_block(block) for block in blocks if block.strip()))


def _block(block: str) -> str:
    lines = block.splitlines()
    if len(lines) > 1 and lines[0].lstrip().startswith("|") and _RULE.match(lines[1]):
        return _table(lines)
    if re.match(r"\s*[*-] ", lines[0]):
        items = re.split(r"(?:^|\n)\s*[*-] ", block)
        return "<ul>" + "".join(f"<li>{_inline(item)}</li>" for item in items if item.strip()) + "</ul>"
    if all(line.startswith("    ") for line in lines if line.strip()):
        return f"<pre>{escape(block)}</pre>"
    return f"<p>{_inline(block)}</p>"


def _table(lines: list[str]) -> str:
    head, *rows = ([_inline(cell) for cell in _cells(line)] for line in (lines[0], *lines[2:]))
    top = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table class="plain"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _cells(line: str) -> list[str]:
    """Cells between bars; bars within code and formulas belong to these."""
    text = line.strip().removeprefix("|").removesuffix("|")
    return [cell.strip() for cell in _CELL.findall(text.replace("||", "| |"))]


def _inline(text: str) -> str:
    return "".join(_marked(part) for part in _TOKEN.split(" ".join(text.split())))


def _marked(part: str) -> str:
    """One stretch of text: code, a formula, bold, or plain."""
    if len(part) > 2 and part[0] == part[-1] == "`":
        return f"<code>{escape(part.strip('`'))}</code>"
    if len(part) > 4 and part.startswith("$$") and part.endswith("$$"):
        return mathml(part[2:-2], block=True)
    if len(part) > 2 and part[0] == part[-1] == "$":
        return mathml(part[1:-1])
    if len(part) > 4 and part.startswith("**") and part.endswith("**"):
        return f"<strong>{_linked(str(escape(part[2:-2])))}</strong>"
    return _linked(str(escape(part)))


def _linked(escaped: str) -> str:
    escaped = _ARXIV.sub(r'<a href="https://arxiv.org/abs/\1" rel="noreferrer">arXiv:\1</a>', escaped)
    return _DOI.sub(r'<a href="https://doi.org/\1" rel="noreferrer">doi:\1</a>', escaped)
