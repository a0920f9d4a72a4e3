"""Data of another task: only what asks for them is measured there, and the rest is as it was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import nn

from stratoscope import examine, watch
from stratoscope.capture.activations import Activations
from stratoscope.capture.needs import Need
from stratoscope.capture.views import LayerView
from stratoscope.errors import SubjectError
from stratoscope.instruments.base import LayerInstrument
from stratoscope.instruments.performance import Performance
from stratoscope.instruments.units import Units
from stratoscope.network.subject import Subject
from stratoscope.record.quantity import Quantity, quantity


@dataclass(frozen=True)
class Labels(LayerInstrument):
    """How many different labels its sample has."""

    key: ClassVar[str] = "labels"
    title: ClassVar[str] = "Labels"
    source: ClassVar[str] = "arXiv:2312.06887"
    codes: ClassVar[Mapping[str, str]] = {"LB001": "never said"}
    transfers: ClassVar[bool] = True

    @property
    def requires(self) -> set[Need]:
        return {Activations(n=50)}

    def measure_layer(self, view: LayerView) -> Mapping[str, Quantity]:
        labels = view[Activations(n=50)].labels
        return {"count": quantity(len(labels.unique()), units="1", long_name="different labels")}

    def judge(self, measured):
        yield from ()


@pytest.fixture
def task():
    draw = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
    with torch.no_grad():
        for param in model.parameters():
            param.copy_(torch.randn(param.shape, generator=draw))
    x = torch.randn(60, 6, generator=draw)
    other = torch.randn(40, 6, generator=draw)
    return model, {"train": (x[:40], torch.arange(40) % 2), "test": (x[40:], torch.arange(20) % 2)}, other


def test_only_what_asks_for_it_is_measured_there(task):
    model, data, other = task
    record = examine(
        model, data, transfer=(other, torch.arange(40) % 7), instruments=[Labels(), Units(), Performance()]
    )
    assert list(record["labels"]["count"].coords["split"].values) == ["train", "test", "transfer"]
    assert record["labels"]["count"].sel(split="transfer", layer="0").item() == 7
    assert record["labels"]["count"].sel(split="train", layer="0").item() == 2
    for key in ("units", "performance"):
        assert all("transfer" not in a.coords["split"].values for a in record[key].values() if "split" in a.dims)
    assert record.meta["data"]["transfer"]["n"] == 40
    assert all(row.split != "transfer" or row.instrument == "labels" for row in record.coverage())


def test_the_other_numbers_do_not_change(task):
    model, data, other = task
    alone = examine(model, data, instruments=[Units(), Performance()])
    beside = examine(model, data, transfer=(other, torch.arange(40) % 7), instruments=[Units(), Performance()])
    for key in ("units", "performance"):
        assert alone[key].keys() == beside[key].keys()
        assert all(alone[key][name].equals(beside[key][name]) for name in alone[key])


def test_it_is_there_at_every_measurement_of_a_training(task, tmp_path):
    model, data, other = task
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with watch(
        model, data, transfer=(other, torch.arange(40) % 7), optimizer=optimizer, to=tmp_path / "run",
        instruments=[Labels()], budget=1e3,
    ) as w:  # fmt: skip
        for step in range(1, 4):
            nn.functional.cross_entropy(model(data["train"][0]), data["train"][1]).backward()
            optimizer.step()
            w.step(step)
    count = w.record["labels"]["count"].sel(split="transfer", layer="0")
    assert count.coords["step"].values.tolist() == [0, 1, 2, 3]
    assert (count == 7).all()


def test_alone_without_other_data(task):
    model, _, other = task
    record = examine(model, transfer=(other, torch.arange(40) % 7), instruments=[Labels(), Performance()])
    assert list(record["labels"]["count"].coords["split"].values) == ["transfer"]
    assert "performance" not in record


def test_a_split_of_that_name_is_refused(task):
    model, data, other = task
    with pytest.raises(SubjectError, match="rename it"):
        examine(model, {**data, "transfer": (other, torch.arange(40))}, transfer=(other, torch.arange(40)))
    with pytest.raises(SubjectError, match="one source"):
        _ = Subject(model, data, transfer=data).sources
