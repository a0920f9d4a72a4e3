"""ONNX files: the numbers of the graph wherever they lie, read without any library, and how the graph uses them."""

import os
import pickle
import warnings

import numpy as np
import onnx
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import convert_model_to_external_data, set_external_data
from torch import nn

from stratoscope.errors import OpenError
from stratoscope.network.formats._protobuf import unpacked
from stratoscope.network.naming import catalogue_of_weights
from stratoscope.network.opening import open_weights

DTYPES = {
    TensorProto.FLOAT: torch.float32,
    TensorProto.UINT8: torch.uint8,
    TensorProto.INT8: torch.int8,
    TensorProto.UINT16: torch.uint16,
    TensorProto.INT16: torch.int16,
    TensorProto.INT32: torch.int32,
    TensorProto.INT64: torch.int64,
    TensorProto.BOOL: torch.bool,
    TensorProto.FLOAT16: torch.float16,
    TensorProto.DOUBLE: torch.float64,
    TensorProto.UINT32: torch.uint32,
    TensorProto.UINT64: torch.uint64,
    TensorProto.COMPLEX64: torch.complex64,
    TensorProto.COMPLEX128: torch.complex128,
    TensorProto.BFLOAT16: torch.bfloat16,
    TensorProto.FLOAT8E4M3FN: torch.float8_e4m3fn,
    TensorProto.FLOAT8E5M2: torch.float8_e5m2,
}


def save(path, tensors, nodes=(), producer="a test"):
    """A model with these initialisers and nodes."""
    graph = helper.make_graph(list(nodes), "g", [], [], initializer=list(tensors))
    onnx.save(helper.make_model(graph, producer_name=producer), path)
    return path


def weight(name, *shape, seed=0):
    values = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return numpy_helper.from_array(values, name)


def as_torch(tensor):
    return torch.from_numpy(np.array(numpy_helper.to_array(tensor)))


