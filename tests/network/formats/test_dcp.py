"""Distributed checkpoints: assembled block by block, and their pickled description never unpickled."""

import collections
import io
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)

from stratoscope.errors import OpenError
from stratoscope.network.formats._pickled import Made, read_pickle
from stratoscope.network.formats._shards import Piece, why_no_whole
from stratoscope.network.opening import open_weights

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")


def net():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2, dtype=torch.bfloat16))
    module.register_parameter("scale", nn.Parameter(torch.tensor(2.0)))
    return module


def save(state, folder):
    dcp.save(state, checkpoint_id=str(folder), no_dist=True)
    return folder


def by_hand(folder, chunks, shape, dtype=torch.float32, change=lambda metadata: None):
    """A checkpoint of one tensor in blocks, given as `(file, offsets, block)`, as processes of a training write it."""
    folder.mkdir(exist_ok=True)
    files, stored, listed = {}, {}, []
    for file, offsets, block in chunks:
        blob = io.BytesIO()
        torch.save(block, blob)
        content = files.setdefault(file, bytearray())
        info = _StorageInfo(file, len(content), len(blob.getvalue()))
        content += blob.getvalue()
        stored[MetadataIndex("w", offsets)] = info
        listed.append(ChunkStorageMetadata(torch.Size(offsets), block.shape))
    for name, content in files.items():
        (folder / name).write_bytes(content)
    tensors = {"w": TensorStorageMetadata(TensorProperties(dtype), torch.Size(shape), listed)}
    metadata = Metadata(tensors, {"w": ("w",)}, stored)
    change(metadata)
    (folder / ".metadata").write_bytes(pickle.dumps(metadata))
    return folder


def halves(whole):
    middle = whole.shape[0] // 2
    return [("__0_0.distcp", (0, 0), whole[:middle].clone()), ("__1_0.distcp", (middle, 0), whole[middle:].clone())]


def test_a_state_dict(tmp_path, same):
    source = open_weights(save(net().state_dict(), tmp_path / "c"))
    same(source, net().state_dict())
    same(pickle.loads(pickle.dumps(source)), net().state_dict())
    assert "left out" not in source.about


def test_the_state_of_the_optimizer_is_left_out_and_said(tmp_path, same):
    module = net()
    optimizer = torch.optim.Adam(module.parameters())
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    state = {"model": module.state_dict(), "optimizer": optimizer.state_dict(), "step": 7, "ema": {"a": torch.ones(2)}}
    source = open_weights(save(state, tmp_path / "c"))
    same(source, module.state_dict())
    for name in ("optimizer", "step", "ema"):
        assert name in source.about


def test_blocks_in_several_files(tmp_path, same):
    whole = torch.randn(7, 5)
    same(open_weights(by_hand(tmp_path / "rows", halves(whole), whole.shape)), {"w": whole})
    grid = [
        (f"__{i}_{j}.distcp", (3 * i, 2 * j), whole[3 * i : 3 * i + 3, 2 * j : 2 * j + 2].clone())
        for i in range(3)
        for j in range(3)
    ]
    same(open_weights(by_hand(tmp_path / "grid", grid, whole.shape)), {"w": whole})
    same(open_weights(by_hand(tmp_path / "one", [("__0_0.distcp", (0, 0), whole)], whole.shape)), {"w": whole})


