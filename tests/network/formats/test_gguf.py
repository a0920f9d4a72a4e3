"""GGUF files: plain tensors are read outputs first, quantised ones have a reason, headers are never believed."""

import pickle
import struct

import gguf
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stratoscope.errors import OpenError
from stratoscope.network.formats import gguf as reader
from stratoscope.network.naming import catalogue_of_weights
from stratoscope.network.opening import open_weights

Type = gguf.GGMLQuantizationType


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def save(path, tensors, **more):
    """A file with these tensors: arrays, or pairs of bytes and their type."""
    writer = gguf.GGUFWriter(path, "llama", **more)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_name("tiny")
    writer.add_token_list(["a", "b", "é"])
    writer.add_array("numbers", [1, 2, 3])
    for name, tensor in tensors.items():
        values, kind = tensor if isinstance(tensor, tuple) else (tensor, None)
        writer.add_tensor(name, values, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_every_plain_type(tmp_path, same):
    wide = normal(8, 64)
    arrays = {
        "f32": wide,
        "f16": wide.astype(np.float16),
        "f64": wide.astype(np.float64),
        "i8": np.arange(12, dtype=np.int8).reshape(3, 4),
        "i16": np.arange(12, dtype=np.int16).reshape(3, 4),
        "i32": np.arange(12, dtype=np.int32).reshape(3, 4),
        "i64": np.arange(12, dtype=np.int64).reshape(3, 4),
        "vector": normal(7),
        "conv": normal(2, 3, 4, 5),
    }
    brain = (gguf.quantize(wide, Type.BF16), Type.BF16)
    source = open_weights(save(tmp_path / "m.gguf", arrays | {"bf16": brain}))
    wanted = {name: torch.from_numpy(array) for name, array in arrays.items()}
    same(source, wanted | {"bf16": torch.from_numpy(wide).bfloat16()})
    same(pickle.loads(pickle.dumps(source)), wanted | {"bf16": torch.from_numpy(wide).bfloat16()})


@pytest.mark.parametrize("kind", [Type.Q8_0, Type.Q4_0, Type.Q5_1])
def test_quantised_tensors_are_rows_with_a_reason(tmp_path, kind):
    packed = (gguf.quantize(normal(16, 64), kind), kind)
    source = open_weights(save(tmp_path / "m.gguf", {"blk.0.ffn_up.weight": packed, "w": normal(2, 3)}))
    info = source.describe()["blk.0.ffn_up.weight"]
    assert info.shape == (16, 64)
    assert info.reason == f"{kind.name}: quantised in blocks, codes not weights"
    with pytest.raises(OpenError, match="quantised"):
        source.load("blk.0.ffn_up.weight")
    assert source.load("w").shape == (2, 3)


def test_the_types_are_those_of_the_format():
    known = {kind: name for kind, (name, _) in reader._PLAIN.items()} | reader._QUANTISED
    assert {kind.value: kind.name for kind in Type}.items() <= known.items()


def test_what_the_file_says_of_itself(tmp_path):
    source = open_weights(save(tmp_path / "m.gguf", {"w": normal(2, 3)}))
    assert "architecture llama" in source.about
    assert "4 heads, 2 of keys and values" in source.about
    assert source.metadata["general.name"] == "tiny"
    assert source.config == {"num_attention_heads": 4, "num_key_value_heads": 2}


def test_layers(tmp_path):
    tensors = {"token_embd.weight": normal(32, 64), "blk.0.attn_qkv.weight": normal(128, 64),
               "blk.0.attn_norm.weight": normal(64)}  # fmt: skip
    catalogue = catalogue_of_weights(open_weights(save(tmp_path / "m.gguf", tensors)))
    assert (catalogue["token_embd"].kind, catalogue["blk.0.attn_norm"].kind) == ("embedding", "norm")
    shapes = {name: matrix.shape for name, matrix in catalogue.matrices.items()}  # 4 heads of 16, and 2 of 16 twice
    assert shapes["blk.0.attn_qkv.weight:q"] == (64, 64)
    assert shapes["blk.0.attn_qkv.weight:k"] == shapes["blk.0.attn_qkv.weight:v"] == (32, 64)


def test_another_ending_is_known_by_the_first_bytes(tmp_path, same):
    save(tmp_path / "model", {"w": normal(2, 3)})
    same(open_weights(tmp_path / "model"), {"w": torch.from_numpy(normal(2, 3))})


def test_a_file_in_parts(tmp_path, same, refused):
    tensors = {f"w{i}": normal(4, 5, seed=i) for i in range(6)}
    save(tmp_path / "m.gguf", tensors, split_max_tensors=2)
    wanted = {name: torch.from_numpy(value) for name, value in tensors.items()}
    parts = sorted(tmp_path.glob("m-*.gguf"))
    assert len(parts) == 3
    same(open_weights(parts[1]), wanted)
    same(open_weights(tmp_path), wanted)
    assert open_weights(parts[1]).config == {
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }  # the first part says it
    part = parts[2].read_bytes()
    parts[2].write_bytes(parts[1].read_bytes())
    refused(parts[0], "two of which hold 'w2'")
    parts[2].write_bytes(part)
    same(open_weights(parts[0]), wanted)
    parts[2].unlink()
    refused(parts[0], "m-00003-of-00003.gguf", "not beside it")


# damaged and hostile files


def header(tensors=0, values=0, body=b"", version=3, magic=b"GGUF"):
    return magic + struct.pack("<IQQ", version, tensors, values) + body + b"\0" * 64


def text(value):
    return struct.pack("<Q", len(value)) + value


def entry(name, sizes, kind=0, offset=0):
    return text(name) + struct.pack(f"<I{len(sizes)}QIQ", len(sizes), *sizes, kind, offset)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"GGUF", "ends within"),
        (b"GG", "ends within"),
        (header(magic=b"GGML"), "does not begin"),
        (header(version=1), "version 1"),
        (header(version=3 << 24), "big-endian"),
        (header(tensors=2**60), "more than fit"),
        (header(values=2**60), "more than fit"),
        (header(values=1, body=text(b"k") + struct.pack("<IIQ", 9, 8, 2**60)), "ends within"),
        (header(values=1, body=text(b"k") + struct.pack("<IIQ", 9, 0, 2**60)), "ends within"),
        (header(values=1, body=text(b"k") + struct.pack("<IQ", 8, 2**62)), "ends within"),
        (header(values=1, body=text(b"k") + struct.pack("<I", 77)), "type 77"),
        (header(values=1, body=text(b"k") + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 9), "type 9"),
        (header(values=1, body=text(b"general.alignment") + struct.pack("<II", 4, 3)), "alignment is 3"),
        (header(values=1, body=text(b"general.alignment") + struct.pack("<II", 4, 0)), "alignment is 0"),
        (header(1, body=struct.pack("<Q", 2**40)), "a name of"),
        (header(1, body=entry(b"w", [2**20] * 2)), "its tensors need"),
        (header(1, body=entry(b"w", [2**62] * 3)), "impossible"),
        (header(1, body=entry(b"w", [2], offset=2**60)), "its tensors need"),
        (header(1, body=text(b"w") + struct.pack("<I", 1000)), "1000 axes"),
        (header(2, body=entry(b"w", [2]) * 2), "two tensors"),
    ],
)
def test_headers_that_are_refused(tmp_path, content, words, refused):
    (tmp_path / "m.gguf").write_bytes(content)
    refused(tmp_path / "m.gguf", words, "GGUF")


