"""The pages of the manual that follow from studies and the ledger."""

import re
import sys
import types
from pathlib import Path

import pytest

from stratoscope.studies import ledger
from stratoscope.studies.ledger import Row
from stratoscope.studies.running import run_study

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def study_pages(monkeypatch):
    monkeypatch.syspath_prepend(DOCS / "_ext")
    import study_pages

    yield study_pages
    for name in ("study_pages", "pages"):
        sys.modules.pop(name, None)


def test_every_study_has_a_page_with_its_claims_and_what_came_out(study_pages, toy, tmp_path):
    rows = {row.key: row for row in run_study(toy, "full", engine="serial", to=tmp_path / "runs", seeds=3).rows}
    pages = study_pages.pages_of({toy.name: toy}, rows)
    assert set(pages) == {"studies/index.md", "studies/ledger.md", "studies/toy-study.md"}
    page = pages["studies/toy-study.md"]
    for claim in toy.claims:
        assert f"### {claim.says}\n\nWhere: {claim.where}." in page
        assert f"| {claim.says} | {claim.where} |" in pages["studies/ledger.md"]
    assert "**held**: the interval over 3 seeds lies above the margin" in page
    assert "rise of the gain 6.01 ± 0.01 m over 3 seeds" in page
    assert "It is expected not to hold." in page
    assert "[Toy](toy-study.md) | [doi:10.5555/12345678](https://doi.org/10.5555/12345678)" in pages["studies/index.md"]


def test_pages_are_written_once_and_old_ones_go(study_pages, toy, tmp_path, monkeypatch):
    monkeypatch.setattr(ledger, "SHIPPED", tmp_path / "nothing.json")
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "gone.md").write_text("of a study that is gone")
    study_pages.write_all(tmp_path)
    first = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "studies").iterdir()}
    assert set(first) == {"index.md", "ledger.md", "toy-study.md"}
    assert "not run at this budget" in (tmp_path / "studies" / "toy-study.md").read_text()
    study_pages.write_all(tmp_path)
    assert first == {path.name: path.stat().st_mtime_ns for path in (tmp_path / "studies").iterdir()}


def test_the_example_of_the_manual_runs(study_pages, tmp_path, monkeypatch):
    (block,) = re.findall(r"```python\n(.*?)```", study_pages.index_page({}), re.DOTALL)
    module = types.ModuleType("worked_example")
    monkeypatch.setitem(sys.modules, "worked_example", module)
    exec(compile(block, "worked_example", "exec"), module.__dict__)
    for budget in ("smoke", "analogue"):
        outcome = run_study(module.STUDY, budget, engine="serial", to=tmp_path)
    assert outcome.failed == []
    assert [row.result for row in outcome.rows] == ["held"]


def test_the_manual_names_every_field_of_the_ledger():
    text = (DOCS / "reference" / "json.md").read_text(encoding="utf-8").partition("## ledger")[2]
    shown = [*(field for field in Row.__dataclass_fields__), "as_expected"]
    assert [field for field in shown if f"`{field}`" not in text] == []
