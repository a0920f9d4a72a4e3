"""`stratoscope cut`: tables, JSON and exit codes."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

MODEL = """
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    x, y = data()["train"]
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model

def circle():
    \"\"\"Far from the middle, or near: an angle a unit, of which the first layer knows nothing yet.\"\"\"
    model = nn.Sequential(nn.Identity(), nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 2))
    angle = torch.arange(64) * 2 * torch.pi / 64
    with torch.no_grad():
        model[1].weight.zero_()
        model[1].weight[:, :2] = torch.stack([angle.cos(), angle.sin()], 1)
        model[1].bias.zero_()
        model[3].weight.copy_(torch.tensor([[0.0], [1.0]]).expand(2, 64) * torch.pi / 64)
        model[3].bias.copy_(torch.tensor([1.18, 0.0]))
    return model

def data():
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(400, 4, generator=draw)
    y = (x[:, 0] + x[:, 1] > 0).long()
    return {"train": (x[:200], y[:200]), "test": (x[200:], y[200:])}

def rings():
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(400, 4, generator=draw)
    y = (x[:, :2].norm(dim=1) > 1.18).long()
    return {"train": (x[:200], y[:200]), "test": (x[200:], y[200:])}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cut")
    (folder / "model.py").write_text(MODEL)
    np.savez(folder / "bare.npz", x=np.zeros((8, 4), "float32"))
    return folder


def cli(*arguments, folder):
    return subprocess.run(
        [sys.executable, "-m", "stratoscope.cli.main", "cut", *arguments],
        check=False, cwd=folder, env={**os.environ, "COLUMNS": "100"}, capture_output=True, text=True, timeout=170,
    )  # fmt: skip


def test_a_table_and_a_sentence(place):
    ended = cli("model.py:build", "--data", "model.py:data", "--at", "1", folder=place)
    assert ended.returncode == 0, ended.stderr
    assert "cut after 1" in ended.stdout
    assert "accuracy on test" in ended.stdout
    assert "McNemar" in ended.stdout


def test_json_and_strict(place):
    ended = cli("model.py:circle", "--data", "model.py:rings", "--at", "0", "--json", "--strict", folder=place)
    assert ended.returncode == 1, ended.stderr
    found = json.loads(ended.stdout)
    assert found["worse"] is True
    assert found["layers_saved"] == ["1", "2", "3"]
    assert found["difference"]["n"] == 200
    good = cli("model.py:build", "--data", "model.py:data", "--at", "3", "--json", "--strict", folder=place)
    assert good.returncode == 0, good.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["model.py:build"], "name its data with --data"),
        (["model.py:build", "--data", "model.py:data", "--at", "9"], "cannot be cut after '9', which is not called"),
        (["model.py:build", "--data", "bare.npz", "--at", "1"], "one integer label an example is needed"),
        (["model.py:build", "--data", "model.py:data", "--at", "1", "--fit", "val"], "There is no split 'val'"),
        (["model.py:build", "--data", "model.py:data", "--at", "1", "--pooling", "most"], "pooling='most'"),
    ],
)
def test_bad_input_gets_one_sentence_and_exit_code_two(place, arguments, says):
    ended = cli(*arguments, folder=place)
    assert ended.returncode == 2
    assert says in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stderr.count("\n") == 1
