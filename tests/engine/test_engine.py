import json
import random
from importlib.metadata import EntryPoint

import numpy as np
import pytest
import torch

from stratoscope.engine import local, registry
from stratoscope.engine.local import Local
from stratoscope.engine.registry import choose, run
from stratoscope.engine.serial import Serial
from stratoscope.engine.task import Task, finished, perform
from stratoscope.errors import SettingError
from stratoscope.record import Record


def tasks_of(work, folder, seeds):
    return [Task(work, {"seed": seed}, folder / f"seed-{seed}") for seed in seeds]


def drawn(task):
    with Record.open(task.folder) as record:
        return record["draws"]["drawn"].values.tobytes()


def states(results):
    return [result.state for result in results]


def test_a_task_is_done_once(toy_engine_work, calls, tmp_path):
    tasks, told = tasks_of(toy_engine_work.write, tmp_path / "runs", range(3)), []
    assert states(run(tasks[:2], "serial")) == ["finished"] * 2
    before = drawn(tasks[0])
    assert states(run(tasks, "serial", lambda *what: told.append(what))) == ["finished"] * 3
    assert calls() == ["0", "1", "2"]
    assert drawn(tasks[0]) == before
    assert told == [("tasks", 2, 3), ("seed-2 finished", 3, 3)]
    assert states([perform(tasks[0])]) == ["finished"]
    assert len(calls()) == 3


def test_what_failed_or_was_skipped_has_a_reason_and_is_tried_again(toy_engine_work, calls, tmp_path):
    tasks = tasks_of(toy_engine_work.moody, tmp_path / "runs", range(5))
    results = run(tasks, "serial")
    assert states(results) == ["finished", "failed", "skipped", "failed", "finished"]
    assert results[1].reason == "ValueError: no weights today nor tomorrow"
    assert "in moody" in (tasks[1].folder / "error.txt").read_text()
    assert results[2].reason == "the data are elsewhere"
    assert "no run.db" in results[3].reason or "no record" in results[3].reason.lower()
    better = [Task(toy_engine_work.write, task.spec, task.folder) for task in tasks]
    assert states(run(better, "serial")) == ["finished"] * 5
    assert calls() == ["0", "4", "1", "2", "3"]
    assert not (tasks[1].folder / "error.txt").exists()


def test_what_was_cancelled_half_way_begins_anew(toy_engine_work, calls, tmp_path, monkeypatch):
    tasks = tasks_of(toy_engine_work.cancelled, tmp_path / "runs", range(3))
    with pytest.raises(KeyboardInterrupt):
        run(tasks, "serial")
    assert calls() == ["0"]
    assert finished(tasks[0]) is not None
    assert finished(tasks[1]) is None
    assert (tasks[1].folder / "half.txt").exists()
    monkeypatch.setenv("STRATOSCOPE_CALM", "1")
    assert states(run(tasks, "serial")) == ["finished"] * 3
    assert calls() == ["0", "1", "2"]
    assert not (tasks[1].folder / "half.txt").exists()


@pytest.mark.parametrize("harm", ["task.json", "run.db"])
def test_a_record_that_is_damaged_is_made_again(toy_engine_work, calls, tmp_path, harm):
    (task,) = tasks_of(toy_engine_work.write, tmp_path / "runs", [0])
    run([task], "serial")
    before = drawn(task)
    (task.folder / harm).write_bytes(b"{" * 4096)
    assert states(run([task], "serial")) == ["finished"]
    assert calls() == ["0", "0"]
    assert drawn(task) == before


def test_files_of_others_are_left_alone(toy_engine_work, calls, tmp_path):
    (tmp_path / "seed-0").mkdir()
    (tmp_path / "seed-0" / "thesis.txt").write_text("years of work")
    (result,) = run(tasks_of(toy_engine_work.write, tmp_path, [0]), "serial")
    assert (result.state, calls()) == ("failed", [])
    assert "choose another folder" in result.reason
    assert [path.name for path in (tmp_path / "seed-0").iterdir()] == ["thesis.txt"]


def test_who_outlives_a_killed_parent_leaves_the_folder_to_its_successor(toy_engine_work, calls, tmp_path):
    (task,) = tasks_of(toy_engine_work.taken_over, tmp_path, [0])
    perform(task)
    assert json.loads((task.folder / "task.json").read_text()) == {"state": "running", "by": "another"}


def test_global_generators_and_threads_are_put_back(toy_engine_work, calls, tmp_path):
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate(), torch.get_num_threads()
    run(tasks_of(toy_engine_work.write, tmp_path, range(2)), "serial")
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (np.random.get_state()[1].tolist(), random.getstate(), torch.get_num_threads())


def test_the_spec_decides_what_is_drawn(toy_engine_work, calls, tmp_path):
    one, two = tasks_of(toy_engine_work.write, tmp_path, range(2))
    run([one, two], "serial")
    torch.manual_seed(7)
    again = Task(one.work, one.spec, tmp_path / "again")
    run([again], "serial")
    assert drawn(again) == drawn(one) != drawn(two)


@pytest.mark.slow
def test_every_engine_gives_the_same_bytes_and_a_killed_process_takes_no_other_with_it(
    toy_engine_work, calls, tmp_path
):
    here = tasks_of(toy_engine_work.write, tmp_path / "here", (0, 2, 3))
    there = tasks_of(toy_engine_work.deadly, tmp_path / "there", (0, 1, 2, 3))
    assert states(run(here, Serial())) == ["finished"] * 3
    results = run(there, Local(2))
    assert states(results) == ["finished", "failed", "finished", "finished"]
    assert "was killed" in results[1].reason
    assert [drawn(task) for task in here] == [drawn(there[place]) for place in (0, 2, 3)]


def test_specs_are_what_json_makes_of_them(tmp_path):
    assert Task(perform, {"sizes": (1, 2), "rate": np.float32(0.5)}, tmp_path).spec == {"sizes": [1, 2], "rate": 0.5}


@pytest.mark.parametrize("work", [lambda spec, folder: None, dict.fromkeys, 3])
def test_work_that_other_processes_cannot_find_is_refused(tmp_path, work):
    with pytest.raises(SettingError, match="top of a module"):
        Task(work, {}, tmp_path)


def test_two_tasks_need_two_folders(tmp_path):
    with pytest.raises(SettingError, match="same folder"):
        run([Task(perform, {"a": 1}, tmp_path), Task(perform, {"a": 2}, tmp_path)], "serial")


@pytest.mark.parametrize("name", ["cloud", "serial:2", "local:0", "local:-1", "local:two", "local:99999", ""])
def test_engines_that_are_not_there_are_named(name):
    with pytest.raises(SettingError, match=r"serial|local"):
        choose(name)


def test_engines_by_name():
    assert choose("serial") == Serial()
    assert choose("local") == Local()
    assert choose("local:3") == Local(3)
    assert local.workers_here() >= 1


def test_engines_of_other_packages(monkeypatch):
    points = [
        EntryPoint("here", f"{__name__}:Here", registry.ENTRY_POINTS),
        EntryPoint("gone", "nowhere:Gone", registry.ENTRY_POINTS),
    ]
    monkeypatch.setattr(registry, "entry_points", lambda group: points)
    monkeypatch.setattr(
        EntryPoint, "load", lambda self: {"here": Here}[self.name] if self.name == "here" else _missing()
    )
    assert choose("here:host").host == "host"
    with pytest.raises(SettingError, match=r"gone .* cannot be loaded: no such thing"):
        choose("gone")


class Here:
    def __init__(self, host):
        self.host = host


def _missing():
    raise ImportError("no such thing")
