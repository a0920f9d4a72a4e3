"""Files of Keras: named as Keras names them, kernels turned right, and the HDF5 library kept at arm's length."""

import json
import pickle
import zipfile

import h5py
import numpy as np
import pytest
import torch

from stratoscope.errors import OpenError, StratoscopeError
from stratoscope.network.formats import _hdf5
from stratoscope.network.formats._keras_layers import layer_class, layers_in, leaves
from stratoscope.network.naming import catalogue_of_weights
from stratoscope.network.opening import open_weights

LAYERS = {  # what Keras calls the group, the layer's own name, its class, settings, and its weights
    "conv2d": ("first", "Conv2D", {"groups": 1}, {"kernel": (3, 3, 2, 6), "bias": (6,)}),
    "batch_normalization": (
        "norm",
        "BatchNormalization",
        {"scale": True, "center": True},
        {"gamma": (6,), "beta": (6,), "moving_mean": (6,), "moving_variance": (6,)},
    ),
    "depthwise_conv2d": ("deep", "DepthwiseConv2D", {}, {"depthwise_kernel": (3, 3, 6, 2), "bias": (12,)}),
    "conv2d_transpose": ("up", "Conv2DTranspose", {}, {"kernel": (3, 3, 5, 12), "bias": (5,)}),
    "conv1d_transpose": ("up1", "Conv1DTranspose", {}, {"kernel": (3, 4, 5), "bias": (4,)}),
    "conv1d": ("along", "Conv1D", {"groups": 2}, {"kernel": (3, 2, 8), "bias": (8,)}),
    "lstm": ("memory", "LSTM", {}, {"kernel": (5, 12), "recurrent_kernel": (3, 12), "bias": (12,)}),
    "gru": ("gated", "GRU", {}, {"kernel": (5, 9), "recurrent_kernel": (3, 9), "bias": (2, 9)}),
    "embedding": ("table", "Embedding", {}, {"embeddings": (10, 4)}),
    "einsum_dense": ("mix", "EinsumDense", {"equation": "abc,cde->abde"}, {"kernel": (4, 2, 3), "bias": (2, 3)}),
    "dense": ("head", "Dense", {}, {"kernel": (5, 3), "bias": (3,)}),
}
CELLS = {"lstm": "lstm_cell", "gru": "gru_cell"}


def arrays():
    generator = np.random.default_rng(0)
    return {
        (group, leaf): generator.normal(size=shape).astype(np.float32)
        for group, (_, _, _, weights) in LAYERS.items()
        for leaf, shape in weights.items()
    }


def config():
    return {
        "class_name": "Functional",
        "config": {
            "name": "model",
            "layers": [
                {"class_name": kind, "config": {"name": name, **settings}, "name": name}
                for name, kind, settings, _ in LAYERS.values()
            ],
        },
    }


def named():
    """What each weight is called here."""
    names = {}
    for (group, leaf), value in arrays().items():
        cell = f".{CELLS[group]}" if group in CELLS else ""
        names[f"{LAYERS[group][0]}{cell}.{leaf}"] = torch.from_numpy(value)
    return names


def write_current(path, names=True):
    """As Keras 3 writes weights."""
    with h5py.File(path, "w") as file:
        for group, (name, _, _, weights) in LAYERS.items():
            cell = "/cell" if group in CELLS else ""
            place = file.create_group(f"layers/{group}{cell}/vars")
            if names:
                place.attrs["name"] = CELLS.get(group, name)
                if cell:
                    file.create_group(f"layers/{group}/vars").attrs["name"] = name
            for at, leaf in enumerate(weights):
                place[str(at)] = arrays()[group, leaf]
        file.create_group("layers/dropout/seed_generator/vars")["0"] = np.zeros(2, np.uint32)
        file.create_group("optimizer/vars")["0"] = np.float32(1)
    return path


def write_legacy(path, suffix=":0", base="model_weights/"):
    """As Keras 2 writes models."""
    with h5py.File(path, "w") as file:
        root = file.require_group(base) if base else file
        root.attrs["layer_names"] = np.array([name.encode() for name, *_ in LAYERS.values()])
        if base:
            file.attrs["model_config"] = json.dumps(config())
            file["optimizer_weights/adam/m"] = np.zeros(3)
        for group, (name, _, _, weights) in LAYERS.items():
            inner = f"{name}/{CELLS[group]}" if group in CELLS else name
            place = root.create_group(name)
            place.attrs["weight_names"] = np.array([f"{inner}/{leaf}{suffix}".encode() for leaf in weights])
            for leaf in weights:
                place[f"{inner}/{leaf}{suffix}"] = arrays()[group, leaf]
    return path


