"""A stranger's instrument, with a need of its own, in one file of another package: found, run, reported, checked."""

import json
import os
import subprocess
import sys
import textwrap

import pytest

PLUGIN = '''
"""Mean absolute activation: how loud a layer is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from stratoscope.capture.needs import Reducer, Site, Streamed
from stratoscope.findings import Finding, Outcome
from stratoscope.instruments.base import LayerInstrument
from stratoscope.record.quantity import quantity


@dataclass(frozen=True)
class Loudness(Streamed):
    """Sum of absolute values and their number, at every site."""

    power: float = 1.0
    split: str | None = None
    site: str = "output"

    def reducer(self, site: Site):
        return LoudnessSum(self.power)


class LoudnessSum(Reducer):
    def __init__(self, power):
        self.power, self.total, self.n = power, 0.0, 0

    def update(self, batch):
        self.total += float(batch.rows.double().abs().pow(self.power).sum())
        self.n += batch.rows.numel()

    def merge(self, other):
        self.total += other.total
        self.n += other.n

    def result(self):
        return self.total / self.n


@dataclass(frozen=True)
class Loud(LayerInstrument):
    """How loud a layer is."""

    key: ClassVar[str] = "loud"
    title: ClassVar[str] = "Loudness"
    source: ClassVar[str] = "arXiv:1234.56789"
    codes: ClassVar[Mapping[str, str]] = {"LD001": "a layer is silent"}
    power: float = 1.0

    @property
    def requires(self):
        return {Loudness(self.power)}

    def measure_layer(self, view):
        return {"loudness": quantity(view[Loudness(self.power)], units="1", long_name="mean absolute output")}

    def judge(self, measured) -> Iterator[Finding]:
        for name in measured["loudness"].coords["layer"].values:
            value = float(measured["loudness"].sel(layer=name).values.reshape(-1)[-1])
            if value == 0:
                yield self.finding("LD001", Outcome.TIP, f"{name} is silent", layer=str(name), do="look", loudness=value, limit=0.0)
'''

MODEL = """
import torch
def build():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
def data():
    torch.manual_seed(1)
    x = torch.randn(50, 4)
    return {"test": (x, (x[:, 0] > 0).long())}
"""


@pytest.fixture
def elsewhere(tmp_path):
    """An installed package with an entry point, and an environment in which it is seen."""
    site = tmp_path / "site"
    info = site / "stratoscope_loud-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "stratoscope_loud.py").write_text(PLUGIN)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stratoscope-loud\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[stratoscope.instruments]\nloud = stratoscope_loud:Loud\n")
    (tmp_path / "model.py").write_text(MODEL)
    return {**os.environ, "PYTHONPATH": str(site)}


def run(arguments, environment, folder):
    return subprocess.run(
        arguments, check=False, env=environment, cwd=folder, capture_output=True, text=True, timeout=120
    )


def test_it_is_found_run_and_reported(elsewhere, tmp_path):
    command = [sys.executable, "-m", "stratoscope.cli.main"]
    listed = run([*command, "instruments", "--json"], elsewhere, tmp_path)
    assert listed.returncode == 0, listed.stderr
    assert "loud" in [row["key"] for row in json.loads(listed.stdout)]
    found = run(
        [*command, "examine", "model.py:build", "--data", "model.py:data", "--json", "--html", "page.html"],
        elsewhere,
        tmp_path,
    )
    assert found.returncode == 0, found.stderr
    rows = {row["name"]: row for row in json.loads(found.stdout)["layers"]}
    assert rows["0.weight"]["loudness"] > 0
    assert "Loudness" in (tmp_path / "page.html").read_text()


def test_it_passes_the_contract(elsewhere, tmp_path):
    code = "from stratoscope_loud import Loud; from stratoscope.testing import check_instrument; check_instrument(Loud)"
    done = run([sys.executable, "-W", "error", "-c", textwrap.dedent(code)], elsewhere, tmp_path)
    assert done.returncode == 0, done.stderr
