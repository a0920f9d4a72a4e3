"""Archives of NumPy arrays: unpacked one at a time, without any Python object in them."""

import io
import pickle
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stratoscope.errors import OpenError
from stratoscope.network.naming import catalogue_of_weights
from stratoscope.network.opening import open_weights

ARRAYS = {
    "block/Dense_0/kernel": np.random.default_rng(0).normal(size=(3, 4)),
    "block/Dense_0/bias": np.zeros(4, np.float32),
    "half": np.ones((2, 3), np.float16),
    "whole": np.arange(6).reshape(2, 3),
    "scalar": np.float32(3),
    "empty": np.zeros((0, 3), np.float32),
}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays(tmp_path, save, same):
    save(tmp_path / "m.npz", **ARRAYS)
    source = open_weights(tmp_path / "m.npz")
    wanted = {name: torch.from_numpy(np.array(value)) for name, value in ARRAYS.items()}
    same(source, wanted)
    same(pickle.loads(pickle.dumps(source)), wanted)


def test_columns_first_and_the_other_byte_order(tmp_path, same):
    value = np.arange(6.0).reshape(2, 3)
    np.savez(tmp_path / "m.npz", f=np.asfortranarray(value), b=value.astype(">f4"))
    wanted = torch.from_numpy(value)
    same(open_weights(tmp_path / "m.npz"), {"f": wanted, "b": wanted.float()})


def test_kernels_are_stored_outputs_last(tmp_path):
    np.savez(tmp_path / "m.npz", **ARRAYS)
    found = catalogue_of_weights(open_weights(tmp_path / "m.npz")).matrices["block/Dense_0/kernel"]
    assert found.shape == (4, 3)


class Evil:
    def __reduce__(self):
        return (exec, ("raise SystemExit('it ran')",))


def test_objects_and_texts_are_rows_with_a_reason(tmp_path):
    np.savez(tmp_path / "m.npz", o=np.array([Evil()], dtype=object), t=np.array(["a"]), w=np.ones(2))
    source = open_weights(tmp_path / "m.npz")
    assert "not loaded" in source.describe()["o"].reason
    assert "torch does not have" in source.describe()["t"].reason
    for name in ("o", "t"):
        with pytest.raises(OpenError):
            source.load(name)


def test_bombs_are_refused(tmp_path, refused, monkeypatch):
    np.savez_compressed(tmp_path / "m.npz", w=np.zeros((2**11, 2**10), np.float32))
    assert (tmp_path / "m.npz").stat().st_size < 2**14
    assert open_weights(tmp_path / "m.npz").load("w").shape == (2**11, 2**10)  # small enough to harm nobody
    for module in ("zipcheck", "formats.npz"):
        monkeypatch.setattr(f"stratoscope.network.{module}.FREE_BYTES", 2**20)
    refused(tmp_path / "m.npz", "claims to unpack")


def test_headers_that_claim_too_much(tmp_path):
    blob = io.BytesIO()
    np.lib.format.write_array_header_1_0(blob, {"descr": "<f4", "fortran_order": False, "shape": (2**30, 2**20)})
    with zipfile.ZipFile(tmp_path / "m.npz", "w") as archive:
        archive.writestr("w.npy", blob.getvalue())
    assert "claims" in open_weights(tmp_path / "m.npz").describe()["w"].reason


def test_what_is_no_archive_of_arrays(tmp_path, refused):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("w.txt", "x")
    refused(tmp_path / "a.npz", "no NumPy arrays")
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:
        archive.writestr("w.npy", "x")
    refused(tmp_path / "b.npz", "no NumPy array", "w.npy")
    (tmp_path / "c.npz").write_bytes(b"x" * 100)
    refused(tmp_path / "c.npz", "zip")


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), save=st.sampled_from([np.savez, np.savez_compressed]))
@pytest.mark.filterwarnings("ignore")
def test_a_damaged_file_is_refused_or_still_gives_arrays(tmp_path, data, save, damages, reads_or_refuses):
    save(tmp_path / "m.npz", **ARRAYS)
    path = tmp_path / "damaged.npz"
    path.write_bytes(data.draw(damages)((tmp_path / "m.npz").read_bytes()))
    reads_or_refuses(path)
