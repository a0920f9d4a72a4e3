# ruff: noqa: RUF001
"""Formulas in the TeX of docstrings as MathML, which every browser draws without help.

A small part of TeX: sub- and superscripts, fractions, roots, accents, named operators, Greek letters and the usual signs.
What is not known stays as its own name, so that nothing is lost silently.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from html import escape

_TOKEN = re.compile(r"\\[A-Za-z]+|\\.|\d+(?:\.\d+)?|\s+|.", re.DOTALL)
_DEEPEST = 40


def _pairs(text: str) -> dict[str, str]:
    words = text.split()
    return dict(zip(words[::2], words[1::2], strict=True))


_LETTERS = _pairs(
    "alpha α beta β gamma γ delta δ epsilon ϵ varepsilon ε zeta ζ eta η theta θ iota ι kappa κ lambda λ mu μ nu ν xi ξ pi π "
    "rho ρ sigma σ tau τ upsilon υ phi ϕ varphi φ chi χ psi ψ omega ω Gamma Γ Delta Δ Theta Θ Lambda Λ Xi Ξ Pi Π Sigma Σ "
    "Phi Φ Psi Ψ Omega Ω ell ℓ infty ∞ partial ∂ nabla ∇ hbar ℏ emptyset ∅ top ⊤"
)
_SIGNS = _pairs(
    "le ≤ leq ≤ ge ≥ geq ≥ ne ≠ neq ≠ approx ≈ equiv ≡ sim ∼ simeq ≃ propto ∝ ll ≪ gg ≫ cdot · times × pm ± mp ∓ to → "
    "mapsto ↦ rightarrow → leftarrow ← in ∈ notin ∉ subset ⊂ subseteq ⊆ cup ∪ cap ∩ setminus ∖ mid ∣ forall ∀ exists ∃ sum ∑ "
    "prod ∏ int ∫ langle ⟨ rangle ⟩ lVert ‖ rVert ‖ lvert | rvert | lfloor ⌊ rfloor ⌋ lceil ⌈ rceil ⌉ dots … ldots … cdots … "
    "circ ∘ star ⋆ ast ∗ otimes ⊗ odot ⊙ oplus ⊕ prime ′ perp ⊥ wedge ∧ vee ∨ neg ¬ colon :"
)
_NAMES = frozenset(
    "log ln exp min max sup inf arg argmin argmax det tr dim ker sin cos tan tanh sinh cosh lim Pr rank sign".split()  # noqa: SIM905
)
_ACCENTS = {
    "bar": "¯",
    "overline": "‾",
    "hat": "^",
    "widehat": "^",
    "tilde": "~",
    "widetilde": "~",
    "vec": "→",
    "dot": "˙",
}
_DOUBLE = dict(zip("RENZCPQ", "ℝ𝔼ℕℤℂℙℚ", strict=True))
_SPACES = {",": 0.17, ":": 0.22, ";": 0.28, "!": 0.0, " ": 0.25, "quad": 1.0, "qquad": 2.0}
_FENCES = "()[]{}|‖⟨⟩⌊⌋⌈⌉"
_IGNORED = {f"{size}{side}" for size in ("big", "Big", "bigg", "Bigg") for side in ("", "l", "r", "m")}
_IGNORED |= {"left", "right", "middle", "displaystyle", "textstyle", "limits", "nolimits", "\\"}


class TexError(ValueError):
    """The formula cannot be read."""


def mathml(tex: str, *, block: bool = False) -> str:
    """A formula as MathML; as code where it cannot be read. Everything in it is escaped.

    >>> mathml("s_1^2 / n")
    '<math><msubsup><mi>s</mi><mn>1</mn><mn>2</mn></msubsup><mo>/</mo><mi>n</mi></math>'
    """
    try:
        inside = _Parser(tex).whole()
    except TexError:
        return f"<code>{escape(tex)}</code>"
    shown = ' display="block"' if block else ""
    return f"<math{shown}>{inside}</math>"


class _Parser:
    def __init__(self, tex: str) -> None:
        self._tokens = _TOKEN.findall(tex.strip())
        self._at = 0
        self._deep = 0
        self._sized = False

    def whole(self) -> str:
        parts = self._row(None)
        if self._at < len(self._tokens):
            raise TexError("a brace that was not opened is closed")
        return parts

    def _peek(self) -> str:
        while self._at < len(self._tokens) and self._tokens[self._at].isspace():
            self._at += 1
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _next(self) -> str:
        token = self._peek()
        if not token:
            raise TexError("it ends too early")
        self._at += 1
        return token

    def _row(self, end: str | None) -> str:
        self._deep += 1
        if self._deep > _DEEPEST:
            raise TexError("it is nested too deeply")
        parts = []
        while self._peek() and self._peek() != end and self._peek() != "}":
            parts.append(self._scripted())
        self._deep -= 1
        return "".join(parts)

    def _scripted(self) -> str:
        named = self._peek()[1:] in _NAMES or self._peek() == "\\operatorname"
        base = self._atom()
        below, above = "", ""
        while self._peek() in ("_", "^", "'"):
            sign = self._next()
            if sign == "'":
                above += "<mo>′</mo>"
            elif sign == "_":
                below += self._argument()
            else:
                above += self._argument()
        above = f"<mrow>{above}</mrow>" if above.count("</m") > 1 and not above.startswith("<mrow>") else above
        gap = '<mspace width="0.17em"/>' if named and re.match(r"[A-Za-z0-9]|\\[A-Za-z]", self._peek()) else ""
        return _with_scripts(base, below, above) + gap

    def _argument(self) -> str:
        """One atom or a group in braces, as one element."""
        self._deep += 1
        if self._deep > _DEEPEST:
            raise TexError("it is nested too deeply")
        found = self._atom()
        self._deep -= 1
        return found or "<mrow></mrow>"

    def _atom(self) -> str:
        token = self._next()
        if token == "{":
            inside = self._row("}")
            if self._next() != "}":
                raise TexError("a brace is not closed")
            return f"<mrow>{inside}</mrow>"
        if token.startswith("\\") and len(token) > 1:
            return self._command(token[1:])
        if token[0].isdigit():
            return f"<mn>{token}</mn>"
        if token.isalpha():
            return f"<mi>{escape(token)}</mi>"
        return "" if token == "&" else self._sign("−" if token == "-" else token)

    def _sign(self, sign: str) -> str:
        """An operator; a bracket is as high as what it holds only where its size was asked for."""
        still = ' stretchy="false"' if sign in _FENCES and not self._sized else ""
        self._sized = False
        return f"<mo{still}>{escape(sign)}</mo>"

    def _command(self, name: str) -> str:
        if name in _LETTERS:
            return f"<mi>{_LETTERS[name]}</mi>"
        if name in _SIGNS:
            return self._sign(_SIGNS[name])
        if name in _SPACES:
            return f'<mspace width="{_SPACES[name]}em"/>'
        if name in _IGNORED:
            self._sized = name not in ("displaystyle", "textstyle", "limits", "nolimits", "\\")
            if self._peek() == "." and name in ("left", "right"):
                self._next()
            return ""
        if name in _ACCENTS:
            return f'<mover accent="true">{self._argument()}<mo>{escape(_ACCENTS[name])}</mo></mover>'
        build: dict[str, Callable[[], str]] = {
            "frac": self._fraction, "tfrac": self._fraction, "dfrac": self._fraction, "sqrt": self._root,
            "mathbb": self._double,
        }  # fmt: skip
        if name in build:
            return build[name]()
        if name in ("operatorname", "mathrm", "text", "textrm", "mathbf", "mathit", "mathcal", "mathsf", "boldsymbol"):
            return f"<mi>{escape(self._words())}</mi>"
        return f"<mi>{escape(name)}</mi>" if name.isalpha() else self._sign("‖" if name == "|" else name)

    def _fraction(self) -> str:
        return f"<mfrac>{self._argument()}{self._argument()}</mfrac>"

    def _root(self) -> str:
        if self._peek() != "[":
            return f"<msqrt>{self._argument()}</msqrt>"
        self._next()
        index = self._row("]")
        if self._next() != "]":
            raise TexError("a bracket is not closed")
        return f"<mroot>{self._argument()}<mrow>{index}</mrow></mroot>"

    def _double(self) -> str:
        letter = self._words()
        return f"<mi>{escape(_DOUBLE.get(letter, letter))}</mi>"

    def _words(self) -> str:
        """The text of a group, with its blanks."""
        if self._peek() != "{":
            return self._next()
        words: list[str] = []
        deep = 0
        for token in self._tokens[self._at :]:
            self._at += 1
            deep += (token == "{") - (token == "}")
            if deep == 0:
                return " ".join("".join(words).split())
            if token not in "{}":
                words.append(token.removeprefix("\\"))
        raise TexError("a brace is not closed")


def _with_scripts(base: str, below: str, above: str) -> str:
    if not below and not above:
        return base
    base = base or "<mrow></mrow>"
    if below and above:
        return f"<msubsup>{base}{below}{above}</msubsup>"
    return f"<msub>{base}{below}</msub>" if below else f"<msup>{base}{above}</msup>"
