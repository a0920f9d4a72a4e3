"""What `health` derives from the time series of a training: the numbers that its rules judge."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from stratoscope.diagnoses.health_steps import Steps, Wiring
from stratoscope.record.quantity import Quantity, quantity

if TYPE_CHECKING:
    import xarray as xr

    from stratoscope.record.group import Group

TRAIN = "train"


@dataclass(frozen=True)
class Numbers:
    """Everything that follows from what was recorded.

    Attributes:
        groups: by the instrument's key.
        wiring: of the network.
        blocks: stretches of steps at most.
        window: steps before each that its loss is compared with.
    """

    groups: Mapping[str, Group]
    wiring: Wiring
    blocks: int
    window: int

    def quantities(self) -> dict[str, Quantity]:
        """What is known of every step, then what full measurements tell."""
        return {**self.steps.quantities(), **self._norms(), **self._ranks(), **self._accuracy()}

    @cached_property
    def steps(self) -> Steps:
        """What was recorded of every step."""
        return Steps(self.groups["training"], self.wiring, self.blocks, self.window)

    def _of_measurements(self, key: str, name: str) -> xr.DataArray | None:
        group = self.groups.get(key)
        if group is None or name not in group:
            return None
        array = group[name].astype(float).where(group.measured(name)).dropna("step", how="all")
        return array if array.sizes["step"] >= 2 else None

    def _norms(self) -> dict[str, Quantity]:
        norm = self._of_measurements("weights", "param_norm")
        if norm is None:
            return {}
        places, _ = self.steps.weights_among(norm)
        norm = norm.isel(param=places)
        if not places:
            return {}
        with np.errstate(divide="ignore", invalid="ignore"):
            shares = norm.values / np.fmax.accumulate(norm.values, 0)
        coords = {"step": norm.coords["step"].values.tolist(), "param": [str(n) for n in norm.coords["param"].values]}
        found = {
            "norm_left": quantity(
                shares, units="1", dims=("step", "param"), coords=coords, scale="log", headline=3,
                long_name="norm of the weights over the largest so far",
            )
        }  # fmt: skip
        decay = self.steps.of_steps("decay_rate")
        if decay is not None and decay.sizes["step"]:
            steps, rates = decay.coords["step"].values, np.nan_to_num(decay.values.astype(float))
            gone = np.concatenate([[0.0], np.cumsum(rates * np.diff(steps, prepend=0))])
            at = np.searchsorted(steps, norm.coords["step"].values, side="right")
            found["decay_alone"] = quantity(
                np.exp(-gone[at]), units="1", dims="step", coords={"step": coords["step"]}, scale="log",
                long_name="what weight decay alone would have left of the weights",
            )  # fmt: skip
        return found

    def _ranks(self) -> dict[str, Quantity]:
        rank = self._of_measurements("weights", "effective_rank")
        if rank is None:
            return {}
        names = [str(name) for name in rank.coords["matrix"].values]
        trained = [i for i, name in enumerate(names) if name in self.wiring.params_of]
        if not trained:
            return {}
        values = rank.values[:, trained]
        coords = {"step": rank.coords["step"].values.tolist(), "matrix": [names[i] for i in trained]}
        most = np.fmax.accumulate(values, 0)
        middle = self.groups["weights"]["sv_median"].reindex_like(rank).values[:, trained]
        best = np.array([_running_best(column) for column in values.T]).T
        with np.errstate(divide="ignore", invalid="ignore"):
            left = middle / np.take_along_axis(middle, best, axis=0)
        return {
            "rank_left": quantity(
                values / most, units="1", dims=("step", "matrix"), coords=coords, headline=4,
                long_name="effective rank of the weights over the largest so far",
            ),
            "rank_most": quantity(
                most, units="1", dims=("step", "matrix"), coords=coords, chart="none",
                long_name="largest effective rank of the weights so far",
            ),
            "usual_left": quantity(
                left, units="1", dims=("step", "matrix"), coords=coords, chart="none", scale="log",
                long_name="median singular value over that where the effective rank was largest",
            ),
        }  # fmt: skip

    def _accuracy(self) -> dict[str, Quantity]:
        """How far each held-out accuracy is below its best, and what the training data gained meanwhile."""
        names = ("accuracy", "accuracy_low", "accuracy_high")
        tables = [table for name in names if (table := self._of_measurements("performance", name)) is not None]
        if len(tables) < 3 or "split" not in tables[0].dims or TRAIN not in tables[0].coords["split"]:
            return {}
        splits = [str(split) for split in tables[0].coords["split"].values if split != TRAIN]
        if not splits:
            return {}
        steps = tables[0].coords["step"].values
        value, low, high = (table.reindex(step=steps).transpose("step", "split") for table in tables)
        held, its_low, its_high = (table.sel(split=splits).values for table in (value, low, high))
        best = np.stack([_running_best(column) for column in held.T], axis=1)
        top, its_low = (np.take_along_axis(table, best, axis=0) for table in (held, its_low))
        train = value.sel(split=TRAIN).values
        found = {
            "fall": (top - held, "how far the accuracy is below its best so far"),
            "fall_low": (
                top - held - np.hypot(top - its_low, its_high - held),
                "how far the accuracy is below its best so far, lower end of the 95 % interval",
            ),
            "train_gain": (train[:, None] - train[best], "what the accuracy on the training data gained since"),
            "best": (top, "best accuracy so far"),
            "best_step": (steps[best].astype(float), "step of the best accuracy so far"),
        }
        coords = {"step": steps.tolist(), "split": splits}
        return {
            f"accuracy_{name}": quantity(
                values, units="1", dims=("step", "split"), coords=coords, long_name=text,
                **({"headline": 5} if name == "fall" else {"chart": "none"}),
            )
            for name, (values, text) in found.items()
        }  # fmt: skip


def _running_best(values: np.ndarray) -> np.ndarray:
    """For each place, where the largest value up to it lies; the first of several."""
    found, best = np.zeros(len(values), dtype=int), 0
    for place, value in enumerate(values):
        if value > values[best] or math.isnan(values[best]):
            best = place
        found[place] = best
    return found
