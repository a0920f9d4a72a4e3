"""The public data sets that are known by name: where they are, what they are, and how their files are read.

Checksums. The SHA-256 values are those that many independent public projects pin for the official files. Checked
against data at hand: the unpacked MNIST and Fashion-MNIST files (four each), the packed Fashion-MNIST labels, and
`iris.data` and `optdigits.tes`, which can be written anew, byte for byte, from scikit-learn's copies. The archive of
CIFAR-10 was not at hand; its value is pinned by projects in Go, Ruby and Python, and its publisher's page gives MD5
c32a1d4ab5d03f1284b67883e8d87530, which the same file has by their account. A wrong value would refuse a right file; it
cannot let a wrong one pass.
"""

from __future__ import annotations

import gzip
import io
import tarfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stratoscope.errors import DataError, require
from stratoscope.network.downloads import RemoteFile
from stratoscope.network.readers import read_csv, read_idx

Pair = tuple[NDArray[Any], NDArray[Any]]

UCI = "https://archive.ics.uci.edu/ml/machine-learning-databases"

DIGITS = tuple("0123456789")

CIFAR_IMAGES = 10_000
CIFAR_ROW = 1 + 3 * 32 * 32
CIFAR_FOLDER = "cifar-10-batches-bin"
CIFAR_SPLITS = {"train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test": ("test_batch.bin",)}
TAR_LIMIT = 256 * 2**20
"""Bytes that the CIFAR-10 archive, which has 184 million, may unpack to."""


@dataclass(frozen=True)
class PublicSet:
    """A public data set.

    Attributes:
        name: by which it is loaded.
        title: for people.
        homepage: its publisher's page.
        licence: as stated there, or that none is.
        source: who made it.
        shape: of one example, as it is loaded.
        classes: what the labels stand for.
        splits: examples in each split.
        scale: the stored numbers are divided by this.
        files: for each split, what must be had; empty where a library brings the data.
        read: turns the files of one split, by name, into stored numbers (pictures with channels first) and labels.
        note: what is worth knowing.
    """

    name: str
    title: str
    homepage: str
    licence: str
    source: str
    shape: tuple[int, ...]
    classes: tuple[str, ...]
    splits: Mapping[str, int]
    scale: float
    files: Mapping[str, tuple[RemoteFile, ...]]
    read: Callable[[Mapping[str, Path], str], Pair] = field(repr=False)
    note: str = ""


def read_idx_pair(paths: Mapping[str, Path], split: str) -> Pair:
    """Pictures and labels from the two IDX files of a split."""
    images, labels = (read_idx(path) for path in paths.values())
    if images.ndim != 3 or labels.shape != images.shape[:1]:
        raise DataError(f"Split {split!r} has images of shape {images.shape} and labels of shape {labels.shape}.")
    return images[:, None], labels


def read_cifar10(path: str | Path, split: str) -> Pair:
    """Read a split from the binary version of CIFAR-10 (`cifar-10-binary.tar.gz`); nothing is unpacked to disk.

    Args:
        path: the archive.
        split: `"train"` or `"test"`.

    Returns:
        `uint8 (n, 3, 32, 32)` and `uint8 (n,)`.

    Raises:
        DataError: if the archive is damaged, too large, or lacks a file of the right length.
    """
    wanted = {f"{CIFAR_FOLDER}/{name}": at for at, name in enumerate(CIFAR_SPLITS[split])}
    found: dict[int, bytes] = {}
    try:
        with (
            gzip.open(path, "rb") as unpacked,
            io.BufferedReader(_Metered(unpacked, path)) as stream,
            tarfile.open(fileobj=stream, mode="r|") as archive,
        ):
            for member in archive:
                file = archive.extractfile(member) if member.isreg() and member.name in wanted else None
                if file is not None and member.size == CIFAR_IMAGES * CIFAR_ROW:
                    found[wanted[member.name]] = file.read()
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, ValueError, zlib.error) as error:
        raise DataError(f"{path} is no sound archive: {error}.") from error
    lacking = [name for name, at in wanted.items() if len(found.get(at, b"")) != CIFAR_IMAGES * CIFAR_ROW]
    if lacking:
        raise DataError(f"{path} lacks {lacking[0]} of {CIFAR_IMAGES * CIFAR_ROW:,} bytes.")
    rows = np.frombuffer(b"".join(found[at] for at in sorted(found)), np.uint8).reshape(-1, CIFAR_ROW)
    return rows[:, 1:].reshape(-1, 3, 32, 32), rows[:, 0]


