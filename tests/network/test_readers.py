"""Readers: every value comes back, and no file can make the machine suffer."""

import gzip
import io
import struct
import warnings
import zipfile
import zlib

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from safetensors.torch import save_file

from stratoscope.errors import DataError
from stratoscope.network.readers import limits as limits_module
from stratoscope.network.readers import (
    read_csv,
    read_idx,
    read_image,
    read_image_folder,
    read_npz,
    read_packed_images,
    read_safetensors,
)

CODES = {"u1": 8, "i1": 9, "i2": 11, "i4": 12, "f4": 13, "f8": 14}


def idx_bytes(array):
    head = bytes([0, 0, CODES[array.dtype.str[1:]], array.ndim])
    return head + struct.pack(f">{array.ndim}I", *array.shape) + array.astype(array.dtype.newbyteorder(">")).tobytes()


# --- IDX


@given(
    array=st.sampled_from(sorted(CODES)).flatmap(
        lambda kind: hnp.arrays(np.dtype(f"={kind}"), hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=5))
    ),
    packed=st.booleans(),
)
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_idx_round_trip(tmp_path, array, packed):
    path = tmp_path / "a.idx"
    path.write_bytes(gzip.compress(idx_bytes(array)) if packed else idx_bytes(array))
    found = read_idx(path)
    assert found.dtype == array.dtype
    assert found.dtype.isnative
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("cut", [0, 3, 6, 12, 15])
def test_idx_cut_off_says_so(tmp_path, cut, packed):
    whole = idx_bytes(np.arange(8, dtype=np.uint8).reshape(2, 4))
    path = tmp_path / "a.idx"
    path.write_bytes(gzip.compress(whole[:cut]) if packed else whole[:cut])
    with pytest.raises(DataError):
        read_idx(path)


def test_idx_cut_gzip_and_left_over_bytes(tmp_path):
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(idx_bytes(np.random.default_rng(0).integers(0, 255, 4000, dtype=np.uint8)))[:-900])
    with pytest.raises(DataError, match="cut off"):
        read_idx(path)
    path.write_bytes(idx_bytes(np.zeros(4, np.uint8)) + b"x")
    with pytest.raises(DataError, match="holds more"):
        read_idx(path)


@pytest.mark.parametrize("magic", [b"\0\0\x07\x01", b"\x01\0\x08\x01", b"PK\x03\x04", b"\0\0\x08\xff"])
def test_idx_bad_magic(tmp_path, magic):
    (tmp_path / "a").write_bytes(magic + bytes(2000))
    with pytest.raises(DataError, match=r"no IDX file|dimensions"):
        read_idx(tmp_path / "a")


def test_idx_header_that_promises_much_takes_no_memory(tmp_path):
    promise = bytes([0, 0, 14, 3]) + struct.pack(">3I", 2**32 - 1, 2**32 - 1, 2**32 - 1)
    for name, content in (("a", promise), ("a.gz", gzip.compress(promise + bytes(10**6)))):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match="only"):
            read_idx(tmp_path / name)


def test_idx_gzip_bomb_is_refused_and_a_limit_can_be_set(tmp_path):
    zeros = np.zeros(70 * 2**20, np.uint8)
    (tmp_path / "bomb.gz").write_bytes(gzip.compress(idx_bytes(zeros), 9))
    with pytest.raises(DataError, match="exhaust memory"):
        read_idx(tmp_path / "bomb.gz")
    (tmp_path / "plain").write_bytes(idx_bytes(np.zeros(2000, np.uint8)))
    with pytest.raises(DataError, match="max_bytes"):
        read_idx(tmp_path / "plain", max_bytes=1999)


def test_idx_impossible_sizes(tmp_path):
    (tmp_path / "a").write_bytes(bytes([0, 0, 8, 4]) + struct.pack(">4I", 0, 2**32 - 1, 2**32 - 1, 2**32 - 1))
    with pytest.raises(DataError, match="no array can have"):
        read_idx(tmp_path / "a")


def test_no_file_and_a_folder(tmp_path):
    with pytest.raises(DataError, match="nothing is there"):
        read_idx(tmp_path / "absent")
    with pytest.raises(DataError, match="a folder is there"):
        read_npz(tmp_path)