def write_keras(path, compression=zipfile.ZIP_STORED):
    write_current(path.with_suffix(".part"))
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("metadata.json", "{}")
        archive.writestr("config.json", json.dumps(config()))
        archive.write(path.with_suffix(".part"), "model.weights.h5")
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keras")
    return {
        "keras": write_keras(folder / "m.keras"),
        "deflated": write_keras(folder / "d.keras", zipfile.ZIP_DEFLATED),
        "weights": write_current(folder / "m.weights.h5"),
        "legacy": write_legacy(folder / "m.h5"),
        "legacy weights": write_legacy(folder / "w.h5", base=""),
    }


@pytest.mark.parametrize("kind", ["keras", "deflated", "weights", "legacy", "legacy weights"])
def test_every_layout_gives_the_same_names_and_numbers(files, kind, same):
    source = open_weights(files[kind])
    same(source, named())
    if kind != "weights":  # which have no config that tells the order
        assert list(source.describe()) == list(named())
    if kind != "legacy weights":
        assert "left out: optimizer" in source.about
    same(pickle.loads(pickle.dumps(source)), named())


MATRICES = {  # by name: kind, shape, and a formula for the matrix from the stored array
    "first.kernel": ("conv", (6, 18), lambda w: w.movedim(3, 0).reshape(6, -1)),
    "deep.depthwise_kernel": ("conv", (12, 9), lambda w: w.permute(2, 3, 0, 1).reshape(12, 9)),
    "up.kernel": ("conv", (5, 108), lambda w: w.permute(2, 3, 0, 1).reshape(5, -1)),
    "up1.kernel": ("conv", (4, 15), lambda w: w.permute(1, 2, 0).reshape(4, -1)),
    "along.kernel": ("conv", (8, 6), lambda w: w.permute(2, 1, 0).reshape(8, -1)),
    "memory.lstm_cell.kernel:forget": ("recurrent", (3, 5), lambda w: w[:, 3:6].T),
    "memory.lstm_cell.recurrent_kernel:output": ("recurrent", (3, 3), lambda w: w[:, 9:].T),
    "gated.gru_cell.kernel:reset": ("recurrent", (3, 5), lambda w: w[:, 3:6].T),
    "table.embeddings": ("embedding", (10, 4), lambda w: w),
    "mix.kernel": ("linear", (6, 4), lambda w: w.reshape(4, 6).T),
    "head.kernel": ("linear", (3, 5), lambda w: w.T),
}


@pytest.mark.parametrize("kind", ["keras", "legacy"])
def test_matrices_have_a_row_for_each_output(files, kind):
    source = open_weights(files[kind])
    catalogue = catalogue_of_weights(source)
    for name, (what, shape, formula) in MATRICES.items():
        found = catalogue.matrices[name]
        stored = source.load(found.params[0])
        value = found.view(stored)
        assert (found.kind, found.shape, tuple(value.shape)) == (what, shape, shape), name
        wanted = formula(stored)
        assert torch.equal(value.sort(dim=1).values, wanted.sort(dim=1).values), name  # rows, in some order of columns
    assert (catalogue.matrices["deep.depthwise_kernel"].groups, catalogue.matrices["along.kernel"].groups) == (6, 2)
    roles = {name: param.role for name, param in catalogue.params.items()}
    assert roles["norm.moving_mean"] == roles["norm.moving_variance"] == "statistic"
    assert roles["gated.gru_cell.bias"] == roles["mix.bias"] == roles["head.bias"] == "bias"
    assert catalogue["norm"].kind == "norm"


def test_without_names_the_groups_of_keras_stand(tmp_path, same):
    source = open_weights(write_current(tmp_path / "m.weights.h5", names=False))
    assert {"conv2d.kernel", "lstm.cell.recurrent_kernel", "batch_normalization.moving_variance"} <= set(
        source.describe()
    )


def test_names_of_layers_that_occur_twice_give_way(tmp_path):
    with h5py.File(tmp_path / "m.h5", "w") as file:
        for at, group in enumerate(("dense", "dense_1")):
            place = file.create_group(f"layers/{group}/vars")
            place.attrs["name"] = "same"
            place["0"] = np.full((2, 3), float(at))
    source = open_weights(tmp_path / "m.h5")
    assert {name: source.load(name)[0, 0].item() for name in source.describe()} == {
        "dense.kernel": 0.0,
        "dense_1.kernel": 1.0,
    }


