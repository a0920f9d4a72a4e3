"""What a watched training spends on being watched: who is measured when, and what the record says of it."""

import math
import time
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stratoscope import Record, quantity, watch
from stratoscope.capture.needs import Previous
from stratoscope.capture.weights import Weights
from stratoscope.errors import SettingError
from stratoscope.instruments.base import LayerInstrument
from stratoscope.instruments.registry import choose
from stratoscope.observe.live import SilentWatch


def problem():
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(60, 6, generator=draw)
    y = (x[:, :3].sum(1) > 0).long()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
    return model, x, y, torch.optim.SGD(model.parameters(), lr=0.1)


def watched(folder, count, first=1, pause=0.0, stop=None, **options):
    model, x, y, optimizer = problem()
    with watch(model, {"train": (x, y)}, optimizer=optimizer, to=folder, **options) as w:
        for step in range(first, first + count):
            loss = F.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            time.sleep(pause)
            w.step(step, loss=loss)
            if step == stop:
                raise KeyboardInterrupt
    return w


def steps_of(record, group):
    return list(record[group].steps)


@dataclass(frozen=True)
class Slow(LayerInstrument):
    """Takes its time. arXiv:0000.00000."""

    key: ClassVar[str] = "slow"
    title: ClassVar[str] = "Slow"
    source: ClassVar[str] = "arXiv:0000.00000"
    codes: ClassVar[dict[str, str]] = {"SL001": "slow"}
    seconds: float = 0.1

    @property
    def requires(self):
        return {Weights()}

    @property
    def uses(self):
        return {Previous(Weights())}

    def measure_layer(self, view):
        if view.layer.name == "0":
            time.sleep(self.seconds)
        before = view.get(Previous(Weights()))
        moved = (
            {name: float((tensor - before[name]).norm()) for name, tensor in view[Weights()].items()} if before else {}
        )
        return {"moved": quantity(sum(moved.values()), units="1", long_name="since it was measured before")}

    def judge(self, measured):
        return iter(())


def test_single_instruments_have_a_cadence_of_their_own(tmp_path):
    only = ["units", "weights", "performance", "training"]
    w = watched(tmp_path / "run", 9, only=only, every=4, cadence={"weights": 2}, budget=math.inf)
    assert steps_of(w.record, "units") == steps_of(w.record, "performance") == [0, 4, 8, 9]
    assert steps_of(w.record, "weights") == [0, 2, 4, 6, 8, 9]
    meta = w.record.meta
    assert (meta["rounds"], meta["full_rounds"]) == (6, 4)
    assert meta["budget"] is None


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"cadence": {"wieghts": 5}}, "cadence names 'wieghts'"),
        ({"cadence": {"training": 5}}, "not measured now and then"),
        ({"cadence": {"weights": 0}}, "at least 1"),
        ({"cadence": {"weights": 2.5}}, "a whole number of steps"),
        ({"steps": 0}, "steps=0 must be at least 1"),
    ],
)
def test_a_schedule_that_makes_no_sense_is_refused(tmp_path, options, says):
    with pytest.raises(SettingError, match=says):
        watch(problem()[0], to=tmp_path / "run", only=["weights", "training"], **options)


def test_what_the_record_says_was_spent_adds_up(tmp_path):
    w = watched(tmp_path / "run", 12, every=5, budget=math.inf, only=["units", "weights", "performance", "training"])
    meta = w.record.meta
    assert set(meta["seconds_by_instrument"]) == {"units", "weights", "performance"}
    assert set(meta["seconds_aside"]) >= {"beginning", "steps", "conclusions"}
    parts = [*meta["seconds_by_instrument"].values(), *meta["seconds_aside"].values()]
    assert all(part >= 0 for part in parts)
    # what lies between the parts is looking at the clock
    assert sum(parts) == pytest.approx(meta["seconds_spent"], rel=0.1, abs=0.05)
    assert meta["share_spent"] == pytest.approx(meta["seconds_spent"] / meta["seconds_trained"], rel=0.01)
    assert w.share == pytest.approx(meta["share_spent"], rel=0.01)


def test_one_sentence_tells_what_was_measured_and_spent(tmp_path, caplog):
    with caplog.at_level("INFO", logger="stratoscope"):
        w = watched(tmp_path / "run", 3, budget=0.05, only=["weights"])
    assert w.summary.startswith("2 measurements of the whole network, ")
    assert w.summary.endswith("(budget 0.05)")
    assert w.summary in caplog.messages
    with SilentWatch() as silent:
        assert silent.summary == "the first process measures"


def test_previous_is_the_last_measurement_of_that_instrument(tmp_path):
    instruments = [Slow(0.0), *choose(only=["units"])]
    w = watched(tmp_path / "a", 8, every=1, cadence={"slow": 4}, budget=math.inf, instruments=instruments)
    often = watched(tmp_path / "b", 8, every=1, cadence={"slow": 1}, budget=math.inf, instruments=instruments)
    moved = w.record["slow"]["moved"].sel(layer="0").values
    steps = often.record["slow"]["moved"].sel(layer="0").values
    assert steps_of(w.record, "slow") == [0, 4, 8]
    # four steps in one direction are about as long together; one step alone is not
    assert 2 * steps[4] < moved[1] <= steps[1:5].sum() + 1e-9
    assert 2 * steps[8] < moved[2] <= steps[5:9].sum() + 1e-9


def test_rounds_without_data_leave_the_structure_as_it_was(tmp_path):
    both = ["units", "weights"]
    w = watched(tmp_path / "a", 3, only=both, every=1, cadence={"units": 100}, budget=math.inf)
    whole = watched(tmp_path / "b", 3, only=both, every=1, budget=math.inf)
    assert w.record.edges == whole.record.edges
    assert [layer.name for layer in w.record.layers] == [layer.name for layer in whole.record.layers]


def test_a_training_that_is_cut_short_says_what_it_spent(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        watched(tmp_path / "run", 10, stop=6, every=4, budget=math.inf, only=["units", "training"])
    record = Record.open(tmp_path / "run")
    assert record.meta["status"] == "interrupted"
    assert steps_of(record, "units") == [0, 4]
    assert record.meta["seconds_spent"] > 0
    assert record.meta["rounds"] == 2


def test_a_resumed_training_goes_on_with_what_was_spent(tmp_path):
    options = {"every": 4, "budget": math.inf, "only": ["units", "training"]}
    watched(tmp_path / "run", 6, **options)
    before = Record.open(tmp_path / "run").meta
    w = watched(tmp_path / "run", 6, first=7, resume=True, **options)
    after = w.record.meta
    assert steps_of(w.record, "units") == [0, 4, 6, 10, 12]
    assert after["rounds"] == before["rounds"] + 2
    for name in ("seconds_spent", "seconds_trained"):
        assert after[name] > before[name]
    assert after["seconds_by_instrument"]["units"] > before["seconds_by_instrument"]["units"]
    parts = [*after["seconds_by_instrument"].values(), *after["seconds_aside"].values()]
    assert sum(parts) == pytest.approx(after["seconds_spent"], rel=0.1, abs=0.05)


def test_a_training_of_known_length_is_measured_early(tmp_path):
    instruments = [Slow(0.05)]
    known = watched(tmp_path / "a", 100, pause=0.02, steps=100, budget=0.5, instruments=instruments)
    assert 2 < steps_of(known.record, "slow")[1] < 60
    assert len(steps_of(known.record, "slow")) >= 3
