"""What a run notes about itself: time, data, the flow between layers, failures, and the memory it lets go of."""

import itertools
import math
import time
import weakref
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import nn

from stratoscope import Record, Subject, examine, quantity, watch
from stratoscope.capture.activations import Activations
from stratoscope.capture.graph import Flow
from stratoscope.capture.views import Capture
from stratoscope.capture.weights import Weights
from stratoscope.instruments.base import LayerInstrument, NetworkInstrument
from stratoscope.instruments.registry import choose
from stratoscope.instruments.weights import WeightMatrices
from stratoscope.observe.round import Round, needs_of
from stratoscope.record import RecordWriter
from stratoscope.testing.subjects import seeded

N = 40


class Residual(nn.Module):
    """A sum of what a layer gives and what another makes of it."""

    def __init__(self):
        super().__init__()
        self.first, self.branch, self.head = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 2)
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        kept = self.first(x)
        return self.head(kept + 2 * self.branch(kept))


def problem(seed=0):
    with seeded(seed) as generator:
        x = torch.randn(N, 6, generator=generator)
        return Residual(), x, (x[:, 0] > 0).long()


@dataclass(frozen=True)
class EveryStep(NetworkInstrument):
    """Takes its time, or fails. arXiv:0000.00000."""

    key: ClassVar[str] = "everystep"
    title: ClassVar[str] = "Every step"
    source: ClassVar[str] = "arXiv:0000.00000"
    every_step: ClassVar[bool] = True
    codes: ClassVar[dict[str, str]] = {"ES001": "nothing"}
    asked: ClassVar[list[int]] = []

    seconds: float = 0.0
    fails: bool = False

    @property
    def requires(self):
        return set()

    def measure(self, seen):
        self.asked.append(1)
        time.sleep(self.seconds)
        if self.fails:
            raise ZeroDivisionError("on purpose")
        return {"one": quantity(1.0, units="1", long_name="one")}

    def judge(self, measured):
        return iter(())


# -- time ----------------------------------------------------------------------------------------------------------------


def test_the_time_of_every_step_is_counted(tmp_path):
    with watch(problem()[0], to=tmp_path / "run", instruments=[EveryStep(seconds=0.01)], budget=math.inf) as w:
        spent, shares = [w.spent], []
        for _ in range(3):
            w.step()
            spent.append(w.spent)
            shares.append(w.share)
    assert spent[0] > 0  # the record was opened
    assert all(after - before >= 0.01 for before, after in itertools.pairwise(spent))
    # next to nothing was done between the steps
    assert min(shares) > 0.01


def test_the_time_of_a_full_measurement_is_counted(tmp_path):
    model, x, y = problem()
    with watch(model, (x, y), to=tmp_path / "run", only=["weights"], budget=math.inf, every=1) as w:
        first = w.spent
        w.step()
        second = w.spent
    assert 0 < first < second


def test_what_was_spent_is_said_in_the_record(tmp_path):
    with watch(problem()[0], to=tmp_path / "run", instruments=[EveryStep(seconds=0.02)], budget=math.inf) as w:
        w.step()
        at_least = w.spent
    meta = Record.open(tmp_path / "run").meta
    assert isinstance(meta["seconds_spent"], float)
    assert isinstance(meta["share_spent"], float)
    assert 0.02 <= round(at_least, 4) <= meta["seconds_spent"] < 10
    assert 0 < meta["share_spent"] < math.inf


# -- failures ------------------------------------------------------------------------------------------------------------


def test_an_every_step_instrument_that_fails_is_said_once_and_not_asked_again(tmp_path):
    EveryStep.asked.clear()
    chosen = [EveryStep(fails=True), *choose(only=["training"])]
    with watch(problem()[0], to=tmp_path / "run", instruments=chosen, budget=math.inf) as w:
        for step in range(1, 6):
            w.step(step, loss=1.0)
        said = [f for f in w.record.findings if f.instrument == "everystep"]
        assert len(EveryStep.asked) == 1
    kept = [f for f in Record.open(tmp_path / "run").findings if f.instrument == "everystep"]
    for findings in (said, kept):
        (failed,) = findings
        assert (failed.code, failed.outcome, failed.step) == ("ES000", "failed", 1)
        assert "ZeroDivisionError: on purpose" in failed.says
    assert w.record["training"]["loss"].sizes["step"] == 5


# -- the flow between layers ---------------------------------------------------------------------------------------------

FLOW = {("(input)", "first"), ("first", "branch"), ("first", "head"), ("branch", "head")}


def flow_of(record):
    return {(edge.src, edge.dst) for edge in record.edges if edge.kind == "data"}


def test_the_flow_holds_both_sides_of_a_sum():
    model, x, y = problem()
    record = examine(model, (x, y), only=["performance"])
    assert flow_of(record) == FLOW
    assert len(record.edges) == len(FLOW)


