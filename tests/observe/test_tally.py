"""Epochs and tokens on their way from the loop into the record."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from stratoscope import watch
from stratoscope.errors import SettingError
from stratoscope.record import Record
from stratoscope.record.rows import Passed


def network():
    return nn.Sequential(nn.Linear(4, 3))


def clock_of(folder):
    record = Record.open(folder)
    return {step: Passed(moment.epoch, moment.tokens) for step, moment in record.clock.items()}


def test_epochs_and_tokens_reach_the_record(tmp_path):
    model = network()
    with watch(model, to=tmp_path / "run", every=2, budget=math.inf) as w:
        w.step(1, loss=0.5, epoch=0.25, tokens=512)
        w.step(2, loss=0.4, epoch=0.5, tokens=1024.0)
        w.step(3, loss=0.3)
        w.step(4, loss=0.3, epoch=np.float32(1.0), tokens=torch.tensor(1024))  # nothing new was seen
    assert clock_of(tmp_path / "run") == {
        0: Passed(), 1: Passed(0.25, 512), 2: Passed(0.5, 1024), 3: Passed(), 4: Passed(1.0, 1024)
    }  # fmt: skip


def test_a_step_that_is_only_measured_has_them_too(tmp_path):
    model = network()
    with watch(model, to=tmp_path / "run", every=1, budget=math.inf) as w:
        w.step(epoch=2, tokens=7)
    assert clock_of(tmp_path / "run") == {0: Passed(), 1: Passed(2.0, 7)}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"tokens": -1}, "tokens=-1 is no count; hand over a whole number, not below 0."),
        ({"tokens": 2.5}, "tokens=2.5 is no count"),
        ({"tokens": math.nan}, "tokens=nan is no count"),
        ({"tokens": "many"}, "tokens='many' is no count"),
        ({"tokens": torch.ones(2)}, "is no count"),
        ({"tokens": 99}, "tokens=99 comes after tokens=100; hand over all that was seen so far, not what is new."),
        ({"epoch": math.inf}, "epoch=inf is no number of passes over the data; hand over one finite number."),
        ({"epoch": "first"}, "epoch='first' is no number of passes"),
        ({"epoch": torch.ones(2)}, "is no number of passes"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(tmp_path, given, says):
    model = network()
    with watch(model, to=tmp_path / "run", every=1, budget=math.inf) as w:
        w.step(1, loss=0.5, tokens=100)
        with pytest.raises(SettingError) as error:
            w.step(2, loss=0.5, **given)
        assert says in str(error.value)
        assert "\n" not in str(error.value)
        assert w.record.steps == (0, 1)
        w.step(2, loss=0.5, tokens=100)
    assert clock_of(tmp_path / "run") == {0: Passed(), 1: Passed(None, 100), 2: Passed(None, 100)}


def test_a_step_that_is_refused_counts_no_tokens(tmp_path):
    with watch(network(), to=tmp_path / "run") as w:
        w.step(5, loss=0.5, tokens=100)
        with pytest.raises(SettingError, match="steps must not go backwards"):
            w.step(4, loss=0.5, tokens=900)
        w.step(6, loss=0.5, tokens=200)


def test_a_resumed_training_goes_on_counting(tmp_path):
    model = network()
    with watch(model, to=tmp_path / "run", budget=math.inf) as w:
        for step in range(1, 5):
            w.step(step, loss=0.5, tokens=100 * step)
    with watch(model, to=tmp_path / "run", budget=math.inf, resume=2) as w:
        with pytest.raises(SettingError, match="tokens=100 comes after tokens=200"):
            w.step(3, loss=0.5, tokens=100)
        w.step(3, loss=0.5, tokens=250)
    assert [passed.tokens for passed in clock_of(tmp_path / "run").values()] == [None, 100, 200, 250]
