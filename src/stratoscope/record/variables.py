"""Labelled arrays by name, each read when it is first asked for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stratoscope.errors import RecordError
from stratoscope.record.axis import Axis, levels, union
from stratoscope.record.join import Joined, Piece, join
from stratoscope.record.labelled import labelled

if TYPE_CHECKING:
    import xarray as xr


class NotRecordedError(RecordError, KeyError):
    """There is no group or variable of this name."""

    def __str__(self) -> str:
        return str(self.args[0])


class Variable:
    """One variable as it was read.

    Attributes:
        name: of the variable.
        dims: a name for each axis.
        axes: the labels along each.
        values: the numbers, read only since everybody who asks gets the same.
        attrs: of the variable; `_FillValue` stands for "not measured" among categories.
    """

    def __init__(self, name: str, dims: tuple[str, ...], joined: Joined, attrs: Mapping[str, Any]) -> None:
        self.name = name
        self.dims = dims
        self.axes = joined.axes
        self.values = np.asarray(joined.values).view()
        self.values.flags.writeable = False
        self.attrs = dict(attrs) if joined.fill is None else {**attrs, "_FillValue": joined.fill}
        self._measured = joined.measured

    @property
    def measured(self) -> NDArray[np.bool_]:
        """Which places were measured."""
        return np.ones(self.values.shape, np.bool_) if self._measured is None else self._measured

    @property
    def piece(self) -> Piece:
        """As a part of something larger."""
        return Piece(self.values, self.axes, self._measured)

    def to_xarray(self, names: Mapping[str, tuple[str, ...]] | None = None) -> xr.DataArray:
        """As a labelled array, with other names for the levels of stacked dims if given."""
        return labelled(self.values, self.dims, self.axes, name=self.name, attrs=self.attrs, names=names)

    def mask(self, names: Mapping[str, tuple[str, ...]] | None = None) -> xr.DataArray:
        """Which places were measured, as a labelled array."""
        attrs = {"long_name": f"whether {self.name} was measured"}
        return labelled(self.measured, self.dims, self.axes, name=self.name, attrs=attrs, names=names)


class Variables(Mapping[str, "xr.DataArray"], ABC):
    """Variables by name. What was read once is kept; the numbers are read only (`.copy()` to change them)."""

    def __init__(self) -> None:
        self._variables: dict[str, Variable] = {}

    @property
    @abstractmethod
    def title(self) -> str:
        """The name for people."""

    @property
    @abstractmethod
    def attrs(self) -> dict[str, Any]:
        """What is known about all variables together."""

    @abstractmethod
    def _names(self) -> tuple[str, ...]:
        """The variables, in the order in which they were first recorded."""

    @abstractmethod
    def _load(self, name: str) -> Variable:
        """Read one variable that exists."""

    def variable(self, name: str) -> Variable:
        """One variable as plain numbers and labels.

        Raises:
            NotRecordedError: if there is none of this name (a `RecordError` and a `KeyError`).
        """
        if name not in self._variables:
            if name not in self._names():
                known = ", ".join(self._names()) or "nothing"
                raise NotRecordedError(f"{self.title} has no variable {name!r}; it has {known}.")
            self._variables[name] = self._load(name)
        return self._variables[name]

    def measured(self, name: str) -> xr.DataArray:
        """Which places of a variable were measured: tells "not measured" from "measured, and NaN"."""
        return self.variable(name).mask()

    def dataset(self, measured: bool = False) -> xr.Dataset:
        """All variables in one data set, each along the union of all labels.

        Levels of a stacked dim that are also the name of another dim get the stacked dim's name before them:
        `layer_unit_layer`, since xarray does not allow both.

        Args:
            measured: for every variable with something not measured, add `NAME__measured`.
        """
        import xarray as xr

        found = [self.variable(name) for name in self._names()]
        axes = self._common_axes(found)
        names = _level_names(axes, {*axes, *self._names()})
        arrays = {}
        for variable in found:
            first = {place: axes[dim] for place, dim in enumerate(variable.dims)}
            joined = join([variable.piece], variable.attrs, first)
            whole = Variable(variable.name, variable.dims, joined, variable.attrs)
            arrays[variable.name] = whole.to_xarray(names)
            if measured and joined.measured is not None:
                arrays[f"{variable.name}__measured"] = whole.mask(names)
        return xr.Dataset(arrays, attrs=self.attrs)

    def _common_axes(self, found: list[Variable]) -> dict[str, Axis]:
        along: dict[str, list[Axis]] = {}
        for variable in found:
            for dim, axis in zip(variable.dims, variable.axes, strict=True):
                along.setdefault(dim, []).append(axis)
        return {dim: step_axis(axes) if dim == "step" else union(axes)[0] for dim, axes in along.items()}

    def __getitem__(self, name: str) -> xr.DataArray:
        return self.variable(name).to_xarray()

    def __contains__(self, name: object) -> bool:
        return name in self._names()

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __len__(self) -> int:
        return len(self._names())

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)


def step_axis(axes: list[Axis]) -> Axis:
    """All steps of several axes, in time's order."""
    steps = np.unique(np.concatenate([np.asarray(axis.labels(), dtype=np.int64) for axis in axes]))
    return Axis.of(tuple(steps.tolist()), len(steps))


def _level_names(axes: Mapping[str, Axis], taken: set[str]) -> dict[str, tuple[str, ...]]:
    names = {dim: levels(dim, axis.depth) for dim, axis in axes.items() if axis.depth > 1}
    every = [level for found in names.values() for level in found]
    return {
        dim: tuple(f"{dim}_{level}" for level in found)
        if any(every.count(x) > 1 or x in taken for x in found)
        else found
        for dim, found in names.items()
    }
