import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stratoscope.report.prose import prose, source_link
from stratoscope.report.tex import mathml

TOKENS = [*"ab1_^{}'<&\\ ()[]|$", "\\frac", "\\sqrt", "\\text", "\\bar ", "\\sum", "\\x"]
TEX = st.lists(st.sampled_from(TOKENS), max_size=30).map("".join)


@given(TEX)
@settings(deadline=None, max_examples=25)
def test_any_formula_becomes_well_formed_markup(tex):
    root = ET.fromstring(mathml(tex))
    assert root.tag in ("math", "code")
    assert {node.tag for node in root.iter()} <= {
        "math", "code", "mrow", "mi", "mn", "mo", "mspace", "mfrac", "msqrt", "mroot", "msub", "msup", "msubsup", "mover"
    }  # fmt: skip


@given(
    st.lists(
        st.text(max_size=40) | TEX | st.sampled_from(["`", "**", "$", "\n\n", "* ", "| a | b |\n|---|---|\n", "<b>"]),
        max_size=8,
    )
)
@settings(deadline=None, max_examples=25)
def test_any_text_becomes_markup_that_is_closed_and_known(parts):
    text = "".join(parts)
    markup = str(prose(text))
    tags = re.findall(r"<(/?)([a-z]+)[^>]*?(/?)>", markup)
    assert {name for _, name, _ in tags} <= {
        "p", "ul", "li", "code", "strong", "pre", "a", "div", "table", "thead", "tbody", "tr", "th", "td", "math", "mrow",
        "mi", "mn", "mo", "mspace", "mfrac", "msqrt", "mroot", "msub", "msup", "msubsup", "mover",
    }  # fmt: skip
    stack = []
    for close, name, alone in tags:
        if close:
            assert stack.pop() == name
        elif not alone:
            stack.append(name)
    assert stack == []


@pytest.mark.parametrize(
    ("tex", "inside"),
    [
        (r"\frac{a}{b}", "<mfrac><mrow><mi>a</mi></mrow><mrow><mi>b</mi></mrow></mfrac>"),
        (r"\sqrt n", "<msqrt><mi>n</mi></msqrt>"),
        (r"x_i^2", "<msubsup><mi>x</mi><mi>i</mi><mn>2</mn></msubsup>"),
        (r"\ge 0", "<mo>≥</mo><mn>0</mn>"),
        (r"\text{null mean}", "<mi>null mean</mi>"),
        (r"a - b", "<mi>a</mi><mo>\N{MINUS SIGN}</mo><mi>b</mi>"),
    ],
)
def test_formulas_keep_their_meaning(tex, inside):
    assert mathml(tex) == f"<math>{inside}</math>"


def test_a_formula_that_cannot_be_read_stays_as_it_is():
    assert mathml(r"\frac{a}{") == r"<code>\frac{a}{</code>"


def test_deep_nesting_does_not_exhaust_the_stack():
    assert mathml("{" * 5000).startswith("<code>")
    assert mathml("\\sqrt" * 5000 + "x").startswith("<code>")


def test_tables_keep_bars_within_code_and_formulas():
    markup = str(prose("| a | b |\n|---|---|\n| `x | y` | $|z|$ |"))
    assert markup.count("<td>") == 2
    assert "<code>x | y</code>" in markup


@pytest.mark.parametrize(
    "source", ["javascript:alert(1)", '" onclick="x', "http://a.example", "arXiv:evil<b>", "doi:../../x"]
)
def test_only_known_sources_become_links(source):
    assert "<a" not in str(source_link(source))
    assert '"' not in str(source_link(source))


def test_dois_and_old_arxiv_ids_are_linked():
    assert 'href="https://doi.org/10.1093/biomet/26.4.404"' in source_link("doi:10.1093/biomet/26.4.404.")
    assert 'href="https://arxiv.org/abs/math/0503442"' in source_link("arXiv:math/0503442")
