"""What docstrings say of each code."""

import sys
import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import pytest

from stratoscope.diagnoses.registry import available as diagnoses
from stratoscope.instruments.registry import available
from stratoscope.instruments.units import Units
from stratoscope.report.codes import codes_of, known_patterns, meanings, page_of
from stratoscope.report.explanations import DO, MEANS, MISLEADS, PARTS, explanation_of, without_codes

TEXT = """Made up: what it measures.

**What it means.** Of all.

**When it
misleads.** Seldom,

* in a list;

and after it.

**XY001.** It is so, by `low`. **When it misleads.** Here. **What to do.** This,

and that.

**XY002.** Only what it means.

**Cost.** Little.

Source: nobody.
"""


@dataclass(frozen=True)
class Made(Units):
    """Made up.

    Attributes:
        low: a limit.
        high: another.
    """

    key: ClassVar[str] = "made"
    codes: ClassVar[Mapping[str, str]] = {"XY001": "one", "XY002": "two", "XY003": "three"}

    low: float = 0.5
    high: float = 2.0


@pytest.fixture(autouse=True)
def documented(monkeypatch):
    module = types.ModuleType("made_up", TEXT)
    beside = types.ModuleType("made_up_rules", "Rules.\n\n**XY003.** From beside.\n")
    monkeypatch.setitem(sys.modules, "made_up", module)
    monkeypatch.setitem(sys.modules, "made_up_rules", beside)
    monkeypatch.setattr(Made, "__module__", "made_up")


def test_a_code_says_its_own_and_the_rest_is_that_of_the_whole():
    found = explanation_of(Made, "XY001")
    assert found.own == {MEANS: "It is so, by `low`.", MISLEADS: "Here.", DO: "This,\n\nand that."}
    assert found.settings == ("low",)
    assert found.part(MISLEADS) == "Here."
    found = explanation_of(Made, "XY002")
    assert found.own == {MEANS: "Only what it means."}
    assert found.shared == {MEANS: "Of all.", MISLEADS: "Seldom,\n\n* in a list;\n\nand after it."}
    assert found.part(MISLEADS) == found.shared[MISLEADS]
    assert found.part(DO) == ""
    assert {"low", "high", "dead_limit"} <= set(found.settings)


def test_rules_beside_the_module_may_explain_their_codes():
    assert explanation_of(Made, "XY003").own == {MEANS: "From beside."}


def test_the_method_is_told_without_the_codes():
    said = without_codes(TEXT)
    assert "XY00" not in said
    assert "and that" not in said
    for kept in ("Made up", "Of all.", "and after it.", "**Cost.** Little.", "Source: nobody."):
        assert kept in said


@pytest.mark.parametrize("judge", [*available().values(), *diagnoses().values()], ids=lambda judge: judge.key)
def test_every_code_of_ours_is_explained(judge):
    for code in judge.codes:
        found = explanation_of(judge, code)
        assert found.part(MISLEADS), f"{code}: when it misleads is not said"
        assert found.part(MEANS) or judge.codes[code]
        assert not set(found.own) - set(PARTS)


def test_codes_have_a_meaning_and_an_address():
    for judge in [*available().values(), *diagnoses().values()]:
        for code, meaning in codes_of(judge).items():
            assert meanings()[code] == meaning
            assert page_of(code).endswith(f"/findings/{code.lower()}.html")
    assert page_of("ST000")
    assert page_of("ZZ001") == ""
    assert page_of("<script>") == ""


def test_codes_may_be_written_in_small_letters_and_with_a_star():
    assert known_patterns([" un001", "TR*", "*"]) == ("UN001", "TR*", "*")
    assert known_patterns(["zz001"], ["ZZ001"]) == ("ZZ001",)
