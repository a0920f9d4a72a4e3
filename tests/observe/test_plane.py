"""The information plane of a series of checkpoints: one range of bins for the whole run."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from stratoscope.errors import Cancelled, OpenError, SettingError, SubjectError
from stratoscope.instruments.information import Information
from stratoscope.instruments.separation import Separation
from stratoscope.network.subject import Subject
from stratoscope.observe.examine import examine
from stratoscope.observe.plane import information_plane
from stratoscope.observe.settings import Settings

QUICK = Information(permutations=4, draws=0, sweep=(10,))


def network(scale=1.0, seed=0):
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2), nn.Tanh())
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for param in model.parameters():
            param.copy_(scale * torch.randn(param.shape, generator=generator))
    return model


def data(n=120, seed=0):
    inputs = torch.randn(n, 4, generator=torch.Generator().manual_seed(seed))
    return inputs, (inputs[:, 0] > 0).long()


def plane(checkpoints, given=None, **more):
    more = {"instruments": [QUICK], "settings": Settings()} | more
    return information_plane(network(seed=9), data() if given is None else given, checkpoints, **more)


def at(record, name, layer, split=None):
    array = record["information"][name].sel(layer=layer)
    return (array.isel(split=0) if split is None else array.sel(split=split)).values


GROWING = {0: 1.0, 10: 2.0, 20: 4.0}


@pytest.fixture
def states():
    """The same network, larger at each step."""
    return {step: network(scale).state_dict() for step, scale in GROWING.items()}


def test_bins_are_those_of_the_whole_run(states):
    record = plane(states)
    assert record["information"]["information_x"].coords["step"].values.tolist() == [0, 10, 20]
    outputs = [network(scale)[:2](data()[0]).detach() for scale in GROWING.values()]
    low, high = min(float(o.min()) for o in outputs), max(float(o.max()) for o in outputs)
    assert at(record, "bin_low", "1") == pytest.approx([low] * 3)
    assert at(record, "bin_high", "1") == pytest.approx([high] * 3)
    assert (at(record, "bin_range", "1") == 3).all()
    assert (at(record, "outside", "1") == 0).all()
    assert record.meta["series"]["step"] == "as given"


def test_what_grows_does_not_look_compressed(states):
    """A layer that is only scaled clusters the same in bins of its own range, and less in those of the run."""
    grown = plane(states)
    own = [
        examine(network(scale), data(), instruments=[QUICK], settings=Settings())["information"]["information_x"]
        .sel(layer="0").isel(step=0, split=0).item()
        for scale in GROWING.values()
    ]  # fmt: skip
    assert own == pytest.approx([own[0]] * 3, abs=1e-6)
    found = at(grown, "information_x", "0")
    assert found[2] == pytest.approx(own[2], abs=0.3)
    assert (np.diff(found) > 0.2).all()


def test_the_bounds_of_a_nonlinearity_can_be_kept(states):
    instrument = Information(permutations=0, draws=0, bin_range="activation")
    record = plane(states, instruments=[instrument])
    assert at(record, "bin_low", "3") == pytest.approx([-1.0] * 3)
    assert (at(record, "bin_range", "3") == 1).all()
    assert (at(record, "bin_range", "1") == 3).all()


def test_files_and_splits(states, tmp_path):
    for step, state in states.items():
        torch.save(state, tmp_path / f"model_{step}.pt")
    given = {"train": data(), "test": data(60, seed=1)}
    seen = []
    for number, checkpoints in enumerate((tmp_path, str(tmp_path / "*.pt"), sorted(tmp_path.glob("*.pt")))):
        to = tmp_path.parent / f"{tmp_path.name}_{number}"
        record = plane(checkpoints, given, to=to, progress=lambda *told: seen.append(told))
        assert record["information"]["information_x"].coords["step"].values.tolist() == [0, 10, 20]
        assert [one["name"] for one in record.meta["series"]["checkpoints"]] == [f"model_{step}.pt" for step in states]
        for split in ("train", "test"):
            assert np.isfinite(at(record, "information_x", "1", split)).all()
        assert len(set(at(record, "bin_high", "1", "train")) | set(at(record, "bin_high", "1", "test"))) == 1
        assert record.meta["status"] == "finished"
        record.close()
    assert seen[0][1:] == (0, 6)
    assert seen[-1][1:] == (6, 6)


def test_the_model_leaves_as_it_came_and_a_subject_will_do(states):
    model = network(seed=9)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    subject = Subject(model, data())
    record = information_plane(subject, None, states, instruments=[QUICK], settings=Settings())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert at(record, "information_x", "1") == pytest.approx(at(plane(states), "information_x", "1"))


def test_layers_and_other_instruments(states):
    record = plane(states, instruments=[QUICK, Separation(permutations=0)], layers="3")
    assert record["information"]["information_x"].coords["layer"].values.tolist() == ["3"]
    assert record["separation"]["gdv"].sizes["step"] == 3


def test_ranges_of_ones_own_are_kept(states):
    own = Information(permutations=0, draws=0, ranges=(("1", -1.0, 2.0),))
    record = plane(states, instruments=[own])
    assert at(record, "bin_high", "1") == pytest.approx([2.0] * 3)


def test_a_checkpoint_that_does_not_fit_is_told_of_and_the_others_are_measured(states):
    states[15] = nn.Linear(4, 3).state_dict()
    record = plane(states)
    assert record["information"]["information_x"].coords["step"].values.tolist() == [0, 10, 20]
    failed = [f for f in record.findings if f.outcome == "failed"]
    assert [(f.step, "step 15" in f.says) for f in failed] == [(15, True)]
    assert record.meta["series"]["checkpoints"][2]["problem"]
    with pytest.raises(SubjectError, match="lack"):
        plane({15: states[15]})


def test_numbers_that_are_none_do_not_widen_the_range(states):
    broken = network(3.0).state_dict()
    broken["0.weight"][0, 0] = math.nan
    record = plane({**states, 30: broken})
    assert np.isfinite(at(record, "bin_high", "1")).sum() == 3
    assert at(record, "bin_high", "1")[:3] == pytest.approx(at(plane(states), "bin_high", "1"))


def test_what_cannot_be_done(states, tmp_path):
    with pytest.raises(SettingError, match="no checkpoints"):
        plane({})
    with pytest.raises(OpenError, match="No path"):
        plane(())
    torch.save(states[0], tmp_path / "model_0.pt")
    with pytest.raises(SettingError, match="one checkpoint"):
        plane(tmp_path / "model_0.pt")
    with pytest.raises(SettingError, match="Information"):
        plane(states, instruments=[Separation()])
    with pytest.raises(SubjectError, match="data"):
        information_plane(network(), None, states, settings=Settings())
    with pytest.raises(SettingError, match="nothere"):
        plane(states, layers="nothere")


def test_a_cancel_keeps_what_was_measured(states, tmp_path):
    def stop(what, done, total):
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(Cancelled) as cancelled:
        plane(states, to=tmp_path / "run", progress=stop)
    record = cancelled.value.record
    assert record.meta["status"] == "interrupted"
    assert record["information"]["information_x"].coords["step"].values.tolist() == [0, 10]
    record.close()
