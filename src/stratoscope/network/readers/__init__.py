"""Readers of data files. None of them unpickles; each checks sizes before it reads, and fails with one sentence."""

from __future__ import annotations

from stratoscope.network.readers.arrays import read_npz, read_safetensors
from stratoscope.network.readers.idx import read_idx
from stratoscope.network.readers.images import Images, read_image, read_image_folder, read_packed_images
from stratoscope.network.readers.tables import Table, read_csv

__all__ = [
    "Images",
    "Table",
    "read_csv",
    "read_idx",
    "read_image",
    "read_image_folder",
    "read_npz",
    "read_packed_images",
    "read_safetensors",
]