def matrix(path, name):
    """The matrix that the catalogue makes of a weight."""
    source = open_weights(path)
    found = catalogue_of_weights(source).matrices[name]
    return found, found.view(*(source.load(param) for param in found.params))


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("kind", DTYPES)
def test_every_type_of_number_raw_and_typed(tmp_path, kind, raw):
    dtype = DTYPES[kind]
    # of all bits, the first and the last, so that signs and long integers are among them
    values = torch.arange(256, dtype=torch.uint8).repeat(16).view(dtype if dtype is not torch.bool else torch.uint8)
    values = (values != 0) if dtype is torch.bool else values
    values = (
        torch.where(values.isnan(), torch.zeros((), dtype=dtype), values)
        if dtype in (torch.float32, torch.float64)
        else values
    )
    values = values[: 2 * (values.numel() // 2)].reshape(2, -1)
    octets = values.view(torch.uint8).numpy().tobytes()
    if raw:
        tensor = helper.make_tensor("w", kind, values.shape, octets, raw=True)
    else:
        tensor = TensorProto(name="w", data_type=kind, dims=values.shape)
        if kind in (TensorProto.FLOAT, TensorProto.COMPLEX64):
            tensor.float_data.extend(np.frombuffer(octets, "<f4").tolist())
        elif kind in (TensorProto.DOUBLE, TensorProto.COMPLEX128):
            tensor.double_data.extend(np.frombuffer(octets, "<f8").tolist())
        elif kind == TensorProto.INT64:
            tensor.int64_data.extend(np.frombuffer(octets, "<i8").tolist())
        elif kind in (TensorProto.UINT64, TensorProto.UINT32):
            tensor.uint64_data.extend(np.frombuffer(octets, f"<u{dtype.itemsize}").tolist())
        else:
            signed = "i" if dtype in (torch.int8, torch.int16, torch.int32) else "u"
            tensor.int32_data.extend(np.frombuffer(octets, f"<{signed}{dtype.itemsize}").tolist())
    source = open_weights(save(tmp_path / "m.onnx", [tensor]))
    info = source.describe()["w"]
    assert (info.dtype, info.shape, info.reason) == (dtype, tuple(values.shape), "")
    assert source.load("w").view(torch.uint8).numpy().tobytes() == octets


@pytest.mark.parametrize("kind", [TensorProto.INT4, TensorProto.UINT4, TensorProto.FLOAT4E2M1])
def test_packed_types_are_rows_with_a_reason(tmp_path, kind):
    tensor = helper.make_tensor("w", kind, (2, 2), [1, 0, 1, 1])
    source = open_weights(save(tmp_path / "m.onnx", [tensor, weight("x", 2, 2)]))
    assert "4-bit" in source.describe()["w"].reason
    with pytest.raises(OpenError, match="4-bit"):
        source.load("w")


def test_scalars_and_empty_tensors(tmp_path, same):
    given = [weight("logit_scale"), weight("none", 0, 3), weight("w", 2, 3)]
    source = open_weights(save(tmp_path / "m.onnx", given))
    same(source, {tensor.name: as_torch(tensor).reshape(tuple(tensor.dims)) for tensor in given})


@settings(deadline=None, max_examples=25)
@given(values=st.lists(st.integers(0, 2**64 - 1), max_size=40))
def test_integers_of_any_length_as_a_naive_reader_reads_them(values):
    data = bytearray()
    for value in values:
        rest = value
        while rest > 127:
            data.append(rest & 127 | 128)
            rest >>= 7
        data.append(rest)
    assert unpacked(data).tolist() == values
    if data:
        data[-1] |= 128
        with pytest.raises(OpenError, match="does not end"):
            unpacked(data)


# where the numbers lie


def external(folder, tensors, **how):
    model = helper.make_model(helper.make_graph([], "g", [], [], initializer=list(tensors)))
    convert_model_to_external_data(model, size_threshold=0, **how)
    onnx.save(model, folder / "m.onnx")
    return folder / "m.onnx"


@pytest.mark.parametrize("how", [{"location": "m.data"}, {"all_tensors_to_one_file": False}])
def test_numbers_in_other_files(tmp_path, how, same):
    given = [weight("a", 3, 4), weight("b", 5, 2, seed=1)]
    path = external(tmp_path, given, **how)
    same(open_weights(path), {tensor.name: as_torch(tensor) for tensor in given})
    same(pickle.loads(pickle.dumps(open_weights(path))), {tensor.name: as_torch(tensor) for tensor in given})


def elsewhere(folder, location, offset=None, length=None, data=True):
    tensor = weight("w", 3, 4)
    octets = tensor.raw_data
    set_external_data(tensor, location, offset, length)
    tensor.ClearField("raw_data")
    path = save(folder / "m.onnx", [tensor, weight("x", 2, 2)])
    if data:
        (folder / "m.data").write_bytes(b"\0" * 7 + octets)
    return path


def test_an_offset(tmp_path):
    source = open_weights(elsewhere(tmp_path, "m.data", 7, 48))
    assert torch.equal(source.load("w"), as_torch(weight("w", 3, 4)))


@pytest.mark.parametrize(
    ("location", "offset", "length", "reason"),
    [
        ("../m.data", 0, 48, "leads out"),
        ("/etc/passwd", 0, 48, "leads out"),
        ("a/../../m.data", 0, 48, "leads out"),
        ("C:\\\\m.data", 0, 48, "leads out"),
        ("", 0, 48, "no file name"),
        ("other.data", 0, 48, "not there"),
        ("m.data", 8, 48, "cut off"),
        ("m.data", -1, 48, "no place"),
        ("m.data", 2**70, 48, "no place"),
        ("m.data", 0, 40, "40 bytes"),
    ],
)
def test_places_that_are_refused(tmp_path, location, offset, length, reason):
    source = open_weights(elsewhere(tmp_path, location, offset, length))
    assert reason in source.describe()["w"].reason
    assert source.load("x").shape == (2, 2)
    with pytest.raises(OpenError):
        source.load("w")


def test_a_link_out_of_the_folder_is_refused_and_the_links_of_a_cache_are_not(tmp_path):
    model, secret = tmp_path / "model", tmp_path / "secret"
    model.mkdir()
    secret.mkdir()
    (secret / "key").write_bytes(b"\1" * 48)
    path = elsewhere(model, "m.data", 0, 48, data=False)
    (model / "m.data").symlink_to(secret / "key")
    assert "leads out" in open_weights(path).describe()["w"].reason
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    os.rename(path, secret / "blob")
    (snapshot / "m.onnx").symlink_to(secret / "blob")
    (snapshot / "m.data").symlink_to(secret / "key")
    assert open_weights(snapshot / "m.onnx").describe()["w"].reason == ""


# how the graph uses them


def test_dense_weights_of_either_orientation(tmp_path):
    tensors = [weight("a", 3, 5), weight("b", 5, 3), weight("c", 4, 4), weight("d", 4, 4), weight("e", 6, 2)]
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["1"]),
        helper.make_node("Gemm", ["1", "b"], ["2"], transB=0),
        helper.make_node("Gemm", ["2", "c"], ["3"], transB=1),
        helper.make_node("MatMul", ["d", "3"], ["4"]),
        helper.make_node("Transpose", ["e"], ["t"], perm=[1, 0]),
        helper.make_node("MatMul", ["4", "t"], ["5"]),
    ]
    path = save(tmp_path / "m.onnx", tensors, nodes)
    plain = {tensor.name: as_torch(tensor) for tensor in tensors}
    for name, wanted in {
        "a": plain["a"].T,
        "b": plain["b"].T,
        "c": plain["c"],
        "d": plain["d"],
        "e": plain["e"],
    }.items():
        found, value = matrix(path, name)
        assert torch.equal(value, wanted), name
        assert found.kind == "linear"


