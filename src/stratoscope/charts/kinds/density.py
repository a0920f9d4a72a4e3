"""The eigenvalues of one weight matrix at the last measured step, with the law of noise and the tail's power law over them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stratoscope.charts.numbers import format_number
from stratoscope.charts.values import Axis, Chart, FloatArray, Line, Mark, Rule
from stratoscope.charts.variable import Variable
from stratoscope.numerics.marchenko_pastur import density, edges

MOST = 60
"""Matrices that get a picture; of more, the first ones."""
FEWEST = 10
"""Eigenvalues below which a density is no picture."""
NEEDED = ("N", "M", "bulk_sigma", "alpha", "xmin", "xmax", "num_pl_spikes", "num_spikes", "noise_edge")
POINTS = 120


def matches(variable: Variable) -> bool:
    """Eigenvalues of matrices, with what was fitted to them beside."""
    eigenvalues = variable.name == "eigenvalue" and variable.dims == ("matrix_eigen",)
    return eigenvalues and all(name in variable.companions for name in NEEDED)


def build(variable: Variable) -> Iterator[Chart]:
    """One chart for each matrix."""
    last = variable.last(0)
    if last is None:
        return
    owner = np.array([str(label[0]) for label in variable.labels[0]])
    there = variable.measured[last, 0] & (variable.values[last, 0] > 0)
    for name in variable.names[:MOST]:
        values = variable.values[last, 0][there & (owner == name)]
        if len(values) >= FEWEST:
            yield _chart(variable, last, name, np.sort(values))


def _chart(variable: Variable, last: int, name: str, values: FloatArray) -> Chart:
    step = variable.steps[last]
    at = {key: _fitted(variable.companions[key], name, step) for key in NEEDED}
    whole = at["M"] if np.isfinite(at["M"]) else float(len(values))
    marks: list[Mark] = [Line(0, *_histogram(values, whole))]
    series, parts = (
        ["eigenvalues"],
        [f"{len(values):,} eigenvalues from {format_number(values[0])} to {format_number(values[-1])}"],
    )
    if np.isfinite(at["bulk_sigma"]) and at["bulk_sigma"] > 0:
        marks.append(Line(len(series), *_noise(at, whole), role="reference"))
        series.append("noise (Marchenko-Pastur)")
        parts.append(f"{at['num_spikes']:.0f} stand above what noise reaches")
    if np.isfinite(at["alpha"]) and at["num_pl_spikes"] > 0:
        marks.append(Line(len(series), *_tail(at, values, whole), role="reference"))
        series.append(f"power law, exponent {format_number(at['alpha'])}")
        parts.append(f"the tail's {at['num_pl_spikes']:.0f} fall with the exponent {format_number(at['alpha'])}")
    if np.isfinite(at["noise_edge"]):
        marks.append(Rule("edge of noise", at["noise_edge"], upright=True))
    return Chart(
        id=f"{variable.instrument}-{variable.name}-density-{name}",
        kind="density",
        title=f"Spectrum of {name}",
        caption=f"At step {step:,}: {'; '.join(parts)}.",
        instrument=variable.instrument,
        variable=variable.name,
        units=variable.units,
        source=variable.source,
        x=Axis("eigenvalue", variable.units, "log"),
        y=Axis("density of the eigenvalues", "1", "log"),
        marks=tuple(marks),
        series=tuple(series),
    )


def _fitted(companion: Variable, name: str, step: int) -> float:
    """A number of a matrix at the same step; NaN where there is none."""
    if name not in companion.names or step not in companion.steps:
        return float("nan")
    return float(companion.values[companion.steps.index(step), 0, companion.names.index(name)])


def _histogram(values: FloatArray, whole: float) -> tuple[FloatArray, FloatArray]:
    """Density in bins that are equal on a logarithmic axis, as a staircase; empty bins are gaps."""
    low, high = values[0] * (1 - 1e-9), values[-1] * (1 + 1e-9)
    count = int(np.clip(np.sqrt(len(values)) * 1.5, 6, 80))
    cuts = np.geomspace(low, max(high, low * 1.01), count + 1)
    shares = np.histogram(values, cuts)[0] / (whole * np.diff(cuts))
    heights = np.where(shares > 0, shares, np.nan)
    x: FloatArray = np.repeat(cuts, 2)[1:-1]
    x[1::2] *= 1 - 1e-9  # ascending, so that no renderer takes a step's two ends for one place
    return x, np.repeat(heights, 2)


def _noise(at: dict[str, float], whole: float) -> tuple[FloatArray, FloatArray]:
    """The law of noise, of as many eigenvalues as are not above its edge."""
    ratio, variance = at["M"] / at["N"], at["bulk_sigma"] ** 2
    low, high = (variance * edge for edge in edges(ratio))
    x = np.geomspace(max(low, 1e-4 * high), high, POINTS)
    y = density(x, ratio, variance) * (1 - at["num_spikes"] / whole)
    return x, np.where(y > 0, y, np.nan)


def _tail(at: dict[str, float], values: FloatArray, whole: float) -> tuple[FloatArray, FloatArray]:
    start, alpha = at["xmin"], at["alpha"]
    end = at["xmax"] if np.isfinite(at["xmax"]) and at["xmax"] > start else float(values[-1])
    x = np.geomspace(start, end, POINTS)
    y: FloatArray = at["num_pl_spikes"] / whole * (alpha - 1) / start * (x / start) ** -alpha
    return x, y
