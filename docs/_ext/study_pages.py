"""Writes the pages of the studies: the list, one for each, and the ledger that the package ships.

Studies are found by walking, so a new one appears here without an edit.
"""

import inspect
import re

import pages

from stratoscope.report.claims import numbers_of
from stratoscope.studies import ledger, registry
from stratoscope.studies import study as declaration
from stratoscope.studies.listing import as_json, listed

LIST = "studies/index.md"


def write_all(docs):
    """Write the pages below a folder and delete old ones; what would not change is left alone."""
    written = pages_of(registry.available(), ledger.read(ledger.SHIPPED))
    for name, text in written.items():
        pages.write(docs / name, text)
    for path in (docs / "studies").glob("*.md"):
        if f"studies/{path.name}" not in written:
            path.unlink()


def pages_of(studies, rows):
    """Every page by its name."""
    return {
        LIST: index_page(studies),
        "studies/ledger.md": ledger_page(studies, rows),
        **{f"studies/{name}.md": study_page(study, rows) for name, study in studies.items()},
    }


def index_page(studies):
    """The list of studies, and how to write one."""
    rows = [[f"[{s.title}]({name}.md)", pages.link(s.paper), s.question] for name, s in studies.items()]
    names = "\n".join(studies)
    (example,) = re.findall(r"```python\n.*?```", inspect.getdoc(declaration), re.DOTALL)
    return (
        "# Studies\n\n"
        "A study executes what a paper claims, and says what came out, also where that is not what the paper says. "
        "`stratoscope study list` prints this list, with those that other installed packages bring; "
        "[the ledger](ledger.md) has every claim. How a claim is decided is in [](../explanation/ledger.md).\n\n"
        f"{pages.table(['study', 'paper', 'question'], rows)}\n\n"
        "## Write a study\n\nA study is one declaration and a few plain functions:\n\n"
        f"{example}\n\n"
        "Here it would be `studies/worked_example/study.py`; another package names its own as an entry point in "
        '`[project.entry-points."stratoscope.studies"]`.\n\n'
        f"```{{toctree}}\n:hidden:\n\nledger\n{names}\n```\n"
    )


def study_page(study, rows):
    """What a study asks, what it claims, and what came out."""
    facts = [["paper", pages.link(study.paper)], ["question", study.question]]
    facts += [["seeds", ", ".join(f"{count} ({budget})" for budget, count in study.seeds.items())]]
    return "\n\n".join(
        [
            f"# {study.title}",
            pages.table(["", ""], facts),
            f"```console\n$ stratoscope study run {study.name} --budget analogue\n```",
            "## Claims",
            *(claim_part(row) for row in listed([study], rows)),
            "",
        ]
    )


def claim_part(row):
    """One claim and what came out."""
    printed = as_json(row)
    expected = "" if row.expected else " It is expected not to hold."
    facts = [["result", f"**{row.result}**: {printed['reason']}"]]
    facts += [["numbers", numbers_of(printed)]] if numbers_of(printed) else []
    facts += [["note", row.note]] if row.note else []
    facts += [["measured", f"{row.date[:10]}, budget {row.budget}, version {row.version}"]] if row.date else []
    return f"### {row.claim}\n\nWhere: {row.where}.{expected}\n\n{pages.table(['', ''], facts)}"


def ledger_page(studies, rows):
    """Every claim in one table."""
    found = listed(studies.values(), rows)
    cells = [
        [
            f"[{row.study}]({row.study}.md)",
            row.claim,
            row.where,
            f"**{row.result}**",
            numbers_of(as_json(row)),
            row.budget,
        ]
        for row in found
    ]
    return (
        "# The ledger\n\nEvery claim of every study, as `stratoscope ledger` prints it: what came out at the largest "
        "budget that decided. The reason for each result is on the study's page.\n\n"
        f"{pages.table(['study', 'claim', 'where', 'result', 'numbers', 'budget'], cells)}\n"
    )
