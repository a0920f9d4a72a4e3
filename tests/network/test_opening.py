"""Weights are opened lazily and safely, or refused in one sentence."""

import argparse
import json
import os
import pickle
import struct
import zipfile
from contextlib import suppress

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file, save_model
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from stratoscope.errors import OpenError
from stratoscope.network.opening import open_weights
from stratoscope.network.snapshot import digest, open_snapshot, save_snapshot
from stratoscope.network.stores import SafetensorsFile
from stratoscope.network.weights import ModuleWeights, StateDict
from stratoscope.network.zipcheck import check_zip


def refused(path, *words, **options):
    """Opening fails with one sentence that holds the words; gives the sentence."""
    with pytest.raises(OpenError) as caught:
        open_weights(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 600
    for word in words:
        assert word in message
    return message


def net():
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def same(source, tensors):
    assert set(source.describe()) == set(tensors)
    for name, info in source.describe().items():
        value = source.load(name)
        assert (tuple(value.shape), value.dtype) == (info.shape, info.dtype)
        assert not value.requires_grad
        assert torch.equal(value, tensors[name])


# safetensors


def test_one_safetensors_file(tmp_path):
    state = net().state_dict()
    save_file(state, tmp_path / "model.safetensors")
    same(open_weights(tmp_path / "model.safetensors"), state)
    same(open_weights(str(tmp_path)), state)
    (tmp_path / "link.safetensors").symlink_to(tmp_path / "model.safetensors")
    same(open_weights(tmp_path / "link.safetensors"), state)


def test_a_source_can_be_sent_to_another_process(tmp_path):
    save_file({"a": torch.arange(3.0)}, tmp_path / "m.safetensors")
    source = pickle.loads(pickle.dumps(open_weights(tmp_path / "m.safetensors")))
    assert torch.equal(source.load("a"), torch.arange(3.0))


def test_a_name_that_is_not_there(tmp_path):
    save_file({"a": torch.zeros(2)}, tmp_path / "m.safetensors")
    torch.save({"a": torch.zeros(2)}, tmp_path / "m.pt")
    for source in (open_weights(tmp_path / "m.safetensors"), open_weights(tmp_path / "m.pt"), ModuleWeights(net())):
        with pytest.raises(OpenError, match="no tensor 'b'"):
            source.load("b")


@pytest.mark.parametrize("cut", [0, 4, 8, 60, -1])
def test_a_truncated_safetensors_file(tmp_path, cut):
    path = tmp_path / "m.safetensors"
    save_file({"a": torch.zeros(50)}, path)
    path.write_bytes(path.read_bytes()[:cut])
    refused(path, str(path))


def test_a_safetensors_file_whose_header_lies(tmp_path):
    path = tmp_path / "m.safetensors"
    for header, data in (
        ({"a": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 8]}}, b"\0" * 8),
        ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 10**12]}}, b"\0" * 8),
        ({"a": {"dtype": "Q4", "shape": [2], "data_offsets": [0, 8]}}, b"\0" * 8),
    ):
        text = json.dumps(header).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + data)
        refused(path, "not a complete safetensors file")
    path.write_bytes(struct.pack("<Q", 2**60) + b"{}")
    refused(path, "not a complete safetensors file")


def test_types_that_torch_cannot_give_have_a_reason(tmp_path):
    header = {
        "packed": {"dtype": "F4", "shape": [4], "data_offsets": [0, 2]},
        "plain": {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [2, 4]},
    }
    text = json.dumps(header).encode()
    (tmp_path / "m.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + b"\0" * 4)
    source = open_weights(tmp_path / "m.safetensors")
    assert source.describe()["packed"].dtype is None
    assert "F4" in source.describe()["packed"].reason
    assert source.load("plain").dtype == torch.float8_e4m3fn
    with pytest.raises(OpenError, match="F4"):
        source.load("packed")


def test_tied_tensors_of_safetensors_itself_are_found(tmp_path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.head = nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)
            self.head.weight = self.embed.weight

    module = Tied()
    save_model(module, str(tmp_path / "m.safetensors"))
    source = open_weights(tmp_path / "m.safetensors")
    assert set(source.describe()) == {"embed.weight", "head.weight"}
    assert sum(info.same_as is not None for info in source.describe().values()) == 1
    assert digest(source) == digest(module)


# shards


def sharded(folder, **changes):
    first, second = {"a.weight": torch.randn(2, 3), "a.bias": torch.randn(2)}, {"b.weight": torch.randn(3, 2)}
    save_file(first, folder / "model-00001-of-00002.safetensors")
    save_file(second, folder / "model-00002-of-00002.safetensors")
    places = {name: "model-00001-of-00002.safetensors" for name in first}
    places |= {name: "model-00002-of-00002.safetensors" for name in second} | changes
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))
    return index, first | second