class _Metered(io.RawIOBase):
    """A stream that refuses to give more than the archive may hold."""

    def __init__(self, file: gzip.GzipFile, path: str | Path) -> None:
        super().__init__()
        self._file, self._path, self._seen = file, path, 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer."""
        count = self._file.readinto(buffer)
        self._seen += count
        if self._seen > TAR_LIMIT:
            raise DataError(f"{self._path} unpacks to more than {TAR_LIMIT:,} bytes, which CIFAR-10 does not.")
        return count


def _read_cifar10(paths: Mapping[str, Path], split: str) -> Pair:
    return read_cifar10(next(iter(paths.values())), split)


def _read_digits(paths: Mapping[str, Path], split: str) -> Pair:
    found = require("sklearn.datasets", "demo").load_digits()
    return found.images[:, None], found.target


def _table(label: int, leave_out: int | None = None) -> Callable[[Mapping[str, Path], str], Pair]:
    """Reads a table without header: which column is the label, and which is no measurement."""

    def read(paths: Mapping[str, Path], split: str) -> Pair:
        table = read_csv(next(iter(paths.values())), header=False)
        names = list(table.columns)
        out = [names[label]] + ([] if leave_out is None else [names[leave_out]])
        codes = table.labels(names[label])
        return table.matrix(out), codes - codes.min()

    return read


def _read_optdigits(paths: Mapping[str, Path], split: str) -> Pair:
    inputs, labels = _table(-1)(paths, split)
    return inputs.reshape(-1, 1, 8, 8), labels


def _idx_files(
    urls: tuple[str, ...], packed: Mapping[str, tuple[str, int]], content: Mapping[str, str]
) -> dict[str, tuple[RemoteFile, ...]]:
    """The four files of MNIST and of sets made in its image."""
    lengths = {"t10k-images": 7_840_016, "t10k-labels": 10_008, "train-images": 47_040_016, "train-labels": 60_008}

    def one(part: str) -> RemoteFile:
        name = f"{part}-idx{3 if part.endswith('images') else 1}-ubyte.gz"
        digest, length = packed[part]
        return RemoteFile(name, tuple(url + name for url in urls), digest, length, content[part], lengths[part])

    return {
        split: (one(f"{part}-images"), one(f"{part}-labels")) for split, part in (("train", "train"), ("test", "t10k"))
    }


def _uci(folder: str, name: str, sha256: str, nbytes: int) -> RemoteFile:
    return RemoteFile(name, (f"{UCI}/{folder}/{name}",), sha256, nbytes)


_CC_BY = "CC BY 4.0 (by UCI's general terms)"

_ALL = (
    PublicSet(
        name="mnist",
        title="MNIST handwritten digits",
        homepage="http://yann.lecun.com/exdb/mnist/",
        licence="none stated by its authors; usually taken as CC BY-SA 3.0",
        source="Y. LeCun, C. Cortes, C. J. C. Burges (1998), doi:10.1109/5.726791",
        shape=(1, 28, 28),
        classes=DIGITS,
        splits={"train": 60_000, "test": 10_000},
        scale=255,
        files=_idx_files(
            # the homepage refuses downloads; these two carry its files unchanged
            (
                "https://ossci-datasets.s3.amazonaws.com/mnist/",
                "https://storage.googleapis.com/cvdf-datasets/mnist/",
            ),
            {
                "train-images": ("440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609", 9_912_422),
                "train-labels": ("3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c", 28_881),
                "t10k-images": ("8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6", 1_648_877),
                "t10k-labels": ("f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6", 4_542),
            },
            {
                "train-images": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
                "train-labels": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
                "t10k-images": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
                "t10k-labels": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
            },
        ),
        read=read_idx_pair,
    ),
    PublicSet(
        name="fashion_mnist",
        title="Fashion-MNIST pictures of clothes",
        homepage="https://github.com/zalandoresearch/fashion-mnist",
        licence="MIT",
        source="H. Xiao, K. Rasul, R. Vollgraf, arXiv:1708.07747",
        shape=(1, 28, 28),
        classes=(
            "T-shirt/top",
            "Trouser",
            "Pullover",
            "Dress",
            "Coat",
            "Sandal",
            "Shirt",
            "Sneaker",
            "Bag",
            "Ankle boot",
        ),
        splits={"train": 60_000, "test": 10_000},
        scale=255,
        files=_idx_files(
            (
                "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
                "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            ),
            {
                "train-images": ("3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84", 26_421_880),
                "train-labels": ("a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845", 29_515),
                "t10k-images": ("346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073", 4_422_102),
                "t10k-labels": ("67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5", 5_148),
            },
            {
                "train-images": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
                "train-labels": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
                "t10k-images": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
                "t10k-labels": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
            },
        ),
        read=read_idx_pair,
    ),
    PublicSet(
        name="cifar10",
        title="CIFAR-10 tiny colour pictures",
        homepage="https://www.cs.toronto.edu/~kriz/cifar.html",
        licence="none stated",
        source="A. Krizhevsky (2009), Learning Multiple Layers of Features from Tiny Images",
        shape=(3, 32, 32),
        classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        splits={"train": 50_000, "test": 10_000},
        scale=255,
        files=dict.fromkeys(
            ("train", "test"),
            (
                RemoteFile(
                    "cifar-10-binary.tar.gz",
                    ("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",),
                    "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
                    170_052_171,
                ),
            ),
        ),
        read=_read_cifar10,
        note="The binary version, since the usual one for Python is a pickle, which can run code.",
    ),
    PublicSet(
        name="digits",
        title="Small handwritten digits, as scikit-learn ships them",
        homepage="https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits",
        licence=_CC_BY,
        source="E. Alpaydin, C. Kaynak (1998), doi:10.24432/C50P49",
        shape=(1, 8, 8),
        classes=DIGITS,
        splits={"all": 1_797},
        scale=16,
        files={"all": ()},
        read=_read_digits,
        note="The test part of optdigits; needs scikit-learn and no download.",
    ),
    PublicSet(
        name="optdigits",
        title="Small handwritten digits",
        homepage="https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits",
        licence=_CC_BY,
        source="E. Alpaydin, C. Kaynak (1998), doi:10.24432/C50P49",
        shape=(1, 8, 8),
        classes=DIGITS,
        splits={"train": 3_823, "test": 1_797},
        scale=16,
        files={
            "train": (
                _uci(
                    "optdigits",
                    "optdigits.tra",
                    "e1b683cc211604fe8fd8c4417e6a69f31380e0c61d4af22e93cc21e9257ffedd",
                    563_639,
                ),
            ),
            "test": (
                _uci(
                    "optdigits",
                    "optdigits.tes",
                    "6ebb3d2fee246a4e99363262ddf8a00a3c41bee6014c373ed9d9216ba7f651b8",
                    264_712,
                ),
            ),
        },
        read=_read_optdigits,
        note="Train and test have different writers.",
    ),
    PublicSet(
        name="iris",
        title="Iris flowers",
        homepage="https://archive.ics.uci.edu/dataset/53/iris",
        licence=_CC_BY,
        source="R. A. Fisher (1936), doi:10.24432/C56C76",
        shape=(4,),
        classes=("Iris-setosa", "Iris-versicolor", "Iris-virginica"),
        splits={"all": 150},
        scale=1,
        files={
            "all": (
                _uci("iris", "iris.data", "6f608b71a7317216319b4d27b4d9bc84e6abd734eda7872b71a458569e2656c0", 4_551),
            )
        },
        read=_table(-1),
        note="Rows come class by class. Two rows (35 and 38) differ from Fisher's article, as they do in the official file.",
    ),
    PublicSet(
        name="wine",
        title="Chemical analysis of wines of three cultivars",
        homepage="https://archive.ics.uci.edu/dataset/109/wine",
        licence=_CC_BY,
        source="S. Aeberhard, M. Forina (1991), doi:10.24432/C5PC7J",
        shape=(13,),
        classes=("1", "2", "3"),
        splits={"all": 178},
        scale=1,
        files={
            "all": (
                _uci("wine", "wine.data", "6be6b1203f3d51df0b553a70e57b8a723cd405683958204f96d23d7cd6aea659", 10_782),
            )
        },
        read=_table(0),
        note="Rows come class by class; columns have very different scales.",
    ),
    PublicSet(
        name="breast_cancer",
        title="Breast cancer Wisconsin (diagnostic)",
        homepage="https://archive.ics.uci.edu/dataset/17/breast+cancer+wisconsin+diagnostic",
        licence=_CC_BY,
        source="W. Wolberg, O. Mangasarian, N. Street, W. Street (1995), doi:10.24432/C5DW2B",
        shape=(30,),
        classes=("benign", "malignant"),
        splits={"all": 569},
        scale=1,
        files={
            "all": (
                _uci(
                    "breast-cancer-wisconsin",
                    "wdbc.data",
                    "d606af411f3e5be8a317a5a8b652b425aaf0ff38ca683d5327ffff94c3695f4a",
                    124_103,
                ),
            )
        },
        read=_table(1, leave_out=0),
        note="The column of patient numbers is left out.",
    ),
)

PUBLIC_SETS: Mapping[str, PublicSet] = {found.name: found for found in _ALL}
"""Every set by name."""
