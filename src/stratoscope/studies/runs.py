"""What the tasks of a study measured, as claims read it.

```python
def falls(runs):
    def smallest_step(same):  # the runs of one seed
        soft = [run.number("spectrum", "mp_softrank", matrix="fc1.weight") for run in same.sorted("batch")]
        return min(b - a for a, b in pairwise(soft))

    return Evidence(runs.per_seed(smallest_step), "smallest rise of the soft rank from one batch size to the next")
```
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from stratoscope.engine.task import Spec
from stratoscope.errors import SettingError
from stratoscope.record.record import Record

if TYPE_CHECKING:
    import xarray as xr

    from stratoscope.record.combine import Runs

SEED = "seed"


class Run:
    """One task that is done.

    Attributes:
        spec: what it was given: its columns.
        folder: where its record lies.
    """

    def __init__(self, spec: Spec, folder: Path) -> None:
        self.spec, self.folder = dict(spec), folder

    @cached_property
    def record(self) -> Record:
        """What it measured."""
        return Record.open(self.folder)

    def array(self, key: str, variable: str) -> xr.DataArray:
        """One variable of one instrument, with its dims.

        Raises:
            RecordError: if it was not measured (names what was).
        """
        return self.record[key][variable]

    def number(self, key: str, variable: str, step: int | None = None, **labels: Any) -> float:
        """One number.

        Args:
            key: of the instrument.
            variable: its name.
            step: when; the last at which it was measured by default.
            **labels: one for each further dim, as `matrix="fc1.weight"`.

        Raises:
            RecordError: if it was not measured.
            SettingError: if a dim is left over, or there is no such label.
        """
        found = self.array(key, variable)
        try:
            found = found.isel(step=-1) if step is None else found.sel(step=step)
            found = found.sel(labels)
        except (KeyError, ValueError) as error:
            raise SettingError(f"{key}.{variable} of {self} has no {labels or step}: {error}.") from error
        if found.size != 1:
            raise SettingError(f"{key}.{variable} of {self} is no single number: {dict(found.sizes)} is left.")
        return float(found.item())

    def __repr__(self) -> str:
        return f"Run({', '.join(f'{name}={value}' for name, value in self.spec.items())})"


class StudyRuns(Sequence[Run]):
    """The runs of a study, or some of them."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self._runs = tuple(runs)

    def where(self, **columns: Any) -> StudyRuns:
        """The runs whose spec has these values; a tuple or list means any of several.

        >>> runs = StudyRuns([Run({"batch": size, "seed": 0}, Path(f"{size}")) for size in (2, 4, 8)])
        >>> runs.where(batch=(2, 8))
        StudyRuns([Run(batch=2, seed=0), Run(batch=8, seed=0)])
        """
        return StudyRuns([run for run in self if has(run.spec, columns)])

    def values(self, column: str) -> list[Any]:
        """The values of a column, in ascending order.

        Raises:
            SettingError: if a run lacks it.
        """
        lacks = [run for run in self if column not in run.spec]
        if lacks:
            raise SettingError(f"{lacks[0]} has no column {column!r}.")
        found = {run.spec[column] for run in self}
        return sorted(found, key=None if len(set(map(type, found))) < 2 else _order)

    def by(self, column: str) -> Iterator[tuple[Any, StudyRuns]]:
        """The runs with each value of a column, in ascending order."""
        for value in self.values(column):
            yield value, StudyRuns([run for run in self if run.spec[column] == value])

    def sorted(self, column: str) -> StudyRuns:
        """The same runs, in ascending order of a column."""
        self.values(column)
        order = self.values(column)
        return StudyRuns(sorted(self, key=lambda run: order.index(run.spec[column])))

    def per_seed(self, effect: Callable[[StudyRuns], float]) -> dict[int, float]:
        """What a function says of the runs of each seed; truth values stay truth values."""
        return {int(seed): effect(same) for seed, same in self.by(SEED)}

    @property
    def only(self) -> Run:
        """The one run.

        Raises:
            SettingError: if there is not exactly one.
        """
        if len(self) != 1:
            raise SettingError(f"There is not one run but {len(self)}: {list(self)[:4]}.")
        return self[0]

    @property
    def combined(self) -> Runs:
        """All records read as one, with the dim `run`: `runs.combined["spectrum"]["alpha"]`."""
        from stratoscope.record.combine import concat

        return concat([run.record for run in self])

    def array(self, key: str, variable: str) -> xr.DataArray:
        """One variable with the dim `run`, along which lie the columns of the specs, `seed` among them.

        `runs.array("spectrum", "alpha").set_index(run=["seed", "batch"]).unstack("run")` makes them dims.
        """
        found = self.combined[key][variable]
        for column in dict.fromkeys(name for run in self for name in run.spec):
            labels = {run.record.run_id: run.spec.get(column) for run in self}
            found = found.assign_coords({column: ("run", [labels[name] for name in found["run"].values])})
        return found

    def close(self) -> None:
        """Let go of the files."""
        for run in self:
            if "record" in vars(run):
                run.record.close()
                del run.record

    @overload
    def __getitem__(self, at: int) -> Run: ...

    @overload
    def __getitem__(self, at: slice) -> StudyRuns: ...

    def __getitem__(self, at: int | slice) -> Run | StudyRuns:
        return StudyRuns(self._runs[at]) if isinstance(at, slice) else self._runs[at]

    def __len__(self) -> int:
        return len(self._runs)

    def __repr__(self) -> str:
        return f"StudyRuns({list(self._runs)})"


def _order(value: Any) -> tuple[bool, float, str]:
    """Numbers first, then text: columns may hold both."""
    is_number = isinstance(value, int | float)
    return not is_number, value if is_number else 0.0, str(value)


def has(spec: Spec, columns: Mapping[str, Any]) -> bool:
    """Whether a spec has these values; a tuple or list means any of several."""
    return all(
        name in spec and (spec[name] in value if isinstance(value, tuple | list) else spec[name] == value)
        for name, value in columns.items()
    )