def test_a_sharded_checkpoint_by_its_folder_or_its_index(tmp_path):
    index, tensors = sharded(tmp_path)
    same(open_weights(tmp_path), tensors)
    same(open_weights(index), tensors)
    index.unlink()
    same(open_weights(tmp_path), tensors)  # shards without an index, no tensor twice


def test_shards_that_are_links_into_a_cache(tmp_path):
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    blobs.mkdir()
    snapshot.mkdir()
    _, tensors = sharded(blobs)
    for file in list(blobs.iterdir()):
        (snapshot / file.name).symlink_to(file)
    same(open_weights(snapshot), tensors)


def test_shards_of_torch_files(tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "pytorch_model-00001-of-00001.bin")
    index = {"weight_map": {"a": "pytorch_model-00001-of-00001.bin"}}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    same(open_weights(tmp_path), {"a": torch.ones(2)})


@pytest.mark.parametrize(
    "shard", ["../secret.safetensors", "/etc/passwd", "a/../../b.safetensors", "C:\\x.safetensors", "", 3]
)
def test_an_index_that_leads_out_of_its_folder(tmp_path, shard):
    folder = tmp_path / "inside"
    folder.mkdir()
    save_file({"x": torch.zeros(1)}, tmp_path / "secret.safetensors")
    index, _ = sharded(folder, x=shard)
    refused(index, "not an index")


def test_a_missing_shard(tmp_path):
    index, _ = sharded(tmp_path)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    refused(index, "model-00002-of-00002.safetensors", "not there")


def test_a_tensor_that_its_shard_does_not_hold(tmp_path):
    index, _ = sharded(tmp_path, **{"c.weight": "model-00001-of-00002.safetensors"})
    refused(index, "c.weight", "not in the shard")


def test_a_tensor_that_the_index_forgot_is_shown(tmp_path):
    index, tensors = sharded(tmp_path)
    content = json.loads(index.read_text())
    del content["weight_map"]["a.bias"]
    index.write_text(json.dumps(content))
    same(open_weights(index), tensors)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"weight_map": 3}', "{", '{"weight_map": {"a": "readme.txt"}}', "[" * 10**5]
)
def test_an_index_that_is_none(tmp_path, text):
    (tmp_path / "readme.txt").write_text("hello")
    (tmp_path / "model.safetensors.index.json").write_text(text)
    refused(tmp_path / "model.safetensors.index.json", "index")


# folders and odd files


def test_folders(tmp_path):
    refused(tmp_path, "no weights", "nothing")
    (tmp_path / "README.md").write_text("hello")
    refused(tmp_path, "no weights", "README.md")
    torch.save({"a": torch.ones(2)}, tmp_path / "weights.pt")
    torch.save({"a": torch.ones(9)}, tmp_path / "optimizer.pt")
    same(open_weights(tmp_path), {"a": torch.ones(2)})
    torch.save({"a": torch.ones(2)}, tmp_path / "other.pt")
    refused(tmp_path, "several torch files", "other.pt", "weights.pt")
    save_file({"a": torch.zeros(1)}, tmp_path / "one.safetensors")
    same(open_weights(tmp_path), {"a": torch.zeros(1)})
    save_file({"a": torch.zeros(1)}, tmp_path / "two.safetensors")
    refused(tmp_path, "several checkpoints", "one.safetensors")
    save_file({"a": torch.ones(1)}, tmp_path / "model.safetensors")
    same(open_weights(tmp_path), {"a": torch.ones(1)})


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("model.safetensors", b"", ["empty"]),
        ("model.pt", b"", ["empty"]),
        (
            "model.safetensors",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12\n",
            ["git lfs pull"],
        ),
        ("model.bin", b"\n<!DOCTYPE html><html>404</html>", ["web page"]),
        ("model.onnx", b"abc", ["not a complete ONNX file"]),
        ("model.xyz", b"abc", ["not read here", ".safetensors", ".pt", ".onnx", ".gguf"]),
        ("model", b"abc", ["not read here"]),
        ("model.pt", b"hello, this is no checkpoint", ["model.pt"]),
        ("model.pt", b"PK\x03\x04" + b"\0" * 100, ["damaged zip"]),
        ("model.pt", b"\x80\x02}q\x00.", ["model.pt"]),
        ("model.pt", os.urandom(300).replace(b"PK", b"QK"), ["model.pt"]),
    ],
)
def test_files_that_are_something_else(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, *words)