def test_two_processes_as_torch_writes_them(tmp_path, same):
    """Each process plans and writes its half; the coordinator writes the description."""
    from torch.distributed.checkpoint._dedup_save_plans import dedup_save_plans
    from torch.distributed.checkpoint.default_planner import create_default_global_save_plan
    from torch.distributed.checkpoint.filesystem import FileSystemWriter
    from torch.distributed.checkpoint.planner import SavePlan, TensorWriteData, WriteItem, WriteItemType

    whole = torch.randn(6, 4)

    def plan(rank):
        offsets = torch.Size((3 * rank, 0))
        data = TensorWriteData(
            ChunkStorageMetadata(offsets, torch.Size((3, 4))), TensorProperties(torch.float32), whole.shape
        )
        return SavePlan([WriteItem(MetadataIndex("w", offsets), WriteItemType.SHARD, tensor_data=data)])

    class Planner:
        def resolve_data(self, item):
            start = item.index.offset[0]
            return whole[start : start + 3]

    plans, metadata = create_default_global_save_plan(dedup_save_plans([plan(0), plan(1)]))
    writers = [FileSystemWriter(tmp_path / "c") for _ in plans]
    for at, writer in enumerate(writers):
        writer.set_up_storage_writer(at == 0)
    plans = writers[0].prepare_global_plan([w.prepare_local_plan(p) for w, p in zip(writers, plans, strict=True)])
    results = [w.write_data(p, Planner()).wait() for w, p in zip(writers, plans, strict=True)]
    writers[0].finish(metadata, results)
    assert len(list((tmp_path / "c").glob("*.distcp"))) == 2
    same(open_weights(tmp_path / "c"), {"w": whole})


def test_safetensors_of_the_hugging_face_writer(tmp_path, same):
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter

    state = net().state_dict()
    for name, more in (("whole", {}), ("pieces", {"save_distributed": True})):
        dcp.save(state, storage_writer=HuggingFaceStorageWriter(str(tmp_path / name), **more), no_dist=True)
        same(open_weights(tmp_path / name), state)


def hugging_face_shards(folder, pieces):
    folder.mkdir()
    for at, (offsets, block) in enumerate(pieces):
        save_file(
            {"w": block},
            folder / f"shard-{at + 1:05d}-model-00001-of-00001.safetensors",
            metadata={"DCP_SHARDING_INFO": f'{{"w": {{"saved_offsets": {list(offsets)}}}}}', "DCP_VERSION": "1.0"},
        )
    return folder


def test_safetensors_of_several_processes(tmp_path, same, refused):
    whole = torch.randn(7, 5)
    pieces = [((0, 0), whole[:3].clone()), ((3, 0), whole[3:].clone())]
    same(open_weights(hugging_face_shards(tmp_path / "a", pieces)), {"w": whole})
    apart = hugging_face_shards(tmp_path / "b", [pieces[0], ((4, 0), pieces[1][1])])
    assert "35 of its 40" in open_weights(apart).describe()["w"].reason
    refused(hugging_face_shards(tmp_path / "c", [((0,), whole)]), "where its pieces")


@pytest.mark.parametrize(
    ("blocks", "reason"),
    [
        ([((0, 0), 3)], "hold 15 of its 35"),
        ([((0, 0), 4), ((3, 0), 3)], "overlap"),
        ([((0, 0), 4), ((5, 0), 3)], "beyond"),
    ],
)
def test_blocks_that_do_not_make_a_whole(tmp_path, blocks, reason):
    whole = torch.randn(8, 5)
    chunks = [(f"__{at}_0.distcp", start, whole[:rows].clone()) for at, (start, rows) in enumerate(blocks)]
    source = open_weights(by_hand(tmp_path / "c", chunks, (7, 5)))
    assert reason in source.describe()["w"].reason
    with pytest.raises(OpenError, match=reason):
        source.load("w")


def test_more_blocks_than_anybody_writes_are_not_compared_with_each_other():
    blocks = [Piece((at,), (1,), Path("a")) for at in range(65_537)]
    assert why_no_whole((65_537,), blocks) == "it is in 65537 pieces, more than 65536"
    assert why_no_whole((9,), blocks[:9]) == ""


def test_an_empty_tensor(tmp_path, same):
    same(
        open_weights(save({"w": torch.zeros(0, 3), "v": torch.ones(2)}, tmp_path)),
        {"w": torch.zeros(0, 3), "v": torch.ones(2)},
    )


# what is refused


class Evil:
    def __reduce__(self):
        return (exec, ("raise SystemExit('it ran')",))


@pytest.mark.parametrize("protocol", range(2, 6))
def test_code_in_the_description_is_refused(tmp_path, refused, protocol):
    folder = by_hand(tmp_path / "c", halves(torch.ones(4, 2)), (4, 2))
    metadata = pickle.loads((folder / ".metadata").read_bytes())
    metadata.planner_data = Evil()
    (folder / ".metadata").write_bytes(pickle.dumps(metadata, protocol=protocol))
    refused(folder, "nothing in it was run", "exec")


