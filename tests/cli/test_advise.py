"""`stratoscope advise`: a record judged again, and what to do about it."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from stratoscope import Finding, Record, watch
from stratoscope.cli import advise, report
from stratoscope.errors import RecordError, SettingError
from stratoscope.findings import Outcome
from stratoscope.observe.settings import Settings
from stratoscope.report.advice import Advice
from stratoscope.report.codes import MANUAL

KILLED = """
import os, signal
import torch
from torch import nn
from stratoscope import watch
from stratoscope.instruments.units import Units
from stratoscope.instruments.training import Training
from stratoscope.observe.settings import Settings

x, y = torch.randn(64, 6, generator=torch.Generator().manual_seed(1)), torch.arange(64) % 2
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
with torch.no_grad():
    model[0].bias.fill_(-100.0)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
with watch(model, (x, y), optimizer=optimizer, to="killed", instruments=[Units(), Training()], every=5, budget=1e9,
           settings=Settings()) as w:
    for step in range(1, 21):
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        w.step(step, loss=loss)
    while w.committed < 20:
        pass
    os.kill(os.getpid(), signal.SIGKILL)
"""


def trained(folder, bias=-100.0):
    """The record of a training of a network whose rectifiers are all dead, or most of them."""
    from stratoscope.instruments.training import Training
    from stratoscope.instruments.units import Units

    draw = torch.Generator().manual_seed(1)
    x, y = torch.randn(128, 6, generator=draw), torch.arange(128) % 2
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    with torch.no_grad():
        model[0].bias.fill_(bias)
        model[2].bias.fill_(1.0)
        model[2].bias[:6] = bias
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    splits = {"train": (x[:64], y[:64]), "test": (x[64:], y[64:])}
    chosen = [Units(), Training()]
    with watch(model, splits, optimizer=optimizer, to=folder, instruments=chosen, settings=Settings(), budget=1e9) as w:
        for step in range(1, 6):
            loss = nn.functional.cross_entropy(model(x[:64]), y[:64])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            w.step(step, loss=loss)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("advise") / "run"
    trained(folder)
    return folder


@pytest.fixture
def said(run, tmp_path, monkeypatch):
    """Runs the command in an empty folder; its exit code and what it printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")

    def call(*arguments, folder=run, module=advise):
        app = __import__("typer").Typer()
        module.register(app)
        found = CliRunner().invoke(app, [str(folder), *map(str, arguments)])
        if found.exception is not None and not isinstance(found.exception, SystemExit):
            raise found.exception
        return found.exit_code, found.stdout

    return call


def as_json(said, *arguments, **options):
    code, text = said(*arguments, "--json", **options)
    return code, json.loads(text)


def every_byte(folder):
    """A digest of each file; `-shm` is what readers of a database tell each other, and holds no data."""
    files = (path for path in sorted(Path(folder).rglob("*")) if path.is_file() and not path.name.endswith("-shm"))
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_advice_says_what_where_with_which_numbers_what_to_do_and_where_to_read_on(said):
    code, text = said()
    assert code == 0
    words = " ".join(text.split())
    assert "1: 100% of the units are dead on all 64 examples" in words
    assert "dead_share 1, limit 0.5, n 64" in words
    assert "the worst of 4: also 3, on train and test" in words
    assert "→ lower the learning rate, check the initialisation" in words
    assert "step 5" in words
    assert "arXiv:1811.05381" in words
    assert f"{MANUAL}/findings/un001.html" in words
    assert text.index("UN001") < text.index("UN002") if "UN002" in text else True
    assert "nothing: the stored findings ask for the same" in words
    assert "left as it is" in words


def test_the_most_pressing_comes_first_and_once(said):
    _, found = as_json(said)
    order = ["issue", "failed", "tip"]
    outcomes = [order.index(one["outcome"]) for one in found["advice"]]
    assert outcomes == sorted(outcomes)
    (dead,) = (one for one in found["advice"] if one["code"] == "UN001")
    assert (dead["count"], dead["layers"], sorted(dead["splits"])) == (4, ["1", "3"], ["test", "train"])
    assert dead["evidence"]["dead_share"] == 1
    assert dead["page"] == f"{MANUAL}/findings/un001.html"
    assert not dead["new"]
    assert len([one for one in found["findings"] if one["code"] == "UN001"]) == 4


