"""Archives of torch.export: their weights are the module's, and nothing in them is run."""

import io
import json
import pickle
import struct
import warnings
import zipfile

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from stratoscope.network.naming import catalogue_of_weights
from stratoscope.network.opening import open_weights


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.fc = nn.Linear(64, 8)
        self.inner = nn.Linear(8, 8, bias=False)
        self.tied = nn.Linear(8, 8, bias=False)
        self.tied.weight = self.inner.weight
        self.low = nn.Linear(8, 3, bias=False).half()
        self.brain = nn.Linear(3, 2, dtype=torch.bfloat16)
        self.turned = nn.Parameter(torch.randn(5, 8).T)
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.register_buffer("empty", torch.zeros(0, 3))
        self.register_buffer("passing", torch.randn(2, 4)[:, ::2], persistent=False)
        self.constant = torch.randn(8, 8)

    def forward(self, x):
        x = self.tied(self.inner(self.fc(self.norm(self.conv(x)).flatten(1)))) @ self.constant * self.scale
        return self.brain(self.low(x.half()).bfloat16()), x @ self.turned + self.passing.sum()


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture(scope="module")
def archive(net, tmp_path_factory):
    path = tmp_path_factory.mktemp("pt2") / "m.pt2"
    program = torch.export.export(net, (torch.randn(2, 1, 4, 4),))
    with warnings.catch_warnings():  # torch warns where memory happens to lie so that it takes two tensors for one
        warnings.simplefilter("ignore")
        torch.export.save(program, str(path))
    return path


def members(path):
    with zipfile.ZipFile(path) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


