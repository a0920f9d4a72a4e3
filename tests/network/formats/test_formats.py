"""Formats are found by walking, by ending or first bytes; what is known and not opened says what to do."""

import shutil

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from safetensors.torch import save_file

from stratoscope.network import formats
from stratoscope.network.formats import _raw
from stratoscope.network.opening import endings, open_weights


def test_every_file_of_the_folder_is_a_format():
    found = {one.name: one for one in formats._formats()}
    assert {"ONNX", "GGUF", "Keras", "NumPy archive", "torch.export archive", "distributed checkpoint"} <= set(found)
    all_endings = [ending for one in found.values() for ending in one.endings]
    assert len(all_endings) == len(set(all_endings))
    assert all(ending == ending.lower() and ending.startswith(".") for ending in all_endings)
    assert set(all_endings) < set(endings())
    assert all(one.endings or one.is_folder for one in found.values())


def test_a_new_format_is_one_new_file(tmp_path, monkeypatch, same):
    """A module put into the folder is found; nothing else is edited."""
    folder = tmp_path / "more"
    folder.mkdir()
    (folder / "ones.py").write_text(
        "import torch\n"
        "from stratoscope.network.formats import Format\n"
        "from stratoscope.network.weights import StateDict\n"
        "FORMAT = Format('ones', ('.ones',), lambda path: StateDict({'w': torch.ones(int(path.read_text()))}))\n"
    )
    monkeypatch.setattr(formats, "__path__", [*formats.__path__, str(folder)])
    formats._formats.cache_clear()
    try:
        (tmp_path / "m.ones").write_text("3")
        same(open_weights(tmp_path / "m.ones"), {"w": torch.ones(3)})
    finally:
        monkeypatch.undo()
        formats._formats.cache_clear()


def onnx_file(path):
    tensor = numpy_helper.from_array(np.ones((2, 3), np.float32), "w")
    onnx.save(helper.make_model(helper.make_graph([], "g", [], [], initializer=[tensor])), path)
    return path


def test_a_folder_with_one_file_of_weights(tmp_path, same, refused):
    onnx_file(tmp_path / "m.onnx")
    (tmp_path / "README.md").write_text("x")
    same(open_weights(tmp_path), {"w": torch.ones(2, 3)})
    shutil.copy(tmp_path / "m.onnx", tmp_path / "n.onnx")
    refused(tmp_path, "several files of weights", "m.onnx, n.onnx")
    save_file({"a": torch.zeros(2)}, tmp_path / "model.safetensors")
    same(open_weights(tmp_path), {"a": torch.zeros(2)})


def test_endings_in_capitals(tmp_path, same):
    same(open_weights(onnx_file(tmp_path / "M.ONNX")), {"w": torch.ones(2, 3)})


def test_a_key_names_nothing_in_these(tmp_path):
    with pytest.raises(Exception, match="of the format ONNX, which has no parts"):
        open_weights(onnx_file(tmp_path / "m.onnx"), key="model")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("m.pb", "TensorFlow"),
        ("m.tflite", "TensorFlow Lite"),
        ("m.msgpack", "Flax"),
        ("m.pkl", "runs code"),
        ("m.joblib", "runs code"),
        ("m.ptl", "TorchScript"),
        ("m.pte", "ExecuTorch"),
        ("m.engine", "TensorRT"),
        ("m.npy", "numpy.savez"),
        ("m.ckpt.index", "TensorFlow checkpoint"),
    ],
)
def test_foreign_files_say_what_to_do(tmp_path, refused, name, words):
    (tmp_path / name).write_bytes(b"x" * 100)
    refused(tmp_path / name, words, "not opened here")


@pytest.mark.parametrize(
    ("name", "words"),
    [("saved_model.pb", "SavedModel"), ("_CHECKPOINT_METADATA", "Orbax"), ("checkpoint", "TensorFlow checkpoints")],
)
def test_foreign_folders_say_what_to_do(tmp_path, refused, name, words):
    (tmp_path / name).write_bytes(b"x")
    refused(tmp_path, words, "not opened here")


@pytest.mark.parametrize("name", ["m.onnx", "m.gguf", "m.keras", "m.h5", "m.npz", "m.pt2"])
def test_empty_files_pointers_and_web_pages(tmp_path, refused, name):
    for content, words in (
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\n", "LFS"),
        (b"<!DOCTYPE html>", "web page"),
    ):
        (tmp_path / name).write_bytes(content)
        refused(tmp_path / name, words)


def test_sizes_that_are_none():
    assert _raw.stored_sizes([2, 0, 3]) == (2, 0, 3)
    for claimed in (None, "23", [1.5], [True], [-1], [2**63], [2**40, 2**40], [1] * 65, [0, 2**62]):
        assert _raw.stored_sizes(claimed) is None, claimed


def test_a_scratch_file_goes_with_its_owner():
    owner = _raw.ScratchOwner()
    path = _raw.scratch_file(owner, "x")
    path.write_text("y")
    del owner
    assert not path.exists()
    assert not path.parent.exists()
