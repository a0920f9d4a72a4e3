"""The manual says what is there: codes, options, names and fields; and what it shows runs."""

import ast
import importlib.util
import json
import re
import subprocess
import sys
import tomllib
import types
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from torch import nn

import stratoscope
from stratoscope.cli.output import as_json
from stratoscope.diagnoses.registry import available as diagnoses
from stratoscope.diagnoses.registry import choose as choose_diagnoses
from stratoscope.findings import Finding, Outcome
from stratoscope.instruments.registry import available, choose
from stratoscope.observe.overrides import override
from stratoscope.observe.settings import Settings, load_settings
from stratoscope.report.codes import meanings, page_of

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
TOLD = [
    *sorted((DOCS / "tutorials").glob("*.md")),
    *sorted((DOCS / "howto").glob("*.md")),
    *sorted((DOCS / "reference").glob("*.md")),
]
WRITTEN = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *TOLD, *sorted((DOCS / "explanation").glob("*.md"))]


def extension(name):
    """A module of the manual's own, which is no package."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / "_ext" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pages():
    return extension("pages")


@pytest.fixture
def code_pages(pages, monkeypatch):
    monkeypatch.setitem(sys.modules, "pages", pages)
    return extension("code_pages")


def read(path):
    return path.read_text(encoding="utf-8")


def blocks(path, language):
    """Fenced blocks of one language, and the lines on which they begin."""
    text = read(path)
    for found in re.finditer(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield found[1], text[: found.start(1)].count("\n")


# -- what is there is in the manual ---------------------------------------------------------------------------------


def test_every_code_is_in_the_registry_of_findings(pages):
    text = pages.findings_page()
    for cls in [*available().values(), *diagnoses().values()]:
        for code, meaning in cls.codes.items():
            assert f"[`{code}`](findings/{code.lower()}.md){{#{code.lower()}}} | {meaning} |" in text


def test_every_instrument_and_diagnosis_has_a_page_with_its_settings_codes_and_method(pages):
    assert all(f"]({key}.md)" in pages.instruments_index() for key in available())
    assert all(f"]({key}.md)" in pages.diagnoses_index() for key in diagnoses())
    every = {cls: pages.instrument_page(cls, {}) for cls in available().values()}
    every |= {cls: pages.diagnosis_page(cls, {}) for cls in diagnoses().values()}
    for cls, text in every.items():
        for field in fields(cls):
            row = re.search(
                rf"^\| `{field.name}` \| `{re.escape(repr(field.default))}` \| (.*) \|$", text, re.MULTILINE
            )
            assert row is not None
            assert row[1], f"{cls.key}.{field.name} is not described in the docstring of {cls.__name__}"
        assert all(code in text and meaning in text for code, meaning in cls.codes.items())
        assert ast.get_docstring(ast.parse(read(Path(sys.modules[cls.__module__].__file__)))).splitlines()[-1] in text


def test_the_layout_of_a_cut_is_written_down():
    from stratoscope.observe.cut_network import Cut

    _, _, text = read(DOCS / "reference" / "json.md").partition("## cut")
    assert [field.name for field in fields(Cut) if f"`{field.name}`" not in text] == []


def test_a_new_instrument_gets_its_page_without_an_edit(pages, monkeypatch):
    units = available()["units"]
    newcomer = type("Newcomer", (units,), {"key": "newcomer", "codes": {"NC001": "something | new"}, "__doc__": "New."})
    monkeypatch.setattr(pages, "available", lambda: {**available(), "newcomer": newcomer})
    assert "[`NC001`](findings/nc001.md){#nc001} | something \\| new |" in pages.findings_page()
    assert "(newcomer.md)" in pages.instruments_index()
    assert "NC001" in pages.instrument_page(newcomer, {})


def test_every_code_has_a_page_at_the_address_that_reports_name(code_pages):
    written = dict(code_pages.code_pages())
    assert written.keys() == {page_of(code).rpartition("/")[2].replace(".html", ".md") for code in meanings()}
    for cls in [*available().values(), *diagnoses().values()]:
        for code, meaning in cls.codes.items():
            text = written[f"{code.lower()}.md"]
            assert f"# {code}: {meaning}\n" in text
            titles = re.findall(r"^## (.*)$", text, re.MULTILINE)
            assert titles == ["What it means", "When it misleads", "What to do", "Judge it otherwise"], code
            assert f"--mute {code}" in text
            for key, field, value in re.findall(r"--set (\w+)\.(\w+)=(\S+)$", text, re.MULTILINE):
                assert override(f"{key}.{field}={value}").judge is cls


def test_a_code_s_page_says_what_its_findings_say(code_pages):
    units = available()["units"]
    page = code_pages.code_page(units, "instruments", "UN003", units.codes["UN003"])
    assert "| outcome | tip |" in page
    assert "`units.on_limit` | `0.9`" in page
    assert "`units.dead_limit`" not in page
    assert code_pages.advice_of(units, "UN004") == [
        "Lower the learning rate, clip gradients, or look at this layer's inputs in full precision."
    ]
    training = available()["training"]
    assert "[UN001](un001.md)" in code_pages.code_page(training, "instruments", "TR005", training.codes["TR005"])


def test_pages_of_codes_are_written_once_and_old_ones_go(code_pages, tmp_path):
    (tmp_path / "findings").mkdir()
    (tmp_path / "findings" / "zz001.md").write_text("of a code that is gone", encoding="utf-8")
    code_pages.write_all(tmp_path)
    first = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.md")}
    assert {path.stem.upper() for path in first} == set(meanings())
    code_pages.write_all(tmp_path)
    assert first == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.md")}


def test_pages_are_written_once_and_old_ones_go(pages, monkeypatch, tmp_path):
    monkeypatch.setattr(pages, "variables", dict)
    (tmp_path / "instruments").mkdir()
    (tmp_path / "instruments" / "gone.md").write_text("of an instrument that is gone", encoding="utf-8")
    pages.write_all(tmp_path)
    first = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.md")}
    assert {f"{key}.md" for key in [*available(), "index"]} == {path.name for path in tmp_path.glob("instruments/*")}
    assert {f"{key}.md" for key in [*diagnoses(), "index"]} == {path.name for path in tmp_path.glob("diagnoses/*")}
    pages.write_all(tmp_path)
    assert first == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.md")}


def test_variables_of_every_instrument_are_listed(pages):
    found = pages.variables()
    assert {"units", "training", "performance", "weights", "separation"} <= set(found) <= {*available(), *diagnoses()}
    assert "depth" in found
    for key, variables in found.items():
        page = pages.instrument_page if key in available() else pages.diagnosis_page
        text = page({**available(), **diagnoses()}[key], variables)
        for name, about in variables.items():
            assert f"| `{name}` | {', '.join(about['dims'])} | `{about['units']}` | {about['long_name']} |" in text


def test_every_command_and_option_is_in_the_manual(pages):
    text = pages.commands_part()
    assert "{include} ../generated/commands.md" in read(DOCS / "reference" / "command-line.md")
    for name, command in pages.commands().items():
        section = re.search(rf"^## {name}$.*?(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)[0]
        assert "```console\n$ stratoscope " in section, f"the help of {name} has no example"
        for param in command.params:
            shown = param.opts[0] if param.opts[0].startswith("-") else param.name.upper()
            assert re.search(rf"^\| `{re.escape(shown)}\b.*\| {re.escape(param.help)} \|$", section, re.MULTILINE)


def test_every_public_name_is_in_the_reference():
    text = read(DOCS / "reference" / "api.md")
    assert [name for name in stratoscope.__all__ if f"stratoscope.{name}" not in text] == []


def test_the_reference_has_every_public_module_once(pages):
    text = "\n".join(pages.reference_pages().values())
    listed = re.findall(r"^\.\. automodule:: (\S+)$", text, re.MULTILINE)
    wanted = [name for name in pages.public_modules() if name.split(".")[1] not in ("cli", "version")]
    assert sorted(listed) == sorted(wanted)
    assert "stratoscope.instruments.units" in listed


def test_every_outcome_and_field_of_a_finding_is_explained():
    text = read(DOCS / "explanation" / "findings.md")
    assert [str(outcome) for outcome in Outcome if f"| *{outcome}* |" not in text] == []
    assert [field.name for field in fields(Finding) if f"`{field.name}`" not in text] == []


def test_the_layout_of_json_is_written_down():
    text = read(DOCS / "reference" / "json.md")
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    with torch.no_grad():
        model[0].weight[0, 0] = torch.nan
    shown = as_json(stratoscope.inspect(model, settings=Settings()))
    assert [key for key in shown if f"`{key}`" not in text] == []
    assert [key for key in fields(Finding) if f"`{key.name}`" not in text] == []
    plain = ("name", "layer", "tensor", "kind", "shape", "status", "reason")
    assert list(shown["layers"][0])[: len(plain)] == list(plain)
    assert all(f"| `{key}` |" in text for key in plain)
    (broken,) = (row for row in shown["layers"] if row["name"] == "0.weight")
    assert broken["frobenius_norm"] is None
    assert "NaN" in broken["frobenius_norm_reason"]


def test_the_layout_of_a_comparison_is_written_down():
    from stratoscope.record.combine import Difference

    _, _, text = read(DOCS / "reference" / "json.md").partition("## compare")
    assert [field.name for field in fields(Difference) if f"`{field.name}`" not in text] == []


# -- what the manual names is there ---------------------------------------------------------------------------------


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.stem)
def test_commands_that_are_shown_exist(path, pages):
    known = pages.commands()
    for block, _ in [*blocks(path, "console"), *blocks(path, "sh")]:
        for words in re.findall(r"^(?:\$ )?stratoscope (.*?)(?: #.*| \|.*)?$", block, re.MULTILINE):
            name, *rest = words.split()
            if name not in known:  # of a group: two words
                name, *rest = f"{name} {rest[0]}", *rest[1:]
            options = {option for param in known[name].params for option in param.opts} | {"--help"}
            assert [word for word in rest if word.startswith("--") and word not in options] == []
        for word in re.findall(r"^(?:\$ )?\./dev (\w+)", block, re.MULTILINE):
            assert f"\n{word})" in read(ROOT / "dev")


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.stem)
def test_codes_that_are_named_exist(path):
    every = [*available().values(), *diagnoses().values()]
    known = {code: meaning for cls in every for code, meaning in cls.codes.items()}
    own = set(re.findall(r'"([A-Z]{2}\d{3})"', "".join(block for block, _ in blocks(path, "python"))))
    for code, meaning in re.findall(r"`([A-Z]{2}\d{3})`(?: ([^`·|]+?)(?: ·| \|))?", read(path)):
        if code not in own | {"ST000", "XX000"}:
            assert code in known
            assert meaning in ("", known[code])


@pytest.mark.parametrize("path", [*WRITTEN, DOCS / "index.md", DOCS / "decisions.md"], ids=lambda path: path.stem)
def test_files_that_are_linked_exist(path):
    made = (
        "findings.md",
        "instruments/index.md",
        "diagnoses/index.md",
        "studies/index.md",
        "studies/ledger.md",
        "gallery/index",
    )
    written = re.compile(r"(\.\./)?(instruments|diagnoses|findings)/\w+\.md$")
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", read(path)):
        if not target.startswith("http") and not target.endswith(made) and not written.match(target):
            assert (path.parent / target).exists(), f"{path.name}: {target}"


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.stem)
def test_settings_that_are_shown_are_settings(path, tmp_path):
    for block, _ in blocks(path, "toml"):
        if "[project" in block:
            assert {"stratoscope.instruments", "stratoscope.diagnoses", "stratoscope.theories"} & tomllib.loads(block)[
                "project"
            ]["entry-points"].keys()
            continue
        (tmp_path / "stratoscope.toml").write_text(block, encoding="utf-8")
        settings = load_settings(folder=tmp_path)
        choose(settings=settings.instruments)
        choose_diagnoses(settings=settings.diagnoses)


def test_the_example_settings_of_every_instrument_are_its_own(pages, tmp_path):
    for key, cls in available().items():
        (block,) = re.findall(r"^```toml\n(.*?)^```$", pages.instrument_page(cls, {}), re.MULTILINE | re.DOTALL)
        (tmp_path / "stratoscope.toml").write_text(block, encoding="utf-8")
        (chosen,) = choose([key], settings=load_settings(folder=tmp_path).instruments)
        assert chosen == cls()
    for key, cls in diagnoses().items():
        (block,) = re.findall(r"^```toml\n(.*?)^```$", pages.diagnosis_page(cls, {}), re.MULTILINE | re.DOTALL)
        (tmp_path / "stratoscope.toml").write_text(block, encoding="utf-8")
        (found,) = choose_diagnoses([key], settings=load_settings(folder=tmp_path).diagnoses)
        assert found == cls()


def test_versions_agree():
    version = tomllib.loads(read(ROOT / "pyproject.toml"))["project"]["version"]
    assert f"\nversion: {version}\n" in read(ROOT / "CITATION.cff")
    assert f"\n## {version}" in read(ROOT / "CHANGELOG.md")


def test_tables_of_the_record_are_the_tables_on_disk():
    from stratoscope.record.schema import TABLES

    (block,) = (block for block, _ in blocks(DOCS / "explanation" / "record.md", "sql"))
    assert {line.split()[0] for line in block.splitlines()} == set(TABLES)


# -- what the manual shows runs -------------------------------------------------------------------------------------


def run_blocks(path, monkeypatch, names=None):
    """Execute the Python blocks of a page one after the other, as one module; then the tests that it defines."""
    module = types.ModuleType(f"page_{path.stem.replace('-', '_')}")
    module.__dict__.update(names or {})
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for block, line in blocks(path, "python"):
        exec(compile("\n" * line + block, str(path), "exec"), module.__dict__)
    for name, test in list(vars(module).items()):
        if name.startswith("test_"):
            test()
    return module


@pytest.mark.parametrize("path", [path for path in TOLD if any(blocks(path, "python"))], ids=lambda path: path.stem)
def test_code_on_a_page_runs(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with torch.random.fork_rng():
        run_blocks(path, monkeypatch)


def test_code_in_the_readme_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    draw = torch.Generator().manual_seed(0)
    x, u = torch.randn(200, 8, generator=draw), torch.randn(60, 8, generator=draw)
    y, v = ((z[:, 0] > 0).long() for z in (x, u))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
    with torch.no_grad():
        model[0].bias.fill_(-100.0)  # so that there is something to say
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def train_step(inputs, labels):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(inputs), labels)
        loss.backward()
        optimizer.step()
        return loss

    loader = list(zip(x.split(20), y.split(20), strict=True))
    names = {"model": model, "x": x, "y": y, "u": u, "v": v, "optimizer": optimizer, "loader": loader}
    run_blocks(ROOT / "README.md", monkeypatch, {**names, "train_step": train_step})
    record = stratoscope.Record.open(tmp_path / "runs" / "first")
    assert record.steps[-1] == len(loader)
    assert "100% of the units are dead" in capsys.readouterr().out


def test_the_readme_shows_six_lines():
    (block,) = (block for block, _ in blocks(ROOT / "README.md", "python"))
    assert len([line for line in block.splitlines() if line.strip()]) <= 6


# -- the manual's own tools -----------------------------------------------------------------------------------------


def test_docstrings_become_restructured_text():
    to_rst = extension("docstrings").to_rst
    assert to_rst("a `x_` of |E g| and w_") == r"a ``x_`` of \|E g\| and w\_"
    assert to_rst("```python\nf(`x`)\n\ng\n```\nend") == ".. code-block:: python\n\n   f(`x`)\n\n   g\n\nend"
    assert to_rst(">>> a | b  # `c`\n1\n\nend `c`") == ">>> a | b  # `c`\n1\n\nend ``c``"
    assert to_rst("at least $s_1 \\ge 0$") == "at least :math:`s_1 \\ge 0`"
    assert to_rst("see [the paper](https://x.org/y)") == "see `the paper <https://x.org/y>`__"


def test_formulas_of_every_instrument_can_be_drawn():
    pytest.importorskip("matplotlib")
    svg = extension("formulas").svg
    assert svg(r"\nosuchsymbol{x").startswith("<code>")
    for cls in [*available().values(), *diagnoses().values()]:
        text = ast.get_docstring(ast.parse(read(Path(sys.modules[cls.__module__].__file__))))
        for block, inline in re.findall(r"\$\$(.+?)\$\$|\$(.+?)\$", text, re.DOTALL):
            assert svg(" ".join((block or inline).split())).startswith("<svg"), block or inline


def test_a_formula_takes_the_colour_of_the_text_and_says_itself():
    pytest.importorskip("matplotlib")
    drawn = extension("formulas").svg("a < b")
    assert 'aria-label="a &lt; b"' in drawn
    assert 'fill="currentColor"' in drawn


def test_sizes_are_printed():
    ended = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "sizes.py")], capture_output=True, text=True, check=True
    )
    assert len(re.findall(r"^ *\d+ +\d+  \S", ended.stdout, re.MULTILINE)) == 30


def test_the_list_of_instruments_is_valid_json(capsys):
    from stratoscope.cli.instruments import command

    command(json=True)
    listed = json.loads(capsys.readouterr().out)
    _, _, text = read(DOCS / "reference" / "json.md").partition("## instruments")
    assert [row["key"] for row in listed] == list(available())
    assert all(f"`{key}`" in text for key in listed[0])


def test_the_list_of_diagnoses_is_valid_json(capsys):
    from stratoscope.cli.diagnoses import command

    command(json=True)
    listed = json.loads(capsys.readouterr().out)
    _, _, text = read(DOCS / "reference" / "json.md").partition("## diagnoses")
    assert [row["key"] for row in listed] == list(diagnoses())
    assert all(f"`{key}`" in text for key in listed[0])
