"""One measured variable, read once and laid out for pictures and tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stratoscope.charts.values import Axis, FloatArray, Scale

if TYPE_CHECKING:
    from stratoscope.record.group import Group
    from stratoscope.record.record import Record

ENDS = {"low": ("_low",), "high": ("_high",), "error": ("_se",)}
"""How the ends of an interval around `name` are called: `name_low`, `name_high`; or its standard error, `name_se`."""

REFERENCES = {"_floor": "floor", "_ceiling": "ceiling", "_null": "under the null"}
"""Variables that bound or calibrate `name`, and what they are called in its picture."""

SECOND = "other"
"""The dim of the second layer of a pair, which may be a layer of another network: left in the order that it has."""

WIDE_SPAN = 1e3
"""Positive values that span more than this factor are shown on a logarithmic axis unless `scale` says otherwise."""


@dataclass(frozen=True, eq=False)
class Variable:
    """A variable of the record: `values[step, split, place, ...]`, with every axis there even where it has length one.

    Attributes:
        instrument: key of its group.
        name: its name in that group.
        values: the numbers, as floats; categories are places in `meanings`, and NaN where they are none of them.
        measured: where there is a measurement at all; a measured NaN is one.
        steps: training steps.
        splits: data splits; `("",)` where no data were needed.
        dims: names of the further dims, without `step` and `split`.
        labels: for each of these dims its labels; those of layers, params and matrices are in order of depth.
        units: unit of the values.
        long_name: what it is.
        source: arXiv id or DOI.
        attrs: everything else that the record says of it.
        meanings: names of the categories; empty for a measured quantity.
        companions: the group's other variables by name.
    """

    instrument: str
    name: str
    values: FloatArray
    measured: NDArray[np.bool_]
    steps: tuple[int, ...]
    splits: tuple[str, ...]
    dims: tuple[str, ...]
    labels: tuple[tuple[Any, ...], ...]
    units: str = "1"
    long_name: str = ""
    source: str = ""
    attrs: Mapping[str, Any] = field(default_factory=dict)
    meanings: tuple[str, ...] = ()
    companions: Mapping[str, Variable] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """What it is, with a capital."""
        text = self.long_name or self.name.replace("_", " ")
        return text[:1].upper() + text[1:]

    @property
    def ragged(self) -> bool:
        """Whether its first further dim is stacked: labels are (place, count) pairs."""
        return bool(self.labels) and bool(self.labels[0]) and isinstance(self.labels[0][0], tuple)

    @property
    def place(self) -> str:
        """What a place is called: `layer`, `param`, `class`, ...; empty where there is only one."""
        if not self.dims:
            return ""
        return self.dims[0].split("_")[0] if self.ragged else self.dims[0]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the places, the distinct first parts where they are stacked."""
        if not self.labels:
            return ()
        firsts = (label[0] if self.ragged else label for label in self.labels[0])
        return tuple(dict.fromkeys(str(first) for first in firsts))

    @cached_property
    def same_everywhere(self) -> bool:
        """Whether on each split all measured values are one and the same finite number."""
        there = [self.values[:, split][self.measured[:, split]] for split in range(len(self.splits))]
        values = [part for part in there if part.size]
        return bool(values) and all(bool(np.isfinite(v).all()) and bool((v == v.flat[0]).all()) for v in values)

    @cached_property
    def scale(self) -> Scale:
        """The scale of its axis: what `scale` says, else logarithmic for positive values over more than three decades."""
        if self.meanings:
            return "category"
        there = self.values[self.measured & np.isfinite(self.values)]
        positive = there[there > 0]
        said = self.attrs.get("scale")
        if not len(positive) or said == "linear" or (said != "log" and len(positive) < len(there)):
            return "linear"
        return "log" if said == "log" or positive.max() > WIDE_SPAN * positive.min() else "linear"

    @property
    def axis(self) -> Axis:
        """The axis of its values."""
        low, high = (_number(self.attrs.get(name)) for name in ("valid_min", "valid_max"))
        return Axis(self.long_name or self.name, self.units, self.scale, self.meanings, low, high)

    @property
    def companion_of(self) -> str | None:
        """The variable whose interval or reference this one is, if it is one."""
        for suffix in (*(s for ends in ENDS.values() for s in ends), *REFERENCES):
            base = self.name.removesuffix(suffix)
            if base != self.name and base in self.companions:
                return base
        return None

    def last(self, split: int) -> int | None:
        """Position of the last step at which anything was measured on a split."""
        flat = self.measured[:, split].reshape(len(self.steps), -1).any(axis=1)
        return int(np.flatnonzero(flat)[-1]) if flat.any() else None

    def several_steps(self, split: int) -> bool:
        """Whether it was measured at more than one step."""
        return self.step_count(split) > 1

    def step_count(self, split: int) -> int:
        """At how many steps it was measured on a split."""
        return int(self.measured[:, split].reshape(len(self.steps), -1).any(axis=1).sum())

    def ends(self) -> tuple[FloatArray, FloatArray] | None:
        """Lower and upper ends of its interval, of the same shape as `values`, if the group holds them."""
        low, high = self._companion("_low"), self._companion("_high")
        if low is not None and high is not None:
            return low.values, high.values
        error = self._companion("_se")
        return None if error is None else (self.values - error.values, self.values + error.values)

    def references(self) -> dict[str, FloatArray]:
        """Floors, ceilings and null values of the same shape, by what to call them."""
        found = {text: self._companion(suffix) for suffix, text in REFERENCES.items()}
        return {text: other.values for text, other in found.items() if other is not None}

    def at(self, position: int) -> Variable:
        """The same at one label of its last further dim, with its companions of the same dims at that label."""
        alike = {name: other for name, other in self.companions.items() if other.dims == self.dims}
        fixed = {
            name: replace(
                other, values=other.values[..., position], measured=other.measured[..., position],
                dims=other.dims[:-1], labels=other.labels[:-1],
            )
            for name, other in alike.items()
        }  # fmt: skip
        companions = {**self.companions, **fixed}
        for name, other in fixed.items():
            companions[name] = replace(other, companions=companions)
        return replace(
            self, values=self.values[..., position], measured=self.measured[..., position],
            dims=self.dims[:-1], labels=self.labels[:-1], companions=companions,
        )  # fmt: skip

    def _companion(self, suffix: str) -> Variable | None:
        other = self.companions.get(self.name + suffix)
        same = other is not None and other.values.shape == self.values.shape and other.labels == self.labels
        return (
            other if same and other is not None and other.splits == self.splits and other.steps == self.steps else None
        )