def test_a_weight_used_both_ways_is_not_told_to_be_either(tmp_path):
    nodes = [helper.make_node("MatMul", ["x", "w"], ["1"]), helper.make_node("MatMul", ["w", "1"], ["2"])]
    source = open_weights(save(tmp_path / "m.onnx", [weight("w", 4, 4)], nodes))
    assert source.describe()["w"].use.outputs == ()


def test_convolutions(tmp_path):
    tensors = [weight("c", 6, 2, 3, 3), weight("cb", 6), weight("t", 6, 2, 3)]
    nodes = [
        helper.make_node("Conv", ["x", "c", "cb"], ["1"], group=2),
        helper.make_node("ConvTranspose", ["1", "t"], ["2"], group=2),
    ]
    path = save(tmp_path / "m.onnx", tensors, nodes)
    found, value = matrix(path, "c")
    assert (found.kind, found.groups, found.kernel, value.shape) == ("conv", 2, (3, 3), (6, 18))
    found, value = matrix(path, "t")
    assert (found.kind, found.groups, value.shape) == ("conv", 2, (4, 9))
    assert catalogue_of_weights(open_weights(path)).params["cb"].role == "bias"


def test_recurrent_gates_in_the_order_of_the_format(tmp_path):
    tensors = [weight("W", 2, 12, 5), weight("R", 2, 12, 3), weight("B", 2, 24), weight("H", 2, 1, 3)]
    nodes = [helper.make_node("LSTM", ["x", "W", "R", "B", "", "H"], ["y"], hidden_size=3)]
    path = save(tmp_path / "m.onnx", tensors, nodes)
    catalogue = catalogue_of_weights(open_weights(path))
    assert [name for name in catalogue.matrices if name.startswith("W")] == [
        f"W:{way}_{gate}" for way in ("forward", "backward") for gate in ("input", "output", "forget", "cell")
    ]
    assert torch.equal(matrix(path, "W:backward_forget")[1], as_torch(tensors[0])[1, 6:9])
    assert (catalogue.params["B"].role, catalogue.params["H"].role) == ("bias", "other")


def test_tables_and_norms(tmp_path):
    tensors = [weight("e", 7, 4), *(weight(name, 4) for name in "gbmv")]
    nodes = [
        helper.make_node("Gather", ["e", "x"], ["1"]),
        helper.make_node("BatchNormalization", ["1", *"gbmv"], ["2"]),
    ]
    source = open_weights(save(tmp_path / "m.onnx", tensors, nodes))
    params = catalogue_of_weights(source).params
    assert [params[name].role for name in "egbmv"] == ["embedding", "gain", "bias", "statistic", "statistic"]
    assert "batch norm" not in source.about


