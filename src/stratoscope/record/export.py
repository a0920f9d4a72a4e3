"""A record in other people's formats: netCDF, Parquet, CSV."""

from __future__ import annotations

import csv
import errno
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stratoscope.errors import RecordError, require
from stratoscope.record.tables import Table, file_names, long_table, plain_tables
from stratoscope.record.values import to_json

if TYPE_CHECKING:
    import xarray as xr

    from stratoscope.record.record import Record


def to_netcdf(record: Record, path: Path | str) -> Path:
    """Write one netCDF file: a group for each instrument, and `findings`, `coverage`, `layers` and `edges`.

    Stacked dims become plain coordinates along them (`layer`, `unit` along `layer_unit`). If a variable was not
    measured everywhere, `NAME__measured` says where it was. Settings, run metadata and
    attributes that netCDF has no type for are JSON text.

    Args:
        record: what to write.
        path: the file; replaced if it is there.

    Raises:
        StratoscopeError: if h5netcdf is not installed.
        RecordError: if the file cannot be written.
    """
    require("h5py", "export")
    require("h5netcdf", "export")
    import xarray as xr

    path = Path(path)
    draft = path.with_name(f"{path.name}.tmp")
    root = xr.Dataset(attrs={key: _attribute(value) for key, value in record.meta.items()})
    parts = {name: _plain_dataset(record[key].dataset(measured=True)) for key, name in file_names(list(record)).items()}
    parts |= {f"_{name}": _as_dataset(table) for name, table in plain_tables(record).items()}
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.is_file():
            raise FileExistsError(errno.EEXIST, "there is something that is no plain file")
        try:
            root.to_netcdf(draft, mode="w", engine="h5netcdf")
            for name, data in parts.items():
                data.to_netcdf(draft, mode="a", group=name, engine="h5netcdf")
            os.replace(draft, path)
        finally:
            draft.unlink(missing_ok=True)
    return path


def to_parquet(record: Record, folder: Path | str) -> list[Path]:
    """Write one long Parquet table for each variable: a column a label (`step`, `layer`, `unit`, ...), and `value`.

    What was not measured has no row; NaN was measured. The variable's attributes are in the file's metadata.

    Args:
        record: what to write.
        folder: gets `GROUP/VARIABLE.parquet`, `findings`, `coverage`, `layers`, `edges` and `meta.json`.

    Returns:
        The files written.

    Raises:
        StratoscopeError: if pyarrow is not installed.
        RecordError: if the folder cannot be written.
    """
    arrow = require("pyarrow", "export")
    parquet = require("pyarrow.parquet", "export")

    def write(path: Path, table: Table, attrs: Mapping[str, Any]) -> None:
        columns = {
            name: arrow.array(_one_kind(column).tolist() if column.dtype == object else column)
            for name, column in table.items()
        }
        metadata = {str(key): to_json(value, f"The attribute {key}") for key, value in attrs.items()}
        parquet.write_table(arrow.table(columns).replace_schema_metadata(metadata), path)

    return _write_tables(record, Path(folder), ".parquet", write)


def to_csv(record: Record, folder: Path | str) -> list[Path]:
    """Write one long CSV table for each variable: a column a label (`step`, `layer`, `unit`, ...), and `value`.

    What was not measured has no row; NaN was measured and reads `nan`. Units and the rest are in `meta.json`.

    Args:
        record: what to write.
        folder: gets `GROUP/VARIABLE.csv`, `findings`, `coverage`, `layers`, `edges` and `meta.json`.

    Returns:
        The files written.

    Raises:
        RecordError: if the folder cannot be written.
    """

    def write(path: Path, table: Table, _: Mapping[str, Any]) -> None:
        with path.open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(table)
            texts = [
                column.tolist() if column.dtype == object else column.astype(str).tolist() for column in table.values()
            ]
            rows.writerows(zip(*texts, strict=True))

    return _write_tables(record, Path(folder), ".csv", write)


def _write_tables(
    record: Record, folder: Path, suffix: str, write: Callable[[Path, Table, Mapping[str, Any]], None]
) -> list[Path]:
    written = []
    attrs: dict[str, dict[str, Any]] = {}
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for key, place in file_names(list(record)).items():
            (folder / place).mkdir(exist_ok=True)
            for name, stem in file_names(list(record[key])).items():
                variable = record[key].variable(name)
                attrs.setdefault(key, {})[name] = variable.attrs
                written.append(folder / place / f"{stem}{suffix}")
                write(written[-1], long_table(variable), variable.attrs)
        for name, table in plain_tables(record).items():
            written.append(folder / f"{name}{suffix}")
            write(written[-1], table, {})
        written.append(folder / "meta.json")
        about = json.loads(to_json({"meta": record.meta, "variables": attrs}, "The run metadata"))
        written[-1].write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    return written


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RecordError(f"{path} cannot be written ({error.strerror or error}); choose another place.") from error


def _plain_dataset(data: xr.Dataset) -> xr.Dataset:
    """Without what netCDF has no form for: stacked labels, mixed labels, nested attributes."""
    from pandas import MultiIndex

    data = data.reset_index([dim for dim, index in data.indexes.items() if isinstance(index, MultiIndex)])
    mixed = {
        name: (array.dims, _one_kind(array.values)) for name, array in data.coords.items() if array.dtype == object
    }
    data = data.assign_coords(mixed)
    data.attrs = {key: _attribute(value) for key, value in data.attrs.items()}
    for array in data.values():
        array.attrs = {key: _attribute(value) for key, value in array.attrs.items()}
    return data


def _as_dataset(table: Table) -> xr.Dataset:
    import xarray as xr

    return xr.Dataset({name: ("row", _without_none(column)) for name, column in table.items()})


def _one_kind(column: NDArray[Any]) -> NDArray[Any]:
    """Labels of several kinds as text; of one kind (and nothing) as they are."""
    kinds = {type(value) for value in column.tolist() if value is not None}
    if len(kinds) <= 1:
        return column
    texts = np.empty(column.shape, dtype=object)
    texts[:] = [None if value is None else str(value) for value in column.tolist()]
    return texts


def _without_none(column: NDArray[Any]) -> NDArray[Any]:
    values = _one_kind(column).tolist()
    if all(isinstance(value, int) for value in values) and values:
        return np.array(values, dtype=np.int64)
    if any(isinstance(value, int) for value in values):
        return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    return np.array(["" if value is None else value for value in values], dtype=object).astype(str)


def _attribute(value: Any) -> Any:
    """An attribute as netCDF has it: text, a number, or a list of one of these; all else as JSON."""
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        return value
    if isinstance(value, list) and value and (_all(value, str) or _all(value, int) or _all(value, float)):
        return value
    return to_json(value, "An attribute")


def _all(values: list[Any], kind: type) -> bool:
    return all(type(value) is kind for value in values)
