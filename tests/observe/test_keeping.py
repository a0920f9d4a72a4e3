"""Weights for transfer: whatever comes to be advised was kept, and little else."""

import json
import math
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_model
from torch import nn

from stratoscope import Record, watch
from stratoscope.diagnoses.transfer import Transfer
from stratoscope.errors import OpenError, SettingError
from stratoscope.instruments.performance import Performance
from stratoscope.instruments.reconstruction import Reconstruction
from stratoscope.network.layers import Catalogue, Layer, Matrix, Param
from stratoscope.network.snapshot import about_snapshot, copy_snapshot, open_snapshot, save_snapshot
from stratoscope.observe.deriving import derive, write
from stratoscope.observe.keeping import ABOUT, KEPT, TransferKeeper, thinned
from stratoscope.observe.settings import Settings
from stratoscope.record import Entry, RecordWriter
from stratoscope.record.quantity import quantity

STEPS = sorted({0, *(round(10 ** (place / 10)) for place in range(36))})
LEAST, BEST = 63, 1585
JUDGES = (Reconstruction(), Performance(), Transfer())


def near(step, place):
    return abs(math.log2((1 + step) / (1 + place)))


def valley(step):
    return 0.5 + 0.02 * near(step, LEAST)


def falls(step):
    return 0.9 - 0.02 * math.log2(1 + step)


def learns(step):
    return 0.7 - 0.03 * near(step, BEST)


def entries(step, error, accuracy, transfer):
    def of_layer(value):
        return quantity([value], units="1", long_name="at a layer", dims="layer", coords={"layer": ["fc"]})

    yield Entry("reconstruction", "error", of_layer(error(step)), split="test")
    yield Entry("reconstruction", "error_floor", of_layer(1.0), split="test")
    if accuracy is not None:
        yield Entry("performance", "accuracy", quantity(accuracy(step), units="1", long_name="accuracy"), split="test")
    if transfer is not None:
        yield Entry("reconstruction", "class_accuracy", of_layer(transfer(step)), split="transfer")
        yield Entry("reconstruction", "n", of_layer(1000), split="transfer")


def layers():
    def layer(depth, name):
        weight = f"{name}.weight"
        param, matrix = Param(weight, name, (2, 2)), Matrix(weight, name, (weight,), "linear", (2, 2), lambda w: w)
        return Layer(name, "linear", depth, (param,), (matrix,))

    return Catalogue({name: layer(depth, name) for depth, name in enumerate(("fc", "out"))})


class Run:
    """A training whose curves are planted, and whose weights tell their step."""

    def __init__(self, folder, error=valley, accuracy=learns, transfer=None, most=12, target=None):
        self.curves, self.folder, self.kept = (error, accuracy, transfer), folder, folder / "transfer"
        self.writer = RecordWriter.create(None)
        self.writer.write_layers(layers())
        self.model = nn.Linear(1, 1, bias=False)
        self.keeper = TransferKeeper(Transfer(), folder, target, most)

    def train(self, steps=STEPS, after=lambda step: None):
        for step in steps:
            self.writer.commit(step, list(entries(step, *self.curves)))
            nn.init.constant_(self.model.weight, float(step))
            self.keeper.look(Record.from_writer(self.writer), step, self.model)
            after(step)
        return self

    def known(self):
        """The diagnosis now: its last numbers by name."""
        found = Transfer().derive(Record.from_writer(self.writer))
        return {name: float(q.values[-1]) for name, q in found.items()}

    def finish(self, whole=True):
        record = Record.from_writer(self.writer)
        write(self.writer, derive(record, [Transfer()]), record.steps[-1])
        return self.keeper.finish(record.refresh(), whole=whole)

    def steps(self):
        return sorted(int(path.stem.removeprefix("step-")) for path in self.kept.glob("*.safetensors"))


def told(path):
    return json.loads(about_snapshot(path)[ABOUT])


def step_of(path):
    """Which step the weights are of, as they say themselves."""
    return int(open_snapshot(path).load("weight").item())


# -- which are kept -----------------------------------------------------------------------------------------------


