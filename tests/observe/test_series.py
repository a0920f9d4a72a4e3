"""Which files are a series along a training, and where each stands."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from stratoscope.errors import OpenError
from stratoscope.observe.series import Series, find_series, natural, steps_of


def weights(seed=0, **more):
    generator = torch.Generator().manual_seed(seed)
    return {"fc.weight": torch.randn(6, 4, generator=generator), "fc.bias": torch.zeros(6), **more}


def steps(found):
    assert isinstance(found, Series)
    return [(one.name, one.step) for one in found.checkpoints]


@pytest.fixture
def runs(tmp_path):
    """Torch files of one training, with an optimizer's state and a log beside them."""
    for step in (100, 20, 3):
        torch.save(weights(step), tmp_path / f"ckpt_{step}.pt")
    torch.save({"step": 3}, tmp_path / "optimizer_3.pt")
    (tmp_path / "log.txt").write_text("loss")
    return tmp_path


def test_a_folder_of_torch_files_is_a_series_by_their_number(runs):
    found = find_series([runs])
    assert steps(found) == [("ckpt_3.pt", 3), ("ckpt_20.pt", 20), ("ckpt_100.pt", 100)]
    assert "ckpt_" in found.axis


def test_a_pattern_and_several_paths_are_the_same_series(runs):
    expected = [3, 20, 100]
    assert [one.step for one in find_series([str(runs / "ckpt_*.pt")]).checkpoints] == expected
    some = [runs / f"ckpt_{step}.pt" for step in (100, 3, 20)]
    assert [one.step for one in find_series(some).checkpoints] == expected


def test_the_same_path_twice_is_one(runs):
    assert find_series([runs / "ckpt_3.pt", runs / "ckpt_3.pt"]) == runs / "ckpt_3.pt"


def test_subfolders_as_transformers_writes_them(tmp_path):
    for step in (1000, 500):
        (tmp_path / f"checkpoint-{step}").mkdir()
        save_file(weights(step), tmp_path / f"checkpoint-{step}" / "model.safetensors")
    (tmp_path / "checkpoint-1500").mkdir()
    (tmp_path / "runs").mkdir()
    found = find_series([tmp_path])
    # one that was not written to its end belongs to it; what cannot be read is told when it is measured
    assert steps(found) == [("checkpoint-500", 500), ("checkpoint-1000", 1000), ("checkpoint-1500", 1500)]


def test_a_lone_subfolder_is_one_checkpoint(tmp_path):
    (tmp_path / "checkpoint-500").mkdir()
    save_file(weights(), tmp_path / "checkpoint-500" / "model.safetensors")
    assert find_series([tmp_path]) == tmp_path / "checkpoint-500"


def test_a_folder_of_several_networks_is_no_checkpoint(tmp_path):
    for name in ("net10", "other"):
        (tmp_path / name).mkdir()
        save_file(weights(), tmp_path / name / "model.safetensors")
    with pytest.raises(OpenError, match="no weights that can be opened here"):
        find_series([tmp_path])


def test_shards_are_one_checkpoint(tmp_path):
    save_file({"a.weight": torch.ones(2, 2)}, tmp_path / "model-00001-of-00002.safetensors")
    save_file({"b.weight": torch.ones(2, 2)}, tmp_path / "model-00002-of-00002.safetensors")
    assert find_series([tmp_path]) == tmp_path
    assert find_series([str(tmp_path / "*.safetensors")]) == tmp_path
    assert find_series(sorted(tmp_path.glob("*.safetensors"))) == tmp_path


def test_files_that_differ_in_no_number_are_not_taken_for_a_series(tmp_path):
    for name in ("small", "large"):
        torch.save(weights(), tmp_path / f"{name}.pt")
    with pytest.raises(OpenError, match="several torch files"):
        find_series([tmp_path])
    # but who names them gets them, in order of name
    found = find_series([tmp_path / "small.pt", tmp_path / "large.pt"])
    assert steps(found) == [("large.pt", 0), ("small.pt", 1)]
    assert "order of name" in found.axis


def test_a_folder_leaves_out_what_has_another_name(runs):
    torch.save(weights(), runs / "best.pt")
    found = find_series([runs])
    assert [one.step for one in found.checkpoints] == [3, 20, 100]
    assert found.left_out == ("best.pt",)
    torch.save(weights(), runs / ".ckpt_4.pt")  # hidden: a draft, or what another system leaves
    assert find_series([runs]) == found


@pytest.mark.parametrize(
    ("given", "match"),
    [([], "No path"), (["nowhere"], "nowhere"), (["*.nothing"], "fits the pattern"), (["a.pt", "b.pt"], "a.pt")],
)
def test_nothing_there_is_an_error(given, match, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OpenError, match=match):
        find_series(given)


def test_an_empty_folder_is_an_error(tmp_path):
    with pytest.raises(OpenError, match="no weights"):
        find_series([tmp_path])


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["step=20.safetensors", "step=100.safetensors"], [20, 100]),
        (["epoch=1-step=200.ckpt", "epoch=2-step=400.ckpt"], [200, 400]),
        (["epoch=1-step=200-loss=0.51.ckpt", "epoch=2-step=400-loss=0.32.ckpt"], [200, 400]),
        (["step100_seed1.pt", "step200_seed2.pt"], [100, 200]),
        (["checkpoint-5/model.safetensors", "checkpoint-10/model.safetensors"], [5, 10]),
        (["net1_of_9.pt", "net2_of_9.pt"], [1, 2]),
        (["a_1.pt", "b_1.pt"], [0, 1]),
        (["w_007.pt", "w_7.pt"], [0, 1]),
        ([f"t{2**70}.pt", f"t{2**71}.pt"], [0, 1]),
        (["last.pt"], [0]),
    ],
)
def test_steps_from_names(names, expected):
    assert steps_of(names)[0] == expected


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(0, 10**9), min_size=2, max_size=6, unique=True))
def test_steps_are_the_numbers_whatever_they_are(numbers):
    names = sorted((f"run7/model_{number}.pt" for number in numbers), key=natural)
    assert sorted(steps_of(names)[0]) == sorted(numbers)
