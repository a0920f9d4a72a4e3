"""What is handed to the writer, and its form on disk: a series, and one array for each step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stratoscope.errors import RecordError
from stratoscope.record.axis import Axis
from stratoscope.record.quantity import Quantity
from stratoscope.record.values import copy_of, digest, to_json

INLINE_BYTES = 256 * 1024
"""Arrays from this size on lie in files of their own; smaller ones in the database."""

DTYPES = {"f4": "<f4", "f8": "<f8", "i4": "<i4", "i8": "<i8", "bool": "|b1"}
"""Names of number types in the database, and NumPy's."""

RESERVED = ("step", "split", "run")
"""Dims that the record adds."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One variable of one instrument, measured at one step.

    Attributes:
        instrument: the instrument's key.
        name: the variable.
        quantity: its numbers.
        label: tells apart two settings of one instrument; `""` normally.
        split: the data split; `""` where no data were needed.
        settings: the instrument's settings, as JSON.
        version: of the instrument.
    """

    instrument: str
    name: str
    quantity: Quantity
    label: str = ""
    split: str = ""
    settings: str = "{}"
    version: str = "1"


@dataclass(frozen=True, slots=True)
class Series:
    """Everything about a variable that stays the same from step to step, in its form on disk."""

    instrument: str
    label: str
    split: str
    name: str
    dims: tuple[str, ...]
    axes: tuple[str, ...]
    dtype: str
    attrs: str
    settings: str
    version: str
    digest: str


@dataclass(frozen=True, slots=True)
class Row:
    """One array of a series: its bytes, or a copy of the array where it is large."""

    series: Series
    payload: bytes | NDArray[Any]

    @property
    def nbytes(self) -> int:
        """Size of the numbers."""
        return self.payload.nbytes if isinstance(self.payload, np.ndarray) else len(self.payload)


@dataclass(slots=True)
class _Known:
    """The last quantity of a variable that was identified, to know the next one by comparison."""

    source: np.dtype[Any]
    shape: tuple[int, ...]
    dims: tuple[str, ...]
    coords: Mapping[str, tuple[Any, ...]]
    attrs: Mapping[str, Any]
    series: Series

    def fits(self, quantity: Quantity, values: NDArray[Any]) -> bool:
        try:
            return bool(
                values.dtype == self.source
                and values.shape == self.shape
                and quantity.dims == self.dims
                and quantity.coords == self.coords
                and quantity.attrs == self.attrs
            )
        except ValueError:  # attributes that are arrays compare to arrays
            return False


@dataclass
class Encoder:
    """Turns entries into rows; quick for a variable that looks as it did the last time."""

    inline_bytes: float = INLINE_BYTES
    dims: dict[tuple[str, str, str], tuple[str, ...]] = field(default_factory=dict)
    _known: dict[tuple[str, ...], _Known] = field(default_factory=dict)

    def encode(self, entry: Entry) -> Row:
        """The row of an entry; the numbers are copied, so the caller may go on changing them.

        Raises:
            RecordError: if the dims are not those that the variable had before, or its numbers, labels or
                attributes have no form on disk.
        """
        quantity = entry.quantity
        values = np.asarray(quantity.values)
        slot = (entry.instrument, entry.label, entry.split, entry.name, entry.settings, entry.version)
        known = self._known.get(slot)
        if known is None or not known.fits(quantity, values):
            known = self._known[slot] = self._identify(entry, values)
        stored = np.dtype(DTYPES[known.series.dtype])
        if values.dtype.kind == "u" and values.dtype.itemsize == 8 and values.size and int(values.max()) >= 2**63:
            raise RecordError(f"{entry.name} holds {values.max()}, beyond 64-bit integers; give it as float64.")
        if values.nbytes < self.inline_bytes:
            return Row(known.series, values.astype(stored, copy=False).tobytes())
        return Row(known.series, np.array(values, dtype=stored, order="C", copy=True))

    def _identify(self, entry: Entry, values: NDArray[Any]) -> _Known:
        quantity, what = entry.quantity, f"{entry.instrument}.{entry.name}"
        dims = tuple(quantity.dims)
        self._check_dims(entry, dims, values, what)
        axes = tuple(Axis.of(quantity.coords.get(dim), size) for dim, size in zip(dims, values.shape, strict=True))
        for dim, axis, size in zip(dims, axes, values.shape, strict=True):
            if axis.size != size:
                raise RecordError(f"{what} has {axis.size} labels along {dim!r}, which has {size} places.")
        fields = (entry.instrument, entry.label, entry.split, entry.name)
        texts = tuple(axis.to_json() for axis in axes)
        attrs = to_json(dict(quantity.attrs), f"The attributes of {what}")
        dtype = stored_dtype(values.dtype, what)
        identity = (*fields, dims, texts, dtype, attrs, entry.settings, entry.version)
        series = Series(
            *fields, dims, texts, dtype, attrs, entry.settings, entry.version, digest(to_json(identity, what))
        )
        self.dims[entry.instrument, entry.label, entry.name] = dims
        coords = {dim: tuple(labels) for dim, labels in quantity.coords.items()}
        return _Known(values.dtype, values.shape, dims, coords, copy_of(quantity.attrs), series)

    def _check_dims(self, entry: Entry, dims: tuple[str, ...], values: NDArray[Any], what: str) -> None:
        if len(dims) != values.ndim or len(set(dims)) != len(dims):
            raise RecordError(f"{what} has shape {values.shape}, which cannot carry the dims {dims}.")
        reserved = [dim for dim in dims if dim in RESERVED]
        if reserved:
            raise RecordError(f"{what} has the dim {reserved[0]!r}, which the record adds; leave it out.")
        if not entry.instrument or not entry.name or ":" in entry.instrument:
            raise RecordError(f"{what!r} needs an instrument's key, without a colon, and the name of a variable.")
        before = self.dims.get((entry.instrument, entry.label, entry.name), dims)
        if before != dims:
            raise RecordError(
                f"{what} was recorded with dims {before} and now has {dims}; give it another name or label."
            )


def stored_dtype(dtype: np.dtype[Any], what: str) -> str:
    """The number type on disk: float32 and 64, int32 and 64 and bool as they are, others in the next larger one.

    Raises:
        RecordError: for complex numbers, text and objects.

    >>> stored_dtype(np.dtype("uint8"), "x"), stored_dtype(np.dtype("float16"), "x")
    ('i4', 'f4')
    """
    kind, size = dtype.kind, dtype.itemsize
    if kind == "b":
        return "bool"
    if kind == "f":
        return "f4" if size <= 4 else "f8"
    if kind in "iu":
        return "i4" if size <= (4 if kind == "i" else 2) else "i8"
    raise RecordError(
        f"{what} holds {dtype} values, which a record cannot keep; split complex numbers in two, "
        "and give categories as integers with `flag_values` and `flag_meanings`."
    )