def test_a_missing_path(tmp_path):
    refused(tmp_path / "nowhere.safetensors", "no file or folder")


# torch files


@pytest.mark.parametrize("zipped", [True, False])
def test_a_state_dict(tmp_path, zipped):
    state = net().state_dict()
    torch.save(state, tmp_path / "m.pth", _use_new_zipfile_serialization=zipped)
    source = open_weights(tmp_path / "m.pth")
    same(source, state)
    assert list(source.describe()) == list(state)  # in the order of the module
    assert source.describe()["1.num_batches_tracked"].shape == ()


def test_weights_within_what_training_scripts_save(tmp_path):
    state = net().state_dict()
    moments = {"state": {0: {"exp_avg": torch.ones(2)}}}
    for saved, taken in (
        ({"epoch": 3, "state_dict": state, "optimizer": moments}, "state_dict"),
        ({"model": {"state_dict": state}, "best": torch.tensor(0.9)}, "model.state_dict"),
        ({"module": state}, "module"),
    ):
        torch.save(saved, tmp_path / "m.ckpt")
        source = open_weights(tmp_path / "m.ckpt")
        same(source, state)
        assert f"'{taken}'" in source.about
    assert (
        "left out: epoch, optimizer"
        in open_weights_of(tmp_path, {"epoch": 3, "net": state, "optimizer": moments}).about
    )


def open_weights_of(folder, saved, **options):
    torch.save(saved, folder / "given.pt")
    return open_weights(folder / "given.pt", **options)


def test_two_networks_in_one_file(tmp_path):
    saved = {"G": {"w": torch.ones(2)}, "D": {"w": torch.zeros(2)}, "optim_G": {"m": torch.ones(1)}, "epoch": 2}
    both = open_weights_of(tmp_path, saved)
    same(both, {"G.w": torch.ones(2), "D.w": torch.zeros(2)})
    assert "left out: optim_G, epoch" in both.about
    same(open_weights_of(tmp_path, saved, key="D"), {"w": torch.zeros(2)})
    refused(tmp_path / "given.pt", "'E'", "G, D", key="E")
    save_file({"a": torch.zeros(1)}, tmp_path / "m.safetensors")
    refused(tmp_path / "m.safetensors", "key='D'", key="D")


def test_lists_single_tensors_and_nothing(tmp_path):
    same(open_weights_of(tmp_path, [torch.ones(1), {"a": torch.zeros(1)}]), {"0": torch.ones(1), "1.a": torch.zeros(1)})
    same(open_weights_of(tmp_path, torch.ones(3)), {"tensor": torch.ones(3)})
    for nothing in ({}, {"epoch": 3}, 7, {"model": {}}):
        torch.save(nothing, tmp_path / "given.pt")
        refused(tmp_path / "given.pt", "no tensors")


def test_containers_that_hold_themselves_or_unfold_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr("stratoscope.network.torchfile.MAX_VALUES", 1000)
    loop = {"a": torch.ones(1)}
    loop["self"] = loop
    many = [torch.ones(1)]
    for _ in range(30):
        many = [many, many]
    for hostile in (loop, many):
        torch.save(hostile, tmp_path / "given.pt")
        refused(tmp_path / "given.pt", "more than 1000 values")
    torch.save({"a.b": torch.ones(1), "a": {"b": torch.zeros(1)}}, tmp_path / "given.pt")
    refused(tmp_path / "given.pt", "same name")


def test_keys_of_parallel_training_are_kept_as_they_are(tmp_path):
    state = {f"module.{name}": value for name, value in net().state_dict().items()}
    same(open_weights_of(tmp_path, {"state_dict": state}), state)


