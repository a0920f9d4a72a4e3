"""Plain text with a little markup (paragraphs, lists, `code`, **bold**) as safe HTML; sources as links."""

from __future__ import annotations

import re

from markupsafe import Markup, escape

_ARXIV = re.compile(r"arXiv:(\d{4}\.\d{4,5}(?:v\d+)?|[a-z-]+/\d{7})")
_DOI = re.compile(r"doi:(10\.\d{4,9}/[^\s,;()<>\"']*[^\s,;()<>\"'.])")
_TOKEN = re.compile(r"(``?[^`]+``?|\*\*[^*]+\*\*)")


def source_link(source: str) -> Markup:
    """A source, with links for arXiv ids and DOIs; nothing else becomes a link.

    >>> str(source_link("arXiv:1811.05381"))
    '<a href="https://arxiv.org/abs/1811.05381" rel="noreferrer">arXiv:1811.05381</a>'
    """
    found = _linked(str(escape(source)))
    return Markup(found)  # noqa: S704 - escaped before the links were put in


def prose(text: str) -> Markup:
    """Paragraphs and lists from a docstring; everything in it is escaped first.

    >>> str(prose("One.\\n\\n* `a <b>`;\\n* two."))
    '<p>One.</p><ul><li><code>a &lt;b&gt;</code>;</li><li>two.</li></ul>'
    """
    blocks = re.split(r"\n\s*\n", text.strip())
    return Markup("".join(_block(block) for block in blocks if block.strip()))  # noqa: S704 - every line was escaped


def _block(block: str) -> str:
    lines = block.splitlines()
    if re.match(r"\s*[*-] ", lines[0]):
        items = re.split(r"(?:^|\n)\s*[*-] ", block)
        return "<ul>" + "".join(f"<li>{_inline(item)}</li>" for item in items if item.strip()) + "</ul>"
    if all(line.startswith("    ") for line in lines if line.strip()):
        return f"<pre>{escape(block)}</pre>"
    return f"<p>{_inline(block)}</p>"


def _inline(text: str) -> str:
    parts = []
    for part in _TOKEN.split(" ".join(text.split())):
        if part.startswith("`") and part.endswith("`") and len(part) > 2:
            parts.append(f"<code>{escape(part.strip('`'))}</code>")
        elif part.startswith("**") and part.endswith("**") and len(part) > 4:
            parts.append(f"<strong>{escape(part[2:-2])}</strong>")
        else:
            parts.append(_linked(str(escape(part))))
    return "".join(parts)


def _linked(escaped: str) -> str:
    escaped = _ARXIV.sub(r'<a href="https://arxiv.org/abs/\1" rel="noreferrer">arXiv:\1</a>', escaped)
    return _DOI.sub(r'<a href="https://doi.org/\1" rel="noreferrer">doi:\1</a>', escaped)
