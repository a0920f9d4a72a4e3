"""Reading saved numbers back, for judgements: the last measured value of each layer, and codes that stayed silent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, TypedDict

import numpy as np

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


def last_of(measured: Group, *names: str, dim: str | None = "layer") -> Iterator[At]:
    """For each place along `dim` (and split), the values at the last step at which the first name was measured.

    Args:
        measured: an instrument's variables.
        *names: variables with the dims `step`, `split` where there are splits, and `dim`. Those that the record does
            not hold are NaN.
        dim: `"layer"`, `"matrix"`, `"param"`, or `None` for the whole network.
    """
    if names[0] not in measured:
        return
    arrays = {name: measured[name] for name in names if name in measured}
    first = arrays[names[0]]
    splits: list[str | None] = [str(s) for s in first.coords["split"].values] if "split" in first.dims else [None]
    labels: list[str | None] = [str(p) for p in first.coords[dim].values] if dim else [None]
    for split in splits:
        cut = {name: _table(array, split, dim, labels) for name, array in arrays.items()}
        there = ~np.isnan(cut[names[0]])
        for place, label in enumerate(labels):
            steps = np.flatnonzero(there[:, place])
            if len(steps):
                values = {name: float(cut[name][steps[-1], place]) if name in cut else float("nan") for name in names}
                yield At(label, int(first.coords["step"].values[steps[-1]]), split, values)


def _table(array: xr.DataArray, split: str | None, dim: str | None, labels: list[str | None]) -> np.ndarray:
    """Steps x places as floats."""
    if split is not None and "split" in array.dims:
        # a variable is not there for every split: class numbers need labels
        array = array.reindex(split=[split]).isel(split=0)
    if dim is None:
        return array.values.astype(float).reshape(-1, 1)
    array = array.transpose("step", dim)
    if list(map(str, array.coords[dim].values)) != labels:
        array = array.reindex({dim: labels})
    return array.values.astype(float)


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