def test_tied_weights_are_an_edge_of_their_own():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    record = examine(model, torch.zeros(8, 4), only=["units"])
    assert {(edge.src, edge.dst) for edge in record.edges if edge.kind == "tied weights"} == {("2", "0")}
    assert flow_of(record) == {("(input)", "0"), ("0", "1"), ("1", "2")}


def test_the_flow_is_followed_in_the_first_batch_only(monkeypatch):
    calls = []

    def counted(name, plain):
        return lambda *args: (calls.append(name), plain(*args))[1]

    for name in ("begin", "through", "enter", "leave"):
        monkeypatch.setattr(Flow, name, counted(name, getattr(Flow, name)))

    def followed(batch_size):
        calls.clear()
        model, x, y = problem()
        record = examine(model, (x, y), only=["separation", "performance"], batch_size=batch_size)
        assert model.calls >= N // batch_size
        return flow_of(record), sorted(calls)

    (edges, one), (again, five) = followed(N), followed(N // 5)
    assert edges == again == FLOW
    assert one == five
    assert one.count("begin") == 1
    assert one.count("through") >= 2  # the product and the sum


# -- memory --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Holds(LayerInstrument):
    """Notes what is still there of the layers before. arXiv:0000.00000."""

    key: ClassVar[str] = "holds"
    title: ClassVar[str] = "Holds"
    source: ClassVar[str] = "arXiv:0000.00000"
    codes: ClassVar[dict[str, str]] = {"HO001": "nothing"}
    need: ClassVar[Activations] = Activations(n=N)
    kept: ClassVar[list[weakref.ref]] = []
    alive: ClassVar[list[int]] = []

    @property
    def requires(self):
        return {self.need}

    def measure_layer(self, view):
        sample = view[self.need]  # the last layer and the whole network give the same, and share one sample
        self.alive.append(sum(ref() not in (None, sample) for ref in self.kept))
        self.kept.append(weakref.ref(sample))
        return {"one": quantity(1.0, units="1", long_name="one")}

    def judge(self, measured):
        return iter(())


@pytest.mark.parametrize("by_layer", [True, False])
def test_samples_of_a_layer_that_is_done_are_let_go_of(by_layer):
    Holds.kept.clear()
    Holds.alive.clear()
    model, x, y = problem()
    instruments = [Holds(), WeightMatrices()]
    capture = Capture(Subject(model, {"train": (x, y)}), needs_of(instruments))
    capture.run("train")
    reducers = capture.passes["train"].reducers[Holds.need]
    assert {"first", "branch", "head"} <= set(reducers)
    writer = RecordWriter.create(None)
    Round(capture, instruments, writer, by_layer=by_layer).run()
    assert len(Holds.kept) >= 3
    assert set(Holds.alive) == {0}
    assert [ref() for ref in Holds.kept] == [None] * len(Holds.kept)
    assert reducers == {}
    writer.close("finished")


def test_what_was_derived_of_a_layer_is_let_go_of():
    capture = Capture(Subject(problem()[0]), frozenset({Weights()}))
    first, branch = (next(layer for layer in capture.layers() if layer.name == name) for name in ("first", "branch"))
    of_first, of_branch = (weakref.ref(capture.value(Weights(), layer, None)) for layer in (first, branch))
    assert of_first() is capture.value(Weights(), first, None)
    capture.drop(first)
    assert of_first() is None
    assert of_branch() is capture.value(Weights(), branch, None)


# -- data ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [8, 40, 7])
def test_which_examples_were_looked_at_is_said_for_each_split(batch_size):
    model, x, y = problem()
    splits = {"train": (x, y), "test": (x[:16] + 1, y[:16])}
    subject = Subject(model, splits, probe=30, batch_size=batch_size)
    data = examine(subject=subject, only=["performance"]).meta["data"]
    assert set(data) == {"train", "test"}
    for split, n in (("train", 30), ("test", 16)):
        said, probe = data[split], subject.probe_set(split)
        assert said["n"] == probe.n == n
        assert said["how"] == probe.how != ""
        assert said["digest"] == probe.digest != ""
        assert said["forward_calls"] == math.ceil(n / batch_size)
        assert said["seconds"] >= 0
        assert said["notes"] == []
    assert data["train"]["digest"] != data["test"]["digest"]
    assert model.calls == sum(said["forward_calls"] for said in data.values())


def test_a_watched_training_says_it_too(tmp_path):
    model, x, y = problem()
    with watch(model, {"train": (x, y)}, to=tmp_path / "run", only=["performance"], batch_size=8) as w:
        w.step(1)
    said = Record.open(tmp_path / "run").meta["data"]["train"]
    assert (said["n"], said["forward_calls"]) == (N, 5)
    same = examine(model, {"train": (x, y)}, only=["performance"], batch_size=40).meta["data"]["train"]
    assert (same["digest"], same["forward_calls"]) == (said["digest"], 1)


def test_samples_that_were_cut_to_fit_are_noted():
    model, x, y = problem()
    (note,) = examine(model, (x, y), only=["separation"], memory=500).meta["data"]["data"]["notes"]
    assert "kept samples were cut to" in note