def test_another_threshold_changes_what_is_found_and_says_so(said):
    code, found = as_json(said, "--set", "units.dead_limit=0.9")
    assert code == 0
    assert found["settings"] == {"units": {"dead_limit": 0.9}}
    dead = {(f["layer"], f["split"]) for f in found["findings"] if f["code"] == "UN001"}
    assert dead == {("1", "train"), ("1", "test")}
    assert {(f["code"], f["layer"], f["now"]) for f in found["gone"]} == {("UN001", "3", "within its limit now")}
    assert {(f["code"], f["layer"], f["outcome"]) for f in found["new"]} == {("UN002", "3", "tip")}
    (fewer,) = (one for one in found["advice"] if one["code"] == "UN002")
    assert fewer["new"]
    words = " ".join(said("--set", "units.dead_limit=0.9")[1].split())
    assert "2 came and 2 went" in words
    assert "+ UN002" in words
    assert "- UN001" in words
    assert "new: it is not among the findings that are stored" in words
    assert "units.dead_limit = 0.9" in words


def test_the_record_stays_as_it_is(said, run):
    before = every_byte(run)
    said("--set", "units.dead_limit=0.9", "--mute", "UN*", "--html", "page.html")
    assert every_byte(run) == before


def test_muted_codes_are_counted_and_gone(said):
    code, found = as_json(said, "--mute", "un001", "--mute", "TR*", "--strict")
    assert code == 0
    assert found["muted"] == ["UN001", "TR*"]
    assert not [one for one in found["advice"] if one["code"].startswith(("UN001", "TR"))]
    assert {f["outcome"] for f in found["findings"] if f["code"] == "UN001"} == {"muted"}
    assert {f["now"] for f in found["gone"]} == {"now muted"}
    assert "muted" in said("--mute", "UN001")[1]


def test_only_some_codes_on_request(said):
    _, found = as_json(said, "--only", "UN*", "--only", "TR001")
    assert {f["code"][:2] for f in found["findings"]} == {"UN", "TR"}
    assert {f["code"] for f in found["findings"] if f["code"].startswith("TR")} == {"TR001"}
    code, text = said("--only", "TR001", "--strict")
    assert code == 0
    assert "Nothing asks for anything among TR001." in text


def test_strict_leaves_with_one_where_there_are_issues(said):
    assert said("--strict")[0] == 1
    assert said("--strict", "--set", "units.dead_limit=2", "--mute", "TR*")[0] == 0
    assert as_json(said, "--strict")[0] == 1


def test_a_settings_file_counts_and_a_setting_beside_it_counts_more(said, tmp_path):
    (tmp_path / "stratoscope.toml").write_text('mute = ["TR*"]\n[instruments.units]\ndead_limit = 0.95\n')
    _, found = as_json(said)
    assert found["settings"] == {"units": {"dead_limit": 0.95}}
    assert found["muted"] == ["TR*"]
    (tmp_path / "other.toml").write_text("[instruments.units]\ndead_limit = 0.99\nsome_dead = 0.2\n")
    _, found = as_json(said, "--config", "other.toml", "--set", "units.dead_limit=0.3")
    assert found["settings"] == {"units": {"dead_limit": 0.3, "some_dead": 0.2}}


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("units.threshold=0.5", "units.threshold decides what is measured"),
        ("depth.margin=0.5", "depth is not in this record"),
    ],
)
def test_a_setting_that_can_change_nothing_says_why(said, setting, says):
    _, found = as_json(said, "--set", setting)
    assert len(found["notes"]) == 1
    assert says in found["notes"][0]
    assert (found["new"], found["gone"]) == ([], [])
    assert says in " ".join(said("--set", setting)[1].split())
    assert as_json(said, "--set", "units.dead_limit=0.9")[1]["notes"] == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--set", "unit.dead_limit=1"], "There is no instrument 'unit'"),
        (["--set", "units.dead=1"], "units has no setting 'dead'; it has threshold"),
        (["--set", "units.dead_limit=many"], "must be a number"),
        (["--mute", "UN999"], "There is no finding with the code 'UN999'; there are UN000, UN001"),
        (["--only", "dead"], "There is no finding with the code 'DEAD'"),
        (["--config", "nowhere.toml"], "There is no settings file nowhere.toml"),
    ],
)
def test_what_does_not_exist_is_one_sentence(said, arguments, says):
    with pytest.raises(SettingError) as told:
        said(*arguments)
    assert says in str(told.value)
    assert "\n" not in str(told.value)


def test_a_settings_file_with_an_unknown_name_is_refused(said, tmp_path):
    (tmp_path / "stratoscope.toml").write_text("[instruments.unit]\ndead_limit = 0.5\n")
    with pytest.raises(SettingError, match="There is no instrument 'unit'"):
        said()


def test_a_folder_without_a_record_is_one_sentence(said, tmp_path):
    with pytest.raises(RecordError):
        said(folder=tmp_path / "nothing")


def test_the_page_is_judged_so_too(said, tmp_path):
    code, text = said("--set", "units.dead_limit=0.9", "--html", "out/page.html")
    assert code == 0
    assert "Report: out/page.html" in text
    page = (tmp_path / "out" / "page.html").read_text(encoding="utf-8")
    assert "UN002" in page
    assert "<svg" in page