Variables = Callable[[str], Mapping[str, Variable]]
"""Gives the variables of an instrument's group, by its key."""


def variables_of(record: Record, key: str) -> dict[str, Variable]:
    """Every variable of one instrument's group, in the group's order.

    Args:
        record: the record.
        key: one of `record.keys()`.
    """
    group, order = record[key], order_of(record)
    found: dict[str, Variable] = {}
    for name in group:
        found[str(name)] = _read(group, key, str(name), order, found)
    return found


def order_of(record: Record) -> dict[str, int]:
    """Where each layer, param and matrix stands, from input to output."""
    order: dict[str, int] = {}
    for layer in sorted(record.layers, key=lambda layer: layer.depth):
        order.setdefault(layer.name, len(order))
        for part in (*layer.spec.get("params", ()), *layer.spec.get("matrices", ())):
            order.setdefault(str(part["name"]), len(order))
    return order


def _read(group: Group, key: str, name: str, order: Mapping[str, int], companions: dict[str, Variable]) -> Variable:
    found = group.variable(name)
    dims, attrs = found.dims, found.attrs
    axes = dict(zip(dims, found.axes, strict=True))
    rest = tuple(dim for dim in dims if dim not in ("step", "split"))
    values, measured = (_laid_out(array, dims, rest) for array in (found.values, found.measured))
    labels = [axes[dim].labels() for dim in rest]
    for place, along in enumerate(labels):
        by_depth = None if rest[place] == SECOND else _by_depth(along, order)
        if by_depth is not None:
            values, measured = values.take(by_depth, 2 + place), measured.take(by_depth, 2 + place)
            labels[place] = tuple(along[at] for at in by_depth)
    numbers, meanings = _categories(values, attrs)
    return Variable(
        key, name, numbers, measured,
        tuple(int(step) for step in axes["step"].labels()) if "step" in dims else (0,),
        tuple(str(split) for split in axes["split"].labels()) if "split" in dims else ("",),
        rest, tuple(labels), str(attrs.get("units", "1")), str(attrs.get("long_name", "")),
        str(attrs.get("source") or group.attrs.get("source", "")), attrs, meanings, companions,
    )  # fmt: skip


def _laid_out(array: NDArray[Any], dims: tuple[str, ...], rest: tuple[str, ...]) -> NDArray[Any]:
    """The same with `step` and `split` first, of length one where there are none."""
    lead = [dim for dim in ("step", "split") if dim in dims]
    turned = array.transpose([dims.index(dim) for dim in (*lead, *rest)])
    for place, dim in enumerate(("step", "split")):
        if dim not in dims:
            turned = np.expand_dims(turned, place)
    return turned


def _by_depth(labels: Sequence[Any], order: Mapping[str, int]) -> list[int] | None:
    """Positions in order of depth, or `None` where the labels are no places of the network or are in order already."""
    firsts = [str(label[0] if isinstance(label, tuple) else label) for label in labels]
    ranks = [order.get(first, order.get(first.partition("@")[0])) for first in firsts]
    if all(rank is None for rank in ranks):
        return None
    keys = [len(order) if rank is None else rank for rank in ranks]
    turned = sorted(range(len(keys)), key=keys.__getitem__)
    return None if turned == list(range(len(keys))) else turned


def _categories(values: NDArray[Any], attrs: Mapping[str, Any]) -> tuple[FloatArray, tuple[str, ...]]:
    """Values as floats, and the names of the categories that they point into."""
    if values.dtype.kind == "b":
        return values.astype(np.float64), ("no", "yes")
    meanings = attrs.get("flag_meanings")
    if meanings is None:
        return values.astype(np.float64), ()
    # words of one text stand for blanks with underscores; names in a list are what they are
    joined = isinstance(meanings, str)
    texts = [text.replace("_", " ") for text in meanings.split()] if joined else [str(text) for text in meanings]
    flags = [float(value) for value in np.ravel(attrs.get("flag_values", range(len(texts))))]
    numbers = np.full(values.shape, np.nan)
    for place, flag in enumerate(flags[: len(texts)]):
        numbers[values == flag] = place
    return numbers, tuple(texts)


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
