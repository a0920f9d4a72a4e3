"""How the values of many units (or eigenvalues, ...) are spread within each layer, at the last measured step."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from stratoscope.charts.numbers import format_number
from stratoscope.charts.values import QUANTILES, Axis, Boxes, Chart, FloatArray
from stratoscope.charts.variable import Variable

BINS = 24
NAMES = {"eigen": "eigenvalue"}
"""Parts whose dimension is called something else than they are."""


def matches(variable: Variable) -> bool:
    """A value for each of the many parts of each place."""
    return variable.ragged and len(variable.dims) == 1 and not variable.meanings and not variable.same_everywhere


def build(variable: Variable) -> Iterator[Chart]:
    """One chart for each split."""
    for place, split in enumerate(variable.splits):
        last = variable.last(place)
        if last is not None:
            yield _chart(variable, place, last, split or None)


def _chart(variable: Variable, split: int, last: int, name: str | None) -> Chart:
    there = variable.measured[last, split]
    groups = _groups(variable, np.where(there, variable.values[last, split], np.nan))
    boxes = summary(groups, log=variable.scale == "log", bins=_bins(groups))
    part = variable.dims[0].split("_", 1)[-1]
    part = NAMES.get(part, part)
    where = f"On {name}, each" if name else "Each"
    step = f" at step {variable.steps[last]:,}" if variable.several_steps(split) else ""
    middle = [format_number(value) for value in (np.nanmin(boxes.quantiles), np.nanmax(boxes.quantiles))] if (
        np.isfinite(boxes.quantiles).any()
    ) else ["nothing", "nothing"]  # fmt: skip
    return Chart(
        id=f"{variable.instrument}-{variable.name}-spread-{name or ''}",
        kind="distribution",
        title=variable.title,
        caption=(
            f"{where} {variable.place}{step}: the spread over {int(boxes.counts.sum()):,} {part}s in all, "
            f"from {middle[0]} to {middle[1]}. Thick bar: the middle half; thin line: 90 in 100; tick: the median."
        ),
        instrument=variable.instrument,
        variable=variable.name,
        units=variable.units,
        source=variable.source,
        x=Axis(variable.place, "", "category", variable.names),
        y=variable.axis,
        marks=(boxes,),
        split=name,
    )


def _groups(variable: Variable, values: FloatArray) -> list[FloatArray]:
    where: dict[str, int] = {name: place for place, name in enumerate(variable.names)}
    owner = np.array([where[str(label[0])] for label in variable.labels[0]])
    return [values[owner == place] for place in range(len(where))]


def _bins(groups: list[FloatArray]) -> int:
    """As many bins as the middle group can fill."""
    return int(np.clip(2 * np.sqrt(np.median([len(group) for group in groups])), 6, BINS))


def summary(groups: list[FloatArray], *, log: bool = False, bins: int = BINS) -> Boxes:
    """Quantiles, counts and densities of groups of values; values that are not finite are left out.

    Args:
        groups: values of each place.
        log: whether the bins are equal on a logarithmic axis; values at or below zero then fall into none.
        bins: number of bins.

    >>> box = summary([np.array([0.0, 1.0, 2.0])])
    >>> float(box.quantiles[0, 3]), int(box.counts[0]), float(box.density.sum())
    (1.0, 3, 1.0)
    """
    finite = [group[np.isfinite(group)] for group in groups]
    quantiles = np.array([np.quantile(group, QUANTILES) if len(group) else np.full(7, np.nan) for group in finite])
    edges = _edges(np.concatenate(finite) if finite else np.empty(0), bins, log=log)
    density = np.array([_density(group, edges) for group in finite])
    counts: NDArray[np.int64] = np.array([len(group) for group in finite], dtype=np.int64)
    return Boxes(quantiles.reshape(-1, len(QUANTILES)), counts, density.reshape(-1, bins), edges)


def _edges(values: FloatArray, bins: int, *, log: bool) -> FloatArray:
    values = values[values > 0] if log else values
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    if low == high:
        low, high = (low / 2, high * 2) if log else (low - 0.5, high + 0.5)
    edges: FloatArray = np.geomspace(low, high, bins + 1) if log else np.linspace(low, high, bins + 1)
    return edges


def _density(group: FloatArray, edges: FloatArray) -> FloatArray:
    inside = np.clip(group[group > 0] if edges[0] > 0 else group, edges[0], edges[-1])
    counts = np.histogram(inside, edges)[0].astype(np.float64)
    shares: FloatArray = counts / max(float(counts.sum()), 1.0)
    return shares
