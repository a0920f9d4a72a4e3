"""What `health` derives from the time series of a training: the numbers that its rules judge.

A training has many steps, so what is known of each step is summed up over at most `blocks` stretches of recorded steps,
each labelled with its last step.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from stratoscope.numerics.spikes import spikes
from stratoscope.record.quantity import Quantity, quantity

if TYPE_CHECKING:
    import xarray as xr

    from stratoscope.record.group import Group
    from stratoscope.record.rows import LayerRow

TRAIN = "train"

SOONEST = 20
"""Steps at the beginning that say how large a gradient is to begin with."""


@dataclass(frozen=True)
class Wiring:
    """The trained tensors of a network by what the catalogue says of them.

    Attributes:
        depth: place in depth of each param that weight matrices are made of, embeddings left out.
        trainable: of every param that could learn, whether it is meant to: 1, 0, or NaN where nobody says.
        params_of: for each matrix, the params that it is made of.
    """

    depth: Mapping[str, int]
    trainable: Mapping[str, float]
    params_of: Mapping[str, tuple[str, ...]]

    @classmethod
    def of(cls, layers: Sequence[LayerRow]) -> Wiring:
        """Read off a record's layers."""
        depth: dict[str, int] = {}
        trainable: dict[str, float] = {}
        params_of: dict[str, tuple[str, ...]] = {}
        for place, row in enumerate(layers):
            for matrix in row.spec.get("matrices", ()):
                params_of[matrix["name"]] = tuple(matrix["params"])
                if matrix["kind"] != "embedding":
                    depth |= {name: place for name in matrix["params"] if name not in depth}
            for param in row.spec.get("params", ()):
                if param["role"] != "statistic" and param["same_as"] is None and not param["reason"]:
                    trainable[param["name"]] = math.nan if param["trainable"] is None else float(param["trainable"])
        return cls(depth, trainable, params_of)


