"""Reading saved numbers back where not every split has every number."""

import math

import torch
from torch import nn

from stratoscope import Record, examine, quantity
from stratoscope.findings import Outcome
from stratoscope.instruments.reading import last_of
from stratoscope.record.entry import Entry
from stratoscope.record.writer import RecordWriter


def test_a_split_without_labels_beside_one_with_labels_is_judged_too():
    draw = torch.Generator().manual_seed(0)
    inputs, labels = torch.randn(60, 5, generator=draw), torch.arange(60) % 3
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))
    record = examine(model, {"seen": (inputs, labels), "new": inputs}, skip=["spectrum"])
    assert [finding.code for finding in record.findings if finding.outcome is Outcome.FAILED] == []
    read = {at.split: at for at in last_of(record["statistics"], "n", "classes") if at.layer == "0"}
    assert read["seen"]["classes"] == 3
    assert math.isnan(read["new"]["classes"])


def test_variables_that_were_measured_at_other_steps_and_layers_are_told_by_their_labels():
    def entry(name, value, layers):
        values = quantity([float(value + i) for i in range(len(layers))], units="1", long_name=name, dims="layer",
                          coords={"layer": layers})  # fmt: skip
        return Entry("units", name, values, split="test")

    with RecordWriter.create(None) as writer:
        writer.commit(0, [entry("a", 0, ["x", "y"])])
        writer.commit(3, [entry("a", 10, ["x", "y"]), entry("b", 20, ["y"])])
        writer.commit(7, [entry("b", 30, ["y"])])
        record = Record.from_writer(writer)
        found = {at.layer: at for at in last_of(record["units"], "a", "b", "c")}
    assert [(at.step, at["a"]) for at in found.values()] == [(3, 10.0), (3, 11.0)]
    assert found["y"]["b"] == 20.0
    assert math.isnan(found["x"]["b"])
    assert math.isnan(found["y"]["c"])
