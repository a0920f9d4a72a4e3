"""Reading saved numbers back, for judgements: the last measured value of each layer, and codes that stayed silent."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
from jaxtyping import Float

from stratoscope.findings import Evidence, Finding, Outcome
from stratoscope.network.layers import ROOT

if TYPE_CHECKING:
    import xarray as xr

    from stratoscope.instruments.base import Judge
    from stratoscope.record.group import Group


class Place(TypedDict):
    """Where a finding stands; given to `Instrument.finding`."""

    layer: str | None
    step: int | None
    split: str | None


@dataclass(frozen=True)
class At:
    """The values of some variables at one layer (or matrix, or param), split and step."""

    layer: str | None
    step: int
    split: str | None
    values: dict[str, float]

    def __getitem__(self, name: str) -> float:
        return self.values[name]

    @property
    def place(self) -> Place:
        """Where this is."""
        return {"layer": self.layer, "step": self.step, "split": self.split}


def last_of(measured: Group | Mapping[str, xr.DataArray], *names: str, dim: str | None = "layer") -> Iterator[At]:
    """For each place along `dim` (and split), the values at the last step at which the first name was measured.

    Args:
        measured: an instrument's variables: its group of a record, or labelled arrays by name.
        *names: variables with the dims `step`, `split` where there are splits, and `dim`. Those that the record does
            not hold are NaN.
        dim: `"layer"`, `"matrix"`, `"param"`, or `None` for the whole network.
    """
    if names[0] not in measured:
        return
    # plain numbers: of a whole run there are thousands of places, and finding each by its labels in xarray takes long
    found = {name: _numbers(measured, name, dim) for name in names if name in measured}
    first = found[names[0]]
    steps = list(first.steps)
    for split in first.splits:
        there = ~np.isnan(first.table(split))
        for label, place in first.places.items():
            known = np.flatnonzero(there[:, place])
            if len(known):
                step = steps[known[-1]]
                values = {name: found[name].at(step, split, label) if name in found else math.nan for name in names}
                yield At(label, step, split, values)


@dataclass(frozen=True)
class _Numbers:
    """Numbers of one variable by step, split and place; where it has no splits or no places there is one, `None`."""

    values: Float[np.ndarray, "steps splits places"]
    steps: Mapping[int, int]
    splits: Mapping[str | None, int]
    places: Mapping[str | None, int]

    @classmethod
    def of(
        cls, values: np.ndarray, dims: Sequence[Hashable], labels: Mapping[str, Sequence[Any]], dim: str | None
    ) -> _Numbers:
        wanted = ["step", *(one for one in ("split", dim) if one in labels)]
        ordered = np.asarray(values, float).transpose([list(dims).index(one) for one in wanted])
        splits, places = _places(labels.get("split")), _places(None if dim is None else labels.get(dim))
        steps = {int(step): place for place, step in enumerate(labels["step"])}
        return cls(ordered.reshape(len(steps), len(splits), len(places)), steps, splits, places)

    def table(self, split: str | None) -> Float[np.ndarray, "steps places"]:
        return self.values[:, self.splits[split]]

    def at(self, step: int, split: str | None, place: str | None) -> float:
        """The number there; NaN where there is none: not every variable is there at every step and for every split."""
        own = None if None in self.splits else split
        if step not in self.steps or own not in self.splits or place not in self.places:
            return math.nan
        return float(self.values[self.steps[step], self.splits[own], self.places[place]])


def _numbers(measured: Group | Mapping[str, xr.DataArray], name: str, dim: str | None) -> _Numbers:
    read = getattr(measured, "variable", None)
    if read is None:  # no record: plain arrays
        array = measured[name]
        return _Numbers.of(array.values, array.dims, {str(one): array.coords[one].values for one in array.dims}, dim)
    variable = read(name)
    labels = {one: axis.labels() for one, axis in zip(variable.dims, variable.axes, strict=True)}
    return _Numbers.of(variable.values, variable.dims, labels, dim)


def _places(labels: Sequence[Any] | None) -> dict[str | None, int]:
    return {None: 0} if labels is None else {str(label): place for place, label in enumerate(labels)}


def by_split(measured: Group, *names: str) -> Iterator[list[At]]:
    """The layers of each split in order (see `last_of`), without the network where it gives what a layer gives."""
    for _, layers in groupby(last_of(measured, *names), key=lambda at: at.split):
        in_order = list(layers)
        own = [at for at in in_order if at.layer != ROOT]
        yield [at for at in in_order if at.layer != ROOT or not any(_repeats(at, other) for other in own)]


def _repeats(at: At, other: At) -> bool:
    """Whether everything that was measured in one place reads the same in another."""
    return all(value == other[name] for name, value in at.values.items() if value == value)


def together(
    judge: Judge,
    code: str,
    layers: Sequence[At],
    size: Callable[[At], float],
    of: int,
    says: str,
    numbers: Callable[[At], str],
    *,
    do: str,
    evidence: Callable[[At], Mapping[str, Evidence]],
    outcome: Outcome = Outcome.TIP,
) -> Iterator[Finding]:
    """One finding about one layer, and one about many: what holds of most layers is one fact and not one a layer.

    Args:
        judge: who speaks.
        code: of the finding.
        layers: of which it holds; nothing is said if there are none.
        size: by which the layer is chosen whose numbers are told: the largest.
        of: layers that were looked at.
        says: what holds, after a layer's name: `"has ..."`.
        numbers: the numbers of one layer, in words.
        do: what to try.
        evidence: the numbers of one layer by name, the limit among them.
        outcome: what kind of statement this is.
    """
    if not layers:
        return
    most = max(layers, key=size)
    text, place = f"{most.layer} {says}: {numbers(most)}", most.place
    more: dict[str, Evidence] = {}
    if len(layers) > 1:
        names = [str(at.layer) for at in layers]
        text = f"{len(names)} of {of} layers: each {says}: {some(names)}; most of all {most.layer}: {numbers(most)}"
        place = Place(layer=None, step=most.step, split=most.split)
        more = {"layers": ", ".join(names), "count": len(names), "of": of, "most": most.layer}
    yield judge.finding(code, outcome, text, do=do, **place, **more, **evidence(most))


def passed_if_silent(
    instrument: Judge, findings: Iterable[Finding], codes: Iterable[str], measured: Group
) -> Iterator[Finding]:
    """Pass findings on; then say of every code that did not speak up that it was looked at and passed."""
    spoken: set[str] = set()
    for finding in findings:
        spoken.add(finding.code)
        yield finding
    if len(measured) == 0:
        return
    for code in codes:
        if code not in spoken:
            yield instrument.finding(code, Outcome.PASSED, f"Not seen: {instrument.codes[code]}")


def some(names: Sequence[str], most: int = 3) -> str:
    """The first few names, and how many more there are.

    >>> some(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