@dataclass(frozen=True)
class Numbers:
    """Everything that follows from what was recorded.

    Attributes:
        groups: by the instrument's key.
        wiring: of the network.
        blocks: stretches of steps at most.
        window: steps before each that a loss or a gradient is compared with.
    """

    groups: Mapping[str, Group]
    wiring: Wiring
    blocks: int
    window: int

    def quantities(self) -> dict[str, Quantity]:
        """What matters most first."""
        found = {"steps_recorded": _plain(self._recorded(), "steps at which a loss or a gradient was recorded")}
        for part in (self._loss, self._gradients, self._updates, self._never, self._norms, self._ranks, self._accuracy):
            found |= part()
        return found

    # -- every step ------------------------------------------------------------------------------------------------------

    def _of_steps(self, name: str) -> xr.DataArray | None:
        """A variable of `training` at those steps at which it was recorded."""
        group = self.groups["training"]
        if name not in group:
            return None
        return group[name].where(group.measured(name)).dropna("step", how="all")

    def _recorded(self) -> int:
        """Steps at which a loss or a gradient is known and finite."""
        steps = [
            set(a.coords["step"].values.tolist())
            for n in ("loss", "gradient_norm")
            if (a := self._of_steps(n)) is not None
        ]
        return len(set().union(*steps)) if steps else 0

    def _stretches(self, steps: int) -> list[slice]:
        """At most `blocks` stretches of about as many steps."""
        edges = np.unique(np.linspace(0, steps, min(self.blocks, steps) + 1).round().astype(int))
        return [slice(int(one), int(two)) for one, two in pairwise(edges)]

    def _by_stretch(self, array: xr.DataArray, values: np.ndarray, how: Any, long_name: str, **attrs: Any) -> Quantity:
        """Sum a curve, or one of each param, up over each stretch."""
        stretches = self._stretches(len(values))
        steps = array.coords["step"].values
        rows = np.array([_quietly(how, values[stretch]) for stretch in stretches], dtype=float)
        labels: dict[str, Sequence[Any]] = {"step": [int(steps[stretch.stop - 1]) for stretch in stretches]}
        dims = ("step", "param")[: rows.ndim]
        if rows.ndim == 2:
            labels["param"] = [str(name) for name in array.coords["param"].values]
        return quantity(rows, units="1", long_name=long_name, dims=dims, coords=labels, **attrs)

    def _loss(self) -> dict[str, Quantity]:
        loss = self._of_steps("loss")
        if loss is None or loss.sizes["step"] == 0:
            return {}
        values = loss.values.astype(float)
        seen = spikes(values, self.window)
        worst = [_worst(seen.height[s]) + s.start for s in self._stretches(len(values))]
        steps = [int(loss.coords["step"].values[s.stop - 1]) for s in self._stretches(len(values))]

        def at_worst(numbers: np.ndarray, long_name: str, **attrs: Any) -> Quantity:
            return quantity(
                numbers[worst].astype(float),
                units="1",
                long_name=long_name,
                dims="step",
                coords={"step": steps},
                **attrs,
            )

        return {
            "loss_level": self._by_stretch(loss, values, np.nanmedian, "loss of the mini-batch, median over a stretch of steps"),
            "spike_height": at_worst(
                seen.height, "highest loss of the stretch above those before it, in deviations of their noise", headline=1
            ),
            "spike_undone": at_worst(seen.undone, "that rise over all that the loss had fallen", chart="none"),
            "spike_loss": at_worst(values, "the loss there", chart="none"),
            "spike_before": at_worst(seen.expected, "what the losses before it led to", chart="none"),
            "spike_step": at_worst(loss.coords["step"].values, "the step of that loss", chart="none"),
        }  # fmt: skip

    def _weights_among(self, array: xr.DataArray) -> tuple[list[int], list[str]]:
        """Places and names of the weights of a variable, in the order of depth."""
        names = [str(name) for name in array.coords["param"].values]
        kept = sorted((self.wiring.depth[name], i) for i, name in enumerate(names) if name in self.wiring.depth)
        return [i for _, i in kept], [names[i] for _, i in kept]

    def _gradients(self) -> dict[str, Quantity]:
        norm = self._of_steps("gradient_norm")
        if norm is None or norm.sizes["step"] == 0:
            return {}
        places, names = self._weights_among(norm)
        if not places:
            return {}
        norm = norm.isel(param=places)
        values = np.where(np.isfinite(norm.values), norm.values, np.nan).astype(float)
        burst = self._bursts(values)
        found = {
            "gradient_level": self._by_stretch(
                norm, values, lambda rows: np.nanmedian(rows, 0), "norm of the gradient, median over a stretch of steps", scale="log"
            ),
            "burst": self._by_stretch(
                norm, burst, lambda rows: np.nanmax(rows, 0),
                "norm of the gradient over what it was before and to begin with, third largest of 20 steps", scale="log",
            ),
        }  # fmt: skip
        slope, plain = along_depth(values, np.array([self.wiring.depth[name] for name in names]))
        text = "gradient of the first weights over that of the last"
        found["gradient_along_depth"] = self._by_stretch(
            norm.isel(param=0), slope, np.nanmedian, f"{text}, by a line through all, median", scale="log", headline=2
        )
        found["gradient_along_depth_most"] = self._by_stretch(
            norm.isel(param=0), slope, np.nanmax, f"{text}, by a line through all, largest", scale="log"
        )
        found["gradient_first_over_last"] = self._by_stretch(
            norm.isel(param=0), plain, np.nanmedian, f"{text}, median", scale="log"
        )
        return found

    def _bursts(self, values: np.ndarray) -> np.ndarray:
        """Each norm over the larger of what the ones before lead to and the median of the first; third largest of late."""
        begin = _quietly(lambda rows: np.nanmedian(rows, 0), values[:SOONEST])
        found = np.full(values.shape, np.nan)
        for column in range(values.shape[1]):
            before = spikes(values[:, column], self.window).expected
            with np.errstate(divide="ignore", invalid="ignore"):
                over = values[:, column] / np.fmax(before, begin[column])
            over = np.concatenate([np.zeros(SOONEST - 1), np.nan_to_num(over, posinf=0.0)])
            late = np.lib.stride_tricks.sliding_window_view(over, SOONEST)
            found[:, column] = np.partition(late, SOONEST - 3, axis=1)[:, SOONEST - 3]
        return found

    def _updates(self) -> dict[str, Quantity]:
        ratio = self._of_steps("update_ratio")
        if ratio is None or ratio.sizes["step"] == 0:
            return {}
        places, _ = self._weights_among(ratio)
        if not places:
            return {}
        ratio = ratio.isel(param=places)
        values = np.where(np.isfinite(ratio.values), ratio.values, np.nan).astype(float)
        typical = _quietly(lambda rows: np.nanmedian(np.where(rows > 0, rows, np.nan), 1, keepdims=True), values)
        steps = ratio.coords["step"].values
        stretch = (steps[-1] - steps[0] + 1) / len(steps)  # steps that were not recorded moved it, too
        return {
            "update_level": self._by_stretch(
                ratio, values, lambda rows: np.nanmedian(rows, 0), "update over weights, median over a stretch of steps", scale="log"
            ),
            "relative_speed": self._by_stretch(
                ratio, values / typical, lambda rows: np.nanmedian(rows, 0),
                "update over weights, over the median of all weights that move", scale="log",
            ),
            "path": quantity(
                np.nansum(values, 0) * stretch, units="1", dims="param", scale="log",
                coords={"param": [str(name) for name in ratio.coords["param"].values]},
                long_name="length of the way that weights went, over their norm; more than how far they came",
            ),
        }  # fmt: skip

    def _never(self) -> dict[str, Quantity]:
        """Which params were never updated, if it was seen what steps did."""
        group, known = self.groups["training"], self.wiring.trainable
        if "gradient_norm" not in group:
            return {}
        norm = group.variable("gradient_norm")
        seen = norm.measured.reshape(len(norm.measured), -1).sum(0)
        updated = {str(name) for name, count in zip(norm.axes[-1].labels(), seen, strict=True) if count}
        if not updated & set(known):  # another module's names, or nothing recorded
            return {}
        names = list(known)
        coords = {"param": names}
        return {
            "never_updated": quantity(
                [float(name not in updated) for name in names], units="1", dims="param", coords=coords, chart="none",
                long_name="whether no optimizer step ever had a gradient for it",
            ),
            "trainable": quantity(
                [known[name] for name in names], units="1", dims="param", coords=coords, chart="none",
                long_name="whether it asks for a gradient",
            ),
        }  # fmt: skip

    # -- full measurements -----------------------------------------------------------------------------------------------

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
        places, _ = self._weights_among(norm)
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
        decay = self._of_steps("decay_rate")
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


