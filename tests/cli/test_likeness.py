"""`stratoscope likeness`."""

import json
import sys

import pytest
import torch

from stratoscope.cli.main import main
from stratoscope.network.sources import load_object

MODEL = """
import torch
from torch import nn

def build(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3))

def wider():
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Sequential(nn.Linear(6, 20), nn.Tanh(), nn.Linear(20, 20), nn.Tanh(), nn.Linear(20, 3))

def data():
    return torch.randn(60, 6, generator=torch.Generator().manual_seed(0))
"""


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run the command line in this process: its exit code, standard output and standard error."""
    (tmp_path / "two.py").write_text(MODEL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("STRATOSCOPE_DEBUG", "")

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["stratoscope", "likeness", *arguments])
        with pytest.raises(SystemExit) as left:
            main()
        printed = capsys.readouterr()
        return left.value.code, printed.out, printed.err

    return call


def test_two_models(run, tmp_path):
    code, out, _ = run("two.py:build", "two.py:wider", "--data", "two.py:data", "--to", "kept", "--html", "map.html")
    assert code == 0
    assert "CK004 The two networks part ways at" in " ".join(out.split())
    assert (tmp_path / "kept" / "run.db").exists()
    assert "Debiased linear CKA" in (tmp_path / "map.html").read_text()


def test_one_model_with_two_weights(run, tmp_path):
    state = load_object(f"{tmp_path / 'two.py'}:build")().state_dict()
    torch.save(state, tmp_path / "a.pt")
    torch.save(state | {"2.weight": state["2.weight"] * torch.tensor([[5.0], [1.0], [0.1]])}, tmp_path / "b.pt")
    code, out, _ = run(
        "two.py:build",
        "--weights",
        "a.pt",
        "--other-weights",
        "b.pt",
        "--data",
        "two.py:data",
        "--json",
        "--limit",
        "40",
    )
    found = json.loads(out)
    assert (code, found["name"]) == (0, "build a.pt and build b.pt")
    codes = {finding["code"]: finding for finding in found["findings"]}
    assert codes["CK004"]["layer"] == "2"
    assert codes["CK004"]["evidence"]["n"] == 40


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["two.py:build", "two.py:wider"], "--data"), (["two.py:build", "--data", "two.py:data"], "one model only")],
)
def test_what_is_missing_is_named(run, arguments, words):
    code, _, err = run(*arguments)
    assert code == 2
    assert words in err