def write(path, content, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return path


def changed(path, target, change):
    """The archive with its index of weights changed."""
    content = members(path)
    name = next(name for name in content if name.endswith("_weights_config.json"))
    config = json.loads(content[name])
    change(config["config"])
    return write(target, content | {name: json.dumps(config).encode()})


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_every_weight_and_constant(net, archive, same):
    source = open_weights(archive)
    wanted = net.state_dict() | {"constant": net.constant, "passing": net.passing}
    same(source, wanted)
    infos = source.describe()
    assert infos["tied.weight"].same_as == "inner.weight"
    assert (infos["fc.weight"].role, infos["norm.running_mean"].role, infos["constant"].role) == (
        "parameter",
        "buffer",
        "transient",
    )
    assert infos["fc.weight"].trainable is True
    assert infos["norm.running_var"].trainable is False
    assert infos["turned"].shape == (8, 5)
    assert "2 of them constants" in source.about


def test_the_layers_are_those_of_the_module(archive):
    catalogue = catalogue_of_weights(open_weights(archive))
    assert (catalogue["conv"].kind, catalogue["fc"].kind, catalogue["norm"].kind) == ("conv", "linear", "norm")
    assert set(catalogue.params) == set(open_weights(archive).describe())


def test_a_source_can_be_sent_to_another_process(archive, net):
    source = pickle.loads(pickle.dumps(open_weights(archive)))
    assert torch.equal(source.load("fc.weight"), net.fc.weight)


def test_the_program_in_it_is_never_looked_at(archive, tmp_path, net):
    content = members(archive)
    for name in content:
        if "models/" in name or "sample_inputs" in name:
            content[name] = b"\x80\x04not what it was"
    assert torch.equal(open_weights(write(tmp_path / "m.pt2", content)).load("fc.weight"), net.fc.weight)


def test_two_models_in_one_archive(tmp_path):
    from torch.export.pt2_archive._package import package_pt2

    first, second = nn.Linear(3, 2), nn.Linear(3, 4)
    programs = {name: torch.export.export(m, (torch.zeros(1, 3),)) for name, m in (("a", first), ("b", second))}
    package_pt2(str(tmp_path / "m.pt2"), exported_programs=programs)
    source = open_weights(tmp_path / "m.pt2")
    assert set(source.describe()) == {"a.weight", "a.bias", "b.weight", "b.bias"}
    assert torch.equal(source.load("b.weight"), second.weight)


def test_tensors_that_share_a_storage_in_part(tmp_path, same):
    class Parts(nn.Module):
        def __init__(self):
            super().__init__()
            whole = torch.arange(12.0).reshape(4, 3)
            self.register_buffer("whole", whole)
            self.register_buffer("rows", whole[1:3])
            self.register_buffer("columns", whole[:, 1:])

        def forward(self, x):
            return x + self.whole.sum() + self.rows.sum() + self.columns.sum()

    module = Parts()
    torch.export.save(torch.export.export(module, (torch.zeros(1),)), str(tmp_path / "m.pt2"))
    same(open_weights(tmp_path / "m.pt2"), module.state_dict())


@pytest.mark.parametrize("name", ["serialized_state_dict.pt", "serialized_state_dict.json"])
def test_the_older_layout(tmp_path, net, name, same):
    blob = io.BytesIO()
    torch.save(net.state_dict(), blob)
    path = write(
        tmp_path / "m.pt2", {"version": "8.1", "serialized_exported_program.json": "{}", name: blob.getvalue()}
    )
    source = open_weights(path)
    same(source, net.state_dict())
    same(pickle.loads(pickle.dumps(source)), net.state_dict())
    assert str(path) in source.about


class Evil:
    def __reduce__(self):
        return (exec, ("raise SystemExit('it ran')",))


def test_code_in_the_older_layout_is_refused(tmp_path, refused):
    blob = io.BytesIO()
    torch.save({"w": torch.zeros(2), "x": Evil()}, blob)
    path = write(tmp_path / "m.pt2", {"serialized_state_dict.pt": blob.getvalue()})
    refused(path, "nothing in it was run", "m.pt2", "exec")


def test_a_pickled_weight_is_a_row_with_a_reason(archive, tmp_path):
    def pickled(config):
        config["fc.weight"]["use_pickle"] = True

    source = open_weights(changed(archive, tmp_path / "m.pt2", pickled))
    assert "Python object" in source.describe()["fc.weight"].reason
    assert source.describe()["fc.bias"].reason == ""


def test_compiled_archives_are_refused_with_advice(tmp_path, refused):
    content = {"m/archive_format": "pt2", "m/data/aotinductor/model/x.so": "ELF", "m/byteorder": "little"}
    refused(write(tmp_path / "m.pt2", content), "AOTInductor", "state_dict")


def test_other_archives_are_refused(tmp_path, refused):
    refused(write(tmp_path / "a.pt2", {"m/x": "1", "n/y": "2"}), "one folder")
    refused(write(tmp_path / "b.pt2", {"m/byteorder": "little"}), "no index of weights")
    refused(write(tmp_path / "c.pt2", {"m/byteorder": "big"}), "big-endian")
    (tmp_path / "d.pt2").write_bytes(b"no archive")
    refused(tmp_path / "d.pt2", "zip")


def test_compressed_members_are_refused(archive, tmp_path, refused):
    refused(write(tmp_path / "m.pt2", members(archive), zipfile.ZIP_DEFLATED), "compressed")


HOSTILE = {
    "huge": (
        lambda meta: meta["tensor_meta"].update(sizes=[{"as_int": 2**20}] * 2, strides=[{"as_int": 0}] * 2),
        "claims",
    ),
    "overflowing": (lambda meta: meta["tensor_meta"].update(sizes=[{"as_int": 2**62}] * 4), "no sizes"),
    "negative": (lambda meta: meta["tensor_meta"].update(storage_offset={"as_int": -4}), "no sizes"),
    "negative stride": (lambda meta: meta["tensor_meta"].update(strides=[{"as_int": -1}, {"as_int": 1}]), "no sizes"),
    "beyond": (lambda meta: meta["tensor_meta"].update(storage_offset={"as_int": 10**6}), "too few"),
    "symbolic": (lambda meta: meta["tensor_meta"].update(sizes=[{"as_expr": "s0"}, {"as_int": 64}]), "no sizes"),
    "no type": (lambda meta: meta["tensor_meta"].update(dtype=99), "type 99"),
    "sparse": (lambda meta: meta["tensor_meta"].update(layout=1), "sparse"),
    "lost": (lambda meta: meta.update(path_name="weight_99"), "missing"),
    "elsewhere": (lambda meta: meta.update(path_name="../../byteorder"), "missing"),
    "no tensor": (lambda meta: meta.update(tensor_meta=None), "no tensor"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_cannot_be_read_is_a_row_with_a_reason(archive, tmp_path, case):
    change, reason = HOSTILE[case]
    path = changed(archive, tmp_path / "m.pt2", lambda config: change(config["fc.weight"]))
    source = open_weights(path)
    assert reason in source.describe()["fc.weight"].reason
    assert source.load("fc.bias").shape == (8,)


@pytest.mark.parametrize(
    "content", [b"[]", b"{}", b'{"config": [1]}', b'{"config": {"a": 1}}', b"[" * 100_000, b"\xff"]
)
def test_an_index_that_is_none(archive, tmp_path, content, refused):
    given = members(archive)
    name = next(name for name in given if name.endswith("_weights_config.json"))
    refused(write(tmp_path / "m.pt2", given | {name: content}), "weights_config.json")


def test_an_index_too_large_to_be_one(archive, monkeypatch, refused):
    monkeypatch.setattr("stratoscope.network.formats.pt2.MAX_INDEX", 100)
    refused(archive, "more than 100")


def test_members_that_lie_elsewhere_or_are_encrypted(archive, tmp_path, refused):
    content = bytearray(archive.read_bytes())
    entry = content.rfind(b"PK\x01\x02")
    (tmp_path / "a.pt2").write_bytes(content[: entry + 42] + struct.pack("<I", 2**31) + content[entry + 46 :])
    refused(tmp_path / "a.pt2", "damaged")
    content[entry + 8] |= 1
    (tmp_path / "b.pt2").write_bytes(content)
    refused(tmp_path / "b.pt2", "encrypted")


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_archive_is_refused_or_still_gives_tensors(archive, tmp_path, data, damages, reads_or_refuses):
    path = tmp_path / "m.pt2"
    path.write_bytes(data.draw(damages)(archive.read_bytes()))
    reads_or_refuses(path)
