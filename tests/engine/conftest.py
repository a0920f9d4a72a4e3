import sys

import pytest

WORK = '''
import os
import random
import time

import numpy as np
import torch

from stratoscope import NotApplicable, quantity
from stratoscope.record.entry import Entry
from stratoscope.record.writer import RecordWriter


def write(spec, folder):
    """Draws from every global generator, as careless code does."""
    with open(os.environ["STRATOSCOPE_CALLS"], "a") as file:
        file.write(f"{spec['seed']} ")
    matrix = torch.randn(300, 300)
    drawn = [torch.rand(1).item(), float(np.random.rand()), random.random(), float((matrix @ matrix).sum())]
    with RecordWriter.create(folder) as writer:
        writer.commit(0, [Entry("draws", "drawn", quantity(drawn, units="1", long_name="drawn", dims="example"))])


def moody(spec, folder):
    if spec["seed"] == 1:
        raise ValueError("no weights today\\nnor tomorrow")
    if spec["seed"] == 2:
        raise NotApplicable("the data are elsewhere")
    if spec["seed"] != 3:
        write(spec, folder)


def deadly(spec, folder):
    if spec["seed"] == 1:
        os.kill(os.getpid(), 9)
    write(spec, folder)


def cancelled(spec, folder):
    if spec["seed"] == 1 and not os.environ.get("STRATOSCOPE_CALM"):
        (folder / "half.txt").write_text("half")
        raise KeyboardInterrupt
    write(spec, folder)


def taken_over(spec, folder):
    (folder / "task.json").write_text('{"state": "running", "by": "another"}')
    write(spec, folder)
'''


@pytest.fixture(scope="session")
def toy_engine_work(tmp_path_factory):
    """A module that other processes can import too; those that began before it was there are ended."""
    from joblib.externals.loky import get_reusable_executor

    folder = tmp_path_factory.mktemp("site")
    (folder / "toy_engine_work.py").write_text(WORK)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.setenv("STRATOSCOPE_CALLS", str(folder / "calls"))
        import toy_engine_work

        yield toy_engine_work
        get_reusable_executor().shutdown(wait=True, kill_workers=True)
    sys.modules.pop("toy_engine_work")


@pytest.fixture
def calls(toy_engine_work, tmp_path, monkeypatch):
    """What was really done: a function that reads it."""
    path = tmp_path / "calls"
    path.write_text("")
    monkeypatch.setenv("STRATOSCOPE_CALLS", str(path))
    return lambda: path.read_text().split()
