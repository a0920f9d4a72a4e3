"""Reading saved numbers back, for judgements: the last measured value of each layer, and codes that stayed silent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from stratoscope.findings import Finding, Outcome

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
        array = array.sel(split=split)
    if dim is None:
        return array.values.astype(float).reshape(-1, 1)
    array = array.transpose("step", dim)
    if list(map(str, array.coords[dim].values)) != labels:
        array = array.reindex({dim: labels})
    return array.values.astype(float)


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
