"""Several runs side by side, and the difference between two."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stratoscope.errors import RecordError
from stratoscope.record.axis import Axis
from stratoscope.record.join import Joined, Piece, join, merge_attrs
from stratoscope.record.labelled import labelled
from stratoscope.record.record import Record
from stratoscope.record.variables import NotRecordedError, Variable, Variables, step_axis

if TYPE_CHECKING:
    import xarray as xr

    from stratoscope.record.group import Group


class RunGroup(Variables):
    """What one instrument measured in several runs: as a `Group`, with the run as the first dim."""

    def __init__(self, key: str, groups: Mapping[str, Group], dim: str) -> None:
        """Use `concat(records)[key]` instead."""
        super().__init__()
        self.key = key
        self._groups = dict(groups)
        self._dim = dim

    @property
    def title(self) -> str:
        """The instrument's name for people."""
        return next(iter(self._groups.values())).title

    @property
    def attrs(self) -> dict[str, Any]:
        """As of the last run that has this group; what differs between runs is named in `varies`."""
        return merge_attrs([group.attrs for group in self._groups.values()])

    @property
    def steps(self) -> tuple[int, ...]:
        """Every step of any run."""
        return tuple(sorted({step for group in self._groups.values() for step in group.steps}))

    @property
    def layers(self) -> tuple[str, ...]:
        """Every layer of any run, in order of first appearance."""
        return tuple(dict.fromkeys(layer for group in self._groups.values() for layer in group.layers))

    def _names(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for group in self._groups.values() for name in group))

    def _load(self, name: str) -> Variable:
        found = {run: group.variable(name) for run, group in self._groups.items() if name in group}
        split = any("split" in variable.dims for variable in found.values())
        whole = {run: _with_split(variable) if split else variable for run, variable in found.items()}
        dims = next(iter(whole.values())).dims
        for run, variable in whole.items():
            if variable.dims != dims:
                raise RecordError(f"{self.key}.{name} has the dims {variable.dims} in {run} and {dims} in other runs.")
        attrs = merge_attrs([_without_fill(variable.attrs) for variable in whole.values()])
        runs = Axis.of(tuple(self._groups), len(self._groups))
        pieces = [_in_run(run, variable.piece) for run, variable in whole.items()]
        steps = step_axis([variable.axes[0] for variable in whole.values()])
        return Variable(name, (self._dim, *dims), join(pieces, attrs, {0: runs, 1: steps}), attrs)

    def __repr__(self) -> str:
        return f"<{self.title}: {', '.join(self)}; {self._dim}s {', '.join(self._groups)}>"


class Runs(Mapping[str, RunGroup]):
    """Several records read as one, with the run as a further dim."""

    def __init__(self, records: Mapping[str, Record], dim: str) -> None:
        """Use `concat` instead."""
        self.records = dict(records)
        self._dim = dim
        self._groups: dict[str, RunGroup] = {}

    def __getitem__(self, key: str) -> RunGroup:
        if key not in self._groups:
            groups = {name: record[key] for name, record in self.records.items() if key in record}
            if not groups:
                raise NotRecordedError(f"No {key!r} was recorded in any run; there is {', '.join(self) or 'nothing'}.")
            self._groups[key] = RunGroup(key, groups, self._dim)
        return self._groups[key]

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(key for record in self.records.values() for key in record))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)

    def __repr__(self) -> str:
        return f"<Runs {', '.join(self.records)}: {', '.join(self)}>"


def concat(records: Sequence[Record], dim: str = "run") -> Runs:
    """Read several runs as one.

    Args:
        records: the runs; what one did not measure counts as not measured there.
        dim: name of the new first dim; its labels are the runs' ids.

    Raises:
        RecordError: if there are none, or no instrument is in two of several.
    """
    if not records:
        raise RecordError("There are no runs to put together; give at least one.")
    named: dict[str, Record] = {}
    for record in records:
        name, count = record.run_id, 2
        while name in named:
            name, count = f"{record.run_id}#{count}", count + 1
        named[name] = record
    keys = [key for record in records for key in record]
    if len(records) > 1 and len(set(keys)) == len(keys):
        raise RecordError(f"These runs have no instrument in common; they hold {_listed(named)}.")
    return Runs(named, dim)