def test_nested_models_and_attention(tmp_path):
    with h5py.File(tmp_path / "m.h5", "w") as file:
        for path, *shapes in (
            ("layers/sequential/layers/dense", (3, 4), (4,)),
            ("layers/multi_head_attention/query_dense", (6, 2, 5), (2, 5)),
            ("layers/multi_head_attention/output_dense", (2, 5, 6), (6,)),
        ):
            for at, shape in enumerate(shapes):
                file[f"{path}/vars/{at}"] = np.random.default_rng(0).normal(size=shape)
    catalogue = catalogue_of_weights(open_weights(tmp_path / "m.h5"))
    shapes = {name: matrix.shape for name, matrix in catalogue.matrices.items()}
    assert shapes == {
        "sequential.dense.kernel": (4, 3),
        "multi_head_attention.query_dense.kernel": (10, 6),
        "multi_head_attention.output_dense.kernel": (6, 10),
    }
    assert catalogue.params["multi_head_attention.query_dense.bias"].role == "bias"


def test_without_a_config_the_order_is_that_of_the_file(tmp_path):
    with h5py.File(tmp_path / "m.weights.h5", "w") as file:
        for group in ("dense_9", "conv2d", "dense", "attention"):
            file[f"layers/{group}/vars/0"] = np.zeros((40, 40))
            file[f"layers/{group}/vars/1"] = np.zeros(40)
    names = [name for name in open_weights(tmp_path / "m.weights.h5").describe() if name.endswith("kernel")]
    assert names == ["dense_9.kernel", "conv2d.kernel", "dense.kernel", "attention.kernel"]


def test_shared_layers_are_tied(tmp_path):
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file["layers/dense/vars/0"] = np.ones((2, 3))
        file["layers/dense_1/vars/0"] = file["layers/dense/vars/0"]
    infos = open_weights(tmp_path / "m.h5").describe()
    assert infos["dense_1.kernel"].same_as == "dense.kernel"


def test_any_other_hdf5_file_by_path(tmp_path, same):
    with h5py.File(tmp_path / "m.hdf5", "w") as file:
        file["a/b/weight"] = np.ones((2, 3))
    same(open_weights(tmp_path / "m.hdf5"), {"a/b/weight": torch.ones(2, 3, dtype=torch.float64)})


def test_types_of_numbers_and_ways_to_store_them(tmp_path):
    values = np.arange(12.0).reshape(3, 4)
    bits = torch.arange(12.0).reshape(3, 4).bfloat16()
    with h5py.File(tmp_path / "m.h5", "w") as file:
        for kind in ("f2", "f4", "f8", "i1", "i4", "i8", "u1", ">f4", ">i8"):
            file[f"plain {kind}"] = values.astype(kind)
            if kind in ("f4", ">f4", "i8"):
                file.create_dataset(f"packed {kind}", data=values.astype(kind), chunks=(2, 2), compression="gzip")
        file["bool"] = values > 3
        file["bf16"] = bits.view(torch.uint8).numpy().view("V2")
        file["bf16"].attrs["dtype"] = "bfloat16"
        file["scalar"] = np.float32(3)
        file["empty"] = np.zeros((0, 3))
        file.create_dataset("not written", (2, 2), dtype="f4")
        file.create_dataset("compact", data=values)
        file["text"] = "hello"
        file["pair"] = np.zeros(3, [("a", "f4"), ("b", "i4")])
    source = open_weights(tmp_path / "m.h5")
    infos = source.describe()
    for name, info in infos.items():
        if name.startswith(("plain", "packed", "compact")):
            assert torch.equal(source.load(name).double(), torch.from_numpy(values)), name
            assert info.dtype is not None
    assert torch.equal(source.load("bf16"), bits)
    assert torch.equal(source.load("bool"), torch.from_numpy(values > 3))
    assert (source.load("scalar").item(), source.load("empty").shape) == (3.0, (0, 3))
    assert torch.equal(source.load("not written"), torch.zeros(2, 2))
    for name in ("text", "pair"):
        assert "no numbers" in infos[name].reason
        with pytest.raises(OpenError):
            source.load(name)


def test_names_of_classes():
    names = {"Conv2D": "conv2d", "BatchNormalization": "batch_normalization", "SimpleRNN": "simple_rnn", "PReLU": "p_re_lu",
             "GRU": "gru", "SeparableConv1D": "separable_conv1d", "pkg>MyDense": "my_dense"}  # fmt: skip
    assert {name: layer_class(name) for name in names} == names


def test_norms_without_all_their_weights():
    norm = "batch_normalization"
    assert leaves(norm, {"center": False, "scale": False}, [(3,)] * 2) == ["moving_mean", "moving_variance"]
    assert leaves(norm, {}, [(3,)] * 3) == ["scale_or_shift", "moving_mean", "moving_variance"]
    assert leaves(norm, {}, [(3,)] * 5) == ["moving_mean", "moving_variance", "var2", "var3", "var4"]
    assert leaves("layer_normalization", {"scale": False}, [(3,)]) == ["beta"]
    assert leaves("my_layer", {}, [(4, 5), (4,), (3,)]) == ["var0", "var1", "var2"]


