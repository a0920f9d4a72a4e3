"""Two checkpoints side by side."""

import math

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from stratoscope import inspect
from stratoscope.errors import OpenError, SettingError, SubjectError
from stratoscope.network.stores import SafetensorsFile


def base():
    generator = torch.Generator().manual_seed(0)
    shapes = {"a.weight": (12, 8), "b.weight": (8, 6), "c.weight": (6, 6), "d.weight": (6, 6), "a.bias": (12,)}
    found = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return found | {"n.running_mean": torch.zeros(4), "old.weight": torch.ones(3, 3)}


@pytest.fixture
def pair(tmp_path):
    """A checkpoint, and one in which each tensor changed in another way."""
    first = base()
    second = {name: tensor.clone() for name, tensor in first.items() if name != "old.weight"}
    second["a.weight"] = 1.1 * first["a.weight"]
    second["b.weight"] = -first["b.weight"]
    second["c.weight"] = torch.full((6, 6), math.nan)
    second["d.weight"] = torch.zeros(5, 6)
    second["new.weight"] = torch.ones(2, 2)
    for name, tensors in (("one", first), ("two", second)):
        save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, tmp_path / f"{name}.safetensors")
    return tmp_path / "one.safetensors", tmp_path / "two.safetensors"


def compared(*pair, **options):
    record = inspect(pair[0], compare=pair[1], only="weights", **options)
    return record.meta["comparison"]


def test_each_change_is_what_was_done_and_the_largest_comes_first(pair):
    found = compared(*pair)
    rows = {row["name"]: row for row in found["layers"]}
    assert rows["a.weight"]["relative_change"] == pytest.approx(0.1, rel=1e-5)
    assert rows["a.weight"]["cosine"] == pytest.approx(1)
    assert (rows["b.weight"]["relative_change"], rows["b.weight"]["cosine"]) == (pytest.approx(2), pytest.approx(-1))
    assert rows["a.bias"]["relative_change"] == 0
    assert [row["name"] for row in found["layers"]][:4] == ["c.weight", "b.weight", "a.weight", "a.bias"]
    assert (found["before"], found["after"]) == tuple(map(str, pair))
    assert rows["a.weight"]["before"]["stable_rank"] == pytest.approx(rows["a.weight"]["after"]["stable_rank"])


def test_what_cannot_be_compared_has_a_reason(pair):
    rows = {row["name"]: (row["status"], row["reason"]) for row in compared(*pair)["layers"]}
    assert rows["d.weight"] == ("not_applicable", "of another shape: 6 x 6 and 5 x 6")
    assert rows["old.weight"] == ("not_applicable", "only in one")
    assert rows["new.weight"] == ("not_applicable", "only in two")
    assert rows["n.running_mean"][0] == "not_applicable"
    assert rows["c.weight"] == ("measured", "an entry is NaN or infinite")
    assert rows["a.weight"] == ("measured", "")


def test_a_fused_tensor_is_compared_by_its_parts_and_not_once_more_as_a_whole(tmp_path):
    first = {f"attn.{name}": value for name, value in nn.MultiheadAttention(4, 2, bias=False).state_dict().items()}
    second = {name: tensor.clone() for name, tensor in first.items()}
    second["attn.in_proj_weight"][4:8] *= 2  # the keys
    for name, tensors in (("one", first), ("two", second)):
        save_file(tensors, tmp_path / f"{name}.safetensors")
    rows = compared(tmp_path / "one.safetensors", tmp_path / "two.safetensors")["layers"]
    changes = {row["name"]: row["relative_change"] for row in rows}
    fused = "attn.in_proj_weight"
    expected = {f"{fused}:k": 1.0, f"{fused}:q": 0.0, f"{fused}:v": 0.0, "attn.out_proj.weight": 0.0}
    assert changes == pytest.approx(expected)


def test_a_checkpoint_has_not_moved_from_itself(pair):
    rows = [row for row in compared(pair[0], pair[0])["layers"] if row["status"] == "measured"]
    assert len(rows) == 6
    assert {row["relative_change"] for row in rows} == {0.0}
    assert all(row["before"] == row["after"] for row in rows)


def test_only_the_layers_that_were_asked_for_are_compared(pair):
    assert [row["name"] for row in compared(*pair, layers="a")["layers"]] == ["a.weight", "a.bias"]


def test_one_tensor_of_each_is_in_memory_at_a_time(pair, monkeypatch):
    import stratoscope.observe.contrast as module

    alive, most = [0], [0]
    load, change = SafetensorsFile.load, module.change

    def counted(self, name):
        alive[0] += 1
        most[0] = max(most[0], alive[0])
        return load(self, name)

    def done(*tensors):
        alive[0] = 0
        return change(*tensors)

    monkeypatch.setattr(module, "change", done)

    def watched(*arguments):
        monkeypatch.setattr(SafetensorsFile, "load", counted)
        return old(*arguments)

    old = module._compared
    monkeypatch.setattr(module, "_compared", watched)
    compared(*pair)
    assert most[0] == 2


def test_the_spectrum_before_and_after_is_told(tmp_path):
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(128, 160, generator=generator)
    spike = torch.randn(128, 1, generator=generator) @ torch.randn(1, 160, generator=generator)
    save_file({"fc.weight": noise}, tmp_path / "one.safetensors")
    save_file({"fc.weight": noise + 0.5 * spike}, tmp_path / "two.safetensors")
    record = inspect(tmp_path / "one.safetensors", compare=tmp_path / "two.safetensors", only="spectrum")
    (row,) = record.meta["comparison"]["layers"]
    assert (row["before"]["phase"], row["after"]["phase"]) == ("random-like", "bulk+spikes")
    assert (row["before"]["num_spikes"], row["after"]["num_spikes"]) == (0, 1)
    assert row["before"]["alpha"] is None  # a matrix of noise has none


def test_another_network_is_one_sentence(pair, tmp_path):
    save_file({"conv.weight": torch.ones(2, 2)}, tmp_path / "three.safetensors")
    with pytest.raises(SubjectError, match=r"no tensor of the same name; .*conv\.weight"):
        compared(pair[0], tmp_path / "three.safetensors")
    with pytest.raises(OpenError, match="nowhere"):
        compared(pair[0], tmp_path / "nowhere.pt")


def test_a_series_is_not_compared(pair, tmp_path):
    for step in (1, 2):
        torch.save(base(), tmp_path / f"step_{step}.pt")
    with pytest.raises(SettingError, match="not a series"):
        inspect(str(tmp_path / "step_*.pt"), compare=pair[0])
    with pytest.raises(SettingError, match="not a series"):
        inspect(pair[0], compare=str(tmp_path / "step_*.pt"))


def test_a_comparison_is_kept_and_gone_on_with(pair, tmp_path):
    from stratoscope.record.record import Record

    first = compared(*pair, to=tmp_path / "run")
    kept = Record.open(tmp_path / "run").meta["comparison"]
    assert [row["name"] for row in kept["layers"]] == [row["name"] for row in first["layers"]]
    again = compared(*pair, to=tmp_path / "run")
    assert again["before"] == first["before"]