# --- npz and safetensors


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_gives_back_what_was_saved(tmp_path, save):
    given = {
        "x": np.random.default_rng(0).normal(size=(3, 4)),
        "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "big": np.arange(3, dtype=">i4"),
        "words": np.array(["a", "bc"]),
        "one": np.array(5),
        "none": np.zeros((0, 3), np.float32),
    }
    save(tmp_path / "a.npz", **given)
    found = read_npz(tmp_path / "a.npz")
    assert list(found) == list(given)
    for name, array in given.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype


class Evil:
    """Touches a file if it is ever unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_npz_with_objects_is_refused_and_nothing_runs(tmp_path):
    array = np.empty(1, dtype=object)
    array[0] = Evil(tmp_path / "ran")
    np.savez(tmp_path / "a.npz", x=array)
    with pytest.raises(DataError, match="Python objects in 'x'"):
        read_npz(tmp_path / "a.npz")
    assert not (tmp_path / "ran").exists()


def test_npz_bomb_is_refused_before_it_is_read(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "bomb.npz", x=np.zeros(80 * 2**20, np.uint8))
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *_, **__: pytest.fail("a member was opened"))
    with pytest.raises(DataError, match="exhaust memory"):
        read_npz(tmp_path / "bomb.npz")
    with pytest.raises(DataError, match="limit is 1 MiB"):
        read_npz(tmp_path / "bomb.npz", max_bytes=2**20)


def test_npz_limits_of_members(tmp_path, monkeypatch):
    monkeypatch.setattr(limits_module, "MAX_MEMBERS", 3)
    np.savez(tmp_path / "a.npz", *range(4))
    with pytest.raises(DataError, match="4 members"):
        read_npz(tmp_path / "a.npz")
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(DataError, match="no array"):
        read_npz(tmp_path / "b.npz")


def test_npz_with_two_arrays_of_one_name_or_a_directory_that_lies(tmp_path):
    with warnings.catch_warnings(), zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        warnings.simplefilter("ignore")
        for value in (1, 2):
            archive.writestr("x.npy", npy("|u1", (1,), bytes([value])))
    with pytest.raises(DataError, match="same name"):
        read_npz(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", x=np.zeros(3))
    whole = bytearray((tmp_path / "b.npz").read_bytes())
    whole[-10:-6] = struct.pack("<I", 2**31)
    (tmp_path / "b.npz").write_bytes(whole)
    with pytest.raises(DataError, match="directory claims"):
        read_npz(tmp_path / "b.npz")


def npy(descr, shape, body=b""):
    head = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape!r}, }}".encode()
    head += b" " * (63 - (10 + len(head)) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + body


@pytest.mark.parametrize(
    "content",
    [
        npy("<f8", (2**40,), b"12345678"),
        npy("<f8", (2,), b"12345678"),
        npy("<f8", (1,), b"12345678 and more"),
        npy("<f8", (-1,), b"12345678"),
        npy("nonsense", (1,), b"12345678"),
        b"\x93NUMPY\x09\x00",
        b"not an array",
        b"",
    ],
)
def test_npz_with_a_false_header(tmp_path, content):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", content)
    with pytest.raises(DataError, match=r"'x'|x\.npy"):
        read_npz(tmp_path / "a.npz")


def test_npz_damaged(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, x=np.arange(1000))
    whole = path.read_bytes()
    path.write_bytes(whole[:3000])
    with pytest.raises(DataError):
        read_npz(path)
    path.write_bytes(whole[:4000] + b"\xff" + whole[4001:])
    with pytest.raises(DataError, match="CRC"):
        read_npz(path)


@given(flips=st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 255)), min_size=1, max_size=4))
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_npz_damaged_anywhere_is_a_data_error_or_right(tmp_path, flips):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, x=np.arange(50), y=np.ones(3))
    whole = bytearray(path.read_bytes())
    for at, change in flips:
        whole[at % len(whole)] ^= change
    path.write_bytes(whole)
    try:
        found = read_npz(path)
    except DataError:
        return
    assert all(isinstance(array, np.ndarray) for array in found.values())


def test_safetensors(tmp_path):
    given = {"x": torch.arange(4, dtype=torch.bfloat16), "y": torch.arange(3)}
    save_file(given, tmp_path / "a.safetensors")
    found = read_safetensors(tmp_path / "a.safetensors")
    assert {name: t.tolist() for name, t in found.items()} == {name: t.tolist() for name, t in given.items()}
    (tmp_path / "b.safetensors").write_bytes(struct.pack("<Q", 2**60) + b"{}")
    with pytest.raises(DataError, match="safetensors"):
        read_safetensors(tmp_path / "b.safetensors")


# --- pictures


def as_bytes(picture, kind="PNG", **options):
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


COLOUR = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def test_image_colour_grey_and_forced_channels(tmp_path):
    Image.fromarray(COLOUR).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), COLOUR)
    assert read_image(tmp_path / "a.png", channels=1).shape == (5, 7, 1)
    grey = as_bytes(Image.fromarray(COLOUR[:, :, 0]))
    np.testing.assert_array_equal(read_image(grey), COLOUR[:, :, :1])
    np.testing.assert_array_equal(read_image(grey, channels=3), np.repeat(COLOUR[:, :, :1], 3, 2))
    with pytest.raises(DataError, match="1 or 3"):
        read_image(grey, channels=4)


def test_image_exif_orientation():
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned by 90 degrees against the clock
    found = read_image(as_bytes(Image.fromarray(COLOUR), exif=exif))
    np.testing.assert_array_equal(found, np.rot90(COLOUR, -1))


def test_image_palette_bits_and_cmyk():
    few = Image.fromarray(COLOUR).quantize(8)
    np.testing.assert_array_equal(read_image(as_bytes(few)), np.asarray(few.convert("RGB")))
    bits = Image.fromarray(COLOUR[:, :, 0] > 99)
    assert set(np.unique(read_image(as_bytes(bits)))) == {0, 255}
    assert read_image(as_bytes(Image.fromarray(COLOUR).convert("CMYK"), "TIFF")).shape == (5, 7, 3)


def test_image_transparency_is_laid_on_white():
    clear = np.dstack([COLOUR, np.zeros((5, 7), np.uint8)])
    clear[0, :, 3] = 255
    found = read_image(as_bytes(Image.fromarray(clear)))
    np.testing.assert_array_equal(found[0], COLOUR[0])
    assert (found[1:] == 255).all()
    grey = np.dstack([COLOUR[:, :, 0], np.zeros((5, 7), np.uint8)])
    assert (
        read_image(as_bytes(Image.merge("LA", [Image.fromarray(np.ascontiguousarray(grey[:, :, i])) for i in (0, 1)])))
        == 255
    ).all()
    keyed = as_bytes(Image.fromarray(np.full((2, 2), 7, np.uint8)), transparency=7)
    np.testing.assert_array_equal(read_image(keyed), np.full((2, 2, 1), 255))


def test_image_sixteen_bits_keep_black_and_white():
    wide = np.array([[0, 257, 65535], [128, 129, 32768]], dtype=np.uint16)
    found = read_image(as_bytes(Image.fromarray(wide)))
    assert found[:, :, 0].tolist() == [[0, 1, 255], [0, 1, 128]]
    with pytest.raises(DataError, match="more than 16 bits"):
        read_image(as_bytes(Image.fromarray(np.array([[-5, 70000]], np.int32)), "TIFF"))
    with pytest.raises(DataError, match="floating"):
        read_image(as_bytes(Image.fromarray(np.ones((2, 2), np.float32)), "TIFF"))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
def test_image_cut_off(kind):
    whole = as_bytes(Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)), kind)
    read_image(whole)
    with pytest.raises(DataError, match="given as bytes"):
        read_image(whole[: len(whole) // 2])


def test_image_that_is_none(tmp_path):
    with pytest.raises(DataError, match="no picture of a known format"):
        read_image(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n")  # needs an outside program: never opened
    with pytest.raises(DataError, match="no picture"):
        read_image(b"")
    with pytest.raises(DataError, match="no file"):
        read_image(tmp_path / "absent.png")


def png_header(width, height):
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", 13)
        + body
        + struct.pack(">I", zlib.crc32(body))
        + struct.pack(">I", 9)
        + b"IDAT"
        + bytes(13)
    )


@pytest.mark.parametrize("side", [8001, 12_000, 60_000])
def test_image_bomb_is_refused_by_its_header(side):
    with pytest.raises(DataError, match="pixels"):
        read_image(png_header(side, side))
    with pytest.raises(DataError, match="limit is 34"):
        read_image(as_bytes(Image.fromarray(COLOUR)), max_pixels=34)


def test_image_size_covers_and_cuts_the_centre():
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 200
    found = read_image(as_bytes(Image.fromarray(wide)), size=10)
    assert found.shape == (10, 10, 3)
    assert (found == 200).all()
    assert read_image(as_bytes(Image.fromarray(wide)), size=(4, 6)).shape == (4, 6, 3)
    with pytest.raises(DataError, match="0 x 3"):
        read_image(as_bytes(Image.fromarray(wide)), size=(0, 3))


def test_image_folder_orders_classes_and_files(tmp_path):
    for name, value in (("b/2", 2), ("b/10", 1), ("a/z", 3), ("a/deep/y", 4)):
        path = tmp_path / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((2, 3), value, np.uint8)).save(path)
    (tmp_path / "a" / "notes.txt").write_text("not a picture")
    (tmp_path / ".hidden").mkdir()
    found = read_image_folder(tmp_path)
    assert found.images.shape == (4, 2, 3, 1)
    assert found.images[:, 0, 0, 0].tolist() == [3, 4, 1, 2]
    assert found.labels.tolist() == [0, 0, 1, 1]
    assert found.names == ("a", "b")


def test_image_folder_mixes_grey_and_colour(tmp_path):
    (tmp_path / "c").mkdir()
    Image.fromarray(COLOUR[:, :, 0]).save(tmp_path / "c" / "0.png")
    Image.fromarray(COLOUR).save(tmp_path / "c" / "1.png")
    Image.fromarray(COLOUR[:, :, 1]).save(tmp_path / "c" / "2.png")
    found = read_image_folder(tmp_path).images
    np.testing.assert_array_equal(found[1], COLOUR)
    for at, channel in ((0, 0), (2, 1)):
        np.testing.assert_array_equal(found[at], np.repeat(COLOUR[:, :, channel : channel + 1], 3, 2))


def test_image_folder_errors(tmp_path):
    with pytest.raises(DataError, match="no folder"):
        read_image_folder(tmp_path / "absent")
    with pytest.raises(DataError, match="no sub-folders"):
        read_image_folder(tmp_path)
    (tmp_path / "a").mkdir()
    with pytest.raises(DataError, match="no pictures"):
        read_image_folder(tmp_path)
    Image.fromarray(COLOUR).save(tmp_path / "a" / "0.png")
    Image.fromarray(COLOUR[:3]).save(tmp_path / "a" / "1.png")
    with pytest.raises(DataError, match=r"5 x 7 .* 3 x\s*7.*size="):
        read_image_folder(tmp_path)
    assert read_image_folder(tmp_path, size=4).images.shape == (2, 4, 4, 3)
    with pytest.raises(DataError, match="limit"):
        read_image_folder(tmp_path, size=4, max_bytes=95)
    (tmp_path / "a" / "1.png").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"1\.png is no picture"):
        read_image_folder(tmp_path)


def packed_file(path, pictures, **more):
    files = [as_bytes(Image.fromarray(p), "PNG") for p in pictures]
    offset = np.cumsum([0, *map(len, files)])
    np.savez(path, jpeg=np.frombuffer(b"".join(files), np.uint8), **{"offset": offset, **more})
    return offset


def test_packed_images(tmp_path):
    pictures = [COLOUR, COLOUR[::-1].copy()]
    packed_file(tmp_path / "a.npz", pictures, label=np.array([1, 0], np.uint8), names=np.array(["cat", "dog"]))
    found = read_packed_images(tmp_path / "a.npz")
    np.testing.assert_array_equal(found.images, np.stack(pictures))
    assert found.labels.tolist() == [1, 0]
    assert found.labels.dtype == np.int64
    assert found.names == ("cat", "dog")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"offset": np.array([0, 5, 3])}, "do not cut"),
        ({"offset": np.array([0, 5, 10**9])}, "do not cut"),
        ({"offset": np.array([0.0, 1.0])}, "not packed"),
        ({"offset": np.array([0])}, "not packed"),
        ({"label": np.array([1])}, "2 pictures and labels"),
    ],
)
def test_packed_images_that_do_not_fit(tmp_path, change, says):
    packed_file(tmp_path / "a.npz", [COLOUR, COLOUR], **change)
    with pytest.raises(DataError, match=says):
        read_packed_images(tmp_path / "a.npz")


def test_packed_images_name_the_broken_one(tmp_path):
    offset = packed_file(tmp_path / "a.npz", [COLOUR, COLOUR])
    arrays = read_npz(tmp_path / "a.npz")
    arrays["jpeg"][offset[1] : offset[1] + 8] = 0
    np.savez(tmp_path / "b.npz", **arrays)
    with pytest.raises(DataError, match=r"picture 1 of .*b\.npz"):
        read_packed_images(tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz", x=np.zeros(2))
    with pytest.raises(DataError, match="keys jpeg and offset"):
        read_packed_images(tmp_path / "c.npz")


# --- tables


def test_csv_numbers_words_and_missing(tmp_path):
    (tmp_path / "a.csv").write_text("size,colour,class\n1.5,red,0\n?,blue,1\n\n3,,1\nNA,red,0\n")
    table = read_csv(tmp_path / "a.csv")
    assert len(table) == 4
    np.testing.assert_array_equal(table.columns["size"], [1.5, np.nan, 3, np.nan])
    assert table.columns["colour"].tolist() == [1, 0, -1, 1]
    assert table.categories == {"colour": ("blue", "red")}
    assert table.missing == {"size": 2, "colour": 1}
    assert table.label_name() == "class"
    assert table.labels("class").tolist() == [0, 1, 1, 0]
    np.testing.assert_array_equal(table.matrix(["class"]), [[1.5, 1], [np.nan, 0], [3, np.nan], [np.nan, 1]])
    whole = table.without_missing()
    assert len(whole) == 1
    assert not whole.missing


def test_csv_gzip_without_header_quotes_and_byte_order_mark(tmp_path):
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"1,2\n3,4\n"))
    assert read_csv(tmp_path / "a.csv.gz").columns["column_1"].tolist() == [2, 4]
    (tmp_path / "b.csv").write_bytes(b'\xef\xbb\xbf"a, b";c\r\n"x ""y""";1\r\n')
    table = read_csv(tmp_path / "b.csv", delimiter=";")
    assert list(table.columns) == ["a, b", "c"]
    assert table.categories["a, b"] == ('x "y"',)
    (tmp_path / "c.csv").write_text("a,b\nc,d\n")
    assert list(read_csv(tmp_path / "c.csv", header=False).columns) == ["column_0", "column_1"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"\n\n", "empty"),
        (b"a,b\n", "no rows"),
        (b"a,a\n1,2\n", "twice"),
        (b"a,b\n1,2\n1,2,3\n", "3 cells in line 3"),
        (b"a,b\n\xff,2\n", "UTF-8"),
        (b'a,b\n"1,2\n', "no table"),
        (b"a\n" + b"x" * 200_000, "no table"),
    ],
)
def test_csv_errors(tmp_path, content, says):
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(DataError, match=says):
        read_csv(tmp_path / "a.csv")