def test_the_bodies_of_branches_and_loops(tmp_path, same):
    def body(name, tensors):
        value = helper.make_tensor_value_info("o", TensorProto.FLOAT, None)
        return helper.make_graph(
            [helper.make_node("MatMul", ["x", "w"], ["o"])], name, [], [value], initializer=tensors
        )

    inner, other = weight("w", 2, 3, seed=1), weight("w", 2, 3, seed=2)
    node = helper.make_node(
        "If", ["c"], ["y"], name="choice", then_branch=body("a", [inner]), else_branch=body("b", [other])
    )
    source = open_weights(save(tmp_path / "m.onnx", [weight("w", 4, 4)], [node]))
    tensors = [weight("w", 4, 4), inner, other]
    names = ["w", "choice/then_branch/w", "choice/else_branch/w"]
    same(source, {name: as_torch(tensor) for name, tensor in zip(names, tensors, strict=True)})
    assert source.describe()["choice/then_branch/w"].use.outputs == (1,)


def test_what_belongs_to_the_graph_is_left_out_and_said(tmp_path):
    shape = numpy_helper.from_array(np.array([1, -1]), "shape")
    constants = [
        helper.make_node("Constant", [], ["w"], value=weight("", 3, 4)),
        helper.make_node("Constant", [], ["axes"], value=shape),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    source = open_weights(save(tmp_path / "m.onnx", [shape, weight("fc.bias", 4)], constants))
    assert set(source.describe()) == {"w", "fc.bias"}
    assert "2 constants" in source.about
    assert "a test" in source.about
    assert "fold batch norm" in source.about


def test_sparse_initialisers_are_rows_with_a_reason(tmp_path):
    values = weight("s", 2)
    indices = numpy_helper.from_array(np.array([0, 5]), "")
    graph = helper.make_graph([], "g", [], [], sparse_initializer=[helper.make_sparse_tensor(values, indices, [3, 4])])
    onnx.save(helper.make_model(graph), tmp_path / "m.onnx")
    info = open_weights(tmp_path / "m.onnx").describe()["s"]
    assert (info.shape, "sparse" in info.reason) == ((3, 4), True)


# what torch exports


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.flat = nn.Linear(64, 8)
        self.plain = nn.Linear(8, 6, bias=False)
        self.block = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 5))
        self.lstm = nn.LSTM(5, 3, batch_first=True)
        self.table = nn.Embedding(7, 4)

    def forward(self, x, i):
        x = self.block(self.plain(self.flat(self.conv(x).flatten(1))[:, None]))
        return self.lstm(x)[0], self.table(i)


@pytest.mark.filterwarnings("ignore")
def test_no_name_is_given_twice(tmp_path):
    made_up = [weight(f"onnx::MatMul_{number}", 3, 3, seed=number) for number in range(4)]
    own = weight("own.weight", 3, 3, seed=9)
    scopes = ["/fc/MatMul", "/fc/MatMul_1", "/own/MatMul", "/head/MatMul"]
    nodes = [
        helper.make_node("MatMul", [str(at), tensor.name], [str(at + 1)], name=scope)
        for at, (tensor, scope) in enumerate(zip(made_up, scopes, strict=True))
    ]
    nodes.append(helper.make_node("MatMul", ["4", own.name], ["5"], name="/own/MatMul_1"))
    source = open_weights(save(tmp_path / "m.onnx", [*made_up, own], nodes))
    wanted = ["fc.weight", "onnx::MatMul_1", "onnx::MatMul_2", "head.weight", "own.weight"]
    assert list(source.describe()) == wanted
    for name, tensor in zip(wanted, [*made_up, own], strict=True):
        assert torch.equal(source.load(name), as_torch(tensor)), name


def test_the_older_exporter_of_torch(tmp_path):
    torch.manual_seed(0)
    net = Net().eval()
    inputs = (torch.randn(2, 1, 4, 4), torch.tensor([1, 2]))
    with warnings.catch_warnings():  # torch warns in several ways of this exporter and of what it traces
        warnings.simplefilter("ignore")
        torch.onnx.export(net, inputs, str(tmp_path / "m.onnx"), dynamo=False)
    source = open_weights(tmp_path / "m.onnx")
    infos = source.describe()
    turned = {"plain.weight", "block.0.weight", "block.2.weight"}  # stored as (in, out) under names made up
    for name, value in net.state_dict().items():
        if not name.startswith("lstm"):
            assert torch.equal(source.load(name), value.T if name in turned else value), name
            assert infos[name].use.outputs == ((1,) if name in turned else () if value.ndim < 2 else (0,)), name
    assert torch.equal(matrix(tmp_path / "m.onnx", "plain.weight")[1], net.plain.weight)
    order = ("input", "forget", "cell", "output")
    for at, gate in enumerate(order):
        assert torch.equal(
            matrix(tmp_path / "m.onnx", f"lstm.W:{gate}")[1], net.lstm.weight_ih_l0[3 * at : 3 * at + 3].detach()
        )
    assert next(iter(infos)).startswith("conv.")
    assert list(infos).index("conv.weight") < list(infos).index("plain.weight") < list(infos).index("block.0.weight")


