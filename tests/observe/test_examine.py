import numpy as np
import pytest
import torch
from torch import nn

from stratoscope import Subject, examine
from stratoscope.errors import SettingError
from stratoscope.findings import Outcome


def network():
    return nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3))


def test_one_pattern_may_be_given_as_it_is():
    data = torch.randn(40, 6), torch.arange(40) % 3
    for pattern in ("0", ["0"]):
        record = examine(network(), data, layers=pattern, only="weights")
        assert record["weights"]["stable_rank"].coords["matrix"].values.tolist() == ["0.weight"]


def test_a_pattern_that_fits_no_layer_is_an_error_and_nothing_is_written(tmp_path):
    with pytest.raises(SettingError, match=r"No layer is called fc\* or conv; there are .*0"):
        examine(network(), layers=["fc*", "conv"], to=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_layers_that_only_a_pass_finds_can_be_asked_for():
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(6, 3)

        def forward(self, x):
            return torch.relu(self.fc(x))

    record = examine(Functional(), torch.randn(40, 6), layers=":relu")
    assert record["units"]["dead_share"].coords["layer"].values.tolist() == [":relu"]


def test_what_is_measured_in_a_training_only_is_not_nothing():
    with pytest.raises(SettingError, match="not in training"):
        examine(network(), only=["training"])


def test_a_network_that_writes_to_its_input_sees_the_same_examples_each_time():
    class Scales(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(6, 3)

        def forward(self, x):
            return self.fc(x.mul_(2))

    subject = Subject(Scales(), (torch.randn(40, 6), torch.arange(40) % 3))
    before = subject.probe_set("data").batches[0].args[0].clone()
    first, second = (examine(subject=subject, only="performance")["performance"]["loss"].item() for _ in range(2))
    assert first == second
    assert torch.equal(subject.probe_set("data").batches[0].args[0], before)


def test_time_that_is_up_ends_the_pass_after_a_batch_and_says_so():
    model, x = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU()), torch.randn(50, 4)
    told = []
    record = examine(
        model, {"test": (x, torch.zeros(50, dtype=torch.long))}, seconds=0, batch_size=10,
        progress=lambda *args: told.append(args),
    )  # fmt: skip
    about = record.meta["data"]["test"]
    assert (about["n"], about["forward_calls"]) == (10, 1)
    assert any("time budget" in note for note in about["notes"])
    assert told[0] == ("passing over test", 1, 5)


class MakesItsOwn(nn.Module):
    """Makes a tensor on the default device, as a model written for one does."""

    def __init__(self):
        super().__init__()
        self.inner, self.made = nn.Linear(6, 3), None

    def forward(self, x):
        self.made = torch.zeros(1).device
        return self.inner(x)


def test_a_default_device_is_the_networks_and_not_ours():
    model, x = MakesItsOwn(), torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    torch.set_default_device("meta")
    try:
        record = examine(model, (x, (x[:, 0] > 0).long().cpu()))
        assert model.made.type == "meta"
        assert torch.get_default_device().type == "meta"
    finally:
        torch.set_default_device(None)
    assert not [finding for finding in record.findings if finding.outcome is Outcome.FAILED]
    assert np.isfinite(record["separation"]["gdv"].values).all()
    assert record["weights"]["stable_rank"].size