def test_the_weights_of_the_advised_step_are_kept_and_no_others(tmp_path):
    run = Run(tmp_path).train()
    advised = run.known()["stop"]
    meta = run.finish()
    assert run.keeper.path == tmp_path / KEPT
    assert step_of(run.keeper.path) == meta["step"] == advised
    assert meta["interval"] == [LEAST, BEST]
    assert {**told(run.keeper.path), "kept": True, "file": str(run.keeper.path)} == meta
    assert [path.name for path in tmp_path.iterdir()] == [KEPT]


def test_at_each_moment_the_step_advised_then_can_be_had_and_there_are_few_files(tmp_path):
    run = Run(tmp_path, most=6)

    def check(step):
        steps, known = run.steps(), run.known()
        assert step in steps
        assert len(steps) <= 6
        assert known["classifier_best"] in steps
        for kept in steps:
            assert step_of(run.kept / f"step-{kept:06d}.safetensors") == kept
        if "stop" in known and not math.isnan(known["stop"]):
            assert min(near(kept, known["stop"]) for kept in steps) < 0.6
            assert all(kept >= known["stop"] or kept == known["classifier_best"] for kept in steps)

    run.train(after=check)


def test_with_files_enough_any_noise_finds_the_very_step(tmp_path):
    for seed in range(2):
        rng = np.random.default_rng(seed)
        noise = {step: rng.normal(0, 0.01, 2) for step in STEPS}
        folder = tmp_path / str(seed)
        run = Run(folder, lambda s, n=noise: valley(s) + n[s][0], lambda s, n=noise: learns(s) + n[s][1], most=60)
        run.train()
        known = run.known()
        wanted = known["stop"] if known["state"] == 0 else known["classifier_best"]
        assert step_of(folder / KEPT if run.finish()["kept"] else None) == wanted


def test_without_advice_the_best_classifier_is_kept_and_that_is_said(tmp_path):
    meta = Run(tmp_path, falls).train().finish()
    assert (meta["kept"], meta["step"], meta["advised"], meta["interval"]) == (True, BEST, None, None)
    assert "no advice" in meta["why"]
    assert step_of(tmp_path / KEPT) == BEST


def test_without_advice_and_without_a_classifier_nothing_is_kept(tmp_path):
    run = Run(tmp_path, falls, None).train()
    assert run.steps() == []
    meta = run.finish()
    assert meta["kept"] is False
    assert "nothing says" in meta["reason"]
    assert run.keeper.path is None
    assert list(tmp_path.iterdir()) == []


def test_of_a_real_probe_the_best_step_is_kept_and_one_file_suffices(tmp_path):
    run = Run(tmp_path, transfer=lambda step: round(0.8 - 0.02 * near(step, 251), 3))
    run.train(after=lambda step: len(run.steps()) == 1 or pytest.fail(f"{run.steps()} at {step}"))
    meta = run.finish()
    assert meta["step"] == step_of(tmp_path / KEPT) == 251
    assert "probe" in meta["why"]


def test_a_named_file_is_written_and_an_older_one_replaced(tmp_path):
    target = tmp_path / "elsewhere" / "best.safetensors"
    for _ in range(2):
        run = Run(tmp_path / "run", target=target).train(STEPS[:20])
        assert run.keeper.path is None
        run.finish()
        assert run.keeper.path == target
        assert target.is_file()


@settings(deadline=None, max_examples=25)
@given(st.sets(st.integers(0, 10**6), min_size=1, max_size=40), st.integers(4, 15), st.data())
def test_thinning_keeps_the_ends_and_what_is_fixed(steps, most, data):
    fixed = data.draw(st.sets(st.sampled_from(sorted(steps)), max_size=2))
    left = thinned(steps, most, fixed)
    assert left == sorted(left)
    assert len(left) == min(len(steps), most)
    assert {min(steps), max(steps)} | fixed <= set(left) <= steps


def test_what_is_thinned_one_by_one_stays_evenly_spread():
    left = []
    for step in range(0, 20000, 25):
        left = thinned([*left, step], 12)
    gaps = np.diff(np.log1p(left[1:]))  # from 0 to the first one is a gap of its own
    assert gaps.max() <= 2.5 * (math.log1p(left[-1]) - math.log1p(left[1])) / (len(left) - 2)