@pytest.mark.parametrize("name", [b"os\nsystem", b"builtins\neval", b"torch\nload", b"torch.distributed\nPyProcess"])
def test_names_that_are_refused(tmp_path, refused, name):
    (tmp_path / ".metadata").write_bytes(b"\x80\x02c" + name + b"\nX\x02\x00\x00\x00id\x85R.")
    refused(tmp_path, "nothing in it was run", name.decode().replace("\n", "."))


def test_code_in_a_block_is_refused(tmp_path):
    folder = by_hand(tmp_path / "c", halves(torch.ones(4, 2)), (4, 2))
    blob = io.BytesIO()
    torch.save(Evil(), blob)
    metadata = pickle.loads((folder / ".metadata").read_bytes())
    for info in metadata.storage_data.values():
        info.offset, info.length = 0, len(blob.getvalue())
        (folder / info.relative_path).write_bytes(blob.getvalue())
    (folder / ".metadata").write_bytes(pickle.dumps(metadata))
    with pytest.raises(OpenError, match="nothing in it was run"):
        open_weights(folder).load("w")


def test_blocks_are_those_that_are_described(tmp_path):
    folder = by_hand(tmp_path / "c", halves(torch.ones(4, 2)), (4, 2), dtype=torch.float64)
    with pytest.raises(OpenError, match=r"is torch.float32 .* where torch.float64"):
        open_weights(folder).load("w")


def test_compressed_blocks_are_refused(tmp_path):
    folder = by_hand(tmp_path / "c", [("__0_0.distcp", (0, 0), torch.ones(4, 2))], (4, 2))
    packed = io.BytesIO()
    with (
        zipfile.ZipFile(folder / "__0_0.distcp") as old,
        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for member in old.infolist():
            new.writestr(member.filename, old.read(member))
    metadata = pickle.loads((folder / ".metadata").read_bytes())
    next(iter(metadata.storage_data.values())).length = len(packed.getvalue())
    (folder / "__0_0.distcp").write_bytes(packed.getvalue())
    (folder / ".metadata").write_bytes(pickle.dumps(metadata))
    with pytest.raises(OpenError, match="compressed"):
        open_weights(folder).load("w")


def in_storage(**values):
    def change(metadata):
        for info in metadata.storage_data.values():
            for name, value in values.items():
                setattr(info, name, value)

    return change


def in_tensor(**values):
    def change(metadata):
        for name, value in values.items():
            setattr(metadata.state_dict_metadata["w"], name, value)

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (in_storage(relative_path="../x.distcp"), "leads out"),
        (in_storage(relative_path="/etc/passwd"), "leads out"),
        (in_storage(relative_path=7), "no file name"),
        (in_storage(relative_path="lost.distcp"), "not there"),
        (in_storage(offset=-1), "no place"),
        (in_storage(length="x"), "no place"),
        (lambda metadata: metadata.storage_data.clear(), "nowhere"),
        (lambda metadata: setattr(metadata, "storage_data", None), "where the tensors lie"),
        (lambda metadata: setattr(metadata, "state_dict_metadata", [1]), "describes no tensors"),
        (lambda metadata: metadata.state_dict_metadata.clear(), "no weights"),
    ],
)
def test_descriptions_that_are_refused(tmp_path, refused, change, words):
    refused(by_hand(tmp_path / "c", halves(torch.ones(4, 2)), (4, 2), change=change), words)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (in_storage(transform_descriptors=["zstd"]), "packed (zstd)"),
        (in_tensor(size=torch.Size((2**30, 2**20))), "claims"),
        (in_tensor(size=torch.Size((4, 3))), "8 of its 12"),
        (in_tensor(properties=None), "not said"),
        (in_tensor(size=(4, 2)), "not said"),
    ],
)
def test_tensors_with_a_reason(tmp_path, change, reason):
    source = open_weights(by_hand(tmp_path / "c", halves(torch.ones(4, 2)), (4, 2), change=change))
    assert reason in source.describe()["w"].reason


