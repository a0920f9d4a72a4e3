"""Public data sets: fetched once, checked, and nothing wrong is ever kept."""

import dataclasses
import gzip
import hashlib
import io
import struct
import sys
import tarfile
import warnings

import numpy as np
import pytest
import torch

from stratoscope.errors import DataError, SettingError
from stratoscope.network import datasets, downloads, public_sets
from stratoscope.network.downloads import RemoteFile, cache_folder, fetched


@pytest.fixture(autouse=True)
def _no_folders_of_the_user(monkeypatch, tmp_path):
    for name in ("STRATOSCOPE_DATA", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("STRATOSCOPE_CACHE", str(tmp_path / "cache"))


def remote(tmp_path, content, name="a.bin", **more):
    place = tmp_path / "server"
    place.mkdir(exist_ok=True)
    (place / name).write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    return RemoteFile(
        **{"name": name, "urls": ((place / name).as_uri(),), "sha256": digest, "nbytes": len(content), **more}
    )


def idx(array):
    head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.tobytes()


def small_set(tmp_path, monkeypatch, n=6):
    """A set like MNIST of a few pictures, on a file server."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (n, 4, 4), dtype=np.uint8), rng.integers(0, 10, n, dtype=np.uint8)
    files = []
    for name, array in (("test-images.gz", images), ("test-labels.gz", labels)):
        content = idx(array)
        files.append(
            remote(
                tmp_path,
                gzip.compress(content, mtime=0),
                name,
                content_sha256=hashlib.sha256(content).hexdigest(),
                content_nbytes=len(content),
            )
        )
    found = dataclasses.replace(
        public_sets.PUBLIC_SETS["mnist"],
        name="small",
        shape=(1, 4, 4),
        splits={"test": n},
        files={"test": tuple(files)},
    )
    monkeypatch.setattr(datasets, "PUBLIC_SETS", {"small": found})
    return found, images, labels


# --- one file


def test_download_is_kept_and_not_repeated(tmp_path):
    content = np.random.default_rng(0).bytes(3 * 2**20)
    file, told = remote(tmp_path, content), []
    path = fetched(file, tmp_path / "to", progress=lambda *said: told.append(said))
    assert path.read_bytes() == content
    assert told[-1] == ("a.bin", len(content), len(content))
    assert [p.name for p in (tmp_path / "to").iterdir()] == ["a.bin"]
    again = dataclasses.replace(file, urls=("file:///nowhere",))
    assert fetched(again, tmp_path / "to", download=False) == path


@pytest.mark.parametrize("change", ["other bytes", "shorter", "longer"])
def test_wrong_content_leaves_nothing_behind(tmp_path, change):
    file = remote(tmp_path, b"0123456789")
    served = {"other bytes": b"012345678x", "shorter": b"0123", "longer": b"0123456789" * 10}[change]
    (tmp_path / "server" / "a.bin").write_bytes(served)
    with pytest.raises(DataError, match="nothing was kept"):
        fetched(file, tmp_path / "to")
    assert list((tmp_path / "to").iterdir()) == []


def test_an_interrupted_download_leaves_nothing_behind(tmp_path):
    def interrupt(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetched(remote(tmp_path, b"0123456789"), tmp_path / "to", progress=interrupt)
    assert list((tmp_path / "to").iterdir()) == []


def test_second_address_is_tried(tmp_path):
    file = remote(tmp_path, b"content")
    file = dataclasses.replace(file, urls=((tmp_path / "absent").as_uri(), *file.urls))
    assert fetched(file, tmp_path / "to").read_bytes() == b"content"


def test_offline_says_the_address_and_the_folder(tmp_path):
    file = dataclasses.replace(remote(tmp_path, b"content"), urls=("https://localhost:1/a.bin",))
    for download in (True, False):
        with pytest.raises(DataError) as caught:
            fetched(file, tmp_path / "to", download=download)
        assert "https://localhost:1/a.bin" in str(caught.value)
        assert str(tmp_path / "to") in str(caught.value)


def test_a_wrong_file_in_the_cache_is_not_used(tmp_path):
    file = remote(tmp_path, b"content")
    (tmp_path / "to").mkdir()
    (tmp_path / "to" / "a.bin").write_bytes(b"contend")
    with pytest.raises(DataError, match="not the published file"):
        fetched(file, tmp_path / "to")


def test_cache_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataError, match="STRATOSCOPE_CACHE"):
        fetched(remote(tmp_path, b"content"), tmp_path / "file" / "sub")


def test_cache_folder_order(tmp_path, monkeypatch):
    assert cache_folder(tmp_path / "given") == tmp_path / "given"
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("STRATOSCOPE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "stratoscope"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/is/to/be/ignored")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "linux")
    assert cache_folder() == tmp_path / ".cache" / "stratoscope"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cache_folder() == tmp_path / "Library" / "Caches" / "stratoscope"
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert cache_folder() == tmp_path / "local" / "stratoscope" / "Cache"


# --- whole sets


def test_load_downloads_scales_and_caches(tmp_path, monkeypatch):
    _, images, labels = small_set(tmp_path, monkeypatch)
    inputs, targets = datasets.load("small")["test"]
    torch.testing.assert_close(inputs, torch.from_numpy(images)[:, None].float() / 255)
    assert targets.tolist() == labels.tolist()
    assert targets.dtype == torch.int64
    for file in (tmp_path / "server").iterdir():
        file.unlink()
    raw, _ = datasets.load("small", split="test", download=False, raw=True)["test"]
    assert raw.dtype == torch.uint8
    np.testing.assert_array_equal(raw[:, 0].numpy(), images)
    raw += 1  # the tensors are the caller's own


@pytest.mark.parametrize("packed", ["as published", "packed anew", "unpacked"])
def test_data_folder_is_looked_in_first(tmp_path, monkeypatch, packed):
    found, images, _ = small_set(tmp_path, monkeypatch)
    mine = tmp_path / "mine" / "small"
    mine.mkdir(parents=True)
    for file in found.files["test"]:
        content = gzip.decompress((tmp_path / "server" / file.name).read_bytes())
        if packed == "unpacked":
            (mine / file.name.removesuffix(".gz")).write_bytes(content)
        else:
            (mine / file.name).write_bytes(gzip.compress(content, 1 if packed == "packed anew" else 9, mtime=0))
    monkeypatch.setenv("STRATOSCOPE_DATA", str(tmp_path / "mine"))
    inputs, _ = datasets.load("small", download=False, raw=True)["test"]
    np.testing.assert_array_equal(inputs[:, 0].numpy(), images)
    assert not (tmp_path / "cache").exists()


def test_data_folder_with_another_content_is_refused(tmp_path, monkeypatch):
    found, images, _ = small_set(tmp_path, monkeypatch)
    mine = tmp_path / "mine" / "small"
    mine.mkdir(parents=True)
    (mine / found.files["test"][0].name).write_bytes(gzip.compress(idx(images[::-1].copy())))
    monkeypatch.setenv("STRATOSCOPE_DATA", str(tmp_path / "mine"))
    with pytest.raises(DataError, match="another SHA-256"):
        datasets.load("small")


def test_content_check_stops_early_on_a_bomb(tmp_path, monkeypatch):
    found, _, _ = small_set(tmp_path, monkeypatch)
    mine = tmp_path / "mine" / "small"
    mine.mkdir(parents=True)
    bomb = mine / found.files["test"][0].name
    bomb.write_bytes(gzip.compress(bytes(64 * 2**20), 1))
    seen = []
    real = gzip.GzipFile.read
    monkeypatch.setattr(gzip.GzipFile, "read", lambda self, size=-1: seen.append(out := real(self, size)) or out)
    assert not downloads.is_right(bomb, found.files["test"][0])
    assert 0 < sum(map(len, seen)) <= 2 * downloads.BLOCK


def test_names_that_do_not_exist():
    with pytest.raises(SettingError, match="there are mnist"):
        datasets.load("imagenet")
    with pytest.raises(SettingError, match="it has train, test"):
        datasets.load("mnist", split="validation")


@pytest.mark.parametrize("name", datasets.names())
def test_what_is_said_of_each_set_is_complete(name):
    found = datasets.info(name)
    assert found.name == name
    assert found.licence
    assert found.homepage.startswith("http")
    assert set(found.files) == set(found.splits)
    assert all(n > 0 for n in found.splits.values())
    for files in found.files.values():
        for file in files:
            assert len(bytes.fromhex(file.sha256)) == 32
            assert file.nbytes > 1000
            assert all(url.endswith(file.name) for url in file.urls)
            assert bool(file.content_sha256) == bool(file.content_nbytes)


def test_scikit_learn_digits():
    pytest.importorskip("sklearn")
    inputs, labels = datasets.load("digits")["all"]
    assert inputs.shape == (1797, 1, 8, 8)
    assert (float(inputs.min()), float(inputs.max())) == (0, 1)
    assert labels.bincount().tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def official_iris():
    """The official file, written anew from scikit-learn's copy, in which two rows were corrected."""
    found = pytest.importorskip("sklearn.datasets").load_iris()
    rows = found.data.copy()
    rows[[34, 37]] = [4.9, 3.1, 1.5, 0.1]
    words = datasets.info("iris").classes
    lines = [",".join(f"{v:.1f}" for v in row) + f",{words[y]}\n" for row, y in zip(rows, found.target, strict=True)]
    return ("".join(lines) + "\n").encode(), rows, found.target


def test_official_iris_has_the_published_checksum_and_is_read(tmp_path):
    content, rows, labels = official_iris()
    folder = tmp_path / "cache" / "data" / "iris"
    folder.mkdir(parents=True)
    (folder / "iris.data").write_bytes(content)
    inputs, targets = datasets.load("iris", download=False)["all"]
    np.testing.assert_allclose(inputs, rows, rtol=1e-6)
    assert targets.tolist() == labels.tolist()


def test_official_optdigits_has_the_published_checksum_and_is_read(tmp_path):
    found = pytest.importorskip("sklearn.datasets").load_digits()
    lines = [",".join(str(int(v)) for v in row) + f",{y}\n" for row, y in zip(found.data, found.target, strict=True)]
    folder = tmp_path / "cache" / "data" / "optdigits"
    folder.mkdir(parents=True)
    (folder / "optdigits.tes").write_bytes("".join(lines).encode())
    inputs, targets = datasets.load("optdigits", split="test", download=False)["test"]
    other, same = datasets.load("digits")["all"]
    assert torch.equal(inputs, other)
    assert torch.equal(targets, same)


def test_tables_with_labels_in_front_and_numbers_of_patients(tmp_path):
    (tmp_path / "wine").write_text("1,14.2,1.7\n3,12.0,2.5\n2,13.1,0.5\n")
    inputs, labels = public_sets.PUBLIC_SETS["wine"].read({"f": tmp_path / "wine"}, "all")
    assert inputs.tolist() == [[14.2, 1.7], [12.0, 2.5], [13.1, 0.5]]
    assert labels.tolist() == [0, 2, 1]
    (tmp_path / "wdbc").write_text("842302,M,17.99,10.38\n8510426,B,13.54,14.36\n")
    inputs, labels = public_sets.PUBLIC_SETS["breast_cancer"].read({"f": tmp_path / "wdbc"}, "all")
    assert inputs.tolist() == [[17.99, 10.38], [13.54, 14.36]]
    assert [datasets.info("breast_cancer").classes[at] for at in labels] == ["malignant", "benign"]


def test_real_mnist_and_fashion_mnist(data_folder, monkeypatch):
    monkeypatch.setenv("STRATOSCOPE_DATA", str(data_folder))
    for name in ("mnist", "fashion_mnist"):
        inputs, labels = datasets.load(name, split="test", download=False)["test"]
        assert inputs.shape == (10_000, 1, 28, 28)
        assert len(labels.unique()) == 10
    assert labels.bincount().tolist() == [1000] * 10


# --- CIFAR-10


def cifar_archive(path, rows, names=("data_batch_1.bin", "data_batch_2.bin", "test_batch.bin"), more=()):
    with warnings.catch_warnings(), tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for name, content in [*((f"cifar-10-batches-bin/{n}", rows[n]) for n in names if n in rows), *more]:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


@pytest.fixture
def small_cifar(monkeypatch):
    """Two batches for training and one for testing, of three pictures each."""
    monkeypatch.setattr(public_sets, "CIFAR_IMAGES", 3)
    monkeypatch.setattr(
        public_sets, "CIFAR_SPLITS", {"train": ("data_batch_1.bin", "data_batch_2.bin"), "test": ("test_batch.bin",)}
    )
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (9, 3, 32, 32), dtype=np.uint8)
    labels = rng.integers(0, 10, 9, dtype=np.uint8)
    rows = np.concatenate([labels[:, None], images.reshape(9, -1)], axis=1)
    names = ("data_batch_1.bin", "data_batch_2.bin", "test_batch.bin")
    return images, labels, {name: rows[3 * at : 3 * at + 3].tobytes() for at, name in enumerate(names)}