def along_depth(norms: np.ndarray, depths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first weights' gradient norm over the last ones', at each step: by a straight line through the logarithms, and plain.

    Weights whose gradient is zero or unknown take no part; several at one depth count as their geometric mean. NaN where
    there are fewer than two depths.

    Args:
        norms: steps x weights.
        depths: of each weight.

    >>> [ratio.round(6).tolist() for ratio in along_depth(np.array([[1e-4, 1e-2, 1.0]]), np.array([0, 1, 2]))]
    [[0.0001], [0.0001]]
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.where(np.isfinite(norms) & (norms > 0), np.log(norms), np.nan)
    every = np.unique(depths)
    rows = np.stack([_quietly(lambda part: np.nanmean(part, 1), logs[:, depths == place]) for place in every], axis=1)
    there = np.isfinite(rows)
    count = there.sum(1)
    filled, place = np.where(there, rows, 0.0), np.where(there, np.arange(len(every)), 0)
    first = np.where(there.any(1), there.argmax(1), 0)
    last = np.where(there.any(1), len(every) - 1 - there[:, ::-1].argmax(1), 0)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        centred = np.where(there, place - (place.sum(1) / count)[:, None], 0.0)
        slope = (centred * filled).sum(1) / (centred**2).sum(1)
        line, ends = (
            np.exp(-slope * (last - first)),
            np.exp(
                np.take_along_axis(rows, first[:, None], 1)[:, 0] - np.take_along_axis(rows, last[:, None], 1)[:, 0]
            ),
        )
    return np.where(count > 1, line, np.nan), np.where(count > 1, ends, np.nan)


def _running_best(values: np.ndarray) -> np.ndarray:
    """For each place, where the largest value up to it lies; the first of several."""
    found, best = np.zeros(len(values), dtype=int), 0
    for place, value in enumerate(values):
        if value > values[best] or math.isnan(values[best]):
            best = place
        found[place] = best
    return found


def _worst(heights: np.ndarray) -> int:
    return int(np.nanargmax(heights)) if np.isfinite(heights).any() else 0


def _quietly(how: Any, values: np.ndarray) -> Any:
    """Without numpy's warning about rows of which nothing is known."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return how(values)


def _plain(value: float, long_name: str) -> Quantity:
    return quantity(float(value), units="1", long_name=long_name, chart="none")