def test_a_killed_run_is_judged_from_what_it_saved(tmp_path, said):
    (tmp_path / "train.py").write_text(KILLED)
    ended = subprocess.run(
        [sys.executable, "train.py"], cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False, timeout=300
    )
    assert ended.returncode == -signal.SIGKILL
    folder = tmp_path / "killed"
    before = every_byte(folder)
    code, found = as_json(said, "--strict", folder=folder)
    assert code == 1
    assert found["status"] == "running"
    assert not found["stored"]
    assert (found["new"], found["gone"]) == ([], [])
    assert {one["code"] for one in found["advice"]} >= {"UN001"}
    assert not any(one["new"] for one in found["advice"])
    words = " ".join(said(folder=folder)[1].split())
    assert "this record had not been judged before" in words
    assert "running (or was killed); the last step is 20" in words
    assert every_byte(folder) == before


def test_a_run_that_goes_on_can_be_asked(tmp_path, said):
    from stratoscope.instruments.units import Units

    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU())
    with torch.no_grad():
        model[0].bias.fill_(-100.0)
    x = torch.randn(64, 6, generator=torch.Generator().manual_seed(0))
    with watch(model, x, to=tmp_path / "live", instruments=[Units()], every=1, budget=1e9, settings=Settings()) as w:
        for step in range(1, 4):
            w.step(step)
        until = time.monotonic() + 30
        while w.committed < 3 and time.monotonic() < until:
            time.sleep(0.01)
        _, found = as_json(said, folder=tmp_path / "live")
        w.step(4)
    assert {one["code"] for one in found["advice"]} == {"UN001"}
    assert Record.open(tmp_path / "live").steps[-1] == 4


def test_report_mutes_without_judging_again(said):
    code, text = said("--mute", "UN*", "--mute", "TR*", "--strict", "--json", module=report)
    assert code == 0
    found = json.loads(text)["findings"]
    assert {f["outcome"] for f in found if f["code"] == "UN001"} == {"muted"}
    assert {f["outcome"] for f in found if f["code"].startswith("TR")} == {"muted"}
    assert said("--strict", "--json", module=report)[0] == 1


def test_the_layout_of_advice_is_written_down(said):
    text = (Path(__file__).parents[2] / "docs" / "reference" / "json.md").read_text(encoding="utf-8")
    _, _, section = text.partition("## advise")
    section = section.partition("\n## ")[0]
    _, found = as_json(said)
    names = {*found, *found["advice"][0]} - {field.name for field in fields(Finding)}
    assert [name for name in sorted(names) if f"`{name}`" not in section] == []


# -- what changed ---------------------------------------------------------------------------------------------------------


def finding(code, outcome, layer="a", split=None, step=1, share=0.6):
    return Finding(code, "x", layer, step, outcome, f"{layer} {share}", "do", {"share": share, "limit": 0.5}, "", split)


def compared(record, before, after, **options):
    return Advice.of(record.with_findings(before), record.with_findings(after), Settings(), **options)


@pytest.fixture
def record(run):
    return Record.open(run)


def test_the_same_of_the_same_place_has_not_changed(record):
    before = [finding("XX001", Outcome.ISSUE, split="train", step=1), finding("XX002", Outcome.PASSED, layer=None)]
    after = [
        finding("XX001", Outcome.ISSUE, split="train", step=9, share=0.9),
        finding("XX002", Outcome.PASSED, layer=None),
    ]
    advice = compared(record, before, after)
    assert (advice.new, advice.gone, advice.stored) == ((), (), True)


def test_what_became_of_a_finding_is_said(record):
    before = [finding("XX001", Outcome.ISSUE, layer) for layer in "abcd"] + [finding("XX000", Outcome.FAILED, "f")]
    after = [
        finding("XX001", Outcome.TIP, "a"), finding("XX001", Outcome.MUTED, "b"), finding("XX001", Outcome.SKIPPED, "c"),
        finding("XX001", Outcome.ISSUE, "e"),
    ]  # fmt: skip
    advice = compared(record, before, after)
    assert [(f.layer, f.outcome) for f in advice.new] == [("a", Outcome.TIP), ("e", Outcome.ISSUE)]
    now = {one.finding.layer: one.now for one in advice.gone}
    assert now == {"a": "now tip", "b": "now muted", "c": "now skipped", "d": "within its limit now",
                   "f": "does not fail any more"}  # fmt: skip
    assert advice.has_issues
    assert not compared(record, before, after, only=["YY*"]).has_issues
    assert compared(record, before, after, only=["YY*"]).gone == ()