# -- going on, and trouble ----------------------------------------------------------------------------------------


def test_a_run_that_is_taken_up_again_ends_as_one_that_was_not_interrupted(tmp_path):
    whole = Run(tmp_path / "whole").train().finish()
    run = Run(tmp_path / "run").train(STEPS[:25])
    run.finish(whole=False)
    assert run.keeper.path.is_file()  # what there is so far
    assert run.steps()
    again = TransferKeeper(Transfer(), tmp_path / "run")
    (run.kept / ".step-000400.safetensors.99.tmp").write_bytes(b"half")
    again.begin(STEPS[20])
    assert max(run.steps()) <= STEPS[20]
    assert not list(run.kept.glob(".*"))
    assert not (tmp_path / "run" / KEPT).exists()
    run.keeper, run.writer = again, run.writer
    run.train(STEPS[21:])
    assert {**run.finish(), "file": ""} == {**whole, "file": ""}


def test_a_finished_run_that_is_taken_up_again_begins_with_what_it_kept(tmp_path):
    run = Run(tmp_path).train(STEPS[:30])
    kept = run.finish()["step"]
    again = TransferKeeper(Transfer(), tmp_path)
    again.begin(STEPS[29])
    assert run.steps() == [kept]
    again.begin(kept - 1)  # the weights of steps that are trained again are none of this run's any more
    assert run.steps() == []


def test_a_new_run_leaves_a_file_of_that_name_until_it_has_its_own(tmp_path):
    target = tmp_path / "best.safetensors"
    Run(tmp_path / "one", target=target).train(STEPS[:12]).finish()
    before = target.read_bytes()
    TransferKeeper(Transfer(), tmp_path / "two", target).begin(None)
    assert target.read_bytes() == before


def test_trouble_with_the_disk_is_said_once_and_training_goes_on(tmp_path):
    (tmp_path / "transfer").write_text("no folder")
    run = Run(tmp_path)
    with pytest.warns(UserWarning, match="training goes on") as said:
        run.train(STEPS[:12])
    assert len(said) == 1
    meta = run.finish()
    assert meta["kept"] is False
    assert meta["reason"]


def test_where_warnings_are_errors_training_goes_on_too(tmp_path):
    (tmp_path / "transfer").write_text("no folder")
    Run(tmp_path).train(STEPS[:3])  # pytest runs with -W error


@pytest.mark.parametrize(
    ("judges", "folder", "data", "words"),
    [
        (JUDGES[:2], "run", 1, "'transfer'"),
        (JUDGES[1:], "run", 1, "'reconstruction'"),
        (JUDGES, None, 1, "to="),
        (JUDGES, "run", None, "data"),
    ],
)
def test_what_could_never_be_kept_is_refused(tmp_path, judges, folder, data, words):
    class Bare:
        pass

    subject = Bare()
    subject.data = data
    with pytest.raises(SettingError, match=words):
        TransferKeeper.of(True, folder and tmp_path / folder, judges, subject)
    assert TransferKeeper.of(False, None, (), subject) is None
    with pytest.raises(SettingError, match="at least 4"):
        TransferKeeper(Transfer(), tmp_path, most=3)


# -- the file -----------------------------------------------------------------------------------------------------


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.encode, self.decode = nn.Linear(4, 3, bias=False), nn.Linear(3, 4, bias=False)
        self.shared = nn.Linear(4, 3, bias=False)
        self.shared.weight = self.encode.weight
        self.norm = nn.BatchNorm1d(3)


