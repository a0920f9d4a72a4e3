"""What the docstring of an instrument or diagnosis says of each of its codes: what it means, when it misleads, what to do.

A paragraph that begins with a code in bold is that code's own, with those after it up to the next code or bold title. Within
it, `**When it misleads.**` and `**What to do.**` begin the parts of these names. What a code does not say for itself, the
paragraphs of these names say for the whole module.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stratoscope.instruments.base import Judge

MEANS, MISLEADS, DO = "What it means", "When it misleads", "What to do"
PARTS = (MEANS, MISLEADS, DO)

_CODE = re.compile(r"\*\*([A-Z]{2,4}\d{3})\.?\*\*[ \n]*")
_TITLES = "|".join(r"\s+".join(title.split()) for title in PARTS)  # a line may end within one
_PART = re.compile(rf"\*\*({_TITLES})\.?\*\*[ \n]*")

_ELSE = re.compile(r"\*\*|Sources?:|#")
"""How a paragraph begins that belongs to no code: a title of the whole, or the end."""


@dataclass(frozen=True)
class Explanation:
    """What is said of one code.

    Attributes:
        own: the parts that are said of this code alone, by their titles.
        shared: the other parts, as they are said of the whole instrument or diagnosis.
        settings: names of the settings that decide it: those that its own text names, else all.
    """

    own: dict[str, str]
    shared: dict[str, str]
    settings: tuple[str, ...]

    def part(self, title: str) -> str:
        """One part, its own where there is one; empty where nothing is said."""
        return self.own.get(title) or self.shared.get(title, "")


def explanation_of(judge: type[Judge], code: str) -> Explanation:
    """What the documentation of an instrument or diagnosis says of one of its codes.

    Args:
        judge: the class.
        code: one of its codes, or that of its failure.

    >>> from stratoscope.diagnoses.timeline import Timeline
    >>> explanation_of(Timeline, "TL003").own["What to do"]
    'Nothing, unless you expected one: then measure more often, or train on.'
    """
    paragraphs = _paragraphs(_documentation(judge))
    own = _parts("\n\n".join(text for of, text in paragraphs if of == code), MEANS)
    shared = _parts("\n\n".join(text for of, text in paragraphs if not of), "")
    shared.pop("", None)
    fields = [field.name for field in dataclasses.fields(judge)]
    named = [name for name in fields if f"`{name}`" in "\n".join(own.values())]
    return Explanation(own, shared, tuple(named or fields))


def without_codes(text: str) -> str:
    """A docstring without the paragraphs that belong to single codes, which have pages of their own."""
    return "\n\n".join(paragraph for code, paragraph in _paragraphs(text) if not code)


def _documentation(judge: type[Judge]) -> str:
    """The docstring of the class' module, and of those modules beside it that its name begins."""
    home = judge.__module__
    beside = sorted(name for name in list(sys.modules) if name.startswith(f"{home}_") or name.startswith(f"{home}."))
    texts = (inspect.getdoc(sys.modules[name]) for name in (home, *beside))
    return "\n\n".join(text for text in texts if text) or inspect.getdoc(judge) or ""


def _paragraphs(text: str) -> list[tuple[str, str]]:
    """Paragraphs, each with the code that it belongs to; `""` where it belongs to none."""
    found, code = [], ""
    for paragraph in re.split(r"\n[ \t]*\n", text.strip()):
        start = _CODE.match(paragraph)
        if start:
            code = start[1]
        elif _ELSE.match(paragraph):
            code = ""
        said = paragraph[start.end() :] if start else paragraph
        if said:
            found.append((code, said))
    return found


def _parts(text: str, first: str) -> dict[str, str]:
    """Text by the title before it; what comes before any title is under `first`."""
    pieces = _PART.split(text)
    found = {first: pieces[0].strip()}
    for head, part in zip(pieces[1::2], pieces[2::2], strict=True):
        title = " ".join(head.split())
        # a part of the whole ends where something else begins
        whole = part if first else re.split(rf"\n\n(?={_ELSE.pattern})", part)[0]
        found[title] = "\n\n".join(piece for piece in (found.get(title, ""), whole.strip()) if piece)
    return {title: part for title, part in found.items() if part}
