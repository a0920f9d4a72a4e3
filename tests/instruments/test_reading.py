"""Reading saved numbers back where not every split has every number."""

import math

import torch
from torch import nn

from stratoscope import examine
from stratoscope.findings import Outcome
from stratoscope.instruments.reading import last_of


def test_a_split_without_labels_beside_one_with_labels_is_judged_too():
    draw = torch.Generator().manual_seed(0)
    inputs, labels = torch.randn(60, 5, generator=draw), torch.arange(60) % 3
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))
    record = examine(model, {"seen": (inputs, labels), "new": inputs}, skip=["spectrum"])
    assert [finding.code for finding in record.findings if finding.outcome is Outcome.FAILED] == []
    read = {at.split: at for at in last_of(record["statistics"], "n", "classes") if at.layer == "0"}
    assert read["seen"]["classes"] == 3
    assert math.isnan(read["new"]["classes"])