def test_names_that_are_no_text_and_types_of_tomorrow(tmp_path):
    (tmp_path / "m.gguf").write_bytes(header(2, body=entry(b"\xff\xfe", [2]) + entry(b"new", [2], kind=99)))
    infos = open_weights(tmp_path / "m.gguf").describe()
    assert list(infos) == ["\\xff\\xfe", "new"]
    assert "type 99" in infos["new"].reason


def test_tensors_without_elements_and_files_without_tensors(tmp_path, same):
    (tmp_path / "a.gguf").write_bytes(header(1, body=entry(b"w", [0, 3])))
    same(open_weights(tmp_path / "a.gguf"), {"w": torch.zeros(3, 0)})
    (tmp_path / "b.gguf").write_bytes(header())
    assert open_weights(tmp_path / "b.gguf").describe() == {}


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_file_is_refused_or_still_gives_tensors(tmp_path, data, damages, reads_or_refuses):
    path = tmp_path / "m.gguf"
    if not path.exists():
        save(path, {"w": normal(4, 5), "v": normal(3)})
    content = path.read_bytes()
    (tmp_path / "damaged.gguf").write_bytes(data.draw(damages)(content))
    reads_or_refuses(tmp_path / "damaged.gguf")


def test_every_single_byte_of_a_header_may_be_wrong(tmp_path, reads_or_refuses):
    values = text(b"general.architecture") + struct.pack("<I", 8) + text(b"x")
    values += text(b"list") + struct.pack("<IIQ", 9, 8, 2) + text(b"a") + text(b"b")
    content = header(2, 2, values + entry(b"w", [2, 3]) + entry(b"v", [4], offset=32))
    path = tmp_path / "m.gguf"
    path.write_bytes(content)
    assert len(open_weights(path).describe()) == 2
    for at in range(len(content) - 64):
        for value in (0, 255, content[at] ^ 16):
            path.write_bytes(content[:at] + bytes([value]) + content[at + 1 :])
            reads_or_refuses(path)