def test_tied_tensors_in_a_torch_file(tmp_path):
    weight = torch.randn(3, 2)
    infos = open_weights_of(tmp_path, {"a": weight, "b": weight, "c": weight[:2], "d": weight.T}).describe()
    assert [info.same_as for info in infos.values()] == [None, "a", None, None]


def test_a_torch_file_is_mapped_and_not_read(tmp_path):
    torch.save({"big": torch.zeros(2**22), "small": torch.ones(2)}, tmp_path / "m.pt")
    source = open_weights(tmp_path / "m.pt")
    assert torch.equal(source.load("small"), torch.ones(2))
    with open("/proc/self/maps") as maps:
        assert str(tmp_path / "m.pt") in maps.read()


def test_odd_tensors_in_a_torch_file_have_a_reason(tmp_path):
    saved = {
        "sparse": torch.eye(3).to_sparse(),
        "meta": torch.zeros(2, device="meta"),
        "repeated": torch.zeros(1).expand(10**9, 10**3),
        "fine": torch.zeros(1),
    }
    with np.errstate(all="ignore"):
        source = open_weights_of(tmp_path, saved)
    reasons = {name: info.reason for name, info in source.describe().items()}
    assert "sparse" in reasons["sparse"]
    assert "meta" in reasons["meta"]
    assert "repeated" in reasons["repeated"]
    assert reasons["fine"] == ""
    with pytest.raises(OpenError, match="repeated"):
        source.load("repeated")


# hostile files


class Evil:
    """Its pickle would make a file."""

    def __init__(self, target):
        self.target = str(target)

    def __reduce__(self):
        return os.mkdir, (self.target,)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_malicious_pickle_is_refused_and_nothing_runs(tmp_path, zipped):
    target = tmp_path / "owned"
    saved = {"a": torch.zeros(2), "b": Evil(target)}
    torch.save(saved, tmp_path / "m.pt", _use_new_zipfile_serialization=zipped)
    refused(tmp_path / "m.pt", "mkdir", "nothing in it was run", "state_dict()")
    assert not target.exists()
    torch.load(tmp_path / "m.pt", weights_only=False)  # the file does what it should, where it is trusted
    assert target.exists()


def test_a_plain_malicious_pickle_is_refused(tmp_path):
    (tmp_path / "m.bin").write_bytes(pickle.dumps(Evil(tmp_path / "owned")))
    refused(tmp_path / "m.bin")
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_whole_modules_and_settings_are_refused_by_name(tmp_path, zipped):
    torch.save(nn.Linear(2, 2), tmp_path / "m.pt", _use_new_zipfile_serialization=zipped)
    refused(tmp_path / "m.pt", "torch.nn.modules.linear.Linear")
    torch.save({"args": argparse.Namespace(lr=1)}, tmp_path / "m.pt", _use_new_zipfile_serialization=zipped)
    refused(tmp_path / "m.pt", "argparse.Namespace")


def test_no_setting_of_the_environment_opens_pickles(tmp_path, monkeypatch):
    torch.save(nn.Linear(2, 2), tmp_path / "m.pt")
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    refused(tmp_path / "m.pt", "torch.nn.modules.linear.Linear")


@pytest.mark.filterwarnings("ignore")
def test_torchscript_is_refused(tmp_path):
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), str(tmp_path / "m.pt"))
    refused(tmp_path / "m.pt", "TorchScript")


def rezipped(source, target, compression=zipfile.ZIP_STORED, extra=()):
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compression) as new:
        for member in old.infolist():
            new.writestr(member.filename, old.read(member))
        for name, data in extra:
            new.writestr(name, data)


def test_compressed_members_are_refused(tmp_path):
    torch.save({"a": torch.zeros(2**20)}, tmp_path / "m.pt")
    rezipped(tmp_path / "m.pt", tmp_path / "bomb.pt", zipfile.ZIP_DEFLATED)
    assert (tmp_path / "bomb.pt").stat().st_size < 20_000
    refused(tmp_path / "bomb.pt", "compressed")
    check_zip(tmp_path / "bomb.pt", deflated=True, max_bytes=2**23)
    with pytest.raises(OpenError, match="claims to unpack"):
        check_zip(tmp_path / "bomb.pt", deflated=True, max_bytes=2**22)


