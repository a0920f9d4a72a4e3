"""Phases side by side: layers as rows, each divided into one thin strip a theory, over the measured steps."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stratoscope.charts import colours
from stratoscope.charts.strips import Strips, strips_of
from stratoscope.charts.thin import kept_evenly
from stratoscope.charts.values import Axis, Cells, Chart
from stratoscope.charts.variable import Variable

COLUMNS = 240
"""More steps than this are thinned."""
ROWS = 100
"""Layers in one picture; more make several."""


def matches(variable: Variable) -> bool:
    """A category a layer and theory, that asks for this picture by its attribute `chart`."""
    return (
        variable.attrs.get("chart") == "timeline" and variable.dims == ("layer", "theory") and bool(variable.meanings)
    )


def build(variable: Variable) -> Iterator[Chart]:
    """One chart for each `ROWS` layers of which any theory says something."""
    strips = strips_of(variable)
    if strips is None:
        return
    for first in range(0, len(strips.layers), ROWS):
        yield _chart(variable, strips, slice(first, first + ROWS))


def _chart(variable: Variable, strips: Strips, rows: slice) -> Chart:
    kept = kept_evenly(len(strips.steps), COLUMNS)
    layers, count = strips.layers[rows], len(strips.theories)
    codes = strips.codes[rows][:, :, kept].reshape(len(layers) * count, len(kept))
    asked = [answer for own in strips.answers[rows] for answer in own]
    blank = tuple(row for row, answer in enumerate(asked) if not answer)
    marks = (Cells(codes, strips.phases, strips.theories, strips.told_by, strips.letters, _shades(strips), blank),)
    number = f"-{rows.start // ROWS + 1}" if len(strips.layers) > ROWS else ""
    return Chart(
        id=f"{variable.instrument}-{variable.name}-timeline{number}",
        kind="timeline",
        title=variable.title,
        caption=_caption(strips, rows, len(kept)),
        instrument=variable.instrument,
        variable=variable.name,
        units=variable.units,
        source=variable.source,
        x=Axis("step", "", "category", tuple(f"{strips.steps[place]:,}" for place in kept)),
        y=Axis("layer", "", "category", layers),
        marks=marks,
        colour=variable.axis,
    )


def _shades(strips: Strips) -> tuple[tuple[str, str], ...]:
    """Colours of the phases on light and on dark: a hue for each theory, and early phases nearer to the ground."""
    found = []
    for phase, told_by in enumerate(strips.told_by):
        if len(told_by) != 1:  # the same for several: no hue of its own
            found.append(colours.NEUTRAL)
            continue
        own = [place for place, others in enumerate(strips.told_by) if others == told_by]
        family = strips.families.index(told_by[0])
        light, dark = (colours.shade(family, own.index(phase), len(own), dark=ground) for ground in (False, True))
        found.append((light, dark))
    return tuple(found)


def _caption(strips: Strips, rows: slice, columns: int) -> str:
    shown = strips.layers[rows]
    total = f" of {len(strips.layers):,}" if len(shown) < len(strips.layers) else ""
    steps = strips.steps
    across = (
        "one column for each measured step" if columns == len(steps) else f"{columns} of {len(steps):,} measured steps"
    )
    parts = [
        f"{len(shown):,}{total} layer{'s' if len(shown) > 1 else ''}, {across} from {steps[0]:,} to {steps[-1]:,}; "
        f"in each row from the top: {', '.join(strips.theories)}.",
        *strips.sayings(),
    ]
    if strips.silent:
        parts.append(
            f"Hatched: nothing is said; empty: not looked at. Of {strips.silent:,} further layers no theory says anything."
        )
    elif np.isnan(strips.codes[rows]).any():
        parts.append("Hatched: nothing is said; empty: not looked at.")
    return " ".join(parts)
