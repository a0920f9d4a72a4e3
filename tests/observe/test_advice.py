"""Advice while training: what the record says by now, asked for at any time, at little cost and without a trace."""

import math
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stratoscope import Record, watch
from stratoscope.diagnoses.base import Diagnosis
from stratoscope.diagnoses.transfer import Transfer
from stratoscope.errors import RecordError
from stratoscope.findings import Finding, Outcome
from stratoscope.instruments.performance import Performance
from stratoscope.instruments.reconstruction import Reconstruction
from stratoscope.instruments.training import Training
from stratoscope.instruments.units import Units
from stratoscope.network.layers import Catalogue, Layer, Matrix, Param
from stratoscope.observe.advice import Advice, Adviser, Stop
from stratoscope.observe.live import SilentWatch
from stratoscope.observe.settings import Settings
from stratoscope.record import Entry, RecordWriter
from stratoscope.record.quantity import quantity

STEPS = sorted({0, *(round(10 ** (place / 10)) for place in range(40))})
LEAST, BEST = 63, 1585
PRESSING = (Outcome.ISSUE, Outcome.FAILED, Outcome.TIP)


def near(step, place):
    return abs(math.log2((1 + step) / (1 + place)))


def entries(step, transfer=None):
    def of_layer(value):
        return quantity([value], units="1", long_name="at a layer", dims="layer", coords={"layer": ["fc"]})

    accuracy = quantity(0.7 - 0.03 * near(step, BEST), units="1", long_name="accuracy")
    yield Entry("reconstruction", "error", of_layer(0.5 + 0.02 * near(step, LEAST)), split="test")
    yield Entry("reconstruction", "error_floor", of_layer(1.0), split="test")
    yield Entry("performance", "accuracy", accuracy, split="test")
    if transfer is not None:
        yield Entry("reconstruction", "class_accuracy", of_layer(transfer(step)), split="transfer")
        yield Entry("reconstruction", "n", of_layer(4000), split="transfer")


def layers():
    def layer(depth, name):
        weight = f"{name}.weight"
        param, matrix = Param(weight, name, (2, 2)), Matrix(weight, name, (weight,), "linear", (2, 2), lambda w: w)
        return Layer(name, "linear", depth, (param,), (matrix,))

    return Catalogue({name: layer(depth, name) for depth, name in enumerate(("fc", "out"))})


@pytest.fixture
def planted():
    """A record whose curves have a valley, until a step."""
    writers = []

    def make(until=STEPS[-1], transfer=None):
        writer = RecordWriter.create(None, {"watched": True})
        writers.append(writer)
        writer.write_layers(layers())
        for step in STEPS:
            if step <= until:
                writer.commit(step, list(entries(step, transfer)))
        return Record.from_writer(writer)

    yield make
    for writer in writers:
        writer.close()


def advised(record, *judges, settings=None):
    return Adviser(judges or [Transfer()], settings or Settings()).advise(record, record.steps[-1])


# -- when to stop -------------------------------------------------------------------------------------------------


def test_the_step_and_its_interval_are_those_of_the_diagnosis(planted):
    advice = advised(planted())
    assert advice.step == STEPS[-1]
    assert advice.transfer_interval == (LEAST, BEST)
    assert near(advice.transfer_step, math.sqrt((1 + LEAST) * (1 + BEST)) - 1) < 0.2
    assert [finding.code for finding in advice.findings] == ["TA001"]
    assert "stop now" in str(advice)
    assert advice.findings[0].do in str(advice)


def test_it_is_passed_as_soon_as_the_classifier_is_best_no_more(planted):
    seen = {until: advised(planted(until)) for until in (3, 501, 1585, 1995)}
    assert seen[3].transfer_step is None
    assert [seen[until].passed for until in (3, 501, 1585, 1995)] == [False, False, False, True]
    assert seen[501].transfer_interval == (LEAST, 501)  # until then the last step is the best classifier
    assert seen[501].transfer_step <= seen[1585].transfer_step == seen[1995].transfer_step


def test_a_real_probe_is_believed(planted):
    advice = advised(planted(transfer=lambda step: round(0.8 - 0.02 * near(step, 251), 4)))
    assert advice.transfer_step == 251
    first, last = advice.transfer_interval
    assert LEAST < first <= 251 <= last < STEPS[-1]
    assert advice.passed


def test_muted_codes_are_not_said_and_change_nothing_else(planted):
    plain, muted = advised(planted()), advised(planted(), settings=Settings(mute=("TA*",)))
    assert muted.findings == ()
    assert muted.transfer_step == plain.transfer_step


def test_without_the_diagnosis_there_is_no_step(planted):
    advice = advised(planted(), Performance())
    assert (advice.transfer_step, advice.transfer_interval, advice.passed) == (None, None, False)


def test_a_stop_is_none_where_nothing_was_derived():
    assert Stop.of(None) is None
    with RecordWriter.create(None) as writer:
        one = quantity(1.0, units="1", long_name="something else")
        writer.commit(0, [Entry("transfer", "other", one)])
        assert Stop.of(Record.from_writer(writer)["transfer"]) is None


def test_it_reads_well():
    assert str(Advice()) == "No advice yet: nothing was measured."
    assert str(Advice(7)) == "Nothing to do at step 7."
    finding = Finding("XX001", "x", None, 7, Outcome.ISSUE, "It broke", "mend it")
    assert str(Advice(1234, (finding,), 12, (5, 90))) == (
        "Advice at step 1,234:\n  for transfer, stop at step 12 (between 5 and 90)\n  issue XX001: It broke\n    mend it"
    )