def test_a_block_that_lies_beyond_its_file(tmp_path):
    source = open_weights(by_hand(tmp_path / "c", halves(torch.ones(4, 2)), (4, 2), change=in_storage(offset=10**9)))
    with pytest.raises(OpenError, match="cut off"):
        source.load("w")


# pickles read as data

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)


@settings(deadline=None, max_examples=25)
@given(value=PLAIN, protocol=st.integers(3, 5))
def test_plain_values_are_read_as_pickle_reads_them(value, protocol):
    assert read_pickle(pickle.dumps(value, protocol=protocol), lambda name: False) == value


class Member:
    """Pickles as Python 3.11.0 to 3.11.3 write a member of an enumeration."""

    def __init__(self, owner, name):
        self.owner, self.name = owner, name

    def __reduce__(self):
        return getattr, (self.owner, self.name)


@pytest.mark.parametrize("protocol", range(2, 6))
def test_a_member_of_an_enumeration_is_its_class_and_its_name(protocol):
    data = pickle.dumps(Member(collections.OrderedDict, "fromkeys"), protocol=protocol)
    made = read_pickle(data, lambda name: str(name) == "collections.OrderedDict")
    assert (str(made.kind), made.args) == ("collections.OrderedDict", ("fromkeys",))
    with pytest.raises(OpenError, match=r"names collections\.OrderedDict"):
        read_pickle(data, lambda name: False)
    with pytest.raises(OpenError, match="would look into something that is no name"):
        read_pickle(pickle.dumps(Member([], "append")), lambda name: True)


def test_objects_are_only_described():
    found = read_pickle(pickle.dumps(collections.OrderedDict(a=Evil())), lambda name: True)
    assert isinstance(found, Made)
    assert str(found.kind) == "collections.OrderedDict"
    assert str(found.state["a"].kind) == "builtins.exec"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x04",
        b"\x80\x04.",
        b"\x80\x04K\x01K\x02.",
        b"\x80\x04]a.",
        b"\x80\x04t.",
        b"\x80\x04)\x86.",
        b"\x80\x04h\x05.",
        b"\x80\x04}K\x01K\x02u.",
        b"\x80\x04K\x01)R.",
        b"\x80\x04K\x01}b.",
        b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x7f.",
        b"\x80\x04r\xff\xff\xff\x7f.",
        b"P1\n.",
        b"\x80\x04}))s.",
    ],
)
def test_pickles_that_are_none(content):
    with pytest.raises(OpenError, match="its pickle"):
        read_pickle(content, lambda name: True)


def test_a_tower_of_tuples_takes_no_time():
    """Its hash would take 2^100 steps, so it is no key."""
    tower = b"".join(b"\x94h" + bytes([at]) + b"\x86" for at in range(100))
    assert isinstance(read_pickle(b"\x80\x04)" + tower + b".", lambda name: True), tuple)
    with pytest.raises(OpenError, match="neither names nor numbers"):
        read_pickle(b"\x80\x04})" + tower + b"K\x01s.", lambda name: True)


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), which=st.sampled_from([".metadata", "__0_0.distcp"]))
def test_a_damaged_checkpoint_is_refused_or_still_gives_tensors(tmp_path, data, which, damages, reads_or_refuses):
    folder = by_hand(tmp_path / "c", halves(torch.ones(4, 2)), (4, 2))
    (folder / which).write_bytes(data.draw(damages)((folder / which).read_bytes()))
    reads_or_refuses(folder)


def test_any_byte_of_the_description_may_be_wrong(tmp_path, reads_or_refuses):
    folder = by_hand(tmp_path / "c", [("__0_0.distcp", (0, 0), torch.ones(4, 2))], (4, 2))
    content = (folder / ".metadata").read_bytes()
    for at in range(len(content)):
        value = (0, 255, content[at] ^ 4)[at % 3]
        (folder / ".metadata").write_bytes(content[:at] + bytes([value]) + content[at + 1 :])
        reads_or_refuses(folder)