def test_a_config_that_is_none():
    assert layers_in([{"class_name": 3, "config": {}}, {"class_name": "A", "config": {"name": 4}}, "x", None]) == {}


# hostile and damaged files


def test_links_are_not_followed(tmp_path):
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["x"] = np.ones((2, 2))
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file["w"] = np.ones((2, 2))
        file["out"] = h5py.ExternalLink("secret.h5", "/x")
        file["soft"] = h5py.SoftLink("/w")
        file["round/again"] = file["/"]
        layout = h5py.VirtualLayout((2, 2), "f8")
        layout[:] = h5py.VirtualSource(str(tmp_path / "secret.h5"), "x", (2, 2))
        file.create_virtual_dataset("virtual", layout)
        file.create_dataset("external", (2, 2), "f4", external=[(str(tmp_path / "secret.h5"), 0, 16)])
    source = open_weights(tmp_path / "m.h5")
    infos = source.describe()
    assert set(infos) == {"w", "virtual", "external"}
    assert "2 links, which are not followed" in source.about
    for name in ("virtual", "external"):
        assert "other files" in infos[name].reason
        with pytest.raises(OpenError):
            source.load(name)


def test_bombs_are_rows_with_a_reason(tmp_path, refused, monkeypatch):
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file.create_dataset("w", (2**20, 2**14), "f4", chunks=(1024, 1024), compression="gzip")
        file["x"] = np.ones(3)
    source = open_weights(tmp_path / "m.h5")
    assert "claims" in source.describe()["w"].reason
    with pytest.raises(OpenError, match="claims"):
        source.load("w")
    with zipfile.ZipFile(tmp_path / "m.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.weights.h5", b"\0" * 2**24)
    monkeypatch.setattr("stratoscope.network.zipcheck.FREE_BYTES", 2**20)
    monkeypatch.setattr("stratoscope.network.formats.keras.FREE_BYTES", 2**20)
    refused(tmp_path / "m.keras", "claims to unpack")


def test_what_is_no_file_of_keras(tmp_path, refused):
    (tmp_path / "a.h5").write_bytes(b"x" * 1000)
    refused(tmp_path / "a.h5", "neither an HDF5 file")
    (tmp_path / "b.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + b"x" * 1000)
    refused(tmp_path / "b.h5", "not a complete HDF5 file")
    with zipfile.ZipFile(tmp_path / "c.keras", "w") as archive:
        archive.writestr("config.json", "{}")
    refused(tmp_path / "c.keras", "model.weights.h5")
    with h5py.File(tmp_path / "d.h5", "w") as file:
        file.create_group("layers")
    refused(tmp_path / "d.h5", "no weights")


def test_a_config_that_is_damaged(tmp_path, files, refused):
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as archive:
        archive.write(files["weights"], "model.weights.h5")
        archive.writestr("config.json", "{")
    refused(tmp_path / "m.keras", "config.json", "no JSON")


def test_a_library_that_takes_for_ever_is_stopped(files, refused, monkeypatch):
    monkeypatch.setattr(_hdf5, "MAX_SECONDS", 0.01)
    refused(files["weights"], "took more than")


def test_a_library_that_crashes(tmp_path, refused, monkeypatch):
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file["w"] = np.ones((2, 2))
    child = tmp_path / "child.py"
    child.write_text("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    monkeypatch.setattr(_hdf5, "_CHILD", child)
    refused(tmp_path / "m.h5", "crashed")


def test_without_h5py_one_sentence_says_what_to_install(files, refused, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    message = refused(files["weights"], error=StratoscopeError)
    assert message == "This needs h5py. Install it with: pip install 'stratoscope[keras]'"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_a_damaged_file_is_refused_or_still_gives_tensors(files, tmp_path, seed, reads_or_refuses, monkeypatch):
    monkeypatch.setattr(_hdf5, "MAX_SECONDS", 5.0)
    generator = np.random.default_rng(seed)
    content = bytearray(files["weights" if seed % 2 else "keras"].read_bytes())
    if seed % 5 == 0:
        content = content[: generator.integers(1, len(content))]
    for at in generator.integers(0, min(len(content), 4096 if seed % 3 else len(content)), generator.integers(1, 20)):
        content[at] = generator.integers(0, 256)
    path = tmp_path / ("m.weights.h5" if seed % 2 else "m.keras")
    path.write_bytes(content)
    reads_or_refuses(path, seconds=60.0)