# -- cost ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Counting(Diagnosis):
    """Counts how often it is asked."""

    key: ClassVar[str] = "counting"
    title: ClassVar[str] = "Counting"
    source: ClassVar[str] = "doi:10.5555/12345678"
    codes: ClassVar[dict[str, str]] = {"CN001": "counted"}
    reads: ClassVar[frozenset[str]] = frozenset({"performance"})
    seen: ClassVar[list[str]] = []

    def derive(self, record):
        self.seen.append("derive")
        return {"count": quantity(len(record["performance"].steps), units="1", long_name="steps")}

    def judge(self, measured):
        self.seen.append("judge")
        yield self.finding("CN001", Outcome.TIP, "Counted", do="count", count=measured["count"].item(), limit=0)


def test_only_what_has_changed_is_worked_out_again(planted):
    Counting.seen.clear()
    record = planted(100)
    adviser = Adviser([Counting(), Transfer()], Settings())
    first, again = adviser.advise(record, 100), adviser.advise(record, 100)
    assert first == again
    assert Counting.seen == ["derive", "judge"]
    other = planted(126)
    later = adviser.advise(other, 126)
    assert Counting.seen == ["derive", "judge"] * 2
    assert [f.evidence["count"] for f in later.findings if f.code == "CN001"] == [len(other["performance"].steps)]
    fresh = advised(other, Counting(), Transfer())
    assert fresh == later


# -- in a training ------------------------------------------------------------------------------------------------


def problem():
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(80, 6, generator=rng)
    y = (x[:, :3].sum(1) > 0).long()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
    return model, {"train": (x[:40], y[:40]), "test": (x[40:], y[40:])}


class Loop:
    """A short training that is watched."""

    def __init__(self, folder, rate=0.1, **options):
        self.model, self.data = problem()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=rate)
        judges = [Reconstruction(), Performance(), Units(), Training(), Transfer()]
        options = {"budget": math.inf, "every": 5, "instruments": judges, "settings": Settings(), **options}
        self.w = watch(self.model, self.data, optimizer=self.optimizer, to=folder, **options)

    def train(self, steps):
        for _ in range(steps):
            loss = F.cross_entropy(self.model(self.data["train"][0]), self.data["train"][1])
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.w.step(loss=loss)


def test_at_any_time_and_worked_out_once_a_measurement(tmp_path):
    loop = Loop(tmp_path / "run")
    with pytest.raises(RecordError, match="has not begun"):
        _ = loop.w.advice
    with loop.w as w:
        before = w.advice
        assert before.step == 0
        assert before.findings == ()  # the untrained network is not to be blamed
        assert w.advice is before
        loop.train(4)
        assert w.advice is before
        spent = w.spent
        loop.train(1)
        assert w.advice is not before
        assert w.advice.step == 5
        assert w.spent > spent
    last = w.advice
    assert last.step == 5
    assert last.findings == tuple(f for f in w.record.findings if f.outcome in PRESSING)


def test_what_is_advised_last_is_what_the_record_says_at_the_end(tmp_path):
    loop = Loop(tmp_path / "run", rate=30.0)  # so high that there is something to say
    with loop.w as w:
        loop.train(15)
        live = w.advice
    found = [f for f in w.record.findings if f.outcome in PRESSING]
    assert live.findings == tuple(found)
    assert found


def test_it_leaves_the_record_and_the_random_numbers_alone(tmp_path):
    loop = Loop(tmp_path / "run")
    with loop.w as w:
        loop.train(5)
        record, state = w.record, torch.get_rng_state()
        before = (record.seq, record.findings, list(record), record.steps)
        _ = w.advice
        record.refresh()
        assert (record.seq, record.findings, list(record), record.steps) == before
        assert "transfer" not in record
        assert torch.equal(torch.get_rng_state(), state)
        loop.train(5)
    plain = Loop(tmp_path / "plain")
    with plain.w:
        plain.train(10)
    for name in ("performance", "reconstruction", "units"):
        for variable in plain.w.record[name]:
            assert w.record[name][variable].equals(plain.w.record[name][variable]), variable


def test_in_memory_it_works_after_the_end_too(tmp_path):
    from stratoscope.network.subject import Subject
    from stratoscope.observe.diagnosing import Chosen
    from stratoscope.observe.training import RecordedTraining

    model, data = problem()
    w = RecordedTraining(Subject(model, data), None, Chosen([Performance()], [Transfer()]), settings=Settings())
    with w:
        w.step(loss=1.0)
    assert w.advice.step == 1
    assert w.best_transfer is None


def test_other_processes_get_an_empty_one():
    with SilentWatch() as w:
        w.step()
        assert w.advice == Advice()
        assert w.best_transfer is None


def test_what_goes_wrong_is_said_and_training_goes_on(tmp_path, monkeypatch):
    def broken(self, record, step):
        raise ValueError("broken on purpose")

    monkeypatch.setattr(Adviser, "advise", broken)
    loop = Loop(tmp_path / "run")
    with loop.w as w:
        loop.train(1)
        with pytest.warns(UserWarning, match="broken on purpose"):
            assert w.advice == Advice()
        loop.train(1)
    assert w.record.meta["status"] == "finished"
