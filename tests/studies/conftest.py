import sys

import pytest

from stratoscope.studies import registry

TOY = '''
"""A study whose truth is known."""

import os

import torch

from stratoscope import NotApplicable, quantity
from stratoscope.record.entry import Entry
from stratoscope.record.writer import RecordWriter
from stratoscope.studies import Study
from toy.claims import CLAIMS


def tasks(budget, seeds):
    parts = ["good"] if budget == "full" else ["good", "broken", "absent"]
    sizes = [2, 4] if budget == "smoke" else [2, 4, 8]
    return [{"part": part, "size": size, "seed": seed} for part in parts for size in sizes for seed in range(seeds)]


def work(spec, folder):
    with open(os.environ["STRATOSCOPE_CALLS"], "a") as file:
        file.write(f"{spec['part']}-{spec['size']}-{spec['seed']}\\n")
    if spec["part"] == "broken" and spec["size"] == 4:
        raise ValueError("it fell apart")
    if spec["part"] == "absent":
        raise NotApplicable("the data set is not on this machine")
    noise = 0.1 * torch.randn((), generator=torch.Generator().manual_seed(spec["seed"])).item()
    gain = quantity(spec["size"] + noise, units="m", long_name="gain")
    curve = quantity([0.0, float(spec["size"])], units="1", long_name="curve", dims="bin")
    with RecordWriter.create(folder) as writer:
        writer.commit(0, [Entry("toy", "gain", quantity(0.0, units="m", long_name="gain"))])
        writer.commit(5, [Entry("toy", "gain", gain), Entry("toy", "curve", curve)])


STUDY = Study("toy-study", "Toy", "doi:10.5555/12345678", "Does the gain rise with the size?", tasks, work, CLAIMS)
'''

CLAIMS = """
import math

from stratoscope import NotApplicable
from stratoscope.studies import Claim, Evidence


def rise(runs):
    return Evidence(runs.per_seed(between), "rise of the gain", units="m", margin=1.0, numbers={"largest": 8.0, "none": math.nan})


def between(same):
    ends = same.sorted("size")
    return ends[-1].number("toy", "gain") - ends[0].number("toy", "gain") + 0.01 * same.values("seed")[0]


def fall(runs):
    return Evidence({seed: -value for seed, value in rise(runs).effect.items()}, "fall of the gain", units="m")


def noise(runs):
    return Evidence(runs.per_seed(lambda same: same.where(size=2).only.number("toy", "gain") - 2), "noise", units="m")


def wrong(runs):
    return Evidence(runs.per_seed(lambda same: same[0].number("toy", "loss")), "loss")


def inapplicable(runs):
    raise NotApplicable("no unit can be dead")


GOOD = {"part": "good"}
CLAIMS = (
    Claim("The gain rises with the size", "Figure 1", rise, of=GOOD, note="with a ruler"),
    Claim("The gain falls with the size", "contested by later work", fall, expected=False, of=GOOD),
    Claim("The gain falls at last", "Figure 2", fall, of=GOOD),
    Claim("The noise has a sign", "Theorem 1", noise, of=GOOD),
    Claim("The check is sound", "Section 2", wrong, of=GOOD),
    Claim("It applies", "Section 3", inapplicable, of=GOOD),
    Claim("The broken part works", "Figure 3", rise, of={"part": ["broken"]}),
    Claim("The absent part works", "Figure 4", rise, of={"part": "absent"}),
    Claim("A part that nobody runs works", "Figure 5", rise, of={"part": "other"}),
)
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A folder with the study in it, from which it can be imported."""
    folder = tmp_path / "site" / "toy"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "study.py").write_text(TOY)
    (folder / "claims.py").write_text(CLAIMS)
    monkeypatch.syspath_prepend(folder.parent)
    monkeypatch.setenv("STRATOSCOPE_CALLS", str(tmp_path / "calls"))
    monkeypatch.setenv("STRATOSCOPE_LEDGER", str(tmp_path / "ledger.json"))
    (tmp_path / "calls").write_text("")
    yield folder
    for name in ("toy", "toy.study", "toy.claims"):
        sys.modules.pop(name, None)


@pytest.fixture
def toy(package, monkeypatch):
    """The study, the only one that there is."""
    from toy.study import STUDY

    monkeypatch.setattr(registry, "available", lambda: {STUDY.name: STUDY})
    return STUDY


@pytest.fixture
def calls(tmp_path):
    """What was really done: a function that reads it."""
    return lambda: (tmp_path / "calls").read_text().split()