# hostile and damaged files


def test_no_onnx_file(tmp_path, refused):
    for content in (b"abc", b"\x08\x07", b"\x3a\xff\xff\xff\xff\x0f", b"\x0b\x0b\x0b", b"\xff" * 30):
        (tmp_path / "m.onnx").write_bytes(content)
        refused(tmp_path / "m.onnx", "ONNX")
    save(tmp_path / "m.onnx", [])
    refused(tmp_path / "m.onnx", "no weights")


def test_two_tensors_of_one_name(tmp_path, refused):
    save(tmp_path / "m.onnx", [weight("w", 2, 2), weight("w", 3, 3)])
    refused(tmp_path / "m.onnx", "two of its tensors", "'w'")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda tensor: tensor.dims.__setitem__(0, 2**40), "where its sizes need"),
        (lambda tensor: tensor.dims.__setitem__(0, -1), "no sizes"),
        (lambda tensor: tensor.dims.extend([2**50] * 3), "no sizes"),
        (lambda tensor: tensor.ClearField("raw_data"), "no numbers"),
        (lambda tensor: setattr(tensor, "data_type", 99), "type 99"),
        (lambda tensor: setattr(tensor, "data_type", 8), "strings"),
        (lambda tensor: tensor.float_data.append(1.0), "several pieces"),
    ],
)
def test_tensors_that_are_not_what_they_claim(tmp_path, change, reason):
    tensor = weight("w", 3, 4)
    change(tensor)
    source = open_weights(save(tmp_path / "m.onnx", [tensor, weight("x", 2, 2)]))
    assert reason in source.describe()["w"].reason
    assert source.load("x").shape == (2, 2)


def test_graphs_too_deep_and_files_with_too_many_fields(tmp_path, refused, monkeypatch):
    graph = helper.make_graph([], "g", [], [], initializer=[weight("w", 2, 2)])
    for _ in range(20):
        graph = helper.make_graph([helper.make_node("Loop", [], ["y"], body=graph)], "g", [], [])
    onnx.save(helper.make_model(graph), tmp_path / "deep.onnx")
    refused(tmp_path / "deep.onnx", "nested")
    save(tmp_path / "m.onnx", [weight(f"w{i}", 2, 2) for i in range(20)])
    monkeypatch.setattr("stratoscope.network.formats._onnx_graph.Buffer", lambda data: Buffer(data, 50))
    from stratoscope.network.formats._protobuf import Buffer

    refused(tmp_path / "m.onnx", "fields")


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_file_is_refused_or_still_gives_tensors(tmp_path, data, damages, reads_or_refuses):
    node = helper.make_node("MatMul", ["x", "fc.weight"], ["y"])
    half = helper.make_tensor("half", TensorProto.FLOAT16, (2, 3), np.arange(6.0, dtype=np.float16).tolist())
    path = save(tmp_path / "m.onnx", [weight("fc.weight", 3, 4), weight("fc.bias", 4), half], [node])
    path.write_bytes(data.draw(damages)(path.read_bytes()))
    reads_or_refuses(path)


def test_every_single_byte_may_be_wrong(tmp_path, reads_or_refuses):
    path = save(tmp_path / "m.onnx", [weight("w", 2, 2)], [helper.make_node("MatMul", ["x", "w"], ["y"])])
    content = path.read_bytes()
    for at in range(len(content)):
        for value in (0, 127, 255, content[at] ^ 8):
            path.write_bytes(content[:at] + bytes([value]) + content[at + 1 :])
            reads_or_refuses(path)