@dataclass(frozen=True)
class Difference:
    """How one variable differs between two runs at the last step that both have, in plain numbers.

    Attributes:
        key: the group.
        variable: its name.
        step: the step compared.
        units: of the variable.
        compared: how many places both runs measured.
        changed: how many of them differ (NaN equals NaN).
        largest: the largest absolute difference; NaN if there is none to state.
        relative: the same as a share of the largest absolute number in either run; in [0, 2].
        where: the labels of that place.
        before: the first run's number there.
        after: the second run's number there.
        only_first: how many labels only the first run has, along all dims.
        only_second: how many only the second has.
    """

    key: str
    variable: str
    step: int
    units: str
    compared: int
    changed: int
    largest: float
    relative: float
    where: Mapping[str, Any]
    before: float
    after: float
    only_first: int
    only_second: int


def compare(first: Record, second: Record) -> list[Difference]:
    """How two runs differ, for every variable that both have at a common step; the largest relative difference first.

    Raises:
        RecordError: if there is nothing that both measured.
    """
    found = []
    for key in (key for key in first if key in second):
        for name in (name for name in first[key] if name in second[key]):
            if set(first[key].steps_of(name)) & set(second[key].steps_of(name)):
                found.append(_summary(key, _match(first[key], second[key], name, None)))
    if not found:
        listed = _listed({first.run_id or "first": first, second.run_id or "second": second})
        raise RecordError(f"These runs have nothing in common to compare, at no common step; they hold {listed}.")
    return sorted(found, key=lambda each: -1.0 if np.isnan(each.relative) else each.relative, reverse=True)


def difference(first: Record, second: Record, key: str, variable: str, step: int | None = None) -> xr.DataArray:
    """Second minus first for one variable, along the labels that both have.

    Args:
        first: a run.
        second: another.
        key: the group.
        variable: its name.
        step: the step to compare; by default the last that both have.

    Returns:
        The variable's own dims, without `step`; NaN where one of the runs did not measure.

    Raises:
        RecordError: if one of them does not have it, or there is no such common step.
    """
    match = _match(first[key], second[key], variable, step)
    attrs = {"units": match.units, "long_name": f"difference of {variable}", "step": match.step}
    return labelled(match.gap, match.dims, match.axes, name=variable, attrs=attrs)


@dataclass(frozen=True)
class _Match:
    """One variable of two runs at one step, cut to the labels that both have."""

    name: str
    step: int
    units: str
    dims: tuple[str, ...]
    axes: tuple[Axis, ...]
    before: NDArray[np.float64]
    after: NDArray[np.float64]
    measured: NDArray[np.bool_]
    only: tuple[int, int]

    @property
    def gap(self) -> NDArray[np.float64]:
        """Second minus first; infinity minus infinity is no difference to state."""
        with np.errstate(invalid="ignore"):
            return np.where(self.measured, self.after - self.before, np.nan)


def _match(first: Group, second: Group, name: str, step: int | None) -> _Match:
    steps = set(first.steps_of(name)) & set(second.steps_of(name))
    if not steps or (step is not None and step not in steps):
        raise RecordError(
            f"{first.key}.{name} was not measured at {'a' if step is None else 'this'} common step of both runs."
        )
    step = max(steps) if step is None else step
    pair = [_last(group.read(name, [step])) for group in (first, second)]
    if any("split" in variable.dims for variable in pair):
        pair = [_with_split(variable, 0) for variable in pair]
    old, new = pair
    if old.dims != new.dims:
        raise RecordError(f"{first.key}.{name} has the dims {old.dims} in one run and {new.dims} in the other.")
    common = [_common(mine, other) for mine, other in zip(old.axes, new.axes, strict=True)]
    before, in_first = _take(old, [places[0] for _, places in common])
    after, in_second = _take(new, [places[1] for _, places in common])
    axes = tuple(axis for axis, _ in common)
    only = tuple(sum(mine.size - axis.size for mine, axis in zip(run.axes, axes, strict=True)) for run in pair)
    units = str(old.attrs.get("units", ""))
    return _Match(name, step, units, old.dims, axes, before, after, in_first & in_second, (only[0], only[1]))