def test_an_archive_that_claims_more_than_it_holds(tmp_path):
    torch.save({"a": torch.zeros(100)}, tmp_path / "m.pt")
    content = bytearray((tmp_path / "m.pt").read_bytes())
    entry = content.find(b"PK\x01\x02")
    struct.pack_into("<I", content, entry + 24, 2**31)  # its unpacked size
    (tmp_path / "m.pt").write_bytes(content)
    refused(tmp_path / "m.pt", "claims to unpack")


def test_an_archive_of_very_many_members(tmp_path, monkeypatch):
    monkeypatch.setattr("stratoscope.network.zipcheck.MAX_MEMBERS", 10)
    torch.save({"a": torch.zeros(2)}, tmp_path / "m.pt")
    rezipped(tmp_path / "m.pt", tmp_path / "many.pt", extra=[(f"x/{i}", b"") for i in range(11)])
    refused(tmp_path / "many.pt", "members")


def test_an_archive_with_a_directory_too_large_to_read(tmp_path):
    torch.save({"a": torch.zeros(2)}, tmp_path / "m.pt")
    content = bytearray((tmp_path / "m.pt").read_bytes())
    end, wide = content.rfind(b"PK\x05\x06"), content.rfind(b"PK\x06\x06")
    struct.pack_into("<I", content, end + 12, 2**31)
    if wide >= 0:
        struct.pack_into("<Q", content, wide + 40, 2**31)
    (tmp_path / "m.pt").write_bytes(content)
    refused(tmp_path / "m.pt", "directory")


def test_an_archive_whose_directory_lies_elsewhere(tmp_path):
    torch.save({"a": torch.zeros(2)}, tmp_path / "m.pt")
    content = bytearray((tmp_path / "m.pt").read_bytes())
    at = content.rfind(b"PK\x06\x07")
    if at < 0:
        pytest.skip("this torch writes no 64-bit end record")
    struct.pack_into("<Q", content, at + 8, 2**64 - 1)
    (tmp_path / "m.pt").write_bytes(content)
    refused(tmp_path / "m.pt", "damaged zip")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_archive_with_a_name_twice(tmp_path):
    torch.save({"a": torch.zeros(2)}, tmp_path / "m.pt")
    rezipped(tmp_path / "m.pt", tmp_path / "twice.pt", extra=[("m/data.pkl", b"other")])
    refused(tmp_path / "twice.pt", "same name")


