"""A killed process: nothing acknowledged is lost, and a damaged log leaves a consistent beginning."""

import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time

import numpy as np
import pytest

from stratoscope.errors import RecordError
from stratoscope.record import Entry, Record, RecordWriter
from stratoscope.record.quantity import quantity


def entry(value, name="x", dims=()):
    return Entry("a", name, quantity(value, units="1", long_name=name, dims=dims))


CHILD = """
import sys, numpy as np
from stratoscope.record import Entry, RecordWriter
from stratoscope.record.quantity import quantity

def numbers(step, n):
    return np.random.default_rng(step).random(n)

def entry(name, values, dims):
    return Entry("a", name, quantity(values, units="1", long_name=name, dims=dims))

folder, start = sys.argv[1], int(sys.argv[2])
writer = RecordWriter.create(folder) if start == 0 else RecordWriter.resume(folder, step=start)
print(writer.attempt, flush=True)
for step in range(start, start + 10**6):
    writer.append(step, [entry("loss", numbers(step, 1)[0], ()), entry("ratio", numbers(step, 20), "layer")])
    if step % 5 == 0:
        writer.commit(step, [entry("spectrum", numbers(step, 500), "bin")])
        writer.commit(step, [entry("wide", numbers(step, 20).astype("f4"), "class")])
    if step % 25 == 0:
        writer.commit(step, [entry("large", numbers(step, 40_000), "seed")])
    if step % 7 == 0:
        writer.flush()
    print(writer.committed, flush=True)
"""


def numbers(step, n):
    return np.random.default_rng(step).random(n)


def run_and_kill(folder, start, seconds):
    """The last step that the writer acknowledged before it was killed; `start - 1` if none."""
    child = subprocess.Popen([sys.executable, "-c", CHILD, folder, str(start)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert re.fullmatch(r"\d+\n", child.stdout.readline())
    time.sleep(seconds)
    child.send_signal(signal.SIGKILL)
    lines = child.communicate()[0].split("\n")[:-1]  # what follows the last end of line was cut off
    return max([start - 1, *(int(line) for line in lines)])


def check(folder, acknowledged, since=0):
    record = Record.open(folder)
    group = record["a"]
    loss = group["loss"]
    assert loss.step.values.tolist()[: acknowledged + 1] == list(range(acknowledged + 1))
    for name, n, every in (("ratio", 20, 1), ("spectrum", 500, 5), ("wide", 20, 5), ("large", 40_000, 25)):
        array = group[name]
        place = {step: at for at, step in enumerate(array.step.values.tolist())}
        for step in range(-(-since // every) * every, acknowledged + 1, every):
            assert np.array_equal(array.values[place[step]], numbers(step, n).astype(array.dtype)), (name, step)
    assert loss.values[: acknowledged + 1].tolist() == [numbers(step, 1)[0] for step in range(acknowledged + 1)]
    record.close()


def kill_often(folder, times, seed):
    random.seed(seed)  # only decides when to kill
    acknowledged = -1
    for _ in range(times):
        before, acknowledged = acknowledged, run_and_kill(folder, acknowledged + 1, random.uniform(0.02, 0.6))
        check(folder, acknowledged, before + 1)
    assert acknowledged > times
    check(folder, acknowledged)
    with RecordWriter.resume(folder) as writer:
        assert writer.attempt == times
        assert writer.committed >= acknowledged
    integrity = sqlite3.connect(folder / "run.db").execute("PRAGMA integrity_check").fetchall()
    assert integrity == [("ok",)]


def test_nothing_acknowledged_is_lost_on_kill(tmp_path):
    kill_often(tmp_path / "r", 2, seed=1)


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_on_twenty_kills(tmp_path):
    kill_often(tmp_path / "r", 20, seed=2)


@pytest.mark.parametrize("damage", ["cut", "noise", "zeros", "gone", "no shm"])
def test_a_damaged_log_leaves_a_consistent_beginning(tmp_path, damage):
    folder, copy = tmp_path / "r", tmp_path / "copy"
    with RecordWriter.create(folder) as writer:
        for step in range(60):
            writer.commit(step, [entry(float(step)), entry(np.full(200, step), "y", "bin")])
        shutil.copytree(folder, copy)  # as a kill leaves it
    log = copy / "run.db-wal"
    size = log.stat().st_size
    assert size > 100_000
    if damage == "cut":
        os.truncate(log, size * 2 // 3)
    elif damage in ("noise", "zeros"):
        with log.open("r+b") as file:
            file.seek(size // 2)
            file.write(np.random.default_rng(0).bytes(size // 4) if damage == "noise" else bytes(size // 4))
    elif damage == "gone":
        log.unlink()
    (copy / "run.db-shm").unlink()
    if damage == "gone":
        with pytest.raises(RecordError):
            Record.open(copy)  # killed before anything reached the file itself
        return
    group = Record.open(copy)["a"]
    steps = group["x"].step.values.tolist()
    assert steps == list(range(len(steps)))
    assert len(steps) == 60 if damage == "no shm" else 20 < len(steps) < 60
    assert group["y"].values[:, 0].tolist() == group["x"].values.tolist() == steps
