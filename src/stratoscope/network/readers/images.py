"""Pictures as arrays, by Pillow: one file, a folder of classes, or many JPEGs packed into one npz."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Int64, UInt8
from numpy.typing import NDArray

from stratoscope.errors import DataError
from stratoscope.network.readers.arrays import read_npz
from stratoscope.network.readers.limits import MAX_BYTES, existing

if TYPE_CHECKING:
    from PIL import Image

MAX_PIXELS = 64_000_000
"""Pixels that one picture may have; the header is checked before anything is decoded."""

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
"""Formats that are opened. Others that Pillow knows are left out: some start outside programs."""

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"})
"""Names that count as pictures within a folder; other files are passed over."""


class Images(NamedTuple):
    """Pictures of one size, with their classes.

    Attributes:
        images: `uint8 (n, height, width, channels)`.
        labels: `int64 (n,)`, positions in `names`; `None` where no class is known.
        names: the classes; empty where none are named.
    """

    images: UInt8[np.ndarray, "n height width channels"]
    labels: Int64[np.ndarray, " n"] | None
    names: tuple[str, ...]


def read_image(
    source: str | Path | bytes,
    *,
    channels: int | None = None,
    size: int | tuple[int, int] | None = None,
    max_pixels: int = MAX_PIXELS,
) -> UInt8[np.ndarray, "height width channels"]:
    """Read one picture as 8-bit numbers.

    Turned as its EXIF orientation says; palettes become colours; transparent parts are laid on white; 16-bit grey is
    divided by 257, so that black and white stay what they are; of an animation the first frame is taken.

    Args:
        source: a path, or the bytes of the file.
        channels: 1 for grey, 3 for colour; by default what the picture has.
        size: height and width (one number for both); the picture is scaled until it covers them, and cut at the centre.
        max_pixels: refuse larger pictures.

    Raises:
        DataError: if it is no picture, is cut off or damaged, is too large, or holds numbers that have no 8-bit scale.
    """
    if channels not in (None, 1, 3):
        raise DataError(f"A picture is read with 1 or 3 channels, not {channels}.")
    where = "a picture given as bytes" if isinstance(source, bytes) else str(existing(source))
    with _open(source, where, max_pixels) as picture:
        plain = _eight_bit(picture, where)
        if channels is not None:
            plain = plain.convert("L" if channels == 1 else "RGB")
        if size is not None:
            plain = _fitted(plain, size)
        pixels = np.array(plain, dtype=np.uint8)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def read_image_folder(
    path: str | Path,
    size: int | tuple[int, int] | None = None,
    *,
    channels: int | None = None,
    max_bytes: int = MAX_BYTES,
) -> Images:
    """Read a folder that has one sub-folder a class.

    Classes and files come in the order of their names; hidden files and files that are no pictures by name are passed
    over, folders within a class are read, links to folders are not followed.

    Args:
        path: the folder.
        size: height and width (one number for both) that every picture is brought to; see `read_image`.
        channels: 1 or 3; by default 1 if every picture is grey, else 3.
        max_bytes: refuse to take more memory than this.

    Raises:
        DataError: if there are no classes or a class is empty, the pictures differ in size and no `size` was given, or
            one of them cannot be read.
    """
    root = Path(path)
    if not root.is_dir():
        raise DataError(f"There is no folder {root}.")
    names = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise DataError(f"{root} has no sub-folders; it should have one for each class, with pictures in it.")
    files: list[tuple[Path, int]] = []
    for label, name in enumerate(names):
        found = list(_pictures(root / name))
        if not found:
            raise DataError(f"{root / name} holds no pictures; remove the folder or fill it.")
        files += [(file, label) for file in found]
    images = _stacked(
        [str(file) for file, _ in files],
        lambda at: read_image(files[at][0], channels=channels, size=size),
        max_bytes,
    )
    return Images(images, np.array([label for _, label in files], dtype=np.int64), tuple(names))


def read_packed_images(path: str | Path, *, channels: int | None = None, max_bytes: int = MAX_BYTES) -> Images:
    """Read an npz file that holds many JPEG (or PNG) files end to end.

    Args:
        path: the file: `jpeg` (uint8), the files' bytes; `offset` (n + 1), where each begins; optionally `label` (n)
            and `names`.
        channels: 1 or 3; by default 1 if every picture is grey, else 3.
        max_bytes: refuse to take more memory than this.

    Raises:
        DataError: if keys are missing or do not fit each other, or a picture cannot be read.
    """
    arrays = read_npz(path, max_bytes=max_bytes)
    if "jpeg" not in arrays or "offset" not in arrays:
        raise DataError(
            f"{path} holds {', '.join(arrays) or 'nothing'}, not the keys jpeg and offset of packed pictures."
        )
    packed, offset = arrays["jpeg"], arrays["offset"]
    _check_offsets(path, packed, offset)
    cuts = [int(at) for at in offset]
    images = _stacked(
        [f"picture {at} of {path}" for at in range(len(cuts) - 1)],
        lambda at: read_image(packed[cuts[at] : cuts[at + 1]].tobytes(), channels=channels),
        max_bytes,
    )
    labels = arrays.get("label")
    if labels is not None and (labels.shape != (len(images),) or labels.dtype.kind not in "iu"):
        raise DataError(
            f"{path} has {len(images)} pictures and labels of shape {labels.shape} and type {labels.dtype}."
        )
    names = tuple(str(name) for name in arrays.get("names", ()))
    return Images(images, None if labels is None else labels.astype(np.int64), names)


def _check_offsets(path: str | Path, packed: NDArray[Any], offset: NDArray[Any]) -> None:
    sound = packed.ndim == 1 and packed.dtype == np.uint8 and offset.ndim == 1 and offset.dtype.kind in "iu"
    if not sound or len(offset) < 2:
        raise DataError(
            f"{path} has jpeg {packed.dtype}{packed.shape} and offset {offset.dtype}{offset.shape}, not packed pictures."
        )
    ends = offset.astype(np.int64)
    if ends[0] != 0 or ends[-1] != len(packed) or (np.diff(ends) <= 0).any():
        raise DataError(f"{path} has offsets that do not cut its {len(packed):,} bytes into {len(offset) - 1:,} files.")


def _pictures(folder: Path) -> Iterator[Path]:
    for here, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if Path(name).suffix.lower() in SUFFIXES and not name.startswith("."):
                yield Path(here, name)


def _stacked(
    names: Sequence[str], read: Callable[[int], NDArray[np.uint8]], max_bytes: int
) -> UInt8[np.ndarray, "n height width channels"]:
    """Read pictures into one array; grey ones among colours get three equal channels."""
    first = _named(names[0], read, 0)
    if first.size * len(names) > max_bytes:
        raise DataError(
            f"{len(names):,} pictures of shape {first.shape} take {first.size * len(names) / 2**20:,.0f} MiB and the limit "
            f"is {max_bytes / 2**20:,.0f} MiB; give a smaller size, or a larger max_bytes."
        )
    images = np.empty((len(names), *first.shape), dtype=np.uint8)
    for at, name in enumerate(names):
        picture = first if at == 0 else _named(name, read, at)
        if picture.shape[:2] != images.shape[1:3]:
            raise DataError(
                f"{names[0]} has {first.shape[0]} x {first.shape[1]} pixels and {name} {picture.shape[0]} x "
                f"{picture.shape[1]}; give size=(height, width) to bring them to one size."
            )
        if picture.shape[2] > images.shape[3]:
            images = np.repeat(images, 3, axis=3)
        images[at] = picture
    return images


def _named(name: str, read: Callable[[int], NDArray[np.uint8]], at: int) -> NDArray[np.uint8]:
    try:
        return read(at)
    except DataError as error:
        message = str(error)
        raise DataError(message.replace("a picture given as bytes", name)) from error


def _open(source: str | Path | bytes, where: str, max_pixels: int) -> Image.Image:
    """A decoded picture, turned upright."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    file = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture = Image.open(file, formats=FORMATS)
            pixels = picture.width * picture.height
            if pixels > max_pixels:
                picture.close()
                raise DataError(f"{where} has {pixels:,} pixels and the limit is {max_pixels:,}.")
            with picture:
                return ImageOps.exif_transpose(picture)
    except DataError:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise DataError(f"{where} has more pixels than the limit of {max_pixels:,}.") from error
    except UnidentifiedImageError as error:
        raise DataError(f"{where} is no picture of a known format ({', '.join(FORMATS)}).") from error
    except Exception as error:  # a decoder may raise nearly anything on damaged bytes
        raise DataError(f"{where} cannot be decoded: {str(error) or type(error).__name__}.") from error