def _summary(key: str, match: _Match) -> Difference:
    before, after = match.before, match.after
    differs = match.measured & (before != after) & ~(np.isnan(before) & np.isnan(after))
    gap = match.gap
    place = _largest(gap)
    numbers = np.abs(np.concatenate([before[match.measured], after[match.measured]]))
    scale = float(np.max(numbers, initial=0.0, where=np.isfinite(numbers)))
    largest = float("nan") if place is None else float(abs(gap[place]))
    labels = (
        {} if place is None else {d: a.labels()[at] for d, a, at in zip(match.dims, match.axes, place, strict=True)}
    )
    return Difference(
        key=key,
        variable=match.name,
        step=match.step,
        units=match.units,
        compared=int(np.count_nonzero(match.measured)),
        changed=int(np.count_nonzero(differs)),
        largest=largest,
        relative=0.0 if largest == 0 else largest / scale if scale else float("nan"),
        where=labels,
        before=float("nan") if place is None else float(before[place]),
        after=float("nan") if place is None else float(after[place]),
        only_first=match.only[0],
        only_second=match.only[1],
    )


def _largest(gap: NDArray[Any]) -> tuple[int, ...] | None:
    sizes = np.where(np.isnan(gap), -1.0, np.abs(gap))
    if not sizes.size or sizes.max() < 0:
        return None
    return tuple(int(at) for at in np.unravel_index(int(sizes.argmax()), sizes.shape))


def _common(mine: Axis, other: Axis) -> tuple[Axis, tuple[NDArray[np.intp], NDArray[np.intp]]]:
    places = {label: place for place, label in enumerate(other.labels())}
    shared = [(label, place, places[label]) for place, label in enumerate(mine.labels()) if label in places]
    axis = Axis.of(tuple(label for label, _, _ in shared), len(shared))
    return axis, (np.array([at for _, at, _ in shared], np.intp), np.array([at for _, _, at in shared], np.intp))


def _take(variable: Variable, places: list[NDArray[np.intp]]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    index = np.ix_(*places) if places else ()
    return np.asarray(variable.values[index], np.float64), np.asarray(variable.measured[index])


def _last(variable: Variable) -> Variable:
    """Without the step, of which there is one."""
    last = Joined(variable.values[-1], variable.axes[1:], variable.measured[-1])
    return Variable(variable.name, variable.dims[1:], last, variable.attrs)


def _with_split(variable: Variable, place: int = 1) -> Variable:
    if "split" in variable.dims:
        return variable
    dims = (*variable.dims[:place], "split", *variable.dims[place:])
    axes = (*variable.axes[:place], Axis("labels", ("",)), *variable.axes[place:])
    values, measured = (np.expand_dims(each, place) for each in (variable.values, variable.measured))
    return Variable(variable.name, dims, Joined(values, axes, measured), variable.attrs)


def _in_run(run: str, piece: Piece) -> Piece:
    measured = None if piece.measured is None else piece.measured[None]
    return Piece(piece.values[None], (Axis("labels", (run,)), *piece.axes), measured)


def _without_fill(attrs: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in attrs.items() if key != "_FillValue"}


def _listed(records: Mapping[str, Record]) -> str:
    return "; ".join(f"{name}: {', '.join(record) or 'nothing'}" for name, record in records.items())
