"""Writes a page for each code of a finding: what it means, when it misleads, what to do, and how to judge it otherwise.

Everything comes from the instruments' and diagnoses' `codes`, docstrings and judgements, so a new one needs no edit. The
address of a code's page, `findings/CODE.html`, is the one that reports and the command line name.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pages

from stratoscope.diagnoses.registry import available as diagnoses
from stratoscope.findings import Outcome
from stratoscope.instruments.base import Judge
from stratoscope.instruments.registry import available as instruments
from stratoscope.report.codes import EVERYWHERE, codes_of, meanings
from stratoscope.report.explanations import DO, MEANS, MISLEADS, explanation_of

FOLDER = "findings"
EXAMPLE = "runs/mlp"
"""The run that examples speak of."""


def write_all(docs: Path) -> None:
    """Write the page of every code and delete old ones; what would not change is left alone."""
    written = dict(code_pages())
    for name, text in written.items():
        pages.write(docs / FOLDER / name, text)
    for path in (docs / FOLDER).glob("*.md"):
        if path.name not in written:
            path.unlink()  # of a code that is gone


def code_pages() -> Iterator[tuple[str, str]]:
    """Every page: the name of its file, and its text."""
    for room, every in (("instruments", instruments()), ("diagnoses", diagnoses())):
        for judge in every.values():
            for code, meaning in codes_of(judge).items():
                yield f"{code.lower()}.md", code_page(judge, room, code, meaning)
    for code, meaning in EVERYWHERE.items():
        yield f"{code.lower()}.md", _everywhere(code, meaning)


def code_page(judge: type[Judge], room: str, code: str, meaning: str) -> str:
    """The page of one code."""
    facts = [
        ["given by", f"[{judge.title}](../{room}/{judge.key}.md)"],
        ["outcome", ", ".join(outcomes_of(judge, code)) or "see the finding"],
        ["source", pages.link(judge.source)],
    ]
    parts = [
        f"(finding-{code.lower()})=\n# {code}: {meaning}",
        pages.table(["", ""], facts),
        *(_failure(judge) if code.endswith("000") else _explained(judge, code)),
        _judging(judge, code),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _explained(judge: type[Judge], code: str) -> Iterator[str]:
    """What it means, when it misleads, what to do: in its own words, else in those of the whole."""
    said = explanation_of(judge, code)
    for title in (MEANS, MISLEADS, DO):
        text, shared = said.own.get(title, ""), said.shared.get(title, "")
        if not text and title == DO:
            text = "\n".join(f"* {advice}" for advice in advice_of(judge, code))
        if not (text and title in said.own) and shared:
            text += f"\n\nOf *{judge.title}* as a whole: {shared}"
        if not said.own and title == MEANS:
            meaning = judge.codes[code]
            text = f"{meaning[:1].upper()}{meaning[1:]}.{text}"
        if text:
            yield f"## {title}\n\n{_linked(text.strip(), code)}"


def _linked(text: str, own: str) -> str:
    """Other codes as links to their pages."""
    return re.sub(
        r"(?<![\w`\[/])([A-Z]{2,4}\d{3})(?![\w`\]])",
        lambda found: (
            f"[{found[1]}]({found[1].lower()}.md)" if found[1] in meanings() and found[1] != own else found[1]
        ),
        text,
    )


def _failure(judge: type[Judge]) -> Iterator[str]:
    yield (
        f"## {MEANS}\n\nWith the outcome *failed*, {judge.title} raised an error, which the finding names; the others went on. With the "
        "outcome *not_applicable* its question makes no sense there, and the finding says why. Neither is a pass."
    )
    yield (
        f"## {DO}\n\nWhere it failed, run the command with `--debug` for the traceback, or leave it out with "
        f"`--skip {judge.key}`. Where it is not applicable there is nothing to do."
    )


def _judging(judge: type[Judge], code: str) -> str:
    """The settings that decide a code, and how to change and mute it."""
    parts = ["## Judge it otherwise"]
    fields = _deciding(judge, code)
    if fields and not code.endswith("000"):
        about = pages.attributes_of(judge)
        rows = [[f"`{judge.key}.{f.name}`", f"`{f.default!r}`", about.get(f.name, "")] for f in fields]
        numbers = [f for f in fields if isinstance(f.default, int | float) and not isinstance(f.default, bool)]
        parts.append(pages.table(["setting", "default", "meaning"], rows))
        if numbers:
            chosen = next((f for f in numbers if isinstance(f.default, float) and f.default), numbers[0])
            value = 2 * chosen.default if isinstance(chosen.default, int) else float(f"{chosen.default / 2:.3g}")
            parts.append(
                "From a record alone, without the network or its data:\n\n"
                f"```console\n$ stratoscope advise {EXAMPLE} --only {code} --set {judge.key}.{chosen.name}={value!r}\n```"
            )
    parts.append(
        f'To leave it out of what you see: `stratoscope advise {EXAMPLE} --mute {code}`, or `mute = ["{code}"]` in '
        "`stratoscope.toml`. See [](../howto/settings.md)."
    )
    return "\n\n".join(parts)


def _deciding(judge: type[Judge], code: str) -> list[dataclasses.Field]:
    """The settings that decide a code: those that its text names, else those that its findings tell, else all."""
    fields, told = dataclasses.fields(judge), explanation_of(judge, code)
    nodes = [node for call in _calls(judge, code) for node in ast.walk(call) if isinstance(node, ast.Attribute)]
    shown = {node.attr for node in nodes if isinstance(node.value, ast.Name | ast.Attribute)}
    names = set(told.settings) if len(told.settings) < len(fields) else shown
    return [field for field in fields if field.name in names] or list(fields)


def _everywhere(code: str, meaning: str) -> str:
    return (
        f"(finding-{code.lower()})=\n# {code}: {meaning}\n\n"
        f"## {MEANS}\n\nThis code is Stratoscope's own: {meaning}. The sentence of the finding says at which batch, and what was "
        "there.\n\n## What to do\n\nCheck that the data are what the network takes: the shape and type of a batch, and labels "
        "that fit its output.\n"
    )


# -- what the judgement says in its code ------------------------------------------------------------------------------


def advice_of(judge: type[Judge], code: str) -> list[str]:
    """What the findings of a code ask for, where the source says it as plain text."""
    found = (_literal(call, "do") for call in _calls(judge, code))
    return list(dict.fromkeys(text[:1].upper() + text[1:].rstrip(".") + "." for text in found if text))


def outcomes_of(judge: type[Judge], code: str) -> list[str]:
    """The outcomes that findings of a code may have, besides that it passed."""
    names = {
        node.attr.lower()
        for call in _calls(judge, code)
        for argument in [*call.args, *(keyword.value for keyword in call.keywords)]
        for node in ast.walk(argument)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "Outcome"
    }
    if code.endswith("000"):
        names |= {"failed", "not_applicable"}
    return [outcome.value for outcome in Outcome if outcome.value in names]


def _calls(judge: type[Judge], code: str) -> Iterator[ast.Call]:
    """Calls that make a finding of this code: it stands among their arguments."""
    home = judge.__module__
    names = {home, *(name for name in list(sys.modules) if name.startswith((f"{home}_", f"{home}.")))}
    for name in sorted(names):
        for node in ast.walk(ast.parse(inspect.getsource(sys.modules[name]))):
            if isinstance(node, ast.Call) and any(_is(code, argument) for argument in node.args):
                yield node


def _is(code: str, argument: ast.expr) -> bool:
    """Whether an argument is a code, or a choice of codes that this one is among."""
    if isinstance(argument, ast.IfExp):
        return _is(code, argument.body) or _is(code, argument.orelse)
    return isinstance(argument, ast.Constant) and argument.value == code


def _literal(call: ast.Call, name: str) -> str:
    """A keyword's text, where it is one; what is put into it stands as an ellipsis."""
    value = next((keyword.value for keyword in call.keywords if keyword.arg == name), None)
    if isinstance(value, ast.Constant) and isinstance(value.value, str):
        return value.value
    if isinstance(value, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in value.values)
    return ""