@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_a_damaged_torch_file_is_refused_or_still_gives_tensors(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("damaged") / "m.pt"
    torch.save({"a": torch.arange(40.0), "b": torch.zeros(3, 2)}, path)
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(1, len(content) - 1))]
    else:
        for _ in range(data.draw(st.integers(1, 4))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    with suppress(OpenError):  # no other error, and no crash
        source = open_weights(path)
        for name, info in source.describe().items():
            assert info.reason or tuple(source.load(name).shape) == info.shape


# snapshots and digests

DTYPES = st.sampled_from(
    [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool, torch.complex64]
)


@st.composite
def state_dicts(draw):
    names = draw(st.lists(st.text("abc.01_/é", min_size=1, max_size=8), unique=True, max_size=5))
    state = {}
    for name in names:
        shape = draw(st.lists(st.integers(0, 4), max_size=3))
        generator = torch.Generator().manual_seed(draw(st.integers(0, 9)))
        tensor = (torch.randn(tuple(shape), generator=generator) * 3).to(draw(DTYPES))
        if draw(st.booleans()):
            tensor = tensor.transpose(0, -1) if tensor.ndim else tensor
        state[name] = draw(st.sampled_from([*state.values(), tensor, tensor[..., ::2] if tensor.ndim else tensor]))
    return state


@settings(deadline=None, max_examples=25)
@given(state=state_dicts())
def test_any_state_dict_comes_back_from_both_kinds_of_file(tmp_path_factory, state):
    folder = tmp_path_factory.mktemp("state")
    assert save_snapshot(state, folder / "m.safetensors") == {}
    same(open_snapshot(folder / "m.safetensors"), state)
    assert digest(open_weights(folder / "m.safetensors")) == digest(state)
    if state:
        torch.save(state, folder / "m.pt")
        same(open_weights(folder / "m.pt"), state)
        assert digest(open_weights(folder / "m.pt")) == digest(state)


def test_a_snapshot_of_a_module(tmp_path):
    module = nn.ModuleDict(
        {"embed": nn.Embedding(5, 4), "norm": nn.BatchNorm1d(4), "out": weight_norm(nn.Linear(4, 5))}
    )
    module["head"] = nn.Linear(4, 5, bias=False, dtype=torch.bfloat16)
    module["tied"] = nn.Linear(4, 5, bias=False)
    module["tied"].weight = module["embed"].weight
    module.register_buffer("table", torch.randn(4, 6).T[::2])
    module.register_buffer("cache", torch.zeros(3), persistent=False)
    assert save_snapshot(module, tmp_path / "step0" / "weights.safetensors") == {}
    source = open_snapshot(tmp_path / "step0" / "weights.safetensors")
    same(source, module.state_dict())
    assert source.describe()["tied.weight"].same_as == "embed.weight"
    assert len(load_file(tmp_path / "step0" / "weights.safetensors")) == len(module.state_dict()) - 1
    assert digest(source) == digest(module) == digest(module.state_dict())
    assert os.listdir(tmp_path / "step0") == ["weights.safetensors"]


def test_a_snapshot_does_not_follow_the_training(tmp_path):
    module = nn.Linear(3, 2)
    before = module.weight.detach().clone()
    save_snapshot(module, tmp_path / "m.safetensors")
    with torch.no_grad():
        module.weight.add_(1)
    assert torch.equal(open_snapshot(tmp_path / "m.safetensors").load("weight"), before)
    save_snapshot(module, tmp_path / "m.safetensors")
    assert torch.equal(open_snapshot(tmp_path / "m.safetensors").load("weight"), before + 1)


def test_what_a_snapshot_cannot_hold_is_named(tmp_path):
    left = save_snapshot(
        nn.Sequential(nn.LazyLinear(3), nn.Linear(2, 2), nn.Linear(2, 2, device="meta")), tmp_path / "m"
    )
    assert set(left) == {"0.weight", "0.bias", "2.weight", "2.bias"}
    assert set(open_snapshot(tmp_path / "m").describe()) == {"1.weight", "1.bias"}
    assert "complex128" in save_snapshot({"a": torch.zeros(2, dtype=torch.complex128)}, tmp_path / "m")["a"]


def test_a_snapshot_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    save_snapshot({"a": torch.ones(2)}, tmp_path / "m.safetensors")

    def full(*_, **__):
        (tmp_path / "half").write_text("x")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("stratoscope.network.snapshot.save_file", full)
    with pytest.raises(OpenError, match="No space left"):
        save_snapshot({"a": torch.zeros(2)}, tmp_path / "m.safetensors")
    assert torch.equal(open_snapshot(tmp_path / "m.safetensors").load("a"), torch.ones(2))
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".tmp")]
    with pytest.raises(OpenError, match="no snapshot"):
        open_snapshot(tmp_path / "absent")


def test_every_bit_name_type_and_shape_counts_in_a_digest():
    first = {"a": torch.tensor([0.0, 1.0]), "b": torch.zeros(2, 3)}
    others = [
        first | {"a": torch.tensor([-0.0, 1.0])},
        first | {"a": torch.tensor([0.0, 1.0], dtype=torch.float64)},
        first | {"b": torch.zeros(3, 2)},
        {"a": first["a"], "c": first["b"]},
        {"a": first["a"]},
    ]
    assert len({digest(state) for state in (first, *others)}) == 6
    assert digest(first) == digest(dict(reversed(first.items())))
    assert digest(first) == digest({"a": first["a"], "b": torch.zeros(3, 2).T.contiguous()})
    nan = struct.unpack("<f", struct.pack("<I", 0x7FC00001))[0]
    assert digest({"a": torch.tensor([nan])}) == digest({"a": torch.tensor([nan])})


def test_a_state_dict_in_memory_is_a_source():
    module = net()
    source = StateDict(module.state_dict() | {"_extra_state": {"x": 1}})
    same(source, module.state_dict())
    assert digest(source) == digest(module)


def test_real_files(data_folder):
    for path in sorted(data_folder.glob("*/*.safetensors")):
        source = open_weights(path)
        assert isinstance(source, SafetensorsFile)
        same(source, load_file(path))
    assert len(open_weights(data_folder / "llama_stories260k").describe()) == 47
    refused(data_folder / "cifar10_resnet_a", "several checkpoints", "resnet20.safetensors")
