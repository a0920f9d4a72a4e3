"""What identifies an inspection: the files that belong to a checkpoint, and nothing that lies beside them."""

import os

import pytest

from stratoscope.network.opening import endings
from stratoscope.observe.resume import PARTS, identity_of


def names(path):
    return [os.path.basename(file[0]) for file in identity_of([path], {})["files"]]


@pytest.mark.parametrize("ending", sorted({*endings(), *PARTS} - {".index.json"}))
def test_a_log_beside_the_weights_does_not_count(ending, tmp_path):
    (tmp_path / f"model{ending}").write_bytes(b"weights")
    (tmp_path / f"OTHER{ending.upper()}").write_bytes(b"weights")
    (tmp_path / "train.log").write_text("begun")
    before = identity_of([tmp_path], {})
    assert names(tmp_path) == [f"OTHER{ending.upper()}", f"model{ending}"]
    (tmp_path / "train.log").write_text("begun, and gone on")
    assert identity_of([tmp_path], {}) == before
    (tmp_path / f"model{ending}").write_bytes(b"other weights")
    assert identity_of([tmp_path], {}) != before


def test_an_index_stands_for_its_shards(tmp_path):
    index = tmp_path / "model.safetensors.index.json"
    for name in (index.name, "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    assert names(index) == names(tmp_path) == sorted(set(os.listdir(tmp_path)) - {"notes.txt"})


def test_a_folder_of_files_that_nobody_knows_is_all_of_them(tmp_path):
    (tmp_path / "one").write_bytes(b"x")
    (tmp_path / "two.txt").write_bytes(b"x")
    assert names(tmp_path) == ["one", "two.txt"]


def test_size_and_time_of_a_file_each_count(tmp_path):
    file = tmp_path / "m.pt"
    file.write_bytes(b"1")
    os.utime(file, ns=(10**18, 10**18))
    before = identity_of([file], {})
    file.write_bytes(b"2")
    os.utime(file, ns=(2 * 10**18, 2 * 10**18))
    assert identity_of([file], {}) != before
    file.write_bytes(b"33")
    os.utime(file, ns=(10**18, 10**18))
    assert identity_of([file], {}) != before
    file.write_bytes(b"4")
    os.utime(file, ns=(10**18, 10**18))
    assert identity_of([file], {}) == before