def _eight_bit(picture: Image.Image, where: str) -> Image.Image:
    """The picture as 8-bit grey (`L`) or colour (`RGB`)."""
    from PIL import Image

    if picture.mode in ("L", "RGB") and "transparency" not in picture.info:
        return picture
    if picture.mode == "F":
        raise DataError(f"{where} holds floating-point pixels, which have no 8-bit scale; convert it first.")
    if picture.mode == "I" or picture.mode.startswith("I;16"):
        wide = np.asarray(picture).astype(np.int64)
        if wide.min(initial=0) < 0 or wide.max(initial=0) > 65535:
            raise DataError(
                f"{where} holds pixels from {wide.min()} to {wide.max()}, more than 16 bits; convert it first."
            )
        return Image.fromarray(((wide + 128) // 257).astype(np.uint8))
    if picture.has_transparency_data:
        grey = picture.mode in ("LA", "La", "L", "1")
        over = picture.convert("RGBA")
        flat = Image.alpha_composite(Image.new("RGBA", over.size, (255, 255, 255, 255)), over)
        return flat.convert("L" if grey else "RGB")
    return picture.convert("L" if picture.mode in ("1", "L") else "RGB")


def _fitted(picture: Image.Image, size: int | tuple[int, int]) -> Image.Image:
    from PIL import Image, ImageOps

    height, width = (size, size) if isinstance(size, int) else size
    if height < 1 or width < 1:
        raise DataError(f"A picture cannot be brought to {height} x {width} pixels.")
    return ImageOps.fit(picture, (width, height), Image.Resampling.BILINEAR)
