"""What one instrument measured over a run."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import numpy as np

from stratoscope.errors import RecordError
from stratoscope.record import html
from stratoscope.record.axis import Axis
from stratoscope.record.join import Joined, Piece, join, merge_attrs
from stratoscope.record.store import Points, SeriesInfo, Store
from stratoscope.record.variables import Variable, Variables, step_axis


class Group(Variables):
    """What one instrument, in one setting, measured: a mapping of variables.

    Every variable is an `xarray.DataArray` whose first dim is `step`, then `split` where data were needed, then its
    own. Parts of several commits are joined along their labels; what was not measured is NaN, -1 among categories,
    and `False` in `measured(name)`. Stacked dims such as `layer_unit` have the levels `layer` and `unit`:
    `group["active_share"].sel(layer="conv2")` has the dims `(step, unit)`.
    """

    def __init__(self, store: Store, instrument: str, label: str = "") -> None:
        """Use `record[key]` instead."""
        super().__init__()
        self.instrument = instrument
        self.label = label
        self._store = store
        self._seq = store.seq
        self._steps: dict[str | None, tuple[int, ...]] = {}
        rows = [row for row in store.series.values() if (row.instrument, row.label) == (instrument, label)]
        self._series: dict[str, list[SeriesInfo]] = {}
        for row in rows:
            self._series.setdefault(row.name, []).append(row)

    @property
    def key(self) -> str:
        """The name of this group in the record."""
        return f"{self.instrument}:{self.label}" if self.label else self.instrument

    @property
    def title(self) -> str:
        """The instrument's name for people; its key where the run does not say."""
        return str(self._about().get("title", self.key))

    @property
    def attrs(self) -> dict[str, Any]:
        """`instrument`, `label`, `title`, `source`, `version` and the last `settings`."""
        last = next(reversed(self._series.values()))[-1]
        about = self._about()
        source = about.get("source", last.attrs.get("source", ""))
        settings = _settings(last.settings)
        return {
            **{"instrument": self.instrument, "label": self.label, "title": self.title, "source": source},
            **{"version": last.version, "settings": settings},
        }

    @property
    def steps(self) -> tuple[int, ...]:
        """Every step at which something of it was measured."""
        return self._steps_of(None)

    def steps_of(self, name: str) -> tuple[int, ...]:
        """Every step at which one variable was measured."""
        return self._steps_of(name)

    @property
    def layers(self) -> tuple[str, ...]:
        """Every layer that some variable speaks of, in the order in which they were first measured."""
        names: dict[str, None] = {}
        for series in (row for rows in self._series.values() for row in rows):
            for dim, number in zip(series.dims, series.axes, strict=True):
                if dim == "layer" or (dim.startswith("layer_") and self._store.axis(number).depth > 1):
                    names.update(dict.fromkeys(self._store.axis(number).firsts()))
        return tuple(names)

    def read(self, name: str, steps: Iterable[int] | None = None) -> Variable:
        """Read a variable anew, perhaps only some steps of it.

        Args:
            name: the variable.
            steps: those to read; by default all.

        Raises:
            RecordError: if the file is damaged, or the variable too large to be read at once.
        """
        chosen = None if steps is None else list(steps)
        found = self._store.points(self._seq, self.instrument, self.label, name, chosen)
        series = self._series[name]
        if len({row.dims for row in series}) > 1:
            raise RecordError(
                f"{self._store.name} is damaged: {self.key}.{name} has different dims at different steps."
            )
        splits = any(row.split for row in series)
        dims = ("step", *(("split",) if splits else ()), *series[0].dims)
        by_time = sorted(found, key=lambda points: max(points.seqs))
        attrs = merge_attrs([points.series.attrs for points in by_time] or [series[0].attrs])
        if "source" not in attrs and "source" in self._about():
            attrs["source"] = self._about()["source"]
        return Variable(name, dims, self._join(found, series[0], splits, attrs), attrs)

    def _steps_of(self, name: str | None) -> tuple[int, ...]:
        if name not in self._steps:
            self._steps[name] = self._store.steps(self._seq, self.instrument, self.label, name)
        return self._steps[name]

    def _names(self) -> tuple[str, ...]:
        return tuple(self._series)

    def _load(self, name: str) -> Variable:
        return self.read(name)

    def _join(self, found: list[Points], series: SeriesInfo, splits: bool, attrs: dict[str, Any]) -> Joined:
        if not found:
            return self._nothing(series, splits)
        axes: dict[tuple[int, ...], Axis] = {}
        for points in found:
            if points.steps not in axes:
                axes[points.steps] = Axis.of(points.steps, len(points.steps))
        first = {0: step_axis(list(axes.values()))}
        joined = join([_piece(points, axes[points.steps], splits) for points in found], attrs, first)
        if not joined.overlaps:
            return joined
        singles = sorted((single for points in found for single in _by_step(points)), key=lambda single: single.seqs)
        known = dict(enumerate(joined.axes))
        return join([_piece(single, Axis.of(single.steps, 1), splits) for single in singles], attrs, known)

    def _nothing(self, series: SeriesInfo, splits: bool) -> Joined:
        lead = (Axis("count", (0,)), *((Axis("labels", (series.split,)),) if splits else ()))
        axes = (*lead, *(self._store.axis(number) for number in series.axes))
        return Joined(np.empty(tuple(axis.size for axis in axes)), axes)

    def _about(self) -> dict[str, Any]:
        every = self._store.meta.get("instruments")
        about = every.get(self.key, every.get(self.instrument)) if isinstance(every, dict) else None
        return about if isinstance(about, dict) else {}

    def __repr__(self) -> str:
        lines = [f"<Group {self.key}: {html.span(self.steps)}>"]
        lines += [f"  {name} ({', '.join(rows[0].dims) or 'one number'})" for name, rows in self._series.items()]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return html.group(self, {name: rows[-1] for name, rows in self._series.items()})


def _piece(points: Points, steps: Axis, splits: bool) -> Piece:
    if not splits:
        return Piece(points.values, (steps, *points.axes))
    return Piece(points.values[:, None], (steps, Axis("labels", (points.series.split,)), *points.axes))


def _by_step(points: Points) -> list[Points]:
    rows = enumerate(zip(points.steps, points.seqs, strict=True))
    return [
        Points(points.series, points.axes, (step,), (seq,), points.values[place : place + 1])
        for place, (step, seq) in rows
    ]


def _settings(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