def test_csv_labels_that_are_missing_and_no_inputs(tmp_path):
    (tmp_path / "a.csv").write_text("class\n1\n?\n")
    table = read_csv(tmp_path / "a.csv")
    with pytest.raises(DataError, match="1 labels are missing"):
        table.labels("class")
    with pytest.raises(DataError, match="no inputs"):
        table.matrix(["class"])
    with pytest.raises(DataError, match="no column"):
        table.labels("y")


def test_csv_gzip_bomb(tmp_path):
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"1\n" * 40 * 2**20, 9))
    with pytest.raises(DataError, match="exhaust memory"):
        read_csv(tmp_path / "a.csv.gz")


# --- real files


def test_real_packed_jpegs_and_sheets(data_folder):
    arrays = read_npz(data_folder / "cifar10" / "sheet_labels.npz")
    sheet = read_image(data_folder / "cifar10" / "sheet_0.png")
    assert sheet.reshape(1000, 32, 32, 3).dtype == np.uint8
    assert len(arrays["label"]) == 4000


def test_real_tables(data_folder):
    table = read_csv(data_folder / "uci" / "arrhythmia.csv.gz")
    assert (len(table), len(table.columns)) == (452, 280)
    assert sum(table.missing.values()) == 408


def test_real_frames(data_folder):
    frames = data_folder / "driving_frames"
    table = read_csv(frames / "frames.csv")
    first = table.categories["file"][table.columns["file"][0]]
    assert read_image(frames / "frames" / first).shape == (160, 320, 3)
    assert len(table) == 63