def test_cifar_is_read_in_the_order_of_its_batches(tmp_path, small_cifar):
    images, labels, rows = small_cifar
    path = tmp_path / "c.tar.gz"
    cifar_archive(path, rows, names=("test_batch.bin", "data_batch_2.bin", "data_batch_1.bin"))
    for split, part in (("train", slice(0, 6)), ("test", slice(6, 9))):
        found, classes = public_sets.read_cifar10(path, split)
        np.testing.assert_array_equal(found, images[part])
        np.testing.assert_array_equal(classes, labels[part])


def test_cifar_members_outside_their_place_are_not_read(tmp_path, small_cifar):
    _, _, rows = small_cifar
    path = tmp_path / "c.tar.gz"
    elsewhere = [("../test_batch.bin", rows["test_batch.bin"]), ("/test_batch.bin", rows["test_batch.bin"])]
    cifar_archive(path, rows, names=("data_batch_1.bin",), more=elsewhere)
    with pytest.raises(DataError, match=r"lacks .*test_batch\.bin"):
        public_sets.read_cifar10(path, "test")
    link = tarfile.TarInfo("cifar-10-batches-bin/test_batch.bin")
    link.type, link.linkname, link.size = tarfile.SYMTYPE, "/etc/passwd", 0
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(link)
    with pytest.raises(DataError, match="lacks"):
        public_sets.read_cifar10(path, "test")
    assert list(tmp_path.iterdir()) == [path]


def test_cifar_damaged_short_and_a_bomb(tmp_path, small_cifar, monkeypatch):
    _, _, rows = small_cifar
    path = tmp_path / "c.tar.gz"
    cifar_archive(path, rows)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"no sound archive|lacks"):
        public_sets.read_cifar10(path, "test")
    path.write_bytes(b"not gzip")
    with pytest.raises(DataError, match="no sound archive"):
        public_sets.read_cifar10(path, "test")
    cifar_archive(path, {name: content[:-1] for name, content in rows.items()})
    with pytest.raises(DataError, match="lacks"):
        public_sets.read_cifar10(path, "test")
    monkeypatch.setattr(public_sets, "TAR_LIMIT", 2**20)
    cifar_archive(path, rows, more=[("padding", bytes(8 * 2**20))])
    with pytest.raises(DataError, match="unpacks to more than"):
        public_sets.read_cifar10(path, "test")
