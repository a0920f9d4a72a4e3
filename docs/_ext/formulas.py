"""Draws formulas as SVG with matplotlib's own TeX reader, so that the manual needs no script from the network."""

from __future__ import annotations

import re
from functools import cache
from html import escape
from typing import Any

SIZE = 100.0
EM = 1.05
"""How large a formula's em is against the text's."""

_SPELLING = {
    r"\\ge(?![a-z])": r"\\geq",
    r"\\le(?![a-z])": r"\\leq",
    r"\\[lr]Vert(?![a-z])": r"\\Vert ",
    r"\\[lr]vert(?![a-z])": r"|",
    r"\\[Bb]igg?[lr]?(?=[^a-z])": "",
    r"\\(sqrt|overline|widehat|widetilde) *([A-Za-z0-9])": r"\\\1{\2}",
    r"\\operatorname(?=\{)": r"\\mathrm",
    r"\\text(?=\{)": r"\\mathrm",
    r"\s+": " ",
}
"""TeX that matplotlib spells differently."""


def spelled(tex: str) -> str:
    r"""The same formula in matplotlib's spelling.

    >>> print(spelled(r"\lVert W\rVert \ge \sqrt n"))
    \Vert W\Vert \geq \sqrt{n}
    """
    for old, new in _SPELLING.items():
        tex = re.sub(old, new, tex)
    # \mathrm drops spaces
    tex = re.sub(r"\\mathrm\{([^{}]*)\}", lambda m: rf"\mathrm{{{m[1].replace(' ', '~')}}}", tex)
    return re.sub(r"(\\Vert) +(?=[A-Za-z_^ ]|\\|$)", r"\1 ", tex).strip()


@cache
def svg(tex: str, block: bool = False) -> str:
    """A formula as inline SVG in the text's colour; as code where it cannot be read."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    try:
        shape = TextPath(
            (0, 0), f"${spelled(tex)}$", size=SIZE, prop=FontProperties(family="STIXGeneral", math_fontfamily="stix")
        )
    except ValueError:
        return f"<code>{escape(tex)}</code>"
    box = shape.get_extents().padded(3)
    style = f"width:{box.width / SIZE * EM:.3f}em;height:{box.height / SIZE * EM:.3f}em;max-width:100%"
    if not block:
        style += f";vertical-align:{box.y0 / SIZE * EM:.3f}em"
    view = f"{box.x0:.1f} {-box.y1:.1f} {box.width:.1f} {box.height:.1f}"
    return (
        f'<svg class="formula" role="img" aria-label="{escape(tex)}" viewBox="{view}" style="{style}">'
        f'<path fill="currentColor" d="{_path(shape)}"/></svg>'
    )


def _path(shape: Any) -> str:
    letters = {1: "M", 2: "L", 3: "Q", 4: "C", 79: "Z"}
    parts = []
    for points, code in shape.iter_segments():
        numbers = "" if code == 79 else " ".join(f"{x:.0f} {-y:.0f}" for x, y in points.reshape(-1, 2))
        parts.append(letters[int(code)] + numbers)
    return "".join(parts)


def _inline(translator: Any, node: Any) -> None:
    from docutils import nodes

    translator.body.append(svg(node.astext()))
    raise nodes.SkipNode


def _block(translator: Any, node: Any) -> None:
    from docutils import nodes

    translator.body.append(f'<div class="formula">{svg(node.astext(), block=True)}</div>')
    raise nodes.SkipNode


def setup(app: Any) -> dict[str, bool]:
    """Sphinx's hook."""
    app.add_html_math_renderer("paths", (_inline, None), (_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