def test_a_copy_says_more_and_holds_the_same(tmp_path):
    generator = torch.Generator().manual_seed(0)
    model = Tied()
    for param in model.parameters():
        nn.init.normal_(param, generator=generator)
    save_snapshot(model, tmp_path / "one.safetensors")
    copy_snapshot(tmp_path / "one.safetensors", tmp_path / "two.safetensors", {ABOUT: '{"step": 7}'})
    copy_snapshot(tmp_path / "two.safetensors", tmp_path / "two.safetensors", {"more": "x" * 13})
    assert about_snapshot(tmp_path / "two.safetensors") == {ABOUT: '{"step": 7}', "more": "x" * 13}
    loaded = Tied()
    load_model(loaded, tmp_path / "two.safetensors")
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name])
        assert torch.equal(open_snapshot(tmp_path / "two.safetensors").load(name), tensor)
    with pytest.raises(OpenError):
        copy_snapshot(tmp_path / "none.safetensors", tmp_path / "three.safetensors", {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.safetensors", "two.safetensors"]


# -- in a training ------------------------------------------------------------------------------------------------

SCRIPT = """
import sys, time, torch
from torch import nn
from stratoscope import watch
from stratoscope.diagnoses.transfer import Transfer
from stratoscope.instruments.performance import Performance
from stratoscope.instruments.reconstruction import Reconstruction
from stratoscope.observe.settings import Settings

def problem():
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(80, 6, generator=rng)
    y = (x[:, :3].sum(1) > 0).long()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
    return model, {"train": (x[:40], y[:40]), "test": (x[40:], y[40:])}

def train(folder, steps, resume=False, pause=0.0, after=lambda step: None, **options):
    model, data = problem()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    judges = [Reconstruction(), Performance(), Transfer()]
    with watch(
        model, data, optimizer=optimizer, to=folder, budget=float("inf"), best_transfer=True, resume=resume,
        instruments=judges, settings=Settings(), **options,
    ) as w:
        for step in range(w.record.steps[-1] + 1, steps + 1):
            loss = nn.functional.cross_entropy(model(data["train"][0]), data["train"][1])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            w.step(step, loss=loss)
            after(step)
            time.sleep(pause)
    return w, model
"""
HERE = {}
exec(compile(textwrap.dedent(SCRIPT), "script", "exec"), HERE)


def test_a_watched_training_keeps_one_file_and_says_so(tmp_path):
    with torch.random.fork_rng():
        w, model = HERE["train"](tmp_path / "run", 40)
    assert w.best_transfer == tmp_path / "run" / KEPT
    meta = w.record.meta["best_transfer"]
    assert meta["step"] == told(w.best_transfer)["step"]
    assert not (tmp_path / "run" / "transfer").exists()
    load_model(model, w.best_transfer)
    best = w.record["performance"]["accuracy"].sel(split="test")
    assert meta["advised"] is not None or meta["step"] == int(best.step[int(best.argmax("step"))])


def test_an_error_in_the_loop_leaves_what_there_is_and_the_run_goes_on(tmp_path):
    def stop(step):
        if step == 15:
            raise KeyboardInterrupt

    with torch.random.fork_rng():
        with pytest.raises(KeyboardInterrupt):
            HERE["train"](tmp_path / "run", 40, after=stop)
        assert told(tmp_path / "run" / KEPT)["step"] <= 15
        assert list((tmp_path / "run" / "transfer").glob("*.safetensors"))
        w, _ = HERE["train"](tmp_path / "run", 25, resume=True)
    assert w.best_transfer.is_file()
    assert not (tmp_path / "run" / "transfer").exists()


def test_without_asking_nothing_is_kept(tmp_path):
    with watch(nn.Linear(3, 2), to=tmp_path / "run", settings=Settings()) as w:
        w.step(loss=1.0)
    assert w.best_transfer is None
    assert not (tmp_path / "run" / KEPT).exists()
    assert "best_transfer" not in w.record.meta


@pytest.mark.slow
def test_a_killed_training_leaves_whole_files_and_goes_on(tmp_path):
    folder = tmp_path / "run"
    script = textwrap.dedent(SCRIPT) + f"\ntrain({str(folder)!r}, 10**6, pause=0.002, every=3)\n"
    process = subprocess.Popen([sys.executable, "-c", script])
    try:
        deadline = time.monotonic() + 120
        while len(list(folder.glob("transfer/step-*.safetensors"))) < 4:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    files = sorted(folder.glob("transfer/step-*.safetensors"))
    assert files
    for file in files:
        assert open_snapshot(file).load("0.weight").shape == (8, 6)
    with torch.random.fork_rng():
        w, _ = HERE["train"](folder, max(Record.open(folder).steps) + 5, resume=True)
    assert told(w.best_transfer)["step"] <= max(w.record.steps)
